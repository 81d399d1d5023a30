//! Which fields a caller may see and set, on every path.

use resourceful::Change;
use resourceful::access::not;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::{Value as Json, json};

use crate::policies::{actors, comparable_problem, for_each_storage, model};
use crate::support::{TestStorage, faults};

/// People whose salary and score are for the chief, whose grade only the chief may set, whose phone most callers see as
/// a placeholder, and whose pin no caller sees.
fn people(place: &TestStorage, name: &str) -> Resource {
    let shape = json!({
        "type": "object",
        "properties": {
            "code": {"type": "string"},
            "name": {"type": "string"},
            "salary": {"type": "integer", "default": 0, "maximum": 1000},
            "grade": {"type": "string", "default": "new"},
            "phone": {"type": "string"},
            "badge": {"type": "string", "default": "b-0"},
            "score": {"type": "integer", "default": 0},
            "pin": {"type": "string", "default": "none"},
        },
        "required": ["code", "name", "salary", "grade", "phone", "badge", "score", "pin"],
    });
    define_dynamic_resource(name, shape)
        .adapter(place.table(name))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .visible_to(["salary"], role("chief"))
        .writable_by(["salary", "grade"], role("chief"))
        .redacted_for(["phone"], not(role("chief")), json!("***"))
        .hidden(["badge"])
        .visible_to(["score"], role("chief"))
        .write_only(["pin"])
        .filterable(["salary", "grade", "phone"])
        .sortable(["salary", "grade", "phone"])
        .searchable(["name", "phone"])
        .preset(bulk())
        .preset(audit().readable_by(anyone()).revertible_by(anyone()))
        .build()
        .unwrap()
}

