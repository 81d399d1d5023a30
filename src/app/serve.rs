//! Listening, and stopping in order: not ready, no new connections, the last answers, the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::sync::Notify;

use super::{App, server};
use crate::error::{Error, ErrorKind};

/// How many connections may wait to be accepted, where the system allows so many (`net.core.somaxconn`). Linux drops what
/// is beyond, and a client tries again after a second.
const BACKLOG: u32 = 4_096;
/// How long a storage may take to close after the last request: statements under way are abandoned then.
const CLOSING: Duration = Duration::from_secs(2);

impl App {
    /// Listens on an address, such as `127.0.0.1:3000`, and serves until SIGTERM or Ctrl-C.
    ///
    /// # Errors
    /// Where the address cannot be listened on, or accepting fails.
    pub async fn serve(self, address: impl AsRef<str>) -> Result<(), Error> {
        let address = address.as_ref();
        let listener = bind(address).await.map_err(|error| listen(address, error))?;
        self.serve_on(listener).await
    }

    /// Serves on a listener that is there already until SIGTERM or Ctrl-C.
    ///
    /// # Errors
    /// Where accepting fails.
    pub async fn serve_on(self, listener: TcpListener) -> Result<(), Error> {
        self.serve_until(listener, signal()).await
    }

    /// Serves until a future is done, then shuts down: readiness fails at once, connections are accepted for
    /// the drain delay more, and requests under way have the grace to end.
    ///
    /// # Errors
    /// Where accepting fails.
    pub async fn serve_until(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        let background = self.background();
        let lifecycle = self.lifecycle.clone();
        let closing = Arc::new(Notify::new());
        let closed = closing.clone();
        let stopping = {
            let (lifecycle, live) = (lifecycle.clone(), self.boundary.live.clone());
            async move {
                stop.await;
                lifecycle.drain();
                tracing::info!("shutting down");
                tokio::time::sleep(lifecycle.drain_delay).await;
                // A stream ends when it is told to: whoever waits for it would wait for ever.
                if let Some(live) = live {
                    live.hub.close();
                }
                closing.notify_one();
            }
        };
        let server = async {
            server::serve(listener, &self.front, &self.limits, stopping).await;
            // Sockets are connections no more: they are to be closed as sockets.
            if let Some(live) = &self.boundary.live {
                live.hub.left().await;
            }
        };
        let overdue = async move {
            closed.notified().await;
            tokio::time::sleep(lifecycle.shutdown_grace).await;
        };
        tokio::select! {
            () = server => {}
            () = overdue => tracing::warn!("requests were cut: they outlasted the shutdown grace"),
        }
        if tokio::time::timeout(CLOSING, background.stop()).await.is_err() {
            tracing::warn!("the work in the background did not stop in time");
        }
        self.leave().await;
        for entry in self.boundary.engine.catalog.entries() {
            match tokio::time::timeout(CLOSING, entry.storage.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "a storage did not close"),
                Err(late) => tracing::warn!(%late, "a storage did not close in time"),
            }
        }
        Ok(())
    }
}

/// Listens on the first address of a name that can be listened on.
async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A port whose last connections are still closing can be listened on; on Windows this would mean something else.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn listen(address: &str, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Listen,
        "listen",
        format!("Cannot listen on {address}: {error}. Is the port taken?"),
    )
    .with_source(error)
}

/// SIGTERM or Ctrl-C, whichever comes first.
async fn signal() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(error = format!("{error:#}"), "Ctrl-C is not heard");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => _ = terminate.recv().await,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "SIGTERM is not heard");
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
