//! Conditional requests (RFC 9110, 13): entity tags of responses, and preconditions of requests.
//!
//! An item's tag is its version, and for a part of an item also the part's name: `"7"`, `"7.9mF…"`. Changes compare the
//! version alone, so a tag from any response about the item is valid.
//!
//! A content coding is another representation, so its strong tag is another one (RFC 9110, 8.8.3.3): `"7-gzip"`. No tag
//! of this library ends so by itself: the last character of 16 bytes in base64url is one of `A`, `Q`, `g`, `w`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};
use resourceful_contract::Version;

use crate::engine::{Expected, Item};
use crate::error::{Error, ErrorKind, Fault};

/// The strong entity tag of an item as it is sent.
pub(super) fn strong_tag(item: &Item) -> HeaderValue {
    let mut tag = Vec::with_capacity(48);
    tag.push(b'"');
    match item.version {
        Version::Counter(counter) => tag.extend_from_slice(itoa::Buffer::new().format(counter).as_bytes()),
        Version::Digest(digest) => {
            tag.push(b'd');
            tag.extend_from_slice(URL_SAFE_NO_PAD.encode(digest).as_bytes());
        }
    }
    if let Some(part) = &item.part {
        tag.push(b'.');
        tag.extend_from_slice(URL_SAFE_NO_PAD.encode(part.0).as_bytes());
    }
    tag.push(b'"');
    HeaderValue::from_bytes(&tag).expect("digits and base64url are visible ASCII")
}

/// The weak entity tag of a list: a digest of its JSON.
pub(super) fn weak_tag(json: &[u8]) -> HeaderValue {
    let digest = blake3::hash(json);
    let tag = format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&digest.as_bytes()[..16]));
    HeaderValue::from_str(&tag).expect("base64url is visible ASCII")
}

/// Whether `If-None-Match` names this tag, by weak comparison, so that the client has the response already.
pub(crate) fn is_not_modified(headers: &HeaderMap, tag: &HeaderValue) -> Result<bool, Error> {
    Ok(match parse_tags(headers, IF_NONE_MATCH, "If-None-Match")? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::List(tags)) => tags.iter().any(|known| opaque(known) == opaque(tag.as_bytes())),
    })
}

/// The expectation of `If-Match` on the item that is to be changed.
pub(super) fn parse_if_match(headers: &HeaderMap) -> Result<Option<Expected>, Error> {
    Ok(parse_tags(headers, IF_MATCH, "If-Match")?.map(|tags| match tags {
        Tags::Any => Expected::Any,
        Tags::List(tags) => {
            // Strong comparison: a weak tag equals nothing (RFC 9110, 13.1.1).
            let is_weak = |tag: &[u8]| tag.starts_with(b"W/");
            let versions =
                tags.iter().filter(|tag| !is_weak(tag)).filter_map(|tag| parse_version(tag)).collect();
            Expected::OneOf { versions, has_weak: tags.iter().any(|tag| is_weak(tag)) }
        }
    }))
}

/// Refuses `If-Match` on a request without a single item that it could apply to.
///
/// # Errors
/// If the header is present.
pub(super) fn reject_if_match(headers: &HeaderMap, detail: &'static str) -> Result<(), Error> {
    if headers.contains_key(IF_MATCH) {
        let fault = Fault::header("If-Match", "unknown", detail);
        return Err(Error::new(ErrorKind::BadRequest, "invalid-header", detail).with_faults(vec![fault]));
    }
    Ok(())
}

/// The tags with content codings in `If-None-Match`, which caches received from [`coded_tag`].
#[derive(Debug)]
pub(crate) struct CodedTags(Vec<HeaderValue>);

impl CodedTags {
    /// Removes the codings from the request's tags, so that handlers behind the compression compare their own tags.
    pub(crate) fn strip_codings(headers: &mut HeaderMap) -> Option<Self> {
        let may_be_coded =
            |value: &HeaderValue| value.as_bytes().windows(2).any(|bytes| matches!(bytes, b"p\"" | b"r\""));
        if !headers.get_all(IF_NONE_MATCH).iter().any(may_be_coded) {
            return None;
        }
        let Ok(Some(Tags::List(tags))) = parse_tags(headers, IF_NONE_MATCH, "If-None-Match") else {
            return None;
        };
        let coded: Vec<_> = tags.iter().filter(|tag| without_coding(opaque(tag)) != opaque(tag)).collect();
        if coded.is_empty() {
            return None;
        }
        let strong = |tag: &&[u8]| HeaderValue::from_bytes(&quoted(opaque(tag))).ok();
        let coded = coded.into_iter().filter_map(strong).collect();
        // Kept unchanged as well, for the application's own routes.
        let own = tags.iter().map(|tag| tag.to_vec());
        let bare = own.chain(tags.iter().map(|tag| quoted(without_coding(opaque(tag))))).collect::<Vec<_>>();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_bytes(&bare.join(&b", "[..])).ok()?);
        Some(Self(coded))
    }

    /// The tag of the representation that the client has, if the tag of a 304 is the same without the coding.
    pub(crate) fn restore(&self, tag: &HeaderValue) -> Option<&HeaderValue> {
        let bare = opaque(tag.as_bytes());
        self.0.iter().find(|coded| without_coding(opaque(coded.as_bytes())) == bare)
    }
}

