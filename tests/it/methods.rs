//! Methods.

use serde_json::json;

use crate::support::{EDITOR, create, faults, on_every_storage, path, product};

#[tokio::test]
async fn post_creates_an_item_and_returns_its_location() {
    on_every_storage(|app| async move {
        let created = app.post("/products").json(product("lamp", json!({}))).await;
        assert_eq!(created.status(), 201);
        let location = created.header("location").unwrap();
        assert_eq!(location, path(&created.json()));
        assert_eq!(created.header("etag"), Some("\"1\""));
        assert_eq!(app.get(location).await.json(), created.json());
    })
    .await;
}

#[tokio::test]
async fn prefer_return_minimal_omits_the_body() {
    on_every_storage(|app| async move {
        let created =
            app.post("/products").header("prefer", "return=minimal").json(product("lamp", json!({}))).await;
        assert_eq!((created.status(), created.text()), (201, ""));
        assert_eq!(created.header("preference-applied"), Some("return=minimal"));
        assert!(created.header("etag").is_some() && created.header("content-type").is_none());
        assert_eq!(app.get(created.header("location").unwrap()).await.json()["name"], "lamp");
    })
    .await;
}

#[tokio::test]
async fn merge_patch_keeps_absent_members_and_clears_null_ones() {
    on_every_storage(|app| async move {
        let dimensions = json!({"width": 1, "height": 2, "depth": 4, "labels": [{"contact": "a@b.example"}]});
        let before = create(&app, "lamp", json!({"rating": 4.5, "dimensions": dimensions})).await;
        let patch = json!({"rating": null, "dimensions": {"width": 7, "labels": []}, "tags": ["new"]});
        let patched = app.patch(&path(&before)).json(patch).await;
        assert_eq!(patched.status(), 200, "{patched}");
        let after = patched.json();
        assert_eq!(after["rating"], json!(null));
        assert_eq!(after["dimensions"], json!({"width": 7, "height": 2, "depth": 4, "labels": []}));
        assert_eq!(after["tags"], json!(["new"]));
        assert_eq!(after["version"], 2);
        assert_eq!((&after["name"], &after["created_at"]), (&before["name"], &before["created_at"]));
        assert!(after["updated_at"].as_str() >= before["updated_at"].as_str());
        assert_eq!(app.get(&path(&before)).await.json(), after);
        // Null removes a member of an object, and its default takes the place.
        let removed = app.patch(&path(&before)).json(json!({"dimensions": {"depth": null}})).await;
        assert_eq!(removed.json()["dimensions"]["depth"], 0, "{removed}");
    })
    .await;
}

#[tokio::test]
async fn a_patch_that_changes_nothing_keeps_the_etag() {
    on_every_storage(|app| async move {
        let before = create(&app, "lamp", json!({"weight": "2.50"})).await;
        for patch in [
            json!({}),
            json!({"name": "lamp"}),
            json!({"weight": "2.500", "sku": "sku-lamp"}),
            json!({"id": before["id"]}),
        ] {
            let same = app.patch(&path(&before)).json(patch.clone()).await;
            assert_eq!((same.status(), same.header("etag")), (200, Some("\"1\"")), "{patch}: {same}");
            assert_eq!(same.json(), before);
        }
    })
    .await;
}

#[tokio::test]
async fn patch_rejects_read_only_immutable_and_unknown_fields() {
    on_every_storage(|app| async move {
        let before = create(&app, "lamp", json!({})).await;
        let patch = json!({"version": 5, "colour": 1, "sku": "other", "name": null, "stock": 70000,
                           "id": "0198c0de-0000-7000-8000-000000000000", "nmae": "x"});
        let refused = app.patch(&path(&before)).json(patch).await;
        assert_eq!(refused.status(), 422, "{refused}");
        let problem = refused.json();
        assert_eq!(
            faults(&problem),
            [
                ("/colour", "unknown"),
                ("/id", "read-only"),
                ("/name", "type"),
                ("/nmae", "unknown"),
                ("/sku", "immutable"),
                ("/stock", "range"),
                ("/version", "read-only"),
            ]
        );
        assert!(problem["errors"].to_string().contains("Did you mean `name`?"));
        assert_eq!(app.get(&path(&before)).await.json(), before);
    })
    .await;
}

#[tokio::test]
async fn put_replaces_all_fields() {
    on_every_storage(|app| async move {
        let before = create(&app, "lamp", json!({"rating": 4.5, "tags": ["a"], "note": "n"})).await;
        let body = json!({"sku": "sku-lamp", "name": "other", "price_cents": 1, "in_stock": false,
                          "status": "live", "tags": [], "weight": "1", "stock": 0, "secret": "s"});
        let put = app.put(&path(&before)).json(body.clone()).await;
        assert_eq!(put.status(), 200, "{put}");
        let after = put.json();
        assert_eq!(
            (&after["name"], &after["rating"], &after["note"]),
            (&json!("other"), &json!(null), &json!(""))
        );
        assert_eq!((&after["version"], &after["created_at"]), (&json!(2), &before["created_at"]));
        // The same once more changes nothing; a secret that is set again may be another one.
        let mut shown = body.clone();
        shown.as_object_mut().unwrap().remove("secret");
        let again = app.put(&path(&before)).json(shown).await;
        assert_eq!((again.status(), again.header("etag")), (200, Some("\"2\"")), "{again}");
        let again = app.put(&path(&before)).json(body.clone()).await;
        assert_eq!((again.status(), again.header("etag")), (200, Some("\"3\"")), "{again}");
        let mut partial = body;
        partial.as_object_mut().unwrap().remove("price_cents");
        let refused = app.put(&path(&before)).json(partial).await;
        assert_eq!(
            (refused.status(), &refused.json()["errors"][0]["pointer"]),
            (422, &json!("/price_cents"))
        );
        let absent =
            app.put("/products/0198c0de-0000-7000-8000-000000000000").json(product("x", json!({}))).await;
        assert_eq!(absent.status(), 404, "{absent}");
    })
    .await;
}

