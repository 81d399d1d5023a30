//! A list and the place from which a stream of the same items goes on (`Prefer: stream-position`).
//!
//! Which events have been committed is read before the list and after it. Where that is the same the list holds all of them
//! and no others, so that the stream goes on exactly. Where so much is changed that it never is, the stream goes on from what
//! was committed before: it may tell of something once more that the list holds already, and never leaves anything out.

use std::sync::Arc;

use axum::response::Response;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Endpoint;
use super::cached_read::sent;
use super::handler::ResourceHandler;
use super::prefer::{APPLIED, Prefer};
use crate::cache::Content;
use crate::engine::{Call, CommittedEvents};
use crate::error::Error;
use crate::live::{Scope, StreamPosition};
use crate::query::ListRequest;

pub(super) const STREAM_POSITION: HeaderName = HeaderName::from_static("stream-position");
/// How often a list is read at most.
const TRIES: usize = 4;

impl ResourceHandler {
    /// Whether an answer is to say where a stream goes on.
    pub(super) fn tells_position(&self, endpoint: Endpoint, request: &ListRequest, prefer: &Prefer) -> bool {
        prefer.stream_position
            && endpoint == Endpoint::List
            && self.entry.definition.streams()
            && request.deleted.is_none()
    }

    /// Reads a list, and says where a stream of the same items goes on.
    pub(super) async fn with_position<'a>(
        &'a self,
        call: &Call<'_>,
        request: &ListRequest,
        headers: &HeaderMap,
        read: &(dyn Fn() -> BoxFuture<'a, Result<Content, Error>> + Send + Sync),
    ) -> Result<Response, Error> {
        let engine = &self.boundary.engine;
        let database = engine.database_of(&self.entry).ok_or_else(Error::not_found)?;
        let mut before = engine.committed(&self.entry).await?;
        let mut tries = 1;
        let content = loop {
            let content = read().await?;
            let after = engine.committed(&self.entry).await?;
            if before == after || tries == TRIES {
                break content;
            }
            (before, tries) = (after, tries + 1);
        };
        let (window, binding) = call.window_of_list(request)?;
        let scope = Arc::new(Scope { binding, policy: window.policy, databases: vec![database] });
        let CommittedEvents { up_to, new } = before;
        let known = new.into_iter().map(|sequence| (database, sequence)).collect();
        let place = StreamPosition { at: vec![up_to], known }.seal(engine, &scope);
        let mut response = sent(content, headers)?;
        let headers = response.headers_mut();
        if let Ok(place) = HeaderValue::from_str(&place) {
            headers.insert(STREAM_POSITION, place);
            headers.append(APPLIED, HeaderValue::from_static("stream-position"));
        }
        Ok(response)
    }
}
