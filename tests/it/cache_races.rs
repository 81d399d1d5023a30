//! Remembered answers while everything happens at once: on one node, and on two.

use std::sync::Arc;

use futures::future::join_all;
use resourceful::adapter::{Bus, MemoryBus, Storage};
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::json;

use crate::policies::model;
use crate::support::TestStorage;
use crate::support::gated::Gated;
use crate::support::unreliable_bus::UnreliableBus;

fn x_cache(answer: &TestResponse) -> &str {
    answer.header("x-cache").unwrap_or("nothing is said")
}

/// A node with pages.
async fn node(storage: &Arc<dyn Storage>, cache: Cache, bus: Option<Arc<dyn Bus>>) -> TestApp {
    let pages = define_dynamic_resource("pages", model(&["code", "name"]))
        .adapter(resourceful::adapter::Table::new(storage.clone(), "pages").create_table_if_missing())
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .cache(cache)
        .build()
        .unwrap();
    let builder = create_app(AppPreset::Testing).resource(pages);
    let builder = match bus {
        Some(bus) => builder.bus(bus),
        None => builder,
    };
    TestApp::build(builder).await.unwrap()
}

fn long_lived() -> Cache {
    Cache::fresh(Duration::from_secs(3600))
}

/// A node over a storage that can be held up, with one page.
async fn gated(cache: Cache) -> (TestApp, Arc<Gated>) {
    let gated = Gated::over(TestStorage::memory().storage().clone(), "pages");
    let storage: Arc<dyn Storage> = gated.clone();
    let app = node(&storage, cache, None).await;
    assert_eq!(app.post("/pages").json(json!({"code": "a", "name": "old"})).await.status(), 201);
    (app, gated)
}

async fn rename(app: &TestApp, name: &str) {
    assert_eq!(app.patch("/pages/a").json(json!({"name": name})).await.status(), 200);
}

async fn name(app: &TestApp) -> String {
    app.get("/pages/a").await.json()["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn concurrent_misses_query_the_storage_once() {
    let (app, gated) = gated(long_lived()).await;
    let before = gated.fetched();
    gated.hold_reads();
    let all = join_all((0..1_000).map(|_| {
        let app = app.clone();
        tokio::spawn(async move { app.get("/pages").await })
    }));
    let opened = async {
        gated.wait_until_held(1).await;
        // Everybody else has come by then.
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
        }
        gated.release_reads();
    };
    let (all, ()) = tokio::join!(all, opened);
    assert_eq!(gated.fetched() - before, 1);
    assert!(all.into_iter().all(|answer| answer.unwrap().items()[0]["name"] == "old"));
}

#[tokio::test]
async fn response_read_before_a_change_is_not_cached_after_it() {
    let (app, gated) = gated(long_lived()).await;
    gated.hold_reads();
    let slow = tokio::spawn({
        let app = app.clone();
        async move { name(&app).await }
    });
    gated.wait_until_held(1).await;
    // The change reads the page too, and is held after it.
    let other = tokio::spawn({
        let app = app.clone();
        async move { rename(&app, "new").await }
    });
    gated.wait_until_held(2).await;
    gated.release_reads();
    assert_eq!(slow.await.unwrap(), "old");
    other.await.unwrap();
    assert_eq!(name(&app).await, "new");
    assert_eq!(x_cache(&app.get("/pages/a").await), "HIT");
}

#[tokio::test]
async fn writer_does_not_join_a_single_flight_from_before_its_write() {
    let (app, gated) = gated(long_lived()).await;
    gated.hold_reads();
    let slow = tokio::spawn({
        let app = app.clone();
        async move { app.get("/pages").await }
    });
    gated.wait_until_held(1).await;
    // A new page needs no look at the others.
    assert_eq!(app.post("/pages").json(json!({"code": "b", "name": "b"})).await.status(), 201);
    let own = tokio::spawn({
        let app = app.clone();
        async move { app.get("/pages").await }
    });
    gated.wait_until_held(2).await;
    gated.release_reads();
    assert_eq!((slow.await.unwrap().items().len(), own.await.unwrap().items().len()), (1, 2));
    assert_eq!(app.get("/pages").await.items().len(), 2);
}

#[tokio::test]
async fn change_of_a_disconnected_client_invalidates_the_cache() {
    let (app, gated) = gated(long_lived()).await;
    assert_eq!(name(&app).await, "old");
    gated.hold_commits();
    let request = tokio::spawn({
        let app = app.clone();
        async move { rename(&app, "new").await }
    });
    gated.wait_until_committed(1).await;
    assert_eq!((name(&app).await.as_str(), x_cache(&app.get("/pages/a").await)), ("old", "HIT"));
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    assert_eq!(name(&app).await, "new");
}

#[tokio::test]
async fn cancelled_request_does_not_fail_the_other_waiters() {
    let (app, gated) = gated(long_lived()).await;
    gated.hold_reads();
    let get = || {
        let app = app.clone();
        tokio::spawn(async move { name(&app).await })
    };
    let first = get();
    gated.wait_until_held(1).await;
    let second = get();
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gated.wait_until_held(2).await;
    gated.release_reads();
    assert_eq!(second.await.unwrap(), "old");
    assert_eq!(x_cache(&app.get("/pages/a").await), "HIT");
}

