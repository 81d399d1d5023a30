//! What may stand in an index and in a path: the same on every storage.

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use resourceful::{Change, Error};
use serde_json::{Value as Json, json};

use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Entry {
    code: String,
    name: String,
    note: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    text: String,
}

fn entries(place: &TestStorage) -> resourceful::ResourceBuilder {
    define_resource::<Entry>("entries")
        .adapter(place.table("entries"))
        .permissions(Permissions::all(anyone()))
        .id_field("code")
        .unique(["name"])
        .index(["note"])
        .index(["tags"])
        .filterable(["text"])
        .sortable(["text"])
        .limits(1, 10)
        .preset(bulk())
}

/// Enlists an entry whose id is in the text of the one that is created.
fn enlist(entry: &mut Entry, change: &mut Change) -> Result<(), Error> {
    if let Some(code) = entry.text.strip_prefix("enlist:") {
        change.create("entries", json!({"code": code, "name": format!("of {code}"), "note": ""}));
    }
    Ok(())
}

fn entry(code: &str, change: &[(&str, Json)]) -> Json {
    let mut entry = json!({"code": code, "name": format!("name of {code}"), "note": "n"});
    for (name, value) in change {
        entry[*name] = value.clone();
    }
    entry
}

#[tokio::test]
async fn indexed_text_over_the_size_limit_is_422_at_its_field() {
    for place in TestStorage::all().await {
        let app = create_app(AppPreset::Testing).resource(entries(&place).build().unwrap());
        let app = TestApp::build(app).await.unwrap();
        let long = |bytes: usize| json!("x".repeat(bytes));
        let tags = |number: usize| json!(vec!["tag"; number]);
        // Two bytes a character: bytes are counted.
        let wide = |characters: usize| json!("é".repeat(characters));
        for (field, fits, too_long) in [
            ("code", long(512), long(513)),
            ("name", long(2_672), long(2_673)),
            ("name", wide(1_336), wide(1_337)),
            ("note", long(2_152), long(2_153)),
            ("tags", tags(193), tags(194)),
        ] {
            let (status, found) = {
                let answer = app.post("/entries").json(entry("a", &[(field, too_long.clone())])).await;
                (
                    answer.status(),
                    faults(&answer.json())
                        .iter()
                        .map(|(at, code)| format!("{at} {code}"))
                        .collect::<Vec<_>>(),
                )
            };
            assert_eq!((status, found), (422, vec![format!("/{field} length")]), "{field} on {}", place.name);
            let created = app.post("/entries").json(entry("a", &[(field, fits)])).await;
            assert_eq!(created.status(), 201, "{field} on {}: {created}", place.name);
            let location = created.header("location").unwrap().to_owned();
            if field != "code" {
                let patched = app.patch(&location).json(json!({field: too_long})).await;
                assert_eq!(patched.status(), 422, "{field} on {}: {patched}", place.name);
                let put = app.put(&location).json(entry("a", &[(field, too_long.clone())])).await;
                assert_eq!(put.status(), 422, "{field} on {}: {put}", place.name);
                let items = json!({"items": [{"code": "a", field: too_long.clone()}]});
                let many = app.patch("/entries/bulk").json(items).await;
                assert_eq!(
                    faults(&many.json()),
                    [(format!("/items/0/{field}").as_str(), "length")],
                    "{many}"
                );
            }
            let many = json!({"items": [entry("b", &[]), entry("c", &[(field, too_long.clone())])]});
            let many = app.post("/entries/bulk").json(many).await;
            assert_eq!(faults(&many.json()), [(format!("/items/1/{field}").as_str(), "length")], "{many}");
            let loaded: Entry =
                serde_json::from_value(entry("d", &[("tags", json!([])), (field, too_long)])).unwrap();
            assert!(app.app().load().rows("entries", [loaded]).is_err());
            assert_eq!(app.delete(&location).await.status(), 204);
        }
        let put =
            app.put(&format!("/entries/{}", "y".repeat(513))).json(json!({"name": "n", "note": "n"})).await;
        assert_eq!((put.status(), faults(&put.json())), (422, vec![("/code", "length")]), "{put}");
        // What is in no index is as long as it likes, and can be asked for, sorted by and paged through.
        for code in ["p", "q"] {
            let text = json!(format!("{code}{}", "z".repeat(5_000)));
            assert_eq!(app.post("/entries").json(entry(code, &[("text", text)])).await.status(), 201);
        }
        let first = app.get("/entries?sort=text").await;
        assert_eq!(first.status(), 200, "{first}");
        let asked = format!("/entries?name={0}&note[gte]={0}&code={0}", "v".repeat(3_000));
        assert_eq!(app.get(&asked).await.status(), 200, "on {}", place.name);
    }
}

#[tokio::test]
async fn id_that_no_path_can_address_is_refused() {
    for place in TestStorage::all().await {
        let resource = entries(&place).before([Operation::Create], enlist).build().unwrap();
        let app = TestApp::build(create_app(AppPreset::Testing).resource(resource)).await.unwrap();
        for id in ["", ".", "..", "..."] {
            let created = app.post("/entries").json(entry(id, &[])).await;
            assert_eq!(
                (created.status(), faults(&created.json())),
                (422, vec![("/code", "reserved")]),
                "{id:?}"
            );
            let many =
                app.post("/entries/bulk").json(json!({"items": [entry("a", &[]), entry(id, &[])]})).await;
            assert_eq!(faults(&many.json()), [("/items/1/code", "reserved")], "{id:?}: {many}");
            let row: Entry = serde_json::from_value(entry(id, &[])).unwrap();
            let loaded = app.app().load().rows("entries", [row]).map(drop).unwrap_err();
            assert_eq!(loaded.faults()[0].code, "reserved", "{id:?}");
            // What a hook enlists is the application's fault.
            let enlists =
                app.post("/entries").json(entry("e", &[("text", json!(format!("enlist:{id}")))])).await;
            assert_eq!(enlists.status(), 500, "{id:?}: {enlists}");
            assert_eq!(app.get("/entries/e").await.status(), 404, "{id:?}");
        }
        for path in ["/entries/%2E", "/entries/%2e%2E"] {
            let put = app.put(path).json(json!({"name": "n", "note": "n"})).await;
            assert_eq!(
                (put.status(), faults(&put.json())),
                (422, vec![("/code", "reserved")]),
                "{path}: {put}"
            );
        }
        for id in ["a.", ".a", " ", "%2e", "a/.."] {
            let created = app.post("/entries").json(entry(id, &[])).await;
            assert_eq!(created.status(), 201, "{id:?}: {created}");
            let location = created.header("location").unwrap().to_owned();
            assert_eq!(app.get(&location).await.json()["code"], id, "{location}");
        }
    }
}
