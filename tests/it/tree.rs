//! Items that lie below each other: shown with what lies below, and never in a circle.

use futures::future::{join, join_all};
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse, policy_matrix};
use resourceful::{Action, Change, Error, ResourceBuilder};
use serde_json::{Map, Value as Json, json};

use crate::support::{TestStorage, faults};

/// Folders with ids by the client, in `place`.
fn folders(storage: &TestStorage) -> ResourceBuilder {
    let text = json!({"type": "string"});
    let shape = json!({
        "type": "object",
        "title": "Folder",
        "properties": {
            "code": text, "name": {"type": "string", "default": ""}, "of": {"type": "string", "default": ""},
            "parent": {"type": ["string", "null"], "default": null},
        },
        "required": ["code"],
    });
    define_dynamic_resource("folders", shape)
        .adapter(storage.table("folders"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .preset(bulk())
        .filterable(["name"])
        .sortable(["name"])
}

/// Puts an item below another, or at the top.
fn hang(item: &mut Map<String, Json>, input: ParentInput, _: &mut Change) -> Result<(), Error> {
    item.insert("parent".to_owned(), json!(input.of));
    Ok(())
}

#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct ParentInput {
    of: Option<String>,
}

async fn app_of(resource: ResourceBuilder) -> TestApp {
    let tokens = BearerTokens::new()
        .token("ada", Actor::user("ada"))
        .token("rita", Actor::user("rita").with_role("reader"));
    let app = create_app(AppPreset::Testing).authenticator(tokens).resource(resource.build().unwrap());
    TestApp::build(app.batch(10)).await.unwrap()
}

/// Makes folders, each below the one that its name begins with: `ab` lies below `a`.
async fn create_folders(app: &TestApp, codes: &[&str]) {
    for code in codes {
        let above = &code[..code.len() - 1];
        let body = json!({"code": code, "name": code, "parent": (!above.is_empty()).then_some(above)});
        let created = app.post("/folders").bearer("ada").json(body).await;
        assert_eq!(created.status(), 201, "{created}");
    }
}

fn codes(answer: &TestResponse) -> Vec<String> {
    answer.items().iter().map(|item| item["code"].as_str().unwrap().to_owned()).collect()
}

fn levels(answer: &TestResponse) -> Vec<(u64, String)> {
    let one = |one: &Json| (one["depth"].as_u64().unwrap(), one["item"]["code"].as_str().unwrap().to_owned());
    answer.items().iter().map(one).collect()
}

fn assert_conflict(answer: &TestResponse, code: &str, pointer: &str) {
    let problem = answer.json();
    assert_eq!((answer.status(), &problem["code"]), (409, &json!(code)), "{answer}");
    assert_eq!(faults(&problem), [(pointer, code)], "{answer}");
}

#[tokio::test]
async fn children_are_listed_and_subtree_returns_depths() {
    for storage in TestStorage::all().await {
        let app = app_of(folders(&storage).preset(tree("parent"))).await;
        create_folders(&app, &["a", "ab", "ac", "ad", "abe", "abf", "abeg", "x", "xy"]).await;
        let get = async |path: &str| app.get(path).await;
        assert_eq!(codes(&get("/folders/a/children").await), ["ab", "ac", "ad"], "{}", storage.name);
        assert_eq!(codes(&get("/folders/a/children?sort=-name&name[ne]=ac").await), ["ad", "ab"]);
        let page = get("/folders/a/children?limit=2").await;
        assert_eq!(codes(&page), ["ab", "ac"]);
        assert!(page.header("link").unwrap().contains("/folders/a/children?limit=2&after="), "{page}");
        let next = page.json()["page"]["next"].as_str().unwrap().to_owned();
        assert_eq!(codes(&get(&format!("/folders/a/children?limit=2&after={next}")).await), ["ad"]);
        let foreign = get(&format!("/folders/x/children?limit=2&after={next}")).await;
        assert_eq!(foreign.json()["code"], "invalid-cursor", "{foreign}");
        assert_eq!(get("/folders/a/children?colour=red").await.status(), 400);
        assert_eq!(get("/folders/xy/children").await.items().len(), 0);

        let below: Vec<_> = [(1, "ab"), (1, "ac"), (1, "ad"), (2, "abe"), (2, "abf"), (3, "abeg")].into();
        let below: Vec<_> = below.into_iter().map(|(depth, code)| (depth, code.to_owned())).collect();
        assert_eq!(levels(&get("/folders/a/subtree").await), below, "{}", storage.name);
        assert_eq!(levels(&get("/folders/a/subtree?depth=2").await), below[..5]);
        assert_eq!(levels(&get("/folders/abeg/subtree").await), []);
        for path in ["/folders/none/children", "/folders/none/subtree"] {
            assert_eq!(get(path).await.status(), 404, "{path}");
        }
        for wrong in ["depth=0", "depth=33", "depth=x", "sort=name"] {
            let refused = get(&format!("/folders/a/subtree?{wrong}")).await;
            let name = wrong.split('=').next().unwrap();
            assert_eq!((refused.status(), &refused.json()["errors"][0]["parameter"]), (400, &json!(name)));
        }
        let included = get("/folders/ab?include=children,above").await.json();
        assert_eq!(
            (&included["above"]["code"], included["children"].as_array().unwrap().len()),
            (&json!("a"), 2)
        );
        assert_eq!(
            app.post("/folders/a/children").json(json!({})).await.header("allow"),
            Some("GET, HEAD, OPTIONS")
        );
    }
}

#[tokio::test]
async fn subtree_beyond_item_or_depth_limit_is_rejected() {
    let app = app_of(folders(&TestStorage::memory()).preset(tree("parent").max_depth(3).max_items(4))).await;
    create_folders(&app, &["a", "ab", "abc", "ad", "ae"]).await;
    assert_eq!(app.get("/folders/a/subtree").await.items().len(), 4);
    create_folders(&app, &["af"]).await;
    let refused = app.get("/folders/a/subtree").await;
    assert_eq!((refused.status(), &refused.json()["errors"][0]["code"]), (400, &json!("limit")), "{refused}");
    assert_eq!(app.get("/folders/a/subtree?depth=1").await.items().len(), 4);

    let deep = app.post("/folders").json(json!({"code": "abcd", "parent": "abc"})).await;
    assert_conflict(&deep, "too-deep", "/parent");
    create_folders(&app, &["x"]).await;
    assert_conflict(&app.patch("/folders/x").json(json!({"parent": "abc"})).await, "too-deep", "/parent");
    assert_eq!(app.patch("/folders/x").json(json!({"parent": "ab"})).await.status(), 200);
}

#[tokio::test]
async fn cycles_are_rejected_on_every_path() {
    for storage in TestStorage::all().await {
        let resource = folders(&storage)
            .preset(tree("parent"))
            .preset(audit().readable_by(anyone()).revertible_by(anyone()))
            // Declared after it, and before it all the same.
            .before([Operation::Update], |item: &mut Map<String, Json>, _: &mut Change| {
                if item["name"] == "into the cellar" {
                    item.insert("parent".to_owned(), json!("abc"));
                }
                Ok(())
            })
            .action("hang", Action::on_item(anyone(), hang));
        let app = app_of(resource).await;
        create_folders(&app, &["a", "ab", "abc", "x", "xy"]).await;
        let patch = async |code: &str, parent: Json| {
            app.patch(&format!("/folders/{code}")).json(json!({"parent": parent})).await
        };
        assert_conflict(&patch("a", json!("abc")).await, "cycle", "/parent");
        assert_conflict(&patch("a", json!("a")).await, "cycle", "/parent");
        let put = app.put("/folders/a").json(json!({"name": "a", "parent": "ab"})).await;
        assert_conflict(&put, "cycle", "/parent");
        let hooked = app.patch("/folders/a").json(json!({"name": "into the cellar"})).await;
        assert_conflict(&hooked, "cycle", "/parent");
        for path in ["/folders", "/folders/s"] {
            let own = json!({"code": "s", "parent": "s"});
            let method = if path == "/folders" { "POST" } else { "PUT" };
            assert_conflict(&app.request(method, path).json(own).await, "cycle", "/parent");
        }
        assert_conflict(&app.post("/folders/a/hang").json(json!({"of": "abc"})).await, "cycle", "/parent");

        // Each by itself could be; both together not.
        let both = json!({"items": [{"code": "a", "parent": "xy"}, {"code": "x", "parent": "abc"}]});
        let many = app.patch("/folders/bulk").json(both.clone()).await;
        assert_conflict(&many, "cycle", "/items/1/parent");
        let operations: Vec<_> = both["items"].as_array().unwrap().iter().map(|item| {
            json!({"operation": "update", "resource": "folders", "id": item["code"], "body": {"parent": item["parent"]}})
        }).collect();
        let batch = app.post("/batch").json(json!({"operations": operations})).await;
        assert_conflict(&batch, "cycle", "/operations/1/body/parent");
        let partial = app.patch("/folders/bulk?mode=partial").json(both).await.json();
        let statuses: Vec<_> =
            partial["results"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
        assert_eq!(statuses, [200, 409], "{}: {partial}", storage.name);
        assert_eq!(patch("a", json!(null)).await.status(), 200);

        // What was above once is below now.
        let at = Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        assert_eq!(patch("ab", json!(null)).await.status(), 200);
        assert_eq!(patch("a", json!("abc")).await.status(), 200);
        let reverted = app.post("/folders/ab/revert").json(json!({"as_of": at})).await;
        assert_conflict(&reverted, "cycle", "/parent");
        assert_eq!(app.get("/folders/ab").await.json()["parent"], Json::Null, "{}", storage.name);
    }
}

#[tokio::test]
async fn one_of_two_conflicting_concurrent_moves_succeeds() {
    for storage in TestStorage::all().await {
        let app = app_of(folders(&storage).preset(tree("parent"))).await;
        create_folders(&app, &["a", "ab", "x", "xy"]).await;
        for round in 0..25 {
            let hang = |code: &'static str, parent: &'static str| {
                let request = app.patch(&format!("/folders/{code}")).json(json!({"parent": parent}));
                async move { request.await }
            };
            let (one, other) = join(hang("a", "xy"), hang("x", "ab")).await;
            let mut statuses = [one.status(), other.status()];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 409], "{} {round}: {one} {other}", storage.name);
            let lost = if one.status() == 409 { &one } else { &other };
            assert_conflict(lost, "cycle", "/parent");
            for code in ["a", "x"] {
                let top = app.patch(&format!("/folders/{code}")).json(json!({"parent": null})).await;
                assert_eq!(top.status(), 200, "{top}");
            }
        }
    }
}

