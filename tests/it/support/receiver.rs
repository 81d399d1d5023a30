//! Somebody who is sent webhooks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use std::time::Duration;
use tokio::sync::Notify;

/// When it is plain that nothing comes any more.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Message {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Whether one of its signatures was made with this secret, as a receiver finds out.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).as_bytes());
        mac.update(&self.body);
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}

/// A server that notes what it is sent, and answers 204 or what it was told to.
#[derive(Clone)]
pub(crate) struct Receiver {
    address: String,
    received: Arc<Mutex<Vec<Message>>>,
    statuses: Arc<Mutex<HashMap<String, u16>>>,
    arrived: Arc<Notify>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let receiver =
            Self { address, received: Arc::default(), statuses: Arc::default(), arrived: Arc::default() };
        let at = receiver.clone();
        let router = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let at = at.clone();
            async move { at.receive(&uri, headers, body).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        receiver
    }

    async fn receive(&self, uri: &Uri, headers: HeaderMap, body: Bytes) -> (StatusCode, HeaderMap) {
        let path = uri.path().to_owned();
        self.received.lock().unwrap().push(Message { path: path.clone(), headers, body });
        self.arrived.notify_one();
        let status = self.statuses.lock().unwrap().get(&path).copied().unwrap_or(204);
        if status == 0 {
            std::future::pending::<()>().await;
        }
        let location = HeaderMap::from_iter([(header::LOCATION, "/elsewhere".parse().unwrap())]);
        (StatusCode::from_u16(status).unwrap(), location)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// Has a path answered so from now on; by 0 never.
    pub(crate) fn respond_with(&self, path: &str, status: u16) {
        self.statuses.lock().unwrap().insert(path.to_owned(), status);
    }

    /// Done when this many messages came to a path.
    pub(crate) async fn wait_for_messages(&self, path: &str, count: usize) {
        let came = || self.received.lock().unwrap().iter().filter(|message| message.path == path).count();
        while came() < count {
            tokio::time::timeout(TIMEOUT, self.arrived.notified()).await.expect("nothing comes");
        }
    }

    /// What came to a path, and is not to be looked at again.
    pub(crate) fn take_messages(&self, path: &str) -> Vec<Message> {
        let mut came = self.received.lock().unwrap();
        let (of_path, others) = came.drain(..).partition(|message| message.path == path);
        *came = others;
        of_path
    }
}
