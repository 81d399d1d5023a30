//! Server-sent events (WHATWG HTML, 9.2).

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use uuid::Uuid;

use super::feed::{Feed, FeedItem};
use super::notification::Notice;

/// After how many milliseconds a disconnected client reconnects: so many, and up to as many more, so that not all clients
/// reconnect at once.
const RETRY_MS: u32 = 2_000;

/// A feed as a response.
pub(crate) fn sse_response(feed: Feed) -> Response {
    let frames = stream::unfold(feed, |mut feed| async move {
        let item = feed.next().await?;
        let frame = frame(&feed, item);
        Some((Ok::<_, std::convert::Infallible>(frame), feed))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // For proxies that would buffer the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn frame(feed: &Feed, item: FeedItem) -> Bytes {
    match item {
        FeedItem::Ready(position) => {
            let jitter =
                u64::from(Uuid::new_v4().as_fields().0) * u64::from(RETRY_MS) / (u64::from(u32::MAX) + 1);
            let retry = u64::from(RETRY_MS) + jitter;
            format!("retry: {retry}\nid: {position}\nevent: ready\ndata: {{}}\n\n").into()
        }
        FeedItem::Notice(notice, Some(position)) => event(&notice, &position),
        FeedItem::Notice(notice, None) => {
            notice.sse_frame.get_or_init(|| event(&notice, feed.shared_position(&notice))).clone()
        }
        FeedItem::Reset(position) => format!("id: {position}\nevent: reset\ndata: {{}}\n\n").into(),
        FeedItem::Heartbeat(position) => format!(":\nid: {position}\n\n").into(),
        FeedItem::Lagged => Bytes::from_static(b"event: lagged\ndata: {}\n\n"),
        FeedItem::End(reason) => format!("event: end\ndata: {{\"code\":\"{reason}\"}}\n\n").into(),
    }
}

fn event(notice: &Notice, position: &str) -> Bytes {
    let name = notice.event_name();
    let mut frame = Vec::with_capacity(position.len() + name.len() + notice.json.len() + 32);
    for part in ["id: ", position, "\nevent: ", name, "\ndata: "] {
        frame.extend_from_slice(part.as_bytes());
    }
    // JSON on one line: a line break would be another field.
    frame.extend_from_slice(&notice.json);
    frame.extend_from_slice(b"\n\n");
    frame.into()
}
