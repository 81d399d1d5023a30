//! What `resourceful` is compared with: the atlas example's cities, written by hand with axum and sqlx.
//!
//! `DATABASE_URL`, `PORT` and `ATLAS_TOKEN` mean what they mean to the example, whose tables it uses.

mod database;
mod problem;

use std::env;
use std::error::Error;

use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use validator::Validate;

use crate::database::{Database, Sort};
use crate::problem::Problem;

/// A row of `cities`.
#[derive(Debug, Serialize, sqlx::FromRow)]
pub(crate) struct City {
    id: i64,
    name: String,
    country_code: String,
    admin1_code: String,
    latitude: f64,
    longitude: f64,
    population: i64,
    timezone: String,
}

/// What a client sends to make one.
#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCity {
    #[validate(length(min = 1, max = 200))]
    name: String,
    #[validate(length(equal = 2))]
    country_code: String,
    #[validate(length(max = 20))]
    admin1_code: String,
    #[validate(range(min = -90.0, max = 90.0))]
    latitude: f64,
    #[validate(range(min = -180.0, max = 180.0))]
    longitude: f64,
    #[validate(range(min = 0))]
    population: i64,
    #[validate(length(min = 1, max = 64))]
    timezone: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    country_code: String,
    #[serde(default)]
    sort: Sort,
    #[serde(default = "default_limit")]
    limit: i64,
}

const fn default_limit() -> i64 {
    50
}

#[derive(Debug, Serialize)]
struct List {
    items: Vec<City>,
    page: Page,
}

#[derive(Debug, Serialize)]
struct Page {
    next: Option<String>,
    prev: Option<String>,
    limit: i64,
}

#[derive(Clone, Debug)]
struct App {
    database: Database,
    authorization: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("DATABASE_URL")?;
    let port = env::var("PORT")?;
    let token = env::var("ATLAS_TOKEN").ok();
    let app = App {
        database: Database::connect(&url).await?,
        authorization: token.map(|token| format!("Bearer {token}")),
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/cities", get(list).post(create))
        .route("/cities/{id}", get(read))
        .with_state(app);
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    axum::serve(listener, router).with_graceful_shutdown(shutdown_signal()).await?;
    Ok(())
}

async fn shutdown_signal() {
    let kind = tokio::signal::unix::SignalKind::terminate();
    if let Ok(mut signal) = tokio::signal::unix::signal(kind) {
        signal.recv().await;
    }
}

async fn read(State(app): State<App>, Path(id): Path<i64>) -> Result<Json<City>, Problem> {
    let city = app.database.city(id).await?;
    city.map(Json).ok_or(Problem::NotFound)
}

async fn list(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Json<List>, Problem> {
    if query.limit < 1 {
        return Err(Problem::Invalid("limit is at least 1".to_owned()));
    }
    let limit = query.limit.min(200);
    let items = app.database.cities_of(&query.country_code, query.sort, limit).await?;
    let page = Page { next: None, prev: None, limit };
    Ok(Json(List { items, page }))
}

async fn create(
    State(app): State<App>,
    headers: HeaderMap,
    Json(city): Json<NewCity>,
) -> Result<impl IntoResponse, Problem> {
    let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if app.authorization.is_none() || sent != app.authorization.as_deref() {
        return Err(Problem::Unauthenticated);
    }
    city.validate().map_err(|faults| Problem::Invalid(faults.to_string()))?;
    let city = app.database.create(&city).await?;
    let location = format!("/cities/{}", city.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(city)))
}
