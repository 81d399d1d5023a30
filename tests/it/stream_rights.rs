//! Who is told what by a stream: what GET would show them now, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use http::request::Parts;
use resourceful::Change;
use resourceful::access::{Authenticator, Grant, Grants, MemorySessions, Sessions, Unauthenticated};
use resourceful::live::Streams;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestStream};
use serde_json::{Value as Json, json};

use crate::support::TestStorage;

fn model(fields: &[&str]) -> Json {
    let properties: serde_json::Map<_, _> =
        fields.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    json!({"type": "object", "required": fields, "properties": properties})
}

fn tokens() -> BearerTokens {
    BearerTokens::new()
        .token("ada", Actor::user("ada").in_tenant("acme", ["member"]))
        .token("bob", Actor::user("bob").in_tenant("bolt", ["member"]))
        .token("boss", Actor::user("boss").in_tenant("acme", ["boss"]).with_role("boss"))
}

async fn open_stream(app: &TestApp, path: &str, token: &str) -> TestStream {
    let stream = app.get(path).bearer(token).stream().await;
    let mut stream = stream.unwrap_or_else(|answer| panic!("{path} as {token}: {answer}"));
    assert_eq!(stream.next().await.unwrap().name, "ready");
    stream
}

/// What the next event is called, and its data.
async fn next(stream: &mut TestStream) -> (String, Json) {
    let event = stream.next().await.expect("another event");
    (event.name, event.data["data"].clone())
}

/// Ends the streams, so that what is told before the end is all there is.
async fn assert_ended(stream: &mut TestStream) {
    assert_eq!(stream.next().await.unwrap().name, "end");
}

#[tokio::test]
async fn tenant_isolation_and_field_masks_hold_on_streams() {
    for storage in TestStorage::all().await {
        let mut shape = model(&["id", "org", "text", "secret"]);
        shape["properties"]["secret"]["default"] = json!("x");
        let notes = define_dynamic_resource("notes", shape)
            .adapter(storage.table("notes"))
            .permissions(Permissions::all(signed_in()))
            .preset(multi_tenant("org"))
            .visible_to(["secret"], role("boss"))
            .filterable(["secret", "text"])
            .build()
            .unwrap();
        let builder = create_app(AppPreset::Testing).authenticator(tokens()).resource(notes);
        let app = TestApp::build(builder).await.unwrap();
        let background = app.app().background();
        assert_eq!(app.get("/notes/stream").await.status(), 401);
        let refused = app.get("/notes/stream?secret=x").bearer("ada").await;
        assert_eq!(refused.status(), 400, "{refused}");
        let mut ada = open_stream(&app, "/notes/stream", "ada").await;
        let mut boss = open_stream(&app, "/notes/stream?secret=x", "boss").await;
        let mut bob = open_stream(&app, "/events", "bob").await;
        for (token, id, secret) in [("ada", "a", None), ("bob", "b", None), ("boss", "c", Some("y"))] {
            let mut body = json!({"id": id, "text": "hello"});
            if let Some(secret) = secret {
                body["secret"] = json!(secret);
            }
            assert_eq!(app.post("/notes").bearer(token).json(body).await.status(), 201);
        }
        let patched = app.patch("/notes/a").bearer("ada").json(json!({"text": "new"})).await;
        let shown = patched.json();
        assert_eq!((patched.status(), shown.get("secret")), (200, None), "{patched}");
        assert_eq!(next(&mut ada).await.1["id"], "a");
        assert_eq!(next(&mut ada).await.1["id"], "c");
        assert_eq!(next(&mut ada).await, ("notes.updated".to_owned(), shown), "{}", storage.name);
        for _ in 0..2 {
            let of_boss = next(&mut boss).await.1;
            assert_eq!((of_boss["id"].as_str(), of_boss["secret"].as_str()), (Some("a"), Some("x")));
        }
        let of_bob = bob.next().await.unwrap();
        assert_eq!(
            (of_bob.data["subject"].as_str(), of_bob.data["tenantid"].as_str()),
            (Some("b"), Some("bolt"))
        );
        background.stop().await;
        assert_ended(&mut ada).await;
        assert_ended(&mut boss).await;
        assert_ended(&mut bob).await;
    }
}

