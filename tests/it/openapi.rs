//! The specification, next to what runs.

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value, json};

use crate::support::{EDITOR, TestStorage, builder, create, shop};

/// What stands behind a reference of the document; what is none is itself.
fn resolve<'a>(document: &'a Value, node: &'a Value) -> &'a Value {
    match node.get("$ref").and_then(Value::as_str) {
        Some(to) => document.pointer(to.strip_prefix('#').unwrap()).expect(to),
        None => node,
    }
}

/// The parameters of an operation.
pub(crate) fn parameters<'a>(document: &'a Value, path: &str, method: &str) -> Vec<&'a Value> {
    let parameters = document["paths"][path][method]["parameters"].as_array().unwrap();
    parameters.iter().map(|parameter| resolve(document, parameter)).collect()
}

async fn document(app: &TestApp, version: &str) -> Value {
    let answer = app.get(&format!("/openapi.json?version={version}")).await;
    assert_eq!(answer.status(), 200, "{answer}");
    answer.json()
}

#[tokio::test]
async fn openapi_document_is_served_with_an_etag() {
    let app = shop(&TestStorage::memory()).await;
    let plain = app.get("/openapi.json").await;
    assert_eq!(
        (plain.json()["openapi"].clone(), plain.header("content-type")),
        (json!("3.1.0"), Some("application/json"))
    );
    let tag = plain.header("etag").unwrap();
    assert_eq!(app.get("/openapi.json").header("if-none-match", tag).await.status(), 304);
    for wrong in ["version=4", "versoin=3.1"] {
        let refused = app.get(&format!("/openapi.json?{wrong}")).await;
        assert_eq!((refused.status(), refused.json()["code"].clone()), (400, json!("invalid-query")));
    }
}

#[tokio::test]
async fn query_operation_is_in_3_2_and_query_post_in_both_versions() {
    let app = shop(&TestStorage::memory()).await;
    let (old, new) = (document(&app, "3.1").await, document(&app, "3.2").await);
    assert_eq!(new["openapi"], "3.2.0");
    assert!(old["paths"]["/products"].get("query").is_none());
    assert_eq!(new["paths"]["/products"]["query"]["operationId"], "query_products");
    for document in [old, new] {
        assert_eq!(document["paths"]["/products/query"]["post"]["operationId"], "post_query_products");
    }
}

#[tokio::test]
async fn every_reference_resolves() {
    fn walk(node: &Value, root: &Value, found: &mut usize) {
        match node {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    let pointer = to.strip_prefix('#').expect("references stay in the document");
                    assert!(root.pointer(pointer).is_some(), "{to}");
                    *found += 1;
                }
                map.values().for_each(|value| walk(value, root, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, root, found)),
            _ => {}
        }
    }
    let app = shop(&TestStorage::memory()).await;
    for version in ["3.0", "3.1", "3.2"] {
        let document = document(&app, version).await;
        let mut found = 0;
        walk(&document, &document, &mut found);
        assert!(found > 50, "{found}");
    }
}

/// Whether a parameter is a filter, rather than one that every list has.
fn is_filter(name: &str) -> bool {
    !["sort", "fields", "include", "limit", "after", "before", "q"].contains(&name)
}

