//! What an answer must not tell of the rows of another tenant, or of others that a caller does not see.

use resourceful::ResourceBuilder;
use resourceful::access::rows;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::policies::{actors, comparable_problem, model};
use crate::support::TestStorage;

async fn app_of(resource: ResourceBuilder) -> TestApp {
    let app = create_app(AppPreset::Testing).authenticator(actors()).batch(10);
    TestApp::build(app.resource(resource.build().unwrap())).await.unwrap()
}

fn users(storage: &TestStorage) -> ResourceBuilder {
    let shape = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"}, "email": {"type": "string"}, "org_id": {"type": "string"},
            "domain": {"type": ["string", "null"]},
        },
        "required": ["id", "email", "org_id"],
    });
    define_dynamic_resource("users", shape)
        .adapter(storage.table("users"))
        .permissions(Permissions::all(signed_in()))
        .unique(["email"])
        .unique_globally(["domain"])
        .preset(multi_tenant("org_id"))
        .preset(bulk())
}

#[tokio::test]
async fn unique_fields_are_unique_per_tenant() {
    for storage in TestStorage::all().await {
        let app = app_of(users(&storage)).await;
        let body = json!({"email": "a@b.example"});
        let create = async |who: &str| app.post("/users").bearer(who).json(body.clone()).await;
        assert_eq!(create("ann").await.status(), 201, "{}", storage.name);
        // What another tenant holds is no clash, on any path, and tells nothing.
        let other = create("bob").await;
        assert_eq!(other.status(), 201, "{}: {other}", storage.name);
        let many = app.post("/users/bulk").bearer("bob");
        let many = many.json(json!({"items": [{"email": "x@b.example"}, {"email": "x@b.example"}]})).await;
        assert_eq!(many.status(), 409, "{many}");
        let clash = create("abe").await;
        assert_eq!((clash.status(), clash.json()["code"].clone()), (409, json!("unique")), "{clash}");
        assert_eq!(clash.json()["errors"][0]["pointer"], "/email", "the tenant is no field of the caller's");
        assert_eq!(clash.json()["errors"].as_array().unwrap().len(), 1, "{clash}");
        // What is said to be one namespace for all is.
        let with = json!({"email": "c@b.example", "domain": "b.example"});
        let domain = async |who: &str| app.post("/users").bearer(who).json(with.clone()).await.status();
        assert_eq!((domain("ann").await, domain("bob").await), (201, 409), "{}", storage.name);
    }
}

#[tokio::test]
async fn slugs_do_not_reveal_other_tenants() {
    for storage in TestStorage::all().await {
        let shape = json!({
            "type": "object",
            "properties": {
                "id": {"type": "integer"}, "title": {"type": "string"}, "org_id": {"type": "string"},
                "slug": {"type": "string", "default": ""},
            },
            "required": ["id", "title", "org_id"],
        });
        let pages = define_dynamic_resource("pages", shape)
            .adapter(storage.table("pages"))
            .permissions(Permissions::all(signed_in()))
            .preset(slug("title"))
            .preset(multi_tenant("org_id"));
        let app = app_of(pages).await;
        let made = async |who: &str| {
            let made = app.post("/pages").bearer(who).json(json!({"title": "About us"})).await;
            assert_eq!(made.status(), 201, "{made}");
            made.json()["slug"].clone()
        };
        let slugs = [made("ann").await, made("bob").await, made("abe").await];
        assert_eq!(slugs, ["about-us", "about-us", "about-us-2"], "{}", storage.name);
    }
}