#[tokio::test]
async fn owner_change_is_removed_for_one_and_added_for_the_other() {
    for storage in TestStorage::all().await {
        let notes = define_dynamic_resource("notes", model(&["id", "owner", "text"]))
            .adapter(storage.table("notes"))
            .permissions(Permissions::all(any_of([owner("owner"), role("boss")])))
            .build()
            .unwrap();
        let builder = create_app(AppPreset::Testing).authenticator(tokens()).resource(notes);
        let app = TestApp::build(builder).await.unwrap();
        let (mut ada, mut bob) = (
            open_stream(&app, "/notes/stream", "ada").await,
            open_stream(&app, "/notes/stream", "bob").await,
        );
        let note = json!({"id": "n", "owner": "ada", "text": "hello"});
        assert_eq!(app.post("/notes").bearer("boss").json(note).await.status(), 201);
        let moved = app.patch("/notes/n").bearer("boss").json(json!({"owner": "bob"})).await;
        assert_eq!(moved.status(), 200, "{moved}");
        app.app().deliver().await.unwrap();
        // By the time of telling it is bob's, so that GET shows ada nothing of it, not even what it was.
        assert_eq!(next(&mut bob).await, ("added".to_owned(), moved.json()), "{}", storage.name);
        assert_eq!(next(&mut ada).await, ("removed".to_owned(), Json::Null), "{}", storage.name);
    }
}

#[tokio::test]
async fn hidden_field_rules_hold_and_unknown_old_values_reset_the_stream() {
    for storage in TestStorage::all().await {
        let mut model = model(&["id", "text"]);
        model["properties"]["owner"] = json!({"type": ["string", "null"]});
        let notes = define_dynamic_resource("notes", model)
            .adapter(storage.table("notes"))
            .permissions(Permissions::all(anyone()).list(owner("owner")))
            .hidden(["owner"])
            .before([Operation::Update], |note: &mut serde_json::Map<String, Json>, _: &mut Change| {
                if note["text"] == "given away" {
                    note.insert("owner".to_owned(), json!("bob"));
                }
                Ok(())
            })
            .build()
            .unwrap();
        let builder = create_app(AppPreset::Testing).authenticator(tokens()).resource(notes);
        let app = TestApp::build(builder).await.unwrap();
        let row = |id: &str, owner: &str| json!({"id": id, "owner": owner, "text": "old"});
        let rows = [row("a", "ada"), row("b", "bob")];
        app.app().load().rows("notes", rows).unwrap().commit().await.unwrap();
        let mut ada = open_stream(&app, "/notes/stream", "ada").await;
        for id in ["b", "a"] {
            let patched = app.patch(&format!("/notes/{id}")).json(json!({"text": "new"})).await;
            assert_eq!(patched.status(), 200);
        }
        app.app().deliver().await.unwrap();
        assert_eq!(next(&mut ada).await, ("notes.updated".to_owned(), json!({"id": "a", "text": "new"})));
        // Whose it was nobody knows any more.
        let patched = app.patch("/notes/a").json(json!({"text": "given away"})).await;
        assert_eq!(patched.status(), 200, "{patched}");
        app.app().deliver().await.unwrap();
        assert_eq!(ada.next().await.unwrap().name, "reset", "{}", storage.name);
        // And here it is gone with the row.
        assert_eq!(app.delete("/notes/b").await.status(), 204);
        app.app().deliver().await.unwrap();
        assert_eq!(ada.next().await.unwrap().name, "reset", "{}", storage.name);
    }
}

