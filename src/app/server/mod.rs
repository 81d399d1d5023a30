//! The application's own HTTP server: accepts connections, enforces their limits, and shuts them down gracefully.

mod answer;
mod connection;
mod io;
mod limits;
mod registry;
mod service;

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use super::service::AppService;
use io::Io;
use registry::Registry;
use service::ConnectionService;

pub(super) use answer::has_room;
pub(super) use connection::Connection;
pub use limits::ConnectionLimits;

/// The maximum bytes of a request's head, and of a response in a connection's own buffer.
const BUFFER: usize = 128 << 10;
/// The interval of HTTP/2 keep-alive pings, and the timeout for the reply.
const PING: Duration = Duration::from_secs(20);
/// The HTTP/2 flow-control window of a connection, for request bodies that are not read yet; and of one stream.
const WINDOW: u32 = 512 << 10;
const STREAM_WINDOW: u32 = 256 << 10;
/// How long accepting pauses where the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a connection may then wait for its request before it is closed to make room for others.
const PATIENCE: Duration = Duration::from_millis(500);

/// A source of connections.
pub(super) trait Listen {
    /// The next connection.
    fn accept(&self) -> impl Future<Output = Result<(TcpStream, SocketAddr)>> + Send;

    /// Closes the listener, and returns the connections that the system has established and nothing has accepted.
    fn close(self) -> Vec<(TcpStream, SocketAddr)>;
}

impl Listen for TcpListener {
    async fn accept(&self) -> Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }

    /// Asks the system and not the runtime, which learns of a connection only when it next polls for events. A connection
    /// that is missed here is reset with the listener, and its request with it.
    fn close(self) -> Vec<(TcpStream, SocketAddr)> {
        let Ok(listener) = self.into_std() else { return Vec::new() };
        let mut established = Vec::new();
        loop {
            match listener.accept() {
                Ok(accepted) => established.push(accepted),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => break,
            }
        }
        drop(listener);
        let to_runtime = |(stream, address): (std::net::TcpStream, SocketAddr)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, address))
        };
        established.into_iter().filter_map(|accepted| Result::ok(to_runtime(accepted))).collect()
    }
}

/// Serves connections until `stop` completes and the last of them has ended.
pub(super) async fn serve(
    listener: impl Listen,
    front: &AppService,
    limits: &Arc<ConnectionLimits>,
    stop: impl Future<Output = ()>,
) {
    let registry = Arc::new(Registry::new(limits));
    // Each channel is closed when its other side is dropped: the connections learn that the server stops, the server that
    // the last connection has ended.
    let (stops, stopping) = watch::channel(());
    let (ended, ends) = watch::channel(());
    let mut stop = pin!(stop);
    let begin = async |stream: TcpStream, address: SocketAddr| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY is not set");
        }
        let Some(connection) = registry.admit(address.ip()).await else { return };
        let entry = ConnectionService::new(front, &connection);
        let (stopping, ends, limits) = (stopping.clone(), ends.clone(), limits.clone());
        tokio::spawn(async move {
            attend(stream, connection, entry, &limits, stopping).await;
            drop(ends);
        });
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                // Most often there are too many open files: connections that wait for a request are closed to make room.
                registry.make_room(PATIENCE);
                registry.say(&format!("no connection is accepted for now: {error}"));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        begin(stream, address).await;
    }
    for (stream, address) in listener.close() {
        begin(stream, address).await;
    }
    drop(stops);
    drop((stopping, ends));
    ended.closed().await;
}

/// Whether this runtime has threads for other tasks while one of them is busy for long.
fn has_other_threads() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread
}

