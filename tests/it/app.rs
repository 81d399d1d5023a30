//! The application: what surrounds every request, and its life.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use crate::support::{TestStorage, builder, create, shop};

#[tokio::test]
async fn two_apps_in_one_process_are_isolated() {
    let (one, other) = (shop(&TestStorage::memory()).await, shop(&TestStorage::memory()).await);
    create(&one, "lamp", json!({})).await;
    assert_eq!(one.get("/products").await.items().len(), 1);
    assert_eq!(other.get("/products").await.items().len(), 0);
}

#[tokio::test]
async fn response_links_include_prefix_and_nesting_path() {
    let place = TestStorage::memory();
    let app = builder(&place).prefix("/v1").build().await.unwrap();
    let test = TestApp::of(app.clone());
    let created = test.put("/v1/categories/a").json(json!({"title": "t"})).await;
    assert_eq!(created.header("location"), Some("/v1/categories/a"), "{created}");
    assert_eq!(test.get("/categories/a").await.status(), 404);

    let nested = Router::new().nest("/api", app.router());
    let send = |method: &'static str, path: &'static str, body: &'static str| {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body))
            .unwrap();
        tower::ServiceExt::oneshot(nested.clone(), request)
    };
    let created = send("POST", "/api/v1/categories", r#"{"code": "b", "title": "t"}"#).await.unwrap();
    assert_eq!(created.headers()["location"], "/api/v1/categories/b");
    let put = send("PUT", "/api/v1/categories/c", r#"{"title": "t"}"#).await.unwrap();
    assert_eq!(put.headers()["location"], "/api/v1/categories/c");
    let list = send("GET", "/api/v1/categories?limit=1", "").await.unwrap();
    assert!(list.headers()["link"].to_str().unwrap().starts_with("</api/v1/categories?limit=1&after="));
}

#[tokio::test]
async fn merged_routes_get_request_ids_and_panic_handling() {
    let router = Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/panic", get(|| async { panic!("on purpose") as &'static str }));
    let app = TestApp::build(builder(&TestStorage::memory()).merge(router)).await.unwrap();
    let hello = app.get("/hello").await;
    assert_eq!((hello.status(), hello.text()), (200, "hello"));
    assert!(hello.header("x-request-id").is_some());
    let panicked = app.get("/panic").await;
    assert_eq!((panicked.status(), panicked.json()["code"].clone()), (500, json!("internal")));
    assert!(!panicked.text().contains("on purpose"), "{panicked}");
    assert_eq!(app.get("/hello").await.status(), 200);
}

#[tokio::test]
async fn merged_route_may_extend_a_resource_path_but_not_replace_it() {
    let below = Router::new().route("/products/export", get(|| async { "name;price" }));
    let app = TestApp::build(builder(&TestStorage::memory()).merge(below)).await.unwrap();
    assert_eq!(app.get("/products/export").await.text(), "name;price");
    assert_eq!(app.get("/products/0").await.json()["code"], "not-found");
    let wrong = app.delete("/products/export").await;
    assert_eq!((wrong.status(), wrong.json()["code"].clone()), (405, json!("method-not-allowed")));
    let created = create(&app, "lamp", json!({})).await;
    assert_eq!(
        app.get(&format!("/products/{}", created["id"].as_str().unwrap())).await.json()["name"],
        "lamp"
    );

    for path in ["/products", "/products/{key}", "/healthz", "/openapi.json"] {
        let taken = Router::new().route(path, get(|| async { "mine" }));
        let refused = builder(&TestStorage::memory()).merge(taken).build().await.unwrap_err().to_string();
        assert!(refused.contains("merged router") && refused.contains("another path"), "{refused}");
    }
}

#[tokio::test]
async fn a_request_past_its_deadline_is_504() {
    let router =
        Router::new().route("/never", get(|| async { std::future::pending::<&'static str>().await }));
    let app = builder(&TestStorage::memory()).merge(router).deadline(Duration::from_millis(20));
    let late = TestApp::build(app).await.unwrap().get("/never").await;
    assert_eq!((late.status(), late.json()["code"].clone()), (504, json!("deadline-exceeded")));
    assert!(late.header("x-request-id").is_some());
}

#[tokio::test]
async fn requests_over_the_concurrency_limit_are_503_except_health_checks() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, go) = (entered.clone(), leave.clone());
    let router = Router::new().route(
        "/slow",
        get(move || {
            let (inside, go) = (inside.clone(), go.clone());
            async move {
                inside.notify_one();
                go.notified().await;
                "done"
            }
        }),
    );
    let app = TestApp::build(builder(&TestStorage::memory()).merge(router).concurrency(1)).await.unwrap();
    let slow = tokio::spawn({
        let request = app.get("/slow");
        async move { request.await }
    });
    entered.notified().await;
    let refused = app.get("/products").await;
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("1")), "{refused}");
    assert_eq!(refused.json()["code"], "overloaded");
    assert_eq!(app.get("/healthz").await.status(), 200);
    assert_eq!(app.get("/readyz").await.status(), 200);
    leave.notify_one();
    assert_eq!(slow.await.unwrap().text(), "done");
    assert_eq!(app.get("/products").await.status(), 200);
    // A caller that went away gives its place back.
    let gone = tokio::spawn({
        let request = app.get("/slow");
        async move { request.await }
    });
    entered.notified().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!(app.get("/products").await.status(), 200);
}