#[tokio::test]
async fn soft_deletes_and_restores_are_streamed() {
    for storage in TestStorage::all().await {
        let mut model = model(&["id", "text"]);
        model["properties"]["deleted_at"] = json!({"type": ["string", "null"], "format": "date-time"});
        let notes = define_dynamic_resource("notes", model)
            .adapter(storage.table("notes"))
            .permissions(Permissions::all(anyone()))
            .preset(soft_delete())
            .build()
            .unwrap();
        let app = TestApp::build(create_app(AppPreset::Testing).resource(notes)).await.unwrap();
        let mut stream = app.get("/notes/stream").stream().await.unwrap();
        assert_eq!(stream.next().await.unwrap().name, "ready");
        assert_eq!(app.post("/notes").json(json!({"id": "a", "text": "x"})).await.status(), 201);
        assert_eq!(app.delete("/notes/a").await.status(), 200);
        assert_eq!(app.post("/notes/a/restore").await.status(), 200);
        app.app().deliver().await.unwrap();
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(stream.next().await.unwrap().name);
        }
        assert_eq!(names, ["notes.created", "notes.deleted", "added"], "{}", storage.name);
    }
}

/// Lets everyone be `ada`, as long as the switch is on.
#[derive(Debug)]
pub(crate) struct ToggledAuthenticator(pub(crate) Arc<AtomicBool>);

impl Authenticator for ToggledAuthenticator {
    fn scheme(&self) -> &'static str {
        "Bearer"
    }

    fn authenticate<'a>(&'a self, _: &'a Parts) -> BoxFuture<'a, Result<Option<Actor>, Unauthenticated>> {
        let on = self.0.load(Ordering::SeqCst);
        Box::pin(std::future::ready(if on { Ok(Some(Actor::user("ada"))) } else { Err(Unauthenticated) }))
    }
}

#[tokio::test]
async fn stream_ends_when_its_credential_expires() {
    let storage = TestStorage::memory();
    let on = Arc::new(AtomicBool::new(true));
    let notes = define_dynamic_resource("notes", model(&["id", "text"]))
        .adapter(storage.table("notes"))
        .permissions(Permissions::all(signed_in()))
        .build()
        .unwrap();
    let builder = create_app(AppPreset::Testing)
        .authenticator(ToggledAuthenticator(on.clone()))
        .streams(Streams::new().heartbeat(Duration::from_millis(20)))
        .resource(notes);
    let app = TestApp::build(builder).await.unwrap();
    for path in ["/notes/stream", "/events"] {
        on.store(true, Ordering::SeqCst);
        let mut stream = app.get(path).stream().await.unwrap();
        assert_eq!(stream.next().await.unwrap().name, "ready");
        on.store(false, Ordering::SeqCst);
        let end = stream.next().await.unwrap();
        assert_eq!((end.name.as_str(), end.data), ("end", json!({"code": "unauthenticated"})));
        assert!(stream.next().await.is_none());
        assert_eq!(app.app().open_streams(), 0);
    }
}

