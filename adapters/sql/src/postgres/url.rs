//! The parts of a connection URL that are for this adapter rather than for the driver.

use resourceful_contract::{ErrorKind, StorageError};

use crate::connect::PoolMode;

/// A parsed PostgreSQL URL.
#[derive(Debug)]
pub(super) struct ConnectionUrl {
    /// The URL as passed to the driver.
    pub(super) driver_url: String,
    /// The URL without startup options (`options=`), which not every pooler accepts.
    pub(super) without_options: String,
    /// `pool_mode`, or `pgbouncer=true` as in other libraries.
    pub(super) pool_mode: Option<PoolMode>,
    /// `statement-cache-capacity`, which the driver reads as well.
    pub(super) statement_cache_capacity: Option<usize>,
}

impl ConnectionUrl {
    pub(super) fn parse(url: &str) -> Result<Self, StorageError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut driver_url, mut without_options) = (Vec::new(), Vec::new());
        let (mut pool_mode, mut statement_cache_capacity) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (key, value) {
                ("pool_mode", "transaction") | ("pgbouncer", "true") => {
                    pool_mode = Some(PoolMode::Transaction);
                }
                ("pool_mode", "session") => pool_mode = Some(PoolMode::Session),
                ("pgbouncer", "false") => {}
                ("pool_mode" | "pgbouncer", _) => return Err(unknown_value_error(key, value)),
                _ => {
                    driver_url.push(pair);
                    if !key.starts_with("options") {
                        without_options.push(pair);
                    }
                }
            }
            if key == "statement-cache-capacity" {
                statement_cache_capacity = value.parse().ok();
            }
        }
        let join = |pairs: &[&str]| match pairs {
            [] => base.to_owned(),
            pairs => format!("{base}?{}", pairs.join("&")),
        };
        let (driver_url, without_options) = (join(&driver_url), join(&without_options));
        Ok(Self { driver_url, without_options, pool_mode, statement_cache_capacity })
    }
}

fn unknown_value_error(key: &str, value: &str) -> StorageError {
    let help = match (key, value) {
        ("pool_mode", "statement") => {
            "a pooler must keep a transaction on one server connection: `pool_mode = transaction` or `session` there"
        }
        ("pool_mode", _) => "`pool_mode=transaction` or `pool_mode=session`",
        _ => "`pgbouncer=true`, which means `pool_mode=transaction`",
    };
    StorageError::new(ErrorKind::Unsupported)
        .with_context("url", format!("unknown value `{value}` of `{key}`"))
        .with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_split_into_driver_and_adapter_parameters() {
        let url = "postgres://a:b@h/d?pool_mode=transaction&options=-c%20a%3Db&sslmode=disable&options[c]=d\
                   &statement-cache-capacity=0";
        let parsed = ConnectionUrl::parse(url).unwrap();
        assert_eq!(parsed.pool_mode, Some(PoolMode::Transaction));
        assert_eq!(parsed.statement_cache_capacity, Some(0));
        let driver_url =
            "postgres://a:b@h/d?options=-c%20a%3Db&sslmode=disable&options[c]=d&statement-cache-capacity=0";
        assert_eq!(parsed.driver_url, driver_url);
        assert_eq!(parsed.without_options, "postgres://a:b@h/d?sslmode=disable&statement-cache-capacity=0");
        let parsed = ConnectionUrl::parse("postgres://h/d?pgbouncer=true").unwrap();
        assert_eq!(
            (parsed.pool_mode, parsed.driver_url.as_str()),
            (Some(PoolMode::Transaction), "postgres://h/d")
        );
        assert_eq!(ConnectionUrl::parse("postgres://h/d").unwrap().pool_mode, None);
    }

    #[test]
    fn unknown_pool_mode_is_rejected_with_help() {
        for value in ["statement", "Transaction", ""] {
            let error = ConnectionUrl::parse(&format!("postgres://h/d?pool_mode={value}")).unwrap_err();
            assert!(error.help().unwrap().contains("session"), "{error}");
        }
    }
}
