//! Changes as they happen: `GET /{resource}/stream`.

use resourceful::live::Streams;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestEvent, TestStream};
use resourceful::{ResourceBuilder, define_dynamic_resource};
use serde_json::{Value as Json, json};

use crate::support::TestStorage;

pub(crate) fn model() -> Json {
    json!({"type": "object", "required": ["id", "text", "shelf"], "properties": {
        "id": {"type": "string"},
        "text": {"type": "string"},
        "shelf": {"type": "string"},
        "price": {"type": ["integer", "null"]},
    }})
}

pub(crate) fn things(storage: &TestStorage) -> Resource {
    things_builder(storage).build().unwrap()
}

fn things_builder(storage: &TestStorage) -> ResourceBuilder {
    define_dynamic_resource("things", model())
        .adapter(storage.table("things"))
        .permissions(Permissions::all(anyone()))
        .filterable(["text", "shelf", "price"])
        .preset(bulk())
}

/// A word as a query string has it.
fn percent_encoded(word: &str) -> String {
    word.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

pub(crate) async fn app(storage: &TestStorage) -> TestApp {
    TestApp::build(create_app(AppPreset::Testing).resource(things(storage))).await.unwrap()
}

pub(crate) async fn open_stream(app: &TestApp, path: &str) -> TestStream {
    let mut stream = app.get(path).stream().await.unwrap_or_else(|answer| panic!("{path}: {answer}"));
    let ready = stream.next().await.unwrap();
    assert_eq!((ready.name.as_str(), ready.id.is_empty()), ("ready", false));
    stream
}

pub(crate) async fn create(app: &TestApp, id: &str, text: &str, shelf: &str) {
    let thing = json!({"id": id, "text": text, "shelf": shelf});
    assert_eq!(app.post("/things").json(thing).await.status(), 201);
}

pub(crate) async fn change(app: &TestApp, id: &str, patch: Json) {
    assert_eq!(app.patch(&format!("/things/{id}")).json(patch).await.status(), 200);
}

/// What the next events are called and whom they are of, and what they show.
pub(crate) async fn next_events(stream: &mut TestStream, count: usize) -> Vec<(String, String, Json)> {
    let mut events = Vec::new();
    for _ in 0..count {
        let event = stream.next().await.expect("another event");
        events.push((event.name.clone(), subject(&event), event.data["data"]["text"].clone()));
    }
    events
}

fn subject(event: &TestEvent) -> String {
    event.data["subject"].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn expected_events(events: &[(&str, &str, Option<&str>)]) -> Vec<(String, String, Json)> {
    events
        .iter()
        .map(|(name, subject, text)| ((*name).to_owned(), (*subject).to_owned(), json!(text)))
        .collect()
}

#[tokio::test]
async fn stream_delivers_every_change_in_order() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let background = app.app().background();
        let mut stream = open_stream(&app, "/things/stream").await;
        create(&app, "a", "one", "s").await;
        change(&app, "a", json!({"text": "two"})).await;
        assert_eq!(app.delete("/things/a").await.status(), 204);
        let expected = expected_events(&[
            ("things.created", "a", Some("one")),
            ("things.updated", "a", Some("two")),
            ("things.deleted", "a", Some("two")),
        ]);
        assert_eq!(next_events(&mut stream, 3).await, expected, "{}", storage.name);
        background.stop().await;
        assert_eq!(stream.next().await.unwrap().data, json!({"code": "closing"}));
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn streamed_event_equals_the_outbox_event() {
    let app = app(&TestStorage::memory()).await;
    let mut stream = open_stream(&app, "/things/stream").await;
    create(&app, "a", "one", "s").await;
    app.app().deliver().await.unwrap();
    let event = stream.next().await.unwrap();
    let stored = serde_json::to_value(&app.events().await[0]).unwrap();
    assert_eq!(event.data, stored);
}

#[tokio::test]
async fn an_item_that_starts_or_stops_matching_is_added_or_removed() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let mut stream = open_stream(&app, "/things/stream?shelf=s&price[gte]=10").await;
        create(&app, "a", "one", "s").await;
        change(&app, "a", json!({"price": 10, "text": "two"})).await;
        change(&app, "a", json!({"price": 11, "text": "three"})).await;
        change(&app, "a", json!({"shelf": "t"})).await;
        change(&app, "a", json!({"text": "four"})).await;
        change(&app, "a", json!({"shelf": "s"})).await;
        change(&app, "a", json!({"price": null})).await;
        app.app().deliver().await.unwrap();
        let expected = expected_events(&[
            ("added", "a", Some("two")),
            ("things.updated", "a", Some("three")),
            ("removed", "a", None),
            ("added", "a", Some("four")),
            ("removed", "a", None),
        ]);
        assert_eq!(next_events(&mut stream, 5).await, expected, "{}", storage.name);
    }
}

