//! Origins: which web pages belong to the application.

use std::sync::Arc;

use http::Uri;
use http::header::HOST;
use http::request::Parts;

/// The public origins that an application declares by its servers, as an extension of its requests. Behind a proxy,
/// `Host` may name another host or no port.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublicOrigins(Arc<[String]>);

impl PublicOrigins {
    /// The origins of these URLs (RFC 6454, 4); a relative URL has none.
    pub(crate) fn of(servers: &[String]) -> Self {
        Self(servers.iter().filter_map(|server| origin(server)).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn origin(server: &str) -> Option<String> {
    let url: Uri = server.parse().ok()?;
    let (scheme, host) = (url.scheme_str()?, url.host()?);
    let port = url.port_u16().filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{host}{port}"))
}

/// Whether an origin is the application's own: it is declared, or names the host that the request was sent to.
pub(crate) fn is_own_origin(parts: &Parts, origin: &str) -> bool {
    let declared = parts.extensions.get::<PublicOrigins>();
    if declared.is_some_and(|declared| declared.0.iter().any(|own| own.eq_ignore_ascii_case(origin))) {
        return true;
    }
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = origin.split_once("://").map(|(_, host)| host);
    matches!((host, origin), (Some(host), Some(origin)) if host.eq_ignore_ascii_case(origin))
}
