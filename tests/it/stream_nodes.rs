//! Streams on several nodes of one database.

use std::sync::Arc;

use resourceful::Sql;
use resourceful::adapter::{Bus, MemoryBus};
use resourceful::prelude::*;
use resourceful::testing::TestApp;

use crate::streams::{change, create, of, opened, things, told};
use crate::support::Place;
use crate::support::kept::LEASES;

async fn node(place: &Place, bus: Option<&Arc<dyn Bus>>) -> TestApp {
    let builder = create_app(AppPreset::Testing).resource(things(place));
    let builder = match bus {
        Some(bus) => builder.bus(bus.clone()),
        None => builder,
    };
    TestApp::build(builder).await.unwrap()
}

/// Whoever held a lease is gone without giving it up.
async fn expire(place: &Place) {
    let (now, hour) = (chrono::Utc::now(), Duration::from_secs(3_600));
    LEASES.put(place, now - hour..now + hour, now - 2 * hour).await;
}

#[tokio::test]
async fn a_stream_tells_what_another_node_wrote_and_goes_on_there() {
    for place in Place::all().await {
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new());
        for bus in [None, Some(&bus)] {
            let (one, other) = (node(&place, bus).await, node(&place, bus).await);
            expire(&place).await;
            let id = |number: usize| format!("{number}{}", if bus.is_some() { "bus" } else { "" });
            let mut stream = opened(&one, "/things/stream?shelf=s").await;
            let (first, second) = (one.app().background(), other.app().background());
            create(&other, &id(1), "one", "s").await;
            let told_first = stream.next().await.unwrap();
            assert_eq!(told_first.data["subject"], id(1), "{}", place.name);
            // The node is gone, and the client with it.
            first.stop().await;
            drop(stream);
            create(&other, &id(2), "two", "s").await;
            create(&other, &id(3), "three", "t").await;
            let path = format!("/things/stream?shelf=s&last_event_id={}", told_first.id);
            let mut back = opened(&other, &path).await;
            change(&other, &id(1), serde_json::json!({"text": "four"})).await;
            let expected =
                of(&[("things.created", &id(2), Some("two")), ("things.updated", &id(1), Some("four"))]);
            expire(&place).await;
            assert_eq!(told(&mut back, 2).await, expected, "{}", place.name);
            second.stop().await;
        }
    }
}

/// What was written before the first node ever looked, by a database connection of its own.
#[tokio::test]
async fn nodes_with_connections_of_their_own_tell_alike() {
    let Some(place) = Place::postgres().await else { return };
    let other = Sql::connect(place.url().unwrap()).await.unwrap();
    let one = node(&place, None).await;
    let things = define_dynamic_resource("things", crate::streams::model())
        .adapter(other.table("things"))
        .permissions(Permissions::all(anyone()))
        .filterable(["text", "shelf", "price"])
        .build()
        .unwrap();
    let other = TestApp::build(create_app(AppPreset::Testing).resource(things)).await.unwrap();
    let (first, second) = (one.app().background(), other.app().background());
    let mut streams = [opened(&one, "/things/stream").await, opened(&other, "/things/stream").await];
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
