//! Detection of numbers in a body that would not be kept as they are written.
//!
//! JSON does not limit a number's digits (RFC 8259, 6), and parsers keep an integer of 64 bits or a double. A number
//! that neither keeps is refused on input, before it is rounded: no path into the application needs a check of its own.
//! Text keeps every digit, which is how decimals are written.

use std::ops::Range;

use resourceful_contract::json;

use crate::error::{Fault, escape_pointer};

/// The most faults that are reported.
const MAX_FAULTS: usize = 50;

/// The position of a value in an array or an object.
enum PathSegment {
    Item(usize),
    /// The name as it is written, quotes included.
    Member(Range<usize>),
}

/// A fault for every number of a JSON text that would be kept as another number. Text that is not JSON is searched as
/// far as it is.
pub(super) fn inexact_numbers(text: &[u8]) -> Vec<Fault> {
    let mut path = Vec::new();
    let mut faults = Vec::new();
    let mut at = 0;
    while at < text.len() && faults.len() < MAX_FAULTS {
        let start = at;
        at += 1;
        match text[start] {
            b'{' => path.push(PathSegment::Member(0..0)),
            b'[' => path.push(PathSegment::Item(0)),
            b'}' | b']' => _ = path.pop(),
            b',' => {
                if let Some(PathSegment::Item(position)) = path.last_mut() {
                    *position += 1;
                }
            }
            b'"' => {
                at = string_end(text, at);
                if let Some(PathSegment::Member(name)) = path.last_mut()
                    && text[at.min(text.len())..].trim_ascii_start().first() == Some(&b':')
                {
                    *name = start..at;
                }
            }
            b'-' | b'0'..=b'9' => {
                let digits = text[start..].iter().take_while(|byte| is_number_byte(**byte)).count();
                at = start + digits;
                let number = std::str::from_utf8(&text[start..at]).unwrap_or_default();
                if let Some(rounded) = json::respelled(number) {
                    faults.push(Fault::pointer(pointer(text, &path), "precision", detail(&rounded)));
                }
            }
            _ => {}
        }
    }
    faults
}

const fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// The position behind the closing quote of a string whose opening quote is before `at`.
fn string_end(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn pointer(text: &[u8], path: &[PathSegment]) -> String {
    let mut pointer = String::new();
    for segment in path {
        pointer.push('/');
        match segment {
            PathSegment::Item(position) => pointer.push_str(&position.to_string()),
            PathSegment::Member(name) => {
                let name: String = serde_json::from_slice(&text[name.clone()]).unwrap_or_default();
                pointer.push_str(&escape_pointer(&name));
            }
        }
    }
    pointer
}

fn detail(rounded: &str) -> String {
    if rounded.is_empty() {
        return "Exceeds the range of a double, which reaches about 1.8e308.".to_owned();
    }
    format!(
        "Has more digits than a JSON number keeps and would become {rounded}: write that, or text where the field is a \
         decimal."
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointers(text: &str) -> Vec<String> {
        let at = |fault: Fault| match fault.at {
            crate::error::FaultLocation::Pointer(pointer) => pointer,
            other => format!("{other:?}"),
        };
        inexact_numbers(text.as_bytes()).into_iter().map(at).collect()
    }

    #[test]
    fn faults_have_pointers() {
        let text = r#" {"a": 0.1, "b": [1, {"c/d" : 1234567890123456.789 , "e": [[ ], "1e999", 1e-400]}], "\u00e9": 1e400}"#;
        assert_eq!(pointers(text), ["/b/1/c~1d", "/b/1/e/2", "/é"]);
        assert_eq!(pointers("0.1000000000000000055"), [""]);
        assert_eq!(pointers(r#"{"text": "a\": 1e400, \\", "n": 12}"#), Vec::<String>::new());
        assert_eq!(pointers(r#"{"a": "b", "c": ":", "d": 18446744073709551617}"#), ["/d"]);
    }

    proptest! {
        #[test]
        fn accepts_any_bytes(text in prop::collection::vec(prop::sample::select(&b"{}[],:\"\\ 1e9.-a\xff"[..]), 0..40)) {
            let _ = inexact_numbers(&text);
        }
    }
}
