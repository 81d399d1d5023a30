//! Cursors: encrypted positions in a list, which clients can neither read, change nor use elsewhere.
//!
//! A cursor holds the sort keys of a row, encrypted with AES-256-GCM-SIV (RFC 8452). Its binding — the resource, the
//! filter, the order and the caller — is not inside it but authenticated with it, so a cursor that is altered, or used
//! with another query or by another caller, is not accepted. The nonce is fixed: this cipher is designed to stay safe
//! when a nonce repeats (it then only reveals that two plaintexts are equal), and equal pages must have equal bytes for
//! their ETag to mean something.
//!
//! Cursors are part of URLs and headers, whose length proxies limit. Where the sort keys are long, the cursor holds the
//! row's id and a digest of its keys instead, and the keys are read from the row when the cursor comes back. If the
//! row's keys have changed or the row is gone by then, the end of the page is unknown: that cursor is invalid.

use std::fmt;

use aes_gcm_siv::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Key, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use resourceful_contract::{FieldType, Value, json};

use super::{ListRequest, Reader};
use crate::access::Actor;
use crate::catalog::RowFilter;
use crate::digest;
use crate::error::{Error, ErrorKind, Fault};

/// The key that an application's cursors are encrypted with.
pub(crate) struct CursorKey(Aes256GcmSiv);

impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey")
    }
}

/// The most bytes of sort keys inside a cursor: with the cipher's tag they are 512 characters of base64.
const MAX_KEY_BYTES: usize = 512 / 4 * 3 - 16;

/// The content of a list's cursor.
#[derive(Debug)]
pub(crate) enum CursorContent {
    /// The sort keys of the row at which the page ended.
    Keys(Vec<Value>),
    /// The id of that row, and a digest of its keys.
    Row(Value, KeysDigest),
}

/// A digest of sort keys that are too long for a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeysDigest(String);

impl KeysDigest {
    pub(crate) fn of(keys: &[Value]) -> Self {
        Self::from_encoded(&encode_keys(keys))
    }

    fn from_encoded(keys: &[u8]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(&blake3::hash(keys).as_bytes()[..16]))
    }
}

fn encode_keys(keys: &[Value]) -> Vec<u8> {
    let mut text = Vec::with_capacity(64);
    json::array(&mut text, keys);
    text
}

/// A digest of everything that a cursor is bound to.
#[derive(Clone, Debug)]
pub(crate) struct Binding(blake3::Hash);

impl Binding {
    pub(crate) fn of(reader: &Reader<'_>, actor: &Actor, listed: &RowFilter, request: &ListRequest) -> Self {
        let mut input = digest::DigestInput::default();
        let schema = &reader.entry.schema;
        digest::add_text(&mut input, &schema.name);
        input.update(&[u8::from(actor.is_anonymous()), u8::from(actor.is_elevated())]);
        // A response that several callers with the same rights share has cursors that are valid for all of them.
        let is_shared = reader.entry.definition.cache.is_some();
        digest::add_optional_text(&mut input, actor.id().filter(|_| !is_shared));
        reader.visibilities.requested().mask.digest(&mut input, schema);
        digest::add_optional_text(&mut input, actor.tenant());
        digest::add_filter(&mut input, schema, listed.filter());
        digest::add_sort(&mut input, schema, &request.sort);
        digest::add_filter(&mut input, schema, &request.filter);
        Self(input.digest())
    }
}

impl Binding {
    /// The binding of stream positions: the same for callers of the same kind in the same tenant that make the same
    /// request, whatever that was digested from.
    pub(crate) fn for_stream(actor: &Actor, request: &digest::DigestInput) -> Self {
        let mut input = digest::DigestInput::default();
        digest::add_text(&mut input, "stream");
        let request = request.digest();
        input.update(request.as_bytes());
        input.update(&[u8::from(actor.is_anonymous()), u8::from(actor.is_elevated())]);
        digest::add_optional_text(&mut input, actor.tenant());
        Self(input.digest())
    }

    /// The binding where there are no positions.
    pub(crate) fn empty() -> Self {
        Self(digest::DigestInput::default().digest())
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The binding of a list that belongs to one item.
    pub(crate) fn for_item(resource: &str, actor: &Actor, item: &str) -> Self {
        let mut input = digest::DigestInput::default();
        for text in
            ["history", resource, item, actor.id().unwrap_or_default(), actor.tenant().unwrap_or_default()]
        {
            digest::add_text(&mut input, text);
        }
        input.update(&[u8::from(actor.is_anonymous()), u8::from(actor.is_elevated())]);
        Self(input.digest())
    }
}

impl CursorKey {
    /// Derives a key from a secret of any length; whether it is long enough is for the application to check.
    pub(crate) fn derive(secret: &[u8]) -> Self {
        let key = blake3::derive_key("resourceful 2026-11 cursor encryption", secret);
        Self(Aes256GcmSiv::new(&Key::<Aes256GcmSiv>::from(key)))
    }

