//! The HTTP layer on axum: a request becomes a call of the engine, and its outcome a response.

mod app_state;
mod batch;
mod body;
mod body_memory;
mod bulk;
mod cache_groups;
mod cached;
mod conditional;
mod content_coding;
mod dry_run;
mod endpoint;
mod exact_numbers;
mod explain;
mod handler;
mod idempotency;
mod live;
mod prefer;
mod problem;
mod read;
mod request_context;
mod request_head;
mod request_parts;
mod response;
mod routes;
mod security_headers;
mod strict_json;
mod write;

pub(crate) use app_state::{AppState, Challenge};
pub(crate) use conditional::{CodedTags, coded_tag, is_not_modified};
pub(crate) use request_context::{Context, REQUEST_ID};
pub(crate) use response::head;

pub(crate) use batch::{BATCH_PATH, Batch, batch};
pub(crate) use body::BodyLimit;
pub(crate) use body_memory::BodyMemory;
pub(crate) use endpoint::{Body, Endpoint, Path};
pub(crate) use explain::{EXPLAIN_PATH, Question, explain};
pub(crate) use handler::original_uri;
pub(crate) use live::{EVENTS_PATH, Origins, SOCKET_PATH, SUBPROTOCOL, events, socket};
pub(crate) use problem::{DEFAULT_BASE, respond, status, title};
pub(crate) use request_parts::RequestParts;
pub(crate) use routes::{BufferedBody, GetBodyLength, Routes, call};
pub(crate) use security_headers::set_security_headers;