/// Whether accepting failed for one connection alone, which has gone in the meantime.
fn is_of_one_connection(error: &Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

/// Serves one connection, within its limits.
async fn attend(
    stream: TcpStream,
    connection: Arc<Connection>,
    entry: ConnectionService,
    limits: &ConnectionLimits,
    mut stopping: watch::Receiver<()>,
) {
    let builder = builder(limits);
    let mut draining = entry.front.draining();
    let io = TokioIo::new(Io::new(stream, connection.clone(), entry.front.clone()));
    let mut served = pin!(builder.serve_connection_with_upgrades(io, TowerToHyperService::new(entry)));
    let mut look = pin!(tokio::time::sleep_until(connection.first_look(limits)));
    let (mut is_draining, mut is_stopping, mut is_sent_away) = (false, false, false);
    loop {
        tokio::select! {
            outcome = served.as_mut() => {
                match outcome {
                    // A WebSocket continues without this task.
                    Ok(()) => connection.became_socket(),
                    Err(error) => tracing::trace!(%error, "a connection failed"),
                }
                return;
            }
            () = connection.closed() => {
                tracing::debug!(peer = %connection.peer, "a connection was closed to make room");
                return;
            }
            () = look.as_mut() => match connection.verdict(limits) {
                connection::Verdict::Close(why) => {
                    tracing::debug!(peer = %connection.peer, why, "a connection was closed");
                    return;
                }
                connection::Verdict::Until(next) => {
                    // The protocol is only known from the first request.
                    let leaves = (is_draining || is_stopping) && !is_sent_away;
                    if leaves && connection.is_http2() {
                        is_sent_away = true;
                        served.as_mut().graceful_shutdown();
                    }
                    let soon = tokio::time::Instant::now() + connection::LINGER;
                    look.as_mut().reset(if leaves && !is_sent_away { next.min(soon) } else { next });
                }
            },
            // HTTP/1 announces with each response that the connection closes; HTTP/2 has GOAWAY (RFC 9113, 6.8).
            _ = draining.wait_for(|is_draining| *is_draining), if !is_draining => {
                is_draining = true;
                look.as_mut().reset(tokio::time::Instant::now());
            }
            // The value never changes; the channel is closed.
            _ = stopping.changed(), if !is_stopping => {
                is_stopping = true;
                connection.stop();
                look.as_mut().reset(tokio::time::Instant::now());
            }
        }
    }
}

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_send_buf_size(BUFFER)
        // For WebSockets over HTTP/2 (RFC 8441).
        .enable_connect_protocol();
    builder
}

#[cfg(test)]
mod tests {
    use std::io::{Error, Read as _, Result, Write as _};
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{Listen, PAUSE, serve};
    use crate::app::server::limits::ConnectionLimits;
    use crate::app::{AppPreset, create_app};

    /// Fails with too many open files, this many times before each connection.
    struct Failing {
        listener: TcpListener,
        failures: usize,
        asked: AtomicUsize,
    }

    impl Listen for &Failing {
        async fn accept(&self) -> Result<(TcpStream, SocketAddr)> {
            if self.asked.fetch_add(1, Ordering::SeqCst) % (self.failures + 1) < self.failures {
                // EMFILE
                return Err(Error::from_raw_os_error(24));
            }
            self.listener.accept().await
        }

        fn close(self) -> Vec<(TcpStream, SocketAddr)> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn connections_that_wait_to_be_accepted_are_answered_when_the_server_stops() {
        let app = create_app(AppPreset::Testing).build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Established by the system while the runtime, on this one thread, has polled for no events.
        let mut streams: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        for stream in &mut streams {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        }
        serve(listener, &app.front, &Arc::new(ConnectionLimits::new()), std::future::ready(())).await;
        for mut stream in streams {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }

    #[tokio::test]
    async fn accepting_goes_on_after_failures_and_rests_between_them() {
        let app = create_app(AppPreset::Testing).build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let failing = Failing { listener, failures: 3, asked: AtomicUsize::new(0) };
        let limits = Arc::new(ConnectionLimits::new());
        let ask = async {
            for _ in 0..3 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        };
        serve(&failing, &app.front, &limits, ask).await;
        assert!(failing.asked.load(Ordering::SeqCst) >= 12);
    }

    #[tokio::test]
    async fn an_accept_that_fails_for_long_is_no_busy_loop() {
        let app = create_app(AppPreset::Testing).build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let failing = Failing { listener, failures: usize::MAX - 1, asked: AtomicUsize::new(0) };
        let limits = Arc::new(ConnectionLimits::new());
        let began = Instant::now();
        serve(&failing, &app.front, &limits, tokio::time::sleep(PAUSE * 5)).await;
        // However slowly this runs, it asks once a pause at most.
        let most = began.elapsed().as_millis() / PAUSE.as_millis() + 1;
        let asked = failing.asked.load(Ordering::SeqCst);
        assert!(asked >= 2 && asked as u128 <= most, "asked {asked} times");
    }
}
