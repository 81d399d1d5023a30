//! An HTTP/1.1 client that costs little: one keep-alive connection, one request after the other.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection to a server of this machine.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer: its status and its body.
#[derive(Debug)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The status line and the header lines.
    pub head: Vec<u8>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Connection {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// Where nobody listens there.
    pub async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let buffer = Vec::with_capacity(64 * 1024);
        Ok(Self { stream, buffer })
    }

    /// Sends a request as it stands and reads the whole answer.
    pub async fn send(&mut self, request: &[u8]) -> io::Result<HttpResponse> {
        let (status, head) = self.exchange(request).await?;
        let body = self.buffer.split_off(head);
        let head = std::mem::take(&mut self.buffer);
        Ok(HttpResponse { status, head, body })
    }

    /// The same, without keeping the body.
    pub async fn status_of(&mut self, request: &[u8]) -> io::Result<u16> {
        let (status, _) = self.exchange(request).await?;
        self.buffer.clear();
        Ok(status)
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, usize)> {
        self.stream.write_all(request).await?;
        let mut parsed_head = None;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if parsed_head.is_none() {
                parsed_head = parse_head(&self.buffer)?;
            }
            if let Some((status, head, length)) = parsed_head
                && self.buffer.len() >= head + length
            {
                return Ok((status, head));
            }
        }
    }
}

/// The status, the length of the head and that of the body, once the head has come.
fn parse_head(buffer: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&buffer[..end]).map_err(io::Error::other)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok());
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok());
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some((status, end + 4, length))),
        _ => Err(io::Error::other(format!("no status or no length: {text}"))),
    }
}

/// What some connections saw in one run.
#[derive(Debug, Default)]
pub struct LoadResult {
    /// How long it took.
    pub seconds: f64,
    /// Of each request, in microseconds.
    pub latencies: Vec<u32>,
}

impl LoadResult {
    /// Requests a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }
}

/// Drives a server with so many connections for so long; any status but the expected one ends it.
pub async fn run_load(
    port: u16,
    connections: usize,
    duration: Duration,
    expected: u16,
    request: impl Fn(u64) -> Vec<u8> + Clone + Send + 'static,
    seed: u64,
) -> io::Result<LoadResult> {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(port).await?);
    }
    let began = Instant::now();
    let mut tasks = Vec::new();
    for (index, mut connection) in opened.into_iter().enumerate() {
        let request = request.clone();
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(seed ^ ((index as u64 + 1) << 32));
            let mut latencies = Vec::with_capacity(16 * 1024);
            while began.elapsed() < duration {
                let bytes = request(random.draw());
                let sent = Instant::now();
                let status = connection.status_of(&bytes).await?;
                if status != expected {
                    return Err(io::Error::other(format!("answered {status}, not {expected}")));
                }
                latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok(latencies)
        }));
    }
    let mut load = LoadResult::default();
    for task in tasks {
        load.latencies.extend(task.await.map_err(io::Error::other)??);
    }
    load.seconds = began.elapsed().as_secs_f64();
    Ok(load)
}

/// xorshift: the same draws on every machine, so that both servers are asked the same.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Draws that a seed begins.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next one.
    pub const fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
}