#[tokio::test]
async fn concurrent_moves_without_cycle_all_succeed() {
    for storage in TestStorage::all().await {
        let app = app_of(folders(&storage).preset(tree("parent"))).await;
        let moved = ["b", "c", "d", "e", "f", "g", "h"];
        create_folders(&app, &["a", "x"]).await;
        create_folders(&app, &moved).await;
        for parent in ["a", "x"] {
            let answers = join_all(moved.iter().map(|code| {
                let request = app.patch(&format!("/folders/{code}")).json(json!({"parent": parent}));
                async move { request.await }
            }));
            for answer in answers.await {
                assert_eq!(answer.status(), 200, "{}: {answer}", storage.name);
            }
        }
        assert_eq!(codes(&app.get("/folders/x/children").await), moved, "{}", storage.name);
    }
}

#[tokio::test]
async fn item_with_children_is_not_deleted() {
    for storage in TestStorage::all().await {
        let app = app_of(folders(&storage).preset(tree("parent"))).await;
        create_folders(&app, &["a", "ab", "x", "xy"]).await;
        let refused = app.delete("/folders/a").await;
        assert_eq!((refused.status(), &refused.json()["code"]), (409, &json!("has-children")), "{refused}");
        let wrong = app.delete("/folders/bulk").json(json!({"ids": ["x", "xy"]})).await;
        assert_eq!((wrong.status(), faults(&wrong.json())), (409, vec![("/ids/0", "has-children")]));
        let right = app.delete("/folders/bulk").json(json!({"ids": ["xy", "x"]})).await;
        assert_eq!(right.status(), 200, "{}: {right}", storage.name);
        assert_eq!(app.delete("/folders/ab").await.status(), 204);
        assert_eq!(app.delete("/folders/a").await.status(), 204);
    }
}

