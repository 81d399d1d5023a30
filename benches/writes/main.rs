//! What certainty costs: creates with their event, audit entry and idempotency key next to a hand-written transaction of
//! the same four inserts; bulk next to singles; how fast the relay is, and what writes feel of those that it cannot tell.
//!
//! ```console
//! $ BENCH_POSTGRES_URL=postgres://… cargo run --release -p resourceful-benches --bin writes
//! ```
//!
//! `--beside` measures the last of these alone.
//!
//! Everything runs in this process, through the routers of both programs, so that only what they do is compared. On
//! PostgreSQL each has a schema of its own in the database that `BENCH_POSTGRES_URL` names.

mod handwritten;
mod undeliverable;

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use resourceful::adapter::{Bus, MemoryBus, Migration, Redis, Storage};
use resourceful::prelude::*;
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;

use handwritten::Handwritten;

/// How many clients ask at once.
const CLIENTS: usize = 8;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Part {
    id: Uuid,
    #[validate(length(min = 1, max = 120))]
    name: String,
    #[validate(range(min = 0))]
    price_cents: i64,
    in_stock: bool,
    note: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

fn parts(storage: &Arc<dyn Storage>) -> Result<Resource, DefinitionErrors> {
    define_resource::<Part>("parts")
        .adapter(resourceful::adapter::Table::new(storage.clone(), "parts").create_table_if_missing())
        .permissions(Permissions::all(signed_in()))
        .preset(timestamps())
        .preset(bulk())
        .preset(audit())
        .preset(idempotency())
        .version("version")
        .build()
}

async fn application(
    storage: &Arc<dyn Storage>,
    delivered: Arc<AtomicUsize>,
) -> Result<resourceful::App, Box<dyn Error>> {
    let app = create_app(AppPreset::Development)
        .authenticator(BearerTokens::new().token("bench", Actor::user("bench")))
        .body_limit(16 << 20)
        .bus(bus().await?)
        .on("*", move |_, _| {
            delivered.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(()))
        });
    Ok(app.resource(parts(storage)?).build().await?)
}

/// A bus in memory, or through the Redis that `BENCH_REDIS_URL` names.
async fn bus() -> Result<Arc<dyn Bus>, Box<dyn Error>> {
    match env::var("BENCH_REDIS_URL") {
        Ok(url) => Ok(Redis::connect(&url).await?.bus()),
        Err(_) => Ok(Arc::new(MemoryBus::new())),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let sqlite = |name: &str| format!("sqlite://{}/{name}.db", folder.path().display());
    let mut databases = vec![("SQLite", sqlite("ours"), sqlite("theirs"))];
    match env::var("BENCH_POSTGRES_URL") {
        Ok(url) => databases.push(("PostgreSQL", create_schema(&url).await?, create_schema(&url).await?)),
        Err(_) => println!("(SQLite alone: BENCH_POSTGRES_URL names no PostgreSQL)"),
    }
    for (name, ours, theirs) in databases {
        println!("{name}");
        if env::args().any(|argument| argument == "--beside") {
            compare_undeliverable(name, &sqlite).await?;
            continue;
        }
        let storage = Sql::connect(&ours).await?.storage();
        let delivered = Arc::new(AtomicUsize::new(0));
        let app = application(&storage, delivered.clone()).await?;
        // The same tables, made by the same migrations.
        let other = Sql::connect(&theirs).await?.storage();
        application(&other, Arc::default()).await?;
        other.close().await?;
        let hand = Handwritten::connect(&theirs).await?.router();
        compare_creates(&app.router(), &hand).await?;
        compare_bulk(&app.router()).await?;
        measure_relay(&app, &delivered).await?;
        compare_undeliverable(name, &sqlite).await?;
    }
    Ok(())
}

async fn compare_undeliverable(name: &str, sqlite: &impl Fn(&str) -> String) -> Result<(), Box<dyn Error>> {
    let mut storages = Vec::new();
    for world in ["well", "twin", "troubled"] {
        let url = match name {
            "SQLite" => sqlite(world),
            _ => create_schema(&env::var("BENCH_POSTGRES_URL")?).await?,
        };
        storages.push(Sql::connect(&url).await?.storage());
    }
    let storages: [_; 3] = storages.try_into().map_err(|_| "three storages")?;
    undeliverable::run(storages).await
}

/// A new schema in a PostgreSQL database.
async fn create_schema(url: &str) -> Result<String, Box<dyn Error>> {
    let schema = format!("bench{}", Uuid::now_v7().simple());
    let made = Migration::new(schema.as_str(), 1, "schema", format!("CREATE SCHEMA {schema}"));
    Sql::connect(url).await?.storage().migrate(&[made], true).await?;
    Ok(format!("{url}?options=-c%20search_path%3D{schema}"))
}

/// Creates with everything that belongs to them, next to the hand-written transaction.
async fn compare_creates(ours: &Router, theirs: &Router) -> Result<(), Box<dyn Error>> {
    const ROUNDS: usize = 15;
    const REQUESTS: usize = 400;
    let mut ratios = Vec::new();
    let mut rates = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let mut one = rate(ours, REQUESTS).await?;
        let other = rate(theirs, REQUESTS).await?;
        if round % 2 == 1 {
            // Neither is always the first.
            one = rate(ours, REQUESTS).await?;
        }
        // The first round warms both up.
        if round > 0 {
            ratios.push(one / other);
            rates.0.push(one);
            rates.1.push(other);
        }
    }
    println!(
        "  create with event, audit entry and key: {:.3} ({:.3} to {:.3}) of hand-written; {:.0} against {:.0} a second",
        median(&ratios),
        minimum(&ratios),
        maximum(&ratios),
        median(&rates.0),
        median(&rates.1),
    );
    Ok(())
}

