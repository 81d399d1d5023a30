//! Resources and bodies.

use serde_json::json;

use crate::support::{EDITOR, create, faults, on_every_storage, path, product};

#[tokio::test]
async fn an_item_is_a_bare_object_and_a_list_has_items_and_a_page() {
    on_every_storage(|app| async move {
        let created = create(&app, "lamp", json!({})).await;
        let item = app.get(&path(&created)).await;
        assert_eq!(item.json(), created);
        let list = app.get("/products").await;
        assert_eq!(
            list.json(),
            json!({"items": [created], "page": {"next": null, "prev": null, "limit": 3}})
        );
    })
    .await;
}

#[tokio::test]
async fn ids_of_every_kind_work_through_every_route() {
    on_every_storage(|app| async move {
        // By the server.
        let product = create(&app, "lamp", json!({})).await;
        let id = product["id"].as_str().unwrap();
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
        // By the database.
        let note = app.post("/notes").bearer(EDITOR).json(json!({"text": "a"})).await;
        assert_eq!(note.json()["id"], 1, "{note}");
        assert_eq!(note.header("location"), Some("/notes/1"));
        let second = app.post("/notes").bearer(EDITOR).json(json!({"text": "b"})).await;
        assert_eq!(second.json()["id"], 2);
        // By the client, and not only letters.
        let code = "a/b c%ü?#";
        let category = app.post("/categories").json(json!({"code": code, "title": "t"})).await;
        assert_eq!(category.status(), 201, "{category}");
        let location = category.header("location").unwrap().to_owned();
        assert_eq!(location, "/categories/a%2Fb%20c%25%C3%BC%3F%23");
        for (location, bearer, patch) in [
            (path(&product), EDITOR, json!({"name": "other"})),
            ("/notes/1".to_owned(), EDITOR, json!({"text": "other"})),
            (location, EDITOR, json!({"title": "other"})),
        ] {
            let item = app.get(&location).bearer(bearer).await;
            assert_eq!(item.status(), 200, "{location}: {item}");
            let tag = item.header("etag").unwrap().to_owned();
            let patched =
                app.patch(&location).bearer(bearer).header("if-match", &tag).json(patch.clone()).await;
            assert_eq!(patched.status(), 200, "{location}: {patched}");
            let read = app.get(&location).bearer(bearer).await;
            assert_eq!(read.json(), patched.json());
            assert_eq!(read.header("etag"), patched.header("etag"));
            assert_ne!(read.header("etag"), Some(tag.as_str()));
        }
    })
    .await;
}

#[tokio::test]
async fn malformed_id_gets_the_same_response_as_an_absent_one() {
    on_every_storage(|app| async move {
        let absent = "/products/0198c0de-0000-7000-8000-000000000000";
        for malformed in
            ["/products/lamp", "/products/1", "/products/%00", "/products/%FF", "/products/query"]
        {
            for method in ["GET", "PATCH", "DELETE", "PUT"] {
                if malformed.ends_with("/query") {
                    // That path is the query's own; see the methods.
                    continue;
                }
                let body = product("lamp", json!({}));
                let send = |path: &str| {
                    let request = app.request(method, path);
                    if matches!(method, "PATCH" | "PUT") { request.json(body.clone()) } else { request }
                };
                let (mut expected, mut found) = (send(absent).await.json(), send(malformed).await.json());
                assert_eq!(found["status"], 404, "{method} {malformed}: {found}");
                for body in [&mut expected, &mut found] {
                    body["instance"].take();
                    body["trace_id"].take();
                }
                assert_eq!(found, expected);
            }
        }
        let tokened = app.get("/notes/one").bearer(EDITOR).await;
        assert_eq!(tokened.status(), 404, "{tokened}");
        let huge = app.get("/notes/99999999999999999999").bearer(EDITOR).await;
        assert_eq!(huge.status(), 404, "{huge}");
    })
    .await;
}

