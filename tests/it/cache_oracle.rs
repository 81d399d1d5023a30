//! Random reads and writes by several callers on two nodes, held up at random, next to what was written: no answer is older
//! than what its node has acknowledged, none shows what its caller may not see, and in the end all agree with a node that
//! remembers nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use resourceful::access::rows;
use resourceful::adapter::{Bus, CacheStore, MemoryBus, MemoryCache, Redis, Storage};
use resourceful::app::Background;
use resourceful::cache::QueryCache;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;

use crate::policies::actors;
use crate::support::TestStorage;
use crate::support::gated::JitteryStorage;

const ITEMS: usize = 24;
const WORKERS: usize = 8;
/// Who asks, of which tenant, and whether all of it is shown to them.
const CALLERS: [(&str, &str, bool); 3] =
    [("ann", "acme", true), ("abe", "acme", false), ("bob", "bolt", true)];

/// Numbers that look random and come again with the same seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// What is known of one item.
#[derive(Default)]
struct Item {
    /// Even where nobody writes it; goes up when a change begins and when it is acknowledged.
    epoch: AtomicU64,
    revision: AtomicU64,
    /// Nothing where it is not there.
    kind: Mutex<Option<&'static str>>,
}

struct World {
    nodes: [TestApp; 2],
    uncached: TestApp,
    items: Vec<Item>,
    done: AtomicUsize,
    /// What tells of what was published.
    _backgrounds: [Background; 2],
}

fn tenant(item: usize) -> (&'static str, &'static str) {
    if item.is_multiple_of(3) { ("bob", "bolt") } else { ("ann", "acme") }
}

/// The node that an item is written on.
fn writer_node(item: usize) -> usize {
    item % 2
}

async fn node(
    storage: &Arc<dyn Storage>,
    cache: QueryCache,
    bus: Option<Arc<dyn Bus>>,
    secret: Uuid,
) -> TestApp {
    let table =
        |name: &str| resourceful::adapter::Table::new(storage.clone(), name).create_table_if_missing();
    let text = json!({"type": "string"});
    let fields = |names: &[&str]| {
        let properties: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), text.clone())).collect();
        json!({"type": "object", "properties": properties, "required": names})
    };
    let long = || Cache::fresh(Duration::from_secs(3600));
    let shelves = define_dynamic_resource("shelves", fields(&["code", "org_id"]))
        .adapter(table("shelves"))
        .id_field("code")
        .permissions(Permissions::all(signed_in()))
        .preset(multi_tenant("org_id"))
        .relation(has_many("things", "things").key("shelf_code").limit(100))
        .cache(long());
    let things = define_dynamic_resource(
        "things",
        fields(&["code", "org_id", "shelf_code", "kind", "price", "revision"]),
    )
    .adapter(table("things"))
    .id_field("code")
    .permissions(Permissions::all(signed_in()))
    .preset(multi_tenant("org_id"))
    .policy(any_of([tenant_role("admin"), rows(json!({"kind": "open"}))]))
    .visible_to(["price"], tenant_role("admin"))
    .filterable(["kind", "shelf_code"])
    .limits(100, 100)
    .cache(long());
    let app = create_app(AppPreset::Testing).authenticator(actors()).query_cache(cache);
    let app = app.secret(secret.to_string());
    let app = app.resource(shelves.build().unwrap()).resource(things.build().unwrap());
    TestApp::build(match bus {
        Some(bus) => app.bus(bus),
        None => app,
    })
    .await
    .unwrap()
}

impl World {
    async fn start(place: &TestStorage, buses: [Arc<dyn Bus>; 2], caches: [QueryCache; 2]) -> Arc<Self> {
        let ([one, other], [own, its], secret) = (buses, caches, Uuid::new_v4());
        let hesitant: Arc<dyn Storage> = JitteryStorage::over(place.storage().clone());
        let nodes =
            [node(&hesitant, own, Some(one), secret).await, node(&hesitant, its, Some(other), secret).await];
        let _backgrounds = [nodes[0].app().background(), nodes[1].app().background()];
        let uncached = node(place.storage(), QueryCache::off(), None, secret).await;
        for (who, shelf) in [("ann", "a"), ("bob", "b")] {
            let created = uncached.post("/shelves").bearer(who).json(json!({"code": shelf})).await;
            assert_eq!(created.status(), 201, "{created}");
        }
        let items = std::iter::repeat_with(Item::default).take(ITEMS).collect();
        Arc::new(Self { nodes, uncached, items, done: AtomicUsize::new(0), _backgrounds })
    }

