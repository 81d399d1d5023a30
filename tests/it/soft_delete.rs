//! Items that are deleted and still there.

use resourceful::ResourceBuilder;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestRequest, policy_matrix};
use serde_json::json;

use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Folder {
    id: i64,
    name: String,
    deleted_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Paper {
    id: i64,
    name: String,
    user_id: String,
    folder_id: Option<i64>,
    deleted_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

fn papers(storage: &TestStorage) -> ResourceBuilder {
    papers_with(storage, soft_delete())
}

fn papers_with(storage: &TestStorage, preset: resourceful::resource::SoftDelete) -> ResourceBuilder {
    define_resource::<Paper>("papers")
        .adapter(storage.table("papers"))
        .permissions(Permissions::read(anyone()).write(signed_in()).delete(role("clerk")))
        .unique(["name"])
        .version("version")
        .relation(belongs_to("folder", "folders"))
        .preset(timestamps())
        .preset(owned_by("user_id").open([Operation::Read, Operation::List]).or(role("clerk")))
        .preset(preset)
}

async fn app(storage: &TestStorage) -> TestApp {
    app_of(papers(storage), storage).await
}

async fn app_of(papers: ResourceBuilder, storage: &TestStorage) -> TestApp {
    let folders = define_resource::<Folder>("folders")
        .adapter(storage.table("folders"))
        .permissions(Permissions::all(anyone()))
        .filterable(["name"])
        .relation(has_many("papers", "papers").key("folder_id"))
        .preset(soft_delete().read_deleted(role("clerk")).restore(nobody()))
        .build()
        .unwrap();
    let tokens = BearerTokens::new()
        .token("ada", Actor::user("ada"))
        .token("bob", Actor::user("bob"))
        .token("clerk", Actor::user("cleo").with_role("clerk"));
    let app = create_app(AppPreset::Testing).authenticator(tokens);
    TestApp::build(app.resource(papers.build().unwrap()).resource(folders)).await.unwrap()
}

async fn paper(app: &TestApp, name: &str, folder: serde_json::Value) -> String {
    let created = app.post("/papers").bearer("ada").json(json!({"name": name, "folder_id": folder})).await;
    assert_eq!((created.status(), created.json()["deleted_at"].clone()), (201, json!(null)), "{created}");
    created.header("location").unwrap().to_owned()
}

async fn names(request: TestRequest) -> Vec<String> {
    let list = request.await;
    assert_eq!(list.status(), 200, "{list}");
    list.items().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn deleted_item_is_hidden_on_every_path_and_can_be_restored() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        app.post("/folders").json(json!({"name": "f"})).await;
        let (first, second) = (paper(&app, "a", json!(1)).await, paper(&app, "b", json!(1)).await);
        let deleted = app.delete(&first).bearer("clerk").header("if-match", "\"1\"").await;
        assert_eq!(
            (deleted.status(), deleted.header("etag")),
            (200, Some("\"2\"")),
            "{}: {deleted}",
            storage.name
        );
        let item = deleted.json();
        assert!(item["deleted_at"].is_string() && item["updated_at"] != item["created_at"], "{item}");

        for request in [
            app.get(&first),
            app.patch(&first).bearer("clerk").json(json!({"name": "x"})),
            app.put(&first).bearer("clerk").json(json!({"name": "x"})),
            app.delete(&first).bearer("clerk"),
        ] {
            assert_eq!(request.await.status(), 404);
        }
        assert_eq!(names(app.get("/papers")).await, ["b"]);
        assert_eq!(names(app.get("/papers?folder.name=f")).await, ["b"]);
        let included = app.get("/folders/1?include=papers").await.json();
        assert_eq!(included["papers"].as_array().unwrap().len(), 1, "{included}");
        let exact = app.get("/papers").header("prefer", "count=exact").await.json();
        assert_eq!(exact["page"]["total"], 1);
        let again = app.post("/papers").bearer("ada").json(json!({"name": "a"})).await;
        assert_eq!(again.json()["code"], "unique", "what it holds stays taken");

        let restore = || app.post(&format!("{first}/restore"));
        assert_eq!((restore().await.status(), restore().bearer("ada").await.status()), (401, 403));
        let restored = restore().bearer("clerk").await;
        assert_eq!(
            (restored.status(), restored.json()["deleted_at"].clone()),
            (200, json!(null)),
            "{restored}"
        );
        assert_eq!(names(app.get("/papers")).await, ["a", "b"]);
        let live = restore().bearer("clerk").await;
        assert_eq!((live.status(), live.json()["code"].clone()), (409, json!("not-deleted")), "{live}");
        app.delete(&second).bearer("clerk").await;
        let types: Vec<_> = app.events().await.into_iter().map(|event| event.event_type).collect();
        let expected = [
            "folders.created",
            "papers.created",
            "papers.created",
            "papers.deleted",
            "papers.restored",
            "papers.deleted",
        ];
        assert_eq!(types, expected);
    }
}

#[tokio::test]
async fn permitted_callers_list_deleted_items_on_request() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let first = paper(&app, "a", json!(null)).await;
        paper(&app, "b", json!(null)).await;
        app.delete(&first).bearer("clerk").await;
        let list = |query: &str| app.get(&format!("/papers?{query}"));
        assert_eq!(names(list("deleted=include").bearer("clerk")).await, ["a", "b"]);
        assert_eq!(names(list("deleted=only").bearer("clerk")).await, ["a"]);
        assert_eq!(app.get(&format!("{first}?deleted=include")).bearer("clerk").await.json()["name"], "a");
        let body = app.request("QUERY", "/papers").bearer("clerk").json(json!({"deleted": "only"}));
        assert_eq!(names(body).await, ["a"]);
        // Whoever may read the living may not read the dead.
        assert_eq!(
            (list("deleted=only").await.status(), list("deleted=only").bearer("ada").await.status()),
            (401, 403)
        );
        assert_eq!(app.get(&format!("{first}?deleted=only")).bearer("ada").await.status(), 403);
        let wrong = list("deleted=yes").bearer("clerk").await;
        assert_eq!((wrong.status(), wrong.json()["errors"][0]["parameter"].clone()), (400, json!("deleted")));
        let body = app.request("QUERY", "/papers").bearer("clerk").json(json!({"deleted": 1})).await;
        assert_eq!(faults(&body.json()), [("/deleted", "type")]);
        // A cursor of one view does not open another.
        let page = list("deleted=include&limit=1").bearer("clerk").await.json();
        let cursor = page["page"]["next"].as_str().unwrap();
        let next = list(&format!("deleted=include&limit=1&after={cursor}")).bearer("clerk");
        assert_eq!(names(next).await, ["b"]);
        assert_eq!(
            list(&format!("limit=1&after={cursor}")).bearer("clerk").await.json()["code"],
            "invalid-cursor"
        );
    }
}

