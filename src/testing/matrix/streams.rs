//! What a caller is told of changes as they happen.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::MatrixReport;
use super::cases::{Site, text};
use super::oracle::Row;
use crate::engine::Position;
use crate::events::Follower as _;
use crate::http::EVENTS;
use crate::tables::events::EventRow;
use crate::testing::{TestResponse, TestStream};

impl Site<'_> {
    /// Of an event of each row a stream tells what a list would show of the row, and of no other.
    pub(super) async fn streams(&self, report: &mut MatrixReport) {
        let path = format!("{}/stream", self.collection());
        let opened = self.caller.send(self.app.get(&path)).stream().await;
        let about = || self.about(&path);
        let status = opened.as_ref().map_or_else(TestResponse::status, |_| 200);
        let expected = if self.is_closed() { self.refused() } else { 200 };
        report.compare(about, &json!(status), &json!(expected));
        if let Ok(stream) = opened {
            self.told_by(stream, report).await;
        }
        // That of all resources, where it is there and the caller may see any.
        let path = format!("{}{EVENTS}", self.app.app().boundary().prefix);
        if let Ok(stream) = self.caller.send(self.app.get(&path)).stream().await {
            self.told_by(stream, report).await;
        }
    }

    async fn told_by(&self, mut stream: TestStream, report: &mut MatrixReport) {
        let boundary = self.app.app().boundary();
        let (Some(live), Some(database)) = (&boundary.live, boundary.engine.database_of(self.entry)) else {
            return;
        };
        let ready = stream.next().await.map(|event| event.name);
        report.compare(|| self.about("a stream"), &json!(ready), &json!("ready"));
        let recorded = boundary.engine.recorded();
        let Ok(bounds) = boundary.engine.bounds(recorded[database]).await else { return };
        let mut told = Vec::new();
        for (sequence, row) in (0..).zip(self.rows) {
            let position = Position { batch: bounds.last.batch + 1, sequence };
            told.push(Arc::new(self.event(row, position)));
        }
        live.hub.published(database, &told).await;
        for row in self.rows {
            if !self.oracle.lists(self.entry, row) {
                continue;
            }
            let event = stream.next().await;
            let about = || self.about(&format!("a stream's event of {}", self.item(row)));
            let found = event.map(|event| event.data["data"].clone());
            report.compare(about, &json!(found), &self.oracle.shown(self.entry, row));
        }
        // What comes after all of them is the end, so nothing else was told.
        live.hub.close();
        let last = stream.next().await.map(|event| event.name);
        report.compare(|| self.about("a stream's end"), &json!(last), &json!("end"));
        live.hub.open();
        drop(stream);
        // Those events never were.
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
            subject: text(&row[&self.entry.schema.id_field().name]),
            time: chrono::DateTime::UNIX_EPOCH,
            tenant: None,
            trace: None,
            data: self.shape(row).to_string(),
            previous: Some("{}".to_owned()),
            unsaid: Vec::new(),
            batch: Some(position.batch),
            attempts: 0,
            reason: None,
            dead_at: None,
            handled: Vec::new(),
        }
    }
}
