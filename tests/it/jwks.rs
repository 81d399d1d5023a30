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

use crate::tokens::{claims, door};

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
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
enum Answer {
    Set(Json),
    Text(String),
    Failure,
    Elsewhere(String),
    Never,
}

impl Provider {
    async fn start(answer: Answer) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (said, counted) = (answer.clone(), asked.clone());
        let handler = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = said.lock().unwrap().clone();
            async move {
                match answer {
                    Answer::Set(keys) => axum::Json(json!({"keys": keys})).into_response(),
                    Answer::Text(text) => text.into_response(),
                    Answer::Failure => http::StatusCode::BAD_GATEWAY.into_response(),
                    Answer::Elsewhere(to) => Redirect::temporary(&to).into_response(),
                    Answer::Never => std::future::pending::<Response>().await,
                }
            }
        };
        let router = axum::Router::new().route("/jwks.json", axum::routing::get(handler));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, answer, asked, server }
    }

    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn door(&self, change: impl FnOnce(Jwks) -> Jwks) -> TestApp {
        door(Jwt::new().keys(change(Jwks::at(&self.address))).audience("shop")).await
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
fn always(keys: Jwks) -> Jwks {
    keys.fresh(Duration::ZERO).at_most_every(Duration::ZERO)
}

#[tokio::test]
async fn keys_are_asked_for_once_however_many_come() {
    let provider = Provider::start(Answer::Set(json!([jwk("a", JwtAlgorithm::ES256, &ec())]))).await;
    let app = provider.door(|keys| keys).await;
    assert_eq!(provider.asked(), 0, "before anybody comes");
    let good = token("a", JwtAlgorithm::ES256, &ec());
    let all = futures::future::join_all((0..50).map(|_| status(&app, &good))).await;
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_does_not_reach_the_provider() {
    let provider = Provider::start(Answer::Set(json!([jwk("a", JwtAlgorithm::ES256, &ec())]))).await;
    let app = provider.door(|keys| keys).await;
    for number in 0..100 {
        assert_eq!(status(&app, &token(&format!("x{number}"), JwtAlgorithm::ES256, &ec())).await, 401);
    }
    assert_eq!(provider.asked(), 1, "one look in 30 s");
    assert_eq!(status(&app, &token("a", JwtAlgorithm::ES256, &ec())).await, 200);
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_by_its_name_and_an_old_one_ends() {
    let (old, new) = (jwk("old", JwtAlgorithm::RS256, &rsa()), jwk("new", JwtAlgorithm::ES256, &ec()));
    let provider = Provider::start(Answer::Set(json!([old]))).await;
    let (by_old, by_new) =
        (token("old", JwtAlgorithm::RS256, &rsa()), token("new", JwtAlgorithm::ES256, &ec()));
    // Fresh for long: what is not known makes it look, and nothing else does.
    let keeping = provider.door(|keys| keys.at_most_every(Duration::ZERO)).await;
    assert_eq!((status(&keeping, &by_old).await, status(&keeping, &by_new).await), (200, 401));
    provider.says(Answer::Set(json!([old, new])));
    assert_eq!((status(&keeping, &by_new).await, status(&keeping, &by_old).await), (200, 200));
    provider.says(Answer::Set(json!([new])));
    let looking = provider.door(always).await;
    assert_eq!((status(&looking, &by_new).await, status(&looking, &by_old).await), (200, 401));
    // All of them revoked.
    provider.says(Answer::Set(json!([])));
    assert_eq!(status(&looking, &by_new).await, 401);
}

#[tokio::test]
async fn a_provider_that_is_away_leaves_the_keys_that_are_there() {
    let set = Answer::Set(json!([jwk("a", JwtAlgorithm::ES256, &ec())]));
    let provider = Provider::start(set.clone()).await;
    let app = provider.door(always).await;
    let good = token("a", JwtAlgorithm::ES256, &ec());
    assert_eq!(status(&app, &good).await, 200);
    let elsewhere = Provider::start(set).await;
    for bad in [
        Answer::Failure,
        Answer::Text("no JSON".to_owned()),
        Answer::Text("{}".to_owned()),
        Answer::Text(format!("{{\"keys\": [], \"padding\": \"{}\"}}", "x".repeat(300_000))),
        Answer::Elsewhere(elsewhere.address.clone()),
    ] {
        provider.says(bad);
        let before = provider.asked();
        assert_eq!(status(&app, &good).await, 200);
        assert!(provider.asked() > before, "it was asked");
        // Who has no keys yet gets none from such an answer, and lets nobody in.
        assert_eq!(status(&provider.door(always).await, &good).await, 401);
    }
    assert_eq!(elsewhere.asked(), 0, "no redirect is followed");
    provider.server.abort();
    assert_eq!(status(&app, &good).await, 200, "nobody listens any more");
}

#[tokio::test]
async fn a_request_that_is_dropped_does_not_end_the_look() {
    let provider = Provider::start(Answer::Never).await;
    let app = provider.door(|keys| keys).await;
    let good = token("a", JwtAlgorithm::ES256, &ec());
    let waiting = tokio::spawn({
        let (app, good) = (app.clone(), good.clone());
        async move { status(&app, &good).await }
    });
    while provider.asked() == 0 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    // The look goes on, and ends by its own deadline: whoever waits for it is refused, and not left hanging.
    assert_eq!(status(&app, &good).await, 401);
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn a_set_of_the_world_is_read_for_what_is_in_it() {
    let mut plain = jwk("rsa", JwtAlgorithm::RS256, &rsa());
    plain.as_object_mut().unwrap().remove("alg");
    let mut sealing = jwk("enc", JwtAlgorithm::RS256, &rsa());
    sealing["use"] = json!("enc");
    let secret = json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": "a3lxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTA"});
    let unknown = json!({"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AAAA"});
    let provider = Provider::start(Answer::Set(json!([unknown, secret, sealing, plain]))).await;
    let app = provider.door(|keys| keys).await;
    assert_eq!(status(&app, &token("rsa", JwtAlgorithm::RS256, &rsa())).await, 200);
    // The algorithm is the key's, and none that a token would rather have.
    assert_eq!(status(&app, &token("rsa", JwtAlgorithm::PS256, &rsa())).await, 401);
    assert_eq!(status(&app, &token("enc", JwtAlgorithm::RS256, &rsa())).await, 401);
    let forged = EncodingKey::from_secret(b"kyq1234567890123456789012345678901234567890");
    assert_eq!(status(&app, &token("oct", JwtAlgorithm::HS256, &forged)).await, 401);
}

#[tokio::test]
async fn an_address_that_could_be_anybodys_does_not_build() {
    for address in ["http://login.example/jwks.json", "ftp://127.0.0.1/jwks.json", "/jwks.json", "no address"]
    {
        let app = create_app(AppPreset::Testing).authenticator(Jwt::new().keys(Jwks::at(address)));
        let faults = app.build().await.unwrap_err().to_string();
        assert!(faults.contains("Jwks::at(\"https://…\")"), "{address}: {faults}");
    }
}
