//! Problem details.

use serde_json::json;

use crate::support::{EDITOR, create, everywhere, path, product};

#[tokio::test]
async fn a_problem_has_every_member_of_the_contract() {
    everywhere(|app| async move {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let refused = app.get("/products/nope?x=1").header("traceparent", trace).await;
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        let problem = refused.json();
        assert_eq!(problem["type"], "https://docs.rs/resourceful/latest/resourceful/problems/invalid-query");
        assert_eq!((&problem["status"], &problem["code"]), (&json!(400), &json!("invalid-query")));
        assert_eq!(problem["instance"], "/products/nope");
        assert_eq!(problem["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(problem["title"].is_string() && problem["detail"].is_string());
    })
    .await;
}

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    everywhere(|app| async move {
        for path in ["/", "/nope", "/products/a/b", "/products/", "//"] {
            let refused = app.get(path).await;
            assert_eq!(
                (refused.status(), refused.header("content-type")),
                (404, Some("application/problem+json")),
                "{path}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_unique_clash_is_409_and_names_the_field() {
    everywhere(|app| async move {
        create(&app, "lamp", json!({})).await;
        let other = create(&app, "chair", json!({})).await;
        let clash = app.post("/products").json(product("lamp", json!({}))).await;
        assert_eq!((clash.status(), clash.json()["code"].clone()), (409, json!("unique")), "{clash}");
        assert_eq!(clash.json()["errors"][0]["pointer"], "/sku");
        assert_eq!(app.get(&path(&other)).await.json(), other);
        app.post("/categories").json(json!({"code": "a", "title": "t"})).await;
        let id = app.post("/categories").json(json!({"code": "a", "title": "t"})).await;
        assert_eq!((id.status(), &id.json()["errors"][0]["pointer"]), (409, &json!("/code")));
    })
    .await;
}

#[tokio::test]
async fn a_reference_to_nothing_is_409_and_so_is_deleting_what_is_referred_to() {
    everywhere(|app| async move {
        let dangling = app.post("/products").json(product("lamp", json!({"category_code": "nope"}))).await;
        assert_eq!(
            (dangling.status(), dangling.json()["code"].clone()),
            (409, json!("foreign-key")),
            "{dangling}"
        );
        assert_eq!(dangling.json()["errors"][0]["pointer"], "/category_code");
        app.post("/categories").json(json!({"code": "a", "title": "t"})).await;
        let referring = create(&app, "lamp", json!({"category_code": "a"})).await;
        let moved = app.patch(&path(&referring)).json(json!({"category_code": "nope"})).await;
        assert_eq!(moved.status(), 409, "{moved}");
        assert_eq!(app.delete("/categories/a").await.status(), 409);
        assert_eq!(app.get("/categories/a").await.status(), 200);
        app.delete(&path(&referring)).await;
        assert_eq!(app.delete("/categories/a").await.status(), 204);
    })
    .await;
}

#[tokio::test]
async fn a_request_id_is_echoed_where_it_is_safe_and_minted_where_not() {
    everywhere(|app| async move {
        for (given, kept) in [
            ("abc-123", true),
            (&"x".repeat(128), true),
            (&"x".repeat(129), false),
            ("a b", false),
            ("<script>", false),
        ] {
            for path in ["/products", "/nope", "/products/x?y=1"] {
                let answer = app.get(path).header("x-request-id", given).await;
                let id = answer.header("x-request-id").unwrap();
                assert_eq!(id == given, kept, "{given}");
                assert!(!id.is_empty());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn answers_of_each_kind_are_as_pinned() {
    let place = crate::support::Place::memory();
    let app = crate::support::shop(&place).await;
    app.post("/categories").json(json!({"code": "lights", "title": "Lights"})).await;
    let note = app.post("/notes").bearer(EDITOR).json(json!({"text": "hello"})).await;
    insta::assert_snapshot!("created", note);
    insta::assert_snapshot!("item", app.get("/categories/lights").await);
    insta::assert_snapshot!(
        "list",
        app.get("/categories?fields=code,title").header("prefer", "count=exact").await
    );
    insta::assert_snapshot!(
        "not_modified",
        app.get("/notes/1").bearer(EDITOR).header("if-none-match", "\"1\"").await
    );
    insta::assert_snapshot!(
        "validation",
        app.post("/categories").json(json!({"code": "", "colour": 1})).await
    );
    insta::assert_snapshot!("unauthenticated", app.get("/notes").await);
    insta::assert_snapshot!("forbidden", app.delete("/notes/1").bearer(EDITOR).await);
    insta::assert_snapshot!("not_found", app.get("/categories/nope").await);
    insta::assert_snapshot!("method_not_allowed", app.request("TRACE", "/categories").await);
    insta::assert_snapshot!("invalid_query", app.get("/categories?titel=x&limit=0").await);
    insta::assert_snapshot!(
        "conflict",
        app.post("/categories").json(json!({"code": "lights", "title": "x"})).await
    );
    insta::assert_snapshot!(
        "precondition",
        app.delete("/categories/lights").header("if-match", "\"9\"").await
    );
}
