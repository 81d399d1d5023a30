//! One comparison, from either form, resolved against the declaration.

use std::borrow::Cow;

use resourceful_contract::{Field, FieldType, Filter, RelatedBy, Test, Value};
use serde_json::Value as Json;

use super::Reader;
use crate::engine::{Catalog, Entry, LinkedRelation};
use crate::nearest::suggest;

/// The most values that a list operand may hold in a body.
pub(crate) const MAX_VALUES: usize = 1_000;
/// The same in a query string, which is short by nature.
pub(crate) const MAX_URL_VALUES: usize = 100;
/// The most relations that a dotted name may follow.
pub(super) const MAX_DEPTH: usize = 3;

/// The most nodes that a filter may have: comparisons, `and`, `or`, `not`, and empty branches. Each of them is text of
/// the statement that it becomes, and work for the database.
pub(super) const MAX_NODES: usize = 256;

/// What a field is compared with, as the client wrote it.
pub(super) enum Operand<'a> {
    Text(&'a str),
    Json(&'a Json),
}

/// Why a comparison is refused.
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

/// How a filter of more nodes is refused.
pub(super) fn too_many_nodes() -> String {
    format!(
        "A filter has at most {MAX_NODES} nodes: comparisons, `and`, `or`, `not`, and empty branches count."
    )
}

fn refusal(code: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal { code, detail: detail.into() }
}

/// Resolves `path` (a field, or a field behind relations) and reads the operand by the field's type.
pub(super) fn comparison(
    reader: &Reader<'_>,
    path: &str,
    operator: &str,
    operand: &Operand<'_>,
) -> Result<Filter, Refusal> {
    resolve(reader, path, operator, operand, MAX_DEPTH)
}

fn resolve(
    reader: &Reader<'_>,
    path: &str,
    operator: &str,
    operand: &Operand<'_>,
    depth: usize,
) -> Result<Filter, Refusal> {
    let Some((name, rest)) = path.split_once('.') else {
        return compare(reader, path, operator, operand);
    };
    let relation = reader.entry.links.iter().find(|relation| relation.link.name == name);
    let relation = relation.filter(|relation| reader.follows(relation));
    // What one may not list does not exist, nor does a row of it that one may not see.
    let listed = |relation: &LinkedRelation| reader.sights.of(relation.target)?.listed.as_ref();
    let found = relation.filter(|_| depth > 0).and_then(|relation| Some((relation, listed(relation)?)));
    let Some((relation, listed)) = found else {
        return Err(unknown_field(reader, path));
    };
    let target = Reader { entry: reader.catalog.entry(relation.target), ..*reader };
    let inner = resolve(&target, rest, operator, operand, depth - 1)?;
    Ok(Filter::Related(RelatedBy(relation.link.clone()), Box::new(listed.within(inner))))
}

/// Resolves the same for the application itself: every field of the stored row, and every relation.
pub(super) fn trusted(
    catalog: &Catalog,
    entry: &Entry,
    path: &str,
    operator: &str,
    operand: &Operand<'_>,
    depth: usize,
) -> Result<Filter, Refusal> {
    let Some((name, rest)) = path.split_once('.') else {
        let fields = &entry.schema.fields;
        let position = entry.schema.position(path).ok_or_else(|| {
            let known = fields.iter().map(|field| field.name.as_str());
            refusal("unknown", suggest(format!("there is no field `{path}`."), path, known))
        })?;
        return tested(&fields[position], position, operator, operand);
    };
    let relation = entry.links.iter().find(|relation| relation.link.name == name);
    let relation = relation.filter(|_| depth > 0);
    let relation = relation.ok_or_else(|| refusal("unknown", format!("there is no relation `{name}`")))?;
    let inner = trusted(catalog, catalog.entry(relation.target), rest, operator, operand, depth - 1)?;
    Ok(Filter::Related(RelatedBy(relation.link.clone()), Box::new(inner)))
}

impl Reader<'_> {
    /// Whether this caller may be told of a field by which rows match, and in which order.
    pub(super) fn tells(&self, position: usize) -> bool {
        self.sights.of(self.entry.position).is_some_and(|sight| sight.mask.tells(position))
    }

    /// Whether a relation exists for this caller. Whose key on either side they are not told, that tells it.
    pub(super) fn follows(&self, relation: &LinkedRelation) -> bool {
        let there = self.sights.of(relation.target);
        let tells_there = there.is_some_and(|sight| sight.mask.tells(relation.link.remote));
        self.tells(relation.link.local) && tells_there
    }

    /// Whether a field exists for this caller.
    pub(super) fn shows(&self, position: usize) -> bool {
        self.sights.of(self.entry.position).is_some_and(|sight| sight.mask.shows(position))
    }
}

/// The same words for a field that is not there, not filterable and not visible.
fn unknown_field(reader: &Reader<'_>, path: &str) -> Refusal {
    let definition = &reader.entry.definition;
    let known = reader
        .entry
        .schema
        .fields
        .iter()
        .enumerate()
        .filter(|(position, _)| definition.filterable[*position] && reader.tells(*position))
        .map(|(_, field)| field.name.as_str());
    let detail = format!("`{path}` is neither a parameter nor a field to filter by.");
    refusal("unknown", suggest(detail, path, known))
}

