//! Tests of an application, on the in-memory adapter: requests without a network, and the policy matrix, which compares what
//! every kind of caller may do on every route with what is declared.
//!
//! ```console
//! $ cargo run -p resourceful-examples --features testing --bin testing
//! ```

use resourceful::AppBuilder;
use resourceful::adapter::Table;
use resourceful::prelude::*;
use resourceful::testing::{TestApp, policy_matrix};
use serde_json::json;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Note {
    id: Uuid,
    user_id: String,
    #[validate(length(min = 1))]
    text: String,
}

/// The application under test. A real one takes its adapter as a parameter, so that tests run in memory.
fn app(notes: Table) -> Result<AppBuilder, DefinitionErrors> {
    let notes = define_resource::<Note>("notes")
        .adapter(notes)
        .permissions(Permissions::all(signed_in()))
        .preset(owned_by("user_id"))
        .build()?;
    let tokens = BearerTokens::new().token("of-ada", Actor::user("ada")).token("of-bob", Actor::user("bob"));
    Ok(create_app(AppPreset::Testing).resource(notes).authenticator(tokens))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = TestApp::build(app(Memory::new().table("notes"))?).await?;

    let created = app.post("/notes").bearer("of-ada").json(json!({"text": "hello"})).await;
    assert_eq!(created.status(), 201);
    let path = created.header("location").unwrap_or_default().to_owned();
    assert_eq!(app.get(&path).bearer("of-ada").await.status(), 200);
    // Another's note does not exist for Bob.
    assert_eq!(app.get(&path).bearer("of-bob").await.status(), 404);
    // Subscribers and webhooks would receive this event.
    assert_eq!(app.events().await[0].event_type, "notes.created");

    let report = policy_matrix(&app)
        .caller("anonymous", Actor::anonymous(), [])
        .caller("ada", Actor::user("ada"), [("authorization", "Bearer of-ada")])
        .caller("bob", Actor::user("bob"), [("authorization", "Bearer of-bob")])
        .run()
        .await?;
    report.assert_passed();
    println!("{} responses are what the declaration says.", report.cases);
    Ok(())
}
