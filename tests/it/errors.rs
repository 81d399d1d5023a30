//! Problem details.

use resourceful::adapter::Migration;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use resourceful::{Error, ErrorKind};
use serde_json::json;

use crate::support::{EDITOR, TestStorage, create, faults, on_every_storage, path, product};

#[tokio::test]
async fn problem_has_all_documented_members() {
    on_every_storage(|app| async move {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let refused = app.get("/products/nope?x=1").header("traceparent", trace).await;
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        let problem = refused.json();
        assert_eq!(problem["type"], "https://docs.rs/resourceful/latest/resourceful/problems/invalid-query");
        assert_eq!((&problem["status"], &problem["code"]), (&json!(400), &json!("invalid-query")));
        assert_eq!(problem["instance"], "/products/nope");
        assert_eq!(problem["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(problem["title"].is_string() && problem["detail"].is_string());
    })
    .await;
}

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    on_every_storage(|app| async move {
        for path in ["/", "/nope", "/products/a/b", "/products/", "//"] {
            let refused = app.get(path).await;
            assert_eq!(
                (refused.status(), refused.header("content-type")),
                (404, Some("application/problem+json")),
                "{path}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_unique_clash_is_409_and_names_the_field() {
    on_every_storage(|app| async move {
        create(&app, "lamp", json!({})).await;
        let other = create(&app, "chair", json!({})).await;
        let clash = app.post("/products").json(product("lamp", json!({}))).await;
        assert_eq!((clash.status(), clash.json()["code"].clone()), (409, json!("unique")), "{clash}");
        assert_eq!(clash.json()["errors"][0]["pointer"], "/sku");
        assert_eq!(app.get(&path(&other)).await.json(), other);
        app.post("/categories").json(json!({"code": "a", "title": "t"})).await;
        let id = app.post("/categories").json(json!({"code": "a", "title": "t"})).await;
        assert_eq!((id.status(), &id.json()["errors"][0]["pointer"]), (409, &json!("/code")));
    })
    .await;
}

#[tokio::test]
async fn foreign_key_violations_are_409() {
    on_every_storage(|app| async move {
        let dangling = app.post("/products").json(product("lamp", json!({"category_code": "nope"}))).await;
        assert_eq!(
            (dangling.status(), dangling.json()["code"].clone()),
            (409, json!("foreign-key")),
            "{dangling}"
        );
        assert_eq!(dangling.json()["errors"][0]["pointer"], "/category_code");
        app.post("/categories").json(json!({"code": "a", "title": "t"})).await;
        let referring = create(&app, "lamp", json!({"category_code": "a"})).await;
        let moved = app.patch(&path(&referring)).json(json!({"category_code": "nope"})).await;
        assert_eq!(moved.status(), 409, "{moved}");
        assert_eq!(app.delete("/categories/a").await.status(), 409);
        assert_eq!(app.get("/categories/a").await.status(), 200);
        app.delete(&path(&referring)).await;
        assert_eq!(app.delete("/categories/a").await.status(), 204);
    })
    .await;
}

#[tokio::test]
async fn safe_request_id_is_echoed_and_an_unsafe_one_is_replaced() {
    on_every_storage(|app| async move {
        for (given, is_echoed) in [
            ("abc-123", true),
            (&"x".repeat(128), true),
            (&"x".repeat(129), false),
            ("a b", false),
            ("<script>", false),
        ] {
            for path in ["/products", "/nope", "/products/x?y=1"] {
                let answer = app.get(path).header("x-request-id", given).await;
                let id = answer.header("x-request-id").unwrap();
                assert_eq!(id == given, is_echoed, "{given}");
                assert!(!id.is_empty());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn responses_match_their_snapshots() {
    let place = crate::support::TestStorage::memory();
    let app = crate::support::shop(&place).await;
    app.post("/categories").json(json!({"code": "lights", "title": "Lights"})).await;
    let note = app.post("/notes").bearer(EDITOR).json(json!({"text": "hello"})).await;
    insta::assert_snapshot!("created", note);
    insta::assert_snapshot!("item", app.get("/categories/lights").await);
    insta::assert_snapshot!(
        "list",
        app.get("/categories?fields=code,title").header("prefer", "count=exact").await
    );
    insta::assert_snapshot!(
        "not_modified",
        app.get("/notes/1").bearer(EDITOR).header("if-none-match", "\"1\"").await
    );
    insta::assert_snapshot!(
        "validation",
        app.post("/categories").json(json!({"code": "", "colour": 1})).await
    );
    insta::assert_snapshot!("unauthenticated", app.get("/notes").await);
    insta::assert_snapshot!("forbidden", app.delete("/notes/1").bearer(EDITOR).await);
    insta::assert_snapshot!("not_found", app.get("/categories/nope").await);
    insta::assert_snapshot!("method_not_allowed", app.request("TRACE", "/categories").await);
    insta::assert_snapshot!("invalid_query", app.get("/categories?titel=x&limit=0").await);
    insta::assert_snapshot!(
        "conflict",
        app.post("/categories").json(json!({"code": "lights", "title": "x"})).await
    );
    insta::assert_snapshot!(
        "precondition",
        app.delete("/categories/lights").header("if-match", "\"9\"").await
    );
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Country {
    id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct City {
    id: i64,
    name: String,
    country_id: String,
}

#[tokio::test]
async fn slow_query_is_504_and_its_connection_stays_usable() {
    let limit = std::time::Duration::from_millis(50);
    let database = resourceful::Sql::options("sqlite::memory:").heavy_query_timeout(limit).connect().await;
    let database = database.unwrap();
    let table = |name: &str| database.table(name).create_table_if_missing();
    let countries = define_resource::<Country>("countries")
        .adapter(table("countries"))
        .permissions(Permissions::all(anyone()))
        .relation(has_many("cities", "cities").key("country_id"));
    let cities = define_resource::<City>("cities")
        .adapter(table("cities"))
        .permissions(Permissions::all(anyone()))
        .filterable(["name"])
        .relation(belongs_to("country", "countries").key("country_id"));
    let (countries, cities) = (countries.build().unwrap(), cities.build().unwrap());
    let app = create_app(AppPreset::Testing).resource(countries).resource(cities);
    let app = TestApp::build(app).await.unwrap();
    let country = Country { id: "one".to_owned() };
    let city = |id| City { id, name: format!("city {id}"), country_id: "one".to_owned() };
    let loader = app.app().load().rows("countries", [country]).unwrap();
    loader.rows("cities", (1..=5_000).map(city)).unwrap().commit().await.unwrap();
    // Every city of the country beside each of its cities.
    let late = app.get("/cities?country.cities.name[contains]=zzzz").await;
    let problem = late.json();
    assert_eq!((late.status(), &problem["code"]), (504, &json!("query-timeout")), "{late}");
    assert_eq!(app.get("/cities?name[contains]=4999").await.items().len(), 1);
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Part {
    id: i64,
    code: String,
    from_day: i64,
    until_day: i64,
}

/// A table with rules that the declaration does not know.
const TABLES_WITH_CONSTRAINTS: [(&str, &str); 2] = [
    (
        "sqlite",
        "CREATE TABLE parts (id INTEGER PRIMARY KEY AUTOINCREMENT, code TEXT NOT NULL CHECK (length(code) < 6),
           from_day INTEGER NOT NULL, until_day INTEGER NOT NULL, CHECK (from_day <= until_day));
         CREATE TRIGGER refuse BEFORE INSERT ON parts WHEN NEW.code = 'own'
           BEGIN SELECT RAISE(ABORT, 'the text of the owner'); END",
    ),
    (
        "postgres",
        "CREATE TABLE parts (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, code varchar(5) NOT NULL,
           from_day bigint NOT NULL, until_day bigint NOT NULL, CHECK (from_day <= until_day),
           EXCLUDE USING gist (int8range(from_day, until_day) WITH &&) WHERE (code = 'one'));
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.code = 'own' THEN RAISE EXCEPTION 'the text of the owner'; END IF;
           RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON parts FOR EACH ROW EXECUTE FUNCTION refuse()",
    ),
];

#[tokio::test]
async fn database_constraint_violation_names_the_field_but_not_its_message() {
    for place in TestStorage::all().await {
        let Some((_, rules)) = TABLES_WITH_CONSTRAINTS.iter().find(|(storage, _)| *storage == place.name)
        else {
            continue;
        };
        let migration = Migration::new("parts", 1, "rules", (*rules).to_owned());
        place.storage().migrate(&[migration], true).await.unwrap();
        let parts = define_resource::<Part>("parts")
            .adapter(resourceful::adapter::Table::new(place.storage().clone(), "parts"))
            .permissions(Permissions::all(anyone()))
            .preset(bulk())
            .build()
            .unwrap();
        let app = create_app(AppPreset::Testing).batch(10).resource(parts);
        let app = TestApp::build(app).await.unwrap();
        let part =
            |code: &str, from: i64, until: i64| json!({"code": code, "from_day": from, "until_day": until});
        let good = app.post("/parts").json(part("one", 1, 5)).await;
        assert_eq!(good.status(), 201, "{good}");

        let long = app.post("/parts").json(part("toolong", 1, 5)).await;
        assert_eq!((long.status(), faults(&long.json())), (422, vec![("/code", "rejected")]), "{long}");
        let until = app.patch(&location_of(&good)).json(json!({"until_day": 0})).await;
        assert_eq!(
            (until.status(), faults(&until.json())),
            (422, vec![("/until_day", "rejected")]),
            "{until}"
        );
        let items = json!({"items": [part("two", 1, 5), part("toolong", 1, 5), part("three", 1, 5)]});
        let many = app.post("/parts/bulk").json(items).await;
        assert_eq!(
            (many.status(), faults(&many.json())),
            (422, vec![("/items/1/code", "rejected")]),
            "{many}"
        );
        let create = json!({"resource": "parts", "operation": "create", "body": part("toolong", 1, 5)});
        let batch = app.post("/batch").json(json!({"operations": [create]})).await;
        let expected = vec![("/operations/0/body/code", "rejected")];
        assert_eq!((batch.status(), faults(&batch.json())), (422, expected), "{batch}");

        let own = app.post("/parts").json(part("own", 1, 5)).await;
        assert_eq!((own.status(), &own.json()["code"]), (422, &json!("validation")), "{own}");
        assert!(!own.text().contains("the text of the owner"), "{own}");
        if place.name == "postgres" {
            let twice = app.post("/parts").json(part("one", 3, 9)).await;
            let expected = vec![("/from_day", "exclusion"), ("/until_day", "exclusion")];
            assert_eq!((twice.status(), faults(&twice.json())), (409, expected), "{twice}");
        }
        assert_eq!(app.get("/parts").await.items().len(), 1, "nothing else is there");
    }
}

fn location_of(created: &resourceful::testing::TestResponse) -> String {
    created.header("location").unwrap().to_owned()
}

/// A failure of several layers, as drivers have them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct LayeredError(&'static str, #[source] Option<Box<LayeredError>>);

#[tokio::test]
async fn error_causes_are_formatted_for_logs_and_not_for_clients() {
    let cause =
        || LayeredError("the database is away", Some(Box::new(LayeredError("connection refused", None))));
    let error = Error::new(ErrorKind::Internal, "internal", "The server failed.").with_source(cause());
    assert_eq!(error.to_string(), "internal: The server failed.");
    assert_eq!(format!("{error:#}"), "internal: the database is away: connection refused");
    assert_eq!(
        format!("{error:?}"),
        "The server failed.\n  because: the database is away\n  because: connection refused"
    );
    // What main returns is read by a person.
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let app = crate::support::builder(&TestStorage::memory()).build().await.unwrap();
    let report = format!("{:?}", app.serve(&address).await.unwrap_err());
    assert!(report.starts_with(&format!("Cannot listen on {address}: ")), "{report}");
    assert!(report.contains("Is the port taken?") && !report.contains('{'), "{report}");
    let undeclared = define_resource::<crate::support::models::Label>("labels").build().unwrap_err();
    let report = format!("{undeclared:?}");
    assert!(report.contains("help:") && !report.contains("DefinitionFault"), "{report}");
}
