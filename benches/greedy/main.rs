//! What slow and greedy clients cost: the memory of the atlas example while a thousand connections are silent, two hundred
//! read nothing of large answers, and a hundred send the largest bodies; and whether it answers health checks meanwhile.
//!
//! ```console
//! $ cargo build --release -p atlas -p resourceful-benches --bins
//! $ target/release/greedy target/release/atlas
//! ```
//!
//! `--silent`, `--unread` and `--bodies` change the numbers, `--seconds` how long the clients stay, `--after` how long
//! the server then rests. Memory is read from
//! `/proc`, so Linux only. Both programs need as many open files (`ulimit -n`).

use std::env;
use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

type Outcome<T> = Result<T, Box<dyn Error>>;

const PORT: u16 = 39_471;
const TOKEN: &str = "greedy";
/// The largest body that the example takes.
const MAX_BODY: usize = 1 << 20;
/// How often memory and health are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// A large answer.
const LARGE_LIST: &str = "/countries?limit=200&include=cities";

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let number = |name: &str, otherwise: usize| {
        let given = arguments.iter().position(|argument| argument == name);
        given.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(otherwise)
    };
    let program = arguments.first().filter(|first| !first.starts_with("--")).ok_or("name the program")?;
    let folder = tempfile::tempdir()?;
    let mut server = Command::new(program)
        .env("PORT", PORT.to_string())
        .env("ATLAS_TOKEN", TOKEN)
        .env("DATABASE_URL", format!("sqlite://{}", folder.path().join("atlas.db").display()))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    wait_until_warm(&mut server).await?;
    let idle = server_memory(&server)?;
    println!("idle                      {:>6.1} MiB", mib(idle));

    let monitor = Arc::new(Monitor::default());
    // In a thread of its own: it does not wait for the other clients.
    let (process, monitoring) = (server.id().ok_or("no process")?, monitor.clone());
    let monitoring = std::thread::spawn(move || monitoring.run(process));
    let mut clients = JoinSet::new();
    for _ in 0..number("--silent", 1_000) {
        clients.spawn(async { hold(b"").await });
    }
    for client in 0..number("--unread", 200) {
        let accept = if client % 4 == 0 { "accept-encoding: br\r\n" } else { "" };
        let request = get(LARGE_LIST, accept).repeat(20);
        clients.spawn(async move { hold(request.as_bytes()).await });
    }
    let answered = Arc::new(AtomicUsize::new(0));
    for client in 0..number("--bodies", 100) {
        let (request, answered) = (largest_request(client), answered.clone());
        clients.spawn(async move {
            let status = request_status(&request).await?;
            answered.fetch_add(1, Ordering::Relaxed);
            print_status(client, status);
            Ok(())
        });
    }
    let seconds = number("--seconds", 40);
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let (most, held) = (monitor.peak.load(Ordering::Relaxed), server_memory(&server)?);
    println!("most                      {:>6.1} MiB ({:+.1})", mib(most), mib(most) - mib(idle));
    println!("after {seconds:>3} s               {:>6.1} MiB ({:+.1})", mib(held), mib(held) - mib(idle));
    println!("bodies answered           {:>6}", answered.load(Ordering::Relaxed));
    clients.shutdown().await;
    let rest = number("--after", 60);
    tokio::time::sleep(Duration::from_secs(rest as u64)).await;
    let after = server_memory(&server)?;
    println!(
        "{rest:>3} s later               {:>6.1} MiB ({:.2} of idle)",
        mib(after),
        mib(after) / mib(idle)
    );
    monitor.is_stopped.store(true, Ordering::Relaxed);
    monitoring.join().map_err(|_| "the health checks panicked")?;
    monitor.report();
    server.kill().await?;
    Ok(())
}

