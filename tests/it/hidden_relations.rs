//! Relations whose key is not told to a caller: for them there is no such relation, on every path.

use resourceful::ResourceBuilder;
use resourceful::access::{not, rows};
use resourceful::prelude::*;
use resourceful::resource::Relation;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};

use crate::field_rules::normalized_problem;
use crate::policies::{actors, for_each_storage, model};
use crate::support::TestStorage;

/// People whose manager is for the chief to know, desks of which nobody else knows who sits there, rooms with desks, and
/// badges whose raw key nobody sees.
pub(crate) async fn house(place: &TestStorage) -> TestApp {
    let of = |name: &str, fields: &[&str], relations: Vec<Relation>| {
        let mut shape = model(fields);
        for key in ["person", "manager"].into_iter().filter(|key| fields.contains(key)) {
            shape["properties"][key] = json!({"type": ["string", "null"], "default": null});
        }
        let resource = define_dynamic_resource(name, shape)
            .adapter(place.table(name))
            .id_field("code")
            .permissions(Permissions::all(signed_in()))
            .filterable(["code"]);
        relations.into_iter().fold(resource, ResourceBuilder::relation)
    };
    let people = vec![
        belongs_to("boss", "people").key("manager"),
        has_many("reports", "people").key("manager"),
        has_many("desks", "desks").key("person"),
    ];
    let people = of("people", &["code", "manager"], people)
        .preset(bulk())
        .preset(audit().readable_by(signed_in()))
        .filterable(["manager"])
        .visible_to(["manager"], role("chief"))
        .writable_by(["manager"], role("chief"));
    let desks = of("desks", &["code", "person"], vec![belongs_to("sitter", "people").key("person")])
        .redacted_for(["person"], not(role("chief")), json!("somebody"));
    let rooms = of("rooms", &["code", "desk"], vec![belongs_to("table", "desks").key("desk")]);
    let badges = of("badges", &["code", "person"], vec![belongs_to("bearer", "people").key("person")])
        .hidden(["person"]);
    // The application's own rules may follow what their callers may not.
    let reviews = of("reviews", &["code", "person"], vec![belongs_to("subject", "people").key("person")])
        .policy_on(
            [Operation::Read, Operation::List],
            any_of([role("chief"), owner("subject.manager"), rows(json!({"subject.boss.manager": "chief"}))]),
        );
    let mut app = create_app(AppPreset::Testing).authenticator(actors()).document_by_caller(true);
    for resource in [people, desks, rooms, badges, reviews] {
        app = app.resource(resource.build().unwrap());
    }
    let app = TestApp::build(app).await.unwrap();
    let person = |code: &str, manager: Option<&str>| json!({"code": code, "manager": manager});
    let people = [
        person("chief", None),
        person("eve", Some("chief")),
        person("ann", Some("eve")),
        person("bob", Some("ann")),
    ];
    app.app().load().rows("people", people).unwrap().commit().await.unwrap();
    for resource in ["desks", "badges", "reviews"] {
        let rows =
            ["eve", "ann", "bob"].map(|person| json!({"code": format!("of-{person}"), "person": person}));
        app.app().load().rows(resource, rows).unwrap().commit().await.unwrap();
    }
    let room = json!({"code": "attic", "desk": "of-bob"});
    app.app().load().rows("rooms", [room]).unwrap().commit().await.unwrap();
    app
}

/// The relations whose key is not told, and one who tries them.
const HIDDEN_RELATIONS: [(&str, &str); 5] = [
    ("people", "boss"),
    ("people", "reports"),
    ("people", "desks"),
    ("desks", "sitter"),
    ("rooms", "table.sitter"),
];

