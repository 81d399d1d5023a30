//! Resources bound to tables that others made and write to.

use resourceful::adapter::Migration;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;

use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Meeting {
    id: i64,
    title: String,
    starts: DateTime<Utc>,
    ends: Option<DateTime<Utc>>,
    loud: Option<String>,
}

async fn run_sql(place: &TestStorage, number: u32, sql: &str) {
    let migration = Migration::new("others", number, "rows", sql);
    place.storage().migrate(&[migration], true).await.unwrap();
}

fn meetings(place: &TestStorage) -> resourceful::ResourceBuilder {
    define_resource::<Meeting>("meetings")
        .adapter(resourceful::adapter::Table::new(place.storage().clone(), "meetings"))
        .permissions(Permissions::all(anyone()))
        .sortable(["starts", "ends"])
        .read_only(["loud"])
        .limits(1, 10)
        .preset(audit().readable_by(signed_in()))
}

/// Places with a table that another program made, in which one row holds times that nothing can say.
async fn places_with_existing_table() -> Vec<TestStorage> {
    let mut places = Vec::new();
    for place in TestStorage::all().await {
        let (id, time, bad) = match place.name {
            "memory" => continue,
            "sqlite" => ("INTEGER PRIMARY KEY", "TEXT", "'whenever'"),
            _ => ("bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "timestamptz", "'infinity'"),
        };
        let statements = format!(
            "CREATE TABLE meetings (id {id}, title TEXT NOT NULL, starts {time} NOT NULL, ends {time},
               loud TEXT GENERATED ALWAYS AS (upper(title)) STORED);
             INSERT INTO meetings (title, starts, ends) VALUES
               ('first', '2026-01-01T00:00:00+00:00', NULL), ('second', '2026-01-02T00:00:00+00:00', {bad}),
               ('third', {bad}, NULL), ('fourth', '2026-01-04T00:00:00+00:00', '2026-01-05T00:00:00+00:00')"
        );
        run_sql(&place, 1, &statements).await;
        places.push(place);
    }
    places
}

async fn start(place: &TestStorage) -> TestApp {
    let resource = meetings(place).build().unwrap();
    TestApp::build(create_app(AppPreset::Testing).resource(resource)).await.unwrap()
}

#[tokio::test]
async fn unreadable_value_does_not_fail_a_list_or_page() {
    for place in places_with_existing_table().await {
        let app = start(&place).await;
        let list = app.get("/meetings?limit=10").await;
        assert_eq!(list.status(), 200, "{list}");
        let titles: Vec<_> = list.items().iter().map(|item| item["title"].clone()).collect();
        assert_eq!(titles, ["first", "second", "third", "fourth"]);
        assert_eq!(list.items()[2]["starts"], json!(null));
        for sort in ["starts", "-starts", "ends", "-ends", "-ends,starts"] {
            let whole = app.get(&format!("/meetings?limit=10&sort={sort}")).await.items();
            let mut paged_items = Vec::new();
            let mut next = format!("/meetings?limit=1&sort={sort}");
            for _ in 0..5 {
                let page = app.get(&next).await;
                assert_eq!(page.status(), 200, "{next}: {page}");
                paged_items.extend(page.items());
                let Some(cursor) = page.json()["page"]["next"].as_str().map(str::to_owned) else { break };
                next = format!("/meetings?limit=1&sort={sort}&after={cursor}");
            }
            assert_eq!(paged_items, whole, "{sort} on {}", place.name);
        }
        let alone = app.get("/meetings/3").await;
        assert_eq!((alone.status(), &alone.json()["starts"]), (200, &json!(null)), "{alone}");
        let tag = alone.header("etag").unwrap();
        assert_eq!(app.get("/meetings/3").header("if-none-match", tag).await.status(), 304);
    }
}

#[tokio::test]
async fn patch_keeps_an_unreadable_nullable_value_and_requires_others() {
    for place in places_with_existing_table().await {
        let app = start(&place).await;
        // A field that may be null stays as it is stored.
        let tag = app.get("/meetings/2").await.header("etag").unwrap().to_owned();
        let patched = app.patch("/meetings/2").header("if-match", &tag).json(json!({"title": "2nd"})).await;
        assert_eq!(patched.status(), 200, "{patched}");
        assert_eq!((&patched.json()["ends"], &patched.json()["loud"]), (&json!(null), &json!("2ND")));
        let bad = if place.name == "sqlite" { "'whenever'" } else { "'infinity'" };
        run_sql(&place, 2, &format!("UPDATE meetings SET title = 'still' WHERE id = 2 AND ends = {bad}"))
            .await;
        assert_eq!(app.get("/meetings/2").await.json()["title"], "still");
        // The model needs the other one.
        let missing = app.patch("/meetings/3").json(json!({"title": "3rd"})).await;
        assert_eq!(
            (missing.status(), faults(&missing.json())),
            (422, vec![("/starts", "unreadable")]),
            "{missing}"
        );
        let completed =
            app.patch("/meetings/3").json(json!({"title": "3rd", "starts": "2026-01-03T00:00:00Z"})).await;
        assert_eq!(
            (completed.status(), &completed.json()["starts"]),
            (200, &json!("2026-01-03T00:00:00Z")),
            "{completed}"
        );
        // A generated column is left out of what is written.
        let created =
            app.post("/meetings").json(json!({"title": "new", "starts": "2026-01-01T00:00:00Z"})).await;
        assert_eq!((created.status(), &created.json()["loud"]), (201, &json!("NEW")), "{created}");
        let set = app
            .post("/meetings")
            .json(json!({"title": "x", "starts": "2026-01-01T00:00:00Z", "loud": "y"}))
            .await;
        assert_eq!((set.status(), faults(&set.json())), (422, vec![("/loud", "read-only")]), "{set}");
        for id in [2, 3, 5] {
            assert_eq!(app.delete(&format!("/meetings/{id}")).await.status(), 204, "{id} on {}", place.name);
        }
    }
}

#[tokio::test]
async fn declaration_that_mismatches_its_table_is_refused_with_a_fix() {
    for place in places_with_existing_table().await {
        let resource = define_resource::<Meeting>("meetings")
            .adapter(resourceful::adapter::Table::new(place.storage().clone(), "meetings"))
            .permissions(Permissions::all(anyone()))
            .unique(["title", "starts"])
            .index(["ends"])
            .build()
            .unwrap();
        let errors = TestApp::build(create_app(AppPreset::Testing).resource(resource)).await.err().unwrap();
        let found: Vec<_> =
            errors.faults().iter().map(|fault| (fault.field.as_deref(), fault.help.as_str())).collect();
        // What is unique is compared when everything else fits.
        assert_eq!(found, [(Some("loud"), ".read_only([\"loud\"])")], "on {}", place.name);
        let resource = meetings(&place).unique(["title", "starts"]).index(["ends"]).build().unwrap();
        let errors = TestApp::build(create_app(AppPreset::Testing).resource(resource)).await.err().unwrap();
        let [fault] = errors.faults() else { panic!("{errors}") };
        assert_eq!(fault.field.as_deref(), Some("title"));
        run_sql(&place, 2, &fault.help).await;
        // The index for speed is only asked for in the log.
        let resource = meetings(&place).unique(["title", "starts"]).index(["ends"]).build().unwrap();
        assert!(TestApp::build(create_app(AppPreset::Testing).resource(resource)).await.is_ok());
    }
}
