//! Requests that the application itself makes: bounded in time and size, and never redirected.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Why there is no answer to use.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A client over HTTP/1.1, with TLS by the roots that Mozilla trusts. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Client(hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl Client {
    /// # Errors
    /// Where TLS cannot be set up.
    pub(crate) fn new() -> Result<Self, Failure> {
        // The provider is named here, so that nothing is set for the whole process.
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .build();
        // Requests are rare: a connection that waits for the next one would be dead by then.
        let builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self(builder))
    }

    /// The body at an address.
    ///
    /// # Errors
    /// Where the answer is late, large, or anything but 200.
    pub(crate) async fn get(&self, address: Uri, limit: usize, deadline: Duration) -> Result<Bytes, Failure> {
        let request = async {
            let answer = self.0.get(address).await?;
            if answer.status() != http::StatusCode::OK {
                return Err(format!("it answered {}", answer.status()).into());
            }
            Ok(Limited::new(answer.into_body(), limit).collect().await?.to_bytes())
        };
        match tokio::time::timeout(deadline, request).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("it did not answer within {deadline:?}").into()),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}
