//! A client of server-sent events for tests.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::Value as Json;

/// How long a test waits for an event.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A stream of server-sent events, read as a browser does (WHATWG HTML, 9.2). Dropping it closes the connection.
#[derive(Debug)]
pub struct TestStream {
    body: Body,
    buffer: String,
    last_id: String,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TestEvent {
    /// The position from which a client with this event resumes.
    pub id: String,
    /// `ready`, an event type, `added`, `removed`, `reset`, `lagged` or `end`.
    pub name: String,
    /// Its data.
    pub data: Json,
}

impl TestStream {
    pub(super) fn of(response: Response) -> Self {
        Self { body: response.into_body(), buffer: String::new(), last_id: String::new() }
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Panics
    /// If none arrives in time, or what arrives is no event.
    pub async fn next(&mut self) -> Option<TestEvent> {
        tokio::time::timeout(RECEIVE_TIMEOUT, self.read_next()).await.expect("an event comes in time")
    }

    async fn read_next(&mut self) -> Option<TestEvent> {
        loop {
            if let Some(event) = self.next_block().event(&mut self.last_id) {
                return Some(event);
            }
            if !self.buffer.contains("\n\n") {
                self.read_frame().await?;
            }
        }
    }

    /// The id that a client would send to resume from here; heartbeats advance it.
    #[must_use]
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Reads until the id that a client would send has changed.
    ///
    /// # Panics
    /// If the stream ends before, an event arrives, or nothing arrives in time.
    pub async fn moved(&mut self) {
        tokio::time::timeout(RECEIVE_TIMEOUT, self.read_until_advanced())
            .await
            .expect("the stream moves on in time");
    }

    async fn read_until_advanced(&mut self) {
        let before = self.last_id.clone();
        while self.last_id == before {
            let event = self.next_block().event(&mut self.last_id);
            assert!(event.is_none(), "an event came: {event:?}");
            if self.last_id == before && !self.buffer.contains("\n\n") {
                self.read_frame().await.expect("a stream that goes on");
            }
        }
    }

    /// The text up to the next empty line; an empty block if there is none yet.
    fn next_block(&mut self) -> Block {
        match self.buffer.find("\n\n") {
            Some(end) => {
                let rest = self.buffer.split_off(end + 2);
                Block(std::mem::replace(&mut self.buffer, rest))
            }
            None => Block(String::new()),
        }
    }

    async fn read_frame(&mut self) -> Option<()> {
        let frame = self.body.frame().await?.expect("a stream does not break");
        if let Ok(data) = frame.into_data() {
            self.buffer.push_str(std::str::from_utf8(&data).expect("a stream is UTF-8"));
        }
        Some(())
    }
}

/// The lines between two empty lines.
struct Block(String);

impl Block {
    fn event(self, last_id: &mut String) -> Option<TestEvent> {
        let (mut name, mut data) = ("message", String::new());
        for line in self.0.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => value.clone_into(last_id),
                "event" => name = value,
                "data" => data.push_str(value),
                _ => {}
            }
        }
        if data.is_empty() {
            return None;
        }
        let data = serde_json::from_str(&data).expect("an event's data is JSON");
        Some(TestEvent { id: last_id.clone(), name: name.to_owned(), data })
    }
}
