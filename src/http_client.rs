//! Outbound HTTP requests of the application itself: bounded in time and size, and never redirected.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
#[cfg(feature = "jwt")]
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tower::Service;

/// Why there is no usable response.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Which addresses a client connects to.
#[cfg_attr(not(feature = "webhooks"), expect(dead_code, reason = "only users of webhooks name addresses"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressPolicy {
    /// All addresses: for URLs that the application's owner gave.
    Any,
    /// Addresses of the public Internet alone: for URLs that untrusted parties gave.
    Public,
}

/// An HTTP/1.1 client, with TLS by the root certificates that Mozilla trusts. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Client(hyper_util::client::legacy::Client<HttpsConnector<Dialer>, Full<Bytes>>);

impl Client {
    /// # Errors
    /// Where TLS cannot be set up.
    pub(crate) fn new(policy: AddressPolicy) -> Result<Self, Failure> {
        // The crypto provider is named here, so that no default is set for the whole process.
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(Dialer { policy });
        // Requests are rare: an idle connection would be dead before the next one.
        let builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self(builder))
    }

    /// Fetches the body at a URL.
    ///
    /// # Errors
    /// Where the response is late, too large, or anything but 200.
    #[cfg(feature = "jwt")]
    pub(crate) async fn get(&self, address: Uri, limit: usize, deadline: Duration) -> Result<Bytes, Failure> {
        let request = Request::get(address).body(Full::default())?;
        let read = async |response: http::Response<Incoming>| {
            if response.status() != StatusCode::OK {
                return Err(format!("it answered {}", response.status()).into());
            }
            Ok(Limited::new(response.into_body(), limit).collect().await?.to_bytes())
        };
        self.exchange(request, deadline, read).await
    }

    /// Sends a request and returns the status of the response, whose body is not read.
    ///
    /// # Errors
    /// Where no response arrives in time.
    #[cfg(feature = "webhooks")]
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Duration,
    ) -> Result<StatusCode, Failure> {
        self.exchange(request, deadline, async |response| Ok(response.status())).await
    }

    async fn exchange<T>(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Duration,
        read: impl AsyncFnOnce(http::Response<Incoming>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let result = async { read(self.0.request(request).await?).await };
        match tokio::time::timeout(deadline, result).await {
            Ok(result) => result,
            Err(_) => Err(format!("it did not answer within {deadline:?}").into()),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// A connector that resolves a name once and connects to the addresses that it found, so that the address that was
/// checked is the one that is used, whatever the name resolves to a moment later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialer {
    policy: AddressPolicy,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let policy = self.policy;
        Box::pin(async move {
            let host = host(&uri).ok_or("the address names no host")?;
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
            let addresses = resolve(host, port, policy).await?;
            let mut last: Failure = format!("`{host}` has no address").into();
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(TokioIo::new(stream));
                    }
                    Err(error) => last = format!("{address}: {error}").into(),
                }
            }
            Err(last)
        })
    }
}

/// The addresses of a name. Callers that may only name public addresses learn neither of other addresses nor which names
/// exist: the names of a private network stay private.
async fn resolve(host: &str, port: u16, policy: AddressPolicy) -> Result<Vec<SocketAddr>, Failure> {
    let addresses_found = tokio::net::lookup_host((host, port)).await.map(Vec::from_iter);
    if policy == AddressPolicy::Any {
        return Ok(addresses_found?);
    }
    match addresses_found {
        Ok(addresses_found)
            if !addresses_found.is_empty()
                && addresses_found.iter().all(|address| is_public(address.ip())) =>
        {
            Ok(addresses_found)
        }
        addresses_found => {
            tracing::debug!(host, ?addresses_found, "a name was refused");
            Err(format!("`{host}` has no address of the public Internet that could be found").into())
        }
    }
}

/// The host of an address, without the brackets of IPv6.
pub(crate) fn host(uri: &Uri) -> Option<&str> {
    uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']')).filter(|host| !host.is_empty())
}

/// Whether an address belongs to the public Internet (the IANA registries of special-purpose addresses, RFC 6890): not
/// this machine, not the network that it is in, and nothing that leads there.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol = (a, b, c) == (192, 0, 0);
    let is_benchmark = a == 198 && (b == 18 || b == 19);
    // The 6to4 relays, which are no longer operated.
    let is_relay = (a, b, c) == (192, 88, 99);
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || is_shared
        || is_protocol
        || is_benchmark
        || is_relay)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Addresses that embed an IPv4 address: mapped, translated (RFC 6052), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments (Teredo among them), documentation.
        [0x2001, 0..0x200 | 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        // The global unicast addresses that are assigned so far.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_purpose_addresses_are_not_public() {
        let public = ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "192.88.99.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "4000::1",
        ];
        for address in private {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn client_refuses_private_addresses_in_every_spelling() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = Client::new(AddressPolicy::Public).unwrap();
        // A name that does not exist is refused in the same words, so that callers do not learn which names exist.
        for host in [
            "127.0.0.1",
            "localhost",
            "[::ffff:127.0.0.1]",
            "2130706433",
            "0x7f000001",
            "127.1",
            "0",
            "nowhere.invalid",
        ] {
            let address: Uri = format!("http://{host}:{port}/").parse().unwrap();
            let request = Request::get(address).body(Full::default()).unwrap();
            let failure = client.0.request(request).await.unwrap_err();
            let message = format!("{failure:?}");
            let bare = host.trim_matches(['[', ']']);
            let expected = format!("`{bare}` has no address of the public Internet that could be found");
            assert!(message.contains(&expected), "{host}: {message}");
            assert!(!message.replace(&expected, "").contains("127.0.0.1"), "{host}: {message}");
        }
        let accepted = futures::FutureExt::now_or_never(listener.accept());
        assert!(accepted.is_none(), "nobody may have connected");
    }
}
