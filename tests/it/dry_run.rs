//! Changes that are only tried: everything happens as it would, and nothing is changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::policies::model;
use crate::support::{TestStorage, create, faults, on_every_storage, path, product};

#[tokio::test]
async fn dry_run_returns_the_response_and_changes_nothing() {
    on_every_storage(|app| async move {
        let lamp = create(&app, "lamp", json!({})).await;
        let before = app.events().await.len();
        let tried = app.post("/products").header("prefer", "dry-run").json(product("desk", json!({}))).await;
        assert_eq!((tried.status(), tried.header("preference-applied")), (200, Some("dry-run")), "{tried}");
        let result = tried.json();
        assert_eq!((&result["status"], &result["body"]["name"]), (&json!(201), &json!("desk")));
        let id = result["body"]["id"].as_str().unwrap();
        assert_eq!(result["headers"]["location"], format!("/products/{id}"));
        assert_eq!(result["headers"]["etag"], "\"1\"");
        assert_eq!(result["events"][0]["type"], "products.created");
        assert_eq!(result["events"][0]["data"], result["body"]);
        assert_eq!(app.get(&format!("/products/{id}")).await.status(), 404);

        let at = path(&lamp);
        let patched = app.patch(&at).header("prefer", "dry-run").json(json!({"price_cents": 7})).await.json();
        assert_eq!((&patched["status"], &patched["body"]["price_cents"]), (&json!(200), &json!(7)));
        let put =
            app.put(&at).header("prefer", "dry-run").json(product("lamp", json!({"stock": 9}))).await.json();
        assert_eq!((&put["status"], &put["body"]["stock"]), (&json!(200), &json!(9)));
        let deleted = app.delete(&at).header("prefer", "dry-run").await.json();
        assert_eq!(
            (&deleted["status"], &deleted["events"][0]["type"]),
            (&json!(204), &json!("products.deleted"))
        );
        assert_eq!(app.get(&at).await.json(), lamp, "all as it was");
        assert_eq!(app.events().await.len(), before);
    })
    .await;
}

#[tokio::test]
async fn dry_run_of_a_creating_put_creates_nothing() {
    on_every_storage(|app| async move {
        let body = json!({"title": "A", "region": "north"});
        let put = app.put("/categories/a").header("prefer", "dry-run").json(body).await;
        let result = put.json();
        assert_eq!(
            (&result["status"], &result["events"][0]["type"]),
            (&json!(201), &json!("categories.created")),
            "{put}"
        );
        assert_eq!(app.get("/categories/a").await.status(), 404);
    })
    .await;
}

#[tokio::test]
async fn dry_run_fails_like_the_real_request() {
    on_every_storage(|app| async move {
        let lamp = create(&app, "lamp", json!({})).await;
        let post = async |body| app.post("/products").header("prefer", "dry-run").json(body).await;
        let invalid = post(product("", json!({}))).await;
        assert_eq!(
            (invalid.status(), faults(&invalid.json())),
            (422, vec![("/name", "length")]),
            "{invalid}"
        );
        let clash = post(product("lamp", json!({}))).await;
        assert_eq!((clash.status(), clash.json()["code"].clone()), (409, json!("unique")), "{clash}");
        let stale = app.patch(&path(&lamp)).header("prefer", "dry-run").header("if-match", "\"9\"");
        assert_eq!(stale.json(json!({"stock": 2})).await.status(), 412);
        let denied = app.delete("/notes/1").header("prefer", "dry-run").await;
        assert_eq!(denied.status(), 401, "permissions come first");
    })
    .await;
}

#[tokio::test]
async fn dry_run_runs_before_hooks_and_enlisted_changes_but_no_after_hooks() {
    for place in TestStorage::all().await {
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = ran.clone();
        type Item = serde_json::Map<String, serde_json::Value>;
        let notes = |name: &str| {
            define_dynamic_resource(name, model(&["code", "body"]))
                .adapter(place.table(name))
                .id_field("code")
                .permissions(
                    Permissions::read(if name == "hidden" { role("x") } else { anyone() }).write(signed_in()),
                )
        };
        let first = notes("notes")
            .before([Operation::Create], |note: &mut Item, change: &mut resourceful::Change| {
                note.insert("body".into(), json!(format!("tried: {}", change.is_dry_run())));
                change.create("copies", json!({"code": "c", "body": "b"}));
                change.create("hidden", json!({"code": "secret", "body": "b"}));
                Ok(())
            })
            .after([Operation::Create], move |_: Item, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Ok(()))
            });
        let app = create_app(AppPreset::Testing)
            .authenticator(BearerTokens::new().token("ada", Actor::user("ada")))
            .resource(first.build().unwrap())
            .resource(notes("copies").build().unwrap())
            .resource(notes("hidden").build().unwrap());
        let app = TestApp::build(app).await.unwrap();
        let tried = app.post("/notes").bearer("ada").header("prefer", "dry-run");
        let tried = tried.json(json!({"code": "a", "body": "x"})).await.json();
        assert_eq!(tried["body"]["body"], "tried: true");
        let types: Vec<_> = tried["events"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
        assert_eq!(types, ["notes.created", "copies.created"], "and none of what the caller may not see");
        assert_eq!((app.get("/copies/c").await.status(), ran.load(Ordering::SeqCst)), (404, 0));
        let real = app.post("/notes").bearer("ada").json(json!({"code": "a", "body": "x"})).await;
        assert_eq!((real.json()["body"].clone(), ran.load(Ordering::SeqCst)), (json!("tried: false"), 1));
    }
}

#[tokio::test]
async fn misspelled_dry_run_preference_is_400_and_changes_nothing() {
    for place in TestStorage::all().await {
        let things = define_dynamic_resource("things", model(&["code", "name"]))
            .adapter(place.table("things"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .preset(bulk())
            .build()
            .unwrap();
        let app = TestApp::build(create_app(AppPreset::Testing).resource(things).batch(5)).await.unwrap();
        let thing = json!({"code": "a", "name": "n"});
        assert_eq!(app.post("/things").json(thing.clone()).await.status(), 201);
        let new = json!({"code": "b", "name": "n"});
        let batch = json!({"operation": "create", "resource": "things", "body": new});
        for prefer in [
            "dry-run=true",
            "dry_run",
            "dryrun",
            "Dry-Run=1",
            "return=minimal, dry_run=true",
            "dry-run=\"yes\"",
        ] {
            for (method, path, body) in [
                ("POST", "/things", new.clone()),
                ("PATCH", "/things/a", json!({"name": "x"})),
                ("PUT", "/things/a", json!({"name": "x"})),
                ("DELETE", "/things/a", Json::Null),
                ("POST", "/things/bulk", json!({"items": [new]})),
                ("DELETE", "/things/bulk", json!({"ids": ["a"]})),
                ("POST", "/batch", json!({"operations": [batch]})),
            ] {
                let request = app.request(method, path).header("prefer", prefer);
                let refused = if body.is_null() { request.await } else { request.json(body).await };
                assert_eq!(refused.status(), 400, "{method} {path} {prefer}: {refused}");
                assert_eq!(refused.json()["errors"][0]["header"], "Prefer", "{refused}");
            }
        }
        assert_eq!(app.get("/things").await.items(), [thing], "{}", place.name);
        // What is understood and what is unknown pass as ever.
        for prefer in ["dry-run", "Dry-Run", "dry-run; note=x", "dry-run=\"\"", "respond-async"] {
            let tried = app.patch("/things/a").header("prefer", prefer).json(json!({"name": "n"})).await;
            assert_eq!(tried.status(), 200, "{prefer}: {tried}");
        }
    }
}
