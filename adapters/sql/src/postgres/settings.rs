//! The session settings that statements rely on.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

/// Transaction settings that have a session default (`default_…`).
const TRANSACTION_SETTINGS: [&str; 3] =
    ["transaction_isolation", "transaction_read_only", "transaction_deferrable"];

/// Settings by name, in the order in which they are applied.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Those that a URL asks for, followed by those that statements rely on.
    all: Vec<(String, String)>,
    /// The number of leading settings that come from the URL.
    url_count: usize,
}

impl Settings {
    /// The settings that statements rely on, after the startup options of a URL (`-c name=value`).
    pub(super) fn new(statement_timeout: std::time::Duration, options: Option<&str>) -> Self {
        let timeout = statement_timeout.as_millis().min(i32::MAX as u128);
        let mut all = parse_startup_options(options.unwrap_or_default());
        let url_count = all.len();
        let required_settings = [
            // A column without a time zone is read and written as UTC.
            ("TimeZone", "UTC"),
            ("statement_timeout", &timeout.to_string()),
            // Doubles as text keep all digits.
            ("extra_float_digits", "2"),
            // A backslash in a string literal is a backslash.
            ("standard_conforming_strings", "on"),
        ];
        all.extend(required_settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Self { all, url_count }
    }

    /// Adds a setting.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.all.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The settings that statements rely on, as startup options of a session.
    pub(super) fn startup_options(&self) -> &[(String, String)] {
        &self.all[self.url_count..]
    }

    /// The statement that applies them, for the session or for the transaction.
    pub(super) fn set_statement(&self, is_local: bool) -> String {
        let calls = self.all.iter().map(|(name, value)| {
            format!("set_config({}, {}, {is_local})", quote_literal(name), quote_literal(value))
        });
        format!("SELECT {}", calls.collect::<Vec<_>>().join(", "))
    }

    /// The statement that begins a transaction with its settings. A default for transactions comes too late for the
    /// transaction that has begun, so it is set for that transaction, before its first query.
    pub(super) fn begin_statement(&self) -> String {
        let own = self.all.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("default_")?;
            let is_of_transactions = TRANSACTION_SETTINGS.contains(&name);
            is_of_transactions.then(|| format!("SET LOCAL {name} = {}; ", quote_literal(value)))
        });
        format!("BEGIN; {}{}", own.collect::<String>(), self.set_statement(true))
    }

    /// The settings that statements rely on and that are not in force, each described with its value.
    pub(super) async fn missing(&self, connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
        let required_settings = self.startup_options();
        let names: Vec<_> = required_settings.iter().map(|(name, _)| quote_literal(name)).collect();
        let select = format!("SELECT name, setting FROM pg_settings WHERE name IN ({})", names.join(", "));
        let found = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(select))).await?;
        let is_found = |(name, value): &&(String, String)| {
            let is_same = |row: &PgRow| {
                let (found, setting) = (row.try_get::<&str, _>(0), row.try_get::<&str, _>(1));
                found.is_ok_and(|found| found == name) && setting.is_ok_and(|setting| setting == value)
            };
            found.iter().any(is_same)
        };
        let missing = required_settings.iter().filter(|setting| !is_found(setting));
        Ok(missing.map(|(name, value)| format!("{name} is not {value}")).collect())
    }
}

/// Parses startup options: `-c name=value`, `-cname=value` or `--name=value`; a blank within a value is escaped by a
/// backslash.
fn parse_startup_options(options: &str) -> Vec<(String, String)> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.extend(characters.next()),
            blank if blank.is_whitespace() => words.push(std::mem::take(&mut word)),
            _ => word.push(character),
        }
    }
    words.push(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).map(str::to_owned)
        };
        match setting.as_deref().and_then(|setting| setting.split_once('=')) {
            Some((name, value)) => settings.push((name.replace('-', "_"), value.to_owned())),
            None => tracing::warn!(option = word, "a startup option is not sent through the pooler"),
        }
    }
    settings
}

/// A string literal that means the same whatever the value of `standard_conforming_strings`.
fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_settings_override_startup_options() {
        let options = r"-c search_path=a,\ b -cwork_mem=4MB --lock-timeout=5s -c statement_timeout=1";
        let settings = Settings::new(std::time::Duration::from_secs(30), Some(options));
        let expected = "BEGIN; SELECT set_config('search_path', 'a, b', true), \
             set_config('work_mem', '4MB', true), set_config('lock_timeout', '5s', true), \
             set_config('statement_timeout', '1', true), set_config('TimeZone', 'UTC', true), \
             set_config('statement_timeout', '30000', true), set_config('extra_float_digits', '2', true), \
             set_config('standard_conforming_strings', 'on', true)";
        assert_eq!(settings.begin_statement(), expected);
        let options = "-c default_transaction_read_only=on -c default_transaction_isolation=serializable";
        let begin = Settings::new(std::time::Duration::from_secs(30), Some(options)).begin_statement();
        let own = "BEGIN; SET LOCAL transaction_read_only = 'on'; SET LOCAL transaction_isolation = 'serializable'; SELECT";
        assert!(begin.starts_with(own), "{begin}");
        assert_eq!(quote_literal(r"it's a \"), r"E'it''s a \\'");
    }
    #[tokio::test]
    async fn missing_settings_are_reported() {
        let required =
            std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("postgres"));
        let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
            assert!(!required, "TEST_POSTGRES_URL must be set: this run requires PostgreSQL");
            println!("not run: settings of PostgreSQL, for want of TEST_POSTGRES_URL (tests/run sets it)");
            return;
        };
        let mut connection = <PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
        let settings = Settings::new(std::time::Duration::from_millis(4_321), None);
        let missing = settings.missing(&mut connection).await.unwrap();
        assert_eq!(missing, ["statement_timeout is not 4321"]);
        connection.execute(AssertSqlSafe(settings.set_statement(false))).await.unwrap();
        connection.execute("SET TimeZone = 'Asia/Tokyo'").await.unwrap();
        assert_eq!(settings.missing(&mut connection).await.unwrap(), ["TimeZone is not UTC"]);
    }
}