#[tokio::test]
async fn soft_deleted_items_are_not_part_of_trees() {
    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
    struct Shelf {
        id: Uuid,
        parent_id: Option<Uuid>,
        deleted_at: Option<DateTime<Utc>>,
    }
    for storage in TestStorage::all().await {
        let shelves = define_resource::<Shelf>("shelves")
            .adapter(storage.table("shelves"))
            .permissions(Permissions::all(anyone()))
            .preset(soft_delete())
            .preset(tree("parent_id"));
        let app = app_of(shelves).await;
        let below = async |parent: &Json| {
            let made = app.post("/shelves").json(json!({"parent_id": parent})).await;
            assert_eq!(made.status(), 201, "{made}");
            made.json()["id"].clone()
        };
        let top = below(&Json::Null).await;
        let (one, other) = (below(&top).await, below(&top).await);
        let path = |id: &Json| format!("/shelves/{}", id.as_str().unwrap());
        assert_eq!(app.delete(&path(&top)).await.json()["code"], "has-children", "{}", storage.name);
        assert_eq!(app.delete(&path(&one)).await.status(), 200);
        let left = app.get(&format!("{}/children", path(&top))).await.items();
        assert_eq!((left.len(), &left[0]["id"]), (1, &other));
        assert_eq!(app.get(&format!("{}/subtree", path(&top))).await.items().len(), 1);
        assert_eq!(app.delete(&path(&other)).await.status(), 200);
        assert_eq!(app.delete(&path(&top)).await.status(), 200, "{}: nothing lies below it", storage.name);
        // What is made in the same batch is there to lie below.
        let operations = json!({"operations": [
            {"operation": "create", "resource": "shelves", "body": {}},
            {"operation": "create", "resource": "shelves", "body": {"parent_id": {"$ref": "0/id"}}},
        ]});
        let made = app.post("/batch").json(operations).await.json();
        let both = [&made["results"][0]["body"], &made["results"][1]["body"]];
        assert_eq!((&both[1]["parent_id"], both[0]["id"].is_string()), (&both[0]["id"], true), "{made}");
        // An id is the same however a body writes it.
        let alone = below(&Json::Null).await;
        let loud = alone.as_str().unwrap().to_uppercase();
        assert_conflict(
            &app.patch(&path(&alone)).json(json!({"parent_id": loud})).await,
            "cycle",
            "/parent_id",
        );
    }
}

