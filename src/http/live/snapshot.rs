//! A list with the position from which a stream of the same items continues (`Prefer: stream-position`).
//!
//! The set of committed events is read before the list and after it. If it is the same, the list reflects all of them
//! and no others, so that the stream continues exactly. Under so many changes that it never is, the stream continues
//! from the set before the list: it may repeat a change that the list reflects already, and never omits one.

use std::sync::Arc;

use axum::response::Response;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::cache::Content;
use crate::engine::Call;
use crate::error::Error;
use crate::http::handler::ResourceHandler;
use crate::http::prefer::PREFERENCE_APPLIED;
use crate::http::read::conditional_response;
use crate::live::{StreamPosition, StreamScope};
use crate::outbox::CommittedEvents;
use crate::query::ListRequest;

pub(in crate::http) const STREAM_POSITION: HeaderName = HeaderName::from_static("stream-position");
/// How often a list is read at most.
const MAX_READS: usize = 4;

impl ResourceHandler {
    /// Whether a stream can continue from this list.
    pub(in crate::http) fn can_resume_from(&self, request: &ListRequest) -> bool {
        self.entry.definition.has_streams() && request.deleted.is_none()
    }

    /// Reads a list, and adds the position from which a stream of the same items continues.
    pub(in crate::http) async fn list_with_position<'a>(
        &'a self,
        call: &Call<'_>,
        request: &ListRequest,
        headers: &HeaderMap,
        read: &(dyn Fn() -> BoxFuture<'a, Result<Content, Error>> + Send + Sync),
    ) -> Result<Response, Error> {
        let engine = &self.state.engine;
        let database = engine.outbox.database_of(&self.entry).ok_or_else(Error::not_found)?;
        let mut before = engine.outbox.committed(&self.entry).await?;
        let mut tries = 1;
        let content = loop {
            let content = read().await?;
            let after = engine.outbox.committed(&self.entry).await?;
            if before == after || tries == MAX_READS {
                break content;
            }
            (before, tries) = (after, tries + 1);
        };
        let (view, binding) = call.list_view(request)?;
        let scope = Arc::new(StreamScope { binding, policy: view.policy, databases: vec![database] });
        let CommittedEvents { up_to, unpublished: new } = before;
        let known = new.into_iter().map(|sequence| (database, sequence)).collect();
        let position = StreamPosition { positions: vec![up_to], known }.seal(engine, &scope);
        let mut response = conditional_response(content, headers)?;
        let headers = response.headers_mut();
        if let Ok(position) = HeaderValue::from_str(&position) {
            headers.insert(STREAM_POSITION, position);
            headers.append(PREFERENCE_APPLIED, HeaderValue::from_static("stream-position"));
        }
        Ok(response)
    }
}
