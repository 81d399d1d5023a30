//! Answers that are remembered: for whom, for how long, and until what changes.

use resourceful::access::rows;
use resourceful::cache::QueryCache;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse, policy_matrix};
use serde_json::{Value as Json, json};

use crate::policies::{actors, actors_by_token, model};
use crate::support::{EDITOR, READER, TestStorage, cached_shop, cached_shop_builder, create, path, product};

fn x_cache(answer: &TestResponse) -> &str {
    answer.header("x-cache").unwrap_or("nothing is said")
}

/// An answer, and how it was come by.
async fn get(app: &TestApp, path: &str) -> (String, TestResponse) {
    let answer = app.get(path).await;
    assert!(matches!(answer.status(), 200 | 404), "{path}: {answer}");
    (x_cache(&answer).to_owned(), answer)
}

async fn everywhere<F: Future<Output = ()>>(test: impl Fn(TestApp) -> F) {
    for place in TestStorage::all().await {
        println!("on {}", place.name);
        test(cached_shop(&place).await).await;
    }
}

#[tokio::test]
async fn second_request_is_served_from_the_cache() {
    everywhere(|app| async move {
        let item = path(&create(&app, "tea", json!({})).await);
        for path in
            [item.as_str(), "/products", "/products?price_cents[gte]=1&sort=-name", "/products?limit=1"]
        {
            let (first, one) = get(&app, path).await;
            let (second, other) = get(&app, path).await;
            assert_eq!((first.as_str(), second.as_str()), ("MISS", "HIT"), "{path}");
            assert_eq!(one.json(), other.json());
            for header in ["etag", "content-type", "cache-control", "vary", "link", "cache-groups"] {
                assert_eq!(one.header(header), other.header(header), "{path}: {header}");
            }
            assert_eq!(one.header("cache-status"), Some("resourceful; fwd=miss; stored"));
            assert!(other.header("cache-status").unwrap().starts_with("resourceful; hit; ttl=3"), "{other}");
            assert_eq!((one.header("age"), other.header("age")), (None, Some("0")));
        }
        let known = app.get(&item).await.header("etag").unwrap().to_owned();
        let unchanged = app.get(&item).header("if-none-match", known).await;
        assert_eq!((unchanged.status(), x_cache(&unchanged), unchanged.text().len()), (304, "HIT", 0));
        let head = app.request("HEAD", &item).await;
        assert_eq!((head.status(), x_cache(&head)), (200, "HIT"));
    })
    .await;
}

#[tokio::test]
async fn equivalent_queries_share_one_cached_response() {
    everywhere(|app| async move {
        create(&app, "tea", json!({})).await;
        get(&app, "/products?in_stock=true&price_cents=100").await;
        assert_eq!(get(&app, "/products?in_stock=true&price_cents[eq]=100").await.0, "HIT");
        for other in ["/products?in_stock=false&price_cents=100", "/products?in_stock=true&price_cents=10"] {
            assert_eq!(get(&app, other).await.0, "MISS", "{other}");
        }
        let body = json!({"filter": {"in_stock": true}, "limit": 2});
        let asked = [("QUERY", "/products"), ("POST", "/products/query"), ("QUERY", "/products")];
        let mut found = Vec::new();
        for (method, path) in asked {
            found.push(x_cache(&app.request(method, path).json(body.clone()).await).to_owned());
        }
        assert_eq!(found, ["MISS", "HIT", "HIT"]);
        for prefer in ["count=exact", "count=exact"] {
            let counted = app.get("/products").header("prefer", prefer).await;
            assert_eq!(
                (&counted.json()["page"]["total"], counted.header("preference-applied")),
                (&json!(1), Some(prefer))
            );
        }
    })
    .await;
}