/// The tag of a representation in a content coding. A weak tag applies to every coding already.
pub(crate) fn coded_tag(tag: &HeaderValue, coding: &[u8]) -> Option<HeaderValue> {
    let opaque = tag.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    HeaderValue::from_bytes(&quoted(&[opaque, b"-", coding].concat())).ok()
}

fn quoted(opaque: &[u8]) -> Vec<u8> {
    [b"\"", opaque, b"\""].concat()
}

/// The opaque part of a tag, without the coding that this server or a proxy appended.
fn without_coding(opaque: &[u8]) -> &[u8] {
    let codings: [&[u8]; 4] = [b"-gzip", b"-br", b"-zstd", b"-deflate"];
    codings.iter().find_map(|coding| opaque.strip_suffix(*coding)).unwrap_or(opaque)
}

/// The expectation of a body's member `if_match` on its item.
pub(super) fn parse_if_match_member(tag: &str) -> Result<Option<Expected>, Fault> {
    let headers = HeaderValue::from_str(tag).map(|tag| HeaderMap::from_iter([(IF_MATCH, tag)]));
    headers.ok().and_then(|headers| parse_if_match(&headers).ok()).ok_or_else(|| {
        Fault::pointer(
            "/if_match",
            "syntax",
            "Must be the item's ETag with its quotes, such as \"\\\"7\\\"\".",
        )
    })
}

/// Whether `If-None-Match: *` forbids changing an existing item.
pub(super) fn is_create_only(headers: &HeaderMap) -> Result<bool, Error> {
    match parse_tags(headers, IF_NONE_MATCH, "If-None-Match")? {
        None => Ok(false),
        Some(Tags::Any) => Ok(true),
        Some(Tags::List(_)) => {
            Err(invalid_header("If-None-Match", "Only `*` is understood with this method."))
        }
    }
}

enum Tags<'a> {
    Any,
    List(Vec<&'a [u8]>),
}

fn parse_tags<'a>(
    headers: &'a HeaderMap,
    header: HeaderName,
    name: &'static str,
) -> Result<Option<Tags<'a>>, Error> {
    if !headers.contains_key(&header) {
        return Ok(None);
    }
    let mut list = Vec::new();
    for value in headers.get_all(header) {
        let value = value.as_bytes().trim_ascii();
        if value == b"*" {
            return Ok(Some(Tags::Any));
        }
        split_tags(value, &mut list)
            .ok_or_else(|| invalid_header(name, "Must be `*` or entity tags in quotes, such as \"7\"."))?;
    }
    Ok(Some(Tags::List(list)))
}

/// `"a", W/"b"`: one tag at least, and a comma may stand inside the quotes (RFC 9110, 5.6.1 and 8.8.3).
fn split_tags<'a>(mut rest: &'a [u8], list: &mut Vec<&'a [u8]>) -> Option<()> {
    loop {
        // Empty elements are ignored (RFC 9110, 5.6.1.2).
        while let [b',', tail @ ..] = rest {
            rest = tail.trim_ascii_start();
        }
        if rest.is_empty() {
            return (!list.is_empty()).then_some(());
        }
        let open = if rest.starts_with(b"W/") { 2 } else { 0 };
        if rest.get(open) != Some(&b'"') {
            return None;
        }
        let length = open + 2 + rest[open + 1..].iter().position(|byte| *byte == b'"')?;
        let (tag, tail) = rest.split_at(length);
        list.push(tag);
        rest = match tail.trim_ascii_start() {
            [] => return Some(()),
            [b',', tail @ ..] => tail.trim_ascii_start(),
            _ => return None,
        };
    }
}

/// The opaque part of a tag: what its quotes contain.
fn opaque(tag: &[u8]) -> &[u8] {
    let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
    tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\"")).unwrap_or(tag)
}

/// The version in a strong tag of this library.
fn parse_version(tag: &[u8]) -> Option<Version> {
    let text = std::str::from_utf8(without_coding(opaque(tag))).ok()?;
    let version = text.split_once('.').map_or(text, |(version, _)| version);
    if let Some(digest) = version.strip_prefix('d') {
        let digest = URL_SAFE_NO_PAD.decode(digest).ok()?;
        return Some(Version::Digest(digest.try_into().ok()?));
    }
    version.bytes().all(|byte| byte.is_ascii_digit()).then(|| version.parse().ok())?.map(Version::Counter)
}

fn invalid_header(header: &'static str, detail: &'static str) -> Error {
    Error::new(ErrorKind::BadRequest, "invalid-header", detail)
        .with_faults(vec![Fault::header(header, "syntax", detail)])
}
