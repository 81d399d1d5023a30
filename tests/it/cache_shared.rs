//! Answers that nodes remember together: one makes them, and all give them for as long as they are right.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use resourceful::adapter::{Bus, CacheStore, MemoryBus, MemoryCache, Storage, Table};
use resourceful::app::Background;
use resourceful::cache::QueryCache;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use resourceful_contract::{Answer, ErrorKind, StorageError};
use serde_json::json;

use crate::policies::model;
use crate::support::TestStorage;
use crate::support::gated::Gated;

/// Nodes of one application, and what they share.
struct Nodes {
    nodes: Vec<TestApp>,
    _backgrounds: Vec<Background>,
}

async fn node(
    storage: &Arc<dyn Storage>,
    store: Arc<dyn CacheStore>,
    bus: Option<&Arc<dyn Bus>>,
    events: bool,
) -> TestApp {
    let pages = define_dynamic_resource("pages", model(&["code", "name"]))
        .adapter(Table::new(storage.clone(), "pages").create_table_if_missing())
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .events(events)
        .cache(Cache::fresh(Duration::from_secs(3600)).tag("catalog"))
        .build()
        .unwrap();
    // Something else that is recorded, so that there is something to follow.
    let others = define_dynamic_resource("others", model(&["code", "name"]))
        .adapter(Table::new(storage.clone(), "others").create_table_if_missing())
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .build()
        .unwrap();
    let app = create_app(AppPreset::Testing).resource(pages).resource(others);
    let app = app.query_cache(QueryCache::new().shared(store));
    TestApp::build(match bus {
        Some(bus) => app.bus(bus.clone()),
        None => app,
    })
    .await
    .unwrap()
}

impl Nodes {
    async fn start(count: usize, storage: &Arc<dyn Storage>, store: &Arc<dyn CacheStore>) -> Self {
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new());
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(node(storage, store.clone(), Some(&bus), true).await);
        }
        for node in &nodes {
            node.app().deliver().await.unwrap();
        }
        let _backgrounds = nodes.iter().map(|node| node.app().background()).collect();
        Self { nodes, _backgrounds }
    }

    /// Comes back when every node follows what is published and has seen all of it.
    async fn catch_up(&self) {
        let created = self.nodes[0].post("/others").json(json!({"code": Uuid::new_v4(), "name": "x"})).await;
        assert_eq!(created.status(), 201);
        for node in &self.nodes {
            node.app().deliver().await.unwrap();
        }
    }
}

async fn name(app: &TestApp) -> (String, String) {
    let page = app.get("/pages/a").await;
    assert_eq!(page.status(), 200, "{page}");
    (page.json()["name"].as_str().unwrap().to_owned(), page.header("x-cache").unwrap().to_owned())
}

fn expected(name: &str, cache: &str) -> (String, String) {
    (name.to_owned(), cache.to_owned())
}

async fn write(app: &TestApp, name: &str) {
    let written = app.put("/pages/a").json(json!({"code": "a", "name": name})).await;
    assert!([200, 201].contains(&written.status()), "{written}");
}

fn shared() -> Arc<dyn CacheStore> {
    Arc::new(MemoryCache::new())
}

#[tokio::test]
async fn response_cached_by_one_node_is_served_by_the_others() {
    for place in TestStorage::all().await {
        let gated = Gated::over(place.storage().clone(), "pages");
        let (storage, store): (Arc<dyn Storage>, _) = (gated.clone(), shared());
        let all = Nodes::start(3, &storage, &store).await;
        let [one, two, three] = &all.nodes[..] else { panic!() };
        write(one, "first").await;
        all.catch_up().await;
        assert_eq!(name(one).await, expected("first", "MISS"), "{}", place.name);
        let asked = gated.fetched();
        assert_eq!(name(two).await, expected("first", "HIT"));
        assert_eq!(name(two).await, expected("first", "HIT"));
        assert_eq!(two.app().cache_counts().shared, 1);
        assert_eq!(two.get("/pages/b").await.status(), 404);
        let absent = gated.fetched();
        assert_eq!(three.get("/pages/b").await.status(), 404);
        assert_eq!(gated.fetched(), absent, "that nothing is there is shared as well");
        // A change on any of them is seen on all, at once where it was made.
        write(two, "second").await;
        assert_eq!(name(two).await, expected("second", "MISS"));
        all.catch_up().await;
        for node in [one, three] {
            assert_eq!(name(node).await.0, "second", "{}", place.name);
        }
        assert!(gated.fetched() > asked);
        write(three, "third").await;
        all.catch_up().await;
        assert_eq!(name(three).await, expected("third", "MISS"));
        assert_eq!(name(two).await, expected("third", "HIT"));
        assert_eq!(name(one).await.0, "third");
    }
}

