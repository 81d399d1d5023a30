//! Changes of all resources: `GET /events`.

use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestStream};
use serde_json::json;

use crate::policies::model;
use crate::support::TestStorage;

fn resource(storage: &TestStorage, name: &str, permissions: Permissions) -> Resource {
    let model = json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}});
    define_dynamic_resource(name, model)
        .adapter(storage.table(name))
        .permissions(permissions)
        .build()
        .unwrap()
}

/// Orders and notes for everyone in two databases, and secrets for bosses.
async fn app(one: &TestStorage, other: &TestStorage) -> TestApp {
    let tokens = BearerTokens::new()
        .token("boss", Actor::user("boss").with_role("boss"))
        .token("ada", Actor::user("ada"));
    let builder = create_app(AppPreset::Testing)
        .authenticator(tokens)
        .resource(resource(one, "orders", Permissions::all(anyone())))
        .resource(resource(other, "notes", Permissions::all(anyone())))
        .resource(resource(one, "secrets", Permissions::all(role("boss"))));
    TestApp::build(builder).await.unwrap()
}

async fn create(app: &TestApp, path: &str, id: &str) {
    assert_eq!(app.post(path).bearer("boss").json(json!({"id": id})).await.status(), 201);
}

async fn open_stream(app: &TestApp, path: &str, token: &str, after: Option<&str>) -> TestStream {
    let mut request = app.get(path).bearer(token);
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let mut stream = request.stream().await.unwrap_or_else(|answer| panic!("{path}: {answer}"));
    assert_eq!(stream.next().await.unwrap().name, "ready");
    stream
}

/// The next events, in whatever order databases tell them.
async fn names(stream: &mut TestStream, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..count {
        let event = stream.next().await.expect("another event");
        names.push(format!("{} {}", event.name, event.data["subject"].as_str().unwrap_or_default()));
    }
    names.sort_unstable();
    names
}

#[tokio::test]
async fn stream_delivers_only_requested_event_types() {
    for storage in TestStorage::all().await {
        let app = app(&storage, &storage).await;
        let background = app.app().background();
        let mut all = open_stream(&app, "/events", "boss", None).await;
        let mut some = open_stream(&app, "/events?types=notes.*,orders.deleted", "ada", None).await;
        create(&app, "/orders", "o").await;
        create(&app, "/notes", "n").await;
        assert_eq!(app.delete("/orders/o").await.status(), 204);
        assert_eq!(names(&mut all, 3).await, ["notes.created n", "orders.created o", "orders.deleted o"]);
        assert_eq!(names(&mut some, 2).await, ["notes.created n", "orders.deleted o"], "{}", storage.name);
        background.stop().await;
        assert_eq!(some.next().await.unwrap().name, "end", "{}", storage.name);
    }
}

#[tokio::test]
async fn unlistable_types_are_rejected_by_name_and_omitted_from_wildcards() {
    let storage = TestStorage::memory();
    let app = app(&storage, &storage).await;
    for (token, status) in [(None, 401), (Some("ada"), 403)] {
        let request = app.get("/events?types=secrets.created");
        let request = if let Some(token) = token { request.bearer(token) } else { request };
        assert_eq!(request.stream().await.unwrap_err().status(), status);
    }
    let mut ada = open_stream(&app, "/events?types=*", "ada", None).await;
    let mut boss = open_stream(&app, "/events?types=secrets.*", "boss", None).await;
    create(&app, "/secrets", "s").await;
    create(&app, "/orders", "o").await;
    app.app().deliver().await.unwrap();
    assert_eq!(names(&mut ada, 1).await, ["orders.created o"]);
    assert_eq!(names(&mut boss, 1).await, ["secrets.created s"]);
}

#[tokio::test]
async fn stream_resumes_across_several_databases() {
    let app = app(&TestStorage::memory(), &TestStorage::memory()).await;
    let mut stream = open_stream(&app, "/events", "ada", None).await;
    create(&app, "/orders", "1").await;
    create(&app, "/notes", "2").await;
    app.app().deliver().await.unwrap();
    assert_eq!(names(&mut stream, 2).await, ["notes.created 2", "orders.created 1"]);
    let last = stream.last_id().to_owned();
    drop(stream);
    create(&app, "/notes", "3").await;
    create(&app, "/orders", "4").await;
    app.app().deliver().await.unwrap();
    let mut back = open_stream(&app, "/events", "ada", Some(&last)).await;
    assert_eq!(names(&mut back, 2).await, ["notes.created 3", "orders.created 4"]);
    create(&app, "/orders", "5").await;
    app.app().deliver().await.unwrap();
    assert_eq!(names(&mut back, 1).await, ["orders.created 5"]);
}

#[tokio::test]
async fn caller_without_access_learns_no_event_types() {
    let secrets = define_dynamic_resource("secrets", model(&["code"]))
        .adapter(TestStorage::memory().table("secrets"))
        .id_field("code")
        .permissions(Permissions::all(role("boss")))
        .build()
        .unwrap();
    let tokens = BearerTokens::new()
        .token("ada", Actor::user("ada"))
        .token("boss", Actor::user("boss").with_role("boss"));
    let app = create_app(AppPreset::Testing).authenticator(tokens).resource(secrets);
    let app = TestApp::build(app).await.unwrap();
    for query in [
        "types=nothing.*",
        "types=secrets",
        "types=secrets.cretaed",
        "types=secrets.restored",
        "tipes=*",
        "types=%zz",
        "last_event_id=a&last_event_id=b",
    ] {
        for (token, status) in [(None, 401), (Some("ada"), 403), (Some("boss"), 400)] {
            let request = app.get(&format!("/events?{query}"));
            let request = if let Some(token) = token { request.bearer(token) } else { request };
            let refused = request.stream().await.unwrap_err();
            assert_eq!(refused.status(), status, "{query} as {token:?}: {refused}");
        }
    }
    let misspelled = app.get("/events?types=secrets.cretaed").bearer("boss").stream().await.unwrap_err();
    assert!(misspelled.text().contains("Did you mean `created`?"), "{misspelled}");
    let several =
        app.get("/events?types=secrets.created&types=secrets.deleted").bearer("boss").stream().await;
    assert_eq!(several.unwrap().next().await.unwrap().name, "ready");
}
