//! Lines of the wire contract that the other files do not hold.

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value, json};

use crate::support::{EDITOR, TestStorage, builder, create, on_every_storage, path};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Paper {
    id: i64,
    title: String,
    deleted_at: Option<DateTime<Utc>>,
}

async fn papers(storage: &TestStorage) -> TestApp {
    let papers = define_resource::<Paper>("papers")
        .adapter(storage.table("papers"))
        .permissions(Permissions::all(anyone()))
        .version("revision")
        .preset(soft_delete())
        .preset(audit().readable_by(anyone()).revertible_by(anyone()))
        .preset(bulk());
    TestApp::build(create_app(AppPreset::Testing).batch(10).resource(papers.build().unwrap())).await.unwrap()
}

#[tokio::test]
async fn if_match_is_required_on_every_path_of_a_resource_that_requires_it() {
    on_every_storage(|app| async move {
        let note = app.post("/notes").bearer(EDITOR).json(json!({"text": "a"})).await;
        let location = note.header("location").unwrap().to_owned();
        let id = note.json()["id"].clone();
        let put = app.put(&location).bearer(EDITOR).json(json!({"text": "b"})).await;
        assert_eq!(
            (put.status(), put.json()["errors"][0]["header"].clone()),
            (428, json!("If-Match")),
            "{put}"
        );
        let items = json!({"items": [{"id": id, "text": "b"}]});
        let by_filter = json!({"filter": {"id": id}, "patch": {"text": "b"}, "max_affected": 1});
        for body in [items, by_filter] {
            let refused = app.patch("/notes/bulk").bearer(EDITOR).json(body).await;
            assert_eq!(refused.status(), 428, "{refused}");
        }
        assert_eq!(app.get(&location).bearer(EDITOR).await.json(), note.json());
    })
    .await;
}

#[tokio::test]
async fn preset_actions_honor_if_match_and_deleted_at_is_read_only() {
    for storage in TestStorage::all().await {
        let app = papers(&storage).await;
        let created = app.post("/papers").json(json!({"title": "a"})).await;
        let item = format!("/papers/{}", created.json()["id"]);
        let instant = "2020-01-01T00:00:00Z";
        let set = json!({"deleted_at": instant});
        let listed = json!({"items": [{"id": created.json()["id"].to_string(), "deleted_at": instant}]});
        let batched = json!({"operations": [{"operation": "update", "resource": "papers", "id": created.json()["id"], "body": set}]});
        for (method, target, body) in [
            ("POST", "/papers", json!({"title": "b", "deleted_at": instant})),
            ("PATCH", item.as_str(), set.clone()),
            ("PUT", item.as_str(), json!({"title": "b", "deleted_at": instant})),
            ("PATCH", "/papers/bulk", listed),
            ("POST", "/batch", batched),
        ] {
            let refused = app.request(method, target).json(body).await;
            assert_eq!(
                (refused.status(), refused.json()["errors"][0]["code"].clone()),
                (422, json!("read-only")),
                "{method} {target}: {refused}"
            );
        }
        app.patch(&item).json(json!({"title": "b"})).await;
        app.delete(&item).await;
        for target in [format!("{item}/restore"), format!("{item}/revert")] {
            let body = if target.ends_with("revert") { json!({"version": 1}) } else { json!({}) };
            let refused = app.post(&target).header("if-match", "\"99\"").json(body).await;
            assert!(matches!(refused.status(), 404 | 412 | 422), "{refused}");
        }
        assert_eq!(app.get(&item).await.status(), 404, "still deleted");
        let deleted = app.get(&format!("{item}?deleted=include")).await;
        let stale = app.post(&format!("{item}/restore")).header("if-match", "\"1\"").await;
        assert_eq!(stale.status(), 412, "{stale}");
        let restored =
            app.post(&format!("{item}/restore")).header("if-match", deleted.header("etag").unwrap()).await;
        assert_eq!(
            (restored.status(), restored.json()["deleted_at"].clone()),
            (200, Value::Null),
            "{restored}"
        );
        let history = app.get(&format!("{item}/history")).await;
        let tag = history.header("etag").unwrap().to_owned();
        assert!(tag.starts_with("W/\"") && history.header("vary").is_some(), "{history}");
        let known = app.get(&format!("{item}/history")).header("if-none-match", &tag).await;
        assert_eq!((known.status(), known.text()), (304, ""));
        let many = app.get(&format!("{item}/history?limit=99999999999999999999")).await;
        assert_eq!((many.status(), many.json()["page"]["limit"].clone()), (200, json!(200)), "{many}");
        let twice = app.get(&format!("{item}/history?limit=1&limit=2")).await;
        assert_eq!((twice.status(), twice.json()["errors"][0]["code"].clone()), (400, json!("repeated")));
    }
}

#[tokio::test]
async fn head_and_query_are_conditional_and_query_post_is_not() {
    on_every_storage(|app| async move {
        let item = path(&create(&app, "lamp", json!({})).await);
        let get = app.get(&item).await;
        let head = app.request("HEAD", &item).header("if-none-match", "\"1\"").await;
        assert_eq!(
            (head.status(), head.header("etag"), head.header("vary")),
            (304, Some("\"1\""), get.header("vary"))
        );
        assert_eq!(head.header("cache-control"), get.header("cache-control"));
        let query = || json!({"filter": {"name": "lamp"}});
        let found = app.request("QUERY", "/products").json(query()).await;
        assert_eq!((found.status(), found.header("link")), (200, None));
        let tag = found.header("etag").unwrap().to_owned();
        let known = app.request("QUERY", "/products").header("if-none-match", &tag).json(query()).await;
        assert_eq!((known.status(), known.text()), (304, ""));
        let query_post = app.post("/products/query").header("if-none-match", &tag).json(query()).await;
        assert_eq!(query_post.status(), 200);
        let tags = app
            .put(&item)
            .header("if-none-match", "\"1\"")
            .json(crate::support::product("b", json!({})))
            .await;
        assert_eq!(
            (tags.status(), tags.json()["errors"][0]["header"].clone()),
            (400, json!("If-None-Match"))
        );
        for query in ["fields=", "include="] {
            let refused = app.get(&format!("/products?{query}")).await;
            assert_eq!(
                (refused.status(), refused.json()["errors"][0]["parameter"].clone()),
                (400, json!(query.trim_end_matches('=')))
            );
        }
        let beyond = app.get("/products?limit=99999999999999999999").await;
        assert_eq!((beyond.status(), beyond.json()["page"]["limit"].clone()), (200, json!(10)), "{beyond}");
        let most = app.get("/categories?limit=1000").await;
        assert_eq!(most.json()["page"]["limit"], 200, "{most}");
    })
    .await;
}

#[tokio::test]
async fn non_resource_paths_list_their_methods() {
    let app = TestApp::build(builder(&TestStorage::memory()).batch(5)).await.unwrap();
    for (target, allow) in [
        ("/batch", "OPTIONS, POST"),
        ("/events", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ] {
        let refused = app.delete(target).await;
        assert_eq!((refused.status(), refused.header("allow")), (405, Some(allow)), "{target}: {refused}");
        assert_eq!(refused.json()["code"], "method-not-allowed");
        let options = app.request("OPTIONS", target).await;
        assert_eq!(
            (options.status(), options.header("allow"), options.text()),
            (204, Some(allow), ""),
            "{target}"
        );
    }
}
