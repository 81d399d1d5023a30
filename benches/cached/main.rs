//! What a remembered answer costs: next to a bare axum handler that returns the same bytes, once the body alone and once with the
//! same headers, and next to the same question without a cache.
//!
//! ```console
//! $ BENCH_POSTGRES_URL=postgres://… cargo run --release -p resourceful-benches --bin cached
//! ```
//!
//! With `BENCH_SERVER_CPU=0` the servers have one processor of their own (`taskset`), which a database should be given as
//! well, and the client another (`taskset -c 1 …`): so that neither takes the time of the other.
//!
//! Each program is a process of its own, asked over keep-alive connections in turns. `--rounds` and `--seconds` say how often
//! and for how long.

use std::env;
use std::error::Error;
use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE};
use axum::http::{HeaderMap, HeaderName};
use axum::routing::get;
use resourceful::adapter::Migration;
use resourceful::cache::QueryCache;
use resourceful::prelude::*;
use serde_json::json;

use resourceful_benches::client::{Connection, run_load};
use resourceful_benches::figures::{median, spread};

const ROWS: usize = 10_000;
const CONNECTIONS: usize = 8;
const QUERIES: [(&str, &str); 2] = [("an item", "/parts/7"), ("a list of 20", "/parts?limit=20&sort=name")];

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Part {
    id: i64,
    name: String,
    price_cents: i64,
    in_stock: bool,
    note: Option<String>,
}

/// Which program.
#[derive(Clone, Copy, Debug)]
enum Program {
    /// Handlers that return a body which they have.
    BodyOnly,
    /// Handlers that return the whole of an answer which they have.
    FullResponse,
    Cached,
    Uncached,
}

impl Program {
    const ALL: [Self; 4] = [Self::BodyOnly, Self::FullResponse, Self::Cached, Self::Uncached];

    const fn name(self) -> &'static str {
        match self {
            Self::BodyOnly => "bare",
            Self::FullResponse => "whole",
            Self::Cached => "cached",
            Self::Uncached => "uncached",
        }
    }
}

async fn application(url: &str, cached: bool) -> Result<resourceful::App, Box<dyn Error>> {
    let parts = define_resource::<Part>("parts")
        .adapter(Sql::connect(url).await?.table("parts").create_table_if_missing())
        .permissions(Permissions::all(anyone()))
        .index(["name"])
        .cache(Cache::fresh(Duration::from_secs(3600)))
        .build()?;
    let cache = if cached { QueryCache::new() } else { QueryCache::off() };
    // One secret for all, so that their cursors are the same.
    let app = create_app(AppPreset::Development).secret("a secret of benches, and of them alone");
    Ok(app.query_cache(cache).resource(parts).build().await?)
}

/// Serves until it is killed.
async fn serve(program_name: &str, url: &str, port: u16) -> Result<(), Box<dyn Error>> {
    let address = format!("127.0.0.1:{port}");
    if ![Program::BodyOnly.name(), Program::FullResponse.name()].contains(&program_name) {
        return Ok(application(url, program_name == Program::Cached.name()).await?.serve(&address).await?);
    }
    let mut router = Router::new();
    for (number, (_, path)) in QUERIES.iter().enumerate() {
        let body = axum::body::Bytes::from(fs::read(format!("{}.{number}", env::var("BODIES")?))?);
        let head = fs::read_to_string(format!("{}.{number}.head", env::var("BODIES")?))?;
        let headers = headers(&head, program_name == Program::FullResponse.name())?;
        let path = path.split('?').next().unwrap_or_default();
        router = router.route(
            path,
            get(move || {
                let (headers, body) = (headers.clone(), body.clone());
                async move { (headers, body) }
            }),
        );
    }
    Ok(axum::serve(tokio::net::TcpListener::bind(&address).await?, router).await?)
}

/// The headers of an answer, but for those that the server sets itself; or the type of its body alone.
fn headers(head: &str, all: bool) -> Result<HeaderMap, Box<dyn Error>> {
    let mut headers = HeaderMap::new();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        let name: HeaderName = name.parse()?;
        if name == CONTENT_TYPE || all && name != CONTENT_LENGTH && name != DATE {
            headers.append(name, value.parse()?);
        }
    }
    Ok(headers.clone())
}

