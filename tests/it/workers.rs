//! Subscribers of several nodes that share the work through a bus.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use resourceful::Event;
use resourceful::adapter::{Bus, MemoryBus, Redis};
use resourceful::events::{Delivery, Subscriber};
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;
use tokio::sync::Notify;

use crate::policies::model;
use crate::support::Place;
use crate::support::frail::Frail;

/// What was handled: by which node, of which item, in which order.
#[derive(Debug, Default)]
struct Notes {
    name: Uuid,
    handled: Mutex<Vec<(usize, String, i64)>>,
    /// Where this node begins something it does not come to an end until another one has.
    begun: Mutex<BTreeSet<usize>>,
    waits_for: AtomicUsize,
    /// A node that never comes to an end.
    hangs: Mutex<Option<usize>>,
    rung: Notify,
}

impl Notes {
    async fn until(&self, done: impl Fn(&Self) -> bool) {
        loop {
            let rung = self.rung.notified();
            if done(self) {
                return;
            }
            if tokio::time::timeout(Duration::from_secs(30), rung).await.is_err() {
                panic!("nothing happens any more: {self:?}");
            }
        }
    }

    fn count(&self) -> usize {
        self.handled.lock().unwrap().len()
    }
}

struct Noting {
    node: usize,
    notes: Arc<Notes>,
}

impl Subscriber for Noting {
    fn handle<'a>(
        &'a self,
        event: &'a Event,
        delivery: &'a Delivery,
    ) -> BoxFuture<'a, Result<(), resourceful::access::CheckError>> {
        Box::pin(async move {
            assert_eq!(delivery.subscriber(), "noting");
            self.notes.begun.lock().unwrap().insert(self.node);
            self.notes.rung.notify_waiters();
            let (waits_for, hangs) =
                (self.notes.waits_for.load(Ordering::SeqCst), *self.notes.hangs.lock().unwrap());
            if hangs == Some(self.node) {
                std::future::pending::<()>().await;
            }
            self.notes.until(|notes| notes.begun.lock().unwrap().len() >= waits_for).await;
            let count = event.data["count"].as_i64().unwrap();
            self.notes.handled.lock().unwrap().push((self.node, event.subject.clone(), count));
            self.notes.rung.notify_waiters();
            Ok(())
        })
    }
}

async fn node(place: &Place, bus: &Arc<dyn Bus>, node: usize, notes: &Arc<Notes>) -> TestApp {
    let mut shape = model(&["code"]);
    shape["properties"]["count"] = json!({"type": "integer", "default": 0});
    let counters = define_dynamic_resource("counters", shape)
        .adapter(place.table("counters"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .version("version")
        .build()
        .unwrap();
    let app = create_app(AppPreset::Testing)
        // Of this test alone.
        .secret(format!("{}{}", notes.name, notes.name))
        .bus(bus.clone())
        .resource(counters)
        .subscribe("noting", "counters.*", Noting { node, notes: notes.clone() });
    TestApp::build(app).await.unwrap()
}

/// Every bus there is.
async fn buses() -> Vec<Arc<dyn Bus>> {
    let mut buses: Vec<Arc<dyn Bus>> = vec![Arc::new(MemoryBus::new())];
    if let Ok(url) = std::env::var("TEST_REDIS_URL") {
        buses.push(Redis::connect(&url).await.unwrap().bus());
    }
    buses
}

async fn create(app: &TestApp, items: std::ops::Range<usize>) {
    for item in items {
        let created = app.post("/counters").json(json!({"code": format!("c{item}")})).await;
        assert_eq!(created.status(), 201, "{created}");
    }
}

#[tokio::test]
async fn nodes_share_the_work_and_each_item_keeps_its_order() {
    for bus in buses().await {
        for place in Place::all().await {
            println!("with {} on {}", bus.name(), place.name);
            let notes = Arc::new(Notes { name: Uuid::new_v4(), waits_for: 3.into(), ..Notes::default() });
            let mut nodes = Vec::new();
            for number in 0..3 {
                nodes.push(node(&place, &bus, number, &notes).await);
            }
            let running: Vec<_> = nodes.iter().map(|node| node.app().background()).collect();
            create(&nodes[0], 0..60).await;
            for count in 1..=3 {
                for item in 0..60 {
                    let path = format!("/counters/c{item}");
                    assert_eq!(nodes[1].patch(&path).json(json!({"count": count})).await.status(), 200);
                }
            }
            notes.until(|notes| notes.count() >= 240).await;
            let handled = notes.handled.lock().unwrap().clone();
            let mut items: HashMap<&str, Vec<i64>> = HashMap::new();
            for (_, item, count) in &handled {
                items.entry(item).or_default().push(*count);
            }
            assert_eq!(items.len(), 60);
            for (item, counts) in items {
                assert_eq!(counts, [0, 1, 2, 3], "{item} with {} on {}", bus.name(), place.name);
            }
            let busy: BTreeSet<_> = handled.iter().map(|(node, ..)| *node).collect();
            assert_eq!(busy.len(), 3, "every node did some of it");
            for running in running {
                running.stop().await;
            }
        }
    }
}

#[tokio::test]
async fn what_a_node_that_ended_had_taken_goes_to_another() {
    for bus in buses().await {
        let place = Place::sqlite().await;
        let notes = Arc::new(Notes { name: Uuid::new_v4(), hangs: Mutex::new(Some(1)), ..Notes::default() });
        let nodes = [node(&place, &bus, 0, &notes).await, node(&place, &bus, 1, &notes).await];
        // The first one relays, and goes on with it.
        let first = nodes[0].app().background();
        create(&nodes[0], 40..41).await;
        notes.until(|notes| notes.count() == 1).await;
        notes.waits_for.store(2, Ordering::SeqCst);
        let second = nodes[1].app().background();
        create(&nodes[0], 0..40).await;
        // The second node has begun something that it will never end, and goes.
        notes.until(|notes| notes.begun.lock().unwrap().len() == 2).await;
        drop(second);
        notes.until(|notes| notes.count() >= 41).await;
        let items: BTreeSet<_> =
            notes.handled.lock().unwrap().iter().map(|(_, item, _)| item.clone()).collect();
        assert_eq!(items.len(), 41, "with {}", bus.name());
        first.stop().await;
    }
}

#[tokio::test]
async fn subscribers_are_told_while_the_bus_is_away() {
    let (bus, switch) = Frail::new();
    let bus: Arc<dyn Bus> = bus;
    let notes = Arc::new(Notes { name: Uuid::new_v4(), ..Notes::default() });
    let app = node(&Place::memory(), &bus, 0, &notes).await;
    let running = app.app().background();
    create(&app, 0..10).await;
    notes.until(|notes| notes.count() >= 10).await;
    switch.send(false).unwrap();
    create(&app, 10..20).await;
    notes.until(|notes| notes.count() >= 20).await;
    switch.send(true).unwrap();
    create(&app, 20..30).await;
    notes.until(|notes| notes.count() >= 30).await;
    running.stop().await;
}