pub(crate) async fn staff(place: &TestStorage) -> TestApp {
    let teams = define_dynamic_resource("teams", model(&["code", "lead"]))
        .adapter(place.table("teams"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .relation(belongs_to("leader", "people").key("lead"))
        .build()
        .unwrap();
    let app = create_app(AppPreset::Testing)
        .authenticator(actors())
        .batch(10)
        .resource(people(place, "people"))
        .resource(teams);
    let app = TestApp::build(app).await.unwrap();
    for (code, salary) in [("a", 500), ("b", 300)] {
        let body = json!({"code": code, "name": code, "salary": salary, "grade": "old", "phone": format!("555-{code}")});
        let created = app.post("/people").bearer("chief").json(body).await;
        assert_eq!(created.status(), 201, "{created}");
    }
    let team = app.post("/teams").json(json!({"code": "t", "lead": "a"})).await;
    assert_eq!(team.status(), 201, "{team}");
    app
}

/// What a problem says, whatever the name that it is about; a misspelling is a suggestion's business.
pub(crate) fn normalized_problem(answer: &TestResponse, name: &str) -> String {
    let mut said = comparable_problem(answer).1;
    for error in said["errors"].as_array_mut().unwrap() {
        let detail = error["detail"].as_str().unwrap();
        let detail = detail.split(" Did you mean").next().unwrap();
        *error = json!([error["parameter"], error["code"], detail]);
    }
    said.to_string().replace(name, "…")
}

#[tokio::test]
async fn unreadable_field_is_treated_as_unknown() {
    for_each_storage(|place| async move {
        let app = staff(&place).await;
        let whole =
            json!({"code": "a", "name": "a", "salary": 500, "grade": "old", "phone": "555-a", "score": 0});
        assert_eq!(app.get("/people/a").bearer("chief").await.json(), whole);
        let masked = json!({"code": "a", "name": "a", "grade": "old", "phone": "***"});
        for answer in [
            app.get("/people/a").await.json(),
            app.get("/people").await.items()[0].clone(),
            app.get("/teams/t?include=leader").await.json()["leader"].clone(),
            app.get("/teams?include=leader").await.items()[0]["leader"].clone(),
            app.patch("/people/a").json(json!({"name": "a"})).await.json(),
        ] {
            assert_eq!(answer, masked);
        }
        let both = json!({"name": "a", "phone": "***"});
        assert_eq!(app.get("/people/a?fields=name,phone").await.json(), both);

        // Named in a query it is what no field is.
        for name in ["salary", "phone", "badge"] {
            for query in [
                format!("{name}=1"),
                format!("{name}%5Bgte%5D=400"),
                format!("{name}%5Bnope%5D=400"),
                format!("{name}%5Bin%5D=1,2"),
                format!("sort={name}"),
                format!("sort=-{name}"),
                format!("fields={name}"),
            ] {
                if name == "phone" && query.starts_with("fields") {
                    continue;
                }
                let real = app.get(&format!("/people?{query}")).await;
                let fake = app.get(&format!("/people?{}", query.replace(name, "zzqzz"))).await;
                assert_eq!(real.status(), 400, "{query}: {real}");
                assert_eq!(normalized_problem(&real, name), normalized_problem(&fake, "zzqzz"), "{query}");
            }
            let filter = json!({"filter": {name: {"is_null": false}}});
            assert_eq!(app.request("QUERY", "/people").json(filter).await.status(), 400);
            let near = app.get(&format!("/people?x{name}=1")).await;
            assert!(!near.text().contains(&format!("`{name}`")), "{near}");
            let dotted = app.get(&format!("/teams?leader.{name}=1")).await;
            assert_eq!(dotted.status(), 400, "{dotted}");
        }
        assert_eq!(app.get("/people?q=555").await.items().len(), 0);
        assert_eq!(app.get("/people?q=555").bearer("chief").await.items().len(), 2);
        assert_eq!(app.get("/people?sort=-salary&salary%5Bgte%5D=1").bearer("chief").await.items().len(), 2);

        // The tag of the one answer is not that of the other.
        let tags = [app.get("/people/a").await, app.get("/people/a").bearer("chief").await];
        let [masked, whole] = tags.map(|answer| answer.header("etag").unwrap().to_owned());
        assert_ne!(masked, whole);
        assert_eq!(app.get("/people/a").bearer("chief").header("if-none-match", &masked).await.status(), 200);
        // Either names the version that a change expects.
        for tag in [&masked, &whole] {
            let updated = app.patch("/people/a").header("if-match", tag).json(json!({"name": "a"})).await;
            assert_eq!(updated.status(), 200, "{updated}");
        }
    })
    .await;
}

#[tokio::test]
async fn unwritable_field_is_refused_and_keeps_its_value() {
    for_each_storage(|place| async move {
        let app = staff(&place).await;
        for (method, path, body) in [
            ("POST", "/people", json!({"code": "n", "name": "n", "grade": "x", "phone": "1"})),
            ("PATCH", "/people/a", json!({"grade": "x"})),
            ("PUT", "/people/a", json!({"name": "n", "grade": "x", "phone": "1"})),
        ] {
            let refused = app.request(method, path).json(body).await;
            assert_eq!(
                (refused.status(), refused.json()["code"].clone()),
                (403, json!("forbidden")),
                "{refused}"
            );
            assert_eq!(refused.json()["errors"][0]["pointer"], "/grade", "{refused}");
        }
        // What one may neither see nor set is not there to be set, not even wrongly.
        for (method, path) in [("POST", "/people"), ("PATCH", "/people/a"), ("PUT", "/people/a")] {
            for (name, value) in
                [("salary", json!(1)), ("salary", json!("x")), ("salary", json!(5000)), ("badge", json!("b"))]
            {
                let mut body = json!({"name": "n", "phone": "1", name: value});
                if method == "POST" {
                    body["code"] = json!("n");
                }
                let refused = app.request(method, path).json(body).await;
                let problem = refused.json();
                assert_eq!(refused.status(), 422, "{method}: {refused}");
                let fault = &problem["errors"][0];
                assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{refused}");
                assert_eq!(
                    (&fault["pointer"], &fault["code"]),
                    (&json!(format!("/{name}")), &json!("unknown"))
                );
                assert_eq!(
                    fault["detail"].as_str().unwrap().split(" Did").next().unwrap(),
                    format!("There is no field `{name}` here.")
                );
            }
        }
        // A change of the rest leaves it as it was, and a whole replacement does too.
        assert_eq!(app.patch("/people/a").json(json!({"name": "ann"})).await.status(), 200);
        let put = app.put("/people/b").json(json!({"name": "bo", "phone": "555-new"})).await;
        assert_eq!(put.status(), 200, "{put}");
        let found = app.get("/people?fields=name,salary,grade,phone").bearer("chief").await.items();
        assert_eq!(
            found,
            [
                json!({"name": "ann", "salary": 500, "grade": "old", "phone": "555-a"}),
                json!({"name": "bo", "salary": 300, "grade": "old", "phone": "555-new"}),
            ]
        );
        let created = app.post("/people").json(json!({"code": "n", "name": "n", "phone": "1"})).await;
        assert_eq!((created.status(), created.json()["phone"].clone()), (201, json!("***")), "{created}");
        assert_eq!(app.get("/people/n").bearer("chief").await.json()["salary"], 0);
    })
    .await;
}

/// The same merge patch of one person on every path that takes one: the path, the answer, and where the patch stands.
async fn send_patches(
    app: &TestApp,
    patch: &Json,
    dry_run: bool,
) -> Vec<(&'static str, TestResponse, &'static str)> {
    let prefer = if dry_run { "dry-run" } else { "respond-async" };
    let mut one = patch.clone();
    one["code"] = json!("a");
    let operation = json!({"operation": "update", "resource": "people", "id": "a", "body": patch});
    vec![
        ("PATCH", app.patch("/people/a").header("prefer", prefer).json(patch.clone()).await, ""),
        (
            "bulk",
            app.patch("/people/bulk").header("prefer", prefer).json(json!({"items": [one]})).await,
            "/items/0",
        ),
        (
            "batch",
            app.post("/batch").header("prefer", prefer).json(json!({"operations": [operation]})).await,
            "/operations/0/body",
        ),
    ]
}

#[tokio::test]
async fn hidden_field_cannot_be_set_cleared_or_guessed() {
    for_each_storage(|place| async move {
        let app = staff(&place).await;
        let set = app.patch("/people/a").bearer("chief").json(json!({"score": 7})).await;
        assert_eq!((set.status(), set.json()["score"].clone()), (200, json!(7)), "{set}");
        let score = async || app.get("/people/a").bearer("chief").await.json()["score"].clone();

        for dry_run in [false, true] {
            let mut said = Vec::new();
            for guess in [json!(7), json!(8)] {
                for (path, refused, pointer) in send_patches(&app, &json!({"score": guess}), dry_run).await {
                    assert_eq!(refused.status(), 422, "{path}: {refused}");
                    let fault = &refused.json()["errors"][0];
                    assert_eq!(fault["code"], "unknown", "{path}: {refused}");
                    assert_eq!(fault["pointer"], format!("{pointer}/score"), "{path}");
                    said.push(comparable_problem(&refused));
                }
            }
            // The right guess is answered as the wrong one is.
            assert_eq!(said[..3], said[3..]);
        }
        let body = json!({"code": "n", "name": "n", "phone": "1", "score": 1});
        let created = app.post("/people").json(body.clone()).await;
        assert_eq!(created.json()["errors"][0]["code"], "unknown", "{created}");
        let many = app.post("/people/bulk").json(json!({"items": [body]})).await;
        assert_eq!(many.json()["errors"][0]["pointer"], "/items/0/score", "{many}");
        let put = app.put("/people/a").json(json!({"name": "a", "phone": "1", "score": 1})).await;
        assert_eq!(put.json()["errors"][0]["code"], "unknown", "{put}");
        assert_eq!(score().await, 7);

        // Neither a replacement nor a return to the past resets it.
        let put = app.put("/people/a").json(json!({"name": "ann", "phone": "1"})).await;
        assert_eq!((put.status(), score().await), (200, json!(7)), "{put}");
        let before = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let changed = app.patch("/people/a").bearer("chief").json(json!({"score": 9, "name": "bea"})).await;
        assert_eq!(changed.status(), 200, "{changed}");
        let reverted = app.post("/people/a/revert").json(json!({"as_of": before})).await;
        assert_eq!((reverted.status(), reverted.json()["name"].clone()), (200, json!("ann")), "{reverted}");
        assert_eq!(score().await, 9);
        assert!(!app.get("/people/a/history").await.text().contains("score"));
    })
    .await;
}

#[tokio::test]
async fn redacted_placeholder_is_never_stored() {
    for_each_storage(|place| async move {
        let app = staff(&place).await;
        let phone = async || app.get("/people/a").bearer("chief").await.json()["phone"].clone();
        let mut read = app.get("/people/a").await.json();
        assert_eq!(read["phone"], "***");
        // All that was read is sent back, but for what this caller may not set.
        let members = read.as_object_mut().unwrap();
        members.remove("grade");
        for (method, rest) in [("PUT", json!({})), ("PATCH", json!({})), ("PUT", json!({"name": "ann"}))] {
            let mut body = read.clone();
            if method == "PATCH" {
                body.as_object_mut().unwrap().remove("code");
            }
            body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            let answer = app.request(method, "/people/a").json(body.clone()).await;
            assert_eq!(answer.status(), 200, "{method}: {answer}");
            assert_eq!(answer.json()["name"], body["name"], "{method}: {answer}");
            assert_eq!(phone().await, "555-a", "{method}");
        }
        for (path, answer, _) in send_patches(&app, &json!({"phone": "***", "name": "again"}), false).await {
            assert_eq!((answer.status(), phone().await), (200, json!("555-a")), "{path}: {answer}");
        }
        // What is no placeholder is set, and left out of a replacement it is missing.
        let set = app.patch("/people/a").json(json!({"phone": "556"})).await;
        assert_eq!((set.status(), phone().await), (200, json!("556")), "{set}");
        assert_eq!(app.put("/people/a").json(json!({"name": "ann"})).await.status(), 422);
    })
    .await;
}

#[tokio::test]
async fn dry_run_does_not_confirm_a_hidden_value() {
    for_each_storage(|place| async move {
        let app = staff(&place).await;
        assert_eq!(app.patch("/people/a").json(json!({"pin": "1234"})).await.status(), 200);
        for (right, wrong) in [
            (json!({"pin": "1234"}), json!({"pin": "9999"})),
            (json!({"phone": "555-a"}), json!({"phone": "555-b"})),
        ] {
            let right = send_patches(&app, &right, true).await;
            let wrong = send_patches(&app, &wrong, true).await;
            for ((path, right, _), (_, wrong, _)) in right.iter().zip(&wrong) {
                let said = |answer: &TestResponse| {
                    let mut said = answer.json();
                    // Without a counter the tag of a dry run is of no state that there will be.
                    let tag = said["headers"].as_object_mut().unwrap().remove("etag");
                    let in_batch = said.pointer_mut("/body/results/0/etag").map(Json::take);
                    (said, tag.or(in_batch))
                };
                let ((right, right_tag), (wrong, wrong_tag)) = (said(right), said(wrong));
                assert_eq!(right, wrong, "{path}");
                assert_eq!(right["events"].as_array().unwrap().len(), 1, "{path}: {right}");
                if right_tag.as_ref().is_some_and(Json::is_string) {
                    assert_ne!(right_tag, wrong_tag, "{path}");
                    let now = app.get("/people/a").await.header("etag").map(str::to_owned);
                    assert_ne!(right_tag.unwrap().as_str().map(str::to_owned), now, "{path}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn replace_keeps_write_only_fields() {
    for_each_storage(|place| async move {
        let (stored, mut items) = tokio::sync::mpsc::unbounded_channel();
        let accounts = define_dynamic_resource("accounts", model(&["code", "name", "secret"]))
            .adapter(place.table("accounts"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .write_only(["secret"])
            .after([Operation::Replace], move |item: serde_json::Map<String, Json>, _: Change| {
                stored.send(item["secret"].clone()).unwrap();
                std::future::ready(Ok(()))
            })
            .build()
            .unwrap();
        let app = TestApp::build(create_app(AppPreset::Testing).resource(accounts)).await.unwrap();
        let body = json!({"code": "a", "name": "a", "secret": "s1"});
        assert_eq!(app.post("/accounts").json(body).await.status(), 201);
        let mut read = app.get("/accounts/a").await.json();
        assert_eq!(read, json!({"code": "a", "name": "a"}));
        read["name"] = json!("b");
        let put = app.put("/accounts/a").json(read.clone()).await;
        assert_eq!((put.status(), items.recv().await.unwrap()), (200, json!("s1")), "{put}");
        read["secret"] = json!("s2");
        let put = app.put("/accounts/a").json(read).await;
        assert_eq!((put.status(), items.recv().await.unwrap()), (200, json!("s2")), "{put}");
    })
    .await;
}

#[tokio::test]
async fn etag_digest_depends_on_the_secret() {
    // Without a counter a tag is made of the whole row: two applications with different secrets name it differently.
    let place = TestStorage::memory();
    let tag = async |secret: &str| {
        let app = create_app(AppPreset::Development).secret(secret).resource(people(&place, "people"));
        let app = TestApp::build(app).await.unwrap();
        app.post("/people").json(json!({"code": "a", "name": "a", "phone": "1"})).await;
        app.get("/people/a").await.header("etag").unwrap().to_owned()
    };
    let (one, other) = (tag(&"1".repeat(32)).await, tag(&"2".repeat(32)).await);
    assert_ne!(one, other);
    assert_eq!(one, tag(&"1".repeat(32)).await);
}

#[tokio::test]
async fn unique_conflict_does_not_name_a_hidden_field() {
    for_each_storage(|place| async move {
        let mut shape = model(&["code", "name", "badge"]);
        shape["properties"]["badge"]["default"] = json!("none");
        let badges = define_dynamic_resource("badges", shape)
            .adapter(place.table("badges"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .visible_to(["badge"], role("chief"))
            .writable_by(["badge"], role("chief"))
            .unique(["badge"])
            .build()
            .unwrap();
        let app = create_app(AppPreset::Testing).authenticator(actors()).resource(badges);
        let app = TestApp::build(app).await.unwrap();
        let create = |code: &str| app.post("/badges").json(json!({"code": code, "name": "n"}));
        assert_eq!(create("a").await.status(), 201);
        let clash = create("b").await;
        assert_eq!((clash.status(), clash.json()["code"].clone()), (409, json!("unique")), "{clash}");
        assert!(!clash.text().contains("badge\""), "{clash}");
        let visible = app.post("/badges").bearer("chief").json(json!({"code": "b", "name": "n"})).await;
        assert_eq!(visible.json()["errors"][0]["pointer"], "/badge", "{visible}");
    })
    .await;
}

#[tokio::test]
async fn redacted_read_only_field_cannot_be_guessed() {
    for_each_storage(|place| async move {
        let mut shape = model(&["code", "mark", "seal"]);
        shape["properties"]["mark"]["default"] = json!("none");
        let marks = define_dynamic_resource("marks", shape)
            .adapter(place.table("marks"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .read_only(["mark"])
            .immutable(["seal"])
            .redacted_for(["mark", "seal"], not(role("chief")), json!("***"))
            .preset(bulk())
            .build()
            .unwrap();
        let chief = BearerTokens::new().token("chief", Actor::user("chief").with_role("chief"));
        let app = create_app(AppPreset::Testing).authenticator(chief).batch(2).resource(marks);
        let app = TestApp::build(app).await.unwrap();
        app.app()
            .load()
            .rows("marks", [json!({"code": "a", "mark": "real", "seal": "wax"})])
            .unwrap()
            .commit()
            .await
            .unwrap();
        for (field, real) in [("mark", "real"), ("seal", "wax")] {
            let said = async |method: &str, value: &str| {
                let mut body = json!({field: value});
                if method == "PUT" {
                    body = json!({"mark": "***", "seal": "***", field: value});
                }
                let one = app.request(method, "/marks/a").json(body.clone()).await;
                let mut listed = body.clone();
                listed["code"] = json!("a");
                let many = app.patch("/marks/bulk").json(json!({"items": [listed]})).await;
                let operation = json!({"operation": "update", "resource": "marks", "id": "a", "body": body});
                let batch = app.post("/batch").json(json!({"operations": [operation]})).await;
                [one.status(), many.status(), batch.status()]
            };
            for method in ["PATCH", "PUT"] {
                for value in [real, "guess"] {
                    assert_eq!(said(method, value).await, [422; 3], "{method} {field}={value}");
                }
                assert_eq!(said(method, "***").await, [200, 200, 200], "{method} {field}: as it was read");
            }
            let known = app.patch("/marks/a").bearer("chief").json(json!({field: real})).await;
            assert_eq!(known.status(), 200, "who is shown it may send it back: {known}");
        }
    })
    .await;
}

/// A merge patch says of an object only what changes (RFC 7396); of one that cannot change it must say the whole.
#[tokio::test]
async fn merge_patch_cannot_change_an_immutable_or_read_only_object() {
    for_each_storage(|place| async move {
        let mut shape = model(&["code", "name"]);
        for field in ["meta", "stamp"] {
            shape["properties"][field] = json!({"type": "object", "default": {}});
        }
        let marks = define_dynamic_resource("marks", shape)
            .adapter(place.table("marks"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .immutable(["meta"])
            .read_only(["stamp"])
            .preset(bulk())
            .build()
            .unwrap();
        let app = create_app(AppPreset::Testing).batch(2).resource(marks);
        let app = TestApp::build(app).await.unwrap();
        let object = json!({"a": 1, "b": {"c": [2]}});
        let row = json!({"code": "a", "name": "n", "meta": object, "stamp": object});
        app.app().load().rows("marks", [row.clone()]).unwrap().commit().await.unwrap();
        for (field, code) in [("meta", "immutable"), ("stamp", "read-only")] {
            for given in [json!({"a": null}), json!({"a": 1, "b": {"c": null}}), json!({"d": 1}), json!(null)]
            {
                let patch = json!({"name": "other", field: given});
                let one = app.patch("/marks/a").json(patch.clone()).await;
                assert_eq!(faults(&one.json()), [(&*format!("/{field}"), code)], "{given}: {one}");
                let mut listed = patch.clone();
                listed["code"] = json!("a");
                let many = app.patch("/marks/bulk").json(json!({"items": [listed]})).await;
                let operation = json!({"operation": "update", "resource": "marks", "id": "a", "body": patch});
                let batch = app.post("/batch").json(json!({"operations": [operation]})).await;
                assert_eq!((many.status(), batch.status()), (422, 422), "{given}: {many} {batch}");
                assert_eq!(app.get("/marks/a").await.json(), row);
            }
            let same = app.patch("/marks/a").json(json!({field: object})).await;
            assert_eq!((same.status(), same.json()), (200, row.clone()), "{same}");
        }
    })
    .await;
}

/// A client that changes one field of what it read may send all of it back.
#[tokio::test]
async fn unwritable_field_may_be_sent_back_unchanged() {
    for_each_storage(|place| async move {
        let mut shape = model(&["code", "name", "grade"]);
        shape["properties"]["score"] = json!({"type": "number", "default": 1.5});
        let marks = define_dynamic_resource("marks", shape)
            .adapter(place.table("marks"))
            .id_field("code")
            .permissions(Permissions::all(anyone()))
            .writable_by(["grade", "score"], role("chief"))
            .preset(bulk())
            .build()
            .unwrap();
        let app = create_app(AppPreset::Testing).authenticator(actors()).batch(2).resource(marks);
        let app = TestApp::build(app).await.unwrap();
        let row = json!({"code": "a", "name": "n", "grade": "high", "score": 2.0});
        let refused = app.post("/marks").json(row.clone()).await;
        assert_eq!(refused.status(), 403, "{refused}");
        let refused = app.put("/marks/a").json(row.clone()).await;
        assert_eq!(refused.status(), 403, "a PUT that would create: {refused}");
        let plain = app.put("/marks/b").json(json!({"code": "b", "name": "n", "grade": null})).await;
        assert_eq!(plain.status(), 403, "no item says so already: {plain}");
        assert_eq!(app.post("/marks").bearer("chief").json(row.clone()).await.status(), 201);
        let send = async |members: Json| {
            let mut whole = app.get("/marks/a").await.json();
            whole.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            let patch = app.patch("/marks/a").json(whole.clone()).await;
            let put = app.put("/marks/a").json(whole.clone()).await;
            let many = app.patch("/marks/bulk").json(json!({"items": [whole]})).await;
            let operation = json!({"operation": "update", "resource": "marks", "id": "a", "body": whole});
            let batch = app.post("/batch").json(json!({"operations": [operation]})).await;
            let filter = json!({"filter": {"code": "a"}, "patch": members, "max_affected": 1});
            let filtered = app.patch("/marks/bulk").json(filter).await;
            [patch, put, many, batch, filtered]
        };
        for same in [json!({"grade": "high"}), json!({"score": 2}), json!({})] {
            let mut members = same.clone();
            members["name"] = json!(format!("with {same}"));
            for answer in send(members.clone()).await {
                assert_eq!(answer.status(), 200, "{members}: {answer}");
            }
            let stored = app.get("/marks/a").await.json();
            assert_eq!((&stored["name"], &stored["grade"]), (&members["name"], &json!("high")));
        }
        let before = app.get("/marks/a").await;
        for (member, other) in [("grade", json!("low")), ("grade", Json::Null), ("score", json!(2.5))] {
            for answer in send(json!({"name": "lost", member: other})).await {
                assert_eq!(answer.status(), 403, "{member}={other}: {answer}");
                let pointer = answer.json()["errors"][0]["pointer"].as_str().unwrap().to_owned();
                assert!(pointer.ends_with(member), "{answer}");
            }
        }
        let after = app.get("/marks/a").await;
        assert_eq!((after.header("etag"), after.json()), (before.header("etag"), before.json()));
    })
    .await;
}
