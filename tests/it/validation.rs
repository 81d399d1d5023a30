//! Validation: the schema and the validator, together, on every write.

use serde_json::json;

use crate::support::{create, faults, on_every_storage, path, product};

#[tokio::test]
async fn schema_and_validator_faults_are_reported_together() {
    on_every_storage(|app| async move {
        let members = json!({"stock": 1001, "tags": ["ok"], "dimensions":
            {"width": 0, "height": 1, "depth": 3, "labels": [{"contact": "a@b.example"}, {"contact": "nobody"}]}});
        let expected = [
            ("/dimensions/depth", "even"),
            ("/dimensions/labels/1/contact", "format"),
            ("/dimensions/width", "range"),
            ("/stock", "range"),
        ];
        let before = create(&app, "lamp", json!({})).await;
        let body = product("chair", members.clone());
        let mut whole = product("lamp", members.clone());
        whole["sku"] = json!("sku-lamp");
        for (method, target, body) in
            [("POST", "/products".to_owned(), body), ("PUT", path(&before), whole), ("PATCH", path(&before), members)]
        {
            let refused = app.request(method, &target).json(body).await;
            assert_eq!(refused.status(), 422, "{method}: {refused}");
            assert_eq!(faults(&refused.json()), expected, "{method}");
        }
        assert_eq!(app.get(&path(&before)).await.json(), before);
        assert_eq!(app.get("/products").await.items().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn unknown_members_of_nested_objects_are_refused_too() {
    on_every_storage(|app| async move {
        let members = json!({"dimensions": {"width": 1, "height": 1, "colour": 1, "labels": [{"contact": "a@b.example", "x": 1}]}});
        let refused = app.post("/products").json(product("lamp", members)).await;
        assert_eq!(
            faults(&refused.json()),
            [("/dimensions/colour", "unknown"), ("/dimensions/labels/0/x", "unknown")]
        );
    })
    .await;
}

#[tokio::test]
async fn values_that_cannot_be_stored_are_refused_with_a_pointer() {
    on_every_storage(|app| async move {
        for (members, pointer) in [
            (json!({"price_cents": 9_223_372_036_854_775_808_u64}), "/price_cents"),
            (json!({"price_cents": 1e300}), "/price_cents"),
            (json!({"price_cents": 1.5}), "/price_cents"),
            (json!({"stock": -1}), "/stock"),
            (json!({"name": "a\u{0}b"}), "/name"),
            (json!({"tags": ["ok", "a\u{0}"]}), "/tags/1"),
            (json!({"tags": [1]}), "/tags/0"),
            (json!({"tags": [null]}), "/tags/0"),
            (json!({"released": "2024-02-30"}), "/released"),
            (json!({"released": "yesterday"}), "/released"),
            (json!({"weight": "heavy"}), "/weight"),
            (json!({"name": ""}), "/name"),
            (json!({"name": "x".repeat(121)}), "/name"),
            (json!({"in_stock": null}), "/in_stock"),
            (json!({"in_stock": "true"}), "/in_stock"),
        ] {
            let refused = app.post("/products").json(product("lamp", members.clone())).await;
            assert_eq!(refused.status(), 422, "{members}: {refused}");
            assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{members}");
            assert_eq!(refused.json()["errors"].as_array().unwrap().len(), 1, "{members}: {refused}");
        }
        let missing = app.post("/products").json(json!({})).await;
        let missing = missing.json();
        let missing: Vec<_> = faults(&missing).into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(
            missing,
            [
                "/in_stock",
                "/name",
                "/price_cents",
                "/secret",
                "/sku",
                "/status",
                "/stock",
                "/tags",
                "/weight"
            ]
        );
        assert_eq!(app.get("/products").await.items().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn lengths_are_counted_in_characters() {
    on_every_storage(|app| async move {
        let fits = create(&app, "x", json!({"name": "🦀".repeat(120)})).await;
        assert_eq!(fits["name"].as_str().unwrap().chars().count(), 120);
    })
    .await;
}
