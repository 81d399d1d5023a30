//! Requests and responses as proxies and HTTP clients change them.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use resourceful::access::{MemorySessions, Sessions};
use resourceful::app::ConnectionLimits;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::{Value, json};

use crate::policies::model;
use crate::support::{EDITOR, TestStorage, builder, create, faults, on_every_storage, path, product};

const CODINGS: [&str; 2] = ["gzip", "br"];

async fn app_with_compression() -> TestApp {
    TestApp::build(builder(&TestStorage::memory()).compression(true)).await.unwrap()
}

fn vary(answer: &TestResponse) -> Vec<String> {
    let lines = answer.headers().get_all("vary").iter();
    let names = lines.flat_map(|line| line.to_str().unwrap().split(','));
    let mut names: Vec<_> = names.map(|name| name.trim().to_ascii_lowercase()).collect();
    names.sort();
    names
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn each_content_coding_has_its_own_strong_etag() {
    let app = app_with_compression().await;
    let item = path(&create(&app, "lamp", json!({"note": "long ".repeat(100)})).await);
    let plain = app.get(&item).await;
    assert_eq!((plain.header("etag"), plain.header("content-encoding")), (Some("\"1\""), None));
    assert!(vary(&plain).contains(&"accept-encoding".to_owned()), "{plain}");
    for coding in CODINGS {
        let tag = format!("\"1-{coding}\"");
        let coded = app.get(&item).header("accept-encoding", coding).await;
        assert_eq!(
            (coded.header("content-encoding"), coded.header("etag")),
            (Some(coding), Some(tag.as_str()))
        );
        assert_eq!(vary(&coded), vary(&plain));
        let head = app.request("HEAD", &item).header("accept-encoding", coding).await;
        for name in ["content-encoding", "etag", "content-length", "content-type", "cache-control"] {
            assert_eq!(head.header(name), coded.header(name), "{name} of HEAD");
        }
        assert_eq!((vary(&head), head.text()), (vary(&coded), ""));
        for known in [tag.clone(), format!("W/{tag}"), format!("\"0\", {tag}"), "*".to_owned()] {
            let request = app.get(&item).header("accept-encoding", coding).header("if-none-match", &known);
            let unchanged = request.await;
            assert_eq!((unchanged.status(), vary(&unchanged)), (304, vary(&coded)), "{known}");
            let expected = if known == "*" { "\"1\"" } else { tag.as_str() };
            assert_eq!(unchanged.header("etag"), Some(expected), "{known}");
        }
        let plain_again = app.get(&item).header("if-none-match", &tag).await;
        assert_eq!(plain_again.status(), 200, "the plain representation has another tag");
        let other =
            app.get(&item).header("accept-encoding", coding).header("if-none-match", "\"2-gzip\"").await;
        assert_eq!(other.status(), 200);
    }
    let head = app.request("HEAD", &item).await;
    assert_eq!(head.header("content-length"), Some(plain.bytes().len().to_string().as_str()));
    for target in ["/openapi.json", "/docs"] {
        let (get, head) = (app.get(target).await, app.request("HEAD", target).await);
        assert_eq!((head.status(), head.text()), (get.status(), ""));
        assert_eq!(head.header("content-length"), Some(get.bytes().len().to_string().as_str()), "{target}");
    }
    // A list has a weak tag, which stands for every coding.
    let list = app.get("/products").header("accept-encoding", "gzip").await;
    let weak = list.header("etag").unwrap().to_owned();
    assert_eq!(app.get("/products").await.header("etag"), Some(weak.as_str()));
    let unchanged =
        app.get("/products").header("accept-encoding", "gzip").header("if-none-match", &weak).await;
    assert_eq!((unchanged.status(), vary(&unchanged)), (304, vary(&list)));
}

#[tokio::test]
async fn etags_altered_by_proxies_are_recognized_or_rejected() {
    on_every_storage(|app| async move {
        let item = path(&create(&app, "lamp", json!({})).await);
        let patch =
            |tag: &str, name: &str| app.patch(&item).header("if-match", tag).json(json!({"name": name}));
        for (version, coding) in ["gzip", "br", "zstd", "deflate"].into_iter().enumerate() {
            let changed = patch(&format!("\"{}-{coding}\"", version + 1), coding).await;
            assert_eq!(changed.status(), 200, "{changed}");
        }
        for (tag, words) in [
            ("W/\"5\"", "weak"),
            ("W/\"5-gzip\"", "weak"),
            ("\"x\"", "of no version"),
            ("\"1\"", "has changed since"),
            ("\"1-gzip\"", "has changed since"),
            ("\"4\", W/\"5\"", "has changed since"),
        ] {
            let refused = patch(tag, "other").await;
            assert_eq!(
                (refused.status(), refused.json()["code"].clone()),
                (412, json!("precondition-failed"))
            );
            let detail = refused.json()["errors"][0]["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(words), "{tag}: {detail}");
        }
        for malformed in ["5", "5, \"5\"", "\"5", "W/5", "w/\"5\"", "", "\"5\" \"6\""] {
            let refused = patch(malformed, "other").await;
            // In bulk it is a member of the body.
            let fault = &refused.json()["errors"][0];
            let is_named = match refused.status() {
                400 => fault["header"] == "If-Match",
                422 => fault["pointer"].as_str().is_some_and(|pointer| pointer.ends_with("/if_match")),
                _ => false,
            };
            assert!(is_named, "{malformed}: {refused}");
        }
        let body =
            json!({"items": [{"id": item.rsplit('/').next(), "if_match": "W/\"5\"", "name": "other"}]});
        let refused = app.patch("/products/bulk").json(body).await;
        assert_eq!(refused.status(), 412, "{refused}");
        assert!(refused.text().contains("weak"), "{refused}");
        assert_eq!(app.get(&item).await.json()["version"], 5);
    })
    .await;
}

#[tokio::test]
async fn if_match_is_rejected_on_bulk_requests() {
    on_every_storage(|app| async move {
        let item = create(&app, "lamp", json!({})).await;
        let bodies = [
            ("POST", json!({"items": [product("b", json!({}))]})),
            ("PATCH", json!({"items": [{"id": item["id"], "name": "b"}]})),
            ("DELETE", json!({"ids": [item["id"]]})),
        ];
        for (method, body) in bodies {
            let refused = app.request(method, "/products/bulk").header("if-match", "\"1\"").json(body).await;
            assert_eq!(
                (refused.status(), refused.json()["errors"][0]["header"].clone()),
                (400, json!("If-Match")),
                "{method}: {refused}"
            );
        }
        assert_eq!(app.get("/products").await.items(), [item]);
    })
    .await;
}

#[tokio::test]
async fn encoded_body_is_decoded_within_the_size_limit() {
    on_every_storage(|app| async move {
        let body = product("lamp", json!({})).to_string();
        let post = |target: &str, coding: &str, body: Vec<u8>| {
            let request = app.post(target).header("content-type", "application/json");
            request.header("content-encoding", coding).body(body)
        };
        let created = post("/products", "gzip", gzip(body.as_bytes())).await;
        assert_eq!(created.status(), 201, "{created}");
        assert_eq!(
            post("/products", "identity", product("b", json!({})).to_string().into()).await.status(),
            201
        );
        assert_eq!(
            post("/products", "X-GZIP", gzip(product("c", json!({})).to_string().as_bytes())).await.status(),
            201
        );
        let query = json!({"filter": {"name": "lamp"}}).to_string();
        assert_eq!(post("/products/query", "gzip", gzip(query.as_bytes())).await.items().len(), 1);
        for (coding, body, status, code) in [
            ("gzip", body.clone().into_bytes(), 400, "invalid-content-encoding"),
            ("br", vec![0xff; 20], 400, "invalid-content-encoding"),
            // A window that RFC 7932 does not have.
            ("br", vec![0x11, 0x18, 0x03], 400, "invalid-content-encoding"),
            ("gzip", gzip(body.as_bytes())[..30].to_vec(), 400, "invalid-content-encoding"),
            ("gzip", gzip(&vec![b' '; (1 << 20) + 1]), 413, "payload-too-large"),
            ("zstd", body.clone().into_bytes(), 415, "unsupported-content-encoding"),
            ("gzip, br", body.clone().into_bytes(), 415, "unsupported-content-encoding"),
        ] {
            let refused = post("/products", coding, body).await;
            assert_eq!(
                (refused.status(), refused.json()["code"].clone()),
                (status, json!(code)),
                "{coding}: {refused}"
            );
            let accepted = (status == 415).then_some("gzip, br");
            assert_eq!(refused.header("accept-encoding"), accepted, "{coding}");
        }
        assert_eq!(app.get("/products?limit=10").await.items().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn brotli_body_as_read_can_be_put_back_unchanged() {
    let app = app_with_compression().await;
    let item = path(&create(&app, "lamp", json!({"note": "long ".repeat(100)})).await);
    let coded = app.get(&item).header("accept-encoding", "br").await;
    let put = app.put(&item).header("content-type", "application/json").header("content-encoding", "br");
    let put = put.body(coded.bytes().to_vec()).await;
    assert_eq!((put.status(), put.header("etag")), (200, Some("\"1\"")), "{put}");
}

#[tokio::test]
async fn encoded_body_counts_by_its_decoded_size() {
    let limits = ConnectionLimits::new().max_body_bytes(64 << 10);
    let app = TestApp::build(builder(&TestStorage::memory()).connection_limits(limits)).await.unwrap();
    let post = |note: usize| {
        let body = product("lamp", json!({"note": "x".repeat(note)})).to_string();
        let post = app.post("/products").header("content-type", "application/json");
        post.header("content-encoding", "gzip").body(gzip(body.as_bytes()))
    };
    let refused = post(200_000).await;
    assert_eq!((refused.status(), refused.json()["code"].clone()), (503, json!("overloaded")), "{refused}");
    assert_eq!(post(20_000).await.status(), 201);
}

#[tokio::test]
async fn head_matches_get_beside_merged_routes() {
    let own = axum::Router::new().route(
        "/build",
        axum::routing::get(|headers: http::HeaderMap| async move {
            let known = headers
                .get_all("if-none-match")
                .iter()
                .any(|tags| tags.to_str().unwrap().contains("\"build-br\""));
            let status = if known { http::StatusCode::NOT_MODIFIED } else { http::StatusCode::OK };
            (status, [("etag", "\"build-br\"")], "short")
        }),
    );
    let app = TestApp::build(builder(&TestStorage::memory()).compression(true).merge(own)).await.unwrap();
    let item = path(&create(&app, "lamp", json!({"note": "long ".repeat(100)})).await);
    for accepted in ["gzip", "identity"] {
        let get = app.get(&item).header("accept-encoding", accepted).await;
        let head = app.request("HEAD", &item).header("accept-encoding", accepted).await;
        for name in ["content-encoding", "etag", "content-type"] {
            assert_eq!(head.header(name), get.header(name), "{name} with {accepted}");
        }
        let length = (accepted == "identity").then(|| get.bytes().len().to_string());
        assert_eq!(head.header("content-length"), length.as_deref(), "{accepted}");
    }
    let known =
        app.get("/build").header("accept-encoding", "gzip").header("if-none-match", "\"build-br\"").await;
    assert_eq!((known.status(), known.header("etag")), (304, Some("\"build-br\"")), "its own tag ends so");
}

#[tokio::test]
async fn unsupported_media_type_lists_accepted_types() {
    on_every_storage(|app| async move {
        let item = path(&create(&app, "lamp", json!({})).await);
        for (method, target, header, value) in [
            ("POST", "/products", "accept-post", "application/json"),
            ("POST", "/products/query", "accept-post", "application/json"),
            ("QUERY", "/products", "accept-query", "application/json"),
            ("PATCH", item.as_str(), "accept-patch", "application/merge-patch+json, application/json"),
            ("PUT", item.as_str(), "accept", "application/json"),
            ("POST", "/products/bulk", "accept-post", "application/json"),
            ("DELETE", "/products/bulk", "accept", "application/json"),
        ] {
            let refused = app.request(method, target).header("content-type", "text/csv").body("a;b").await;
            assert_eq!((refused.status(), refused.header(header)), (415, Some(value)), "{method} {target}");
        }
        let partial =
            app.put(&item).header("content-range", "bytes 0-1/10").json(product("b", json!({}))).await;
        assert_eq!(
            (partial.status(), partial.json()["errors"][0]["header"].clone()),
            (400, json!("Content-Range"))
        );
    })
    .await;
}

#[tokio::test]
async fn links_include_the_path_prefix_that_a_proxy_strips() {
    for (server, base) in
        [("https://shop.example/api", "/api"), ("https://shop.example/", ""), ("/shop/api/", "/shop/api")]
    {
        let storage = TestStorage::memory();
        let papers = define_dynamic_resource("papers", model(&["code"]))
            .adapter(storage.table("papers"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .preset(idempotency());
        let app = builder(&storage).prefix("/v1").server(server).batch(5).resource(papers.build().unwrap());
        let app = TestApp::build(app).await.unwrap();
        let created = app.post("/v1/categories").json(json!({"code": "a", "title": "t"})).await;
        assert_eq!(created.header("location"), Some(format!("{base}/v1/categories/a").as_str()));
        let first = app.post("/v1/papers").header("idempotency-key", "k").json(json!({"code": "p"})).await;
        let again = app.post("/v1/papers").header("idempotency-key", "k").json(json!({"code": "p"})).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again}");
        for answer in [first, again] {
            assert_eq!(answer.header("location"), Some(format!("{base}/v1/papers/p").as_str()), "{answer}");
        }
        let put = app.put("/v1/categories/b").json(json!({"title": "t"})).await;
        assert_eq!(put.header("location"), Some(format!("{base}/v1/categories/b").as_str()));
        let list = app.get("/v1/categories?limit=1").await;
        assert!(
            list.header("link").unwrap().starts_with(&format!("<{base}/v1/categories?limit=1&after=")),
            "{list}"
        );
        let partial = app.post("/v1/categories/bulk?mode=partial");
        let partial = partial.json(json!({"items": [{"code": "c", "title": "t"}]})).await;
        assert_eq!(partial.json()["results"][0]["location"], format!("{base}/v1/categories/c"), "{partial}");
        let operation =
            json!({"operation": "create", "resource": "categories", "body": {"code": "d", "title": "t"}});
        let batch = app.post("/v1/batch").json(json!({"operations": [operation]})).await;
        assert_eq!(batch.json()["results"][0]["location"], format!("{base}/v1/categories/d"), "{batch}");
    }
}

#[tokio::test]
async fn an_event_names_its_schema_by_an_absolute_url() {
    let app = builder(&TestStorage::memory()).server("https://shop.example/api/");
    let app = TestApp::build(app).await.unwrap();
    create(&app, "lamp", json!({})).await;
    let schema = app.events().await[0].dataschema.clone();
    assert_eq!(schema.as_deref(), Some("https://shop.example/api/openapi.json#/components/schemas/Product"));
    let document = app.get("/openapi.json").await.json();
    assert!(document["components"]["schemas"]["Product"].is_object());
}

#[tokio::test]
async fn challenge_distinguishes_missing_from_invalid_tokens() {
    let app = TestApp::build(builder(&TestStorage::memory())).await.unwrap();
    let missing = app.get("/notes").await;
    assert_eq!((missing.status(), missing.header("www-authenticate")), (401, Some("Bearer realm=\"api\"")));
    let invalid = app.get("/notes").bearer("stale").await;
    assert_eq!(
        (invalid.status(), invalid.header("www-authenticate")),
        (401, Some("Bearer realm=\"api\", error=\"invalid_token\""))
    );
    assert_eq!(app.get("/notes").bearer(EDITOR).await.status(), 200);
}

#[tokio::test]
async fn preflight_lists_allowed_headers() {
    let app = TestApp::build(
        create_app(AppPreset::Development).resource(crate::support::notes(&TestStorage::memory())),
    );
    let app = app.await.unwrap();
    let preflight = app.request("OPTIONS", "/notes").header("origin", "https://page.example");
    let preflight = preflight.header("access-control-request-method", "POST");
    let preflight = preflight.header("access-control-request-headers", "authorization,idempotency-key").await;
    // `*` stands for every header but Authorization (Fetch standard, 3.3.4).
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization,idempotency-key"));
}

#[tokio::test]
async fn health_checks_pass_the_same_middleware() {
    let app = TestApp::build(builder(&TestStorage::memory())).await.unwrap();
    for target in ["/healthz", "/readyz"] {
        let answer = app.get(target).header("x-request-id", "probe-1").await;
        assert_eq!((answer.status(), answer.header("x-request-id")), (200, Some("probe-1")), "{target}");
        let wrong = app.post(target).await;
        assert_eq!(
            (wrong.status(), wrong.json()["code"].clone()),
            (405, json!("method-not-allowed")),
            "{target}"
        );
        assert_eq!(wrong.header("content-type"), Some("application/problem+json"));
        assert!(
            wrong.header("allow").unwrap().contains("GET") && wrong.header("x-request-id").is_some(),
            "{wrong}"
        );
        let head = app.request("HEAD", target).await;
        assert_eq!((head.status(), head.text()), (200, ""), "{target}");
    }
}

#[tokio::test]
async fn declared_server_origin_counts_as_same_origin() {
    let sessions = Sessions::new("q1w2e3r4t5y6u7i8o9p0a1s2d3f4g5h6", MemorySessions::new());
    let notes = |storage: &TestStorage| {
        let notes = define_dynamic_resource("pages", crate::policies::model(&["code", "title"]));
        let notes = notes.adapter(storage.table("pages"));
        notes.id_field("code").permissions(Permissions::all(signed_in())).build().unwrap()
    };
    let app = create_app(AppPreset::Testing)
        .authenticator(sessions.clone())
        .resource(notes(&TestStorage::memory()));
    let app = TestApp::build(app.server("https://shop.example:8443/api")).await.unwrap();
    let cookie = sessions.start(Actor::user("ada")).await.unwrap();
    let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
    for (index, (origin, host, status)) in [
        // A proxy passed the host without its port, or another host.
        ("https://shop.example:8443", "shop.example", 201),
        ("https://shop.example:8443", "10.0.0.7:3000", 201),
        ("https://shop.example", "backend:3000", 401),
        ("http://shop.example:8443", "backend:3000", 401),
        ("https://shop.example:8443.evil.example", "backend:3000", 401),
        ("https://backend:3000", "backend:3000", 201),
    ]
    .into_iter()
    .enumerate()
    {
        let post = app.post("/pages").header("cookie", &cookie).header("origin", origin).header("host", host);
        let answer = post.json(json!({"code": format!("p{index}"), "title": "t"})).await;
        assert_eq!(answer.status(), status, "{origin} at {host}: {answer}");
    }
    // HTTP/2 names the host in the URI alone.
    let post = app
        .post("https://other.example/pages")
        .header("cookie", &cookie)
        .header("origin", "https://other.example");
    let answer = post.json(json!({"code": "h2", "title": "t"})).await;
    assert_eq!(answer.status(), 201, "{answer}");
}

#[tokio::test]
async fn item_as_read_can_be_sent_back() {
    on_every_storage(|app| async move {
        let created = create(&app, "lamp", json!({})).await;
        let item = path(&created);
        let mut whole = app.get(&item).await.json();
        // As other libraries spell the same instant.
        whole["created_at"] = json!(whole["created_at"].as_str().unwrap().replace('Z', "+00:00"));
        for method in ["PATCH", "PUT"] {
            let unchanged = app.request(method, &item).json(whole.clone()).await;
            // PUT keeps the secret that is not shown.
            assert_eq!(
                (unchanged.status(), unchanged.header("etag")),
                (200, Some("\"1\"")),
                "{method}: {unchanged}"
            );
        }
        let mut renamed = whole.clone();
        renamed["name"] = json!("torch");
        let changed = app.put(&item).json(renamed.clone()).await;
        assert_eq!((changed.status(), &changed.json()["version"]), (200, &json!(2)), "{changed}");
        // By now the version is another one.
        for method in ["PATCH", "PUT"] {
            let refused = app.request(method, &item).json(renamed.clone()).await;
            assert_eq!(
                (refused.status(), refused.json()["errors"][0]["pointer"].clone()),
                (422, json!("/updated_at")).clone(),
                "{refused}"
            );
            let codes: Vec<_> = faults(&refused.json())
                .into_iter()
                .map(|(at, code)| (at.to_owned(), code.to_owned()))
                .collect();
            assert!(codes.contains(&("/version".to_owned(), "read-only".to_owned())), "{codes:?}");
            assert!(!codes.iter().any(|(at, _)| at == "/created_at"), "{codes:?}");
        }
        let current = app.get(&item).await.json();
        let bulk = app.patch("/products/bulk").json(json!({"items": [current]})).await;
        assert_eq!((bulk.status(), &bulk.json()["items"][0]["version"]), (200, &json!(2)), "{bulk}");
        let absent: Value = json!({"version": 2, "created_at": current["created_at"]});
        let refused = app.post("/products").json(product("b", absent)).await;
        assert_eq!(refused.status(), 422, "a new item has none: {refused}");
    })
    .await;
}

#[tokio::test]
async fn stalled_request_body_gets_408() {
    let limits = ConnectionLimits::new().body_timeout(Duration::from_millis(20));
    let app = builder(&TestStorage::memory()).connection_limits(limits).build().await.unwrap();
    let first = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from("{\"code\": ")) });
    let body = axum::body::Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()));
    let request =
        http::Request::post("/categories").header("content-type", "application/json").body(body).unwrap();
    let answer = tower::ServiceExt::oneshot(app.router(), request).await.unwrap();
    assert_eq!(answer.status(), 408);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
}
