//! What a client is told when it did not work.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// RFC 9457, the least of it.
#[derive(Debug)]
pub(crate) enum Problem {
    NotFound,
    Invalid(String),
    Unauthenticated,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no such city.".to_owned()),
            Self::Invalid(detail) => (StatusCode::UNPROCESSABLE_ENTITY, detail),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "Who are you?".to_owned()),
            Self::Database(error) => {
                eprintln!("{error}");
                let detail = "The server failed.".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, detail)
            }
        };
        let body = Json(json!({"status": status.as_u16(), "detail": detail}));
        (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