/// A program that runs, until it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    async fn start(program: Program, url: &str, bodies: &str) -> Result<Self, Box<dyn Error>> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let current_exe = env::current_exe()?;
        let mut command = match env::var("BENCH_SERVER_CPU") {
            Ok(cpu) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &cpu]).arg(current_exe);
                pinned
            }
            Err(_) => Command::new(current_exe),
        };
        let child = command
            .args(["--serve", program.name(), url, &port.to_string()])
            .env("BODIES", bodies)
            .env("RUST_LOG", "warn")
            .spawn()?;
        let server = Self { child, port };
        let began = Instant::now();
        while Connection::open(port).await.is_err() {
            if began.elapsed() > Duration::from_secs(20) {
                return Err(format!("{} does not answer", program.name()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    /// The processor time that its threads have taken so far, in microseconds.
    fn cpu_time(&self) -> Result<f64, Box<dyn Error>> {
        let mut nanoseconds = 0.0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end meanwhile.
            let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanoseconds += stat.split(' ').next().unwrap_or_default().parse::<f64>()?;
        }
        Ok(nanoseconds / 1_000.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, program_name, url, port] = arguments.as_slice()
        && first == "--serve"
    {
        return serve(program_name, url, port.parse()?).await;
    }
    let number = |name: &str, default: f64| {
        let value =
            arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
        value.and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let (rounds, seconds) = (number("--rounds", 41.0) as usize, number("--seconds", 0.25));
    let folder = tempfile::tempdir()?;
    let mut databases = vec![("SQLite", format!("sqlite://{}/parts.db", folder.path().display()))];
    match env::var("BENCH_POSTGRES_URL") {
        Ok(url) => databases.push(("PostgreSQL", create_schema(&url).await?)),
        Err(_) => println!("(SQLite alone: BENCH_POSTGRES_URL names no PostgreSQL)"),
    }
    for (name, url) in databases {
        println!("{name}");
        compare(
            &url,
            &format!("{}/{name}", folder.path().display()),
            rounds,
            Duration::from_secs_f64(seconds),
        )
        .await?;
    }
    Ok(())
}

async fn compare(url: &str, bodies: &str, rounds: usize, seconds: Duration) -> Result<(), Box<dyn Error>> {
    let app = application(url, false).await?;
    let rows = (0..ROWS).map(|id| json!({"id": id, "name": format!("part {id:05}"), "price_cents": id * 7, "in_stock": id % 3 > 0, "note": null}));
    app.load().rows("parts", rows)?.commit().await?;
    let cached = Server::start(Program::Cached, url, bodies).await?;
    for (number, (_, path)) in QUERIES.iter().enumerate() {
        let mut connection = Connection::open(cached.port).await?;
        connection.send(&request(path)).await?;
        let hit = connection.send(&request(path)).await?;
        fs::write(format!("{bodies}.{number}"), hit.body)?;
        fs::write(format!("{bodies}.{number}.head"), hit.head)?;
    }
    let mut servers = Vec::new();
    for program in Program::ALL {
        servers.push(Server::start(program, url, bodies).await?);
    }
    drop(cached);
    for (number, (name, path)) in QUERIES.iter().enumerate() {
        let expected = fs::read(format!("{bodies}.{number}"))?;
        for server in &servers {
            let answer = Connection::open(server.port).await?.send(&request(path)).await?;
            if answer.body != expected {
                return Err(format!("{path} is not the same everywhere").into());
            }
        }
        // For each program and round, requests a second and microseconds of processor time for each.
        let mut runs: [Vec<(f64, f64)>; 4] = Default::default();
        for round in 0..=rounds {
            for which in (0..4).map(|which| (which + round) % 4) {
                let (server, bytes) = (&servers[which], request(path));
                let before = server.cpu_time()?;
                let load =
                    run_load(server.port, CONNECTIONS, seconds, 200, move |_| bytes.clone(), 1).await?;
                let spent = (server.cpu_time()? - before) / load.latencies.len() as f64;
                // The first round warms all up.
                if round > 0 {
                    runs[which].push((load.per_second(), spent));
                }
            }
        }
        print_ratios(name, &runs);
    }
    Ok(())
}

/// Says what the runs of a question show; of each program and round, requests a second and microseconds for each.
fn print_ratios(name: &str, runs: &[Vec<(f64, f64)>; 4]) {
    let ratios = |one: usize, other: usize, figure: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        runs[one].iter().zip(&runs[other]).map(|(one, other)| figure(one) / figure(other)).collect()
    };
    let of = |which: usize, figure: fn(&(f64, f64)) -> f64| {
        median(&runs[which].iter().map(figure).collect::<Vec<_>>())
    };
    println!(
        "  {name}: processor time of a hit {} of a handler's that returns the same answer ({:.1} and {:.1} µs), {} of one's that \
         returns its body alone ({:.1} µs)",
        spread(&ratios(2, 1, |run| run.1)),
        of(2, |run| run.1),
        of(1, |run| run.1),
        spread(&ratios(2, 0, |run| run.1)),
        of(0, |run| run.1),
    );
    println!(
        "  {name}: hits a second {} of that handler's, {} of uncached ({:.0}, {:.0}, {:.0})",
        spread(&ratios(2, 1, |run| run.0)),
        spread(&ratios(2, 3, |run| run.0)),
        of(2, |run| run.0),
        of(1, |run| run.0),
        of(3, |run| run.0),
    );
}

/// A new schema in a PostgreSQL database.
async fn create_schema(url: &str) -> Result<String, Box<dyn Error>> {
    let schema = format!("bench{}", Uuid::now_v7().simple());
    let made = Migration::new(schema.as_str(), 1, "schema", format!("CREATE SCHEMA {schema}"));
    Sql::connect(url).await?.storage().migrate(&[made], true).await?;
    Ok(format!("{url}?options=-c%20search_path%3D{schema}"))
}
