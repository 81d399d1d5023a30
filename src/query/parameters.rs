//! The parameters of a query string.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::filter::Operand;
use super::select;
use crate::error::Fault;

/// The most parameters a query string may have.
const MAX_PARAMETERS: usize = 500;

/// A parameter with every value that the query string gives it, in order.
#[derive(Debug)]
pub(crate) struct Parameter<'a> {
    name: Cow<'a, str>,
    values: Values<'a>,
}

/// Most parameters are given once: their value needs no list.
#[derive(Debug)]
enum Values<'a> {
    One(Cow<'a, str>),
    Several(Vec<Cow<'a, str>>),
}

/// Reads a query string. Repeated names become one parameter; faults of syntax are added to `faults`.
pub(crate) fn read<'a>(query: Option<&'a str>, faults: &mut Vec<Fault>) -> Vec<Parameter<'a>> {
    let mut parameters: Vec<Parameter<'a>> = Vec::new();
    for pair in Pairs::of(query) {
        match pair {
            Ok((name, value)) => match parameters.iter_mut().find(|parameter| parameter.name == name) {
                Some(parameter) => parameter.add(value),
                None => parameters.push(Parameter { name, values: Values::One(value) }),
            },
            Err(fault) => faults.push(fault),
        }
    }
    parameters
}

/// A non-negative integer; a value that is too large for its type becomes the type's maximum.
pub(crate) fn parse_whole_number(value: &str) -> Option<u64> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| value.parse().unwrap_or(u64::MAX))
}

impl<'a> Parameter<'a> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The value of a parameter that takes one.
    ///
    /// # Errors
    /// Where the parameter is repeated.
    pub(crate) fn single(&self) -> Result<&str, Fault> {
        match &self.values {
            Values::One(value) => Ok(value),
            Values::Several(_) => {
                Err(Fault::parameter(self.name(), "repeated", "This can be given once only."))
            }
        }
    }

    /// The names in a parameter that takes several: separated by commas, or the parameter repeated.
    pub(crate) fn items(&self) -> impl Iterator<Item = &str> {
        let values = match &self.values {
            Values::One(value) => std::slice::from_ref(value),
            Values::Several(values) => values.as_slice(),
        };
        values.iter().flat_map(|value| value.split(','))
    }

    pub(super) fn operand(&self) -> Operand<'_> {
        match &self.values {
            Values::One(value) => Operand::Text(value),
            Values::Several(values) => Operand::Texts(values),
        }
    }

    /// The fault of an unknown parameter, with the nearest known one.
    pub(crate) fn unknown_parameter<'k>(&self, known: impl IntoIterator<Item = &'k str>) -> Fault {
        let Some(name) = self.name.strip_suffix("[]") else {
            return select::unknown_parameter(&self.name, known);
        };
        let detail = format!(
            "A name takes no `[]`: several values are `{name}=a,b`, or the parameter repeated, `{name}=a&{name}=b`."
        );
        Fault::parameter(self.name(), "unknown", detail)
    }

    fn add(&mut self, value: Cow<'a, str>) {
        match &mut self.values {
            Values::Several(values) => values.push(value),
            Values::One(first) => self.values = Values::Several(vec![std::mem::take(first), value]),
        }
    }
}

/// The pairs of a query string, decoded: `%` sequences and `+` (WHATWG URL, application/x-www-form-urlencoded). Text
/// that does not decode to UTF-8 is a fault.
pub(crate) struct Pairs<'a> {
    rest: Option<&'a str>,
    remaining: usize,
}

impl<'a> Pairs<'a> {
    pub(crate) fn of(query: Option<&'a str>) -> Self {
        Self { rest: query.filter(|query| !query.is_empty()), remaining: MAX_PARAMETERS }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(Cow<'a, str>, Cow<'a, str>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest?;
            let (pair, rest) = match split_at_byte(rest, b'&') {
                Some((pair, rest)) => (pair, Some(rest)),
                None => (rest, None),
            };
            self.rest = rest;
            if pair.is_empty() {
                continue;
            }
            let (name, value) = split_at_byte(pair, b'=').unwrap_or((pair, ""));
            if self.remaining == 0 {
                self.rest = None;
                let detail = format!("At most {MAX_PARAMETERS} parameters are read.");
                return Some(Err(Fault::parameter(name, "limit", detail)));
            }
            self.remaining -= 1;
            return Some(match (decode(name), decode(value)) {
                (Some(name), Some(value)) => Ok((name, value)),
                _ => Err(Fault::parameter(
                    name,
                    "encoding",
                    "A `%` is followed by two hexadecimal digits (`%25` is a percent sign); the text is UTF-8 without U+0000.",
                )),
            });
        }
    }
}

/// The text before and after an ASCII character: the same as `split_once`, which costs more for short text.
fn split_at_byte(text: &str, at: u8) -> Option<(&str, &str)> {
    let position = text.bytes().position(|byte| byte == at)?;
    Some((&text[..position], &text[position + 1..]))
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let is_escape = |digits: &[u8]| digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit);
    if !text.split('%').skip(1).all(|rest| is_escape(&rest.as_bytes()[..rest.len().min(2)])) {
        return None;
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    (!decoded.contains('\0')).then(|| Cow::Owned(decoded.into_owned()))
}
