//! Streams and sockets over HTTP: Server-Sent Events and WebSocket.

mod snapshot;
mod socket;
mod stream;
mod subscription;

pub(crate) use socket::{Origins, PROTOCOL, SOCKET, socket};
pub(crate) use stream::{EVENTS, events};