fn compare(
    reader: &Reader<'_>,
    name: &str,
    operator: &str,
    operand: &Operand<'_>,
) -> Result<Filter, Refusal> {
    let position = reader
        .entry
        .schema
        .position(name)
        .filter(|position| reader.entry.definition.filterable[*position] && reader.tells(*position))
        .ok_or_else(|| unknown_field(reader, name))?;
    tested(&reader.entry.schema.fields[position], position, operator, operand)
}

fn tested(field: &Field, position: usize, operator: &str, operand: &Operand<'_>) -> Result<Filter, Refusal> {
    let (name, legal) = (&field.name, field.field_type.operators());
    if !legal.contains(&operator) {
        let detail = format!("`{name}` has no operator `{operator}`; it has {}.", legal.join(", "));
        return Err(refusal("operator", suggest(detail, operator, legal.iter().copied())));
    }
    Ok(Filter::Compare(position, test(field, operator, operand)?))
}

fn test(field: &Field, operator: &str, operand: &Operand<'_>) -> Result<Test, Refusal> {
    let one = || value(field, operand);
    Ok(match operator {
        "eq" => Test::Eq(one()?),
        "ne" => Test::Ne(one()?),
        "gt" => Test::Gt(one()?),
        "gte" => Test::Gte(one()?),
        "lt" => Test::Lt(one()?),
        "lte" => Test::Lte(one()?),
        "in" => Test::In(several(field, operand)?),
        "nin" => Test::NotIn(several(field, operand)?),
        "between" => match <[Value; 2]>::try_from(several(field, operand)?) {
            Ok([from, to]) => Test::Between(from, to),
            Err(_) => return Err(refusal("value", "`between` takes two values: `1,10`.")),
        },
        "contains" => Test::Contains(text(operand)?),
        "starts" => Test::Starts(text(operand)?),
        "ends" => Test::Ends(text(operand)?),
        "is_null" => Test::IsNull(flag(operand)?),
        "has" => Test::Has(one()?),
        // The last of those that a field's type can have.
        _ => Test::Overlaps(several(field, operand)?),
    })
}

/// One value of the field's type; of its elements' where it is an array.
fn value(field: &Field, operand: &Operand<'_>) -> Result<Value, Refusal> {
    let element = match field.field_type {
        FieldType::Array(element) => FieldType::from(element),
        other => other,
    };
    let value = match operand {
        Operand::Text(text) => element.parse(text),
        Operand::Json(json) => element.read_json(json),
    }
    .map_err(|malformed| refusal("value", format!("Not a value of `{}`: {malformed}.", field.name)))?;
    match &value {
        Value::Null => Err(refusal("value", "Null is tested with `is_null`.")),
        Value::Text(text) => {
            listed(field, text)?;
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// A text that the field's enum does not list is a misspelling, not a filter that matches nothing.
fn listed(field: &Field, text: &str) -> Result<(), Refusal> {
    let Some(values) = field.enum_values() else {
        return Ok(());
    };
    let names = values.iter().filter_map(Json::as_str);
    if names.clone().any(|name| name == text) {
        return Ok(());
    }
    let all: Vec<_> = names.clone().collect();
    let detail = format!("`{}` is one of {}.", field.name, all.join(", "));
    Err(refusal("value", suggest(detail, text, names)))
}

fn several(field: &Field, operand: &Operand<'_>) -> Result<Vec<Value>, Refusal> {
    let (count, most) = match operand {
        Operand::Text("") => return Ok(Vec::new()),
        Operand::Text(text) => (text.split(',').count(), MAX_URL_VALUES),
        Operand::Json(Json::Array(items)) => (items.len(), MAX_VALUES),
        Operand::Json(_) => return Err(refusal("value", "This operator takes an array.")),
    };
    if count > most {
        let detail = format!("At most {most} values are compared at once here; a body takes {MAX_VALUES}.");
        return Err(refusal("limit", detail));
    }
    match operand {
        Operand::Text(text) => {
            text.split(',').map(|item| value(field, &Operand::Text(&unescape(item)))).collect()
        }
        Operand::Json(items) => {
            let items = items.as_array().into_iter().flatten();
            items.map(|item| value(field, &Operand::Json(item))).collect()
        }
    }
}

/// A comma inside a value of a list is written `%2C`, encoded once more like everything in a URL, and a `%`
/// that would read as one is written `%25`.
fn unescape(item: &str) -> Cow<'_, str> {
    if item.contains('%') {
        Cow::Owned(item.replace("%2C", ",").replace("%2c", ",").replace("%25", "%"))
    } else {
        Cow::Borrowed(item)
    }
}

fn text(operand: &Operand<'_>) -> Result<String, Refusal> {
    let text = match operand {
        Operand::Text(text) => Some(*text),
        Operand::Json(json) => json.as_str(),
    };
    text.filter(|text| !text.contains('\0'))
        .map(str::to_owned)
        .ok_or_else(|| refusal("value", "This operator takes text without U+0000."))
}

fn flag(operand: &Operand<'_>) -> Result<bool, Refusal> {
    match operand {
        Operand::Text("true") | Operand::Json(Json::Bool(true)) => Ok(true),
        Operand::Text("false") | Operand::Json(Json::Bool(false)) => Ok(false),
        _ => Err(refusal("value", "`is_null` takes true or false.")),
    }
}