/// Folders of which some are hidden from all but readers, and, if so, which lies below which.
async fn app_with_hidden_folders(storage: &TestStorage, hides_parent: bool) -> TestApp {
    let shown = resourceful::access::rows(json!({"of": {"ne": "nobody"}}));
    let mut resource = folders(storage)
        .permissions(Permissions::read(signed_in()).write(role("editor")))
        .policy_on([Operation::Read, Operation::List], any_of([shown, role("reader")]))
        .preset(tree("parent"));
    if hides_parent {
        resource = resource.visible_to(["parent"], role("reader"));
    }
    let app = app_of(resource).await;
    let row = |code: &str, parent: Option<&str>, of: &str| json!({"code": code, "name": code, "parent": parent, "of": of});
    let rows = [
        row("a", None, ""),
        row("ab", Some("a"), "nobody"),
        row("abc", Some("ab"), ""),
        row("ad", Some("a"), ""),
        row("ade", Some("ad"), ""),
    ];
    app.app().load().rows("folders", rows).unwrap().commit().await.unwrap();
    app
}

#[tokio::test]
async fn hidden_item_hides_its_subtree() {
    for storage in TestStorage::all().await {
        let app = app_with_hidden_folders(&storage, false).await;
        let below = app.get("/folders/a/subtree").bearer("ada").await;
        assert_eq!(levels(&below), [(1, "ad".to_owned()), (2, "ade".to_owned())], "{}", storage.name);
        assert_eq!(app.get("/folders/ab/children").bearer("ada").await.status(), 404);
        assert_eq!(app.get("/folders/a/subtree").bearer("rita").await.items().len(), 4);
        assert_eq!(app.get("/folders/a/children").await.status(), 401);
    }
    let app = app_with_hidden_folders(&TestStorage::memory(), true).await;
    for path in ["/folders/a/children", "/folders/a/subtree"] {
        assert_eq!(
            app.get(path).bearer("ada").await.status(),
            404,
            "which lies below which is not ada's to know"
        );
        assert_eq!(app.get(path).bearer("rita").await.status(), 200);
    }
}

