//! Preferences (RFC 7240).

use http::{HeaderMap, HeaderName};
use resourceful_contract::Count;

use crate::error::{Error, ErrorKind, Fault};

pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The supported preferences of a request; others are ignored, as RFC 7240 asks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Prefer {
    pub(super) count: Option<Count>,
    /// `return=minimal`: a response without the item.
    pub(super) minimal: bool,
    /// `stream-position`: the position from which a stream of the same items continues.
    pub(super) stream_position: bool,
    /// `dry-run`: everything is tried, and nothing is changed.
    pub(super) dry_run: bool,
}

impl Prefer {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let mut has_return = false;
        for value in headers.get_all(PREFER) {
            for preference in value.to_str().unwrap_or_default().split(',') {
                let preference = preference.split(';').next().unwrap_or_default();
                let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
                let value = value.trim().trim_matches('"');
                // The first of a repeated preference counts (RFC 7240, 2).
                match (name.trim().to_ascii_lowercase().as_str(), value) {
                    ("count", "exact") => _ = prefer.count.get_or_insert(Count::Exact),
                    ("count", "estimated") => _ = prefer.count.get_or_insert(Count::Estimated),
                    ("dry-run", "") => prefer.dry_run = true,
                    ("stream-position", "") => prefer.stream_position = true,
                    ("return", value) if !has_return => {
                        has_return = true;
                        prefer.minimal = value == "minimal";
                    }
                    _ => {}
                }
            }
        }
        prefer
    }

    /// Reads the preferences of a request that changes something.
    ///
    /// # Errors
    /// If one resembles a dry run but is none: ignored, as RFC 7240 asks of unknown preferences, it would make the
    /// change that the client means to try.
    pub(super) fn of_write(headers: &HeaderMap) -> Result<Self, Error> {
        let prefer = Self::of(headers);
        let is_like_dry_run = |preference: &str| {
            let name = preference.split(['=', ';']).next().unwrap_or_default();
            let letters = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
            letters.eq_ignore_ascii_case("dryrun")
        };
        let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        if !prefer.dry_run && values.flat_map(|value| value.split(',')).any(is_like_dry_run) {
            let detail = "A dry run is asked for by `Prefer: dry-run`, without a value.";
            let fault = Fault::header("Prefer", "value", detail);
            return Err(
                Error::new(ErrorKind::BadRequest, "invalid-preference", detail).with_faults(vec![fault])
            );
        }
        Ok(prefer)
    }
}