#[tokio::test]
async fn each_filterable_field_is_one_parameter_with_its_operators() {
    let app = shop(&TestStorage::memory()).await;
    let document = document(&app, "3.1").await;
    let mut names = Vec::new();
    for parameter in parameters(&document, "/products", "get") {
        let name = parameter["name"].as_str().unwrap();
        if parameter["in"] != "query" || !is_filter(name) {
            continue;
        }
        assert_eq!(
            (&parameter["style"], &parameter["explode"]),
            (&json!("deepObject"), &json!(true)),
            "{name}"
        );
        let schema = resolve(&document, &parameter["schema"]);
        let object = schema["anyOf"].as_array().and_then(|either| either.last()).unwrap_or(schema);
        if schema.get("anyOf").is_some() {
            names.push(name.to_owned());
        }
        names.extend(
            object["properties"].as_object().unwrap().keys().map(|operator| format!("{name}[{operator}]")),
        );
    }
    for name in ["price_cents", "price_cents[gte]", "tags[has]", "dimensions[is_null]", "category.region[in]"]
    {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    for name in ["secret[eq]", "note[eq]", "tags", "tags[eq]", "price_cents[contains]"] {
        assert!(!names.iter().any(|known| known == name), "{name}");
    }
    // The body form has the same names.
    let filter = &document["components"]["schemas"]["ProductFilter"]["properties"];
    for name in names.iter().filter(|name| !name.contains('[')) {
        assert!(filter.get(name).is_some(), "{name}");
    }
    // What the document names, the server knows: a wrong value is refused as a value, not as a name.
    for name in &names {
        let refused =
            app.get(&format!("/products?{}=%FF", name.replace('[', "%5B").replace(']', "%5D"))).await;
        assert_eq!(
            (refused.status(), refused.json()["errors"][0]["code"].clone()),
            (400, json!("encoding")),
            "{name}"
        );
    }
}

#[tokio::test]
async fn filter_lists_match_their_schema_patterns() {
    let app = shop(&TestStorage::memory()).await;
    create(&app, "lamp", json!({"price_cents": 10})).await;
    create(&app, "chair", json!({"price_cents": 20})).await;
    let document = document(&app, "3.1").await;
    let schemas = &document["components"]["schemas"];
    let matches = |schema: &str, operator: &str, text: &str| {
        let schema = &schemas[schema]["anyOf"][1]["properties"][operator];
        assert_eq!(schema["type"], "string", "{operator}: {schema}");
        jsonschema::is_valid(schema, &json!(text))
    };
    for (schema, operator, query, text, found) in [
        ("Integer_Parameter", "in", "price_cents", "10,20", 2),
        ("Integer_Parameter", "between", "price_cents", "15,25", 1),
        ("Text_Parameter", "nin", "name", "lamp,table", 1),
        ("Product_StatusParameter", "in", "status", "draft,live,retired", 2),
    ] {
        assert!(matches(schema, operator, text), "{schema} {operator} {text}");
        let list = app.get(&format!("/products?{query}%5B{operator}%5D={text}")).await;
        assert_eq!((list.status(), list.json()["items"].as_array().unwrap().len()), (200, found), "{list}");
    }
    for (schema, operator, query, text) in [
        ("Integer_Parameter", "in", "price_cents", "10,x"),
        ("Integer_Parameter", "between", "price_cents", "15"),
        ("Product_StatusParameter", "in", "status", "draft,dead"),
    ] {
        assert!(!matches(schema, operator, text), "{schema} {operator} {text}");
        assert_eq!(
            app.get(&format!("/products?{query}%5B{operator}%5D={text}")).await.status(),
            400,
            "{text}"
        );
    }
}

#[tokio::test]
async fn entity_tags_of_the_server_match_the_pattern_of_their_headers() {
    let app = shop(&TestStorage::memory()).await;
    let document = document(&app, "3.1").await;
    let product = create(&app, "lamp", json!({})).await;
    let item = format!("/products/{}", product["id"].as_str().unwrap());
    let strong = app.get(&item).await.header("etag").unwrap().to_owned();
    let weak = app.get("/products").await.header("etag").unwrap().to_owned();
    for (path, method, name) in
        [("/products/{id}", "patch", "If-Match"), ("/products", "get", "If-None-Match")]
    {
        let header = parameters(&document, path, method).into_iter().find(|one| one["name"] == name).unwrap();
        assert_eq!(header["schema"]["type"], "string");
        for tags in [strong.clone(), weak.clone(), format!("{weak}, {strong}"), "*".to_owned()] {
            assert!(jsonschema::is_valid(&header["schema"], &json!(tags)), "{name}: {tags}");
        }
        assert!(!jsonschema::is_valid(&header["schema"], &json!("7")), "a tag has quotes (RFC 9110, 8.8.3)");
    }
}

#[tokio::test]
async fn schemas_state_schemars_and_validator_constraints() {
    let app = shop(&TestStorage::memory()).await;
    let schemas = document(&app, "3.1").await["components"]["schemas"].clone();
    let create = &schemas["ProductCreate"];
    assert_eq!(create["additionalProperties"], false);
    assert_eq!(create["properties"]["name"]["maxLength"], 120);
    assert_eq!(create["properties"]["price_cents"]["minimum"], 0);
    assert!(create["properties"].get("id").is_none() && create["properties"].get("version").is_none());
    assert!(
        create["properties"].get("secret").is_some()
            && schemas["Product"]["properties"].get("secret").is_none()
    );
    assert_eq!(schemas["ProductPatch"].get("required"), None);
    assert_eq!(schemas["ProductStatus"]["enum"], json!(["draft", "live", "retired"]));
    assert_eq!(schemas["ProductDimensions"]["properties"]["width"]["minimum"], 1);
    assert_eq!(schemas["ProductDimensions"]["additionalProperties"], false);
    // A patch may leave out at every depth what a whole item must have.
    assert_eq!(schemas["ProductDimensions"]["required"], json!(["width", "height"]));
    assert_eq!(schemas["ProductPatchDimensions"].get("required"), None);
}

#[tokio::test]
async fn every_response_is_documented() {
    let storage = TestStorage::memory();
    let app = shop(&storage).await;
    let document = document(&app, "3.1").await;
    let product = create(&app, "lamp", json!({})).await;
    let id = product["id"].as_str().unwrap();
    let item = format!("/products/{id}");
    let stale = "\"99\"";
    let answers = [
        ("get", "/products", app.get("/products").await),
        ("get", "/products", app.get("/products?x=1").await),
        ("get", "/products", app.get("/products").bearer("nope").await),
        ("post", "/products", app.post("/products").json(crate::support::product("chair", json!({}))).await),
        ("post", "/products", app.post("/products").json(crate::support::product("lamp", json!({}))).await),
        ("post", "/products", app.post("/products").json(json!({})).await),
        ("post", "/products", app.post("/products").header("content-type", "text/plain").body("x").await),
        ("post", "/products", app.post("/products").body(vec![b' '; 2 << 20]).await),
        ("post", "/products/query", app.post("/products/query").json(json!({})).await),
        ("get", "/products/{id}", app.get(&item).await),
        ("get", "/products/{id}", app.get(&item).header("if-none-match", "*").await),
        ("get", "/products/{id}", app.get("/products/x").await),
        ("patch", "/products/{id}", app.patch(&item).json(json!({"name": "x"})).await),
        ("patch", "/products/{id}", app.patch(&item).header("if-match", stale).json(json!({})).await),
        ("put", "/products/{id}", app.put(&item).json(json!({})).await),
        ("put", "/categories/{id}", app.put("/categories/a").json(json!({"title": "t"})).await),
        ("delete", "/products/{id}", app.delete(&item).header("if-match", stale).await),
        ("delete", "/products/{id}", app.delete(&item).await),
        ("get", "/notes", app.get("/notes").await),
        ("patch", "/notes/{id}", app.patch("/notes/1").bearer(EDITOR).json(json!({})).await),
    ];
    for (method, path, answer) in answers {
        let stated = &document["paths"][path][method]["responses"][answer.status().to_string()];
        let stated = resolve(&document, stated);
        assert!(stated.is_object(), "{method} {path} answers {} and does not state it", answer.status());
        if let Some(media_type) = answer.header("content-type") {
            assert!(
                stated["content"].get(media_type).is_some(),
                "{method} {path} {}: {media_type}",
                answer.status()
            );
        }
        let named = stated["headers"].as_object().cloned().unwrap_or_default();
        for header in ["etag", "location", "link", "www-authenticate", "preference-applied"] {
            let known = named.keys().any(|name| name.eq_ignore_ascii_case(header));
            assert!(
                answer.header(header).is_none() || known,
                "{method} {path} {}: {header}",
                answer.status()
            );
        }
    }
}

#[tokio::test]
async fn documented_security_matches_enforcement() {
    let app = shop(&TestStorage::memory()).await;
    let document = document(&app, "3.1").await;
    assert_eq!(
        document["components"]["securitySchemes"]["Bearer"],
        json!({"type": "http", "scheme": "bearer"})
    );
    assert_eq!(document["paths"]["/products"]["get"]["security"], json!([]));
    assert_eq!(document["paths"]["/notes"]["get"]["security"], json!([{"Bearer": []}]));
    assert!(document["paths"]["/notes"]["post"]["description"].as_str().unwrap().contains("`editor`"));
    assert!(document["paths"]["/notes"]["get"]["responses"].get("403").is_none());
    assert!(document["paths"]["/notes"]["post"]["responses"].get("403").is_some());
}

#[tokio::test]
async fn a_put_that_may_create_states_both_permissions() {
    let storage = TestStorage::memory();
    let codes = |create| {
        define_dynamic_resource(
            "codes",
            json!({"type": "object", "properties": {"code": {"type": "string"}, "text": {"type": "string"}},
                   "required": ["code", "text"]}),
        )
        .adapter(storage.table("codes"))
        .id_field("code")
        .permissions(Permissions::all(anyone()).create(create))
        .build()
        .unwrap()
    };
    let put = async |create| {
        let app = TestApp::build(create_app(AppPreset::Testing).resource(codes(create))).await.unwrap();
        document(&app, "3.1").await["paths"]["/codes/{id}"]["put"].clone()
    };
    let open = put(anyone()).await;
    assert_eq!((&open["security"], open["responses"].get("403")), (&json!([]), None));
    let guarded = put(role("editor")).await;
    assert_eq!(guarded["security"], json!([{}, {"Bearer": ["editor"]}]));
    assert!(guarded["responses"].get("401").is_some() && guarded["responses"].get("403").is_some());
    let description = guarded["description"].as_str().unwrap();
    assert!(description.ends_with("To create an item with it: Needs the role `editor`."), "{description}");
}

#[tokio::test]
async fn operation_ids_are_unique_and_servers_are_listed() {
    let storage = TestStorage::memory();
    let resource = |name: &str| {
        define_dynamic_resource(name, json!({"type": "object", "properties": {"id": {"type": "integer"}}}))
            .adapter(storage.table(name))
            .permissions(Permissions::all(anyone()))
            .build()
            .unwrap()
    };
    let app = create_app(AppPreset::Testing)
        .resource(resource("order-lines"))
        .resource(resource("order_lines"))
        .server("https://shop.example/api");
    let document = document(&TestApp::build(app).await.unwrap(), "3.2").await;
    assert_eq!(document["servers"], json!([{"url": "https://shop.example/api"}]));
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().values());
    let mut ids: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), all), (20, 20), "{ids:?}");
}