#[tokio::test]
async fn stale_response_is_served_while_revalidating() {
    let short = Cache::fresh(Duration::from_millis(1)).stale(Duration::from_secs(3600));
    let (app, gated) = gated(short).await;
    app.get("/pages/a").await;
    // What changes beside the application is not known to it.
    gated.hold_reads();
    let stale = loop {
        let answer = app.get("/pages/a").await;
        if x_cache(&answer) == "STALE" {
            break answer;
        }
    };
    assert!(stale.header("cache-status").unwrap().starts_with("resourceful; hit; ttl=-"), "{stale}");
    gated.wait_until_held(1).await;
    let before = gated.fetched();
    for _ in 0..50 {
        assert_eq!(x_cache(&app.get("/pages/a").await), "STALE");
    }
    assert_eq!(gated.fetched(), before, "one makes it anew");
    gated.release_reads();
    while gated.fetched() == before {
        app.get("/pages/a").await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn changed_item_is_never_served_stale() {
    let short = Cache::fresh(Duration::from_millis(1)).stale(Duration::from_secs(3600));
    let (app, _) = gated(short).await;
    for number in 0..50 {
        rename(&app, &format!("n{number}")).await;
        assert_eq!(name(&app).await, format!("n{number}"));
    }
}

#[tokio::test]
async fn single_flight_failure_is_shared_by_all_waiters() {
    let (app, gated) = gated(long_lived()).await;
    let before = gated.fetched();
    gated.hold_reads();
    let all = join_all((0..200).map(|_| {
        let app = app.clone();
        tokio::spawn(async move { app.get("/pages").await.status() })
    }));
    let failed = async {
        gated.wait_until_held(1).await;
        for _ in 0..400 {
            tokio::task::yield_now().await;
        }
        gated.set_failing(true);
        gated.release_reads();
    };
    let (all, ()) = tokio::join!(all, failed);
    assert!(all.into_iter().all(|status| status.unwrap() == 503));
    assert_eq!(gated.fetched() - before, 1);
    gated.set_failing(false);
    assert_eq!(app.get("/pages").await.items()[0]["name"], "old");
}

#[tokio::test]
async fn replay_on_another_node_invalidates_its_cache() {
    for place in TestStorage::all().await {
        // Nobody tells the one node what the other one does.
        let start = async || {
            let pages = define_dynamic_resource("pages", model(&["code", "name"]))
                .adapter(place.table("pages"))
                .id_field("code")
                .permissions(Permissions::all(anyone()))
                .preset(idempotency())
                .cache(long_lived())
                .build()
                .unwrap();
            TestApp::build(create_app(AppPreset::Testing).resource(pages)).await.unwrap()
        };
        let [one, other] = [start().await, start().await];
        assert_eq!(other.get("/pages").await.items().len(), 0);
        for node in [&one, &other] {
            let body = json!({"code": "a", "name": "new"});
            let created = node.post("/pages").header("idempotency-key", "k").json(body).await;
            assert_eq!(created.status(), 201, "{created}");
        }
        assert_eq!(other.get("/pages").await.items().len(), 1);
    }
}

/// Asks a node until it answers with this name. How soon is the bus's matter, and whether at all is the test's.
async fn wait_for_name(app: &TestApp, expected: &str) {
    let asked = async {
        while name(app).await != expected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("the other node hears of it");
}

#[tokio::test]
async fn other_nodes_are_invalidated_through_the_bus() {
    for place in TestStorage::all().await {
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new());
        let [one, other] = [
            node(place.storage(), long_lived(), Some(bus.clone())).await,
            node(place.storage(), long_lived(), Some(bus)).await,
        ];
        one.post("/pages").json(json!({"code": "a", "name": "old"})).await;
        wait_for_name(&other, "old").await;
        for round in 0..20 {
            let next = format!("n{round}");
            while x_cache(&other.get("/pages/a").await) != "HIT" {
                tokio::task::yield_now().await;
            }
            rename(&one, &next).await;
            assert_eq!(name(&one).await, next);
            wait_for_name(&other, &next).await;
        }
    }
}

#[tokio::test]
async fn other_nodes_are_invalidated_from_the_outbox_without_a_bus() {
    for place in TestStorage::all().await {
        let [one, other] = [
            node(place.storage(), long_lived(), None).await,
            node(place.storage(), long_lived(), None).await,
        ];
        one.post("/pages").json(json!({"code": "a", "name": "old"})).await;
        let background = [one.app().background(), other.app().background()];
        wait_for_name(&other, "old").await;
        rename(&one, "new").await;
        wait_for_name(&other, "new").await;
        for background in background {
            background.stop().await;
        }
    }
}

#[tokio::test]
async fn node_bypasses_its_cache_while_the_bus_is_unavailable() {
    let place = TestStorage::memory();
    let (bus, switch) = UnreliableBus::new();
    let [one, other] = [
        node(place.storage(), long_lived(), Some(bus.clone())).await,
        node(place.storage(), long_lived(), Some(bus)).await,
    ];
    one.post("/pages").json(json!({"code": "a", "name": "old"})).await;
    wait_for_name(&other, "old").await;
    switch.send_replace(false);
    while x_cache(&other.get("/pages/a").await) != "BYPASS" {
        tokio::task::yield_now().await;
    }
    rename(&one, "new").await;
    assert_eq!(name(&other).await, "new", "nobody could tell it");
    switch.send_replace(true);
    while x_cache(&other.get("/pages/a").await) != "HIT" {
        tokio::task::yield_now().await;
    }
    assert_eq!(name(&other).await, "new");
    rename(&one, "newer").await;
    wait_for_name(&other, "newer").await;
}
