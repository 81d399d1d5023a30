//! The axum boundary: a request becomes a call of the engine, and its outcome an answer.

mod answer;
mod batch;
mod bodies;
mod body;
mod boundary;
mod bulk;
mod claims;
mod coding;
mod conditional;
mod context;
mod dispatch;
mod dry_run;
mod endpoint;
mod explain;
mod groups;
mod head;
mod idempotency;
mod incoming;
mod inert;
mod numbers;
mod prefer;
mod problem;
mod remembered;
mod routes;
mod snapshot;
mod socket;
mod stream;
mod strict;

pub(crate) use answer::head;
pub(crate) use boundary::{Boundary, Challenge};
pub(crate) use conditional::{CodedTags, is_known, tag_coded};
pub(crate) use context::{Context, REQUEST_ID};

pub(crate) use batch::{BATCH, Batch, batch};
pub(crate) use bodies::Bodies;
pub(crate) use body::BodyLimit;
pub(crate) use dispatch::original;
pub(crate) use endpoint::{Body, Endpoint, Path};
pub(crate) use explain::{EXPLAIN, Question, explain};
pub(crate) use incoming::Incoming;
pub(crate) use inert::inert;
pub(crate) use problem::{DEFAULT_BASE, respond, status, title};
pub(crate) use routes::{HeadOf, Routes, Whole, call};
pub(crate) use socket::{Origins, PROTOCOL, SOCKET, socket};
pub(crate) use stream::{EVENTS, events};