#[tokio::test]
async fn writer_reads_its_own_writes() {
    everywhere(|app| async move {
        let tea = path(&create(&app, "tea", json!({"price_cents": 5})).await);
        let other = path(&create(&app, "coffee", json!({})).await);
        let expensive = "/products?price_cents[gte]=50";
        for path in [&tea, &other, expensive, "/products?sort=name"] {
            get(&app, path).await;
        }
        assert_eq!(app.patch(&tea).json(json!({"price_cents": 70})).await.status(), 200);
        let (how, item) = get(&app, &tea).await;
        assert_eq!((how.as_str(), &item.json()["price_cents"]), ("MISS", &json!(70)));
        // It matches now, and no row that the list held has changed.
        assert_eq!(get(&app, expensive).await.1.items().len(), 2);
        assert_eq!(get(&app, &other).await.0, "HIT", "nothing has happened to it");
        let created = app.post("/products/bulk").json(json!({"items": [product("water", json!({}))]})).await;
        assert_eq!(created.status(), 201, "{created}");
        assert_eq!(get(&app, "/products?sort=name").await.1.items().len(), 3);
        let patch = json!({"filter": {"name": "coffee"}, "patch": {"stock": 9}, "max_affected": 5});
        assert_eq!(app.patch("/products/bulk").json(patch).await.status(), 200);
        assert_eq!(get(&app, &other).await.1.json()["stock"], 9);
        assert_eq!(app.delete(&other).await.status(), 204);
        assert_eq!(get(&app, &other).await.1.status(), 404);
    })
    .await;
}

#[tokio::test]
async fn not_found_is_cached_until_the_item_is_created() {
    everywhere(|app| async move {
        let before = app.app().cache_counts().hits;
        for _ in 0..2 {
            assert_eq!(get(&app, "/categories/tea").await.1.status(), 404);
        }
        assert_eq!(app.app().cache_counts().hits - before, 1);
        let body = json!({"code": "tea", "title": "Tea"});
        assert_eq!(app.post("/categories").json(body).await.status(), 201);
        assert_eq!(get(&app, "/categories/tea").await.1.status(), 200);
        // The database names the next one, and it was asked for already.
        for id in 1..4 {
            assert_eq!(app.get(&format!("/notes/{id}")).bearer(EDITOR).await.status(), 404);
            let created = app.post("/notes").bearer(EDITOR).json(json!({"text": "hello"})).await;
            assert_eq!(app.get(created.header("location").unwrap()).bearer(EDITOR).await.status(), 200);
            assert_eq!(app.get(&format!("/notes/{id}")).bearer(EDITOR).await.status(), 200);
        }
    })
    .await;
}

#[tokio::test]
async fn change_of_a_related_item_invalidates_the_response() {
    everywhere(|app| async move {
        for (code, region) in [("tea", "north"), ("pots", "south")] {
            let body = json!({"code": code, "title": code, "region": region});
            assert_eq!(app.post("/categories").json(body).await.status(), 201);
        }
        let pot = path(&create(&app, "pot", json!({"category_code": "tea"})).await);
        let (with, of_north) = (format!("{pot}?include=category"), "/products?category.region=north");
        let many = "/categories/tea?include=products";
        for path in [&with, of_north, many] {
            get(&app, path).await;
            assert_eq!(get(&app, path).await.0, "HIT", "{path}");
        }
        let renamed = app.patch("/categories/tea").json(json!({"title": "Teas", "region": "west"})).await;
        assert_eq!(renamed.status(), 200);
        assert_eq!(get(&app, &with).await.1.json()["category"]["title"], "Teas");
        assert_eq!(get(&app, of_north).await.1.items(), Vec::<Json>::new());
        assert_eq!(app.patch(&pot).json(json!({"name": "a pot"})).await.status(), 200);
        assert_eq!(get(&app, many).await.1.json()["products"][0]["name"], "a pot");
    })
    .await;
}

