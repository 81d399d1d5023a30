//! Who may do what.

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;

use crate::support::{EDITOR, READER, TestStorage, on_every_storage};

#[tokio::test]
async fn anonymous_caller_gets_401_and_unauthorized_caller_gets_403() {
    on_every_storage(|app| async move {
        for (method, path) in [
            ("GET", "/notes"),
            ("GET", "/notes/1"),
            ("QUERY", "/notes"),
            ("POST", "/notes"),
            ("PATCH", "/notes/1"),
            ("PUT", "/notes/1"),
            ("DELETE", "/notes/1"),
        ] {
            let anonymous = app.request(method, path).json(json!({"text": "a"})).await;
            assert_eq!(
                (anonymous.status(), anonymous.header("www-authenticate")),
                (401, Some("Bearer realm=\"api\"")),
                "{method} {path}"
            );
            let reader = app.request(method, path).bearer(READER).json(json!({"text": "a"})).await;
            let expected = match method {
                "GET" if path == "/notes" => 200,
                "QUERY" => 400,
                "GET" => 404,
                _ => 403,
            };
            assert_eq!(reader.status(), expected, "{method} {path}: {reader}");
        }
        // Closed to everyone, whoever asks, and before it is said whether there is such an item.
        let closed = app.delete("/notes/1").bearer(EDITOR).await;
        assert_eq!((closed.status(), closed.json()["code"].clone()), (403, json!("forbidden")));
    })
    .await;
}

#[tokio::test]
async fn invalid_credential_is_401_even_where_anonymous_access_is_allowed() {
    on_every_storage(|app| async move {
        for credential in ["Bearer nope", "Bearer ", "Basic YTpi", "nonsense", "bearer"] {
            let refused = app.get("/products").header("authorization", credential).await;
            assert_eq!(
                (refused.status(), refused.header("www-authenticate")),
                (401, Some("Bearer realm=\"api\", error=\"invalid_token\"")),
                "{credential}"
            );
            assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        }
        let twice = app.get("/products").bearer(EDITOR).bearer(EDITOR).await;
        assert_eq!(twice.status(), 401);
        for credential in
            [format!("Bearer {EDITOR}"), format!("bearer {EDITOR}"), format!("BEARER  {EDITOR} ")]
        {
            assert_eq!(
                app.get("/products").header("authorization", &credential).await.status(),
                200,
                "{credential}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn empty_bearer_token_never_authenticates() {
    let place = TestStorage::memory();
    let app = create_app(AppPreset::Testing)
        .authenticator(BearerTokens::new().token("", Actor::user("nobody").with_role("editor")))
        .resource(crate::support::notes(&place));
    let app = TestApp::build(app).await.unwrap();
    for credential in ["Bearer", "Bearer ", "Bearer x"] {
        let refused = app.post("/notes").header("authorization", credential).json(json!({"text": "a"})).await;
        assert_eq!(refused.status(), 401, "{credential}");
    }
    assert_eq!(app.app().count("notes").await.unwrap(), 0);
}

#[tokio::test]
async fn refused_request_reveals_no_faults_of_its_body_or_query() {
    on_every_storage(|app| async move {
        for request in [
            app.post("/notes").bearer(READER).body("{"),
            app.post("/notes?x=1").bearer(READER).json(json!({"colour": 1})),
            app.patch("/notes/1").bearer(READER).header("content-type", "text/plain").body("x"),
        ] {
            assert_eq!(request.await.status(), 403);
        }
        assert_eq!(app.get("/notes?colour=1").await.status(), 401);
    })
    .await;
}
