//! Streams on several nodes of one database.

use std::sync::Arc;

use resourceful::Sql;
use resourceful::adapter::{Bus, MemoryBus};
use resourceful::prelude::*;
use resourceful::testing::TestApp;

use crate::streams::{change, create, expected_events, next_events, open_stream, things};
use crate::support::TestStorage;
use crate::support::aged_rows::LEASES;

async fn node(storage: &TestStorage, bus: Option<&Arc<dyn Bus>>) -> TestApp {
    let builder = create_app(AppPreset::Testing).resource(things(storage));
    let builder = match bus {
        Some(bus) => builder.bus(bus.clone()),
        None => builder,
    };
    TestApp::build(builder).await.unwrap()
}

/// Whoever held a lease is gone without giving it up.
async fn expire_leases(storage: &TestStorage) {
    let (now, hour) = (chrono::Utc::now(), Duration::from_secs(3_600));
    LEASES.put(storage, now - hour..now + hour, now - 2 * hour).await;
}

#[tokio::test]
async fn stream_delivers_changes_of_another_node_and_resumes_there() {
    for storage in TestStorage::all().await {
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new());
        for bus in [None, Some(&bus)] {
            let (one, other) = (node(&storage, bus).await, node(&storage, bus).await);
            expire_leases(&storage).await;
            let id = |number: usize| format!("{number}{}", if bus.is_some() { "bus" } else { "" });
            let mut stream = open_stream(&one, "/things/stream?shelf=s").await;
            let (first, second) = (one.app().background(), other.app().background());
            create(&other, &id(1), "one", "s").await;
            let first_event = stream.next().await.unwrap();
            assert_eq!(first_event.data["subject"], id(1), "{}", storage.name);
            // The node is gone, and the client with it.
            first.stop().await;
            drop(stream);
            create(&other, &id(2), "two", "s").await;
            create(&other, &id(3), "three", "t").await;
            let path = format!("/things/stream?shelf=s&last_event_id={}", first_event.id);
            let mut back = open_stream(&other, &path).await;
            change(&other, &id(1), serde_json::json!({"text": "four"})).await;
            let expected = expected_events(&[
                ("things.created", &id(2), Some("two")),
                ("things.updated", &id(1), Some("four")),
            ]);
            expire_leases(&storage).await;
            assert_eq!(next_events(&mut back, 2).await, expected, "{}", storage.name);
            second.stop().await;
        }
    }
}

/// What was written before the first node ever looked, by a database connection of its own.
#[tokio::test]
async fn nodes_deliver_events_in_the_same_order() {
    let Some(storage) = TestStorage::postgres().await else { return };
    let other = Sql::connect(storage.url().unwrap()).await.unwrap();
    let one = node(&storage, None).await;
    let things = define_dynamic_resource("things", crate::streams::model())
        .adapter(other.table("things"))
        .permissions(Permissions::all(anyone()))
        .filterable(["text", "shelf", "price"])
        .build()
        .unwrap();
    let other = TestApp::build(create_app(AppPreset::Testing).resource(things)).await.unwrap();
    let (first, second) = (one.app().background(), other.app().background());
    let mut streams =
        [open_stream(&one, "/things/stream").await, open_stream(&other, "/things/stream").await];
    for number in 0..20 {
        let writer = if number % 2 == 0 { &one } else { &other };
        create(writer, &number.to_string(), "x", "s").await;
    }
    let mut orders = Vec::new();
    for stream in &mut streams {
        let mut order = Vec::new();
        for _ in 0..20 {
            let event = stream.next().await.unwrap();
            order.push((event.id.clone(), event.data["subject"].clone()));
        }
        orders.push(order);
    }
    assert_eq!(orders[0], orders[1], "in one order, at the same positions");
    first.stop().await;
    second.stop().await;
}