#[tokio::test]
async fn a_deleted_item_cannot_be_referred_to_and_is_not_included() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        app.post("/folders").json(json!({"name": "f"})).await;
        let held = paper(&app, "a", json!(1)).await;
        assert_eq!(app.delete("/folders/1").await.status(), 200, "what refers to it does not hold it");
        let item = app.get(&format!("{held}?include=folder")).await.json();
        assert_eq!(item["folder"], json!(null), "{item}");
        let refers = app.post("/papers").bearer("ada").json(json!({"name": "b", "folder_id": 1})).await;
        assert_eq!((refers.status(), faults(&refers.json())), (409, vec![("/folder_id", "foreign-key")]));
        assert_eq!(app.post("/folders/1/restore").bearer("clerk").await.status(), 403, "nobody may");
        assert_eq!(names(app.get("/folders?deleted=only").bearer("clerk")).await, ["f"]);
    }
}

#[tokio::test]
async fn policy_matrix_and_openapi_cover_deleted_rows() {
    for storage in TestStorage::all().await {
        // Of what is deleted, each sees their own.
        let own = soft_delete().read_deleted(any_of([owner("user_id"), role("clerk")]));
        let app = app_of(papers_with(&storage, own), &storage).await;
        for name in ["a", "b"] {
            let path = paper(&app, name, json!(null)).await;
            if name == "a" {
                app.delete(&path).bearer("clerk").await;
            }
        }
        let mut matrix = policy_matrix(&app).caller("nobody", Actor::anonymous(), []);
        for (token, actor) in [
            ("ada", Actor::user("ada")),
            ("bob", Actor::user("bob")),
            ("clerk", Actor::user("cleo").with_role("clerk")),
        ] {
            matrix = matrix.caller(token, actor, [("authorization", format!("Bearer {token}").as_str())]);
        }
        let report = matrix.run().await.unwrap();
        report.assert_passed();
        let document = app.get("/openapi.json").await.json();
        let delete = &document["paths"]["/papers/{id}"]["delete"]["responses"];
        assert!(delete["200"].is_object() && delete.get("204").is_none(), "{delete}");
        let restore = &document["paths"]["/papers/{id}/restore"]["post"];
        assert!(restore["description"].as_str().unwrap().contains("the role `clerk`"), "{restore}");
        assert_eq!(names(app.get("/papers?deleted=only").bearer("ada")).await, ["a"]);
        assert!(names(app.get("/papers?deleted=only").bearer("bob")).await.is_empty());
    }
}