#[tokio::test]
async fn callers_with_equal_rights_share_cached_responses_and_cursors() {
    everywhere(|app| async move {
        for text in ["a", "b"] {
            app.post("/notes").bearer(EDITOR).json(json!({"text": text})).await;
        }
        let page = app.get("/notes?limit=1").bearer(EDITOR).await;
        let shared = app.get("/notes?limit=1").bearer(READER).await;
        assert_eq!((x_cache(&page), x_cache(&shared)), ("MISS", "HIT"));
        let cursor = shared.json()["page"]["next"].as_str().unwrap().to_owned();
        let next = format!("/notes?limit=1&after={cursor}");
        assert_eq!(app.get(&next).bearer(READER).await.items()[0]["text"], "b");
        // Permission is asked for first.
        assert_eq!(app.get("/notes?limit=1").await.status(), 401);
    })
    .await;
}

/// Plans of tenants, of which members see those that are not secret, and no prices.
async fn plans(place: &TestStorage) -> TestApp {
    let fields = ["code", "org_id", "name", "price", "kind"];
    let plans = define_dynamic_resource("plans", model(&fields))
        .adapter(place.table("plans"))
        .id_field("code")
        .permissions(Permissions::all(signed_in()))
        .preset(multi_tenant("org_id"))
        .policy(any_of([tenant_role("admin"), rows(json!({"kind": "open"}))]))
        .visible_to(["price"], tenant_role("admin"))
        .redacted_for(["name"], tenant_role("guest"), json!("…"))
        .filterable(["kind"])
        .sortable(["name"])
        .cache(Cache::fresh(Duration::from_secs(3600)))
        .build()
        .unwrap();
    let guest = Actor::user("gus").in_tenant("acme", ["guest"]);
    let app = create_app(AppPreset::Testing).authenticator(actors().token("gus", guest)).resource(plans);
    let app = TestApp::build(app).await.unwrap();
    let row = |code: &str, org: &str, kind: &str| json!({"code": code, "org_id": org, "name": code, "price": "7", "kind": kind});
    let all = [row("a1", "acme", "open"), row("a2", "acme", "secret"), row("b1", "bolt", "open")];
    app.app().load().rows("plans", all).unwrap().commit().await.unwrap();
    app
}

#[tokio::test]
async fn cached_response_is_not_shared_across_tenants_or_rights() {
    for place in TestStorage::all().await {
        let app = plans(&place).await;
        for _ in 0..2 {
            let mut seen = Vec::new();
            for who in ["ann", "abe", "gus", "bob", "op"] {
                let list = app.get("/plans").bearer(who).await;
                let of =
                    |item: &Json| (item["code"].clone(), item["name"].clone(), item.get("price").is_some());
                seen.push(list.items().iter().map(of).collect::<Vec<_>>());
            }
            let all = [json!("a1"), json!("a2"), json!("b1")];
            let full = |code: &Json| (code.clone(), code.clone(), true);
            assert_eq!(seen[0], [full(&all[0]), full(&all[1])]);
            assert_eq!(seen[1], [(all[0].clone(), all[0].clone(), false)]);
            assert_eq!(seen[2], [(all[0].clone(), json!("…"), false)]);
            assert_eq!(seen[3], [full(&all[2])]);
            for (who, status) in [("ann", 200), ("abe", 404), ("bob", 404)] {
                assert_eq!(app.get("/plans/a2").bearer(who).await.status(), status, "{who}");
            }
        }
    }
}

#[tokio::test]
async fn cached_response_is_not_shared_across_row_filters() {
    for place in TestStorage::all().await {
        let notes = define_dynamic_resource("notes", model(&["code", "user_id"]))
            .adapter(place.table("notes"))
            .id_field("code")
            .permissions(Permissions::all(signed_in()))
            .preset(owned_by("user_id"))
            .cache(Cache::fresh(Duration::from_secs(3600)))
            .build()
            .unwrap();
        let tokens = ["ada", "bob"]
            .into_iter()
            .fold(BearerTokens::new(), |tokens, name| tokens.token(name, Actor::user(name)));
        let app = create_app(AppPreset::Testing).authenticator(tokens).resource(notes);
        let app = TestApp::build(app).await.unwrap().through_cache();
        for who in ["ada", "bob"] {
            let created = app.post("/notes").bearer(who).json(json!({"code": format!("of-{who}")})).await;
            assert_eq!(created.status(), 201, "{created}");
        }
        for who in ["ada", "bob"] {
            let list = app.get("/notes").bearer(who).await;
            let codes: Vec<_> = list.items().iter().map(|item| item["code"].clone()).collect();
            assert_eq!((x_cache(&list), codes), ("HIT", vec![json!(format!("of-{who}"))]));
            for of in ["ada", "bob"] {
                let status = if of == who { 200 } else { 404 };
                assert_eq!(app.get(&format!("/notes/of-{of}")).bearer(who).await.status(), status, "{who}");
            }
        }
    }
}

