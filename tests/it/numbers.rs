//! A number is kept as it is written, or refused with its place; it comes back and is found as what it was.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use resourceful::{Action, Change};
use rust_decimal::Decimal;
use serde_json::{Value as Json, json};

use crate::support::{TestStorage, faults};

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, Validate)]
struct Measure {
    id: i64,
    #[serde(default)]
    price: Option<Decimal>,
    #[serde(default)]
    ratio: Option<f64>,
    #[serde(default)]
    single: Option<f32>,
    #[serde(default)]
    count: Option<i64>,
    #[serde(default)]
    unsigned: Option<u64>,
    #[serde(default)]
    singles: Option<Vec<f32>>,
    #[serde(default)]
    prices: Option<Vec<Decimal>>,
    #[serde(default)]
    inner: Option<Inner>,
    #[serde(default)]
    free: Option<Json>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Inner {
    #[serde(default)]
    single: Option<f32>,
    #[serde(default)]
    ratio: Option<f64>,
    #[serde(default)]
    price: Option<Decimal>,
}

#[derive(Debug, Deserialize, JsonSchema, Validate)]
struct Reprice {
    price: Decimal,
    single: f32,
}

fn measures(storage: &TestStorage) -> Resource {
    let reprice = Action::on_item(anyone(), |measure: &mut Measure, input: Reprice, _: &mut Change| {
        (measure.price, measure.single) = (Some(input.price), Some(input.single));
        Ok(())
    });
    define_resource::<Measure>("measures")
        .adapter(storage.table("measures"))
        .permissions(Permissions::all(anyone()))
        .filterable(["price", "ratio", "single", "count", "unsigned", "singles", "prices"])
        .sortable(["price", "ratio", "single"])
        .action("reprice", reprice)
        .preset(bulk())
        .preset(audit().readable_by(anyone()))
        .build()
        .unwrap()
}

async fn app(storage: &TestStorage) -> TestApp {
    TestApp::build(create_app(AppPreset::Testing).resource(measures(storage))).await.unwrap()
}

async fn post(app: &TestApp, field: &str, literal: &str) -> TestResponse {
    let body = format!("{{\"{field}\": {literal}}}");
    app.post("/measures").header("content-type", "application/json").body(body).await
}

/// Posts a member; answers how it is spelled in the answer and in a read, which must be the same.
async fn post_and_read(app: &TestApp, field: &str, literal: &str) -> String {
    let created = post(app, field, literal).await;
    assert_eq!(created.status(), 201, "{field}: {literal}: {created}");
    let (spelled, id) = (member(created.text(), field), created.json()["id"].clone());
    let read = app.get(&format!("/measures/{id}?fields={field}")).await;
    assert_eq!(member(read.text(), field), spelled, "{field}: {literal}");
    spelled
}

/// A member of an object as its text has it.
fn member(text: &str, field: &str) -> String {
    let members: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(text).unwrap();
    members[field].get().to_owned()
}

async fn assert_rejected(app: &TestApp, field: &str, literal: &str, pointer: &str) {
    let answer = post(app, field, literal).await;
    assert_eq!(answer.status(), 422, "{field}: {literal}: {answer}");
    let problem = answer.json();
    assert!(faults(&problem).iter().any(|(at, _)| *at == pointer), "{field}: {literal}: {answer}");
}

#[tokio::test]
async fn number_is_stored_in_its_shortest_exact_form() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        for (field, literal, spelled) in [
            ("price", "\"1234567890123456.789\"", "\"1234567890123456.789\""),
            ("price", "\"0.1234567890123456789012345678\"", "\"0.1234567890123456789012345678\""),
            ("price", "12.50", "\"12.5\""),
            ("price", "1e-7", "\"0.0000001\""),
            ("price", "1e20", "\"100000000000000000000\""),
            ("price", "-0", "\"0\""),
            ("ratio", "0.1", "0.1"),
            ("ratio", "5e-324", "5e-324"),
            ("ratio", "1e16", "1e16"),
            ("ratio", "-0.0", "0.0"),
            ("single", "0.1", "0.1"),
            ("single", "16777216", "16777216.0"),
            ("single", "3.4028235e38", "3.4028235e38"),
            ("count", "-0", "0"),
            ("count", "1.0", "1"),
            ("count", "1e2", "100"),
            ("count", "1e16", "10000000000000000"),
            ("count", "9223372036854775807", "9223372036854775807"),
            ("unsigned", "9223372036854775807", "9223372036854775807"),
            ("singles", "[0.1, 0.2]", "[0.1,0.2]"),
            ("prices", "[\"0.10\", 2]", "[\"0.1\",\"2\"]"),
            ("inner", "{\"single\": 0.1}", "{\"single\":0.1,\"ratio\":null,\"price\":null}"),
            ("free", "{\"a\": 1e16}", "{\"a\":10000000000000000}"),
            (
                "free",
                "[9007199254740993, 18446744073709551615, 1.0, 0.5]",
                "[9007199254740993,18446744073709551615,1,0.5]",
            ),
        ] {
            let found = post_and_read(&app, field, literal).await;
            // Databases order and space the members of a document as they see fit.
            let json = |text: &str| serde_json::from_str::<Json>(text).unwrap();
            let same = if field == "inner" || field == "free" {
                json(&found) == json(spelled)
            } else {
                found == spelled
            };
            assert!(same, "{field}: {literal} is {found} on {}", storage.name);
        }
    }
}

