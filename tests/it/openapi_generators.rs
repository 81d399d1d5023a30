//! What generators of clients need of the specification.

use std::collections::BTreeSet;

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value, json};

use crate::support::{TestStorage, shop};

async fn document(app: &TestApp, version: &str) -> Value {
    let answer = app.get(&format!("/openapi.json?version={version}")).await;
    assert_eq!(answer.status(), 200, "{answer}");
    answer.json()
}

/// Calls a function for every object of a document.
fn visit_objects<'a>(node: &'a Value, visit: &mut impl FnMut(&'a serde_json::Map<String, Value>)) {
    match node {
        Value::Object(map) => {
            visit(map);
            map.values().for_each(|value| visit_objects(value, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| visit_objects(item, visit)),
        _ => {}
    }
}

fn operations(document: &Value) -> impl Iterator<Item = &Value> {
    let paths = document["paths"].as_object().unwrap().values();
    paths.flat_map(|path| path.as_object().unwrap().values())
}

#[tokio::test]
async fn every_operation_has_security_a_declared_tag_a_summary_and_a_description() {
    let app = crate::examples::shop(&TestStorage::memory()).await;
    let document = document(&app, "3.1").await;
    let tags: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    for operation in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(operation["security"].as_array().is_some_and(|ways| !ways.is_empty()), "{id}: {operation}");
        assert!(tags.contains(operation["tags"][0].as_str().unwrap()), "{id}");
        assert!(operation["summary"].is_string() && operation["description"].is_string(), "{id}");
    }
    for path in ["/batch", "/events", "/ws", "/_explain"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    // Members change orders and lines, so they may send a batch.
    let batch = &document["paths"]["/batch"]["post"]["security"];
    assert!(batch.as_array().unwrap().contains(&json!({"Bearer": []})), "{batch}");
}

#[tokio::test]
async fn schemas_use_only_keywords_that_generators_support() {
    let app = crate::examples::shop(&TestStorage::memory()).await;
    for version in ["3.0", "3.1", "3.2"] {
        let document = document(&app, version).await;
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            assert!(schema.get("title").is_none(), "{name}: titles of types repeat");
        }
        let mut parameters = Vec::new();
        visit_objects(&document, &mut |map| {
            for bound in ["minimum", "maximum"] {
                let exact = map.get(bound).and_then(Value::as_f64).is_none_or(|bound| bound.abs() < 9.1e15);
                assert!(exact, "JavaScript cannot hold {map:?}");
            }
            let pattern = map.get("pattern").and_then(Value::as_str).unwrap_or_default();
            assert!(!pattern.contains("\\u0000") && !pattern.contains('\0'), "{pattern}");
            if map.get("in").is_some_and(Value::is_string) && map.contains_key("schema") {
                parameters.push(map);
            }
        });
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "header") {
            assert!(parameter["schema"]["type"].is_string(), "{parameter:?}");
        }
    }
}

#[tokio::test]
async fn example_documents_stay_within_their_limits() {
    let shop = crate::examples::shop(&TestStorage::memory()).await;
    for version in ["3.1", "3.2"] {
        let bytes = shop.get(&format!("/openapi.json?version={version}")).await.bytes().len();
        assert!(bytes <= 250 * 1024, "{version}: {bytes}");
    }
    let atlas = crate::examples::empty_atlas(&TestStorage::memory()).await;
    let parameters = document(&atlas, "3.1").await["paths"]["/cities"]["get"]["parameters"].clone();
    let parameters = parameters.as_array().unwrap().len();
    assert!((20..=40).contains(&parameters), "{parameters}");
}

#[tokio::test]
async fn whole_items_have_required_members_and_partial_ones_have_none() {
    let app = crate::examples::shop(&TestStorage::memory()).await;
    let document = document(&app, "3.1").await;
    let answered = |path: &str, method: &str, status: &str| {
        let answer = &document["paths"][path][method]["responses"][status];
        answer["content"]["application/json"]["schema"]["$ref"].as_str().unwrap().to_owned()
    };
    for (path, method, status) in [
        ("/products", "post", "201"),
        ("/products/{id}", "patch", "200"),
        ("/products/{id}", "put", "200"),
        ("/products/{id}/restock", "post", "200"),
    ] {
        assert_eq!(answered(path, method, status), "#/components/schemas/Product", "{method} {path}");
    }
    assert_eq!(answered("/products/{id}", "get", "200"), "#/components/schemas/ProductPartial");
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        schemas["ProductList"]["properties"]["items"]["items"]["$ref"],
        "#/components/schemas/ProductPartial"
    );
    let required = schemas["Product"]["required"].as_array().unwrap();
    assert!(required.contains(&json!("id")) && required.contains(&json!("category_id")), "{required:?}");
    // A field that some callers do not see is not required.
    assert!(!required.contains(&json!("cost_cents")), "{required:?}");
    assert!(schemas["ProductPartial"].get("required").is_none());
    assert!(schemas["ProductPartial"]["properties"].get("category").is_some(), "for `include`");
    assert!(schemas["Product"]["properties"].get("category").is_none(), "no change includes anything");
}

