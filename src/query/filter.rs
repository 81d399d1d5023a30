//! Comparisons from query strings and bodies, resolved against the declaration.

use std::borrow::Cow;

use chrono::NaiveTime;
use resourceful_contract::{Field, FieldType, Filter, RelatedBy, Test, Value};
use serde_json::Value as Json;

use super::Reader;
use crate::catalog::{Catalog, Entry, LinkedRelation, RowFilter};
use crate::nearest::suggest;

/// The most values of a list operand in a body.
pub(crate) const MAX_VALUES: usize = 1_000;
/// The same in a query string, which is short by nature.
pub(crate) const MAX_URL_VALUES: usize = 100;
/// The most relations that a dotted name may follow.
pub(super) const MAX_DEPTH: usize = 3;

/// The most nodes of a filter: comparisons, `and`, `or`, `not`, and empty branches. Each of them adds text to the
/// statement, and work for the database.
pub(super) const MAX_NODES: usize = 256;

/// What a field is compared with, as the client wrote it.
pub(super) enum Operand<'a> {
    Text(&'a str),
    /// The values of a repeated parameter, each of them literal.
    Texts(&'a [Cow<'a, str>]),
    Json(&'a Json),
}

/// Why a comparison is refused.
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

/// The error message for a filter with too many nodes.
pub(super) fn too_many_nodes() -> String {
    format!(
        "A filter has at most {MAX_NODES} nodes: comparisons, `and`, `or`, `not`, and empty branches count."
    )
}

fn refusal(code: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal { code, detail: detail.into() }
}

/// Resolves `path` (a field, or a field behind at most `depth` relations) and reads the operand by the field's type.
pub(super) fn comparison(
    reader: &Reader<'_>,
    path: &str,
    operator: &str,
    operand: &Operand<'_>,
    depth: usize,
) -> Result<Filter, Refusal> {
    let Some((name, rest)) = path.split_once('.') else {
        return compare(reader, path, operator, operand);
    };
    let Some(related) = Related::of(reader, name).filter(|_| depth > 0) else {
        return Err(unknown_field(reader, path));
    };
    let inner = comparison(&related.reader, rest, operator, operand, depth - 1)?;
    Ok(related.with(inner))
}

/// The rows behind a relation, as far as the caller may list them.
pub(super) struct Related<'a> {
    relation: &'a LinkedRelation,
    listed: &'a RowFilter,
    /// Reads filters on these rows.
    pub(super) reader: Reader<'a>,
}

impl<'a> Related<'a> {
    /// The rows behind the relation of this name; `None` if it does not exist for this caller.
    pub(super) fn of(reader: &Reader<'a>, name: &str) -> Option<Self> {
        let relation = reader.entry.links.iter().find(|relation| relation.link.name == name)?;
        // For a caller, a resource that it may not list does not exist, nor does a row that it may not see.
        let listed = reader.sights.of(relation.target)?.listed.as_ref()?;
        let target = Reader { entry: reader.catalog.entry(relation.target), ..*reader };
        reader.follows(relation).then_some(Self { relation, listed, reader: target })
    }

    /// The condition that a related row matches this filter.
    pub(super) fn with(&self, inner: Filter) -> Filter {
        Filter::Related(RelatedBy(self.relation.link.clone()), Box::new(self.listed.within(inner)))
    }
}

/// Resolves a comparison of the application itself: every field of the stored row, and every relation.
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
        return tested(entry, position, operator, operand);
    };
    let relation = entry.links.iter().find(|relation| relation.link.name == name);
    let relation = relation.filter(|_| depth > 0);
    let relation = relation.ok_or_else(|| refusal("unknown", format!("there is no relation `{name}`")))?;
    let inner = trusted(catalog, catalog.entry(relation.target), rest, operator, operand, depth - 1)?;
    Ok(Filter::Related(RelatedBy(relation.link.clone()), Box::new(inner)))
}

impl Reader<'_> {
    /// Whether this caller may learn a field's value from which rows match, and from their order.
    pub(super) fn tells(&self, position: usize) -> bool {
        self.sights.of(self.entry.position).is_some_and(|sight| sight.mask.tells(position))
    }

    fn can_filter(&self, position: usize) -> bool {
        self.entry.definition.filterable[position] && self.tells(position)
    }

    /// The position of a field that this caller can filter by.
    pub(super) fn filterable(&self, name: &str) -> Option<usize> {
        self.entry.schema.position(name).filter(|position| self.can_filter(*position))
    }

    /// Whether a relation exists for this caller. It does not if its key on either side is hidden or redacted:
    /// following it would reveal the key.
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

