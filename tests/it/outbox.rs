//! Every change leaves its event, in the transaction of the change.

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use resourceful::{Change, Event};
use serde_json::json;

use crate::policies::model;
use crate::support::{EDITOR, TestStorage, create, on_every_storage, path, product};

fn types_and_subjects(events: &[Event]) -> Vec<(String, String)> {
    events.iter().map(|event| (event.event_type.clone(), event.subject.clone())).collect()
}

#[tokio::test]
async fn each_change_writes_one_event_and_a_failed_one_none() {
    on_every_storage(|app| async move {
        let created = create(&app, "lamp", json!({})).await;
        let id = created["id"].as_str().unwrap().to_owned();
        let at = path(&created);
        app.patch(&at).json(json!({"price_cents": 200})).await;
        app.patch(&at).json(json!({"price_cents": 200})).await; // changes nothing
        let put = app.put(&at).json(product("lamp", json!({"price_cents": 300}))).await;
        assert_eq!(put.status(), 200, "{put}");
        app.put("/categories/a").json(json!({"title": "A", "region": "north"})).await;
        app.post("/notes").bearer(EDITOR).json(json!({"text": "hello"})).await;
        app.delete(&at).await;
        for refused in [
            app.post("/products").json(json!({"name": ""})).await,
            app.patch(&at).json(json!({"price_cents": 1})).await,
            app.delete(&at).await,
            app.post("/categories").json(json!({"code": "a", "title": "again", "region": "north"})).await,
        ] {
            assert!(refused.status() >= 400, "{refused}");
        }
        let events = app.events().await;
        let expected = [
            ("products.created", id.as_str()),
            ("products.updated", id.as_str()),
            ("products.updated", id.as_str()),
            ("categories.created", "a"),
            ("notes.created", "1"),
            ("products.deleted", id.as_str()),
        ];
        let expected = expected.map(|(event, subject)| (event.to_owned(), subject.to_owned()));
        assert_eq!(types_and_subjects(&events), expected);
        let mut sequences: Vec<i64> = events.iter().map(|event| event.sequence.parse().unwrap()).collect();
        let sorted = sequences.clone();
        sequences.sort_unstable();
        sequences.dedup();
        assert_eq!(sequences, sorted, "sequences ascend");
    })
    .await;
}

#[tokio::test]
async fn event_data_equals_the_get_response_without_write_only_fields() {
    on_every_storage(|app| async move {
        let created = create(&app, "lamp", json!({"weight": "1.50"})).await;
        let patched = app.patch(&path(&created)).json(json!({"rating": 4.5, "secret": "hidden words"})).await;
        app.delete(&path(&created)).await;
        let events = app.events().await;
        assert_eq!(events[0].data, created);
        assert_eq!(events[1].data, patched.json());
        assert_eq!(events[2].data, patched.json(), "as it was before it went");
        assert_eq!((events[0].source.as_str(), events[0].specversion.as_str()), ("/products", "1.0"));
        assert_eq!(events[0].dataschema, None, "a relative reference is none of CloudEvents");
        assert!(events[0].id.get_version_num() == 7 && events[0].id != events[1].id);
        let all = serde_json::to_string(&events).unwrap();
        assert!(
            !all.contains("hidden words") && !all.contains("s3cret"),
            "a write-only field is no part of it"
        );
    })
    .await;
}

#[tokio::test]
async fn event_carries_tenant_and_traceparent() {
    for storage in TestStorage::all().await {
        let orders = define_dynamic_resource("orders", model(&["id", "org_id", "text"]))
            .adapter(storage.table("orders"))
            .id(Id::Text)
            .permissions(Permissions::all(signed_in()))
            .preset(multi_tenant("org_id"))
            .build()
            .unwrap();
        let tokens =
            BearerTokens::new().token("ada", Actor::user("ada").in_tenant("acme", Vec::<String>::new()));
        let app = create_app(AppPreset::Testing).authenticator(tokens).resource(orders);
        let app = TestApp::build(app).await.unwrap();
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let request = app.post("/orders").bearer("ada").header("traceparent", trace);
        assert_eq!(request.json(json!({"text": "x"})).await.status(), 201);
        let event = app.events().await.remove(0);
        assert_eq!((event.tenantid.as_deref(), event.traceparent.as_deref()), (Some("acme"), Some(trace)));
    }
}

#[tokio::test]
async fn enlisted_change_writes_its_event_and_rolls_back_with_the_commit() {
    for storage in TestStorage::all().await {
        let notes = define_dynamic_resource("notes", model(&["code", "body"]))
            .adapter(storage.table("notes"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .before([Operation::Create], |note: &mut serde_json::Map<String, _>, change: &mut Change| {
                change.create("copies", json!({"code": note["body"], "body": note["code"]}));
                Ok(())
            })
            .build()
            .unwrap();
        let quiet = |name: &str, events| {
            define_dynamic_resource(name, model(&["code", "body"]))
                .adapter(storage.table(name))
                .id_field("code")
                .permissions(Permissions::all(anyone()))
                .events(events)
                .build()
                .unwrap()
        };
        let app = create_app(AppPreset::Testing).resource(notes);
        let app = TestApp::build(app.resource(quiet("copies", true)).resource(quiet("quiet", false)))
            .await
            .unwrap();
        let post = async |path: &str, code: &str, body: &str| {
            app.post(path).json(json!({"code": code, "body": body})).await.status()
        };
        assert_eq!(post("/notes", "a", "x").await, 201);
        assert_eq!(post("/notes", "b", "x").await, 409, "the copy clashes");
        assert_eq!(post("/quiet", "c", "x").await, 201);
        let expected = [("notes.created", "a"), ("copies.created", "x")];
        assert_eq!(
            types_and_subjects(&app.events().await),
            expected.map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }
}
