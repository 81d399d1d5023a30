//! Many changes of the same items at once, on one node and on two.

use std::sync::Arc;

use futures::future::join_all;
use resourceful::Sql;
use resourceful::adapter::{Storage, Table};
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use resourceful_contract::ErrorKind;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::support::TestStorage;
use crate::support::gated::Gated;

/// One resource has a version counter, the other none.
const RESOURCES: [&str; 2] = ["counted", "plain"];
const ITEMS: usize = 20;
const CLIENTS: usize = 8;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Item {
    id: String,
    value: i64,
}

/// One database, and the nodes that serve it.
struct Cluster {
    name: String,
    nodes: Vec<TestApp>,
    _folder: Option<TempDir>,
}

impl Cluster {
    fn node(&self, client: usize) -> &TestApp {
        &self.nodes[client % self.nodes.len()]
    }
}

async fn node(storage: &Arc<dyn Storage>) -> TestApp {
    let declared = |name: &str| {
        define_resource::<Item>(name)
            .adapter(Table::new(storage.clone(), name).create_table_if_missing())
            .permissions(Permissions::all(anyone()))
            .preset(bulk().max_items(ITEMS))
    };
    let counted = declared(RESOURCES[0]).version("version").build().unwrap();
    let plain = declared(RESOURCES[1]).build().unwrap();
    let app = create_app(AppPreset::Testing).batch(ITEMS).resource(counted).resource(plain);
    TestApp::build(app).await.unwrap()
}

/// Every storage with one node, and with two where both find the same rows.
async fn clusters() -> Vec<Cluster> {
    let mut clusters = Vec::new();
    for place in TestStorage::all().await {
        let nodes = vec![node(place.storage()).await];
        clusters.push(Cluster { name: place.name.to_owned(), nodes, _folder: None });
    }
    if let Some(place) = TestStorage::postgres().await {
        let other = Sql::connect(place.url().unwrap()).await.unwrap().storage();
        let nodes = vec![node(place.storage()).await, node(&other).await];
        clusters.push(Cluster { name: "postgres with two nodes".to_owned(), nodes, _folder: None });
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("shared.db").display());
    let [one, other] = [Sql::connect(&url).await.unwrap(), Sql::connect(&url).await.unwrap()];
    let nodes = vec![node(&one.storage()).await, node(&other.storage()).await];
    clusters.push(Cluster { name: "sqlite with two nodes".to_owned(), nodes, _folder: Some(folder) });
    clusters
}

/// Creates the items, and answers their counters.
async fn create_items(cluster: &Cluster) -> Vec<Option<i64>> {
    let items: Vec<_> = (0..ITEMS).map(|item| json!({"id": id(item), "value": 0})).collect();
    for resource in RESOURCES {
        let created = cluster.nodes[0].post(&format!("/{resource}/bulk")).json(json!({"items": items})).await;
        assert_eq!(created.status(), 201, "{}: {created}", cluster.name);
    }
    counters(cluster).await
}

fn id(item: usize) -> String {
    format!("i{item:02}")
}

/// Half of the items, in an order that differs from client to client and from round to round.
fn some_items(client: usize, round: usize) -> Vec<String> {
    let step = [1, 3, 7, 9, 11, 13, 17, 19][(client + round) % 8];
    (0..ITEMS / 2).map(|item| id((client * 5 + round + item * step) % ITEMS)).collect()
}

/// Sends 64 requests, 8 at a time, and fails on the first that is not answered with 200.
async fn all_succeed<F>(cluster: &Cluster, request: impl Fn(usize, usize) -> F)
where
    F: Future<Output = TestResponse> + Send + 'static,
{
    for round in 0..8 {
        let requests = (0..CLIENTS).map(|client| tokio::spawn(request(client, round)));
        for answer in join_all(requests).await {
            let answer = answer.unwrap();
            assert_eq!(answer.status(), 200, "{}: {answer}", cluster.name);
        }
    }
}

/// The counter of each item of the resource that has them; none of those that are gone.
async fn counters(cluster: &Cluster) -> Vec<Option<i64>> {
    let mut counters = Vec::new();
    for item in 0..ITEMS {
        let item = cluster.nodes[0].get(&format!("/counted/{}", id(item))).await;
        // The tag is the counter.
        counters.push(item.header("etag").and_then(|tag| tag.trim_matches('"').parse().ok()));
    }
    counters
}

/// How often the items that are there were changed since then, all together.
async fn changes_since(before: &[Option<i64>], cluster: &Cluster) -> i64 {
    let after = counters(cluster).await;
    before.iter().zip(after).filter_map(|(before, after)| Some(after? - (*before)?)).sum()
}

#[tokio::test]
async fn concurrent_patches_of_one_item_are_serialized() {
    for cluster in clusters().await {
        let before = create_items(&cluster).await;
        for resource in RESOURCES {
            // `If-Match: *` asks for an item, and for none of its versions.
            for if_match in [None, Some("*")] {
                let patches = (1..=40).map(|value| {
                    let request = cluster.node(value).patch(&format!("/{resource}/i00"));
                    let request = match if_match {
                        Some(any) => request.header("if-match", any),
                        None => request,
                    };
                    let request = request
                        .json(json!({"value": if if_match.is_some() { -1 } else { 1 } * value as i64}));
                    tokio::spawn(async move { request.await })
                });
                for answer in join_all(patches).await {
                    let answer = answer.unwrap();
                    assert_eq!(answer.status(), 200, "{}, {resource}: {answer}", cluster.name);
                }
            }
        }
        assert_eq!(changes_since(&before, &cluster).await, 80, "{}", cluster.name);
    }
}

