//! The query string form.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use resourceful_contract::Filter;

use super::filter::{self, MAX_NODES, Operand};
use super::select::{self, Draft};
use super::{ItemRequest, ListRequest, Reader, StreamRequest};
use crate::error::Fault;

/// Where a stream goes on, for clients that cannot send the header.
pub(crate) const LAST_EVENT_ID: &str = "last_event_id";
/// The most parameters a query string may have.
const MAX_PARAMETERS: usize = 500;

pub(super) fn list(reader: &Reader<'_>, query: Option<&str>) -> Result<ListRequest, Vec<Fault>> {
    let mut draft = Draft::default();
    let mut filters = Vec::new();
    let mut faults = Vec::new();
    for parameter in Parameters::of(query) {
        let (name, value) = match parameter {
            Ok(pair) => pair,
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        let outcome = match name.as_ref() {
            "sort" => draft.sort(reader, value.split(','), &name),
            "fields" => draft.fields(reader, value.split(','), &name),
            "include" => draft.include(reader, value.split(','), &name),
            "limit" => draft.limit(reader, value.parse().ok(), &name),
            "after" => draft.after(&value, &name),
            "before" => draft.before(&value, &name),
            "page" => draft.page(reader, value.parse().ok(), &name),
            "q" => draft.search(reader, &value, &name),
            "deleted" => draft.deleted(reader, &value, &name),
            _ => comparison(reader, &name, &value, &mut filters),
        };
        if let Err(fault) = outcome {
            faults.push(fault);
        }
    }
    draft.finish(reader, Filter::All(filters), faults)
}

/// A stream takes what a list takes but for its order and its pages.
pub(super) fn stream(reader: &Reader<'_>, query: Option<&str>) -> Result<StreamRequest, Vec<Fault>> {
    const ELSEWHERE: [&str; 7] = ["sort", "include", "limit", "after", "before", "page", "deleted"];
    let mut draft = Draft::default();
    let mut filters = Vec::new();
    let mut faults = Vec::new();
    let mut goes_on = false;
    for parameter in Parameters::of(query) {
        let outcome = parameter.and_then(|(name, value)| match name.as_ref() {
            "fields" => draft.fields(reader, value.split(','), &name),
            "q" => draft.search(reader, &value, &name),
            LAST_EVENT_ID if !goes_on => {
                goes_on = true;
                Ok(())
            }
            LAST_EVENT_ID => Err(Fault::parameter(name, "repeated", "This can be given once only.")),
            name if ELSEWHERE.contains(&name) => Err(select::unknown(name, ["fields", "q", LAST_EVENT_ID])),
            _ => comparison(reader, &name, &value, &mut filters),
        });
        if let Err(fault) = outcome {
            faults.push(fault);
        }
    }
    let request = draft.finish(reader, Filter::All(filters), faults)?;
    Ok(StreamRequest { filter: request.filter, fields: request.selection.fields })
}

pub(super) fn item(reader: &Reader<'_>, query: Option<&str>) -> Result<ItemRequest, Vec<Fault>> {
    let mut draft = Draft::default();
    let mut faults = Vec::new();
    for parameter in Parameters::of(query) {
        let outcome = parameter.and_then(|(name, value)| match name.as_ref() {
            "fields" => draft.fields(reader, value.split(','), &name),
            "include" => draft.include(reader, value.split(','), &name),
            "as_of" if reader.entry.definition.audit.is_some() => draft.as_of(&value, &name),
            "deleted" if reader.entry.definition.deleted_at.is_some() => draft.deleted(reader, &value, &name),
            _ => Err(select::unknown(&name, ["fields", "include"])),
        });
        if let Err(fault) = outcome {
            faults.push(fault);
        }
    }
    if faults.is_empty() { Ok(draft.item()) } else { Err(faults) }
}

/// `price[gte]` = `10`, or `status` = `open`.
fn comparison(reader: &Reader<'_>, name: &str, value: &str, filters: &mut Vec<Filter>) -> Result<(), Fault> {
    if filters.len() == MAX_NODES {
        return Err(Fault::parameter(name, "limit", filter::too_many_nodes()));
    }
    let (path, operator) = match name.split_once('[') {
        None => (name, "eq"),
        Some((path, rest)) => match rest.strip_suffix(']') {
            Some(operator) => (path, operator),
            None => {
                return Err(Fault::parameter(
                    name,
                    "syntax",
                    "A filter with an operator is written `field[operator]=value`.",
                ));
            }
        },
    };
    let filter = filter::comparison(reader, path, operator, &Operand::Text(value))
        .map_err(|refusal| Fault::parameter(name, refusal.code, refusal.detail))?;
    filters.push(filter);
    Ok(())
}

/// The pairs of a query string, decoded: `%` sequences and `+` (WHATWG URL, application/x-www-form-urlencoded).
/// What does not decode to UTF-8 is a fault, not a guess.
pub(crate) struct Parameters<'a> {
    rest: Option<&'a str>,
    left: usize,
}

impl<'a> Parameters<'a> {
    pub(crate) fn of(query: Option<&'a str>) -> Self {
        Self { rest: query.filter(|query| !query.is_empty()), left: MAX_PARAMETERS }
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<(Cow<'a, str>, Cow<'a, str>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest?;
            let (pair, rest) = match cut(rest, b'&') {
                Some((pair, rest)) => (pair, Some(rest)),
                None => (rest, None),
            };
            self.rest = rest;
            if pair.is_empty() {
                continue;
            }
            let (name, value) = cut(pair, b'=').unwrap_or((pair, ""));
            if self.left == 0 {
                self.rest = None;
                let detail = format!("At most {MAX_PARAMETERS} parameters are read.");
                return Some(Err(Fault::parameter(name, "limit", detail)));
            }
            self.left -= 1;
            return Some(match (decode(name), decode(value)) {
                (Some(name), Some(value)) => Ok((name, value)),
                _ => Err(Fault::parameter(
                    name,
                    "encoding",
                    "Percent-encoded text must be UTF-8 without U+0000.",
                )),
            });
        }
    }
}

/// What stands before an ASCII character and after it: the same as `split_once`, which costs more where texts are short.
fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let position = text.bytes().position(|byte| byte == at)?;
    Some((&text[..position], &text[position + 1..]))
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    (!decoded.contains('\0')).then(|| Cow::Owned(decoded.into_owned()))
}
