//! Remembered answers on two nodes whose bus and store is a Redis that is killed while they are busy.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::join_all;
use resourceful::adapter::{Redis, Storage};
use resourceful::cache::QueryCache;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestStream};
use serde_json::json;
use tokio::sync::watch;

use crate::policies::model;
use crate::support::TestStorage;

/// A Redis server of the test's own, that keeps nothing when it is killed.
struct RedisServer(Child);

impl RedisServer {
    /// Starts it, and comes back as soon as it answers; nothing where there is none to start.
    async fn start(port: u16) -> Option<Self> {
        let port_text = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::task::yield_now().await;
        }
        Some(Self(child))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn node(storage: &Arc<dyn Storage>, url: &str, secret: &str) -> TestApp {
    let pages = define_dynamic_resource("pages", model(&["code", "name"]))
        .adapter(resourceful::adapter::Table::new(storage.clone(), "pages").create_table_if_missing())
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .cache(Cache::fresh(Duration::from_secs(3600)))
        .build()
        .unwrap();
    let redis = Redis::connect(url).await.unwrap();
    let cache = QueryCache::new().shared(redis.cache());
    let app = create_app(AppPreset::Testing).bus(redis.bus()).query_cache(cache).secret(secret);
    TestApp::build(app.resource(pages)).await.unwrap()
}

async fn read_number(app: &TestApp) -> u64 {
    let page = app.get("/pages/a").await;
    assert_eq!(page.status(), 200, "{page}");
    page.json()["name"].as_str().unwrap().parse().unwrap()
}

/// What all are busy with: one node counts up, everyone reads on both.
struct Workload {
    nodes: [TestApp; 2],
    /// What the first node has acknowledged.
    count: AtomicU64,
    is_over: AtomicBool,
}

impl Workload {
    async fn write(self: Arc<Self>) {
        while !self.is_over.load(Ordering::SeqCst) {
            let next = self.count.load(Ordering::SeqCst) + 1;
            let changed = self.nodes[0].patch("/pages/a").json(json!({"name": next.to_string()})).await;
            assert_eq!(changed.status(), 200, "{changed}");
            self.count.store(next, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    }

    async fn read(self: Arc<Self>) {
        let mut last = [0, 0];
        while !self.is_over.load(Ordering::SeqCst) {
            let acknowledged = self.count.load(Ordering::SeqCst);
            let own = read_number(&self.nodes[0]).await;
            assert!(own >= acknowledged, "{own} is older than {acknowledged}, which this node acknowledged");
            for (node, last) in self.nodes.iter().zip(&mut last) {
                let found = read_number(node).await;
                assert!(found >= *last, "{found} after {last}");
                *last = found;
            }
            // Answers from memory never wait, and others have to run.
            tokio::task::yield_now().await;
        }
    }

    /// Waits until so many more were counted and the other node has seen them.
    async fn wait_for_progress(&self) {
        let expected = self.count.load(Ordering::SeqCst) + 20;
        while self.count.load(Ordering::SeqCst) < expected || read_number(&self.nodes[1]).await < expected {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restart_causes_no_errors_and_no_stale_responses() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    if RedisServer::start(port).await.is_none() {
        let required = std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("redis"));
        assert!(!required, "redis-server must be there: this run requires Redis");
        println!("not run: a killed Redis, for want of redis-server (tests/run installs it)");
        return;
    }
    let url = format!("redis://127.0.0.1:{port}");
    for place in TestStorage::all().await {
        println!("on {}", place.name);
        run_with_restart(&place, port, &url).await;
    }
}

/// Reads a stream to its end: every change in its order, none left out.
async fn assert_events_in_order(mut stream: TestStream, reached: watch::Sender<u64>) {
    let mut last = 0;
    loop {
        let event = stream.next().await.unwrap();
        if event.name == "end" {
            return;
        }
        let number: u64 = event.data["data"]["name"].as_str().unwrap().parse().unwrap();
        assert_eq!((event.name.as_str(), number), ("pages.updated", last + 1), "one after the other");
        last = number;
        reached.send_replace(last);
    }
}

async fn run_with_restart(place: &TestStorage, port: u16, url: &str) {
    let server = RedisServer::start(port).await.unwrap();
    let secret = Uuid::new_v4().to_string();
    let nodes = [node(place.storage(), url, &secret).await, node(place.storage(), url, &secret).await];
    let backgrounds = [nodes[0].app().background(), nodes[1].app().background()];
    assert_eq!(nodes[0].post("/pages").json(json!({"code": "a", "name": "0"})).await.status(), 201);
    // What follows is told of, and not that.
    for node in &nodes {
        node.app().deliver().await.unwrap();
    }
    let busy = Arc::new(Workload { nodes, count: AtomicU64::new(0), is_over: AtomicBool::new(false) });
    let mut stream = busy.nodes[1].get("/pages/stream").stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap().name, "ready");
    let (progress_sender, mut progress_receiver) = watch::channel(0);
    let following = tokio::spawn(assert_events_in_order(stream, progress_sender));
    let writing = tokio::spawn(busy.clone().write());
    let readers: Vec<_> = (0..3).map(|_| tokio::spawn(busy.clone().read())).collect();
    let all = async {
        busy.wait_for_progress().await;
        drop(server);
        // Nobody can be told, and everybody sees what is there.
        busy.wait_for_progress().await;
        busy.wait_for_progress().await;
        // A store that fails is counted. A node that hears nothing more remembers nothing and asks no store: that is
        // counted as well, and which of them comes first depends on what was under way.
        let has_noticed = |node: &TestApp| {
            let counts = node.app().cache_counts();
            counts.failures + counts.bypassed > 0
        };
        while !busy.nodes.iter().any(has_noticed) {
            busy.wait_for_progress().await;
        }
        let server = RedisServer::start(port).await.unwrap();
        busy.wait_for_progress().await;
        // Answers are remembered again, and fall when they are to.
        let hits = || busy.nodes[1].app().cache_counts().hits;
        let before = hits();
        while hits() < before + 5 {
            read_number(&busy.nodes[1]).await;
        }
        busy.wait_for_progress().await;
        server
    };
    let server = tokio::time::timeout(Duration::from_secs(120), all).await.expect("all goes on");
    busy.is_over.store(true, Ordering::SeqCst);
    for task in join_all(readers.into_iter().chain([writing])).await {
        task.unwrap();
    }
    // Every change was told of, whatever became of Redis.
    let all = busy.count.load(Ordering::SeqCst);
    let delivered = tokio::time::timeout(
        Duration::from_secs(20),
        progress_receiver.wait_for(|delivered| *delivered == all),
    )
    .await;
    delivered.expect("all is told in time").unwrap();
    for background in backgrounds {
        background.stop().await;
    }
    following.await.unwrap();
    drop(server);
}