/// Its frame, one operation of each kind and the components, so that none of them changes unseen.
#[tokio::test]
async fn document_matches_snapshot() {
    let notes = create_app(AppPreset::Testing).resource(crate::support::notes(&TestStorage::memory()));
    let app = TestApp::build(notes).await.unwrap();
    let mut document = document(&app, "3.2").await;
    for (path, method) in
        [("/notes", "get"), ("/notes", "query"), ("/notes/{id}", "get"), ("/notes/{id}", "put")]
    {
        assert!(document["paths"][path].as_object_mut().unwrap().remove(method).is_some());
    }
    insta::assert_json_snapshot!("document", document);
}

#[tokio::test]
async fn security_is_documented_without_an_authenticator() {
    let notes = create_app(AppPreset::Testing).resource(crate::support::notes(&TestStorage::memory()));
    let app = TestApp::build(notes).await.unwrap();
    let refused = app.get("/notes").await;
    assert_eq!((refused.status(), refused.header("www-authenticate")), (401, Some("Bearer realm=\"api\"")));
    assert_eq!(document(&app, "3.1").await["paths"]["/notes"]["get"]["security"], json!([{"Bearer": []}]));
}

#[tokio::test]
async fn docs_page_is_served_from_bundled_files() {
    let app = shop(&TestStorage::memory()).await;
    let page = app.get("/docs").await;
    assert_eq!((page.status(), page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(!page.text().contains("http"), "nothing comes from elsewhere: {}", page.text());
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'self'") && policy.contains("connect-src 'self'"));
    for part in page.text().split('"').filter(|part| part.starts_with("docs/")) {
        let file = app.get(&format!("/{part}")).await;
        assert_eq!(file.status(), 200, "{part}");
        assert!(file.bytes().len() > 100, "{part}");
    }
    assert_eq!(app.get("/docs/nope.js").await.status(), 404);
    let refused = app.post("/docs").await;
    assert_eq!(
        (refused.status(), refused.header("content-type")),
        (405, Some("application/problem+json")),
        "{refused}"
    );
    assert!(refused.header("allow").is_some());
}

/// The shop's own declaration, asked for its document with the credential of one of its people.
async fn shop_document(variable: Option<&str>) -> Value {
    let app = crate::examples::documented_shop().await;
    let request = app.get("/openapi.json");
    let answer = match variable {
        Some(variable) => request.bearer(&crate::examples::token(variable)).await,
        None => request.await,
    };
    assert_eq!(answer.status(), 200, "{answer}");
    assert!(answer.header("vary").is_some_and(|vary| vary.contains("authorization")), "{answer}");
    answer.json()
}

#[tokio::test]
async fn security_alternatives_and_scopes_are_documented() {
    let app = crate::examples::shop(&TestStorage::memory()).await;
    let document = document(&app, "3.1").await;
    let security = |path: &str, method: &str| document["paths"][path][method]["security"].clone();
    // A member, or a service with the scope.
    assert_eq!(security("/products", "get"), json!([{"Bearer": []}, {"Bearer": ["products:read"]}]));
    // An admin; and only for what they see, as a member or by a scope.
    assert_eq!(security("/products", "post"), json!([{"Bearer": ["admin"]}]),);
    assert_eq!(
        security("/products/{id}", "delete"),
        json!([{"Bearer": ["admin"]}, {"Bearer": ["admin", "products:read"]}]),
    );
    let scheme = &document["components"]["securitySchemes"]["Bearer"];
    assert_eq!(scheme, &json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}));
    for status in ["401", "403"] {
        assert!(document["paths"]["/products"]["post"]["responses"].get(status).is_some(), "{status}");
    }
}

