//! The axum boundary: a request becomes a call of the engine, and its outcome an answer.

mod answer;
mod body;
mod conditional;
mod context;
mod dispatch;
mod endpoint;
mod prefer;
mod problem;
mod routes;

pub(crate) use conditional::is_known;
pub(crate) use context::{Context, REQUEST_ID};
pub(crate) use dispatch::Boundary;
pub(crate) use endpoint::{Body, Endpoint, Path};
pub(crate) use problem::{DEFAULT_BASE, respond, status, title};
pub(crate) use routes::{Routes, call};