/// Folders that only their owners see, unless they are everybody's.
async fn folders(storage: &TestStorage, max_depth: u32) -> TestApp {
    let mut shape = model(&["code", "of"]);
    shape["properties"]["parent"] = json!({"type": ["string", "null"]});
    let own = any_of([role("chief"), owner("of"), rows(json!({"of": "all"}))]);
    let folders = define_dynamic_resource("folders", shape)
        .adapter(storage.table("folders"))
        .id_field("code")
        .permissions(Permissions::read(own).write(signed_in()))
        .preset(bulk())
        .preset(tree("parent").max_depth(max_depth));
    let app = app_of(folders).await;
    let rows = [
        row("h1", "bob", None),
        row("h2", "bob", Some("h1")),
        row("h3", "bob", Some("h2")),
        row("top", "eve", None),
        row("below", "bob", Some("top")),
        row("lone", "eve", None),
        row("leaf", "eve", Some("lone")),
    ];
    app.app().load().rows("folders", rows).unwrap().commit().await.unwrap();
    app
}

fn row(code: &str, of: &str, parent: Option<&str>) -> Json {
    json!({"code": code, "of": of, "parent": parent})
}

#[tokio::test]
async fn policy_matrix_holds_for_trees_with_hidden_items() {
    for storage in TestStorage::all().await {
        // With two levels a parent that is not seen is too deep for what would lie below it.
        let report = crate::matrix::run(&folders(&storage, 2).await).await;
        println!("{}: {report}", storage.name);
        report.assert_passed();
    }
}

#[tokio::test]
async fn tree_errors_do_not_reveal_hidden_items() {
    for storage in TestStorage::all().await {
        let app = folders(&storage, 3).await;

        // A parent that is not seen is answered as one that is not there: below it or too deep, in a circle or not.
        let absent = comparable_problem(
            &app.patch("/folders/top").bearer("eve").json(json!({"parent": "nope"})).await,
        );
        assert_eq!(absent.0, 409, "{}: {absent:?}", storage.name);
        for parent in ["h1", "h3", "below"] {
            let moved = app.patch("/folders/top").bearer("eve").json(json!({"parent": parent})).await;
            assert_eq!(comparable_problem(&moved), absent, "{}: {parent}", storage.name);
            let many = json!({"items": [{"code": "top", "parent": parent}]});
            let many = app.patch("/folders/bulk").bearer("eve").json(many).await;
            assert_eq!(many.json()["code"], "foreign-key", "{many}");
            let one = json!({"operation": "update", "resource": "folders", "id": "top", "body": {"parent": parent}});
            let batch = app.post("/batch").bearer("eve").json(json!({"operations": [one]})).await;
            assert_eq!(batch.json()["code"], "foreign-key", "{batch}");
            let new = app.post("/folders").bearer("eve").json(row("new", "eve", Some(parent))).await;
            assert_eq!(new.json()["code"], "foreign-key", "{new}");
        }
        // To those who see them it says what is wrong.
        let deep = app.patch("/folders/top").bearer("chief").json(json!({"parent": "h3"})).await;
        assert_eq!(deep.json()["code"], "too-deep", "{deep}");
        let circle = app.patch("/folders/top").bearer("chief").json(json!({"parent": "below"})).await;
        assert_eq!(circle.json()["code"], "cycle", "{circle}");

        // What refers to an item keeps it from going, and is named to those alone who see it.
        let hidden = app.delete("/folders/top").bearer("eve").await;
        assert_eq!((hidden.status(), hidden.json()["code"].clone()), (409, json!("foreign-key")), "{hidden}");
        let seen = app.delete("/folders/lone").bearer("eve").await;
        assert_eq!(seen.json()["code"], "has-children", "{seen}");
        let chief = app.delete("/folders/top").bearer("chief").await;
        assert_eq!(chief.json()["code"], "has-children", "{chief}");
    }
}

#[tokio::test]
async fn policy_matrix_holds_for_unique_fields_per_tenant() {
    for storage in TestStorage::all().await {
        let app = app_of(users(&storage)).await;
        for (who, email) in [("ann", "a@b.example"), ("bob", "b@b.example"), ("bob", "c@b.example")] {
            let created = app.post("/users").bearer(who).json(json!({"email": email})).await;
            assert_eq!(created.status(), 201, "{created}");
        }
        let report = crate::matrix::run(&app).await;
        println!("{}: {report}", storage.name);
        report.assert_passed();
    }
}
