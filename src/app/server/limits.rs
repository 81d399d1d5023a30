//! Limits of the connections that an application's own server accepts.

use std::time::Duration;

/// The default maximum number of connections, where the system allows for as many.
const DEFAULT_MAX_CONNECTIONS: usize = 25_000;

/// Limits of connections: how many there may be, how long they may be inactive, how much memory they may hold.
///
/// They apply to [`App::serve`](crate::App::serve) and its variants. Where the [router](crate::App::router) is served by
/// another server, that server's own limits apply.
///
/// ```
/// use std::time::Duration;
/// use resourceful::prelude::*;
/// use resourceful::app::ConnectionLimits;
///
/// # let _ =
/// create_app(AppPreset::Production)
///     .connection_limits(ConnectionLimits::new().max_connections(5_000).idle_timeout(Duration::from_secs(120)))
/// # ;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ConnectionLimits {
    pub(super) max_connections: Option<usize>,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(in crate::app) body_timeout: Duration,
    pub(super) max_concurrent_streams: u32,
    pub(super) max_response_bytes: usize,
    pub(in crate::app) max_body_bytes: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl ConnectionLimits {
    /// The defaults, as documented at each setting.
    pub const fn new() -> Self {
        Self {
            max_connections: None,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            max_concurrent_streams: 100,
            max_response_bytes: 64 << 20,
            max_body_bytes: 16 << 20,
        }
    }

    /// The maximum number of connections at once, sockets and streams included. By default 25,000, or as many as the
    /// open-file limit of the process (`ulimit -n`, read on Linux) leaves beside a reserve for databases and files.
    ///
    /// A further connection replaces the one that has sent no request for the longest, then one that is idle between
    /// requests. Where all of them are busy, a few more are accepted to answer health checks: any other request on them
    /// gets 503.
    pub const fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(if connections == 0 { 1 } else { connections });
        self
    }

    /// The timeout of a request head: from the beginning of a connection, or from the first byte of a later request; 10 s
    /// by default. The connection is then closed. The preface of HTTP/2 counts as a head.
    pub const fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// The idle timeout between two requests; 75 s by default, which is longer than most proxies keep a connection.
    pub const fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The write timeout: how long a client may take none of the bytes that wait for it; 30 s by default. The connection
    /// is then closed.
    pub const fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// The read timeout of a body: how long a client may send nothing of a request body that it has begun; 10 s by
    /// default. The request then gets 408. It applies to resources and batches, under another server too.
    pub const fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// The maximum number of concurrent requests on one HTTP/2 connection; 100 by default.
    pub const fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.max_concurrent_streams = if streams == 0 { 1 } else { streams };
        self
    }

    /// The maximum bytes of large responses (of more than 16 KiB) that clients have not taken yet, of all connections
    /// together; 64 MiB by default. Where a further response does not fit, the connection that has held its responses for
    /// the longest is closed, and the request gets 503 with `Retry-After` if it was safe (RFC 9110, 9.2.1). The response
    /// to a change is always sent. What a merged route generates while it is sent, such as a file, is not counted.
    pub const fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// The maximum bytes of large request bodies (of more than 16 KiB) that are held at once, of all requests together;
    /// 16 MiB by default. A body that does not fit gets 503 with `Retry-After`. It applies to resources and batches,
    /// under another server too; merged routes read their bodies themselves.
    pub const fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// The shortest of the timeouts.
    pub(super) fn shortest(&self) -> Duration {
        self.header_timeout.min(self.idle_timeout).min(self.write_timeout)
    }

    /// The maximum number of connections, and of additional ones for health checks.
    pub(super) fn capacity(&self) -> (usize, usize) {
        let files = open_files();
        let max = self.max_connections.unwrap_or_else(|| {
            files.map_or(DEFAULT_MAX_CONNECTIONS, |files| connections_for(files).min(DEFAULT_MAX_CONNECTIONS))
        });
        (max, (max / 16).clamp(4, 256))
    }
}

/// How many connections an open-file limit leaves room for: beside databases, files, and connections for health checks.
fn connections_for(files: usize) -> usize {
    let reserve = (files / 4).clamp(32, 512);
    files.saturating_sub(reserve).max(1)
}

/// The open-file limit of the process, where the system reports it.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    soft_limit(&limits)
}

/// The soft limit in the text of `/proc/self/limits` (proc(5)); none where it is `unlimited`.
fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{ConnectionLimits, connections_for, soft_limit};

    #[test]
    fn connection_limit_leaves_file_descriptors_for_other_uses() {
        let limits = "Limit    Soft Limit   Hard Limit   Units\nMax processes  95  95  processes\n\
                      Max open files            200                  1048576              files     \n";
        assert_eq!(soft_limit(limits), Some(200));
        assert_eq!(soft_limit("Max open files  unlimited  unlimited  files"), None);
        assert_eq!(soft_limit(""), None);
        for files in [1, 40, 200, 1_024, 65_536, 1 << 30] {
            let max = connections_for(files);
            assert!(max >= 1 && (files < 40 || max < files), "{files}: {max}");
        }
        // With those for health checks, and as many again for everything else.
        let (max, extra) = ConnectionLimits::new().max_connections(connections_for(200)).capacity();
        assert!(max + extra + 32 < 200, "{max} + {extra}");
    }
}