/// How many creates are answered in a second.
async fn rate(router: &Router, requests: usize) -> Result<f64, Box<dyn Error>> {
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let router = router.clone();
        tokio::spawn(async move {
            for _ in 0..requests / CLIENTS {
                let status = send(&router, "/parts", &part()).await?.0;
                if status != 201 {
                    return Err(format!("a create was answered with {status}"));
                }
            }
            Ok(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(requests as f64 / began.elapsed().as_secs_f64())
}

fn part() -> Json {
    json!({"name": "A part of something", "price_cents": 1_250, "in_stock": true, "note": "in the third row"})
}

async fn send(router: &Router, path: &str, body: &Json) -> Result<(u16, Vec<u8>), String> {
    let request = Request::post(path)
        .header("authorization", "Bearer bench")
        .header("content-type", "application/json")
        .header("idempotency-key", Uuid::now_v7().to_string())
        .body(Body::from(body.to_string()))
        .map_err(|error| error.to_string())?;
    let response = router.clone().oneshot(request).await.map_err(|never| never.to_string())?;
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    Ok((status, body.map_err(|error| error.to_string())?.to_vec()))
}

/// A thousand creates one after another, next to the same in one request.
async fn compare_bulk(router: &Router) -> Result<(), Box<dyn Error>> {
    const ITEMS: usize = 1_000;
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        for _ in 0..ITEMS {
            send(router, "/parts", &part()).await?;
        }
        let singles = began.elapsed();
        let items = vec![part(); ITEMS];
        let began = Instant::now();
        let (status, body) = send(router, "/parts/bulk", &json!({"items": items})).await?;
        if status != 201 {
            return Err(format!("bulk: {status} {}", String::from_utf8_lossy(&body)).into());
        }
        ratios.push(singles.as_secs_f64() / began.elapsed().as_secs_f64());
    }
    println!(
        "  {ITEMS} creates in bulk: {:.1} ({:.1} to {:.1}) times as fast as one by one",
        median(&ratios),
        minimum(&ratios),
        maximum(&ratios)
    );
    Ok(())
}

/// Tells a subscriber of everything that was done.
async fn measure_relay(app: &resourceful::App, delivered: &AtomicUsize) -> Result<(), Box<dyn Error>> {
    const EVENTS: usize = 20_000;
    app.deliver().await?;
    let router = app.router();
    for with_bus in [false, true] {
        for _ in 0..EVENTS / 1_000 {
            send(&router, "/parts/bulk", &json!({"items": vec![part(); 1_000]})).await?;
        }
        let before = delivered.load(Ordering::Relaxed);
        let began = Instant::now();
        if with_bus {
            let background = app.background();
            while delivered.load(Ordering::Relaxed) < before + EVENTS {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            background.stop().await;
        } else {
            app.deliver().await?;
        }
        let rate = EVENTS as f64 / began.elapsed().as_secs_f64();
        let how = if with_bus { "through the bus" } else { "by itself" };
        println!("  relay {how}: {rate:.0} events a second ({EVENTS} of them)");
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn minimum(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn maximum(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
