//! Two nodes on PostgreSQL behind PgBouncer, in transaction mode and in session mode. RESOURCEFUL_TEST_REQUESTS raises the
//! number of mixed requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::json;

use crate::support::{TestStorage, builder, create_schema, path, product};

const CLIENTS: usize = 24;

/// The URL of a pooler, where the environment names one.
fn pooler_url(mode: &str) -> Option<String> {
    let variable = format!("TEST_PGBOUNCER_{}_URL", mode.to_uppercase());
    let required = std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("pgbouncer"));
    let url = std::env::var(&variable).ok();
    assert!(url.is_some() || !required, "{variable} must be set: this run requires PgBouncer");
    if url.is_none() {
        println!("not run: behind PgBouncer in {mode} mode, for want of {variable} (tests/run sets it)");
    }
    url
}

/// What many clients ask of both nodes.
struct Load {
    nodes: [TestApp; 2],
    requests: usize,
    sent: AtomicUsize,
}

impl Load {
    /// Asks one after the other, until there have been enough.
    async fn run_client(&self, number: usize) {
        for round in 0.. {
            if self.sent.load(Ordering::Relaxed) >= self.requests {
                break;
            }
            self.run_round(&format!("{number}-{round}")).await;
        }
    }

    fn next_node(&self) -> &TestApp {
        &self.nodes[self.sent.fetch_add(1, Ordering::Relaxed) % 2]
    }

    fn expect_status(response: TestResponse, status: u16) -> TestResponse {
        assert_eq!(response.status(), status, "{response}");
        response
    }

    /// An item's life, and what others ask meanwhile: eleven requests, five of which write.
    async fn run_round(&self, name: &str) {
        let body = product(name, json!({"price_cents": 200, "rating": 4.5}));
        let created = Self::expect_status(self.next_node().post("/products").json(body.clone()).await, 201);
        let item = path(&created.json());
        let read = Self::expect_status(self.next_node().get(&item).await, 200);
        assert_eq!(read.json(), created.json());
        Self::expect_status(self.next_node().post("/products").json(body).await, 409);
        let etag = created.header("etag").unwrap().to_owned();
        let changed =
            self.next_node().patch(&item).header("If-Match", &etag).json(json!({"price_cents": 300})).await;
        let changed = Self::expect_status(changed, 200);
        assert_eq!(changed.json()["price_cents"], 300);
        Self::expect_status(
            self.next_node().patch(&item).header("If-Match", &etag).json(json!({"stock": 9})).await,
            412,
        );
        let list = self.next_node().get(&format!("/products?sku=sku-{name}&sort=-price_cents")).await;
        assert_eq!(Self::expect_status(list, 200).items(), [changed.json()]);
        let counted = self
            .next_node()
            .get("/products?price_cents[gte]=250&limit=3")
            .header("Prefer", "count=exact")
            .await;
        assert!(Self::expect_status(counted, 200).json()["page"]["total"].as_u64().unwrap() > 0);
        Self::expect_status(self.next_node().get("/products?q=lamp&fields=id,name").await, 200);
        let several = json!({"items": [product(&format!("{name}a"), json!({})), product(&format!("{name}b"), json!({}))]});
        Self::expect_status(self.next_node().post("/products/bulk").json(several).await, 201);
        Self::expect_status(self.next_node().delete(&item).await, 204);
        Self::expect_status(self.next_node().get(&item).await, 404);
    }
}

async fn serves_mixed_requests(mode: &str) {
    let Some(url) = pooler_url(mode) else { return };
    let url = create_schema(&url).await;
    let requests = std::env::var("RESOURCEFUL_TEST_REQUESTS").map_or(1_000, |count| count.parse().unwrap());
    let mut nodes = Vec::new();
    for _ in 0..2 {
        nodes.push(TestApp::build(builder(&TestStorage::of("postgres", &url).await)).await.unwrap());
    }
    let background: Vec<_> = nodes.iter().map(|node| node.app().background()).collect();
    let nodes = nodes.try_into().unwrap_or_else(|_| unreachable!("two nodes"));
    let load = Arc::new(Load { nodes, requests, sent: AtomicUsize::new(0) });
    let clients = (0..CLIENTS).map(|number| {
        let load = load.clone();
        tokio::spawn(async move { load.run_client(number).await })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    let sent = load.sent.load(Ordering::Relaxed);
    println!("{sent} requests in {mode} mode, none of which failed");
    let left = load.nodes[0].get("/products?limit=1").header("Prefer", "count=exact").await;
    assert_eq!(left.json()["page"]["total"], sent / 11 * 2);
    for node in &load.nodes {
        assert_eq!(node.get("/readyz").await.status(), 200);
    }
    for one in background {
        one.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_serve_mixed_requests_through_a_pooler_in_transaction_mode() {
    serves_mixed_requests("transaction").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_serve_mixed_requests_through_a_pooler_in_session_mode() {
    serves_mixed_requests("session").await;
}
