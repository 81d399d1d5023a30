//! The current time, in the precision that rows store.

use chrono::{DateTime, SecondsFormat, SubsecRound as _, Utc};

/// The current time in microseconds: the precision of PostgreSQL's `timestamptz`.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// A time as RFC 3339 text in UTC, with as many fractional digits as it needs.
pub(crate) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
