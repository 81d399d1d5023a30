//! The codec between a user's model type and the type-erased engine.

use std::any::{TypeId, type_name};
use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use validator::{Validate, ValidationError, ValidationErrors, ValidationErrorsKind};

use crate::error::{Fault, escape_pointer};

/// Type-erased functions of a model type, stored once per resource.
#[derive(Clone, Copy)]
pub(crate) struct Codec {
    check: fn(&Json) -> CheckedItem,
    title: fn() -> Option<&'static str>,
    model: fn() -> Option<(TypeId, &'static str)>,
}

/// The result of checking an item against its model type.
#[derive(Debug, Default)]
pub(crate) struct CheckedItem {
    /// The item as the type serializes it; `None` if the type cannot read or write it.
    pub(crate) json: Option<Json>,
    pub(crate) faults: Vec<Fault>,
}

impl Codec {
    pub(crate) fn of<M: Serialize + DeserializeOwned + Validate + 'static>() -> Self {
        let model = || Some((TypeId::of::<M>(), type_name::<M>()));
        Self { check: check::<M>, title: title::<M>, model }
    }

    /// The codec of a resource without a model type: the JSON Schema alone describes its items.
    pub(crate) fn dynamic() -> Self {
        Self {
            check: |json| CheckedItem { json: Some(json.clone()), faults: Vec::new() },
            title: || None,
            model: || None,
        }
    }

    /// Deserializes an assembled item, runs its validator and serializes it again.
    pub(crate) fn check(&self, item: &Json) -> CheckedItem {
        (self.check)(item)
    }

    /// The type; `None` for a dynamic resource.
    pub(crate) fn model(&self) -> Option<(TypeId, &'static str)> {
        (self.model)()
    }

    /// The type's name without its path; `None` for a dynamic resource.
    pub(crate) fn title(&self) -> Option<&'static str> {
        (self.title)()
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Codec").field(&self.title()).finish()
    }
}

fn title<M>() -> Option<&'static str> {
    type_name::<M>().rsplit("::").next()
}

/// Serializes a value as JSON, each number in its shortest form.
///
/// # Errors
/// If the type does not serialize.
pub(crate) fn to_json<T: Serialize>(value: &T) -> serde_json::Result<Json> {
    let json = serde_json::to_value(value)?;
    if !has_widened_number(&json) {
        return Ok(json);
    }
    // As a `Value` a single-precision number is widened to a double; as text it keeps its own digits.
    serde_json::from_slice(&serde_json::to_vec(value)?)
}

/// Whether the JSON may hold a single-precision number whose form as a double is longer.
fn has_widened_number(json: &Json) -> bool {
    match json {
        Json::Number(number) if number.is_f64() => number.as_f64().is_some_and(is_widened),
        Json::Array(items) => items.iter().any(has_widened_number),
        Json::Object(members) => members.values().any(has_widened_number),
        _ => false,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "whether anything is lost is what is asked")]
fn is_widened(double: f64) -> bool {
    let single = double as f32;
    // Nearly every double returns here, so that few are formatted as text.
    if f64::from(single).to_bits() != double.to_bits() {
        return false;
    }
    // Single precision preserves any six digits: a number with so few has one form. The product is exact: 24 bits by
    // 14.
    let ten_thousandths = double * 1e4;
    let is_short = ten_thousandths.fract() == 0.0 && ten_thousandths.abs() < 1e6;
    !is_short && single.to_string().parse() != Ok(double)
}

/// Deserializes a value of a type and runs its validator.
///
/// # Errors
/// The faults of deserialization, or all those of the validator.
pub(super) fn read<T: DeserializeOwned + Validate>(json: &Json) -> Result<T, Vec<Fault>> {
    let (value, faults) = parse::<T>(json)?;
    if faults.is_empty() { Ok(value) } else { Err(faults) }
}

/// Deserializes a value, and returns it with the faults of its validator.
fn parse<T: DeserializeOwned + Validate>(json: &Json) -> Result<(T, Vec<Fault>), Vec<Fault>> {
    let value: T = serde_path_to_error::deserialize(json).map_err(|error| {
        let pointer = pointer_of(error.path());
        // serde's messages name Rust types; this fault gives the location, and the schema's fault the reason.
        vec![Fault::pointer(pointer, "type", format!("Not readable: {}.", error.inner()))]
    })?;
    let mut faults = Vec::new();
    if let Err(errors) = value.validate() {
        collect_faults(&errors, json, &mut String::new(), &mut faults);
    }
    Ok((value, faults))
}