#[tokio::test]
async fn stream_search_matches_list_search() {
    let cases = [
        ("İstanbul", "İST", true),
        ("İstanbul", "ist", false),
        ("Straße", "STRAẞE", true),
        ("Straße", "strasse", false),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσεύς", false),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς", true),
        ("273 \u{212a}", "k", true),
        ("თბილისი", "ᲗᲑᲘᲚᲘᲡᲘ", true),
    ];
    for storage in TestStorage::all().await {
        let things = things_builder(&storage).searchable(["text"]).build().unwrap();
        let app = TestApp::build(create_app(AppPreset::Testing).resource(things)).await.unwrap();
        for (number, (text, word, found)) in cases.into_iter().enumerate() {
            let mut stream = open_stream(&app, &format!("/things/stream?q={}", percent_encoded(word))).await;
            let [own, last] = ["own", "last"].map(|name| format!("{name}-{number}"));
            create(&app, &own, text, "s").await;
            create(&app, &last, word, "s").await;
            app.app().deliver().await.unwrap();
            let first = subject(&stream.next().await.unwrap());
            assert_eq!(first == own, found, "a stream of {word} shows {text} on {}", storage.name);
            let list = app.get(&format!("/things?id={own}&q={}", percent_encoded(word))).await;
            assert_eq!(list.items().len() == 1, found, "a list of {word} shows {text} on {}", storage.name);
            let stored = app.get(&format!("/things?id={own}&q={}", percent_encoded(text))).await;
            assert_eq!(stored.items().len(), 1, "{text} is found by its own spelling on {}", storage.name);
        }
    }
}

#[tokio::test]
async fn stream_resumes_after_last_event_id() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let mut stream = open_stream(&app, "/things/stream?shelf=s").await;
        create(&app, "a", "one", "s").await;
        app.app().deliver().await.unwrap();
        let first = stream.next().await.unwrap();
        drop(stream);
        create(&app, "b", "two", "s").await;
        create(&app, "elsewhere", "three", "t").await;
        app.app().deliver().await.unwrap();
        // Something waits to be published while the client comes back.
        create(&app, "c", "four", "s").await;
        let back = app.get("/things/stream?shelf=s").header("last-event-id", &first.id).stream().await;
        let mut back = back.unwrap();
        assert_eq!(back.next().await.unwrap().name, "ready");
        app.app().deliver().await.unwrap();
        let expected =
            expected_events(&[("things.created", "b", Some("two")), ("things.created", "c", Some("four"))]);
        assert_eq!(next_events(&mut back, 2).await, expected, "{}", storage.name);
        let by_parameter = format!("/things/stream?shelf=s&last_event_id={}", first.id);
        let mut back = open_stream(&app, &by_parameter).await;
        assert_eq!(next_events(&mut back, 2).await, expected);
    }
}

#[tokio::test]
async fn position_is_rejected_by_other_streams() {
    let app = app(&TestStorage::memory()).await;
    let stream = open_stream(&app, "/things/stream?shelf=s").await;
    let id = stream.last_id().to_owned();
    let mut altered = id.clone();
    altered.replace_range(3..4, if id.as_bytes()[3] == b'A' { "B" } else { "A" });
    for (path, id) in [
        ("/things/stream?shelf=t", id.as_str()),
        ("/things/stream", &id),
        ("/events", &id),
        ("/things/stream?shelf=s", &altered),
        ("/things/stream?shelf=s", "é"),
    ] {
        let id = if id.is_ascii() { id } else { "?" };
        let answer = app.get(path).header("last-event-id", id).stream().await.unwrap_err();
        assert_eq!(
            (answer.status(), answer.json()["code"].as_str()),
            (400, Some("invalid-cursor")),
            "{path}"
        );
        assert_eq!(answer.json()["errors"][0]["header"], "Last-Event-ID");
    }
}