#[tokio::test]
async fn every_authenticator_is_a_security_scheme() {
    use resourceful::access::{ApiKeys, MemoryApiKeys, MemorySessions, Sessions};
    let app = crate::support::builder(&TestStorage::memory())
        .authenticator(ApiKeys::new(MemoryApiKeys::new()))
        .authenticator(Sessions::new("0123456789abcdef0123456789abcdef", MemorySessions::new()));
    let app = TestApp::build(app).await.unwrap();
    let document = document(&app, "3.1").await;
    assert_eq!(
        document["components"]["securitySchemes"],
        json!({
            "ApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            "Bearer": {"type": "http", "scheme": "bearer"},
            "Session": {"type": "apiKey", "in": "cookie", "name": "__Host-session"},
        })
    );
    let any = json!([{"Bearer": []}, {"ApiKey": []}, {"Session": []}]);
    assert_eq!(document["paths"]["/notes"]["get"]["security"], any);
}

#[tokio::test]
async fn per_caller_document_omits_what_the_caller_may_not_use() {
    let (admin, member) = (shop_document(Some("ACME_ADMIN")).await, shop_document(Some("ACME_MEMBER")).await);
    assert!(admin.to_string().contains("cost_cents"), "the field is there for admins");
    assert!(!member.to_string().contains("cost_cents"), "and for nobody else");
    let paths = |document: &Value, path: &str| -> Vec<String> {
        document["paths"][path].as_object().map(|path| path.keys().cloned().collect()).unwrap_or_default()
    };
    assert!(paths(&admin, "/products").contains(&"post".to_owned()));
    assert_eq!(paths(&member, "/products"), ["get"]);
    // What may be read and not set is in answers alone.
    let grace = shop_document(Some("GLOBEX_ADMIN")).await;
    let has = |document: &Value, shape: &str| {
        document["components"]["schemas"][shape]["properties"].get("credit_cents").is_some()
    };
    assert!(has(&admin, "Customer") && has(&admin, "CustomerPatch"));
    assert!(has(&grace, "Customer") && !has(&grace, "CustomerPatch") && !has(&grace, "CustomerCreate"));
    // A service has three resources, and relations to nothing else.
    let service = shop_document(Some("SERVICE")).await;
    assert!(paths(&service, "/orders").is_empty() && !service.to_string().contains("OrderLine"));
    // What is redacted is shown, and tells nothing.
    assert!(service["components"]["schemas"]["CustomerPartial"]["properties"].get("email").is_some());
    assert!(service["components"]["schemas"]["CustomerFilter"]["properties"].get("email").is_none());
    assert!(shop_document(None).await["paths"].as_object().is_some_and(serde_json::Map::is_empty));
}