    /// The list cursor for the row with these sort keys; `id` is the position of the row's id among them.
    pub(crate) fn seal_row(&self, binding: &Binding, keys: &[Value], id: usize) -> String {
        let plaintext = encode_keys(keys);
        if plaintext.len() <= MAX_KEY_BYTES {
            return self.seal_bytes(binding, &plaintext);
        }
        let digest = Value::Text(KeysDigest::from_encoded(&plaintext).0);
        // One value more than there are sort keys.
        let mut values = vec![Value::Null; keys.len() - 1];
        values.extend([keys[id].clone(), digest]);
        self.seal_bytes(binding, &encode_keys(&values))
    }

    fn seal(&self, binding: &Binding, keys: &[Value]) -> String {
        self.seal_bytes(binding, &encode_keys(keys))
    }

    fn seal_bytes(&self, binding: &Binding, plaintext: &[u8]) -> String {
        let payload = Payload { msg: plaintext, aad: binding.0.as_bytes() };
        let sealed = self
            .0
            .encrypt(&nonce(), payload)
            .expect("sort keys are far shorter than the cipher's limit of 64 GiB");
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// A cursor that holds one number.
    pub(crate) fn seal_number(&self, binding: &Binding, number: i64) -> String {
        self.seal(binding, &[Value::Integer(number)])
    }

    /// The number inside a cursor.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_number(&self, binding: &Binding, cursor: &str) -> Result<i64, Error> {
        match self.decrypt_values(binding, cursor).as_deref() {
            Some([number]) => number.as_i64().ok_or_else(|| invalid_cursor("after")),
            _ => Err(invalid_cursor("after")),
        }
    }

    /// The content of a list's cursor.
    ///
    /// # Errors
    /// If it was altered, or belongs to another query or caller; the error does not say which of the two.
    pub(crate) fn open(
        &self,
        binding: &Binding,
        reader: &Reader<'_>,
        request: &ListRequest,
        cursor: &str,
        parameter: &str,
    ) -> Result<CursorContent, Error> {
        self.decode_keys(binding, reader, request, cursor).ok_or_else(|| invalid_cursor(parameter))
    }

    /// Encrypts a text as a cursor is encrypted.
    pub(crate) fn seal_text(&self, binding: &Binding, text: &str) -> String {
        self.seal(binding, &[Value::Text(text.to_owned())])
    }

    /// The decrypted text; `None` if it was altered or has another binding.
    pub(crate) fn open_text(&self, binding: &Binding, sealed: &str) -> Option<String> {
        match self.decrypt_values(binding, sealed)?.as_slice() {
            [serde_json::Value::String(text)] => Some(text.clone()),
            _ => None,
        }
    }

    fn decrypt_values(&self, binding: &Binding, cursor: &str) -> Option<Vec<serde_json::Value>> {
        let sealed = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let payload = Payload { msg: &sealed, aad: binding.0.as_bytes() };
        let plaintext = self.0.decrypt(&nonce(), payload).ok()?;
        serde_json::from_slice(&plaintext).ok()
    }

    fn decode_keys(
        &self,
        binding: &Binding,
        reader: &Reader<'_>,
        request: &ListRequest,
        cursor: &str,
    ) -> Option<CursorContent> {
        let schema = &reader.entry.schema;
        let read = |value: &serde_json::Value, field: usize| {
            let field_type: FieldType = schema.fields[field].field_type;
            value.as_str().and_then(json::opaque).or_else(|| field_type.read_json(value).ok())
        };
        let values = self.decrypt_values(binding, cursor)?;
        if values.len() == request.sort.len() {
            let keys = values.iter().zip(&request.sort).map(|(value, key)| read(value, key.field));
            return keys.collect::<Option<_>>().map(CursorContent::Keys);
        }
        match values.get(request.sort.len() - 1..)? {
            [id, serde_json::Value::String(digest)] => {
                Some(CursorContent::Row(read(id, schema.id)?, KeysDigest(digest.clone())))
            }
            _ => None,
        }
    }
}

/// The error for an invalid cursor.
pub(crate) fn invalid_cursor(parameter: &str) -> Error {
    cursor_error(
        parameter,
        "The cursor was altered, or belongs to another query or caller. Start again without it.",
    )
}

/// The error for a cursor whose row no longer has the sort keys at which the page ended.
pub(crate) fn outdated_cursor(parameter: &str) -> Error {
    cursor_error(
        parameter,
        "The item at which the page ended has changed, or is gone. Start again without the cursor.",
    )
}

fn cursor_error(parameter: &str, detail: &'static str) -> Error {
    let fault = Fault::parameter(parameter, "invalid-cursor", detail);
    Error::new(ErrorKind::BadRequest, "invalid-cursor", detail).with_faults(vec![fault])
}

/// Fixed on purpose; see the module documentation.
fn nonce() -> Nonce {
    Nonce::from([0; 12])
}
