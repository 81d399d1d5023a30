//! Keys that an identity provider gives at an address: kept, rotated, and asked for no more often than that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::response::{IntoResponse as _, Redirect, Response};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header, encode};
use resourceful::access::{Jwks, Jwt, JwtAlgorithm};
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::tokens::{claims, jwt_app};

const EC: &[u8] = include_bytes!("keys/p256.pem");
const RSA: &[u8] = include_bytes!("keys/rsa.pem");

fn ec() -> EncodingKey {
    EncodingKey::from_ec_pem(EC).unwrap()
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA).unwrap()
}

fn jwk(id: &str, algorithm: JwtAlgorithm, key: &EncodingKey) -> Json {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(id.to_owned());
    serde_json::to_value(&jwk).unwrap()
}

fn token(id: &str, algorithm: JwtAlgorithm, key: &EncodingKey) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(id.to_owned());
    encode(&header, &claims(json!({})), key).unwrap()
}

/// An identity provider on a port of its own.
struct Provider {
    address: String,
    response: Arc<Mutex<KeySetResponse>>,
    requests: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
enum KeySetResponse {
    KeySet(Json),
    Text(String),
    Failure,
    Redirect(String),
    Never,
}

impl Provider {
    async fn start(response: KeySetResponse) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let (response, requests) = (Arc::new(Mutex::new(response)), Arc::new(AtomicUsize::new(0)));
        let (current_response, counter) = (response.clone(), requests.clone());
        let handler = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let response = current_response.lock().unwrap().clone();
            async move {
                match response {
                    KeySetResponse::KeySet(keys) => axum::Json(json!({"keys": keys})).into_response(),
                    KeySetResponse::Text(text) => text.into_response(),
                    KeySetResponse::Failure => http::StatusCode::BAD_GATEWAY.into_response(),
                    KeySetResponse::Redirect(to) => Redirect::temporary(&to).into_response(),
                    KeySetResponse::Never => std::future::pending::<Response>().await,
                }
            }
        };
        let router = axum::Router::new().route("/jwks.json", axum::routing::get(handler));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, response, requests, server }
    }

    fn respond_with(&self, response: KeySetResponse) {
        *self.response.lock().unwrap() = response;
    }

    fn request_count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    async fn jwt_app(&self, change: impl FnOnce(Jwks) -> Jwks) -> TestApp {
        jwt_app(Jwt::new().keys(change(Jwks::at(&self.address))).audience("shop")).await
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn status(app: &TestApp, token: &str) -> u16 {
    app.get("/mine").bearer(token).await.status()
}

/// Looks at the provider for every token.
fn without_cooldown(keys: Jwks) -> Jwks {
    keys.fresh(Duration::ZERO).at_most_every(Duration::ZERO)
}

#[tokio::test]
async fn concurrent_requests_fetch_the_key_set_once() {
    let provider =
        Provider::start(KeySetResponse::KeySet(json!([jwk("a", JwtAlgorithm::ES256, &ec())]))).await;
    let app = provider.jwt_app(|keys| keys).await;
    assert_eq!(provider.request_count(), 0, "before anybody comes");
    let good = token("a", JwtAlgorithm::ES256, &ec());
    let all = futures::future::join_all((0..50).map(|_| status(&app, &good))).await;
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
    assert_eq!(provider.request_count(), 1);
}

#[tokio::test]
async fn unknown_key_ids_do_not_flood_the_provider() {
    let provider =
        Provider::start(KeySetResponse::KeySet(json!([jwk("a", JwtAlgorithm::ES256, &ec())]))).await;
    let app = provider.jwt_app(|keys| keys).await;
    for number in 0..100 {
        assert_eq!(status(&app, &token(&format!("x{number}"), JwtAlgorithm::ES256, &ec())).await, 401);
    }
    assert_eq!(provider.request_count(), 1, "one look in 30 s");
    assert_eq!(status(&app, &token("a", JwtAlgorithm::ES256, &ec())).await, 200);
    assert_eq!(provider.request_count(), 1);
}

#[tokio::test]
async fn rotated_key_set_adds_new_keys_and_drops_removed_ones() {
    let (old, new) = (jwk("old", JwtAlgorithm::RS256, &rsa()), jwk("new", JwtAlgorithm::ES256, &ec()));
    let provider = Provider::start(KeySetResponse::KeySet(json!([old]))).await;
    let (by_old, by_new) =
        (token("old", JwtAlgorithm::RS256, &rsa()), token("new", JwtAlgorithm::ES256, &ec()));
    // Fresh for long: what is not known makes it look, and nothing else does.
    let caching = provider.jwt_app(|keys| keys.at_most_every(Duration::ZERO)).await;
    assert_eq!((status(&caching, &by_old).await, status(&caching, &by_new).await), (200, 401));
    provider.respond_with(KeySetResponse::KeySet(json!([old, new])));
    assert_eq!((status(&caching, &by_new).await, status(&caching, &by_old).await), (200, 200));
    provider.respond_with(KeySetResponse::KeySet(json!([new])));
    let refetching = provider.jwt_app(without_cooldown).await;
    assert_eq!((status(&refetching, &by_new).await, status(&refetching, &by_old).await), (200, 401));
    // All of them revoked.
    provider.respond_with(KeySetResponse::KeySet(json!([])));
    assert_eq!(status(&refetching, &by_new).await, 401);
}

#[tokio::test]
async fn cached_keys_are_used_while_the_provider_is_unavailable() {
    let set = KeySetResponse::KeySet(json!([jwk("a", JwtAlgorithm::ES256, &ec())]));
    let provider = Provider::start(set.clone()).await;
    let app = provider.jwt_app(without_cooldown).await;
    let good = token("a", JwtAlgorithm::ES256, &ec());
    assert_eq!(status(&app, &good).await, 200);
    let other_provider = Provider::start(set).await;
    for bad in [
        KeySetResponse::Failure,
        KeySetResponse::Text("no JSON".to_owned()),
        KeySetResponse::Text("{}".to_owned()),
        KeySetResponse::Text(format!("{{\"keys\": [], \"padding\": \"{}\"}}", "x".repeat(300_000))),
        KeySetResponse::Redirect(other_provider.address.clone()),
    ] {
        provider.respond_with(bad);
        let before = provider.request_count();
        assert_eq!(status(&app, &good).await, 200);
        assert!(provider.request_count() > before, "it was asked");
        // Who has no keys yet gets none from such an answer, and lets nobody in.
        assert_eq!(status(&provider.jwt_app(without_cooldown).await, &good).await, 401);
    }
    assert_eq!(other_provider.request_count(), 0, "no redirect is followed");
    provider.server.abort();
    assert_eq!(status(&app, &good).await, 200, "nobody listens any more");
}

#[tokio::test]
async fn cancelled_request_does_not_cancel_the_key_set_fetch() {
    let provider = Provider::start(KeySetResponse::Never).await;
    let app = provider.jwt_app(|keys| keys).await;
    let good = token("a", JwtAlgorithm::ES256, &ec());
    let waiting = tokio::spawn({
        let (app, good) = (app.clone(), good.clone());
        async move { status(&app, &good).await }
    });
    while provider.request_count() == 0 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    // The look goes on, and ends by its own deadline: whoever waits for it is refused, and not left hanging.
    assert_eq!(status(&app, &good).await, 401);
    assert_eq!(provider.request_count(), 1);
}

#[tokio::test]
async fn unsupported_keys_of_a_key_set_are_skipped() {
    let mut plain = jwk("rsa", JwtAlgorithm::RS256, &rsa());
    plain.as_object_mut().unwrap().remove("alg");
    let mut encryption = jwk("enc", JwtAlgorithm::RS256, &rsa());
    encryption["use"] = json!("enc");
    let secret = json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": "a3lxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTA"});
    let unknown = json!({"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AAAA"});
    let provider = Provider::start(KeySetResponse::KeySet(json!([unknown, secret, encryption, plain]))).await;
    let app = provider.jwt_app(|keys| keys).await;
    assert_eq!(status(&app, &token("rsa", JwtAlgorithm::RS256, &rsa())).await, 200);
    // The algorithm is the key's, and none that a token would rather have.
    assert_eq!(status(&app, &token("rsa", JwtAlgorithm::PS256, &rsa())).await, 401);
    assert_eq!(status(&app, &token("enc", JwtAlgorithm::RS256, &rsa())).await, 401);
    let forged = EncodingKey::from_secret(b"kyq1234567890123456789012345678901234567890");
    assert_eq!(status(&app, &token("oct", JwtAlgorithm::HS256, &forged)).await, 401);
}

#[tokio::test]
async fn insecure_or_relative_key_set_url_is_rejected_at_build() {
    for address in ["http://login.example/jwks.json", "ftp://127.0.0.1/jwks.json", "/jwks.json", "no address"]
    {
        let app = create_app(AppPreset::Testing).authenticator(Jwt::new().keys(Jwks::at(address)));
        let faults = app.build().await.unwrap_err().to_string();
        assert!(faults.contains("Jwks::at(\"https://…\")"), "{address}: {faults}");
    }
}
