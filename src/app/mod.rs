//! An application: resources behind one router, and its life from start to shutdown.

mod build;
mod builder;
mod front;
mod health;
mod lifecycle;
mod preset;
mod serve;

use std::fmt;
use std::sync::Arc;

use axum::Router;

use crate::engine::Loader;
use crate::error::Error;
use crate::http::Boundary;

pub use builder::{AppBuilder, create_app};
pub use preset::AppPreset;

use front::Front;
use lifecycle::Lifecycle;

/// A verified application: nest its [`router`](Self::router) anywhere, or [`serve`](Self::serve) it.
///
/// Two applications in one process share nothing but what they are both given. Cloning is cheap.
#[derive(Clone)]
pub struct App {
    front: Front,
    boundary: Arc<Boundary>,
    lifecycle: Arc<Lifecycle>,
}

impl App {
    /// The application as an axum router.
    ///
    /// Answers name their own address by the path that the client used, so nesting under a path works.
    pub fn router(&self) -> Router {
        Router::new().fallback_service(self.front.clone())
    }

    /// Starts to load existing rows, beside permissions and in one transaction: for seeds, imports and tests.
    #[must_use]
    pub fn load(&self) -> Loader<'_> {
        Loader::new(&self.boundary.engine)
    }

    /// The number of rows that a resource has.
    ///
    /// # Errors
    /// Where there is no such resource, or its storage fails.
    pub async fn count(&self, resource: &str) -> Result<u64, Error> {
        self.boundary.engine.count(resource).await
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.boundary.engine.catalog.entries().iter().map(|entry| entry.definition.name());
        f.debug_struct("App").field("resources", &names.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}