#[tokio::test]
async fn number_that_would_be_rounded_is_rejected_with_its_pointer() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        for (field, literal, pointer) in [
            ("price", "1234567890123456.789", "/price"),
            ("price", "\"0.12345678901234567890123456789\"", "/price"),
            ("price", "\"99999999999999999999999999999\"", "/price"),
            ("price", "1e-30", "/price"),
            ("price", "1e30", "/price"),
            ("ratio", "0.1000000000000000055", "/ratio"),
            ("ratio", "9007199254740993", "/ratio"),
            ("ratio", "1e400", "/ratio"),
            ("ratio", "1e-400", "/ratio"),
            ("ratio", "\"NaN\"", "/ratio"),
            ("single", "16777217", "/single"),
            ("single", "0.123456789", "/single"),
            ("single", "3.5e38", "/single"),
            ("single", "1e-60", "/single"),
            ("count", "9223372036854775808", "/count"),
            ("count", "9007199254740993.0", "/count"),
            ("count", "1.5", "/count"),
            ("unsigned", "18446744073709551615", "/unsigned"),
            ("unsigned", "-1", "/unsigned"),
            ("singles", "[0.1, 16777217]", "/singles/1"),
            ("prices", "[1, 1e-30]", "/prices/1"),
            ("inner", "{\"single\": 16777217}", "/inner/single"),
            ("inner", "{\"ratio\": 9007199254740993}", "/inner/ratio"),
            ("inner", "{\"price\": \"0.1234567890123456789012345678901\"}", "/inner/price"),
            ("inner", "{\"price\": 1e-30}", "/inner/price"),
            ("free", "{\"a\": [1, 0.1000000000000000055]}", "/free/a/1"),
            ("free", "18446744073709551617", "/free"),
        ] {
            assert_rejected(&app, field, literal, pointer).await;
        }
        assert_eq!(app.get("/measures").await.items(), Vec::<Json>::new(), "nothing is stored");
    }
}