fn check<M: Serialize + DeserializeOwned + Validate>(item: &Json) -> CheckedItem {
    let (model, mut faults) = match parse::<M>(item) {
        Ok(parsed) => parsed,
        Err(faults) => return CheckedItem { json: None, faults },
    };
    match to_json(&model) {
        Ok(json) => CheckedItem { json: Some(json), faults },
        Err(error) => {
            faults.push(Fault::pointer("", "type", format!("Not writable: {error}.")));
            CheckedItem { json: None, faults }
        }
    }
}

/// The JSON Pointer of a value that cannot be deserialized.
pub(crate) fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&escape_pointer(key));
            }
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Collects a validator's errors, nested ones included, next to the JSON that they refer to.
fn collect_faults(errors: &ValidationErrors, json: &Json, pointer: &mut String, faults: &mut Vec<Fault>) {
    for (field, kind) in errors.errors() {
        let length = pointer.len();
        // `__all__` is validator's name for a check of the struct as a whole.
        let inner = if field == "__all__" {
            json
        } else {
            let name = wire_name(field, json.as_object());
            pointer.push('/');
            pointer.push_str(&escape_pointer(&name));
            json.get(name.as_ref()).unwrap_or(&Json::Null)
        };
        match kind {
            ValidationErrorsKind::Struct(errors) => collect_faults(errors, inner, pointer, faults),
            ValidationErrorsKind::List(items) => {
                for (index, errors) in items {
                    let length = pointer.len();
                    pointer.push_str(&format!("/{index}"));
                    collect_faults(errors, inner.get(index).unwrap_or(&Json::Null), pointer, faults);
                    pointer.truncate(length);
                }
            }
            ValidationErrorsKind::Field(errors) => {
                faults.extend(errors.iter().map(|error| fault(error, pointer)));
            }
        }
        pointer.truncate(length);
    }
}

/// The JSON name of a field: validator uses Rust's names, the body those of serde. If they differ, it is the property
/// that is equal except for case and underscores.
fn wire_name<'a>(field: &'a str, object: Option<&'a Map<String, Json>>) -> Cow<'a, str> {
    let field = field.strip_prefix("r#").unwrap_or(field);
    let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    match object {
        Some(object) if !object.contains_key(field) => object
            .keys()
            .find(|name| plain(name) == plain(field))
            .map_or(Cow::Borrowed(field), |name| Cow::Borrowed(name)),
        _ => Cow::Borrowed(field),
    }
}

fn fault(error: &ValidationError, pointer: &str) -> Fault {
    let code = match error.code.as_ref() {
        "email" | "url" | "credit_card" => Cow::Borrowed("format"),
        "regex" => Cow::Borrowed("pattern"),
        other => Cow::Owned(other.to_owned()),
    };
    let detail = match &error.message {
        Some(message) => message.to_string(),
        None => describe(error),
    };
    Fault::pointer(pointer, code, detail)
}

fn describe(error: &ValidationError) -> String {
    let bound = |name: &str| error.params.get(name).filter(|value| !value.is_null());
    match (error.code.as_ref(), bound("min"), bound("max"), bound("equal")) {
        ("length", _, _, Some(equal)) => format!("The length must be {equal}."),
        ("length", Some(min), Some(max), _) => format!("The length must be {min} to {max}."),
        ("length", Some(min), None, _) => format!("The length must be at least {min}."),
        ("length", None, Some(max), _) => format!("The length must be at most {max}."),
        ("range", Some(min), Some(max), _) => format!("Must be {min} to {max}."),
        ("range", Some(min), None, _) => format!("Must be at least {min}."),
        ("range", None, Some(max), _) => format!("Must be at most {max}."),
        ("email", ..) => "Must be an email address.".to_owned(),
        ("url", ..) => "Must be a URL.".to_owned(),
        ("regex", ..) => "Does not match the pattern.".to_owned(),
        (code, ..) => format!("Breaks the rule `{code}`."),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_widened, to_json};

    #[test]
    fn f32_is_serialized_with_its_shortest_representation() {
        for (single, expected, widened) in [
            (0.1, "0.1", true),
            (99.9999, "99.9999", true),
            (3.4e38, "3.4e+38", true),
            (1.5, "1.5", false),
            (16_777_216.0, "16777216.0", false),
        ] {
            assert_eq!(to_json::<f32>(&single).unwrap().to_string(), expected);
            assert_eq!(is_widened(f64::from(single)), widened, "{expected}");
        }
        for double in [0.1, 48.853_41, 1e300, 5e-324, 0.0, -0.0] {
            assert!(!is_widened(double), "{double}");
        }
    }
}
