//! What a history shows of states that the row policy hides.

use resourceful::ResourceBuilder;
use resourceful::access::rows;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, policy_matrix};
use serde_json::{Value as Json, json};

use crate::support::TestStorage;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Article {
    id: i64,
    status: String,
    text: String,
    owner: String,
    #[serde(default)]
    mark: String,
}

/// Articles that editors see, and the others once they are published and as long as they are.
fn articles(place: &TestStorage) -> ResourceBuilder {
    let seen = any_of([role("editor"), rows(json!({"status": "published"}))]);
    define_resource::<Article>("articles")
        .adapter(place.table("articles"))
        .permissions(Permissions::read(seen).write(signed_in()))
        .preset(idempotency())
        .preset(audit().readable_by(signed_in()).revertible_by(signed_in()))
        .redacted_for(["mark"], role("reader"), json!("***"))
}

async fn app_of(resource: ResourceBuilder) -> TestApp {
    let tokens = BearerTokens::new()
        .token("editor", Actor::user("ed").with_role("editor"))
        .token("former editor", Actor::user("ed"))
        .token("reader", Actor::user("rita").with_role("reader"));
    TestApp::build(create_app(AppPreset::Testing).authenticator(tokens).resource(resource.build().unwrap()))
        .await
        .unwrap()
}

async fn patch(app: &TestApp, body: Json) {
    let patched = app.patch("/articles/1").bearer("editor").json(body).await;
    assert_eq!(patched.status(), 200, "{patched}");
}

/// A draft, edited, published, edited, hidden, edited, and published again.
async fn app_with_history(place: &TestStorage) -> TestApp {
    let app = app_of(articles(place)).await;
    let draft = json!({"status": "draft", "text": "first secret", "owner": "ed", "mark": "m1"});
    let created = app.post("/articles").bearer("editor").json(draft).await;
    assert_eq!(created.status(), 201, "{created}");
    patch(&app, json!({"text": "second secret"})).await;
    patch(&app, json!({"status": "published", "text": "shown"})).await;
    patch(&app, json!({"text": "shown better"})).await;
    patch(&app, json!({"status": "hidden", "text": "third secret"})).await;
    patch(&app, json!({"text": "fourth secret", "mark": "m2"})).await;
    patch(&app, json!({"status": "published", "text": "shown again"})).await;
    app
}

async fn history(app: &TestApp, who: &str, query: &str) -> Json {
    let answer = app.get(&format!("/articles/1/history{query}")).bearer(who).await;
    assert_eq!(answer.status(), 200, "{answer}");
    answer.json()
}

#[tokio::test]
async fn history_omits_states_hidden_by_the_policy() {
    for place in TestStorage::all().await {
        let app = app_with_history(&place).await;
        let whole = history(&app, "editor", "").await;
        assert_eq!(whole["items"].as_array().unwrap().len(), 7, "{}: {whole}", place.name);

        let seen = history(&app, "reader", "").await;
        assert!(!seen.to_string().contains("secret"), "{}: {seen}", place.name);
        let entries = seen["items"].as_array().unwrap();
        let all = |text: &str| {
            json!({
                "id": {"to": 1}, "status": {"to": "published"}, "text": {"to": text}, "owner": {"to": "ed"},
                "mark": {"to": "***"},
            })
        };
        let changes: Vec<_> = entries.iter().map(|entry| entry["changes"].clone()).collect();
        assert_eq!(
            changes,
            [
                // It came into view again, went out of it, was changed in it, and came into it.
                all("shown again"),
                json!({}),
                json!({"text": {"from": "shown", "to": "shown better"}}),
                all("shown"),
            ],
            "{}",
            place.name
        );

        // Pages hold the same, whatever lies between their entries.
        let mut paged = Vec::new();
        let mut query = "?limit=1".to_owned();
        loop {
            let page = history(&app, "reader", &query).await;
            paged.extend(page["items"].as_array().unwrap().clone());
            let Some(next) = page["page"]["next"].as_str() else { break };
            query = format!("?limit=1&after={next}");
        }
        assert_eq!(&paged, entries, "{}", place.name);
    }
}