#[tokio::test]
async fn bulk_patches_of_the_same_items_in_any_order_succeed() {
    for cluster in clusters().await {
        let before = create_items(&cluster).await;
        for resource in RESOURCES {
            all_succeed(&cluster, |client, round| {
                let items = some_items(client, round);
                let value = client * 100 + round + 1;
                let items: Vec<_> = items.iter().map(|id| json!({"id": id, "value": value})).collect();
                let request = cluster.node(client).patch(&format!("/{resource}/bulk"));
                let request = request.json(json!({"items": items}));
                async move { request.await }
            })
            .await;
        }
        assert_eq!(changes_since(&before, &cluster).await, 640, "{}", cluster.name);
    }
}

#[tokio::test]
async fn batches_of_the_same_items_in_any_order_succeed() {
    for cluster in clusters().await {
        let before = create_items(&cluster).await;
        all_succeed(&cluster, |client, round| {
            let value = client * 100 + round + 1;
            let operation = |(position, id): (usize, &String)| {
                // The resources come in either order too.
                let resource = RESOURCES[(position + client) % 2];
                json!({"resource": resource, "operation": "update", "id": id, "body": {"value": value}})
            };
            let operations: Vec<Json> = some_items(client, round).iter().enumerate().map(operation).collect();
            let request = cluster.node(client).post("/batch").json(json!({"operations": operations}));
            async move { request.await }
        })
        .await;
        assert_eq!(changes_since(&before, &cluster).await, 320, "{}", cluster.name);
    }
}

#[tokio::test]
async fn bulk_deletes_beside_bulk_patches_succeed() {
    for cluster in clusters().await {
        let before = create_items(&cluster).await;
        // Four clients delete five items each while four others change all items that stay.
        let requests = (0..CLIENTS).map(|client| {
            let path = format!("/{}/bulk", RESOURCES[client % 2]);
            let request = if client < 4 {
                let ids: Vec<_> = (0..5).map(|item| id((client / 2) * 5 + (item * 3) % 5)).collect();
                cluster.node(client / 2).request("DELETE", &path).json(json!({"ids": ids}))
            } else {
                let items = (0..10).map(|item| json!({"id": id(10 + item * 3 % 10), "value": client}));
                cluster.node(client / 2).patch(&path).json(json!({"items": items.collect::<Vec<_>>()}))
            };
            tokio::spawn(async move { request.await })
        });
        for answer in join_all(requests).await {
            let answer = answer.unwrap();
            assert_eq!(answer.status(), 200, "{}: {answer}", cluster.name);
        }
        assert_eq!(changes_since(&before, &cluster).await, 20, "{}", cluster.name);
    }
}

/// A row that others change before each try, and a database that gives each transaction up.
#[tokio::test]
async fn persistent_contention_is_409_and_changes_nothing() {
    let refused = async |kind: ErrorKind, resource: &'static str| {
        let place = TestStorage::memory();
        let gated = Gated::over(place.storage().clone(), resource);
        let storage: Arc<dyn Storage> = gated.clone();
        let app = node(&storage).await;
        let path = |rest: &str| format!("/{resource}{rest}");
        let item = json!({"id": "a", "value": 1});
        let created = app.post(&path("")).json(item.clone()).await;
        assert_eq!(created.status(), 201, "{created}");
        let tag = created.header("etag").unwrap().to_owned();
        gated.refuse_commits(kind);
        let change = json!({"value": 2});
        let operation = json!({"operation": "update", "resource": resource, "id": "a", "body": change});
        let by_filter = json!({"filter": {"id": "a"}, "patch": change, "max_affected": 1});
        let requests = [
            app.patch(&path("/a")).json(change.clone()),
            app.put(&path("/a")).json(json!({"id": "a", "value": 3})),
            app.delete(&path("/a")),
            app.patch(&path("/bulk")).json(json!({"items": [{"id": "a", "value": 2}]})),
            app.patch(&path("/bulk")).json(by_filter),
            app.delete(&path("/bulk")).json(json!({"ids": ["a"]})),
            app.post("/batch").json(json!({"operations": [operation]})),
        ];
        for answer in join_all(requests.map(IntoFuture::into_future)).await {
            let problem = answer.json();
            assert_eq!(
                (answer.status(), &problem["code"]),
                (409, &json!("concurrent-change")),
                "{kind:?} {resource}: {answer}"
            );
        }
        let conditional = app.patch(&path("/a")).header("if-match", &tag).json(change).await;
        let expected = if kind == ErrorKind::VersionMismatch { 412 } else { 409 };
        assert_eq!(conditional.status(), expected, "{kind:?} {resource}: {conditional}");
        assert_eq!(app.get(&path("/a")).await.json(), item);
    };
    let kinds = [ErrorKind::VersionMismatch, ErrorKind::Contended];
    let all = kinds.into_iter().flat_map(|kind| RESOURCES.map(|resource| refused(kind, resource)));
    join_all(all).await;
}
