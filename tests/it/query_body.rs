//! The body form of a query.

use serde_json::{Value, json};

use crate::support::{create, on_every_storage};

async fn seed(app: &resourceful::testing::TestApp) {
    for (index, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        create(app, name, json!({"price_cents": 10 * (index + 1), "in_stock": index % 2 == 0})).await;
    }
}

fn names(items: &[Value]) -> String {
    items.iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn query_method_and_query_post_return_the_same_response() {
    on_every_storage(|app| async move {
        seed(&app).await;
        for (body, expected) in [
            (json!({}), "abc"),
            (json!({"limit": 10}), "abcd"),
            (json!({"filter": {"name": "b"}}), "b"),
            (json!({"filter": {"price_cents": {"gte": 20, "lt": 40}}}), "bc"),
            (json!({"filter": {"and": [{"price_cents": {"gte": 20}}, {"or": [{"name": {"eq": "b"}}, {"name": {"eq": "d"}}]}]}}), "bd"),
            (json!({"filter": {"not": {"in_stock": true}}}), "bd"),
            (json!({"filter": {"price_cents": {"in": [10, 30]}, "name": {"ne": "a"}}}), "c"),
            (json!({"filter": {"price_cents": {"between": [20, 30]}}}), "bc"),
            (json!({"filter": {"price_cents": {"in": []}}}), ""),
            (json!({"filter": {"rating": {"is_null": true}}, "sort": ["-name"], "limit": 2}), "dc"),
            (json!({"filter": {"or": []}}), ""),
            (json!({"filter": {"and": []}}), "abc"),
            (json!({"sort": [], "include": []}), "abc"),
            (json!({"filter": {"name": {"in": ["a,b", "a"]}}}), "a"),
        ] {
            let query = app.request("QUERY", "/products").json(body.clone()).await;
            assert_eq!(query.status(), 200, "{body}: {query}");
            assert_eq!(names(&query.items()), expected, "{body}");
            let query_post = app.post("/products/query").json(body).await;
            assert_eq!((query_post.json(), query_post.header("etag")), (query.json(), query.header("etag")));
        }
        let part = app.post("/products/query").json(json!({"fields": ["name"], "limit": 1})).await;
        assert_eq!(part.items(), [json!({"name": "a"})]);
        let next = part.json()["page"]["next"].clone();
        let second = app.post("/products/query").json(json!({"fields": ["name"], "limit": 1, "after": next})).await;
        assert_eq!(names(&second.items()), "b");
        let counted = app.post("/products/query").header("prefer", "count=exact").json(json!({"limit": 1})).await;
        assert_eq!(counted.json()["page"]["total"], 4);
    })
    .await;
}

#[tokio::test]
async fn query_faults_have_json_pointers() {
    on_every_storage(|app| async move {
        seed(&app).await;
        let mut deep = json!({"name": "a"});
        for _ in 0..20 {
            deep = json!({"not": deep});
        }
        let wide: Vec<_> = (0..300).map(|_| json!({"name": "a"})).collect();
        for (body, pointer) in [
            (json!([]), ""),
            (json!({"filtre": {}}), "/filtre"),
            (json!({"filter": []}), "/filter"),
            (json!({"filter": {"nmae": "a"}}), "/filter/nmae"),
            (json!({"filter": {"name": {"like": "a"}}}), "/filter/name/like"),
            (json!({"filter": {"name": {}}}), "/filter/name"),
            (json!({"filter": {"name": null}}), "/filter/name"),
            (json!({"filter": {"name": 5}}), "/filter/name"),
            (json!({"filter": {"price_cents": "10"}}), "/filter/price_cents"),
            (json!({"filter": {"price_cents": {"in": 10}}}), "/filter/price_cents/in"),
            (json!({"filter": {"and": {}}}), "/filter/and"),
            (json!({"filter": {"or": [{"name": "a"}, {"x": 1}]}}), "/filter/or/1/x"),
            (json!({"filter": {"not": [1]}}), "/filter/not"),
            (json!({"filter": {"and": wide}}), "/filter/and"),
            (json!({"sort": "name"}), "/sort"),
            (json!({"sort": ["x"]}), "/sort"),
            (json!({"limit": 0}), "/limit"),
            (json!({"limit": "1"}), "/limit"),
            (json!({"after": 5}), "/after"),
            (json!({"fields": ["secret"]}), "/fields"),
            (json!({"fields": []}), "/fields"),
        ] {
            let refused = app.post("/products/query").json(body.clone()).await;
            assert_eq!(refused.status(), 400, "{body}: {refused}");
            let found = refused.json()["errors"][0]["pointer"].as_str().unwrap().to_owned();
            assert!(found.starts_with(pointer), "{body}: {found}");
        }
        assert_eq!(app.post("/products/query").json(json!({"filter": deep})).await.status(), 400);
        let unannounced =
            app.request("QUERY", "/products").header("content-type", "text/plain").json(json!({})).await;
        assert_eq!(
            (unannounced.status(), unannounced.header("accept-query")),
            (415, Some("application/json"))
        );
        let parameters = app.post("/products/query?limit=1").json(json!({})).await;
        assert_eq!(parameters.status(), 400);
    })
    .await;
}
