//! What live streams cost: how soon an event reaches ten thousand subscribers, what each of them takes of memory, and what it
//! takes to find one among a hundred thousand who each ask for something else.
//!
//! ```console
//! $ cargo run --release -p resourceful-benches --bin streams
//! ```
//!
//! `--subscribers` and `--filters` change the numbers. The clients of the first part are a process of their own, over
//! loopback, one connection each; both processes need as many open files (`ulimit -n`). Memory is read from `/proc`.

use std::env;
use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use resourceful::App;
use resourceful::live::Streams;
use resourceful::prelude::*;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tower::{Service as _, ServiceExt as _};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many events are sent to all.
const EVENTS: usize = 20;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Order {
    id: Uuid,
    customer: String,
    status: String,
    total_cents: i64,
    note: Option<String>,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let number = |name: &str, otherwise: usize| {
        let given = arguments.iter().position(|argument| argument == name);
        given.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(otherwise)
    };
    if let Some(address) = arguments.iter().position(|argument| argument == "--read") {
        let address = arguments.get(address + 1).ok_or("an address")?.parse()?;
        return read(address, number("--subscribers", 10_000)).await;
    }
    measure_fan_out(number("--subscribers", 10_000)).await?;
    measure_filter_lookup(number("--filters", 100_000)).await
}

async fn application() -> Outcome<App> {
    let orders = define_resource::<Order>("orders")
        .adapter(Memory::new().table("orders"))
        .permissions(Permissions::all(anyone()))
        .filterable(["customer", "status", "total_cents"])
        .build()?;
    let streams = Streams::new().max_streams(usize::MAX).max_anonymous(usize::MAX);
    Ok(create_app(AppPreset::Testing).streams(streams).resource(orders).build().await?)
}

async fn create(app: &App, customer: &str) -> Outcome<()> {
    let body =
        json!({"customer": customer, "status": "open", "total_cents": 1250, "note": "leave it at the door"});
    let request = Request::post("/orders").header("content-type", "application/json");
    let answer = app.router().oneshot(request.body(Body::from(body.to_string()))?).await?;
    if answer.status() == 201 { Ok(()) } else { Err(format!("a create: {}", answer.status()).into()) }
}

/// How long one event takes to every subscriber, and what each takes of memory.
async fn measure_fan_out(subscribers: usize) -> Outcome<()> {
    let app = application().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(app.clone().serve_until(listener, std::future::pending()));
    let before = resident_memory()?;
    let mut readers = tokio::process::Command::new(env::current_exe()?)
        .args(["--read", &address.to_string(), "--subscribers", &subscribers.to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut reader_output = BufReader::new(readers.stdout.take().ok_or("readers say nothing")?).lines();
    reader_output.next_line().await?.ok_or("the readers ended")?;
    let idle = resident_memory()?;
    println!(
        "{} subscribers: {:.1} KiB of resident memory each",
        app.open_streams(),
        (idle.saturating_sub(before)) as f64 / 1024.0 / subscribers as f64
    );
    let mut times = Vec::new();
    for _ in 0..EVENTS {
        let begun = Instant::now();
        create(&app, "ada").await?;
        reader_output.next_line().await?.ok_or("the readers ended")?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!(
        "from the request of a change until each of them has read its event: median {:.0} ms, longest {:.0} ms",
        times[EVENTS / 2].as_secs_f64() * 1e3,
        times[EVENTS - 1].as_secs_f64() * 1e3
    );
    let busy = resident_memory()?;
    println!(
        "after {EVENTS} events: {:.1} KiB each",
        (busy.saturating_sub(before)) as f64 / 1024.0 / subscribers as f64
    );
    server.abort();
    readers.kill().await?;
    Ok(())
}

/// Reads as so many clients; says when all are there, and when all have read another event.
async fn read(address: SocketAddr, subscribers: usize) -> Outcome<()> {
    let ready = Arc::new(AtomicUsize::new(0));
    let events = Arc::new(AtomicUsize::new(0));
    for _ in 0..subscribers {
        let (ready, events) = (ready.clone(), events.clone());
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(b"GET /orders/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            let mut is_ready = false;
            while let Ok(count @ 1..) = connection.read(&mut buffer).await {
                // Each event is one chunk of the answer, and small enough for one segment.
                let text = String::from_utf8_lossy(&buffer[..count]);
                if !is_ready && text.contains("event: ready") {
                    is_ready = true;
                    ready.fetch_add(1, Ordering::Relaxed);
                }
                events.fetch_add(text.matches("event: orders.created").count(), Ordering::Relaxed);
            }
        });
    }
    let reached = async |count: &AtomicUsize, goal: usize| {
        while count.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        println!("{goal}");
        std::io::stdout().flush()
    };
    reached(&ready, subscribers).await?;
    for event in 1..=EVENTS {
        reached(&events, event * subscribers).await?;
    }
    std::future::pending().await
}

/// What a change takes where many subscribers each ask for the items of another customer, less what it takes with one of
/// them.
async fn measure_filter_lookup(filters: usize) -> Outcome<()> {
    let few = time_per_change(1).await?;
    let begun = Instant::now();
    let many = time_per_change(filters).await?;
    println!(
        "{filters} subscribers of different filters: {:.1} µs for a change, next to {:.1} µs with one ({:.1} s in all)",
        many.as_secs_f64() * 1e6,
        few.as_secs_f64() * 1e6,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// How long each of many changes takes from its commit until the one who asked for it can read its event.
async fn time_per_change(filters: usize) -> Outcome<Duration> {
    const CHANGES: usize = 500;
    let app = application().await?;
    let mut router = app.router();
    let mut streams: Vec<BodyDataStream> = Vec::with_capacity(filters);
    for number in 0..filters {
        let request = Request::get(format!("/orders/stream?customer=c{number}")).body(Body::empty())?;
        let answer = router.call(request).await?;
        if answer.status() != 200 {
            return Err(format!("a stream: {}", answer.status()).into());
        }
        streams.push(answer.into_body().into_data_stream());
    }
    for number in 0..CHANGES {
        create(&app, &format!("c{}", number % filters)).await?;
    }
    let begun = Instant::now();
    app.deliver().await?;
    let taken = begun.elapsed();
    drop(streams);
    Ok(taken / u32::try_from(CHANGES)?)
}

fn resident_memory() -> Outcome<usize> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = status.split_whitespace().nth(1).ok_or("a number of pages")?.parse()?;
    Ok(pages * 4_096)
}
