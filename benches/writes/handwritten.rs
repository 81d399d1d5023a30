//! The same four inserts in one transaction, as one writes them by hand.

use std::error::Error;
use std::str::FromStr as _;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use resourceful::prelude::{DateTime, Utc, Uuid};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use validator::Validate;

#[derive(Clone, Debug)]
pub(super) enum Handwritten {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

#[derive(Deserialize, Validate)]
struct NewPart {
    #[validate(length(min = 1, max = 120))]
    name: String,
    #[validate(range(min = 0))]
    price_cents: i64,
    in_stock: bool,
    note: Option<String>,
}

#[derive(Serialize)]
struct Part {
    id: Uuid,
    name: String,
    price_cents: i64,
    in_stock: bool,
    note: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// The statements, with `$1` … for both databases.
const PART: &str = "INSERT INTO parts (id, name, price_cents, in_stock, note, created_at, updated_at, version) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, 1)";
const EVENT: &str = "INSERT INTO resourceful_events (id, type, resource, subject, time, data, attempts) \
    VALUES ($1, 'parts.created', 'parts', $2, $3, $4, 0)";
const AUDIT: &str = "INSERT INTO resourceful_audit (resource, item, operation, at, actor, changes) \
    VALUES ('parts', $1, 'create', $2, 'bench', $3)";
const KEY: &str = "INSERT INTO resourceful_keys (id, fingerprint, status, item, version, body, expires_at) \
    VALUES ($1, $2, 201, $3, '1', $4, $5)";

/// Runs the four inserts in a transaction of a pool.
macro_rules! inserted {
    ($pool:expr, $begin:expr, $part:expr, $json:expr, $key:expr) => {{
        let (part, json, key): (&Part, &str, &str) = ($part, $json, $key);
        let mut transaction = $pool.begin_with($begin).await?;
        sqlx::query(PART)
            .bind(part.id)
            .bind(&part.name)
            .bind(part.price_cents)
            .bind(part.in_stock)
            .bind(&part.note)
            .bind(part.created_at)
            .bind(part.updated_at)
            .execute(&mut *transaction)
            .await?;
        let event = sqlx::query(EVENT).bind(Uuid::now_v7()).bind(part.id.to_string());
        event.bind(part.created_at).bind(json).execute(&mut *transaction).await?;
        let audit = sqlx::query(AUDIT).bind(part.id.to_string()).bind(part.created_at);
        audit.bind(json).execute(&mut *transaction).await?;
        let kept = part.created_at + std::time::Duration::from_secs(86_400);
        let row = sqlx::query(KEY).bind(key).bind(key).bind(part.id.to_string()).bind(json).bind(kept);
        row.execute(&mut *transaction).await?;
        transaction.commit().await
    }};
}

impl Handwritten {
    pub(super) async fn connect(url: &str) -> Result<Self, Box<dyn Error>> {
        if url.starts_with("postgres") {
            return Ok(Self::Postgres(PgPoolOptions::new().max_connections(10).connect(url).await?));
        }
        let options = SqliteConnectOptions::from_str(url)?
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        Ok(Self::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?))
    }

    pub(super) fn router(self) -> Router {
        Router::new().route("/parts", post(create)).with_state(self)
    }

    async fn insert(&self, part: &Part, json: &str, key: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(pool) => inserted!(pool, "BEGIN IMMEDIATE", part, json, key),
            Self::Postgres(pool) => inserted!(pool, "BEGIN", part, json, key),
        }
    }
}

async fn create(
    State(database): State<Handwritten>,
    headers: HeaderMap,
    Json(new): Json<NewPart>,
) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let known = headers.get("authorization").is_some_and(|token| token == "Bearer bench");
    if !known || key.is_empty() || new.validate().is_err() {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    let NewPart { name, price_cents, in_stock, note } = new;
    let now = Utc::now();
    let part =
        Part { id: Uuid::now_v7(), name, price_cents, in_stock, note, created_at: now, updated_at: now };
    let Ok(json) = serde_json::to_string(&part) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    match database.insert(&part, &json, key).await {
        Ok(()) => {
            let location = format!("/parts/{}", part.id);
            let headers = [("location", location), ("etag", "\"1\"".to_owned())];
            (StatusCode::CREATED, headers, [("content-type", "application/json")], json).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
