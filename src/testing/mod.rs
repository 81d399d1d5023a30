//! Test support: runs an application in memory, without a port, and provides a small client.
//!
//! ```
//! use resourceful::prelude::*;
//! use resourceful::testing::TestApp;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
//! # struct Note { id: Uuid, text: String }
//! let notes = define_resource::<Note>("notes")
//!     .adapter(Memory::new().table("notes"))
//!     .permissions(Permissions::all(anyone()))
//!     .build()?;
//! let app = TestApp::build(create_app(AppPreset::Testing).resource(notes)).await?;
//!
//! let created = app.post("/notes").json(serde_json::json!({"text": "hello"})).await;
//! assert_eq!(created.status(), 201);
//! let item = app.get(created.header("location").unwrap()).await;
//! assert_eq!(item.json()["text"], "hello");
//! # Ok(()) }
//! ```

mod bulk_rewrite;
mod matrix;
mod request;
mod response;
mod socket;
mod stream;

use http::Method;

pub use matrix::{MatrixReport, PolicyMatrix, policy_matrix};
pub use request::TestRequest;
pub use response::TestResponse;
pub use socket::TestSocket;
pub use stream::{TestEvent, TestStream};

use crate::app::BuildError;
use crate::app::{App, AppBuilder};
use crate::outbox::Event;

/// The way that the requests of a test take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestMode {
    Direct,
    Bulk,
    Cache,
}

/// An application under test, which receives requests without a connection.
#[derive(Clone, Debug)]
pub struct TestApp {
    app: App,
    mode: TestMode,
}

impl TestApp {
    /// Builds an application for tests.
    ///
    /// # Errors
    /// The faults of the application's declaration.
    pub async fn build(builder: AppBuilder) -> Result<Self, BuildError> {
        builder.build().await.map(Self::of)
    }

    /// Wraps an application that is built already.
    #[must_use]
    pub const fn of(app: App) -> Self {
        Self { app, mode: TestMode::Direct }
    }

    /// The same application, with writes of single items sent through the bulk routes, where a resource has them, and
    /// responses converted to those of the single routes: for tests that hold for both.
    #[must_use]
    pub const fn through_bulk(mut self) -> Self {
        self.mode = TestMode::Bulk;
        self
    }

    /// The same application, with every read sent twice, so that tests see the second response: the cached one, where
    /// responses are cached.
    #[must_use]
    pub const fn through_cache(mut self) -> Self {
        self.mode = TestMode::Cache;
        self
    }

    /// The application itself.
    #[must_use]
    pub const fn app(&self) -> &App {
        &self.app
    }

    /// Every event in the outbox, in the order in which the storage recorded them.
    ///
    /// # Panics
    /// If a storage fails.
    pub async fn events(&self) -> Vec<Event> {
        self.app.state().engine.outbox.events().await.expect("the outbox can be read")
    }

    /// A request by any method, `QUERY` included.
    ///
    /// # Panics
    /// If the method is no token.
    pub fn request(&self, method: &str, path: &str) -> TestRequest {
        let method = Method::from_bytes(method.as_bytes()).expect("a method is a token");
        TestRequest::new(self.app.clone(), self.mode, method, path)
    }

    /// A GET request.
    pub fn get(&self, path: &str) -> TestRequest {
        self.request("GET", path)
    }

    /// A POST request.
    pub fn post(&self, path: &str) -> TestRequest {
        self.request("POST", path)
    }

    /// A PATCH request.
    pub fn patch(&self, path: &str) -> TestRequest {
        self.request("PATCH", path)
    }

    /// A PUT request.
    pub fn put(&self, path: &str) -> TestRequest {
        self.request("PUT", path)
    }

    /// A DELETE request.
    pub fn delete(&self, path: &str) -> TestRequest {
        self.request("DELETE", path)
    }
}