#[tokio::test]
async fn per_caller_document_rejects_bad_credentials_and_has_its_own_etag() {
    let app = crate::examples::documented_shop().await;
    let refused = app.get("/openapi.json").bearer("nope").await;
    assert_eq!(
        (refused.status(), refused.header("www-authenticate")),
        (401, Some("Bearer realm=\"api\", error=\"invalid_token\""))
    );
    let token = crate::examples::token("ACME_MEMBER");
    let own = app.get("/openapi.json").bearer(&token).await;
    let tag = own.header("etag").unwrap();
    assert_eq!(app.get("/openapi.json").bearer(&token).header("if-none-match", tag).await.status(), 304);
    let other = crate::examples::token("ACME_ADMIN");
    assert_eq!(app.get("/openapi.json").bearer(&other).header("if-none-match", tag).await.status(), 200);
}

#[tokio::test]
async fn streams_are_described_per_openapi_version() {
    let app = TestApp::build(builder(&TestStorage::memory())).await.unwrap();
    for (version, schema) in [("3.1", "schema"), ("3.2", "itemSchema")] {
        let document = document(&app, version).await;
        for path in ["/products/stream", "/events"] {
            let answer = &document["paths"][path]["get"]["responses"]["200"]["content"]["text/event-stream"];
            let members: Vec<_> = answer.as_object().expect(path).keys().collect();
            assert_eq!(members, [schema], "{version} {path}");
            let refused = &resolve(&document, &document["paths"][path]["get"]["responses"]["429"])["headers"];
            assert!(refused.get("Retry-After").is_some(), "{path}: {refused}");
        }
        let socket = &document["paths"]["/ws"]["get"];
        assert_eq!(parameters(&document, "/ws", "get")[0]["name"], "Sec-WebSocket-Protocol");
        for status in ["101", "400", "401", "403", "426", "429", "503"] {
            assert!(socket["responses"][status].is_object(), "{status}: {socket}");
        }
        let list = &document["paths"]["/products"]["get"]["responses"]["200"]["headers"];
        assert!(list.get("Stream-Position").is_some());
    }
}
