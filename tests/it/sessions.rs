//! Sessions of browsers.

use std::sync::Arc;

use resourceful::AppBuilder;
use resourceful::access::{
    ApiKeys, Authenticator, MemoryApiKeys, MemorySessions, SessionStore, Sessions, SharedSessions,
};
use resourceful::adapter::{MemoryCache, Redis};
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestRequest};
use serde_json::json;

use crate::policies::model;
use crate::support::TestStorage;

const SECRET: &str = "kZ8uA2n0w1Yq7Rr3Tt5Vv9Xx4Bb6Dd8F";

async fn app_with_sessions(sessions: &Sessions) -> TestApp {
    let notes = define_dynamic_resource("notes", model(&["code"]))
        .adapter(TestStorage::memory().table("notes"))
        .id_field("code")
        .permissions(Permissions::read(anyone()).write(signed_in()))
        .build()
        .unwrap();
    let app = create_app(AppPreset::Testing).authenticator(sessions.clone()).resource(notes);
    TestApp::build(app).await.unwrap()
}

/// The cookie as a browser sends it back.
fn cookie(set_cookie: &http::HeaderValue) -> String {
    set_cookie.to_str().unwrap().split(';').next().unwrap().to_owned()
}

fn post(app: &TestApp, cookie: &str, code: &str) -> TestRequest {
    app.post("/notes").header("cookie", cookie).json(json!({"code": code}))
}

/// A store of each kind.
async fn stores() -> Vec<Sessions> {
    let mut all = vec![
        Sessions::new(SECRET, MemorySessions::new()),
        Sessions::new(SECRET, SharedSessions::new(Arc::new(MemoryCache::new()))),
    ];
    if let Ok(url) = std::env::var("TEST_REDIS_URL") {
        let redis = Redis::connect(&url).await.unwrap();
        all.push(Sessions::new(SECRET, SharedSessions::new(redis.cache())));
    }
    all
}

#[tokio::test]
async fn session_authenticates_until_it_ends() {
    for sessions in stores().await {
        assert_session_lifecycle(&sessions).await;
    }
}

