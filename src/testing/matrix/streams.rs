//! The cases of streams and sockets: the changes that one caller receives.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::MatrixReport;
use super::cases::{ResourceCases, scalar_text};
use super::oracle::Row;
use crate::http::{EVENTS_PATH, SOCKET_PATH};
use crate::outbox::Follower as _;
use crate::tables::events::EventRow;
use crate::tables::events::Position;
use crate::testing::{TestResponse, TestSocket, TestStream};

/// The connection on which a caller receives changes.
enum EventConnection {
    Stream(TestStream),
    Socket(Box<TestSocket>),
}

impl EventConnection {
    const fn label(&self) -> &'static str {
        match self {
            Self::Stream(_) => "a stream",
            Self::Socket(_) => "a socket",
        }
    }

    /// The item in the next event; `None` at the end.
    async fn next_item(&mut self) -> Option<Json> {
        match self {
            Self::Stream(stream) => {
                let event = stream.next().await?;
                (event.name != "end").then(|| event.data["data"].clone())
            }
            Self::Socket(socket) => {
                let message = socket.next().await?;
                (message["type"] == "next").then(|| message["data"]["data"].clone())
            }
        }
    }
}

impl ResourceCases<'_> {
    /// Of an event of each row a stream shows what a list would show of the row, and it sends no other events.
    pub(super) async fn streams(&self, report: &mut MatrixReport) {
        let path = format!("{}/stream", self.collection_path());
        let opened = self.caller.send(self.app.get(&path)).stream().await;
        let about = || self.label(&path);
        let status = opened.as_ref().map_or_else(TestResponse::status, |_| 200);
        let expected = if self.is_closed() { self.refused_status() } else { 200 };
        report.compare(about, &json!(status), &json!(expected));
        if let Ok(stream) = opened {
            self.compare_events(EventConnection::Stream(stream), report).await;
        }
        // The stream of all resources, if there is one and the caller may see any.
        let path = format!("{}{EVENTS_PATH}", self.app.app().state().prefix);
        if let Ok(stream) = self.caller.send(self.app.get(&path)).stream().await {
            self.compare_events(EventConnection::Stream(stream), report).await;
        }
        // A socket opens for every caller; its subscriptions are what is refused.
        let path = format!("{}{SOCKET_PATH}", self.app.app().state().prefix);
        for subscription in [json!({"resource": &*self.entry.name}), json!({"types": ["*"]})] {
            let Ok(mut socket) = self.caller.send(self.app.get(&path)).socket().await else { continue };
            let mut message = subscription.clone();
            message["type"] = "subscribe".into();
            message["id"] = "1".into();
            socket.send(message).await;
            let response = socket.next().await.unwrap_or_default();
            if subscription["resource"].is_string() {
                let status = response["problem"].get("status").cloned().unwrap_or(json!(200));
                report.compare(|| self.label("a socket"), &status, &json!(expected));
            }
            if response["type"] == "ready" {
                self.compare_events(EventConnection::Socket(Box::new(socket)), report).await;
            }
        }
    }

    async fn compare_events(&self, mut stream: EventConnection, report: &mut MatrixReport) {
        let state = self.app.app().state();
        let (Some(live), Some(database)) = (&state.live, state.engine.outbox.database_of(self.entry)) else {
            return;
        };
        if let EventConnection::Stream(stream) = &mut stream {
            let ready = stream.next().await.map(|event| event.name);
            report.compare(|| self.label("a stream"), &json!(ready), &json!("ready"));
        }
        let recorded = state.engine.outbox.storages();
        let Ok(bounds) = state.engine.outbox.bounds(&recorded[database]).await else { return };
        let word = stream.label();
        let mut events = Vec::new();
        for (sequence, row) in (0..).zip(self.rows) {
            let position = Position { batch: bounds.last.batch + 1, sequence };
            events.push(Arc::new(self.event(row, position)));
        }
        live.hub.handle_events(database, &events).await;
        for row in self.rows {
            if !self.oracle.is_listed(self.entry, row) {
                continue;
            }
            let about = || self.label(&format!("{word}'s event of {}", self.item_path(row)));
            let found = stream.next_item().await;
            report.compare(about, &json!(found), &self.oracle.visible_item(self.entry, row));
        }
        // The next message after all of them is the end, so nothing else was sent.
        live.hub.close();
        let about = || self.label(&format!("{word}'s end"));
        report.compare(about, &json!(stream.next_item().await.is_none()), &json!(true));
        drop(stream);
        live.hub.wait_until_drained().await;
        live.hub.open();
        // The events of this case are not in the outbox.
        let _ = live.tail.step(database).await;
    }

    /// The event of a change that changed nothing.
    fn event(&self, row: &Row, position: Position) -> EventRow {
        let name = &self.entry.name;
        EventRow {
            sequence: position.sequence,
            id: Uuid::nil(),
            event_type: format!("{name}.updated"),
            resource: name.to_string(),
            subject: scalar_text(&row[&self.entry.schema.id_field().name]),
            time: chrono::DateTime::UNIX_EPOCH,
            tenant: None,
            trace: None,
            data: self.event_data(row).to_string(),
            previous: Some("{}".to_owned()),
            hidden_changes: Vec::new(),
            batch: Some(position.batch),
            attempts: 0,
            reason: None,
            dead_at: None,
            handled: Vec::new(),
        }
    }
}
