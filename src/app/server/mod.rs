//! The application's own HTTP server: accepts connections, enforces their limits, and shuts them down gracefully.

mod connection;
mod io;
mod limits;
mod registry;
mod request_service;
mod response_body;

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

use super::middleware::AppService;
use io::TrackedStream;
use registry::Registry;
use request_service::ConnectionService;

pub(super) use connection::Connection;
pub use limits::ConnectionLimits;
pub(super) use response_body::try_reserve;

/// The maximum bytes of a request's head, and of a response in a connection's own buffer.
const MAX_BUFFER_BYTES: usize = 128 << 10;
/// The interval of HTTP/2 keep-alive pings, and the timeout for the reply.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// The HTTP/2 flow-control window of a connection, for request bodies that are not read yet; and of one stream.
const CONNECTION_WINDOW: u32 = 512 << 10;
const STREAM_WINDOW: u32 = 256 << 10;
/// How long accepting pauses where the system has no room for another connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How long a connection may then wait for its request before it is closed to make room for others.
const EVICTION_MIN_IDLE: Duration = Duration::from_millis(500);

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
                Err(error) if is_connection_error(&error) => {}
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
    service: &AppService,
    limits: &Arc<ConnectionLimits>,
    stop: impl Future<Output = ()>,
) {
    let registry = Arc::new(Registry::new(limits));
    // Each channel is closed when its other side is dropped: the connections learn that the server stops, the server that
    // the last connection has ended.
    let (stop_sender, stopping) = watch::channel(());
    let (all_ended, alive_token) = watch::channel(());
    let mut stop = pin!(stop);
    let begin = async |stream: TcpStream, address: SocketAddr| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY is not set");
        }
        let Some(connection) = registry.admit(address.ip()).await else { return };
        let connection_service = ConnectionService::new(service, &connection);
        let (stopping, alive_token, limits) = (stopping.clone(), alive_token.clone(), limits.clone());
        tokio::spawn(async move {
            serve_connection(stream, connection, connection_service, &limits, stopping).await;
            drop(alive_token);
        });
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_connection_error(&error) => continue,
            Err(error) => {
                // Most often there are too many open files: connections that wait for a request are closed to make room.
                registry.evict_idle(EVICTION_MIN_IDLE);
                registry.warn_limited(&format!("no connection is accepted for now: {error}"));
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        begin(stream, address).await;
    }
    for (stream, address) in listener.close() {
        begin(stream, address).await;
    }
    drop(stop_sender);
    drop((stopping, alive_token));
    all_ended.closed().await;
}

/// Whether this runtime has threads for other tasks while one of them is busy for long.
fn has_other_threads() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread
}

/// Whether accepting failed for one connection alone, which has gone in the meantime.
fn is_connection_error(error: &Error) -> bool {
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
async fn serve_connection(
    stream: TcpStream,
    connection: Arc<Connection>,
    connection_service: ConnectionService,
    limits: &ConnectionLimits,
    mut stopping: watch::Receiver<()>,
) {
    let builder = builder(limits);
    let mut draining = connection_service.service.draining();
    let io = TokioIo::new(TrackedStream::new(stream, connection.clone(), connection_service.service.clone()));
    let mut served =
        pin!(builder.serve_connection_with_upgrades(io, TowerToHyperService::new(connection_service)));
    let mut check_timer = pin!(tokio::time::sleep_until(connection.first_check(limits)));
    let (mut is_draining, mut is_stopping, mut is_going_away) = (false, false, false);
    loop {
        tokio::select! {
            outcome = served.as_mut() => {
                match outcome {
                    // A WebSocket continues without this task.
                    Ok(()) => connection.record_upgrade(),
                    Err(error) => tracing::trace!(%error, "a connection failed"),
                }
                return;
            }
            () = connection.closed() => {
                tracing::debug!(peer = %connection.peer, "a connection was closed to make room");
                return;
            }
            () = check_timer.as_mut() => match connection.check_limits(limits) {
                connection::LimitCheck::Close(reason) => {
                    tracing::debug!(peer = %connection.peer, reason, "a connection was closed");
                    return;
                }
                connection::LimitCheck::CheckAt(next) => {
                    // The protocol is only known from the first request.
                    let should_close = (is_draining || is_stopping) && !is_going_away;
                    if should_close && connection.is_http2() {
                        is_going_away = true;
                        served.as_mut().graceful_shutdown();
                    }
                    let soon = tokio::time::Instant::now() + connection::LINGER;
                    check_timer.as_mut().reset(if should_close && !is_going_away { next.min(soon) } else { next });
                }
            },
            // HTTP/1 announces with each response that the connection closes; HTTP/2 has GOAWAY (RFC 9113, 6.8).
            _ = draining.wait_for(|is_draining| *is_draining), if !is_draining => {
                is_draining = true;
                check_timer.as_mut().reset(tokio::time::Instant::now());
            }
            // The value never changes; the channel is closed.
            _ = stopping.changed(), if !is_stopping => {
                is_stopping = true;
                connection.mark_stopping();
                check_timer.as_mut().reset(tokio::time::Instant::now());
            }
        }
    }
}

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(MAX_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_send_buf_size(MAX_BUFFER_BYTES)
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

    use super::{ACCEPT_BACKOFF, Listen, serve};
    use crate::app::server::limits::ConnectionLimits;
    use crate::app::{AppPreset, create_app};

    /// Fails with too many open files, this many times before each connection.
    struct FailingListener {
        listener: TcpListener,
        failures: usize,
        accept_calls: AtomicUsize,
    }

    impl Listen for &FailingListener {
        async fn accept(&self) -> Result<(TcpStream, SocketAddr)> {
            if self.accept_calls.fetch_add(1, Ordering::SeqCst) % (self.failures + 1) < self.failures {
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
    async fn pending_connections_are_served_on_shutdown() {
        let app = create_app(AppPreset::Testing).build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Established by the system while the runtime, on this one thread, has polled for no events.
        let mut streams: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        for stream in &mut streams {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        }
        serve(listener, &app.service, &Arc::new(ConnectionLimits::new()), std::future::ready(())).await;
        for mut stream in streams {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }

    #[tokio::test]
    async fn accept_errors_are_retried_after_a_pause() {
        let app = create_app(AppPreset::Testing).build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let failing = FailingListener { listener, failures: 3, accept_calls: AtomicUsize::new(0) };
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
        serve(&failing, &app.service, &limits, ask).await;
        assert!(failing.accept_calls.load(Ordering::SeqCst) >= 12);
    }

    #[tokio::test]
    async fn persistent_accept_errors_do_not_busy_loop() {
        let app = create_app(AppPreset::Testing).build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let failing =
            FailingListener { listener, failures: usize::MAX - 1, accept_calls: AtomicUsize::new(0) };
        let limits = Arc::new(ConnectionLimits::new());
        let started_at = Instant::now();
        serve(&failing, &app.service, &limits, tokio::time::sleep(ACCEPT_BACKOFF * 5)).await;
        // However slowly this runs, it asks once a pause at most.
        let most = started_at.elapsed().as_millis() / ACCEPT_BACKOFF.as_millis() + 1;
        let asked = failing.accept_calls.load(Ordering::SeqCst);
        assert!(asked >= 2 && asked as u128 <= most, "asked {asked} times");
    }
}
