//! Listening, and graceful shutdown: not ready, no new connections, the last responses, the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::sync::Notify;

use super::{App, server};
use crate::error::{Error, ErrorKind};

/// The listen backlog: how many connections may wait to be accepted, where the system allows so many
/// (`net.core.somaxconn`). Linux drops connections beyond it, and a client tries again after a second.
const BACKLOG: u32 = 4_096;
/// How long a storage may take to close after the last request: statements under way are then abandoned.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl App {
    /// Listens on an address, such as `127.0.0.1:3000`, and serves until SIGTERM or Ctrl-C.
    ///
    /// # Errors
    /// Where the address cannot be listened on, or accepting fails.
    pub async fn serve(self, address: impl AsRef<str>) -> Result<(), Error> {
        let listener = bind_boxed(address.as_ref().to_owned()).await?;
        self.serve_on(listener).await
    }

    /// Serves on an existing listener until SIGTERM or Ctrl-C.
    ///
    /// # Errors
    /// Where accepting fails.
    pub async fn serve_on(self, listener: TcpListener) -> Result<(), Error> {
        self.serve_boxed(listener, Box::pin(shutdown_signal())).await
    }

    /// Serves until a future completes, then shuts down gracefully: readiness fails at once, connections are still
    /// accepted during the drain delay, and requests under way have the shutdown grace to end.
    ///
    /// # Errors
    /// Where accepting fails.
    pub async fn serve_until(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        self.serve_boxed(listener, Box::pin(stop)).await
    }

    /// Boxed here, so that the crate of the application does not compile the server again.
    #[inline(never)]
    fn serve_boxed(
        self,
        listener: TcpListener,
        stop: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(self.run(listener, stop))
    }

    async fn run(self, listener: TcpListener, stop: BoxFuture<'static, ()>) -> Result<(), Error> {
        if self.development.has_banner
            && let Ok(address) = listener.local_addr()
        {
            eprint!("{}", self.banner(address).await);
        }
        let background = self.background();
        let lifecycle = self.lifecycle.clone();
        let closing = Arc::new(Notify::new());
        let closed = closing.clone();
        let stopping = {
            let (lifecycle, live) = (lifecycle.clone(), self.state.live.clone());
            async move {
                stop.await;
                lifecycle.drain();
                tracing::info!("shutting down");
                tokio::time::sleep(lifecycle.drain_delay).await;
                // Streams end only when they are closed; waiting for them would never end.
                if let Some(live) = live {
                    live.hub.close();
                }
                closing.notify_one();
            }
        };
        let server = async {
            server::serve(listener, &self.service, &self.limits, stopping).await;
            // WebSockets are no longer connections of the server after their upgrade: they are closed separately.
            if let Some(live) = &self.state.live {
                live.hub.wait_until_drained().await;
            }
        };
        let grace_elapsed = async move {
            closed.notified().await;
            tokio::time::sleep(lifecycle.shutdown_grace).await;
        };
        tokio::select! {
            () = server => {}
            () = grace_elapsed => tracing::warn!("requests were cut: they outlasted the shutdown grace"),
        }
        if tokio::time::timeout(CLOSE_TIMEOUT, background.stop()).await.is_err() {
            tracing::warn!("the work in the background did not stop in time");
        }
        self.release_leases().await;
        for entry in self.state.engine.catalog.entries() {
            match tokio::time::timeout(CLOSE_TIMEOUT, entry.storage.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "a storage did not close"),
                Err(elapsed) => tracing::warn!(%elapsed, "a storage did not close in time"),
            }
        }
        Ok(())
    }
}

#[inline(never)]
fn bind_boxed(address: String) -> BoxFuture<'static, Result<TcpListener, Error>> {
    Box::pin(async move { bind(&address).await.map_err(|error| listen_error(&address, error)) })
}

/// Listens on the first address of a name that can be bound.
async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Allows a port whose last connections are still closing; on Windows the option means something else.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn listen_error(address: &str, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Listen,
        "listen",
        format!("Cannot listen on {address}: {error}. Is the port taken?"),
    )
    .with_source(error)
}

/// Completes on SIGTERM or Ctrl-C, whichever comes first.
async fn shutdown_signal() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(error = format!("{error:#}"), "the handler of Ctrl-C could not be installed");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => _ = terminate.recv().await,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the handler of SIGTERM could not be installed");
                std::future::pending::<()>().await;
            }
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