#[tokio::test]
async fn closed_operations_are_omitted() {
    let app = shop(&TestStorage::memory()).await;
    let document = document(&app, "3.1").await;
    // The permission to delete notes is `nobody()`.
    let note: Vec<_> = document["paths"]["/notes/{id}"].as_object().unwrap().keys().collect();
    assert_eq!(note, ["get", "put", "patch"]);
}

#[tokio::test]
async fn operation_names_use_the_singular_of_the_resource() {
    let storage = TestStorage::memory();
    let named = |name: &str, singular: Option<&str>| {
        let model = json!({"type": "object", "properties": {"id": {"type": "integer"}}});
        let resource = define_dynamic_resource(name, model)
            .adapter(storage.table(name))
            .permissions(Permissions::all(anyone()));
        let resource = match singular {
            Some(singular) => resource.singular(singular),
            None => resource,
        };
        resource.build().unwrap()
    };
    let app = create_app(AppPreset::Testing)
        .resource(named("countries", None))
        .resource(named("people", Some("person")))
        .resource(named("orders", None));
    let document = document(&TestApp::build(app).await.unwrap(), "3.1").await;
    let said = |path: &str, method: &str| {
        let operation = &document["paths"][path][method];
        (
            operation["operationId"].as_str().unwrap().to_owned(),
            operation["summary"].as_str().unwrap().to_owned(),
        )
    };
    let pair = |id: &str, summary: &str| (id.to_owned(), summary.to_owned());
    assert_eq!(said("/countries", "get"), pair("list_countries", "List countries"));
    assert_eq!(said("/countries", "post"), pair("create_country", "Create a country"));
    assert_eq!(said("/people/{id}", "delete"), pair("delete_person", "Delete a person"));
    assert_eq!(said("/orders/{id}", "get"), pair("read_order", "Read an order"));
}

#[tokio::test]
async fn batch_and_webhook_schemas_describe_valid_requests() {
    let app = crate::examples::shop(&TestStorage::memory()).await;
    let document = document(&app, "3.1").await;
    let schemas = &document["components"]["schemas"];
    let operations = &schemas["Batch"]["properties"]["operations"];
    assert_eq!((&operations["minItems"], &operations["maxItems"]), (&json!(1), &json!(50)));
    let resources = schemas["BatchCreate"]["properties"]["resource"]["enum"].as_array().unwrap();
    assert!(resources.contains(&json!("orders")) && !resources.contains(&json!("webhook_deliveries")));
    for (operation, members, is_valid) in [
        ("Create", json!({"operation": "create", "resource": "orders", "body": {}}), true),
        ("Create", json!({"operation": "create", "resource": "orders"}), false),
        ("Update", json!({"operation": "update", "resource": "orders", "id": "1", "body": {}}), true),
        ("Delete", json!({"operation": "delete", "resource": "orders", "id": "1", "body": {}}), false),
    ] {
        let schema = &schemas[format!("Batch{operation}")];
        assert_eq!(jsonschema::is_valid(schema, &members), is_valid, "{members}");
    }
    let endpoint = &schemas["WebhookEndpointCreate"]["properties"];
    for (events, is_known) in
        [("orders.*", true), ("products.restocked", true), ("*", true), ("planets.*", false)]
    {
        assert_eq!(jsonschema::is_valid(&endpoint["events"]["items"], &json!(events)), is_known, "{events}");
    }
    for (url, is_url) in [("https://example.com/hooks", true), ("ftp://example.com", false), ("x", false)] {
        assert_eq!(jsonschema::is_valid(&endpoint["url"], &json!(url)), is_url, "{url}");
    }
}