#[tokio::test]
async fn relation_with_a_hidden_key_is_treated_as_unknown() {
    for_each_storage(|place| async move {
        let app = house(&place).await;
        for (resource, relation) in HIDDEN_RELATIONS {
            let (before, name) = relation.rsplit_once('.').unwrap_or(("", relation));
            let dot = if before.is_empty() { "" } else { "." };
            let mut queries = vec![
                format!("{before}{dot}{name}.code=eve"),
                format!("{before}{dot}{name}.code%5Bin%5D=eve"),
            ];
            if before.is_empty() {
                queries.push(format!("include={name}"));
            }
            for query in queries {
                let path = format!("/{resource}?{query}");
                let real = app.get(&path).bearer("eve").await;
                let fake = app.get(&path.replacen(name, "zzqzz", 1)).bearer("eve").await;
                assert_eq!((real.status(), fake.status()), (400, 400), "{path}: {real}");
                assert_eq!(normalized_problem(&real, name), normalized_problem(&fake, "zzqzz"), "{path}");
                assert_eq!(app.get(&path).bearer("chief").await.status(), 200, "{path}");
                let near =
                    app.get(&path.replace(&format!("{name}."), &format!("{name}x."))).bearer("eve").await;
                assert!(!near.text().contains(&format!("Did you mean `{name}`")), "{near}");
            }
            let mut body = json!({"filter": {format!("{relation}.code"): {"eq": "eve"}}});
            let refused =
                app.request("QUERY", &format!("/{resource}")).bearer("eve").json(body.clone()).await;
            assert_eq!(refused.status(), 400, "{relation}: {refused}");
            if before.is_empty() {
                body = json!({"include": [name]});
                let refused = app.post(&format!("/{resource}/query")).bearer("eve").json(body).await;
                assert_eq!(refused.status(), 400, "{relation}: {refused}");
                let near = app.get(&format!("/{resource}?include={name}s")).bearer("eve").await;
                assert!(!near.text().contains(&format!("`{name}`")), "{near}");
            }
        }
        let now = Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        for path in ["/people/ann?include=boss".to_owned(), format!("/people/ann?as_of={now}&include=boss")] {
            let one = app.get(&path).bearer("eve").await;
            assert_eq!(one.status(), 400, "{path}: {one}");
        }
        // What is changed by a filter is chosen by it.
        for (who, status) in [("eve", 400), ("chief", 200)] {
            let chosen = json!({"filter": {"boss.code": {"eq": "eve"}}, "max_affected": 9, "patch": {}});
            let patched =
                app.patch("/people/bulk").header("prefer", "dry-run").bearer(who).json(chosen).await;
            assert_eq!(patched.status(), status, "{who}: {patched}");
            let chosen = json!({"filter": {"reports.code": {"eq": "bob"}}, "max_affected": 9});
            let deleted =
                app.delete("/people/bulk").header("prefer", "dry-run").bearer(who).json(chosen).await;
            assert_eq!(deleted.status() == 400, status == 400, "{who}: {deleted}");
        }
        // A key that nobody sees is the application's own business: its relation is there.
        let badge = app.get("/badges/of-ann?include=bearer").bearer("eve").await.json();
        assert_eq!(badge, json!({"code": "of-ann", "bearer": {"code": "ann"}}));
        // As is what its rules make of the others.
        let reviews = app.get("/reviews").bearer("eve").await.items();
        assert_eq!(reviews.iter().map(|one| &one["code"]).collect::<Vec<_>>(), ["of-ann"]);
    })
    .await;
}

#[tokio::test]
async fn document_by_caller_omits_relations_with_a_hidden_key() {
    let app = house(&TestStorage::memory()).await;
    let named = async |who: &str, path: &str| -> Vec<String> {
        let document: Json = app.get("/openapi.json").bearer(who).await.json();
        let parameters = crate::openapi::parameters(&document, path, "get");
        parameters.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let of_eve = named("eve", "/people").await;
    assert!(of_eve.contains(&"code".to_owned()) && !of_eve.contains(&"include".to_owned()), "{of_eve:?}");
    assert!(!of_eve.iter().any(|name| name.contains('.')), "{of_eve:?}");
    let of_chief = named("chief", "/people").await;
    for name in ["include", "boss.code", "reports.code", "desks.code"] {
        assert!(of_chief.contains(&name.to_owned()), "{name}: {of_chief:?}");
    }
}

#[tokio::test]
async fn policy_matrix_passes_for_relations_with_a_hidden_key() {
    for place in TestStorage::all().await {
        let app = house(&place).await;
        crate::matrix::run(&app).await.assert_passed();
    }
}