async fn assert_session_lifecycle(sessions: &Sessions) {
    let app = app_with_sessions(sessions).await;
    let started = sessions.start(Actor::user("ada")).await.unwrap();
    let set_cookie = started.to_str().unwrap();
    for attribute in
        ["__Host-session=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=43200"]
    {
        assert!(set_cookie.contains(attribute), "{set_cookie}");
    }
    let session_cookie = cookie(&started);
    assert!(!session_cookie.contains("ada"));
    let created = post(&app, &format!("theme=dark; {session_cookie}; x=y"), "a")
        .header("sec-fetch-site", "same-origin")
        .await;
    assert_eq!(created.status(), 201, "{created}");
    assert_eq!(app.get("/notes").header("cookie", "theme=dark").await.status(), 200);

    let headers: http::HeaderMap =
        [(http::header::COOKIE, session_cookie.parse().unwrap())].into_iter().collect();
    let renewed = cookie(&sessions.rotate(&headers).await.unwrap());
    assert_ne!(renewed, session_cookie);
    assert_eq!(
        app.get("/notes").header("cookie", &session_cookie).await.status(),
        401,
        "the old id is forgotten"
    );
    assert_eq!(app.get("/notes").header("cookie", &renewed).await.status(), 200);

    let headers: http::HeaderMap = [(http::header::COOKIE, renewed.parse().unwrap())].into_iter().collect();
    let ended = sessions.end(&headers).await.unwrap();
    assert!(ended.to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(app.get("/notes").header("cookie", &renewed).await.status(), 401);
}

#[tokio::test]
async fn forged_session_cookie_gets_401_even_on_public_resources() {
    let sessions = Sessions::new(SECRET, MemorySessions::new());
    let app = app_with_sessions(&sessions).await;
    let session_cookie = cookie(&sessions.start(Actor::user("ada")).await.unwrap());
    let other = Sessions::new("Q1w2E3r4T5y6U7i8O9p0A1s2D3f4G5h6", MemorySessions::new());
    let foreign = cookie(&other.start(Actor::user("ada")).await.unwrap());
    let unknown =
        cookie(&Sessions::new(SECRET, MemorySessions::new()).start(Actor::user("ada")).await.unwrap());
    let altered = format!(
        "{}{}",
        &session_cookie[..session_cookie.len() - 1],
        if session_cookie.ends_with('A') { 'B' } else { 'A' }
    );
    let twice = format!("{session_cookie}; {session_cookie}");
    for bad in
        [foreign, unknown, altered, twice, "__Host-session=".to_owned(), "__Host-session=%%%".to_owned()]
    {
        assert_eq!(app.get("/notes").header("cookie", &bad).await.status(), 401, "{bad}");
    }
    assert_eq!(app.get("/notes").header("cookie", &session_cookie).await.status(), 200);
}

#[tokio::test]
async fn session_writes_need_a_same_origin_request() {
    let sessions = Sessions::new(SECRET, MemorySessions::new());
    let app = app_with_sessions(&sessions).await;
    let session_cookie = cookie(&sessions.start(Actor::user("ada")).await.unwrap());
    let cases: [(&[(&str, &str)], u16); 9] = [
        (&[("sec-fetch-site", "same-origin")], 201),
        (&[("sec-fetch-site", "none")], 201),
        (&[("sec-fetch-site", "same-site")], 401),
        (&[("sec-fetch-site", "cross-site")], 401),
        (
            &[("sec-fetch-site", "cross-site"), ("origin", "https://shop.example"), ("host", "shop.example")],
            401,
        ),
        (&[("origin", "https://shop.example"), ("host", "shop.example")], 201),
        (&[("origin", "https://evil.example"), ("host", "shop.example")], 401),
        (&[("origin", "null"), ("host", "shop.example")], 401),
        (&[], 401),
    ];
    for (index, (headers, expected)) in cases.into_iter().enumerate() {
        let request = post(&app, &session_cookie, &format!("n{index}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        assert_eq!(request.await.status(), expected, "{headers:?}");
    }
    // Reading is no change, wherever it comes from; what a page of another origin sees of it is CORS's business.
    assert_eq!(
        app.get("/notes")
            .header("cookie", &session_cookie)
            .header("sec-fetch-site", "cross-site")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn session_expires_by_idle_and_absolute_timeout() {
    for sessions in [
        Sessions::new(SECRET, MemorySessions::new()).idle(Duration::ZERO),
        Sessions::new(SECRET, MemorySessions::new()).absolute(Duration::ZERO),
        Sessions::new(SECRET, SharedSessions::new(Arc::new(MemoryCache::new()))).idle(Duration::ZERO),
        Sessions::new(SECRET, SharedSessions::new(Arc::new(MemoryCache::new()))).absolute(Duration::ZERO),
    ] {
        let app = app_with_sessions(&sessions).await;
        let session_cookie = cookie(&sessions.start(Actor::user("ada")).await.unwrap());
        assert_eq!(app.get("/notes").header("cookie", &session_cookie).await.status(), 401, "{sessions:?}");
    }
    let weak = create_app(AppPreset::Testing).authenticator(Sessions::new("short", MemorySessions::new()));
    assert!(weak.build().await.unwrap_err().to_string().contains("the secret of its sessions has 5 bytes"));
}

#[tokio::test]
async fn shared_session_works_on_every_node_and_ends_everywhere() {
    let store = Arc::new(MemoryCache::new());
    let nodes = [(); 2].map(|()| Sessions::new(SECRET, SharedSessions::new(store.clone())));
    let actor = Actor::user("ada").with_role("editor").with_scope("notes:read").in_tenant("acme", ["member"]);
    let session_cookie = cookie(&nodes[0].start(actor.clone()).await.unwrap());
    let request = |session_cookie: &str| {
        http::Request::get("/").header("cookie", session_cookie).body(()).unwrap().into_parts().0
    };
    assert_eq!(nodes[1].authenticate(&request(&session_cookie)).await.unwrap(), Some(actor));
    let digest = [7; 32];
    let shared = SharedSessions::new(store);
    let session = shared.find(&digest).await.unwrap();
    assert!(session.is_none());
    nodes[1].end(&request(&session_cookie).headers).await.unwrap();
    assert!(nodes[0].authenticate(&request(&session_cookie)).await.is_err());
    // A use that was under way when a session ended does not bring it back.
    shared.seen(&digest, Utc::now()).await.unwrap();
    assert!(shared.find(&digest).await.unwrap().is_none());
}

/// Caches on the way may keep one answer for each value of the headers that credentials stand in (RFC 9110, 12.5.5).
#[tokio::test]
async fn vary_lists_every_credential_header() {
    let notes = |authenticated: AppBuilder| async {
        let notes = define_dynamic_resource("notes", model(&["code"]))
            .adapter(TestStorage::memory().table("notes"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .build()
            .unwrap();
        let app = TestApp::build(authenticated.resource(notes)).await.unwrap();
        let varies = app.get("/notes").await.header("vary").unwrap().to_owned();
        varies.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    let app = || create_app(AppPreset::Testing);
    let tokens = || BearerTokens::new().token("t", Actor::user("ada"));
    let sessions = || Sessions::new(SECRET, MemorySessions::new());
    let keys = || ApiKeys::new(MemoryApiKeys::new());
    for (authenticated, names) in [
        (app().authenticator(tokens()), &["authorization"][..]),
        (app().authenticator(sessions()), &["cookie"]),
        (app().authenticator(keys()), &["x-api-key"]),
        (app().authenticator(tokens()).authenticator(sessions()), &["authorization", "cookie"]),
        (app().authenticator(sessions()).authenticator(keys()), &["cookie", "x-api-key"]),
    ] {
        let varies = notes(authenticated).await;
        for name in names {
            assert!(varies.iter().any(|one| one == name), "{names:?}: {varies:?}");
        }
    }
}
