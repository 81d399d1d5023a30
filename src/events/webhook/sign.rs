//! Webhook signatures: the scheme `v1` of Standard Webhooks, an HMAC-SHA256 with a shared secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

const PREFIX: &str = "whsec_";

/// A signing secret of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct Secret {
    /// `whsec_` and 32 random bytes in base64.
    pub(super) secret: String,
    /// When it expires, where another one has replaced it.
    pub(super) until: Option<DateTime<Utc>>,
}

impl Secret {
    /// A new random secret.
    pub(super) fn generate() -> Self {
        // Two UUIDs of version 4 hold 244 random bits; the digest spreads them over the whole key.
        let random = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let key = blake3::derive_key("resourceful 2026-11 secrets of webhook endpoints", &random);
        Self { secret: format!("{PREFIX}{}", STANDARD.encode(key)), until: None }
    }

    pub(super) fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// The header `webhook-signature` of a message: one signature for each valid secret, so that a receiver which knows one of
/// them can verify it.
pub(super) fn signatures(secrets: &[Secret], id: &str, at: DateTime<Utc>, body: &[u8]) -> String {
    let timestamp = at.timestamp();
    let valid = secrets.iter().filter(|secret| secret.is_valid(at));
    let signed = valid.filter_map(|secret| signature(&secret.secret, id, timestamp, body));
    signed.collect::<Vec<_>>().join(" ")
}

fn signature(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let key = STANDARD.decode(secret.strip_prefix(PREFIX).unwrap_or(secret)).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specification_example_has_expected_signature() {
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let signed = signature(secret, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(signed.unwrap(), "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn secrets_are_well_formed_and_unique() {
        let (one, other) = (Secret::generate(), Secret::generate());
        assert_ne!(one.secret, other.secret);
        assert_eq!(STANDARD.decode(one.secret.strip_prefix(PREFIX).unwrap()).unwrap().len(), 32);
    }
}