#[tokio::test]
async fn soft_delete_requires_its_own_timestamp_field() {
    let storage = TestStorage::memory();
    let said = |builder: ResourceBuilder| builder.build().unwrap_err().to_string();
    let absent = said(papers(&storage).preset(soft_delete().field("gone_at")));
    assert!(absent.contains("gone_at: Option<DateTime<Utc>>"), "{absent}");
    let twice = said(papers(&storage).fill("deleted_at", resourceful::resource::Fill::Actor));
    assert!(
        twice.contains("the preset `soft_delete` and .fill(…) both claim the field `deleted_at`"),
        "{twice}"
    );
    let unknown = {
        let plain = define_resource::<Folder>("folders").adapter(storage.table("folders"));
        let app = create_app(AppPreset::Testing)
            .resource(plain.permissions(Permissions::all(anyone())).build().unwrap());
        TestApp::build(app).await.unwrap().get("/folders?deleted=include").await
    };
    assert_eq!(unknown.json()["errors"][0]["code"], "unknown", "{unknown}");
}

#[tokio::test]
async fn history_of_deleted_items_needs_read_deleted() {
    for storage in TestStorage::all().await {
        let app = app_of(papers(&storage).preset(audit().readable_by(signed_in())), &storage).await;
        let path = paper(&app, "a", json!(null)).await;
        let history = async |who: &str| app.get(&format!("{path}/history")).bearer(who).await.status();
        assert_eq!((history("ada").await, history("clerk").await), (200, 200), "{}", storage.name);
        app.delete(&path).bearer("clerk").await;
        assert_eq!((history("ada").await, history("clerk").await), (404, 200));
    }
}

#[tokio::test]
async fn delete_with_idempotency_key_is_replayed() {
    for storage in TestStorage::all().await {
        let app = app_of(papers(&storage).preset(idempotency()), &storage).await;
        let path = paper(&app, "a", json!(null)).await;
        let delete = || app.delete(&path).bearer("clerk").header("idempotency-key", "d");
        let (first, again) = (delete().await, delete().await);
        assert_eq!((first.status(), again.status()), (200, 200), "{}: {again}", storage.name);
        assert_eq!((again.header("idempotent-replayed"), again.bytes()), (Some("true"), first.bytes()));
    }
}

#[tokio::test]
async fn old_deleted_items_are_purged_with_an_event() {
    for storage in TestStorage::all().await {
        let purged = papers(&storage).preset(audit().readable_by(signed_in()));
        let purged = purged.soft_delete(soft_delete().field("gone_at"));
        assert!(purged.build().is_err(), "only one way to delete");
        let resource = define_resource::<Paper>("papers")
            .adapter(storage.table("papers"))
            .permissions(Permissions::all(anyone()))
            .preset(soft_delete().purge_after(Duration::from_secs(3600)));
        let app = create_app(AppPreset::Testing).resource(resource.build().unwrap());
        let app = TestApp::build(app).await.unwrap();
        let now = Utc::now();
        let of = |id: i64, deleted_at: Option<DateTime<Utc>>| {
            let (name, user_id) = (format!("p{id}"), "ada".to_owned());
            Paper { id, name, user_id, folder_id: None, deleted_at, updated_at: now, created_at: now }
        };
        let hours = |hours: i64| Some(now - chrono::Duration::hours(hours));
        let rows = [of(1, None), of(2, hours(2)), of(3, hours(0))];
        app.app().load().rows("papers", rows).unwrap().commit().await.unwrap();
        app.app().sweep().await.unwrap();
        assert_eq!(names(app.get("/papers?deleted=include")).await, ["p1", "p3"], "{}", storage.name);
        let events = app.events().await;
        assert_eq!(
            (events.len(), events[0].event_type.as_str(), events[0].subject.as_str()),
            (1, "papers.purged", "2")
        );
    }
}
