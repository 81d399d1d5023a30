//! Many are decided at once, and none of them holds up the others.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::request::Parts;
use resourceful::access::{Authenticator, Unauthenticated};
use resourceful::live::Streams;
use resourceful::prelude::*;
use resourceful::testing::TestApp;
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::stream_lifecycle::builder;
use crate::streams::{create, expected_events, next_events, open_stream};
use crate::support::TestStorage;
use crate::support::aged_rows::EVENTS;

/// Knows `ada` where a gate is open, `quick` at once, and of whoever else it never says anything.
#[derive(Debug)]
struct GatedAuthenticator {
    is_open: watch::Sender<bool>,
    stuck: Arc<Notify>,
}

impl Authenticator for GatedAuthenticator {
    fn scheme(&self) -> &'static str {
        "Bearer"
    }

    fn authenticate<'a>(&'a self, parts: &'a Parts) -> BoxFuture<'a, Result<Option<Actor>, Unauthenticated>> {
        Box::pin(async {
            match parts.headers[AUTHORIZATION].to_str() {
                Ok("Bearer ada") => {
                    self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
                    Ok(Some(Actor::user("ada")))
                }
                Ok("Bearer quick") => Ok(Some(Actor::user("quick"))),
                _ => {
                    self.stuck.notify_one();
                    std::future::pending().await
                }
            }
        })
    }
}

#[tokio::test]
async fn stuck_socket_does_not_block_others() {
    let storage = TestStorage::memory();
    let (is_open, stuck) = (watch::Sender::new(true), Arc::new(Notify::new()));
    let gate = GatedAuthenticator { is_open: is_open.clone(), stuck: stuck.clone() };
    let app = TestApp::build(builder(&storage).authenticator(gate)).await.unwrap();
    let mut socket = app.get("/ws").bearer("ada").socket().await.unwrap();
    // More than are decided at once, none of which is decided yet.
    is_open.send_replace(false);
    for id in 0..80 {
        socket.send(json!({"type": "subscribe", "id": id.to_string(), "resource": "things"})).await;
    }
    socket.send(json!({"type": "authenticate", "authorization": "Bearer nobody"})).await;
    stuck.notified().await;
    // Now they could be, and the socket looks at none of them.
    is_open.send_replace(true);
    let other = app.get("/things/stream").bearer("quick").stream();
    let other = tokio::time::timeout(Duration::from_secs(5), other).await.expect("a stream begins");
    assert!(other.is_ok());
}

#[tokio::test]
async fn pruning_a_quiet_database_does_not_reset_streams() {
    for storage in TestStorage::all().await {
        let beats = Streams::new().heartbeat(Duration::from_millis(5));
        let app = TestApp::build(builder(&storage).streams(beats)).await.unwrap();
        let begun = chrono::Utc::now();
        let mut stream = open_stream(&app, "/things/stream").await;
        create(&app, "a", "one", "s").await;
        app.app().deliver().await.unwrap();
        assert_eq!(next_events(&mut stream, 1).await.len(), 1);
        let mut looked = async || {
            stream.moved().await;
            app.app().deliver().await.unwrap();
        };
        looked().await;
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(EVENTS.put(&storage, begun - day..begun + day, begun - 8 * day).await, 1);
        app.app().sweep().await.unwrap();
        assert!(app.events().await.is_empty());
        // Nothing was missed, so nobody begins anew.
        for _ in 0..3 {
            looked().await;
        }
        create(&app, "b", "two", "s").await;
        app.app().deliver().await.unwrap();
        assert_eq!(
            next_events(&mut stream, 1).await,
            expected_events(&[("things.created", "b", Some("two"))]),
            "{}",
            storage.name
        );
    }
}