#[tokio::test]
async fn change_in_one_tenant_keeps_cached_lists_of_another() {
    for place in TestStorage::all().await {
        let app = plans(&place).await;
        for who in ["ann", "bob", "op"] {
            app.get("/plans").bearer(who).await;
        }
        let renamed = app.patch("/plans/a1").bearer("ann").json(json!({"name": "new"})).await;
        assert_eq!(renamed.status(), 200, "{renamed}");
        let of_bob = app.get("/plans").bearer("bob").await;
        let of_ann = app.get("/plans").bearer("ann").await;
        let of_all = app.get("/plans").bearer("op").await;
        assert_eq!([x_cache(&of_bob), x_cache(&of_ann), x_cache(&of_all)], ["HIT", "MISS", "MISS"]);
        // Who may change rows of any tenant has not said whose this one is.
        let renamed = app.patch("/plans/b1").bearer("op").json(json!({"name": "newer"})).await;
        assert_eq!(renamed.status(), 200, "{renamed}");
        assert_eq!(app.get("/plans").bearer("bob").await.items()[0]["name"], "newer");
    }
}

#[tokio::test]
async fn policy_matrix_passes_with_the_cache_enabled() {
    for place in TestStorage::all().await {
        let app = plans(&place).await.through_cache();
        let headers: Vec<_> = actors_by_token().iter().map(|(token, _)| format!("Bearer {token}")).collect();
        let matrix = actors_by_token().into_iter().zip(&headers).fold(
            policy_matrix(&app),
            |matrix, ((name, actor), header)| {
                matrix.caller(name, actor, [("authorization", header.as_str())])
            },
        );
        matrix.run().await.unwrap().assert_passed();
        assert!(app.app().cache_counts().hits > 100, "{:?}", app.app().cache_counts());
    }
}

#[tokio::test]
async fn cache_control_of_the_request_bypasses_the_cache() {
    let app = cached_shop(&TestStorage::memory()).await;
    let item = path(&create(&app, "tea", json!({})).await);
    let own = app.get(&item).header("cache-control", "no-store").await;
    assert_eq!(x_cache(&own), "BYPASS");
    assert_eq!(get(&app, &item).await.0, "MISS", "that one was not to be remembered");
    for directive in ["no-cache", "max-age=0, no-store"] {
        let answer = app.get(&item).header("cache-control", directive).await;
        assert_eq!(
            (x_cache(&answer), answer.header("cache-status")),
            ("BYPASS", Some("resourceful; fwd=bypass"))
        );
    }
    assert_eq!(get(&app, &item).await.0, "HIT");
    let counts = app.app().cache_counts();
    assert_eq!((counts.hits, counts.misses, counts.bypassed, counts.stale), (1, 1, 3, 0));
}

#[tokio::test]
async fn oversized_response_is_not_cached() {
    let builder =
        cached_shop_builder(&TestStorage::memory()).query_cache(QueryCache::new().max_entry_size(2_000));
    let app = TestApp::build(builder).await.unwrap();
    let long = "word ".repeat(500);
    let item = path(&create(&app, "tea", json!({"note": long})).await);
    for _ in 0..3 {
        let (how, answer) = get(&app, &item).await;
        assert_eq!((how.as_str(), &answer.json()["note"]), ("MISS", &json!(long)));
        assert_eq!(answer.header("cache-status"), Some("resourceful; fwd=miss"));
    }
}