#[tokio::test]
async fn unknown_stream_parameters_are_rejected() {
    let app = app(&TestStorage::memory()).await;
    for query in ["sort=text", "limit=5", "after=x", "page=1", "prise=1", "price[has]=1", "include=x"] {
        let answer = app.get(&format!("/things/stream?{query}")).stream().await.unwrap_err();
        assert_eq!(answer.status(), 400, "{query}: {answer}");
    }
    for query in ["types=nothing.*", "types=things", "sort=text"] {
        let answer = app.get(&format!("/events?{query}")).stream().await.unwrap_err();
        assert_eq!(answer.status(), 400, "{query}: {answer}");
    }
}

#[tokio::test]
async fn slow_reader_gets_lagged_and_is_disconnected() {
    let storage = TestStorage::memory();
    let builder = create_app(AppPreset::Testing).resource(things(&storage));
    let app = TestApp::build(builder.streams(Streams::new().queue(3))).await.unwrap();
    let mut stream = open_stream(&app, "/things/stream").await;
    create(&app, "a", "one", "s").await;
    app.app().deliver().await.unwrap();
    let first = stream.next().await.unwrap();
    for number in 0..5 {
        create(&app, &format!("b{number}"), "more", "s").await;
    }
    app.app().deliver().await.unwrap();
    assert_eq!(stream.next().await.unwrap().name, "lagged");
    assert!(stream.next().await.is_none());
    assert_eq!(stream.last_id(), first.id, "and goes on from what was told last");
    let mut back = open_stream(&app, &format!("/things/stream?last_event_id={}", first.id)).await;
    assert_eq!(next_events(&mut back, 5).await.len(), 5);
}

#[tokio::test]
async fn subscriber_queue_is_bounded_in_bytes() {
    let storage = TestStorage::memory();
    let app = TestApp::build(create_app(AppPreset::Testing).resource(things(&storage))).await.unwrap();
    let mut stream = open_stream(&app, "/things/stream").await;
    let first = stream.last_id().to_owned();
    let large = "x".repeat(900_000);
    for number in 0..5 {
        create(&app, &number.to_string(), &large, "s").await;
    }
    app.app().deliver().await.unwrap();
    assert_eq!(stream.next().await.unwrap().name, "lagged");
    assert!(stream.next().await.is_none());
    // What was missed is read a part at a time, and all of it is told.
    let mut back = open_stream(&app, &format!("/things/stream?last_event_id={first}")).await;
    let subjects: Vec<_> =
        next_events(&mut back, 5).await.into_iter().map(|(_, subject, _)| subject).collect();
    assert_eq!(subjects, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn removed_event_is_a_cloud_event_without_row_data() {
    let app = app(&TestStorage::memory()).await;
    let mut stream = open_stream(&app, "/things/stream?shelf=s").await;
    create(&app, "a", "one", "s").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let moved = app.patch("/things/a").header("traceparent", trace).json(json!({"shelf": "t"})).await;
    assert_eq!(moved.status(), 200);
    app.app().deliver().await.unwrap();
    let created = stream.next().await.unwrap().data;
    let removed = stream.next().await.unwrap().data;
    assert_eq!((&removed["type"], &removed["data"]), (&json!("things.removed"), &Json::Null));
    for member in ["specversion", "source", "subject", "datacontenttype"] {
        assert_eq!(removed[member], created[member], "{member}: {removed}");
    }
    for member in ["id", "time", "sequence"] {
        assert!(removed[member].is_string() && removed[member] != created[member], "{member}: {removed}");
    }
    // Who does not see the row any more is told nothing of who changed it and where it is now.
    for member in ["traceparent", "tenantid", "dataschema"] {
        assert!(removed.get(member).is_none(), "{member}: {removed}");
    }
}