/// Waits until a program serves, and has answered large lists to several clients at once, so that its caches are full.
async fn wait_until_warm(server: &mut Child) -> Outcome<()> {
    while check_health().is_err() {
        if let Some(status) = server.try_wait()? {
            return Err(format!("the program ended: {status}").into());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        clients.spawn(async {
            for _ in 0..20 {
                request_status(&get(LARGE_LIST, "connection: close\r\n")).await?;
            }
            io::Result::Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// Says what became of the first bodies.
fn print_status(client: usize, status: u16) {
    if client < 4 {
        println!("body {client} was answered      {status:>6}");
    }
}

/// What is seen of a server from outside.
#[derive(Default)]
struct Monitor {
    peak: AtomicUsize,
    times: Mutex<Vec<Duration>>,
    failed: AtomicUsize,
    is_stopped: AtomicBool,
}

impl Monitor {
    fn report(&self) {
        let mut times = self.times.lock().map(|times| times.clone()).unwrap_or_default();
        times.sort_unstable();
        let slow = times.iter().filter(|took| **took >= Duration::from_millis(100)).count();
        let slowest = times.last().copied().unwrap_or_default();
        println!("slowest health check      {:>6.1} ms", slowest.as_secs_f64() * 1e3);
        println!("health checks             {:>6}, {slow} in 100 ms or more", times.len());
        println!("failed                    {:>6}", self.failed.load(Ordering::Relaxed));
    }

    fn run(&self, process: u32) {
        while !self.is_stopped.load(Ordering::Relaxed) {
            let began = Instant::now();
            match check_health() {
                Ok(200) => {}
                _ => _ = self.failed.fetch_add(1, Ordering::Relaxed),
            }
            if let Ok(mut times) = self.times.lock() {
                times.push(began.elapsed());
            }
            if let Ok(now) = resident_memory(process) {
                self.peak.fetch_max(now, Ordering::Relaxed);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

fn get(path: &str, header: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{header}\r\n")
}

/// A request with the largest body: countless empty branches, countless unknown fields, or one long list.
fn largest_request(client: usize) -> String {
    let fill = |begin: &str, each: &dyn Fn(usize) -> String, end: &str| {
        let mut body = begin.to_owned();
        let mut number = 0;
        while body.len() + 64 < MAX_BODY {
            body.push_str(&each(number));
            number += 1;
        }
        body.truncate(body.len() - 1);
        body.push_str(end);
        body
    };
    let (path, body) = match client % 4 {
        0 => ("/cities/query", fill(r#"{"filter":{"or":["#, &|_| "{},".to_owned(), "]}}")),
        1 => ("/cities/query", fill("{", &|number| format!("\"f{number}\":1,"), "}")),
        2 => ("/cities", fill(r#"{"name":["#, &|_| "\"a long enough text\",".to_owned(), "]}")),
        _ => (
            "/cities/query",
            fill(r#"{"filter":{"name":{"in":["#, &|number| format!("\"city {number}\","), "]}}}"),
        ),
    };
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Sends this and then neither reads nor ends.
async fn hold(request: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).await?;
    stream.write_all(request).await?;
    std::future::pending().await
}

/// Sends a request, and answers the status.
async fn request_status(request: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).await?;
    let (mut reader, mut writer) = stream.split();
    let read = async {
        let mut head = [0; 12];
        reader.read_exact(&mut head).await?;
        Ok(String::from_utf8_lossy(&head[9..]).parse().unwrap_or(0))
    };
    // An answer may come before all of the body is sent.
    let write = async {
        _ = writer.write_all(request.as_bytes()).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        status = read => status,
        () = write => Ok(0),
    }
}

fn check_health() -> io::Result<u16> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(String::from_utf8_lossy(&head[9..]).parse().unwrap_or(0))
}

fn server_memory(server: &Child) -> Outcome<usize> {
    Ok(resident_memory(server.id().ok_or("the program ended")?)?)
}

/// The bytes of memory that a process has (proc(5), `VmRSS`).
fn resident_memory(process: u32) -> io::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
