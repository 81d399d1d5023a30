//! `POST /_explain`: why somebody may do something, or may not.

use resourceful::prelude::*;
use resourceful::testing::{TestApp, TestResponse};
use serde_json::{Value as Json, json};

use crate::examples::{self, seed};
use crate::support::TestStorage;

async fn app(place: &TestStorage) -> TestApp {
    examples::shop(place).await
}

async fn ask(app: &TestApp, question: Json) -> TestResponse {
    app.post("/_explain").bearer(&examples::token("OPERATOR")).json(question).await
}

#[tokio::test]
async fn explain_names_the_deciding_rule_and_the_row_filter() {
    for place in TestStorage::all().await {
        let app = app(&place).await;
        let alan = json!({"id": "alan", "tenant": "acme", "tenant_roles": ["member"]});
        let about = |id: Uuid, actor: &Json| json!({"resource": "orders", "operation": "read", "id": id, "actor": actor});
        let own = ask(&app, about(seed::ALANS_ORDER, &alan)).await;
        assert_eq!((own.status(), own.json()["outcome"].clone()), (200, json!("allowed")), "{own}");

        let hidden = ask(&app, about(seed::ADAS_ORDER, &alan)).await.json();
        assert_eq!(hidden["outcome"], "hidden");
        let step = |rule: &str| {
            let steps = hidden["operation"].as_array().unwrap();
            steps
                .iter()
                .find(|step| step["rule"] == rule)
                .unwrap_or_else(|| panic!("{rule}: {hidden}"))
                .clone()
        };
        assert_eq!(step("tenant_member()")["said"], "allow");
        assert_eq!(step("same_tenant(\"tenant_id\")")["row_matches"], true);
        assert_eq!(step("owner(\"user_id\")")["row_matches"], false);
        assert_eq!(step("tenant_role(\"admin\")")["said"], "deny");

        // The application's own hierarchy of roles holds here too.
        let ada = json!({"id": "ada", "tenant": "acme", "tenant_roles": ["owner"]});
        assert_eq!(ask(&app, about(seed::ALANS_ORDER, &ada)).await.json()["outcome"], "allowed");
        assert_eq!(ask(&app, about(seed::GRACES_ORDER, &ada)).await.json()["outcome"], "hidden");
        assert_eq!(ask(&app, about(Uuid::nil(), &ada)).await.json()["outcome"], "absent");
        // Nobody known, and whoever asks.
        assert_eq!(
            ask(&app, about(seed::ADAS_ORDER, &Json::Null)).await.json()["outcome"],
            "unauthenticated"
        );
        let oneself = json!({"resource": "orders", "operation": "list"});
        assert_eq!(ask(&app, oneself).await.json()["outcome"], "forbidden");
    }
}

#[tokio::test]
async fn explain_requires_its_permission() {
    let app = app(&TestStorage::memory()).await;
    let question = json!({"resource": "orders", "operation": "list"});
    let stranger = app.post("/_explain").json(question.clone()).await;
    assert_eq!((stranger.status(), stranger.header("www-authenticate")), (401, Some("Bearer realm=\"api\"")));
    let admin = app.post("/_explain").bearer(&examples::token("ACME_ADMIN"));
    // Not even whether the question was a good one.
    assert_eq!(admin.body("no json").await.status(), 403);
    let without = crate::support::shop(&TestStorage::memory()).await;
    assert_eq!(without.post("/_explain").json(question).await.status(), 404);
}

#[tokio::test]
async fn invalid_explain_request_is_422_with_pointers() {
    let app = app(&TestStorage::memory()).await;
    for (question, pointer) in [
        (json!({"resource": "order", "operation": "list"}), "/resource"),
        (json!({"resource": "orders", "operation": "lst"}), "/operation"),
        (json!({"resource": "orders", "operation": "list", "actr": null}), "/actr"),
        (json!({"resource": "orders", "operation": "list", "actor": {"id": 1}}), "/actor/id"),
        (json!({"resource": "orders"}), ""),
    ] {
        let refused = ask(&app, question.clone()).await;
        assert_eq!(refused.status(), 422, "{question}: {refused}");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{question}: {refused}");
    }
    let get = app.get("/_explain").bearer(&examples::token("OPERATOR")).await;
    assert_eq!((get.status(), get.header("allow")), (405, Some("OPTIONS, POST")));
}

#[tokio::test]
async fn explain_permission_cannot_depend_on_rows() {
    for permission in [owner("user_id"), owner("id"), resourceful::access::rows(json!({"id": "x"}))] {
        let builder = create_app(AppPreset::Testing).explain(permission.clone());
        let faults = builder.build().await.unwrap_err().to_string();
        assert!(faults.contains(&permission.to_string()), "{faults}");
        assert!(faults.contains("help: .explain("), "{faults}");
    }
}

#[tokio::test]
async fn explain_is_in_the_openapi_document() {
    let document = app(&TestStorage::memory()).await.get("/openapi.json").await.json();
    let operation = &document["paths"]["/_explain"]["post"];
    assert_eq!(operation["security"], json!([{"Bearer": ["operator"]}]));
    let question = &document["components"]["schemas"]["Question"];
    assert_eq!(question["required"], json!(["resource", "operation"]));
}
