//! Rights that change while the application runs, on one node and on two.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use resourceful::access::{Grant, Grants};
use resourceful::adapter::{Bus, MemoryBus};
use resourceful::prelude::*;
use resourceful::testing::{TestApp, policy_matrix};
use serde_json::json;

use crate::policies::model;
use crate::support::TestStorage;
use crate::support::unreliable_bus::UnreliableBus;

/// Where rights are kept, for every node; `None` where it cannot be read.
type RightsTable = Arc<Mutex<Option<Vec<(&'static str, Grant)>>>>;

fn full_access() -> Grant {
    Grant::to("notes", Operation::ALL)
}

struct Node {
    app: TestApp,
    grants: Grants,
    read: Arc<AtomicUsize>,
}

impl Node {
    async fn start(table: &RightsTable, bus: Option<Arc<dyn Bus>>) -> Self {
        let read = Arc::new(AtomicUsize::new(0));
        let (stored, counted) = (table.clone(), read.clone());
        let grants = Grants::new(move |actor| {
            counted.fetch_add(1, Ordering::SeqCst);
            let stored = stored.lock().unwrap().clone();
            async move {
                tokio::task::yield_now().await;
                let stored = stored.ok_or("the table is away")?;
                let own = stored.into_iter().filter(|(who, _)| Some(*who) == actor.id());
                Ok(own.map(|(_, grant)| grant).collect())
            }
        })
        .fresh(Duration::from_secs(3_600));
        let notes = define_dynamic_resource("notes", model(&["code", "status"]))
            .adapter(TestStorage::memory().table("notes"))
            .id_field("code")
            .permissions(Permissions::all(grants.permission()))
            .build()
            .unwrap();
        let tokens = ["ada", "bob", "eve"]
            .into_iter()
            .fold(BearerTokens::new(), |tokens, name| tokens.token(name, Actor::user(name)));
        let builder = create_app(AppPreset::Testing).authenticator(tokens).grants(&grants).resource(notes);
        let app = match bus {
            Some(bus) => builder.bus(bus),
            None => builder,
        };
        let app = TestApp::build(app).await.unwrap();
        let rows = ["open", "done", "open"].iter().enumerate();
        let rows = rows.map(|(code, status)| json!({"code": code.to_string(), "status": status}));
        app.app().load().rows("notes", rows).unwrap().commit().await.unwrap();
        Self { app, grants, read }
    }

    async fn list(&self, who: &str) -> u16 {
        self.app.get("/notes").bearer(who).await.status()
    }

    fn load_count(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }

    /// Asks until it is so; a node hears of another one's change soon, and not at once.
    async fn wait_for_status(&self, who: &str, status: u16) {
        let soon = async {
            while self.list(who).await != status {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), soon).await.expect("the change was never heard of");
    }
}

fn table(rights: &[(&'static str, Grant)]) -> RightsTable {
    Arc::new(Mutex::new(Some(rights.to_vec())))
}

#[tokio::test]
async fn granted_rights_pass_the_policy_matrix() {
    let some = Grant::to("notes", Operation::ALL).rows(json!({"status": "open"}));
    let one = Grant::to("notes", [Operation::Read, Operation::List]).rows(json!({"code": "1"}));
    let elsewhere = Grant::to("others", Operation::ALL);
    let node =
        Node::start(&table(&[("ada", full_access()), ("bob", some), ("bob", one), ("eve", elsewhere)]), None)
            .await;
    let report = policy_matrix(&node.app)
        .caller("nobody", Actor::anonymous(), [])
        .caller("ada", Actor::user("ada"), [("authorization", "Bearer ada")])
        .caller("bob", Actor::user("bob"), [("authorization", "Bearer bob")])
        .caller("eve", Actor::user("eve"), [("authorization", "Bearer eve")])
        .run()
        .await
        .unwrap();
    report.assert_passed();
    let ids = |who: &'static str| node.app.get("/notes").bearer(who);
    assert_eq!(ids("bob").await.items().len(), 3, "by either of two grants");
    assert_eq!(node.list("eve").await, 403);
}

#[tokio::test]
async fn grants_are_loaded_once_and_reloaded_after_invalidation() {
    let table = table(&[("ada", full_access())]);
    let node = Node::start(&table, None).await;
    let asked = futures::future::join_all((0..50).map(|_| node.list("ada"))).await;
    assert!(asked.iter().all(|status| *status == 200));
    assert_eq!(node.load_count(), 1);
    *table.lock().unwrap() = Some(Vec::new());
    assert_eq!(node.list("ada").await, 200, "remembered");
    node.grants.invalidate().await.unwrap();
    assert_eq!(node.list("ada").await, 403, "known at once where it was changed");
    assert_eq!(node.list("bob").await, 403, "each actor has rights of their own");
}

#[tokio::test]
async fn failure_to_load_grants_denies_and_is_not_cached() {
    let table = table(&[("ada", full_access())]);
    let node = Node::start(&table, None).await;
    let stored = table.lock().unwrap().take();
    assert_eq!(node.list("ada").await, 403);
    *table.lock().unwrap() = stored;
    assert_eq!(node.list("ada").await, 200);
}

#[tokio::test]
async fn invalidation_of_grants_reaches_other_nodes() {
    let mut buses: Vec<Arc<dyn Bus>> = vec![Arc::new(MemoryBus::new())];
    let required = std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("redis"));
    match std::env::var("TEST_REDIS_URL") {
        Ok(url) => buses.push(resourceful::adapter::Redis::connect(&url).await.unwrap().bus()),
        Err(_) => {
            assert!(!required, "TEST_REDIS_URL must be set: this run requires Redis");
            println!("not run: on Redis, for want of TEST_REDIS_URL (tests/run sets it)");
        }
    }
    for bus in buses {
        let table = table(&[("ada", full_access())]);
        let one = Node::start(&table, Some(bus.clone())).await;
        let other = Node::start(&table, Some(bus)).await;
        assert_eq!((one.list("ada").await, other.list("ada").await), (200, 200));
        *table.lock().unwrap() = Some(Vec::new());
        assert_eq!(other.list("ada").await, 200, "it remembers, for an hour if nobody tells");
        one.grants.invalidate().await.unwrap();
        assert_eq!(one.list("ada").await, 403);
        other.wait_for_status("ada", 403).await;
    }
}

#[tokio::test]
async fn node_without_its_bus_does_not_cache_grants() {
    let (bus, switch) = UnreliableBus::new();
    let table = table(&[("ada", full_access())]);
    let node = Node::start(&table, Some(bus.clone())).await;
    assert_eq!((node.list("ada").await, node.list("ada").await, node.load_count()), (200, 200, 1));
    switch.send(false).unwrap();
    *table.lock().unwrap() = Some(Vec::new());
    // Nobody can tell it: it looks for itself.
    node.wait_for_status("ada", 403).await;
    let before = node.load_count();
    assert_eq!((node.list("ada").await, node.list("ada").await), (403, 403));
    assert_eq!(node.load_count(), before + 4, "a list asks who may list and who may read");
    assert!(node.grants.invalidate().await.is_err(), "whoever changes rights learns that others do not know");
    switch.send(true).unwrap();
    // It remembers again.
    let soon = async {
        loop {
            tokio::task::yield_now().await;
            let before = node.load_count();
            node.list("ada").await;
            node.list("ada").await;
            if node.load_count() == before {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), soon).await.expect("it never remembered again");

    switch.send(false).unwrap();
    let app = create_app(AppPreset::Testing).bus(bus).grants(&node.grants);
    let faults = app.build().await.unwrap_err().to_string();
    assert!(faults.contains("its bus (frail) failed"), "{faults}");
}