#[tokio::test]
async fn revert_to_a_state_hidden_by_the_policy_is_refused() {
    for place in TestStorage::all().await {
        let app = app_with_history(&place).await;
        let at = |entry: usize, entries: &Json| entries["items"][entry]["at"].as_str().unwrap().to_owned();
        let entries = history(&app, "editor", "").await;
        let revert = async |who: &str, at: &str| {
            app.post("/articles/1/revert").bearer(who).json(json!({"as_of": at})).await
        };
        // Of the draft, and of the time when it was hidden.
        for entry in [6, 5, 2, 1] {
            let refused = revert("reader", &at(entry, &entries)).await;
            assert_eq!(refused.status(), 422, "{}: {refused}", place.name);
            assert!(!refused.text().contains("secret"), "{refused}");
            let as_of = app.get(&format!("/articles/1?as_of={}", at(entry, &entries))).bearer("reader").await;
            assert_eq!(as_of.status(), 404, "{as_of}");
        }
        let reverted = revert("reader", &at(3, &entries)).await;
        assert_eq!((reverted.status(), reverted.json()["text"].clone()), (200, json!("shown better")));
        let reverted = revert("editor", &at(6, &entries)).await;
        assert_eq!((reverted.status(), reverted.json()["text"].clone()), (200, json!("first secret")));
    }
}

#[tokio::test]
async fn history_omits_states_whose_policy_field_is_not_recorded() {
    // The policy hangs on a hidden field, of which entries say no more than that it changed.
    for place in TestStorage::all().await {
        let seen = any_of([role("editor"), rows(json!({"owner": "public"}))]);
        let articles = define_resource::<Article>("articles")
            .adapter(place.table("articles"))
            .permissions(Permissions::read(seen).write(signed_in()))
            .preset(audit().readable_by(signed_in()))
            .write_only(["owner"]);
        let app = app_of(articles).await;
        let draft = json!({"status": "draft", "text": "secret", "owner": "ed"});
        assert_eq!(app.post("/articles").bearer("editor").json(draft).await.status(), 201);
        patch(&app, json!({"owner": "public", "text": "shown"})).await;
        let seen = history(&app, "reader", "").await;
        assert!(!seen.to_string().contains("secret"), "{}: {seen}", place.name);
        assert_eq!(seen["items"].as_array().unwrap().len(), 1, "{seen}");
        let first = history(&app, "editor", "").await["items"][1]["at"].as_str().unwrap().to_owned();
        let as_of = app.get(&format!("/articles/1?as_of={first}")).bearer("reader").await;
        assert_eq!(as_of.status(), 404, "{}: {as_of}", place.name);
    }
}

#[tokio::test]
async fn replay_omits_a_state_that_is_hidden_by_now() {
    for place in TestStorage::all().await {
        let app = app_of(articles(&place)).await;
        let draft = json!({"status": "draft", "text": "secret", "owner": "ed"});
        assert_eq!(app.post("/articles").bearer("editor").json(draft).await.status(), 201);
        let change = async |who: &str| {
            let request = app.patch("/articles/1").bearer(who).header("idempotency-key", "k");
            request.json(json!({"text": "another secret"})).await
        };
        assert_eq!(change("editor").await.status(), 200);
        patch(&app, json!({"status": "published", "text": "shown"})).await;
        // The same actor, who has lost the role: the item can be seen, and what it was then cannot.
        let replayed = change("former editor").await;
        assert_eq!(replayed.status(), 404, "{}: {replayed}", place.name);
        let replayed = change("editor").await;
        assert_eq!((replayed.status(), replayed.json()["text"].clone()), (200, json!("another secret")));
    }
}

#[tokio::test]
async fn policy_matrix_passes_for_hidden_states() {
    for place in TestStorage::all().await {
        let app = app_with_history(&place).await;
        let draft = json!({"status": "draft", "text": "secret", "owner": "ed"});
        assert_eq!(app.post("/articles").bearer("editor").json(draft).await.status(), 201);
        let mut matrix = policy_matrix(&app).caller("nobody", Actor::anonymous(), []);
        for (token, actor) in [
            ("editor", Actor::user("ed").with_role("editor")),
            ("former editor", Actor::user("ed")),
            ("reader", Actor::user("rita").with_role("reader")),
        ] {
            matrix = matrix.caller(token, actor, [("authorization", format!("Bearer {token}").as_str())]);
        }
        let report = matrix.run().await.unwrap();
        println!("{}: {report}", place.name);
        report.assert_passed();
    }
}
