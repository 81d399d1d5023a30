//! What writes feel of an event that nobody can be told of and a webhook that nobody answers: latencies next to those of an
//! application whose subscriber and endpoint are well.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use resourceful::adapter::Storage;
use resourceful::app::Background;
use resourceful::events::Webhooks;
use resourceful::prelude::*;
use serde_json::json;
use tokio::net::TcpListener;

use super::{CLIENTS, maximum, median, minimum, part, parts, send};

const ROUNDS: usize = 15;
const REQUESTS: usize = 800;

/// An application under way.
struct RunningApp {
    router: Router,
    background: Background,
    is_healthy: bool,
    /// How many events the subscriber was told of, and the endpoint was sent.
    delivered: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl RunningApp {
    async fn start(storage: &Arc<dyn Storage>, is_healthy: bool) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (delivered, sent) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (delivered_counter, sent_counter) = (delivered.clone(), sent.clone());
        // Whoever is not well takes every message and never answers.
        let receiver = Router::new().fallback(move || {
            let sent = sent_counter.clone();
            async move {
                sent.fetch_add(1, Ordering::Relaxed);
                if !is_healthy {
                    std::future::pending::<()>().await;
                }
                StatusCode::NO_CONTENT
            }
        });
        tokio::spawn(async move { axum::serve(listener, receiver).await });
        let webhooks = Webhooks::stored_in(storage, signed_in(), async |owner| Ok(Some(owner)));
        let app = create_app(AppPreset::Development)
            .authenticator(BearerTokens::new().token("bench", Actor::user("bench")))
            .webhooks(webhooks.private_targets(true))
            .on("parts.*", move |event, _| {
                delivered_counter.fetch_add(1, Ordering::Relaxed);
                let is_poison = !is_healthy && event.data["name"] == "poison";
                std::future::ready(if is_poison { Err("on purpose".into()) } else { Ok(()) })
            })
            .resource(parts(storage)?)
            .build()
            .await?;
        let router = app.router();
        let endpoint = json!({"url": url, "events": ["parts.*"]});
        let mut poison = part();
        poison["name"] = "poison".into();
        for (path, body) in [("/webhook_endpoints", endpoint), ("/parts", poison)] {
            let (status, body) = send(&router, path, &body).await?;
            if status != 201 {
                return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&body)).into());
            }
        }
        Ok(Self { router, background: app.background(), is_healthy, delivered, sent })
    }

    /// The median latency of creates, and the one that 99 of 100 do not exceed, in milliseconds.
    async fn latencies(&self) -> Result<(f64, f64), Box<dyn Error>> {
        let before = (self.delivered.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed));
        let clients = (0..CLIENTS).map(|_| {
            let router = self.router.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                for _ in 0..REQUESTS / CLIENTS {
                    let began = Instant::now();
                    send(&router, "/parts", &part()).await?;
                    took.push(began.elapsed());
                }
                Ok::<_, String>(took)
            })
        });
        let mut all = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            all.extend(client.await??);
        }
        // What is left to be told must not be told while the other one is measured.
        let end = Instant::now() + Duration::from_secs(60);
        while self.delivered.load(Ordering::Relaxed) < before.0 + REQUESTS
            || self.is_healthy && self.sent.load(Ordering::Relaxed) < before.1 + REQUESTS
        {
            if Instant::now() > end {
                return Err("what is to be told is not told".into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        all.sort_unstable();
        let at = |share: f64| {
            let position = (all.len() as f64 * share) as usize;
            all.get(position.min(all.len() - 1)).map_or(0.0, Duration::as_secs_f64) * 1_000.0
        };
        Ok((at(0.5), at(0.99)))
    }
}

/// `storages` are those of an application that is well, of another one that is, and of one in trouble. The second shows how
/// far two that do the same differ.
pub(super) async fn run(storages: [Arc<dyn Storage>; 3]) -> Result<(), Box<dyn Error>> {
    let [well, twin, troubled] = storages;
    let apps = [
        RunningApp::start(&well, true).await?,
        RunningApp::start(&twin, true).await?,
        RunningApp::start(&troubled, false).await?,
    ];
    let mut measured: [Vec<(f64, f64)>; 3] = Default::default();
    for round in 0..=ROUNDS {
        // None is always the first.
        for position in (0..3).map(|position| (position + round) % 3) {
            let latencies = apps[position].latencies().await?;
            // The first round warms all up.
            if round > 0 {
                measured[position].push(latencies);
            }
        }
    }
    let [well, twin, troubled] = measured;
    for (name, of) in
        [("beside a poisoned event and a dead webhook", troubled), ("beside sound ones again", twin)]
    {
        let ratios = |one: fn(&(f64, f64)) -> f64| -> Vec<f64> {
            of.iter().zip(&well).map(|(this, well)| one(this) / one(well)).collect()
        };
        for (figure, ratios) in [("median", ratios(|pair| pair.0)), ("p99", ratios(|pair| pair.1))] {
            println!(
                "  {figure} of creates {name}: {:.2} ({:.2} to {:.2}) of those beside sound ones",
                median(&ratios),
                minimum(&ratios),
                maximum(&ratios)
            );
        }
    }
    for app in apps {
        app.background.stop().await;
    }
    Ok(())
}