#[tokio::test]
async fn put_creates_only_with_client_assigned_ids() {
    on_every_storage(|app| async move {
        let created = app.put("/categories/lights").json(json!({"title": "Lights"})).await;
        assert_eq!(
            (created.status(), created.header("location")),
            (201, Some("/categories/lights")),
            "{created}"
        );
        let replaced = app.put("/categories/lights").json(json!({"code": "lights", "title": "Lamps"})).await;
        assert_eq!((replaced.status(), replaced.json()["title"].clone()), (200, json!("Lamps")));
        let create_only =
            app.put("/categories/lights").header("if-none-match", "*").json(json!({"title": "x"})).await;
        assert_eq!(create_only.status(), 412, "{create_only}");
        let other = app.put("/categories/lights").json(json!({"code": "lamps", "title": "x"})).await;
        assert_eq!((other.status(), &other.json()["errors"][0]["pointer"]), (422, &json!("/code")));
        let matched = app.put("/categories/new").header("if-match", "*").json(json!({"title": "x"})).await;
        assert_eq!(matched.status(), 412);
        assert_eq!(app.get("/categories/lights").await.json()["title"], "Lamps");
    })
    .await;
}

#[tokio::test]
async fn deleted_item_is_gone() {
    on_every_storage(|app| async move {
        let product = create(&app, "lamp", json!({})).await;
        let deleted = app.delete(&path(&product)).await;
        assert_eq!((deleted.status(), deleted.text()), (204, ""));
        assert_eq!(app.get(&path(&product)).await.status(), 404);
        assert_eq!(app.delete(&path(&product)).await.status(), 404);
        assert_eq!(app.get("/products").await.items().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    on_every_storage(|app| async move {
        let product = create(&app, "lamp", json!({})).await;
        for target in [
            path(&product),
            "/products".to_owned(),
            "/products/0198c0de-0000-7000-8000-000000000000".to_owned(),
        ] {
            let (get, head) = (app.get(&target).await, app.request("HEAD", &target).await);
            assert_eq!((head.status(), head.text()), (get.status(), ""));
            assert_eq!(head.header("etag"), get.header("etag"));
            if get.status() == 200 {
                assert_eq!(head.header("content-length"), Some(get.bytes().len().to_string().as_str()));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn options_and_405_list_the_allowed_methods() {
    on_every_storage(|app| async move {
        let collection = "GET, HEAD, OPTIONS, POST, QUERY";
        let item = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT";
        for (path, allow) in [
            ("/products", collection),
            ("/products/0198c0de-0000-7000-8000-000000000000", item),
            ("/products/query", "OPTIONS, POST"),
            ("/categories/query", "OPTIONS, POST"),
        ] {
            let options = app.request("OPTIONS", path).await;
            assert_eq!((options.status(), options.header("allow")), (204, Some(allow)), "{path}");
            let refused = app.request("TRACE", path).await;
            assert_eq!((refused.status(), refused.header("allow")), (405, Some(allow)), "{path}: {refused}");
            assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        }
        let options = app.request("OPTIONS", "/products").await;
        assert_eq!(options.header("accept-post"), Some("application/json"));
        assert_eq!(options.header("accept-query"), Some("application/json"));
        assert_eq!(app.get("/products/query").await.status(), 405);
        // Text may be an id, but not one under which an item could not be reached.
        let reserved = app.post("/categories").json(json!({"code": "query", "title": "t"})).await;
        assert_eq!(
            (reserved.status(), &reserved.json()["errors"][0]["code"]),
            (422, &json!("reserved")),
            "{reserved}"
        );
        assert_eq!(app.put("/categories/query").json(json!({"title": "t"})).await.status(), 405);
        assert_eq!(app.post("/categories/query").json(json!({})).await.items().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn writes_reject_query_parameters() {
    on_every_storage(|app| async move {
        let product = create(&app, "lamp", json!({})).await;
        for (method, target) in [
            ("POST", "/products".to_owned()),
            ("PATCH", path(&product)),
            ("PUT", path(&product)),
            ("DELETE", path(&product)),
        ] {
            let refused = app.request(method, &format!("{target}?fields=id")).json(json!({})).await;
            assert_eq!(
                (refused.status(), &refused.json()["errors"][0]["parameter"]),
                (400, &json!("fields")),
                "{method}"
            );
        }
        assert_eq!(app.get(&path(&product)).await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_resource_may_require_if_match() {
    on_every_storage(|app| async move {
        let note = app.post("/notes").bearer(EDITOR).json(json!({"text": "a"})).await;
        let location = note.header("location").unwrap().to_owned();
        let refused = app.patch(&location).bearer(EDITOR).json(json!({"text": "b"})).await;
        assert_eq!((refused.status(), refused.json()["code"].clone()), (428, json!("precondition-required")));
        assert_eq!(refused.json()["errors"][0]["header"], "If-Match");
        let changed = app
            .patch(&location)
            .bearer(EDITOR)
            .header("if-match", note.header("etag").unwrap())
            .json(json!({"text": "b"}))
            .await;
        assert_eq!(changed.status(), 200, "{changed}");
    })
    .await;
}
