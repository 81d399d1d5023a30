//! A web page that shows a shop's orders as they happen. It is a client of the API, with a session instead of a token.

use axum::Router;
use axum::extract::{Form, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use resourceful::access::{MemorySessions, Sessions, SharedSessions};
use resourceful::adapter::Redis;
use resourceful::prelude::*;

/// Content security policy of the pages.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Browser sessions, in Redis if there is one; otherwise they end with the process. A shop of your own would keep them
/// in a table.
pub(crate) fn sessions(secret: &str, redis: Option<&Redis>) -> Sessions {
    match redis {
        Some(redis) => Sessions::new(secret, SharedSessions::new(redis.cache())),
        None => Sessions::new(secret, MemorySessions::new()),
    }
}

/// The routes of the page, and of signing in and out.
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

/// Signs a user in by name alone, without a password: this is a demonstration.
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
