//! `Idempotency-Key` (IETF draft `idempotency-key-header`-07): a repeated change is answered with the first response.

use axum::body::{Body as HttpBody, Bytes};
use axum::response::Response;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};

use super::handler::{ResourceHandler, original_uri};
use super::prefer::{PREFER, Prefer};
use super::response;
use super::{Context, Endpoint, body, bulk, dry_run};
use crate::access::Actor;
use crate::engine::{Call, IdempotencyClaim, ReplayedResponse, WriteContext};
use crate::error::{Error, ErrorKind, Fault};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const HEADER_NAME: &str = "Idempotency-Key";
/// The maximum length of a key.
const MAX_KEY_LENGTH: usize = 255;

impl ResourceHandler {
    /// Handles a change, as the request's preferences say: once, if it has an idempotency key.
    pub(super) async fn write_idempotent(
        &self,
        call: Call<'_>,
        actor: &Actor,
        (endpoint, id): (Endpoint, &str),
        parts: &Parts,
        body: HttpBody,
        context: &Context,
    ) -> Result<Response, Error> {
        let mut write_context = context.write_context(Prefer::of_write(&parts.headers)?.dry_run);
        let key = match &self.entry.definition.idempotency {
            Some(declared) => key(parts, declared.required)?,
            None => None,
        };
        let (Some(key), false) = (key, write_context.dry_run) else {
            let call = call.with_context(&write_context);
            let response = self.write(&call, endpoint, id, parts, body, context).await?;
            return if write_context.dry_run {
                dry_run::dry_run_response(response, &call).await
            } else {
                Ok(response)
            };
        };
        let bytes = body::read_bytes(&parts.headers, body, self.state.body_limit).await?;
        write_context.claim = Some(self.claim(actor, endpoint, &key, (parts, &bytes), context));
        Box::pin(self.write_once(call, &mut write_context, (endpoint, id), parts, bytes, context)).await
    }

    /// The claim of a key: its scope, and a fingerprint of the request.
    fn claim(
        &self,
        actor: &Actor,
        endpoint: Endpoint,
        key: &str,
        (parts, body): (&Parts, &Bytes),
        context: &Context,
    ) -> IdempotencyClaim {
        let route = endpoint.path().template("", &self.entry.definition);
        let scope = [
            actor.tenant(),
            actor.id(),
            Some(if actor.is_service() { "service" } else { "user" }),
            Some(parts.method.as_str()),
            Some(&route),
            Some(key),
        ];
        let header = |name: HeaderName| {
            let lines = parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
            lines.map(<[u8]>::to_vec).reduce(|all, line| [&all[..], b", ", &line].concat())
        };
        let headers = [PREFER, IF_MATCH, IF_NONE_MATCH].map(header);
        let [prefer, if_match, if_none_match] = headers.each_ref().map(Option::as_deref);
        let path_and_query = original_uri(parts).path_and_query().map(|path| path.as_str().as_bytes());
        let body = self.canonical_body(body);
        let fingerprint_parts = [path_and_query, prefer, if_match, if_none_match, Some(&body)];
        let retention = self.entry.definition.idempotency.unwrap_or_default().retention;
        let fingerprint = digest(fingerprint_parts);
        let mut id = digest(scope.map(|part| part.map(str::as_bytes)));
        if actor.is_anonymous() {
            // Anonymous callers cannot be distinguished, so a key is theirs together with their request and address:
            // the same key from another caller is another key.
            let address = context.address().map(|address| address.to_string());
            let parts = [Some(id.as_str()), Some(fingerprint.as_str()), address.as_deref()];
            id = digest(parts.map(|part| part.map(str::as_bytes)));
        }
        IdempotencyClaim::new(id, fingerprint, retention)
    }

    /// The meaning of a body: of JSON its value, however it is written (as by RFC 8785, but with every number exact).
    fn canonical_body(&self, body: &Bytes) -> Bytes {
        let limit = self.state.body_limit.bytes;
        // A body that is refused for its form is compared by its bytes.
        let Ok(mut json) = body::parse_json(super::Body::Create, body, limit) else { return body.clone() };
        json.sort_all_objects();
        json.to_string().into()
    }

    async fn write_once(
        &self,
        call: Call<'_>,
        write_context: &mut WriteContext,
        (endpoint, id): (Endpoint, &str),
        parts: &Parts,
        body: Bytes,
        context: &Context,
    ) -> Result<Response, Error> {
        let path = self.state.public_path(parts);
        let (collection, prefer) = match parts.method == http::Method::PUT {
            // A PUT responds with the item, whatever the client prefers.
            true => (response::parent(&path), Prefer::default()),
            false => (&*path, Prefer::of(&parts.headers)),
        };
        let _in_flight = self.state.engine.mark_in_flight(write_context)?;
        if let Some(replayed) = call.replay(write_context).await? {
            return self.replay_response(replayed, &prefer, collection);
        }
        let call = call.with_context(write_context);
        match self.write(&call, endpoint, id, parts, HttpBody::from(body), context).await {
            Ok(response) => Ok(response),
            // Another node may have handled the same request meanwhile, which made it fail here.
            Err(error) => match call.replay_concurrent().await? {
                Some(replayed) => self.replay_response(replayed, &prefer, collection),
                None => Err(error),
            },
        }
    }

    /// A replay of the response that an earlier request with the same preferences received.
    pub(super) fn replay_response(
        &self,
        replayed: ReplayedResponse,
        prefer: &Prefer,
        collection: &str,
    ) -> Result<Response, Error> {
        let status = StatusCode::from_u16(replayed.status).unwrap_or(StatusCode::OK);
        let mut response = match (replayed.item, replayed.id) {
            (Some(item), Some(id)) if status == StatusCode::CREATED => {
                response::created(item, &response::location(collection, &id), prefer)
            }
            (Some(item), _) => response::changed(item, status),
            (None, _) => match replayed.output {
                Some(output) if status == StatusCode::CREATED => bulk::created(output, prefer),
                Some(output) => response::json_response(output, status),
                None => response::empty(status),
            },
        };
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

/// The request's key, quoted (RFC 8941, 3.3.3) or bare.
fn key(parts: &Parts, required: bool) -> Result<Option<String>, Error> {
    let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let refuse = |code: &'static str, detail: &'static str| {
        let fault = Fault::header(HEADER_NAME, code, detail);
        Err(Error::new(ErrorKind::BadRequest, "idempotency-key", detail).with_faults(vec![fault]))
    };
    let Some(value) = values.next() else {
        let detail = "Changes of this resource need an Idempotency-Key, such as a new UUID.";
        return if required { refuse("required", detail) } else { Ok(None) };
    };
    let text = value.to_str().unwrap_or_default().trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if values.next().is_some()
        || bare.is_empty()
        || bare.len() > MAX_KEY_LENGTH
        || !bare.bytes().all(is_plain)
    {
        return refuse("syntax", "Must be one key of 1 to 255 visible characters, quoted or not.");
    }
    Ok(Some(bare.to_owned()))
}

/// A digest of parts, each distinguished from the next and from its absence.
fn digest<const N: usize>(parts: [Option<&[u8]>; N]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        match part {
            Some(part) => hasher.update(&[1]).update(&(part.len() as u64).to_le_bytes()).update(part),
            None => hasher.update(&[0]),
        };
    }
    hasher.finalize().to_hex().to_string()
}