#[tokio::test]
async fn concurrent_misses_on_two_nodes_query_the_storage_once() {
    let place = TestStorage::memory();
    let gated = Gated::over(place.storage().clone(), "pages");
    let storage: Arc<dyn Storage> = gated.clone();
    let all = Nodes::start(2, &storage, &shared()).await;
    write(&all.nodes[0], "first").await;
    all.catch_up().await;
    let before = gated.fetched();
    gated.hold_reads();
    let asking = join_all((0..1_000).map(|number: usize| name(&all.nodes[number % 2])));
    let opening = async {
        gated.wait_until_held(1).await;
        gated.release_reads();
    };
    let (answers, ()) = tokio::join!(asking, opening);
    assert!(answers.iter().all(|(name, _)| name == "first"));
    assert_eq!(gated.fetched() - before, 1);
}

#[tokio::test]
async fn node_without_a_bus_validates_by_published_events() {
    let place = TestStorage::memory();
    let store = shared();
    let one = node(place.storage(), store.clone(), None, true).await;
    let other = node(place.storage(), store.clone(), None, true).await;
    for node in [&one, &other] {
        node.app().deliver().await.unwrap();
    }
    write(&one, "first").await;
    for node in [&one, &other] {
        node.app().deliver().await.unwrap();
    }
    assert_eq!(name(&one).await, expected("first", "MISS"));
    assert_eq!(name(&other).await, expected("first", "HIT"));
    write(&one, "second").await;
    one.app().deliver().await.unwrap();
    assert_eq!(name(&one).await, expected("second", "MISS"));
    other.app().deliver().await.unwrap();
    assert_eq!(name(&other).await, expected("second", "HIT"));
    // A node that comes later knows from where on it does.
    write(&one, "third").await;
    let late = node(place.storage(), store, None, true).await;
    late.app().deliver().await.unwrap();
    assert_eq!(name(&late).await.0, "third");
}

#[tokio::test]
async fn response_of_a_resource_without_events_is_not_shared() {
    let place = TestStorage::memory();
    let store = shared();
    let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new());
    let one = node(place.storage(), store.clone(), Some(&bus), false).await;
    let other = node(place.storage(), store, Some(&bus), false).await;
    write(&one, "first").await;
    for node in [&one, &other] {
        node.app().deliver().await.unwrap();
    }
    assert_eq!(name(&one).await, expected("first", "MISS"));
    assert_eq!(name(&other).await, expected("first", "MISS"));
}

#[tokio::test]
async fn invalidated_response_is_not_served_from_the_store() {
    let place = TestStorage::memory();
    let all = Nodes::start(2, place.storage(), &shared()).await;
    let [one, other] = &all.nodes[..] else { panic!() };
    write(one, "first").await;
    all.catch_up().await;
    assert_eq!(name(one).await, expected("first", "MISS"));
    assert_eq!(name(other).await, expected("first", "HIT"));
    other.app().invalidate("catalog");
    assert_eq!(name(other).await, expected("first", "MISS"));
}

/// A store that fails, holds rubbish, or does not answer at all.
#[derive(Debug, Default)]
struct BrokenStore {
    is_silent: AtomicBool,
    is_away: AtomicBool,
}

impl BrokenStore {
    fn answer<'a, T: Send + 'a>(&self, value: T) -> Answer<'a, T> {
        if self.is_silent.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        let is_away = self.is_away.load(Ordering::SeqCst);
        Box::pin(std::future::ready(if is_away {
            Err(StorageError::new(ErrorKind::Unavailable))
        } else {
            Ok(value)
        }))
    }
}

impl CacheStore for BrokenStore {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn get<'a>(&'a self, _: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        self.answer(Some(vec![255; 64]))
    }

    fn put<'a>(&'a self, _: &'a str, _: Vec<u8>, _: Duration) -> Answer<'a, ()> {
        self.answer(())
    }

    fn claim<'a>(&'a self, _: &'a str, _: Duration) -> Answer<'a, bool> {
        self.answer(true)
    }

    fn release<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        self.answer(())
    }
}

#[tokio::test]
async fn cache_store_failure_causes_no_error() {
    let place = TestStorage::memory();
    for (is_silent, is_away) in [(false, false), (false, true), (true, false)] {
        let broken = Arc::new(BrokenStore { is_silent: is_silent.into(), is_away: is_away.into() });
        let store: Arc<dyn CacheStore> = broken.clone();
        let all = Nodes::start(1, place.storage(), &store).await;
        write(&all.nodes[0], "first").await;
        all.catch_up().await;
        assert_eq!(name(&all.nodes[0]).await, expected("first", "MISS"));
        assert_eq!(name(&all.nodes[0]).await, expected("first", "HIT"));
        let failures = all.nodes[0].app().cache_counts().failures;
        assert_eq!(failures > 0, is_silent || is_away, "{failures}");
    }
}
