//! Includes and dotted filters, in one database and across two.

use resourceful::testing::TestApp;
use serde_json::{Value, json};

use crate::support::{TestStorage, categories, create, names, on_every_storage, path, products};

async fn seed(app: &TestApp) {
    for (code, title, region) in
        [("a", "Apples", json!("north")), ("b", "Pears", Value::Null), ("c", "Empty", json!("south"))]
    {
        let created =
            app.post("/categories").json(json!({"code": code, "title": title, "region": region})).await;
        assert_eq!(created.status(), 201, "{created}");
    }
    for (name, category) in
        [("p1", json!("a")), ("p2", json!("a")), ("p3", json!("a")), ("p4", json!("b")), ("p5", Value::Null)]
    {
        create(app, name, json!({"category_code": category})).await;
    }
}

async fn check_relations(app: TestApp) {
    seed(&app).await;
    let list = app.get("/products?limit=10&sort=name&include=category&fields=name,category_code").await;
    assert_eq!(list.status(), 200, "{list}");
    let apples = json!({"code": "a", "title": "Apples", "region": "north"});
    assert_eq!(list.items()[0], json!({"name": "p1", "category_code": "a", "category": apples}));
    assert_eq!(list.items()[4], json!({"name": "p5", "category_code": null, "category": null}));
    let many = app.get("/categories?include=products&sort=title").await;
    let shown: Vec<_> = many
        .items()
        .iter()
        .map(|category| {
            let products = category["products"].as_array().unwrap();
            assert!(products.iter().all(|product| product.get("secret").is_none()));
            products
                .iter()
                .map(|product| product["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    // At most two each, by ascending id.
    assert_eq!(shown, ["p1 p2", "", "p4"]);
    let item = app.get("/categories/a?include=products").await.json();
    let product = app.get(&path(&item["products"][0])).await.json();
    assert_eq!(item["products"][0], product);

    for (query, expected) in [
        ("category.title=Apples", vec![]),
        ("category.region=north", vec!["p1", "p2", "p3"]),
        ("category.region%5Bis_null%5D=true", vec!["p4"]),
        ("category.code%5Bin%5D=a,b&name%5Bgte%5D=p3", vec!["p3", "p4"]),
        ("category.region=west", vec![]),
    ] {
        if query.contains("title") {
            // Not filterable there, so not filterable from here.
            assert_eq!(app.get(&format!("/products?{query}")).await.status(), 400);
            continue;
        }
        assert_eq!(names(&app, &format!("/products?limit=10&sort=name&{query}")).await, expected, "{query}");
    }
    let negated = app
        .post("/products/query")
        .json(json!({"filter": {"not": {"category.region": "north"}}, "sort": ["name"]}))
        .await;
    assert_eq!(negated.items().iter().map(|item| item["name"].clone()).collect::<Vec<_>>(), ["p4", "p5"]);
    let by_child = app.get("/categories?products.name=p4").await;
    assert_eq!(by_child.items().iter().map(|item| item["code"].clone()).collect::<Vec<_>>(), ["b"]);
    let through_two = app.get("/products?limit=10&sort=name&category.products.name=p2").await;
    assert_eq!(through_two.items().len(), 3, "{through_two}");
    let total = app.get("/products?limit=1&category.region=north").header("prefer", "count=exact").await;
    assert_eq!(total.json()["page"]["total"], 3);
}

#[tokio::test]
async fn related_items_are_included_and_filtered_by() {
    on_every_storage(check_relations).await;
}

#[tokio::test]
async fn relations_work_across_two_databases() {
    use resourceful::prelude::*;
    let (one, other) = (TestStorage::memory(), TestStorage::sqlite().await);
    for (products_at, categories_at) in [(&one, &other), (&other, &one)] {
        let app = create_app(AppPreset::Testing)
            .resource(products(products_at))
            .resource(categories(categories_at));
        check_relations(TestApp::build(app).await.unwrap()).await;
    }
}

#[tokio::test]
async fn unreadable_relation_is_reported_as_unknown() {
    use resourceful::prelude::*;
    use resourceful::testing::{TestApp, TestResponse};
    let storage = TestStorage::sqlite().await;
    let secret = define_dynamic_resource(
        "categories",
        json!({"type": "object", "properties": {"code": {"type": "string"}, "title": {"type": "string"}}}),
    )
    .adapter(storage.table("categories"))
    .permissions(Permissions::all(role("editor")))
    .id_field("code")
    .build()
    .unwrap();
    let tokens = BearerTokens::new().token("editor's", Actor::user("ed").with_role("editor"));
    let app =
        create_app(AppPreset::Testing).authenticator(tokens).resource(products(&storage)).resource(secret);
    let app = TestApp::build(app).await.unwrap();
    for query in ["include=category", "category.code=a"] {
        let refused = app.get(&format!("/products?{query}")).await;
        assert_eq!(refused.status(), 400, "{query}: {refused}");
        let unknown = app.get(&format!("/products?{}", query.replace("category", "catalogue"))).await;
        // The nearest legal name differs with the name; the rest of the words do not.
        let words = |response: &TestResponse| {
            let fault = response.json()["errors"][0].to_string().replace("category", "catalogue");
            fault.split("Did you mean").next().map(|words| words.trim_end_matches(['"', '}', ' ']).to_owned())
        };
        assert_eq!(words(&refused), words(&unknown));
        assert_eq!(app.get(&format!("/products?{query}")).bearer("editor's").await.status(), 200);
    }
}
