//! What the log says of a failure that no caller sees the cause of.

use std::io;
use std::sync::Arc;

use resourceful::AppBuilder;
use resourceful::adapter::Table;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tracing::subscriber::DefaultGuard;

use crate::policies::model;
use crate::support::TestStorage;
use crate::support::gated::Gated;

/// What [`Gated`] fails with, as one line.
const CAUSES: [&str; 2] = ["cause: the pool has no connection", "cause: the gate is shut"];

#[derive(Clone)]
struct LogWriter(mpsc::UnboundedSender<String>);

impl io::Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The warnings and errors of this test, for as long as it is kept.
struct Log {
    lines: mpsc::UnboundedReceiver<String>,
    _guard: DefaultGuard,
}

impl Log {
    fn start() -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || LogWriter(sender.clone()))
            .finish();
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The fields of the next line with this message.
    async fn line(&mut self, message: &str) -> Json {
        let mut others = Vec::new();
        let found = async {
            while let Some(line) = self.lines.recv().await {
                let line: Json = serde_json::from_str(&line).unwrap();
                if line["fields"]["message"] == message {
                    return line["fields"].clone();
                }
                others.push(line);
            }
            panic!("the log ended");
        };
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        found.unwrap_or_else(|_| panic!("the log has no line {message:?}, but {others:#?}"))
    }
}

fn assert_each_cause_once(text: &Json) {
    let text = text.as_str().unwrap();
    for cause in CAUSES {
        assert_eq!(text.matches(cause).count(), 1, "{cause} in {text}");
    }
    assert!(!text.contains("trace_id"), "this is the log: {text}");
}

fn notes(gated: &Arc<Gated>) -> AppBuilder {
    let notes = define_dynamic_resource("notes", model(&["code"]))
        .adapter(Table::new(gated.clone(), "notes").create_table_if_missing())
        .id_field("code")
        .permissions(Permissions::all(anyone()))
        .build()
        .unwrap();
    create_app(AppPreset::Testing).resource(notes)
}

#[tokio::test]
async fn failed_request_is_logged_with_its_causes_and_trace_id() {
    let mut log = Log::start();
    for storage in TestStorage::all().await {
        let gated = Gated::over(storage.storage().clone(), "notes");
        let app = TestApp::build(notes(&gated)).await.unwrap();
        assert_eq!(app.post("/notes").json(json!({"code": "a"})).await.status(), 201);
        gated.set_failing(true);
        let failed = app.get("/notes").await;
        assert_eq!(failed.status(), 503, "{}", storage.name);
        assert!(!failed.text().contains("gate"), "{failed}");
        let line = log.line("request failed").await;
        assert_eq!(line["trace_id"], failed.json()["trace_id"]);
        assert_each_cause_once(&line["cause"]);
    }
}

#[tokio::test]
async fn background_warning_is_logged_with_its_causes() {
    let mut log = Log::start();
    for storage in TestStorage::all().await {
        let gated = Gated::over(storage.storage().clone(), "resourceful_events");
        let app = notes(&gated).on("*", |_, _| std::future::ready(Ok(())));
        let app = TestApp::build(app).await.unwrap();
        gated.set_failing(true);
        let background = app.app().background();
        let line = log.line("the outbox could not be relayed").await;
        assert_each_cause_once(&line["error"]);
        gated.set_failing(false);
        background.stop().await;
    }
}