    /// Creates, changes or deletes an item, on its node.
    async fn write(&self, item: usize, rng: &mut Rng) {
        let (known, node, (who, _)) = (&self.items[item], &self.nodes[writer_node(item)], tenant(item));
        let mut kind = known.kind.lock().await;
        let next = if rng.below(2) == 0 { "open" } else { "closed" };
        let revision = known.revision.load(Ordering::SeqCst) + 1;
        let shelf = if who == "ann" { "a" } else { "b" };
        let path = format!("/things/i{item}");
        known.epoch.fetch_add(1, Ordering::SeqCst);
        let changed = json!({"kind": next, "revision": revision.to_string(), "price": "1"});
        let (answer, after) = match *kind {
            None => {
                let mut body = changed;
                body["code"] = format!("i{item}").into();
                body["shelf_code"] = shelf.into();
                (node.post("/things").bearer(who).json(body).await, Some(next))
            }
            Some(_) if rng.below(4) == 0 => (node.delete(&path).bearer(who).await, None),
            Some(_) => (node.patch(&path).bearer(who).json(changed).await, Some(next)),
        };
        assert!(matches!(answer.status(), 200 | 201 | 204), "{path}: {answer}");
        *kind = after;
        known.revision.store(revision, Ordering::SeqCst);
        known.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn epochs(&self) -> Vec<u64> {
        self.items.iter().map(|item| item.epoch.load(Ordering::SeqCst)).collect()
    }

    /// Reads something by somebody, and compares it with what its node has acknowledged.
    async fn read(&self, rng: &mut Rng) {
        let (at, (who, org, sees_all)) = (rng.below(2), CALLERS[rng.below(CALLERS.len())]);
        let item = rng.below(ITEMS);
        let shelf = if org == "acme" { "a" } else { "b" };
        let (path, wanted): (String, Option<&str>) = match rng.below(5) {
            0 | 1 => (format!("/things/i{item}"), None),
            2 => ("/things?kind=open".to_owned(), Some("open")),
            3 => ("/things".to_owned(), None),
            _ => (format!("/shelves/{shelf}?include=things"), None),
        };
        let before = self.epochs();
        let revisions: Vec<_> = self.items.iter().map(|item| item.revision.load(Ordering::SeqCst)).collect();
        let answer = self.nodes[at].get(&path).bearer(who).await;
        let kinds =
            join_all(self.items.iter().map(|item| async { item.kind.try_lock().ok().map(|kind| *kind) }))
                .await;
        let after = self.epochs();
        let found = things_of(&answer);
        for (code, _, price) in &found {
            let index: usize = code[1..].parse().unwrap();
            assert_eq!(tenant(index).1, org, "{who} {path}: {answer}");
            assert_eq!(*price, sees_all, "{who} {path}: {answer}");
        }
        let is_one = path.starts_with("/things/");
        for index in (0..ITEMS).filter(|index| writer_node(*index) == at && (!is_one || *index == item)) {
            let own = found.iter().find(|(code, ..)| *code == format!("i{index}"));
            if let Some((_, revision, _)) = own {
                assert!(
                    *revision >= revisions[index],
                    "{who} {path} is older than what was acknowledged: {answer}"
                );
            }
            let is_unchanged = before[index] == after[index] && before[index].is_multiple_of(2);
            let (true, Some(kind)) = (is_unchanged, kinds[index]) else { continue };
            let may_see = tenant(index).1 == org && (sees_all || kind == Some("open"));
            let is_there = kind.is_some_and(|kind| wanted.is_none_or(|wanted| wanted == kind));
            assert_eq!(own.is_some(), may_see && is_there, "{who} {path}, i{index}: {answer}");
            if let Some((_, revision, _)) = own {
                assert_eq!(*revision, revisions[index], "{who} {path}, i{index}: {answer}");
            }
        }
    }

    async fn work(&self, seed: u64, operations: usize) {
        let mut rng = Rng(seed);
        while self.done.fetch_add(1, Ordering::Relaxed) < operations {
            if rng.below(8) == 0 {
                self.write(rng.below(ITEMS), &mut rng).await;
            } else {
                self.read(&mut rng).await;
            }
        }
    }

    /// Every node comes to answer what one answers that remembers nothing.
    async fn assert_convergence(&self) {
        let mut paths = vec!["/things".to_owned(), "/things?kind=open".to_owned()];
        paths.extend(["a", "b"].map(|shelf| format!("/shelves/{shelf}?include=things")));
        paths.extend((0..ITEMS).map(|item| format!("/things/i{item}")));
        for (who, ..) in CALLERS {
            for path in &paths {
                let expected = things_of(&self.uncached.get(path).bearer(who).await);
                for node in &self.nodes {
                    let asked = async {
                        while things_of(&node.get(path).bearer(who).await) != expected {
                            tokio::task::yield_now().await;
                        }
                    };
                    let agreed = tokio::time::timeout(Duration::from_secs(30), asked).await;
                    assert!(agreed.is_ok(), "{who} {path}: another answer than {expected:?}");
                }
            }
        }
    }
}

/// The things of an answer: code, revision, and whether there is a price.
fn things_of(answer: &TestResponse) -> Vec<(String, u64, bool)> {
    let of = |thing: &Json| {
        let text = |name: &str| thing[name].as_str().unwrap_or_default().to_owned();
        (text("code"), text("revision").parse().unwrap(), thing.get("price").is_some())
    };
    match answer.status() {
        404 => return Vec::new(),
        200 => {}
        _ => panic!("{answer}"),
    }
    let json = answer.json();
    match json["items"].as_array().or_else(|| json["things"].as_array()) {
        Some(items) => items.iter().map(of).collect(),
        None => vec![of(&json)],
    }
}

async fn run(place: &TestStorage, buses: [Arc<dyn Bus>; 2], caches: [QueryCache; 2]) -> u64 {
    let operations =
        std::env::var("ORACLE_OPERATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(3_000);
    let world = World::start(place, buses, caches).await;
    let workers = (0..WORKERS).map(|seed| {
        let world = world.clone();
        tokio::spawn(async move { world.work(seed as u64 + 1, operations).await })
    });
    for worker in join_all(workers).await {
        worker.unwrap();
    }
    world.assert_convergence().await;
    let counts = world.nodes.iter().map(|node| node.app().cache_counts());
    let (hits, shared, misses) = counts.fold((0, 0, 0), |(hits, shared, misses), one| {
        (hits + one.hits, shared + one.shared, misses + one.misses)
    });
    println!("on {}: {operations} operations, {hits} hits, {shared} shared, {misses} misses", place.name);
    assert!(hits > 100, "{hits} hits");
    shared
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_responses_are_never_stale_or_overexposed() {
    for place in TestStorage::all().await {
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new());
        run(&place, [bus.clone(), bus], [QueryCache::new(), QueryCache::new()]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_cached_responses_are_never_stale_or_overexposed() {
    for place in TestStorage::all().await {
        let (bus, store): (Arc<dyn Bus>, Arc<dyn CacheStore>) =
            (Arc::new(MemoryBus::new()), Arc::new(MemoryCache::new()));
        // One of them keeps nothing in memory besides.
        let caches = [QueryCache::new().shared(store.clone()), QueryCache::new().shared(store).capacity(0)];
        let shared = run(&place, [bus.clone(), bus], caches).await;
        assert!(shared > 50, "{shared} were found where other nodes had made them");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cached_responses_are_never_stale_or_overexposed() {
    let required = std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("redis"));
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        assert!(!required, "TEST_REDIS_URL must be set: this run requires Redis");
        println!("not run: through Redis, for want of TEST_REDIS_URL (tests/run sets it)");
        return;
    };
    let place = TestStorage::postgres().await.unwrap_or_else(TestStorage::memory);
    let servers = [Redis::connect(&url).await.unwrap(), Redis::connect(&url).await.unwrap()];
    let caches = [0, 1].map(|node: usize| QueryCache::new().shared(servers[node].cache()));
    let shared = run(&place, servers.map(|server| server.bus()), caches).await;
    assert!(shared > 50, "{shared} were found where other nodes had made them");
}