#[tokio::test]
async fn every_fault_of_a_body_is_reported_at_once_with_its_pointer() {
    on_every_storage(|app| async move {
        let body = product(
            "lamp",
            json!({"colour": "red", "id": "0198c0de-0000-7000-8000-000000000000", "version": 9, "name": 5,
                   "price_cents": -1, "status": "sold", "created_at": "2026-01-01T00:00:00Z"}),
        );
        let refused = app.post("/products").json(body).await;
        assert_eq!(refused.status(), 422, "{refused}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        let problem = refused.json();
        assert_eq!(
            faults(&problem),
            [
                ("/colour", "unknown"),
                ("/created_at", "read-only"),
                ("/id", "read-only"),
                ("/name", "type"),
                ("/price_cents", "range"),
                ("/status", "enum"),
                ("/version", "read-only"),
            ]
        );
        assert_eq!(app.get("/products").await.items().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_write_only_field_is_stored_and_never_shown() {
    on_every_storage(|app| async move {
        let created = create(&app, "lamp", json!({"secret": "hush"})).await;
        assert!(created.get("secret").is_none());
        let read = app.get(&path(&created)).await;
        assert!(!read.text().contains("hush") && !read.text().contains("secret"), "{read}");
        for query in ["fields=secret", "sort=secret", "secret=hush", "secret[contains]=h"] {
            let hidden =
                app.get(&format!("/products?{}", query.replace('[', "%5B").replace(']', "%5D"))).await;
            let absent = app
                .get(&format!(
                    "/products?{}",
                    query.replace("secret", "absent").replace('[', "%5B").replace(']', "%5D")
                ))
                .await;
            assert_eq!(hidden.status(), 400, "{query}");
            let words = |response: &resourceful::testing::TestResponse| {
                response.json()["errors"].to_string().replace("secret", "absent")
            };
            assert_eq!(words(&hidden), words(&absent));
        }
        // A patch of something else keeps it; the model's own check needs it.
        let patched = app.patch(&path(&created)).json(json!({"price_cents": 5})).await;
        assert_eq!(patched.status(), 200, "{patched}");
    })
    .await;
}

#[tokio::test]
async fn non_json_bodies_and_media_types_are_rejected() {
    on_every_storage(|app| async move {
        for malformed in
            ["", "{", "{\"name\": }", "{} {}", "nope", "{\"name\": \"\u{1}\"}", "{\"a\":1,\"a\":2}"]
        {
            let refused = app.post("/products").body(malformed).await;
            assert_eq!(
                (refused.status(), refused.json()["code"].clone()),
                (400, json!("invalid-json")),
                "{malformed}"
            );
        }
        let invalid = app.post("/products").body(vec![b'"', 0xff, b'"']).await;
        assert_eq!(invalid.status(), 400);
        let deep = app.post("/products").body("[".repeat(100_000)).await;
        assert_eq!(deep.status(), 400);
        for wrong in ["[]", "1", "null", "\"text\""] {
            assert_eq!(app.post("/products").body(wrong).await.status(), 422, "{wrong}");
        }
        for (media_type, status) in [
            ("text/plain", 415),
            ("application/xml", 415),
            ("application/json; charset=latin1", 415),
            ("application/json; charset=UTF-8", 201),
            ("APPLICATION/JSON", 201),
        ] {
            let body = product(media_type, json!({"sku": media_type.len().to_string() + &media_type[..4]}));
            let answer = app.post("/products").header("content-type", media_type).json(body).await;
            assert_eq!(answer.status(), status, "{media_type}: {answer}");
            if status == 415 {
                assert_eq!(answer.header("accept-post"), Some("application/json"));
            }
        }
        let created = create(&app, "lamp", json!({})).await;
        let patched = app.patch(&path(&created)).header("content-type", "text/plain").json(json!({})).await;
        assert_eq!(patched.status(), 415);
        assert_eq!(patched.header("accept-patch"), Some("application/merge-patch+json, application/json"));
        let either =
            app.patch(&path(&created)).header("content-type", "application/json").json(json!({})).await;
        assert_eq!(either.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413() {
    on_every_storage(|app| async move {
        let refused = app.post("/products").body(vec![b' '; (1 << 20) + 1]).await;
        assert_eq!((refused.status(), refused.json()["code"].clone()), (413, json!("payload-too-large")));
        let announced = app.post("/products").header("content-length", "1048577").body("{}").await;
        assert_eq!(announced.status(), 413);
    })
    .await;
}

#[tokio::test]
async fn values_round_trip_unchanged() {
    on_every_storage(|app| async move {
        let name = "Żółć 🦀 \"quoted\" \\ % _ ' \u{7f} 名前";
        let members = json!({
            "name": name, "price_cents": 9_007_199_254_740_993_i64, "tags": ["a", "b,c", "", "🦀"],
            "rating": 0.1, "weight": "10.250", "released": "2024-02-29", "note": "line\nbreak\ttab",
            "dimensions": {"width": 3, "height": 4, "depth": 2, "labels": [{"contact": "a@b.example"}]},
        });
        let created = create(&app, "x", members).await;
        let read = app.get(&path(&created)).await.json();
        assert_eq!(read["name"], name);
        assert_eq!(read["price_cents"], 9_007_199_254_740_993_i64);
        assert_eq!(read["tags"], json!(["a", "b,c", "", "🦀"]));
        assert_eq!(read["rating"], json!(0.1));
        assert_eq!(read["weight"], "10.25");
        assert_eq!(read["released"], "2024-02-29");
        assert_eq!(read["note"], "line\nbreak\ttab");
        assert_eq!(
            read["dimensions"],
            json!({"width": 3, "height": 4, "depth": 2, "labels": [{"contact": "a@b.example"}]})
        );
        assert_eq!(read["category_code"], json!(null));
        assert_eq!(read["version"], 1);
        let times = (read["created_at"].as_str().unwrap(), read["updated_at"].as_str().unwrap());
        assert_eq!(times.0, times.1);
        assert!(times.0.ends_with('Z'), "{times:?}");
        assert_eq!(read, created);
    })
    .await;
}

#[tokio::test]
async fn text_that_looks_like_a_number_stays_text() {
    on_every_storage(|app| async move {
        create(&app, "00123", json!({})).await;
        create(&app, "123", json!({})).await;
        assert_eq!(crate::support::names(&app, "/products?name=00123").await, ["00123"]);
        assert_eq!(crate::support::names(&app, "/products?name=123").await, ["123"]);
    })
    .await;
}
