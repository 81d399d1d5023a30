//! JSON Schema validation of bodies: errors become faults with JSON Pointers.

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value as Json;

use super::exact_numbers;

use crate::error::{Fault, MAX_FAULTS, escape_pointer};
use crate::nearest::suggest;

/// Compiles a schema; formats are enforced, not only annotated, and no number is rounded.
pub(super) fn compile(schema: &Json) -> Result<Validator, String> {
    let mut schema = schema.clone();
    exact_numbers::add_keyword(&mut schema);
    jsonschema::options()
        .with_keyword(exact_numbers::KEYWORD, |_, precision, _| Ok(exact_numbers::keyword(precision)))
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(true)
        .build(&schema)
        .map_err(|error| error.to_string())
}

/// Every fault of a value. `known` are the names to suggest for an unknown member at the top level.
pub(crate) fn faults<'a>(
    validator: &Validator,
    json: &Json,
    known: &(impl Iterator<Item = &'a str> + Clone),
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for error in validator.iter_errors(json).take(MAX_FAULTS) {
        push_fault(&error, known, &mut faults);
    }
    check_nul(json, &mut String::new(), &mut faults);
    faults
}

/// The fault for an unknown field, at its location in a body.
pub(crate) fn unknown_field<'a>(
    pointer: &str,
    name: &str,
    known: &(impl Iterator<Item = &'a str> + Clone),
) -> Fault {
    let detail = suggest(format!("There is no field `{name}` here."), name, known.clone());
    Fault::pointer(pointer, "unknown", detail)
}

fn push_fault<'a>(
    error: &ValidationError<'_>,
    known: &(impl Iterator<Item = &'a str> + Clone),
    faults: &mut Vec<Fault>,
) {
    let pointer = error.instance_path().as_str().to_owned();
    let one = |code: &'static str, detail: String| Fault::pointer(pointer.clone(), code, detail);
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            for name in unexpected.iter().take(MAX_FAULTS) {
                let member_pointer = format!("{pointer}/{}", escape_pointer(name));
                if pointer.is_empty() {
                    faults.push(unknown_field(&member_pointer, name, known));
                } else {
                    let detail = format!("There is no field `{name}` here.");
                    faults.push(Fault::pointer(member_pointer, "unknown", detail));
                }
            }
        }
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let member_pointer = format!("{pointer}/{}", escape_pointer(name));
            faults.push(Fault::pointer(member_pointer, "required", "This field is required."));
        }
        // `T | null` as a union: the faults are those of the branch that is not null.
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            let candidates: Vec<_> = context
                .iter()
                .filter(|branch| {
                    !branch.iter().any(|error| {
                        matches!(error.kind(), Kind::Type { .. }) && error.instance_path().as_str() == pointer
                    })
                })
                .collect();
            match candidates.as_slice() {
                [branch] => branch.iter().for_each(|error| push_fault(error, known, faults)),
                _ => faults.push(one("type", "Matches none of the shapes that are allowed here.".to_owned())),
            }
        }
        kind => {
            let (code, detail) = describe(kind);
            faults.push(one(code, detail));
        }
    }
}

fn describe(kind: &Kind) -> (&'static str, String) {
    match kind {
        Kind::Type { kind } => ("type", format!("Must be {}.", type_names(kind))),
        Kind::Enum { options } => ("enum", format!("Must be one of {options}.")),
        Kind::Constant { expected_value } => ("enum", format!("Must be {expected_value}.")),
        Kind::MinLength { limit } => ("length", format!("The length must be at least {limit}.")),
        Kind::MaxLength { limit } => ("length", format!("The length must be at most {limit}.")),
        Kind::MinItems { limit } => ("length", format!("Must hold at least {limit} items.")),
        Kind::AdditionalItems { limit } => ("length", format!("Must hold at most {limit} items.")),
        Kind::MaxItems { limit } => ("length", format!("Must hold at most {limit} items.")),
        Kind::MinProperties { limit } => ("length", format!("Must hold at least {limit} fields.")),
        Kind::MaxProperties { limit } => ("length", format!("Must hold at most {limit} fields.")),
        Kind::Minimum { limit } => ("range", format!("Must be at least {limit}.")),
        Kind::Maximum { limit } => ("range", format!("Must be at most {limit}.")),
        Kind::ExclusiveMinimum { limit } => ("range", format!("Must be greater than {limit}.")),
        Kind::ExclusiveMaximum { limit } => ("range", format!("Must be less than {limit}.")),
        Kind::MultipleOf { multiple_of } => ("range", format!("Must be a multiple of {multiple_of}.")),
        Kind::Pattern { pattern } => ("pattern", format!("Must match the pattern {pattern}")),
        Kind::Format { format } => ("format", format!("Must be a valid {format}.")),
        Kind::Custom { message, .. } => ("precision", message.clone()),
        Kind::UniqueItems => ("unique-items", "No two items may be the same.".to_owned()),
        Kind::FalseSchema => ("unknown", "Nothing is allowed here.".to_owned()),
        other => ("schema", format!("Breaks the schema's `{}`.", other.keyword())),
    }
}

fn type_names(kind: &jsonschema::error::TypeKind) -> String {
    use jsonschema::error::TypeKind;
    match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(several) => {
            several.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or ")
        }
    }
}

/// Refuses U+0000, which is legal JSON but cannot be stored by every database.
fn check_nul(json: &Json, pointer: &mut String, faults: &mut Vec<Fault>) {
    match json {
        Json::String(text) if text.contains('\0') => {
            faults.push(Fault::pointer(pointer.clone(), "pattern", "Must not hold the character U+0000."));
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let length = pointer.len();
                pointer.push_str(&format!("/{index}"));
                check_nul(item, pointer, faults);
                pointer.truncate(length);
            }
        }
        Json::Object(fields) => {
            for (name, value) in fields {
                let length = pointer.len();
                pointer.push('/');
                pointer.push_str(&escape_pointer(name));
                if name.contains('\0') {
                    faults.push(Fault::pointer(
                        pointer.clone(),
                        "pattern",
                        "A name must not hold the character U+0000.",
                    ));
                }
                check_nul(value, pointer, faults);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}
