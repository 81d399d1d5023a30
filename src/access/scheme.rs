//! Security schemes: how a credential is sent, for the OpenAPI document.

use std::borrow::Cow;

use http::HeaderName;

/// How a credential is sent: a security scheme of the OpenAPI document (OpenAPI 3.1, 4.8.27).
///
/// ```
/// use resourceful::access::SecurityScheme;
///
/// let header = SecurityScheme::header("ApiKey", http::HeaderName::from_static("x-api-key"));
/// let token = SecurityScheme::bearer("JWT");
/// # let _ = (header, token);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityScheme {
    pub(crate) name: Cow<'static, str>,
    pub(crate) location: CredentialLocation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CredentialLocation {
    /// `Authorization: Bearer …`, with the token's format where it is known.
    Bearer(Cow<'static, str>),
    Basic,
    Header(HeaderName),
    Cookie(Cow<'static, str>),
}

impl SecurityScheme {
    /// `Authorization: Bearer …` (RFC 6750); `format` names the token's format, such as `JWT`, and may be empty.
    #[must_use]
    pub fn bearer(format: impl Into<Cow<'static, str>>) -> Self {
        Self { name: "Bearer".into(), location: CredentialLocation::Bearer(format.into()) }
    }

    /// `Authorization: Basic …` (RFC 7617).
    #[must_use]
    pub const fn basic() -> Self {
        Self { name: Cow::Borrowed("Basic"), location: CredentialLocation::Basic }
    }

    /// A custom header, with a name for the OpenAPI document: letters, digits, `.`, `-` and `_`.
    #[must_use]
    pub fn header(name: impl Into<Cow<'static, str>>, header: HeaderName) -> Self {
        Self { name: name.into(), location: CredentialLocation::Header(header) }
    }

    /// A cookie, with a name for the OpenAPI document: letters, digits, `.`, `-` and `_`.
    #[must_use]
    pub fn cookie(name: impl Into<Cow<'static, str>>, cookie: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), location: CredentialLocation::Cookie(cookie.into()) }
    }

    /// The security scheme of an authentication scheme in `WWW-Authenticate`.
    pub(super) fn of(scheme: &'static str) -> Self {
        match scheme {
            "Bearer" => Self::bearer(""),
            "Basic" => Self::basic(),
            other => Self::header(other, http::header::AUTHORIZATION),
        }
    }
}