#[tokio::test]
async fn responses_carry_security_headers() {
    let app = shop(&TestStorage::memory()).await;
    for path in ["/products", "/nope"] {
        let answer = app.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"));
        assert_eq!(answer.header("strict-transport-security"), None);
    }
}

#[tokio::test]
async fn cors_is_disabled_in_production_by_default() {
    let secret = "0123456789abcdef0123456789abcdef";
    let place = TestStorage::memory();
    let declare =
        || create_app(AppPreset::Production).secret(secret).resource(crate::support::categories(&place));
    let without = define_dynamic_resource("products", json!({"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}, "category_code": {"type": "string"}}}))
        .adapter(place.table("products"))
        .permissions(Permissions::all(anyone()))
        .build()
        .unwrap();
    let closed = TestApp::build(declare().resource(without.clone())).await.unwrap();
    let answer = closed.get("/categories").header("origin", "https://shop.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"));
    assert_eq!(closed.get("/docs").await.status(), 404);
    let app = declare().resource(without).cors_origins(["https://shop.example"]);
    let open = TestApp::build(app).await.unwrap();
    for (origin, allowed) in [("https://shop.example", true), ("https://evil.example", false)] {
        let answer = open.get("/categories").header("origin", origin).await;
        assert_eq!(answer.header("access-control-allow-origin").is_some(), allowed, "{origin}");
        let preflight = open
            .request("OPTIONS", "/categories/a")
            .header("origin", origin)
            .header("access-control-request-method", "PATCH")
            .await;
        assert_eq!(preflight.header("access-control-allow-origin").is_some(), allowed, "{origin}");
    }
}

#[tokio::test]
async fn responses_are_compressed_when_accepted() {
    let app = TestApp::build(builder(&TestStorage::memory()).compression(true)).await.unwrap();
    for name in ["a", "b", "c"] {
        create(&app, name, json!({"note": "long ".repeat(200)})).await;
    }
    let plain = app.get("/products").await;
    assert_eq!(plain.header("content-encoding"), None);
    let packed = app.get("/products").header("accept-encoding", "gzip").await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.bytes().len() < plain.bytes().len() / 2);
    assert!(
        packed
            .headers()
            .get_all("vary")
            .iter()
            .any(|vary| vary.to_str().unwrap().contains("accept-encoding"))
    );
}

#[tokio::test]
async fn shutdown_fails_readiness_and_finishes_running_requests() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, go) = (entered.clone(), leave.clone());
    let router = Router::new().route(
        "/slow",
        get(move || {
            let (inside, go) = (inside.clone(), go.clone());
            async move {
                inside.notify_one();
                go.notified().await;
                "done"
            }
        }),
    );
    let app = builder(&TestStorage::memory())
        .merge(router)
        .drain_delay(Duration::from_millis(200))
        .shutdown_grace(Duration::from_secs(30))
        .build()
        .await
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(app.serve_until(listener, async move { _ = stopped.await }));
    let fetch = |path: &'static str| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(fetch("/readyz").await.starts_with("HTTP/1.1 200"));
    let slow = tokio::spawn(fetch("/slow"));
    entered.notified().await;
    stop.send(()).unwrap();
    // Still accepting, and no longer ready.
    while fetch("/readyz").await.starts_with("HTTP/1.1 200") {}
    assert!(fetch("/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(fetch("/healthz").await.starts_with("HTTP/1.1 200"));
    leave.notify_one();
    assert!(slow.await.unwrap().ends_with("done"));
    server.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn shutdown_ends_after_the_grace_period_despite_hanging_requests() {
    let entered = Arc::new(Notify::new());
    let inside = entered.clone();
    let router = Router::new().route(
        "/never",
        get(move || {
            let inside = inside.clone();
            async move {
                inside.notify_one();
                std::future::pending::<&'static str>().await
            }
        }),
    );
    let app = builder(&TestStorage::memory())
        .merge(router)
        .shutdown_grace(Duration::from_millis(50))
        .build()
        .await
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(app.serve_until(listener, async move { _ = stopped.await }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    entered.notified().await;
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn load_is_atomic_and_validates_rows() {
    let app = shop(&TestStorage::memory()).await;
    let category = |code: &str| json!({"code": code, "title": "t", "region": null});
    let refused = app.app().load().rows("categories", [category("a"), category("")]).unwrap_err();
    assert!(refused.to_string().contains("row 1 of `categories`"), "{refused}");
    let clash = app.app().load().rows("categories", [category("a"), category("a")]).unwrap().commit().await;
    assert!(clash.is_err());
    assert_eq!(app.app().count("categories").await.unwrap(), 0);
    let loaded = app.app().load().rows("categories", [category("a"), category("b")]).unwrap().commit().await;
    assert_eq!((loaded.unwrap(), app.app().count("categories").await.unwrap()), (2, 2));
    let note = json!({"id": 7, "text": "seven"});
    app.app().load().rows("notes", [note]).unwrap().commit().await.unwrap();
    let next = app.post("/notes").bearer(crate::support::EDITOR).json(json!({"text": "eight"})).await;
    assert_eq!(next.json()["id"], 8);
}