#[tokio::test]
async fn version_3_0_uses_its_own_schema_dialect() {
    let app = crate::examples::shop(&TestStorage::memory()).await;
    let document = document(&app, "3.0").await;
    assert_eq!(document["openapi"], "3.0.3");
    visit_objects(&document, &mut |map| {
        assert!(!map.get("type").is_some_and(Value::is_array), "{map:?}");
        assert!(map.get("type").is_none_or(|name| name != "null"), "{map:?}");
        for keyword in ["const", "$defs", "prefixItems", "examples", "unevaluatedProperties"] {
            let is_schema = map.contains_key("type") || map.contains_key("anyOf");
            assert!(!(is_schema && map.contains_key(keyword)), "{keyword}: {map:?}");
        }
        for bound in ["exclusiveMinimum", "exclusiveMaximum"] {
            assert!(map.get(bound).is_none_or(|flag| flag.is_boolean() || flag.is_object()), "{map:?}");
        }
        assert!(!map.contains_key("$ref") || map.len() == 1, "nothing stands beside a reference: {map:?}");
        if map.get("nullable").is_some_and(Value::is_boolean) {
            assert!(map.contains_key("type"), "nullable means nothing without a type: {map:?}");
        }
    });
    // Its tools do not know `deepObject`, several media types of one body, or different answers of success.
    let parameters = document["components"]["parameters"].as_object().unwrap();
    assert!(parameters.values().all(|parameter| parameter["style"] != "deepObject"));
    let listed = document["paths"]["/products"]["get"]["parameters"].as_array().unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|parameter| parameter["$ref"].as_str().unwrap().rsplit('/').next().unwrap())
        .map(|name| parameters[name]["name"].as_str().unwrap())
        .collect();
    for name in ["price_cents", "price_cents[gte]", "name[in]", "category.tenant_id[starts]", "sort"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for operation in operations(&document) {
        let content = operation.pointer("/requestBody/content").and_then(Value::as_object);
        assert!(content.is_none_or(|content| content.len() == 1), "{operation}");
        let answers = operation["responses"].as_object().unwrap().iter();
        let successes: BTreeSet<_> = answers
            .filter(|(status, _)| status.starts_with('2'))
            .filter_map(|(_, answer)| answer.pointer("/content/application~1json/schema/$ref")?.as_str())
            .collect();
        assert!(successes.len() <= 1, "{successes:?}");
    }
    let category = &document["components"]["schemas"]["Product"]["properties"]["category_id"];
    assert_eq!((&category["type"], &category["nullable"]), (&json!("string"), &json!(true)));
    // Only OAuth 2 has scopes in 3.0.
    assert_eq!(document["paths"]["/products"]["post"]["security"], json!([{"Bearer": []}]));
}

#[tokio::test]
async fn similar_field_names_get_distinct_components() {
    let storage = TestStorage::memory();
    let listed = |values: [&str; 2]| json!({"type": "string", "enum": values});
    let model = json!({"type": "object", "properties": {
        "id": {"type": "integer"}, "a_b": listed(["x", "y"]), "a-b": listed(["p", "q"]), "größe": {"type": "integer"},
    }});
    let things = define_dynamic_resource("things", model)
        .adapter(storage.table("things"))
        .permissions(Permissions::all(anyone()))
        .filterable(["a_b", "a-b", "größe"])
        .build()
        .unwrap();
    let app = TestApp::build(create_app(AppPreset::Testing).resource(things)).await.unwrap();
    let document = document(&app, "3.1").await;
    let mut values = Vec::new();
    for parameter in document["paths"]["/things"]["get"]["parameters"].as_array().unwrap() {
        let to = parameter["$ref"].as_str().unwrap();
        let name = to.rsplit('/').next().unwrap();
        assert!(name.chars().all(|one| one.is_ascii_alphanumeric() || "._-".contains(one)), "{name}");
        let parameter = document.pointer(to.strip_prefix('#').unwrap()).unwrap();
        if ["a_b", "a-b"].contains(&parameter["name"].as_str().unwrap()) {
            let schema = parameter["schema"]["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
            let value = document.pointer(schema).unwrap()["anyOf"][0]["$ref"]
                .as_str()
                .unwrap()
                .strip_prefix('#')
                .unwrap();
            values.push(document.pointer(value).unwrap()["enum"].clone());
        }
    }
    assert_eq!(values, [json!(["x", "y"]), json!(["p", "q"])]);
}