#[tokio::test]
async fn policy_matrix_holds_for_subtrees() {
    for storage in TestStorage::all().await {
        for hides_parent in [false, true] {
            let storage = if hides_parent { TestStorage::memory() } else { storage.clone() };
            let app = app_with_hidden_folders(&storage, hides_parent).await;
            let mut matrix = policy_matrix(&app).caller("nobody", Actor::anonymous(), []);
            for (token, actor) in
                [("ada", Actor::user("ada")), ("rita", Actor::user("rita").with_role("reader"))]
            {
                let header = format!("Bearer {token}");
                matrix = matrix.caller(token, actor, [("authorization", header.as_str())]);
            }
            matrix.run().await.unwrap().assert_passed();
        }
    }
}

#[tokio::test]
async fn tree_requires_its_own_nullable_parent_field() {
    let said = |resource: ResourceBuilder| resource.build().unwrap_err().to_string();
    let storage = TestStorage::memory();
    assert!(said(folders(&storage).preset(tree("name"))).contains("cannot hold an id or null"));
    assert!(said(folders(&storage).preset(tree("paernt"))).contains("Did you mean `parent`?"));
    let twice = said(folders(&storage).preset(tree("parent")).preset(slug("name").field("parent")));
    assert!(
        twice.contains("the preset `tree` and the preset `slug` both claim the field `parent`"),
        "{twice}"
    );
    let twice = said(folders(&storage).preset(tree("parent")).preset(tree("of")));
    assert!(twice.contains("the preset `tree` twice claim the path /{id}/children"), "{twice}");

    let app = app_of(folders(&storage).preset(tree("parent").max_depth(5))).await;
    let document = app.get("/openapi.json").await.json();
    let paths = &document["paths"];
    let children = &paths["/folders/{id}/children"]["get"];
    let list = children["responses"]["200"]["content"]["application/json"]["schema"].clone();
    assert_eq!(list, paths["/folders"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]);
    let names = |path: &str| {
        let all = crate::openapi::parameters(&document, path, "get").into_iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/folders/{id}/children")[1..], names("/folders"), "all of a list's, after the id");
    assert_eq!(names("/folders/{id}/subtree")[..2], ["id", "depth"]);
    let levels = crate::openapi::parameters(&document, "/folders/{id}/subtree", "get")[1];
    assert_eq!(levels["schema"]["maximum"], 5);
    assert!(document["components"]["schemas"].get("Folder_Subtree").is_some());
}
