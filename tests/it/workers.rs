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
use crate::support::TestStorage;
use crate::support::unreliable_bus::UnreliableBus;

/// What was handled: by which node, of which item, in which order.
#[derive(Debug, Default)]
struct HandlingLog {
    name: Uuid,
    handled: Mutex<Vec<(usize, String, i64)>>,
    /// Where this node begins something it does not come to an end until another one has.
    started_nodes: Mutex<BTreeSet<usize>>,
    waits_for: AtomicUsize,
    /// A node that never comes to an end.
    hanging_node: Mutex<Option<usize>>,
    changed: Notify,
}

impl HandlingLog {
    async fn wait_until(&self, done: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if done(self) {
                return;
            }
            if tokio::time::timeout(Duration::from_secs(30), changed).await.is_err() {
                panic!("nothing happens any more: {self:?}");
            }
        }
    }

    fn count(&self) -> usize {
        self.handled.lock().unwrap().len()
    }
}

struct RecordingSubscriber {
    node: usize,
    log: Arc<HandlingLog>,
}

impl Subscriber for RecordingSubscriber {
    fn handle<'a>(
        &'a self,
        event: &'a Event,
        delivery: &'a Delivery,
    ) -> BoxFuture<'a, Result<(), resourceful::access::CheckError>> {
        Box::pin(async move {
            assert_eq!(delivery.subscriber(), "noting");
            self.log.started_nodes.lock().unwrap().insert(self.node);
            self.log.changed.notify_waiters();
            let (waits_for, hanging_node) =
                (self.log.waits_for.load(Ordering::SeqCst), *self.log.hanging_node.lock().unwrap());
            if hanging_node == Some(self.node) {
                std::future::pending::<()>().await;
            }
            self.log.wait_until(|log| log.started_nodes.lock().unwrap().len() >= waits_for).await;
            let count = event.data["count"].as_i64().unwrap();
            self.log.handled.lock().unwrap().push((self.node, event.subject.clone(), count));
            self.log.changed.notify_waiters();
            Ok(())
        })
    }
}

async fn node(storage: &TestStorage, bus: &Arc<dyn Bus>, node: usize, log: &Arc<HandlingLog>) -> TestApp {
    let mut shape = model(&["code"]);
    shape["properties"]["count"] = json!({"type": "integer", "default": 0});
    let counters = define_dynamic_resource("counters", shape)
        .adapter(storage.table("counters"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .version("version")
        .build()
        .unwrap();
    let app = create_app(AppPreset::Testing)
        // Of this test alone.
        .secret(format!("{}{}", log.name, log.name))
        .bus(bus.clone())
        .resource(counters)
        .subscribe("noting", "counters.*", RecordingSubscriber { node, log: log.clone() });
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
async fn nodes_share_events_and_keep_per_item_order() {
    for bus in buses().await {
        for storage in TestStorage::all().await {
            println!("with {} on {}", bus.name(), storage.name);
            let log =
                Arc::new(HandlingLog { name: Uuid::new_v4(), waits_for: 3.into(), ..HandlingLog::default() });
            let mut nodes = Vec::new();
            for number in 0..3 {
                nodes.push(node(&storage, &bus, number, &log).await);
            }
            let running: Vec<_> = nodes.iter().map(|node| node.app().background()).collect();
            create(&nodes[0], 0..60).await;
            for count in 1..=3 {
                for item in 0..60 {
                    let path = format!("/counters/c{item}");
                    assert_eq!(nodes[1].patch(&path).json(json!({"count": count})).await.status(), 200);
                }
            }
            log.wait_until(|log| log.count() >= 240).await;
            let handled = log.handled.lock().unwrap().clone();
            let mut items: HashMap<&str, Vec<i64>> = HashMap::new();
            for (_, item, count) in &handled {
                items.entry(item).or_default().push(*count);
            }
            assert_eq!(items.len(), 60);
            for (item, counts) in items {
                assert_eq!(counts, [0, 1, 2, 3], "{item} with {} on {}", bus.name(), storage.name);
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
async fn unfinished_events_of_a_stopped_node_go_to_another() {
    for bus in buses().await {
        let storage = TestStorage::sqlite().await;
        let log = Arc::new(HandlingLog {
            name: Uuid::new_v4(),
            hanging_node: Mutex::new(Some(1)),
            ..HandlingLog::default()
        });
        let nodes = [node(&storage, &bus, 0, &log).await, node(&storage, &bus, 1, &log).await];
        // The first one relays, and goes on with it.
        let first = nodes[0].app().background();
        create(&nodes[0], 40..41).await;
        log.wait_until(|log| log.count() == 1).await;
        log.waits_for.store(2, Ordering::SeqCst);
        let second = nodes[1].app().background();
        create(&nodes[0], 0..40).await;
        // The second node has begun something that it will never end, and goes.
        log.wait_until(|log| log.started_nodes.lock().unwrap().len() == 2).await;
        drop(second);
        log.wait_until(|log| log.count() >= 41).await;
        let items: BTreeSet<_> =
            log.handled.lock().unwrap().iter().map(|(_, item, _)| item.clone()).collect();
        assert_eq!(items.len(), 41, "with {}", bus.name());
        first.stop().await;
    }
}

#[tokio::test]
async fn subscribers_receive_events_while_the_bus_is_unavailable() {
    let (bus, switch) = UnreliableBus::new();
    let bus: Arc<dyn Bus> = bus;
    let log = Arc::new(HandlingLog { name: Uuid::new_v4(), ..HandlingLog::default() });
    let app = node(&TestStorage::memory(), &bus, 0, &log).await;
    let running = app.app().background();
    create(&app, 0..10).await;
    log.wait_until(|log| log.count() >= 10).await;
    switch.send(false).unwrap();
    create(&app, 10..20).await;
    log.wait_until(|log| log.count() >= 20).await;
    switch.send(true).unwrap();
    create(&app, 20..30).await;
    log.wait_until(|log| log.count() >= 30).await;
    running.stop().await;
}