#[tokio::test]
async fn permission_change_resets_the_stream_at_once() {
    let storage = TestStorage::memory();
    let granted = Arc::new(Mutex::new(vec![Grant::to("notes", Operation::ALL)]));
    let granted_handle = granted.clone();
    let grants = Grants::new(move |_| std::future::ready(Ok(granted_handle.lock().unwrap().clone())));
    let notes = define_dynamic_resource("notes", model(&["id", "text"]))
        .adapter(storage.table("notes"))
        .permissions(Permissions::all(grants.permission()))
        .build()
        .unwrap();
    let builder = create_app(AppPreset::Testing).authenticator(tokens()).grants(&grants).resource(notes);
    let app =
        TestApp::build(builder.streams(Streams::new().heartbeat(Duration::from_secs(3_600)))).await.unwrap();
    let mut stream = open_stream(&app, "/notes/stream", "ada").await;
    let before = stream.last_id().to_owned();
    let some = Grant::to("notes", Operation::ALL).rows(json!({"text": {"eq": "yes"}}));
    *granted.lock().unwrap() = vec![some];
    grants.invalidate().await.unwrap();
    assert_eq!(stream.next().await.unwrap().name, "reset");
    let load = |id: &str, text: &str| json!({"id": id, "text": text});
    for (id, text) in [("a", "no"), ("b", "yes")] {
        let created = app.post("/notes").bearer("ada").json(load(id, text)).await.status();
        assert_eq!(created, if text == "yes" { 201 } else { 403 });
    }
    app.app().deliver().await.unwrap();
    assert_eq!(next(&mut stream).await.1["id"], "b");
    // Whoever comes back from before the change begins anew.
    let back = app.get("/notes/stream").bearer("ada").header("last-event-id", &before).stream().await;
    let mut back = back.unwrap();
    assert_eq!(back.next().await.unwrap().name, "ready");
    assert_eq!(back.next().await.unwrap().name, "reset");
    granted.lock().unwrap().clear();
    grants.invalidate().await.unwrap();
    assert_eq!(stream.next().await.unwrap().data, json!({"code": "forbidden"}));
}

#[tokio::test]
async fn open_stream_does_not_extend_its_session() {
    let storage = TestStorage::memory();
    let notes = define_dynamic_resource("notes", model(&["id", "text"]))
        .adapter(storage.table("notes"))
        .permissions(Permissions::all(signed_in()))
        .build()
        .unwrap();
    let sessions = Sessions::new("kZ8uA2n0w1Yq7Rr3Tt5Vv9Xx4Bb6Dd8F", MemorySessions::new())
        .idle(Duration::from_millis(500));
    let cookie = sessions.start(Actor::user("ada")).await.unwrap();
    let builder = create_app(AppPreset::Testing)
        .authenticator(sessions)
        .streams(Streams::new().heartbeat(Duration::from_millis(10)))
        .resource(notes);
    let app = TestApp::build(builder).await.unwrap();
    let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
    let mut stream = app.get("/notes/stream").header("cookie", &cookie).stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap().name, "ready");
    let end = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
    assert_eq!(end.expect("it ends").unwrap().data, json!({"code": "unauthenticated"}));
}

#[tokio::test]
async fn catch_up_uses_current_permissions() {
    let storage = TestStorage::memory();
    let on = Arc::new(AtomicBool::new(true));
    let notes = define_dynamic_resource("notes", model(&["id", "text"]))
        .adapter(storage.table("notes"))
        .permissions(Permissions::read(signed_in()).write(anyone()))
        .build()
        .unwrap();
    let builder = create_app(AppPreset::Testing)
        .authenticator(ToggledAuthenticator(on.clone()))
        .streams(Streams::new().heartbeat(Duration::from_millis(1)))
        .resource(notes);
    let app = TestApp::build(builder).await.unwrap();
    let mut stream = app.get("/notes/stream").stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap().name, "ready");
    let storage = stream.last_id().to_owned();
    drop(stream);
    let rows = (0..700).map(|id| json!({"id": id.to_string(), "text": "t"}));
    for row in rows {
        assert_eq!(app.post("/notes").json(row).await.status(), 201);
    }
    app.app().deliver().await.unwrap();
    let mut back = app.get("/notes/stream").header("last-event-id", &storage).stream().await.unwrap();
    assert_eq!(back.next().await.unwrap().name, "ready");
    assert_eq!(back.next().await.unwrap().name, "notes.created");
    on.store(false, Ordering::SeqCst);
    let mut delivered = 0;
    let end = loop {
        let event = back.next().await.unwrap();
        if event.name != "notes.created" {
            break event;
        }
        delivered += 1;
    };
    assert_eq!((end.name.as_str(), end.data), ("end", json!({"code": "unauthenticated"})));
    assert!(delivered < 650, "{delivered} more were told");
}