#[tokio::test]
async fn cache_can_be_disabled_globally_and_per_operation() {
    let builder = cached_shop_builder(&TestStorage::memory()).query_cache(QueryCache::off());
    let app = TestApp::build(builder).await.unwrap();
    let item = path(&create(&app, "tea", json!({})).await);
    for _ in 0..2 {
        assert_eq!(get(&app, &item).await.0, "nothing is said");
    }
    let place = TestStorage::memory();
    let notes = define_dynamic_resource("notes", model(&["code"]))
        .adapter(place.table("notes"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .cache(Cache::fresh(Duration::from_secs(60)).except(Operation::List))
        .build()
        .unwrap();
    let app = TestApp::build(create_app(AppPreset::Testing).resource(notes)).await.unwrap();
    app.post("/notes").json(json!({"code": "a"})).await;
    for (path, how) in [("/notes", "nothing is said"), ("/notes/a", "HIT")] {
        get(&app, path).await;
        assert_eq!(get(&app, path).await.0, how, "{path}");
    }
}

/// Products that share a tag with pages, and fall with what happens to categories.
async fn tagged() -> TestApp {
    let place = TestStorage::memory();
    let of = |name: &str, cache: Cache| {
        define_dynamic_resource(name, model(&["code", "name"]))
            .adapter(place.table(name))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .cache(cache)
            .build()
            .unwrap()
    };
    let fresh = || Cache::fresh(Duration::from_secs(60));
    let app = create_app(AppPreset::Testing)
        .resource(of("products", fresh().tag("catalog").invalidate_on("categories.*")))
        .resource(of("pages", fresh().tag("catalog")))
        .resource(of("news", fresh().invalidate_on("categories.created")))
        .resource(of("categories", fresh()));
    let app = TestApp::build(app).await.unwrap();
    for name in ["products", "pages", "news", "categories"] {
        assert_eq!(app.post(&format!("/{name}")).json(json!({"code": "a", "name": "a"})).await.status(), 201);
    }
    app
}

async fn cache_statuses(app: &TestApp) -> Vec<String> {
    let mut all = Vec::new();
    for path in ["/products", "/products/a", "/pages/a", "/news", "/categories/a"] {
        all.push(get(app, path).await.0);
    }
    all
}

#[tokio::test]
async fn declared_tags_and_other_resources_invalidate_responses() {
    let app = tagged().await;
    cache_statuses(&app).await;
    assert_eq!(cache_statuses(&app).await, ["HIT"; 5]);
    app.app().invalidate("catalog");
    assert_eq!(cache_statuses(&app).await, ["MISS", "MISS", "MISS", "HIT", "HIT"]);
    app.app().invalidate("no such tag");
    assert_eq!(cache_statuses(&app).await, ["HIT"; 5]);
    app.patch("/categories/a").json(json!({"name": "b"})).await;
    assert_eq!(cache_statuses(&app).await, ["MISS", "MISS", "HIT", "HIT", "MISS"]);
    app.post("/categories").json(json!({"code": "c", "name": "c"})).await;
    assert_eq!(cache_statuses(&app).await, ["MISS", "MISS", "HIT", "MISS", "HIT"]);
}

#[tokio::test]
async fn cache_group_invalidation_header_names_the_changed_groups() {
    let app = tagged().await;
    let list = app.get("/products").await;
    assert_eq!(list.header("cache-groups"), Some("\"products\", \"products/*\", \"catalog\""));
    let item = app.get("/products/a").await.header("cache-groups").unwrap().to_owned();
    let own = item.split(", ").next().unwrap().to_owned();
    assert!(own.len() == 18 && item.ends_with(", \"products/*\", \"catalog\""), "{item}");
    let changed = app.patch("/products/a").json(json!({"name": "b"})).await;
    assert_eq!(changed.header("cache-group-invalidation"), Some(format!("\"products\", {own}").as_str()));
    let dry = app.patch("/products/a").header("prefer", "dry-run").json(json!({"name": "c"})).await;
    assert_eq!((dry.status(), dry.header("cache-group-invalidation")), (200, None));
    let other = app.post("/categories").json(json!({"code": "c", "name": "c"})).await;
    let invalidated = "\"categories\", \"categories/*\", \"products/*\", \"news/*\"";
    assert_eq!(other.header("cache-group-invalidation"), Some(invalidated));
}

#[tokio::test]
async fn cache_groups_cover_included_and_filtered_resources() {
    let place = TestStorage::memory();
    let app = TestApp::build(cached_shop_builder(&place).batch(5)).await.unwrap();
    let category = json!({"code": "tea", "title": "Tea"});
    assert_eq!(app.post("/categories").json(category).await.status(), 201);
    let pot = path(&create(&app, "pot", json!({"category_code": "tea"})).await);
    for path in [&format!("{pot}?include=category"), "/products?category.region=north"] {
        let groups = app.get(path).await.header("cache-groups").unwrap().to_owned();
        assert!(groups.ends_with(", \"categories\""), "{path}: {groups}");
    }
    let item = app.get("/categories/tea").await.header("cache-groups").unwrap().to_owned();
    let own = item.split(", ").next().unwrap();
    let changed = app.patch("/categories/tea").json(json!({"title": "Teas"})).await;
    let invalidated = format!("\"categories\", {own}");
    assert_eq!(changed.header("cache-group-invalidation"), Some(invalidated.as_str()));
    let change =
        json!({"operation": "update", "resource": "categories", "id": "tea", "body": {"title": "T"}});
    let batch = app.post("/batch").json(json!({"operations": [change]})).await;
    assert_eq!(
        (batch.status(), batch.header("cache-group-invalidation")),
        (200, Some(invalidated.as_str())),
        "{batch}"
    );
}

#[tokio::test]
async fn public_cache_control_becomes_private_with_includes() {
    let place = TestStorage::memory();
    let declared = |name: &str| {
        define_dynamic_resource(name, model(&["code", "page_code"]))
            .adapter(place.table(name))
            .id_field("code")
    };
    let pages = declared("pages")
        .permissions(Permissions::all(anyone()))
        .relation(has_many("notes", "notes").key("page_code"))
        .cache_control("public, max-age=60")
        .build()
        .unwrap();
    let notes = declared("notes").permissions(Permissions::read(anyone()).write(anyone())).build().unwrap();
    let app = TestApp::build(create_app(AppPreset::Testing).resource(pages).resource(notes)).await.unwrap();
    for (path, expected) in [("/pages", "public, max-age=60"), ("/pages?include=notes", "private, no-cache")]
    {
        assert_eq!(app.get(path).await.header("cache-control"), Some(expected), "{path}");
    }
}

#[tokio::test]
async fn invalid_cache_declarations_are_faults() {
    let place = TestStorage::memory();
    let declared = |name: &str| {
        define_dynamic_resource(name, model(&["code", "name"])).adapter(place.table(name)).id_field("code")
    };
    let errors = declared("notes")
        .permissions(Permissions::all(signed_in()))
        .cache_control("public, max-age=60")
        .cache(Cache::fresh(Duration::ZERO).tag("a \"tag\"").invalidate_on("categories").operation(
            Operation::Create,
            Duration::from_secs(1),
            Duration::ZERO,
        ))
        .build()
        .unwrap_err();
    insta::assert_snapshot!("cache_faults", errors.to_string());
    let pages = declared("pages")
        .permissions(Permissions::all(anyone()))
        .cache(Cache::fresh(Duration::from_secs(1)).invalidate_on("page.*").invalidate_on("pages.deletd"))
        .build()
        .unwrap();
    let errors = create_app(AppPreset::Testing).resource(pages).build().await.unwrap_err();
    for said in ["`page`, which is no resource", "no event called `deletd` exists for `pages`"] {
        assert!(errors.to_string().contains(said), "{errors}");
    }
}
