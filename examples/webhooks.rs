//! A receiver of webhooks: verifies the signature (Standard Webhooks), refuses what is old, and handles each message once.
//!
//! ```console
//! $ export WEBHOOK_SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
//! $ cargo run -p resourceful-examples --features webhooks --bin webhooks
//! $ curl -i localhost:3000/received -d '{}'                                                          # 401
//! $ curl -i localhost:3000/received -d '{}' -H 'webhook-id: 1' -H 'webhook-timestamp: 0' -H 'webhook-signature: v1,AA=='  # 401
//! ```
//!
//! The secret is that of an endpoint: `POST /webhook_endpoints` of an application with
//! [`Webhooks`](resourceful::events::Webhooks) registers this receiver's URL, and
//! `POST /webhook_endpoints/{id}/reveal-secret` returns it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use resourceful::Event;
use resourceful::prelude::*;
use sha2::Sha256;

/// How old a message may be: a signature is worth nothing to those who record and repeat it.
const TOLERANCE: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

struct Receiver {
    key: Vec<u8>,
    /// Ids of handled messages; a real receiver keeps them in the database of its effects, and commits both together.
    handled: Mutex<HashSet<String>>,
}

impl Receiver {
    fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let sent_at = DateTime::<Utc>::from_timestamp(timestamp.parse().ok()?, 0)?;
        if (Utc::now() - sent_at).abs() > TOLERANCE {
            return None;
        }
        // One signature for each valid secret, while a secret is being replaced.
        let is_valid = header("webhook-signature")?.split(' ').any(|signature| {
            let Some(signature) = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok())
            else {
                return false;
            };
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return false };
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            mac.verify_slice(&signature).is_ok()
        });
        is_valid.then(|| id.to_owned())
    }
}

async fn received(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(id) = receiver.verify(&headers, &body) else { return StatusCode::UNAUTHORIZED };
    let Ok(event) = serde_json::from_slice::<Event>(&body) else { return StatusCode::BAD_REQUEST };
    // Delivery is at least once: a repeated message has the same id.
    if receiver.handled.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
        println!("{} of {}: {}", event.event_type, event.subject, event.data);
    }
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = std::env::var("WEBHOOK_SECRET")
        .map_err(|_| "WEBHOOK_SECRET is missing: see the head of webhooks.rs")?;
    let key = STANDARD.decode(secret.trim_start_matches("whsec_"))?;
    let receiver = Arc::new(Receiver { key, handled: Mutex::default() });
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("Receiving at http://127.0.0.1:{port}/received");
    let router = Router::new().route("/received", post(received)).with_state(receiver);
    axum::serve(listener, router).await?;
    Ok(())
}
