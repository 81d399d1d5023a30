//! A page for people: the orders of a shop as they happen. It is the API's client, with a session instead of a token.

use axum::Router;
use axum::extract::{Form, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use resourceful::prelude::*;
use resourceful::{MemorySessions, Redis, Sessions, SharedSessions};

/// Whose pages these are, and what they may load.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Sessions of browsers: they end with the process. A shop of your own would keep them in a table.
pub(crate) fn sessions(secret: &str, redis: Option<&Redis>) -> Sessions {
    match redis {
        Some(redis) => Sessions::new(secret, SharedSessions::new(redis.cache())),
        None => Sessions::new(secret, MemorySessions::new()),
    }
}

/// The page, and how to come in.
pub(crate) fn routes(sessions: Sessions) -> Router {
    Router::new()
        .route("/live", get(async || page(include_str!("live/page.html"), "text/html; charset=utf-8")))
        .route("/live.css", get(async || page(include_str!("live/page.css"), "text/css; charset=utf-8")))
        .route("/live.js", get(async || page(include_str!("live/page.js"), "text/javascript; charset=utf-8")))
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .with_state(sessions)
}

fn page(text: &'static str, media_type: &'static str) -> Response {
    ([(CONTENT_TYPE, media_type), (CONTENT_SECURITY_POLICY, POLICY)], text).into_response()
}

#[derive(Deserialize)]
struct SignIn {
    who: String,
}

/// Whoever says who they are is believed: this is a demonstration.
async fn sign_in(State(sessions): State<Sessions>, Form(SignIn { who }): Form<SignIn>) -> Response {
    let (tenant, role) = match who.as_str() {
        "ada" => ("acme", "owner"),
        "alan" => ("acme", "member"),
        "grace" => ("globex", "admin"),
        _ => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
    };
    match sessions.start(Actor::user(who).in_tenant(tenant, [role])).await {
        Ok(cookie) => ([(SET_COOKIE, cookie)], Redirect::to("/live")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn sign_out(State(sessions): State<Sessions>, headers: HeaderMap) -> Response {
    match sessions.end(&headers).await {
        Ok(cookie) => ([(SET_COOKIE, cookie)], Redirect::to("/live")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
