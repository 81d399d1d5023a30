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
const RETRY: u32 = 2_000;

/// A feed as a response.
pub(crate) fn response(feed: Feed) -> Response {
    let frames = stream::unfold(feed, |mut feed| async move {
        let said = feed.next().await?;
        let frame = frame(&feed, said);
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

fn frame(feed: &Feed, said: FeedItem) -> Bytes {
    match said {
        FeedItem::Ready(place) => {
            let more = u64::from(Uuid::new_v4().as_fields().0) * u64::from(RETRY) / (u64::from(u32::MAX) + 1);
            let retry = u64::from(RETRY) + more;
            format!("retry: {retry}\nid: {place}\nevent: ready\ndata: {{}}\n\n").into()
        }
        FeedItem::Notice(notice, Some(place)) => event(&notice, &place),
        FeedItem::Notice(notice, None) => {
            notice.sent.get_or_init(|| event(&notice, feed.place_of(&notice))).clone()
        }
        FeedItem::Reset(place) => format!("id: {place}\nevent: reset\ndata: {{}}\n\n").into(),
        FeedItem::Beat(place) => format!(":\nid: {place}\n\n").into(),
        FeedItem::Lagged => Bytes::from_static(b"event: lagged\ndata: {}\n\n"),
        FeedItem::End(why) => format!("event: end\ndata: {{\"code\":\"{why}\"}}\n\n").into(),
    }
}

fn event(notice: &Notice, place: &str) -> Bytes {
    let name = notice.name();
    let mut frame = Vec::with_capacity(place.len() + name.len() + notice.json.len() + 32);
    for part in ["id: ", place, "\nevent: ", name, "\ndata: "] {
        frame.extend_from_slice(part.as_bytes());
    }
    // JSON on one line: a line break would be another field.
    frame.extend_from_slice(&notice.json);
    frame.extend_from_slice(b"\n\n");
    frame.into()
}
