//! Streams and sockets over HTTP: Server-Sent Events and WebSocket.

mod snapshot;
mod socket;
mod stream;
mod subscription;

pub(crate) use socket::{Origins, SOCKET_PATH, SUBPROTOCOL, socket};
pub(crate) use stream::{EVENTS_PATH, events};
