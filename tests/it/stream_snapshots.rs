//! A list, and a stream that goes on from it: `Prefer: stream-position`.

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;

use crate::streams::{app, change, create, expected_events, next_events};
use crate::support::TestStorage;

async fn position(app: &TestApp, path: &str) -> String {
    let list = app.get(path).header("prefer", "stream-position, count=exact").await;
    assert_eq!(list.status(), 200, "{list}");
    let applied: Vec<_> = list.headers().get_all("preference-applied").iter().collect();
    assert_eq!(applied, ["count=exact", "stream-position"]);
    list.header("stream-position").expect("a position").to_owned()
}

#[tokio::test]
async fn stream_resumes_from_a_list_position() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        create(&app, "published", "one", "s").await;
        app.app().deliver().await.unwrap();
        // In the list, and published only after it.
        create(&app, "committed", "two", "s").await;
        let position = position(&app, "/things?shelf=s&limit=1&fields=id").await;
        create(&app, "later", "three", "s").await;
        change(&app, "committed", json!({"text": "four"})).await;
        let path = format!("/things/stream?shelf=s&last_event_id={position}");
        let mut stream = app.get(&path).stream().await.unwrap();
        assert_eq!(stream.next().await.unwrap().name, "ready");
        app.app().deliver().await.unwrap();
        let expected = expected_events(&[
            ("things.created", "later", Some("three")),
            ("things.updated", "committed", Some("four")),
        ]);
        assert_eq!(next_events(&mut stream, 2).await, expected, "{}", storage.name);
        // Again, with everything published by now.
        let mut stream = app.get(&path).stream().await.unwrap();
        assert_eq!(stream.next().await.unwrap().name, "ready");
        assert_eq!(next_events(&mut stream, 2).await, expected, "{}", storage.name);
    }
}

#[tokio::test]
async fn list_position_is_valid_for_streams_with_the_same_filter() {
    let app = app(&TestStorage::memory()).await;
    let position = position(&app, "/things?shelf=s&text=a&sort=-id").await;
    let stream = async |query: &str| {
        let stream = app.get(&format!("/things/stream?{query}")).header("last-event-id", &position).stream();
        stream.await.map(drop).map_err(|answer| answer.status())
    };
    assert_eq!(stream("text=a&shelf=s").await, Ok(()));
    assert_eq!(stream("text=a&shelf=t").await, Err(400));
    assert_eq!(stream("text=a").await, Err(400));
}

#[tokio::test]
async fn resource_without_streams_returns_no_position() {
    let model = json!({"type": "object", "properties": {"id": {"type": "string"}}});
    for (events, streams) in [(true, false), (false, true)] {
        let storage = TestStorage::memory();
        let quiet = define_dynamic_resource("quiet", model.clone())
            .adapter(storage.table("quiet"))
            .permissions(Permissions::all(anyone()))
            .events(events)
            .streams(streams)
            .build()
            .unwrap();
        let app = TestApp::build(create_app(AppPreset::Testing).resource(quiet)).await.unwrap();
        let list = app.get("/quiet").header("prefer", "stream-position").await;
        assert_eq!((list.status(), list.header("stream-position")), (200, None));
        // The path is an item's like any other.
        assert_eq!(app.get("/quiet/stream").await.status(), 404);
        assert_eq!(app.put("/quiet/stream").json(json!({"id": "stream"})).await.status(), 201);
        assert_eq!(app.get("/events").await.status(), 404);
    }
}