#[tokio::test]
async fn every_write_path_checks_numbers_alike() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        assert_eq!(post(&app, "single", "0.5").await.status(), 201);
        let json = "application/json";
        for (method, path, body, pointer) in [
            ("PATCH", "/measures/1", "{\"price\": 1234567890123456.789}", "/price"),
            ("PATCH", "/measures/1", "{\"single\": 16777217}", "/single"),
            ("PATCH", "/measures/1", "{\"inner\": {\"single\": 16777217}}", "/inner/single"),
            ("POST", "/measures/bulk", "{\"items\": [{}, {\"price\": 1e-30}]}", "/items/1/price"),
            (
                "POST",
                "/measures/bulk",
                "{\"items\": [{}, {\"ratio\": 0.1000000000000000055}]}",
                "/items/1/ratio",
            ),
            (
                "PATCH",
                "/measures/bulk",
                "{\"items\": [{\"id\": 1, \"single\": 16777217}]}",
                "/items/0/single",
            ),
            ("POST", "/measures/1/reprice", "{\"price\": 1e-30, \"single\": 1}", "/price"),
            ("POST", "/measures/1/reprice", "{\"price\": 1, \"single\": 16777217}", "/single"),
            ("POST", "/measures/1/reprice", "{\"price\": 1234567890123456.789, \"single\": 1}", "/price"),
        ] {
            let request = match method {
                "PATCH" => app.patch(path),
                _ => app.post(path),
            };
            let answer = request.header("content-type", json).body(body).await;
            assert_eq!(answer.status(), 422, "{method} {path} {body}: {answer}");
            assert!(faults(&answer.json()).iter().any(|(at, _)| *at == pointer), "{path} {body}: {answer}");
        }
        let query = "{\"filter\": {\"price\": {\"gte\": 1234567890123456.789}}}";
        let answer = app.post("/measures/query").header("content-type", json).body(query).await;
        assert_eq!((answer.status(), faults(&answer.json())[0].0), (400, "/filter/price/gte"), "{answer}");
        for filter in ["price=0.12345678901234567890123456789", "ratio=9007199254740993", "single=16777217"] {
            assert_eq!(app.get(&format!("/measures?{filter}")).await.status(), 400, "{filter}");
        }
        let body = json!({"price": "0.30", "single": 0.3});
        let answer = app.post("/measures/1/reprice").json(body).await;
        assert_eq!(answer.status() / 100, 2, "{answer}");
        let item = app.get("/measures/1").await;
        assert_eq!(
            (member(item.text(), "price"), member(item.text(), "single")),
            ("\"0.3\"".into(), "0.3".into())
        );
        let unchanged = app.patch("/measures/1").json(json!({"single": 0.3, "price": "0.300"})).await;
        assert_eq!(unchanged.header("etag"), item.header("etag"), "nothing changed");
        let stale = app
            .patch("/measures/1")
            .header("if-match", item.header("etag").unwrap())
            .json(json!({"single": 0.1}));
        assert_eq!(stale.await.status(), 200);
        let history = app.get("/measures/1/history").await;
        assert_eq!(history.items()[0]["changes"]["single"], json!({"from": 0.3, "to": 0.1}), "{history}");
    }
}

#[tokio::test]
async fn socket_filter_rejects_numbers_that_would_be_rounded() {
    let app = app(&TestStorage::memory()).await;
    let mut socket = crate::sockets::socket(&app).await;
    let filter = "{\"price\": {\"gte\": 1234567890123456.789}}";
    socket
        .send_text(&format!(
            "{{\"type\": \"subscribe\", \"id\": \"1\", \"resource\": \"measures\", \"filter\": {filter}}}"
        ))
        .await;
    let answer = socket.next().await.unwrap();
    assert_eq!(answer["type"], "error", "{answer}");
    assert_eq!(faults(&answer["problem"])[0].0, "/filter/price/gte", "{answer}");
}

