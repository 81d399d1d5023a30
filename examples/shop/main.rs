//! Shops of two tenants behind one API, with access rules that are declared once.
//!
//! ```console
//! $ cargo run -p shop
//! ```
//!
//! It prints tokens of several users and `curl` commands that show tenant isolation, an ownership rule, a hidden field,
//! a service's scopes, elevation, idempotent, bulk and batch writes, state transitions, the audit trail, a tree of
//! categories, and webhooks. The page `/live` shows orders as they happen, and who else views them.
//!
//! `cargo run -p shop verify` verifies the audit trail.
//!
//! `PORT` sets another port, `DATABASE_URL` another database (`postgres://…` with `--features postgres`), and `SECRET`
//! (32 bytes or more) keeps tokens valid across restarts. `REDIS_URL` (`redis://…`) connects several nodes by a bus, a
//! shared cache and shared sessions; they need one `SECRET`. `APP_PRESET=production` runs it as a container would.

mod live;
mod people;
mod resources;
mod seed;

use std::env;
use std::error::Error;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use resourceful::adapter::Redis;
use resourceful::cache::QueryCache;
use resourceful::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let url = env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://shop.db".to_owned());
    let database = Sql::connect(&url).await?;
    let secret =
        env::var("SECRET").unwrap_or_else(|_| format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4()));

    let redis = match env::var("REDIS_URL") {
        Ok(url) => Some(Redis::connect(&url).await?),
        Err(_) => None,
    };
    let sessions = live::sessions(&secret, redis.as_ref());
    let app = resources::shop(preset()?, |name| database.table(name).create_table_if_missing())?;
    let app = match &redis {
        Some(redis) => app.bus(redis.bus()).query_cache(QueryCache::new().shared(redis.cache())),
        None => app,
    };
    let app = app
        .merge(Router::new().route("/received", post(received)))
        .merge(live::routes(sessions.clone()))
        .authenticator(people::tokens(&secret))
        .authenticator(sessions)
        .secret(&secret)
        .build()
        .await?;
    if env::args().nth(1).is_some_and(|argument| argument == "verify") {
        return verify(&app).await;
    }
    if seed::load(&app).await? {
        println!("Two shops were opened.");
    }

    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let base = format!("http://127.0.0.1:{port}");
    println!("Orders as they happen: {base}/live. Tokens of several users, which last for a day:\n");
    println!("  export SHOP={base}");
    for person in people::people() {
        println!("  export {}={}", person.variable, people::token(&person, &secret)?);
    }
    println!("\n{}", tour());
    app.serve(format!("127.0.0.1:{port}")).await?;
    Ok(())
}

/// The application preset that `APP_PRESET` names; development by default.
fn preset() -> Result<AppPreset, String> {
    match env::var("APP_PRESET").as_deref() {
        Err(_) | Ok("development") => Ok(AppPreset::Development),
        Ok("production") => Ok(AppPreset::Production),
        Ok("testing") => Ok(AppPreset::Testing),
        Ok(other) => Err(format!("APP_PRESET is development, production or testing, not `{other}`")),
    }
}

/// A webhook receiver. One of your own verifies the signature first: `webhook-signature` is made with the secret that
/// `POST /webhook_endpoints/{id}/reveal-secret` returns, and any library for Standard Webhooks can verify it.
async fn received(headers: HeaderMap, event: String) -> StatusCode {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    println!("received {id}: {event}");
    StatusCode::NO_CONTENT
}

/// Verifies the audit trail.
async fn verify(app: &App) -> Result<(), Box<dyn Error>> {
    for verdict in app.verify_audit().await? {
        match verdict.broken {
            None => println!("The audit trail holds: {} entries.", verdict.entries),
            Some(broken) => return Err(format!("the audit trail is broken: {broken}").into()),
        }
    }
    Ok(())
}

/// The example commands, each with the status of its response.
fn tour() -> String {
    [
        ("ADAS_ORDER", seed::ADAS_ORDER),
        ("ALANS_ORDER", seed::ALANS_ORDER),
        ("GRACES_ORDER", seed::GRACES_ORDER),
        ("ANVIL", seed::ANVIL),
        ("ROAD_RUNNER", seed::ROAD_RUNNER),
        ("GEAR", seed::GEAR),
        ("HEAVY_TRAPS", seed::HEAVY_TRAPS),
    ]
    .into_iter()
    .fold(include_str!("tour.txt").to_owned(), |tour, (name, id)| tour.replace(name, &id.to_string()))
}
