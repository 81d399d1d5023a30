//! Conditional requests.

use futures::future::join_all;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;

use crate::policies::model;
use crate::support::{TestStorage, create, on_every_storage, path};

#[tokio::test]
async fn matching_if_none_match_is_304() {
    on_every_storage(|app| async move {
        let product = create(&app, "lamp", json!({})).await;
        let item = app.get(&path(&product)).await;
        assert_eq!(item.header("etag"), Some("\"1\""));
        assert_eq!(item.header("cache-control"), Some("private, no-cache"));
        assert!(item.header("vary").unwrap().contains("authorization"));
        for tag in ["\"1\"", "W/\"1\"", "\"0\", \"1\"", "\"1\",", ", \"0\",, \"1\"", "*"] {
            let known = app.get(&path(&product)).header("if-none-match", tag).await;
            assert_eq!((known.status(), known.text()), (304, ""), "{tag}");
            assert_eq!(known.header("etag"), Some("\"1\""));
        }
        for tag in ["\"2\"", "\"\"", "\"1.x\""] {
            assert_eq!(app.get(&path(&product)).header("if-none-match", tag).await.status(), 200, "{tag}");
        }
        for tag in ["\"1", "1", "1, \"1\"", ","] {
            let malformed = app.get(&path(&product)).header("if-none-match", tag).await;
            assert_eq!(
                (malformed.status(), &malformed.json()["errors"][0]["header"]),
                (400, &json!("If-None-Match")),
                "{tag}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn sparse_fieldset_has_its_own_etag_that_if_match_accepts() {
    on_every_storage(|app| async move {
        let product = create(&app, "lamp", json!({})).await;
        let part = app.get(&format!("{}?fields=name", path(&product))).await;
        let tag = part.header("etag").unwrap().to_owned();
        assert_ne!(tag, "\"1\"");
        let other = app.get(&format!("{}?fields=sku", path(&product))).await;
        assert_ne!(other.header("etag"), Some(tag.as_str()));
        let changed = app.patch(&path(&product)).header("if-match", &tag).json(json!({"name": "x"})).await;
        assert_eq!(changed.status(), 200, "{changed}");
        let stale = app.patch(&path(&product)).header("if-match", &tag).json(json!({"name": "y"})).await;
        assert_eq!(stale.status(), 412);
    })
    .await;
}

#[tokio::test]
async fn etag_changes_with_an_included_item() {
    on_every_storage(|app| async move {
        app.post("/categories").json(json!({"code": "lights", "title": "Lights"})).await;
        let product = create(&app, "lamp", json!({"category_code": "lights"})).await;
        let target = format!("{}?include=category", path(&product));
        let before = app.get(&target).await;
        app.patch("/categories/lights").json(json!({"title": "Lamps"})).await;
        let after = app.get(&target).header("if-none-match", before.header("etag").unwrap()).await;
        assert_eq!((after.status(), &after.json()["category"]["title"]), (200, &json!("Lamps")));
    })
    .await;
}

#[tokio::test]
async fn if_match_mismatch_is_412_and_changes_nothing() {
    on_every_storage(|app| async move {
        let product = create(&app, "lamp", json!({})).await;
        let body = crate::support::product("other", json!({"sku": "sku-lamp"}));
        for tag in ["\"2\"", "W/\"1\"", "\"x\"", "\"\"", "\"1x\"", "\"99999999999999999999\""] {
            for method in ["PATCH", "PUT", "DELETE"] {
                let refused =
                    app.request(method, &path(&product)).header("if-match", tag).json(body.clone()).await;
                assert_eq!(
                    (refused.status(), refused.json()["code"].clone()),
                    (412, json!("precondition-failed")),
                    "{method} {tag}"
                );
                assert_eq!(refused.json()["errors"][0]["header"], "If-Match");
            }
        }
        assert_eq!(app.get(&path(&product)).await.json(), product);
        let malformed = app.delete(&path(&product)).header("if-match", "\"1").await;
        assert_eq!(malformed.status(), 400);
        let any = app.patch(&path(&product)).header("if-match", "*").json(json!({"name": "b"})).await;
        assert_eq!(any.status(), 200);
        let several =
            app.patch(&path(&product)).header("if-match", "\"1\", \"2\"").json(json!({"name": "c"})).await;
        assert_eq!(several.status(), 200, "{several}");
        let absent =
            app.delete("/products/0198c0de-0000-7000-8000-000000000000").header("if-match", "\"1\"").await;
        assert_eq!(absent.status(), 404);
        let gone = app.delete(&path(&product)).header("if-match", "\"3\"").await;
        assert_eq!(gone.status(), 204);
    })
    .await;
}

#[tokio::test]
async fn etag_without_a_version_field_is_a_digest() {
    on_every_storage(|app| async move {
        let created = app.post("/categories").json(json!({"code": "a", "title": "t"})).await;
        let tag = created.header("etag").unwrap().to_owned();
        assert_eq!(app.get("/categories/a").await.header("etag"), Some(tag.as_str()));
        let part = app.get("/categories/a?fields=title").await;
        assert!(part.header("etag").unwrap().starts_with(tag.trim_end_matches('"')), "{part}");
        let changed = app.patch("/categories/a").header("if-match", &tag).json(json!({"title": "u"})).await;
        assert_eq!(changed.status(), 200, "{changed}");
        assert_eq!(app.get("/categories/a").await.header("etag"), changed.header("etag"));
        for method in ["PATCH", "PUT", "DELETE"] {
            let stale = app
                .request(method, "/categories/a")
                .header("if-match", &tag)
                .json(json!({"title": "v"}))
                .await;
            assert_eq!(stale.status(), 412, "{method}");
        }
        let back = app.patch("/categories/a").json(json!({"title": "t"})).await;
        assert_eq!(back.header("etag"), Some(tag.as_str()));
    })
    .await;
}

#[tokio::test]
async fn list_has_a_weak_etag() {
    on_every_storage(|app| async move {
        for name in ["a", "b", "c", "d"] {
            create(&app, name, json!({})).await;
        }
        let list = app.get("/products").await;
        let tag = list.header("etag").unwrap().to_owned();
        assert!(tag.starts_with("W/\""), "{tag}");
        let known = app.get("/products").header("if-none-match", &tag).await;
        assert_eq!((known.status(), known.text()), (304, ""));
        app.patch(&path(&list.items()[0])).json(json!({"name": "e"})).await;
        let changed = app.get("/products").header("if-none-match", &tag).await;
        assert_eq!(changed.status(), 200);
        assert_eq!(changed.items()[0]["version"], 2);
    })
    .await;
}

#[tokio::test]
async fn one_of_concurrent_writers_with_the_same_etag_wins() {
    on_every_storage(|app| async move {
        app.post("/categories").json(json!({"code": "c", "title": "t"})).await;
        let product = create(&app, "lamp", json!({})).await;
        let category = app.get("/categories/c").await;
        for (target, tag, field) in [
            (path(&product), "\"1\"".to_owned(), "name"),
            ("/categories/c".to_owned(), category.header("etag").unwrap().to_owned(), "title"),
        ] {
            let writers = (0..50).map(|index| {
                let request =
                    app.patch(&target).header("if-match", &tag).json(json!({field: format!("w{index}")}));
                tokio::spawn(async move { request.await })
            });
            let answers: Vec<_> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
            let won: Vec<_> = answers.iter().filter(|answer| answer.status() == 200).collect();
            assert_eq!(won.len(), 1, "{target}");
            assert!(answers.iter().all(|answer| matches!(answer.status(), 200 | 412)));
            assert_eq!(app.get(&target).await.json(), won[0].json());
        }
    })
    .await;
}

#[tokio::test]
async fn concurrent_patches_without_if_match_lose_no_update() {
    on_every_storage(|app| async move {
        let product = create(&app, "lamp", json!({})).await;
        let writers = (0..8).map(|index| {
            let patch =
                if index % 2 == 0 { json!({"price_cents": index}) } else { json!({"stock": 100 + index}) };
            let request = app.patch(&path(&product)).json(patch);
            tokio::spawn(async move { request.await })
        });
        let answers: Vec<_> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| answer.status() == 200), "{}", answers[0]);
        let after = app.get(&path(&product)).await.json();
        assert_eq!(after["version"], 9);
        assert!(after["stock"].as_i64().unwrap() > 100 && after["name"] == "lamp");
    })
    .await;
}

#[tokio::test]
async fn item_recreated_with_the_same_id_has_a_new_etag() {
    for place in TestStorage::all().await {
        let pages = define_dynamic_resource("pages", model(&["code", "text"]))
            .adapter(place.table("pages"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .version("version")
            .preset(bulk())
            .build()
            .unwrap();
        let app = TestApp::build(create_app(AppPreset::Testing).batch(5).resource(pages)).await.unwrap();
        let body = |text: &str| json!({"code": "a", "text": text});
        let create = json!({"operation": "create", "resource": "pages", "body": body("by batch")});
        let again = [
            app.post("/pages").json(body("by POST")),
            app.put("/pages/a").json(body("by PUT")),
            app.post("/pages/bulk").json(json!({"items": [body("by bulk")]})),
            app.post("/batch").json(json!({"operations": [create]})),
        ];
        assert_eq!(app.post("/pages").json(body("first")).await.status(), 201);
        let mut tags = vec![app.get("/pages/a").await.header("etag").unwrap().to_owned()];
        for request in again {
            assert_eq!(app.delete("/pages/a").await.status(), 204);
            let created = request.await;
            assert!(created.status() < 300, "{created}");
            for tag in &tags {
                let fresh = app.get("/pages/a").header("if-none-match", tag).await;
                assert_eq!(fresh.status(), 200, "{}: {fresh}", place.name);
                let stale = app.patch("/pages/a").header("if-match", tag).json(json!({"text": "lost"})).await;
                assert_eq!(stale.status(), 412, "{}: {stale}", place.name);
            }
            let tag = app.get("/pages/a").await.header("etag").unwrap().to_owned();
            let changed = app.patch("/pages/a").header("if-match", &tag).json(json!({"text": "next"})).await;
            assert_eq!(changed.status(), 200, "{}: {changed}", place.name);
            tags.extend([tag, changed.header("etag").unwrap().to_owned()]);
        }
        let delete = json!({"operation": "delete", "resource": "pages", "id": "a"});
        let both = app.post("/batch").json(json!({"operations": [delete, create]})).await;
        assert_eq!(both.status(), 200, "{}: {both}", place.name);
        let fresh = app.get("/pages/a").header("if-none-match", tags.last().unwrap()).await;
        assert_eq!((fresh.status(), &fresh.json()["text"]), (200, &json!("by batch")), "{}", place.name);
        tags.push(fresh.header("etag").unwrap().to_owned());
        assert_eq!(app.delete("/pages/a").await.status(), 204);
        app.app().load().rows("pages", [body("loaded")]).unwrap().commit().await.unwrap();
        for tag in &tags {
            assert_eq!(
                app.get("/pages/a").header("if-none-match", tag).await.status(),
                200,
                "{}",
                place.name
            );
        }
    }
}
