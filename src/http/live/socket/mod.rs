//! `GET /ws`: many subscriptions over one connection (WebSocket, RFC 6455).

mod message;
mod origins;
mod room;
mod session;

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request};
use axum::response::Response;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};

use super::stream::require_live;
use super::subscription::{SubscribingCaller, subscriber_identity};
use crate::error::{Error, ErrorKind, Fault};
use crate::http::app_state::AppState;
use crate::http::handler::original_uri;
use crate::http::request_context::Context;
use crate::live::SubscriptionSpec;

pub(crate) use origins::Origins;
use session::{ProblemContext, SocketSession};

/// The path of the route.
pub(crate) const SOCKET_PATH: &str = "/ws";
/// The subprotocol (RFC 6455, 1.9).
pub(crate) const SUBPROTOCOL: &str = "resourceful.v1.json";

/// By how many bytes a message may exceed the limit and still be answered. A larger one is not read: a client that
/// continues to send meanwhile may not see why it is closed.
const MESSAGE_MARGIN: usize = 1_024;

/// Handles `GET /ws`.
pub(crate) async fn socket(state: &Arc<AppState>, request: Request) -> Response {
    let context = Context::of_request(&request);
    let (parts, _) = request.into_parts();
    let instance = original_uri(&parts).path().to_owned();
    match Box::pin(upgrade_socket(state, parts, &context)).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = state.error_response(&error, &instance, &context);
            if response.status() == StatusCode::UPGRADE_REQUIRED {
                response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            }
            response
        }
    }
}

async fn upgrade_socket(
    state: &Arc<AppState>,
    mut parts: http::request::Parts,
    context: &Context,
) -> Result<Response, Error> {
    let live = require_live(state)?;
    if !state.origins.is_allowed(&parts).await {
        let detail = "Pages of this origin may not open a socket here.";
        let fault = Fault::header(
            "Origin",
            "forbidden",
            "Neither the application's own origin nor one that CORS allows.",
        );
        return Err(Error::new(ErrorKind::Forbidden, "forbidden", detail).with_faults(vec![fault]));
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|rejection| {
        let detail = format!("This is a WebSocket: connect to it as such ({rejection}).");
        Error::new(ErrorKind::UpgradeRequired, "upgrade-required", detail)
    })?;
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        let detail =
            format!("Ask for the subprotocol `{SUBPROTOCOL}`: new WebSocket(url, \"{SUBPROTOCOL}\").");
        let fault = Fault::header("Sec-WebSocket-Protocol", "unknown", detail.clone());
        return Err(Error::new(ErrorKind::BadRequest, "subprotocol", detail).with_faults(vec![fault]));
    }
    let caller = SubscribingCaller::of(state, &parts).allow_reauthentication();
    let slot = live.hub.join(SubscriptionSpec::empty(subscriber_identity(&caller.actor().await?)))?;
    let problem_context = ProblemContext {
        problem_base: state.problem_base.clone(),
        instance: original_uri(&parts).path().to_owned(),
        context: context.clone(),
    };
    let session = SocketSession::new(live, Arc::new(caller), slot, problem_context);
    Ok(upgrade
        // Memory of each socket, in and out: what is read is small, and what is written is sent at once.
        .read_buffer_size(4 * 1024)
        .max_message_size(message::MAX_MESSAGE_BYTES + MESSAGE_MARGIN)
        .max_frame_size(message::MAX_MESSAGE_BYTES + MESSAGE_MARGIN)
        .on_failed_upgrade(|error| tracing::debug!(%error, "a connection did not become a socket"))
        .on_upgrade(|socket| session.run(socket)))
}