#[tokio::test]
async fn loaded_rows_are_stored_in_shortest_number_form() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let inner = Inner { single: Some(0.1), ratio: Some(0.1), price: Some(Decimal::new(10, 2)) };
        let measure = Measure {
            id: 7,
            single: Some(0.1),
            singles: Some(vec![0.2]),
            inner: Some(inner),
            free: Some(json!([1e16, 2.0])),
            ..Measure::default()
        };
        app.app().load().rows("measures", [measure]).unwrap().commit().await.unwrap();
        let item = app.get("/measures/7").await;
        let spelled = |field: &str| member(item.text(), field).replace(' ', "");
        assert_eq!((spelled("single"), spelled("singles")), ("0.1".to_owned(), "[0.2]".to_owned()));
        assert_eq!(
            item.json()["inner"],
            json!({"single": 0.1, "ratio": 0.1, "price": "0.10"}),
            "{}",
            storage.name
        );
        assert_eq!(spelled("free"), "[10000000000000000,2]", "{}", storage.name);
        assert_eq!(app.get("/measures?single=0.1").await.items().len(), 1, "{}", storage.name);
    }
}

/// Spellings of numbers: short and long, near the edges of each type.
fn literals() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        1 => any::<f32>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| format!("{number:e}")),
        1 => any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| format!("{number:e}")),
        1 => any::<i64>().prop_map(|number| number.to_string()),
    ]
}

/// A spelling as a decimal of any size: its digits, and where they stand.
fn normalized(literal: &str) -> (bool, String, i64) {
    let unsigned = literal.trim_matches('"').trim_start_matches('-').to_lowercase();
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((&unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_end_matches('0');
    let exponent =
        exponent.parse::<i64>().unwrap() - fraction.len() as i64 + (digits.len() - kept.len()) as i64;
    let kept = kept.trim_start_matches('0');
    if kept.is_empty() {
        return (false, String::new(), 0);
    }
    (literal.trim_matches('"').starts_with('-'), kept.to_owned(), exponent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_numbers_round_trip_and_match_filters() {
    for storage in TestStorage::all().await {
        let app = app(&storage).await;
        let handle = tokio::runtime::Handle::current();
        let config = Config {
            cases: 100,
            rng_seed: RngSeed::Fixed(14),
            failure_persistence: None,
            ..Config::default()
        };
        let strategy = (prop::sample::select(&["price", "ratio", "single", "count", "free"][..]), literals());
        let outcome = tokio::task::block_in_place(|| {
            TestRunner::new(config).run(&strategy, |(field, literal)| {
                handle.block_on(async {
                    let answer = post(&app, field, &literal).await;
                    if answer.status() == 422 {
                        return;
                    }
                    assert_eq!(answer.status(), 201, "{literal}: {answer}");
                    let spelled = member(answer.text(), field);
                    assert_eq!(
                        normalized(&spelled),
                        normalized(&literal),
                        "{field} on {}: {spelled}",
                        storage.name
                    );
                    if field == "free" {
                        return;
                    }
                    let filter = format!("{field}={}", spelled.trim_matches('"').replace('+', "%2B"));
                    let id = answer.json()["id"].clone();
                    let found = app.get(&format!("/measures?id={id}&{filter}")).await;
                    assert_eq!(found.items().len(), 1, "{filter} on {}: {found}", storage.name);
                });
                Ok(())
            })
        });
        outcome.unwrap();
    }
}

#[tokio::test]
async fn openapi_schemas_state_exact_number_formats() {
    let app = app(&TestStorage::memory()).await;
    let document = app.get("/openapi.json").await.json();
    let schemas = &document["components"]["schemas"];
    for shape in ["MeasureCreate", "MeasurePatch"] {
        let property = |name: &str| &schemas[shape]["properties"][name];
        let price = property("price");
        assert_eq!(price["type"], json!(["string", "null"]), "{price}");
        assert_eq!((&price["format"], &price["maxLength"]), (&json!("decimal"), &json!(29)));
        let single = property("single");
        assert_eq!((&single["format"], &single["maximum"]), (&json!("float"), &json!(3.402_823_5e38)));
        assert_eq!(property("ratio")["format"], "double");
        assert!(!schemas[shape].to_string().contains("x-exact"));
    }
}