/// The fields that this caller can filter by.
pub(super) fn filterable_names<'a>(reader: &'a Reader<'_>) -> impl Iterator<Item = &'a str> {
    let fields = reader.entry.schema.fields.iter().enumerate();
    fields.filter(|(position, _)| reader.can_filter(*position)).map(|(_, field)| field.name.as_str())
}

/// The same message for a field that does not exist, is not filterable, or is not visible.
pub(super) fn unknown_field(reader: &Reader<'_>, path: &str) -> Refusal {
    let detail = format!("`{path}` is neither a parameter nor a field to filter by.");
    refusal("unknown", suggest(detail, path, filterable_names(reader)))
}

fn compare(
    reader: &Reader<'_>,
    name: &str,
    operator: &str,
    operand: &Operand<'_>,
) -> Result<Filter, Refusal> {
    let position = reader.filterable(name).ok_or_else(|| unknown_field(reader, name))?;
    tested(reader.entry, position, operator, operand)
}

fn tested(entry: &Entry, position: usize, operator: &str, operand: &Operand<'_>) -> Result<Filter, Refusal> {
    let field = &entry.schema.fields[position];
    let (name, legal) = (&field.name, field.field_type.operators());
    if !legal.contains(&operator) {
        let detail = format!("`{name}` has no operator `{operator}`; it has {}.", legal.join(", "));
        return Err(refusal("operator", suggest(detail, operator, legal.iter().copied())));
    }
    let mut test = test(field, operator, operand)?;
    // A Rust type writes each time in one spelling; a schema alone admits every spelling, as text.
    if field.format() == Some("partial-time") && entry.definition.codec.model().is_some() {
        spell_times(field, &mut test)?;
    }
    Ok(Filter::Compare(position, test))
}

fn test(field: &Field, operator: &str, operand: &Operand<'_>) -> Result<Test, Refusal> {
    const OF_LISTS: [&str; 4] = ["in", "nin", "between", "overlaps"];
    if matches!(operand, Operand::Texts(_)) && !OF_LISTS.contains(&operator) {
        return Err(repeated(field));
    }
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
        // The last of the operators that a field's type can have.
        _ => Test::Overlaps(several(field, operand)?),
    })
}

fn repeated(field: &Field) -> Refusal {
    let detail = "This can be given once only.";
    if !field.field_type.operators().contains(&"in") {
        return refusal("repeated", detail);
    }
    refusal("repeated", format!("{detail} One of several values is `{0}[in]=a,b`.", field.name))
}

/// Reads one value of the field's type, or of its element type where it is an array.
fn value(field: &Field, operand: &Operand<'_>) -> Result<Value, Refusal> {
    let element = match field.field_type {
        FieldType::Array(element) => FieldType::from(element),
        other => other,
    };
    let value = match operand {
        Operand::Text(text) => element.parse(text),
        Operand::Texts(_) => return Err(repeated(field)),
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

/// Normalises the times of day in a comparison to the spelling in which they are stored.
fn spell_times(field: &Field, test: &mut Test) -> Result<(), Refusal> {
    let values = match test {
        Test::Eq(value)
        | Test::Ne(value)
        | Test::Gt(value)
        | Test::Gte(value)
        | Test::Lt(value)
        | Test::Lte(value) => std::slice::from_mut(value),
        Test::In(values) | Test::NotIn(values) => values,
        Test::Between(from, to) => {
            return [from, to].into_iter().try_for_each(|value| spell_time(field, value));
        }
        _ => return Ok(()),
    };
    values.iter_mut().try_for_each(|value| spell_time(field, value))
}

fn spell_time(field: &Field, value: &mut Value) -> Result<(), Refusal> {
    if let Value::Text(text) = value {
        *text = time_of_day(field, text)?;
    }
    Ok(())
}

/// Normalises a time of day to chrono's spelling: it is stored and compared as text.
fn time_of_day(field: &Field, text: &str) -> Result<String, Refusal> {
    let time = ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|form| NaiveTime::parse_from_str(text, form).ok());
    let time = time.ok_or_else(|| {
        refusal("value", format!("Not a value of `{}`: expected a time of day, HH:MM:SS.", field.name))
    })?;
    Ok(format!("{time:?}"))
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
        Operand::Texts(texts) => (texts.len(), MAX_URL_VALUES),
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
        // Repeated parameters are not split: a comma is part of a value.
        Operand::Texts(texts) => texts.iter().map(|item| value(field, &Operand::Text(item))).collect(),
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
        Operand::Texts(_) => None,
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
