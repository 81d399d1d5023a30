//! Content codings of request bodies (RFC 9110, 8.4).

use std::io::{self, Read};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::body::too_large;
use crate::error::{Error, ErrorKind, Fault};

/// The content coding of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Brotli,
}

/// The header of a 415 that names the supported codings (RFC 9110, 12.5.3).
pub(super) const ACCEPTED_CODINGS: (HeaderName, HeaderValue) =
    (ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));

impl Coding {
    /// The coding that `Content-Encoding` names.
    ///
    /// # Errors
    /// If it is none of these, or several were applied.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return if headers.contains_key(CONTENT_ENCODING) {
                Err(unsupported())
            } else {
                Ok(Self::Identity)
            };
        };
        let is = |name: &str| value.as_bytes().trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        // `x-gzip` is the same (RFC 9110, 8.4.1.3).
        if is("gzip") || is("x-gzip") {
            Ok(Self::Gzip)
        } else if is("br") {
            Ok(Self::Brotli)
        } else if is("identity") || is("") {
            Ok(Self::Identity)
        } else {
            Err(unsupported())
        }
    }

    /// The decoded bytes, at most `limit` of them.
    ///
    /// # Errors
    /// If there are more, or the bytes are not in this coding.
    pub(super) fn decode(self, bytes: Bytes, limit: usize) -> Result<Bytes, Error> {
        match self {
            Self::Identity => Ok(bytes),
            Self::Gzip => decode_limited("gzip", flate2::read::MultiGzDecoder::new(&bytes[..]), limit),
            // The decoder allocates the window that the body declares. Windows of more than 16 MiB are not part of RFC
            // 7932.
            Self::Brotli if bytes.first().is_some_and(|first| first & 0x7f == LARGE_WINDOW) => {
                Err(malformed("br", &io::Error::other("its window is larger than 16 MiB")))
            }
            Self::Brotli => {
                let buffer = BUFFER_SIZE.min(bytes.len()).max(1);
                decode_limited("br", brotli_decompressor::Decompressor::new(&bytes[..], buffer), limit)
            }
        }
    }
}

/// The start of a brotli body whose window is larger than RFC 7932 allows: the value that it reserves.
const LARGE_WINDOW: u8 = 0x11;

/// The error code for a body in an unsupported coding.
pub(super) const UNSUPPORTED_CODING: &str = "unsupported-content-encoding";

/// How many coded bytes are read at once.
const BUFFER_SIZE: usize = 4 << 10;

fn decode_limited(name: &str, decoder: impl Read, limit: usize) -> Result<Bytes, Error> {
    let mut decoded = Vec::new();
    // One byte more distinguishes a body that is too large from one that just fits.
    let read = decoder.take(limit as u64 + 1).read_to_end(&mut decoded);
    read.map_err(|error| malformed(name, &error))?;
    if decoded.len() > limit { Err(too_large(limit)) } else { Ok(decoded.into()) }
}

fn unsupported() -> Error {
    let detail = "A body may be coded by gzip or br, once, or not at all.";
    Error::new(ErrorKind::UnsupportedMediaType, UNSUPPORTED_CODING, detail).with_faults(vec![Fault::header(
        "Content-Encoding",
        "value",
        detail,
    )])
}

fn malformed(name: &str, error: &io::Error) -> Error {
    let detail = format!("The body is not coded by {name}, which Content-Encoding names: {error}.");
    let fault = Fault::header("Content-Encoding", "syntax", detail.clone());
    Error::new(ErrorKind::BadRequest, "invalid-content-encoding", detail).with_faults(vec![fault])
}
