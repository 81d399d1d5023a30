//! What of a client's trace is kept in events, which others read.

use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;

use crate::policies::model;
use crate::support::TestStorage;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn invalid_traceparent_starts_a_new_trace() {
    let things = define_dynamic_resource("things", model(&["code"]))
        .adapter(TestStorage::memory().table("things"))
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .build()
        .unwrap();
    let app = TestApp::build(create_app(AppPreset::Testing).resource(things)).await.unwrap();
    let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let cases = [
        (good.clone(), true),
        (format!("00-{TRACE}-00f067aa0ba902b7-00"), true),
        (format!("{good}-{}", "x".repeat(4_000)), false),
        (format!("{good}-what the others read"), false),
        (format!("{good}x"), false),
        (format!("01-{TRACE}-00f067aa0ba902b7-01"), false),
        (format!("cc-{TRACE}-00f067aa0ba902b7-01-more"), false),
        (format!("ff-{TRACE}-00f067aa0ba902b7-01"), false),
        (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
        (format!("00-{TRACE}-0000000000000000-01"), false),
        (format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), false),
        (format!("00-{TRACE}-00f067aa0ba902bg-01"), false),
        (format!("00-{TRACE}-00f067aa0ba902b7-0"), false),
        (format!("00_{TRACE}_00f067aa0ba902b7_01"), false),
        (String::new(), false),
    ];
    for (number, (header, kept)) in cases.iter().enumerate() {
        let body = json!({"code": format!("c{number}")});
        let created = app.post("/things").header("traceparent", header).json(body).await;
        assert_eq!(created.status(), 201, "{header}: {created}");
        let event = app.events().await.pop().unwrap();
        let trace = event.traceparent.unwrap();
        assert_eq!(trace == *header, *kept, "{header}: {trace}");
        let parts: Vec<_> = trace.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2], "{trace}");
    }
    // Two of them are none.
    let request = app.post("/things").header("traceparent", &good).header("traceparent", &good);
    assert_eq!(request.json(json!({"code": "two"})).await.status(), 201);
    assert_ne!(app.events().await.pop().unwrap().traceparent.unwrap(), good);
}
