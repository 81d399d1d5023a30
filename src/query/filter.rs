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
pub(super) struct FilterFault {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

/// The error message for a filter with too many nodes.
pub(super) fn too_many_nodes() -> String {
    format!(
        "A filter has at most {MAX_NODES} nodes: comparisons, `and`, `or`, `not`, and empty branches count."
    )
}

fn filter_fault(code: &'static str, detail: impl Into<String>) -> FilterFault {
    FilterFault { code, detail: detail.into() }
}

/// Resolves `path` (a field, or a field behind at most `depth` relations) and reads the operand by the field's type.
pub(super) fn comparison(
    reader: &Reader<'_>,
    path: &str,
    operator: &str,
    operand: &Operand<'_>,
    depth: usize,
) -> Result<Filter, FilterFault> {
    let Some((name, rest)) = path.split_once('.') else {
        return filterable_comparison(reader, path, operator, operand);
    };
    let Some(related) = Related::of(reader, name).filter(|_| depth > 0) else {
        return Err(unknown_field(reader, path));
    };
    let inner = comparison(&related.reader, rest, operator, operand, depth - 1)?;
    Ok(related.matching(inner))
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
        let listed = reader.visibilities.of(relation.target)?.listed.as_ref()?;
        let target = Reader { entry: reader.catalog.entry(relation.target), ..*reader };
        reader.can_follow(relation).then_some(Self { relation, listed, reader: target })
    }

    /// The condition that a related row matches this filter.
    pub(super) fn matching(&self, inner: Filter) -> Filter {
        Filter::Related(RelatedBy(self.relation.link.clone()), Box::new(self.listed.restrict(inner)))
    }
}

/// Resolves a comparison of the application itself: every field of the stored row, and every relation.
pub(super) fn trusted_comparison(
    catalog: &Catalog,
    entry: &Entry,
    path: &str,
    operator: &str,
    operand: &Operand<'_>,
    depth: usize,
) -> Result<Filter, FilterFault> {
    let Some((name, rest)) = path.split_once('.') else {
        let fields = &entry.schema.fields;
        let position = entry.schema.position(path).ok_or_else(|| {
            let known = fields.iter().map(|field| field.name.as_str());
            filter_fault("unknown", suggest(format!("there is no field `{path}`."), path, known))
        })?;
        return field_comparison(entry, position, operator, operand);
    };
    let relation = entry.links.iter().find(|relation| relation.link.name == name);
    let relation = relation.filter(|_| depth > 0);
    let relation =
        relation.ok_or_else(|| filter_fault("unknown", format!("there is no relation `{name}`")))?;
    let inner =
        trusted_comparison(catalog, catalog.entry(relation.target), rest, operator, operand, depth - 1)?;
    Ok(Filter::Related(RelatedBy(relation.link.clone()), Box::new(inner)))
}

impl Reader<'_> {
    /// Whether this caller may learn a field's value from which rows match, and from their order.
    pub(super) fn can_reveal(&self, position: usize) -> bool {
        self.visibilities
            .of(self.entry.position)
            .is_some_and(|visibility| visibility.mask.can_reveal(position))
    }

    fn can_filter(&self, position: usize) -> bool {
        self.entry.definition.filterable[position] && self.can_reveal(position)
    }

    /// The position of a field that this caller can filter by.
    pub(super) fn filterable(&self, name: &str) -> Option<usize> {
        self.entry.schema.position(name).filter(|position| self.can_filter(*position))
    }

    /// Whether a relation exists for this caller. It does not if its key on either side is hidden or redacted:
    /// following it would reveal the key.
    pub(super) fn can_follow(&self, relation: &LinkedRelation) -> bool {
        let target = self.visibilities.of(relation.target);
        let can_reveal_target =
            target.is_some_and(|visibility| visibility.mask.can_reveal(relation.link.remote));
        self.can_reveal(relation.link.local) && can_reveal_target
    }

    /// Whether a field exists for this caller.
    pub(super) fn is_visible(&self, position: usize) -> bool {
        self.visibilities
            .of(self.entry.position)
            .is_some_and(|visibility| visibility.mask.is_visible(position))
    }
}

/// The fields that this caller can filter by.
pub(super) fn filterable_names<'a>(reader: &'a Reader<'_>) -> impl Iterator<Item = &'a str> {
    let fields = reader.entry.schema.fields.iter().enumerate();
    fields.filter(|(position, _)| reader.can_filter(*position)).map(|(_, field)| field.name.as_str())
}

/// The same message for a field that does not exist, is not filterable, or is not visible.
pub(super) fn unknown_field(reader: &Reader<'_>, path: &str) -> FilterFault {
    let detail = format!("`{path}` is neither a parameter nor a field to filter by.");
    filter_fault("unknown", suggest(detail, path, filterable_names(reader)))
}

fn filterable_comparison(
    reader: &Reader<'_>,
    name: &str,
    operator: &str,
    operand: &Operand<'_>,
) -> Result<Filter, FilterFault> {
    let position = reader.filterable(name).ok_or_else(|| unknown_field(reader, name))?;
    field_comparison(reader.entry, position, operator, operand)
}

fn field_comparison(
    entry: &Entry,
    position: usize,
    operator: &str,
    operand: &Operand<'_>,
) -> Result<Filter, FilterFault> {
    let field = &entry.schema.fields[position];
    let (name, operators) = (&field.name, field.field_type.operators());
    if !operators.contains(&operator) {
        let detail = format!("`{name}` has no operator `{operator}`; it has {}.", operators.join(", "));
        return Err(filter_fault("operator", suggest(detail, operator, operators.iter().copied())));
    }
    let mut test = parse_test(field, operator, operand)?;
    // A Rust type writes each time in one spelling; a schema alone admits every spelling, as text.
    if field.format() == Some("partial-time") && entry.definition.codec.model().is_some() {
        normalize_times(field, &mut test)?;
    }
    Ok(Filter::Compare(position, test))
}

fn parse_test(field: &Field, operator: &str, operand: &Operand<'_>) -> Result<Test, FilterFault> {
    const LIST_OPERATORS: [&str; 4] = ["in", "nin", "between", "overlaps"];
    if matches!(operand, Operand::Texts(_)) && !LIST_OPERATORS.contains(&operator) {
        return Err(repeated_fault(field));
    }
    let one = || parse_value(field, operand);
    Ok(match operator {
        "eq" => Test::Eq(one()?),
        "ne" => Test::Ne(one()?),
        "gt" => Test::Gt(one()?),
        "gte" => Test::Gte(one()?),
        "lt" => Test::Lt(one()?),
        "lte" => Test::Lte(one()?),
        "in" => Test::In(parse_values(field, operand)?),
        "nin" => Test::NotIn(parse_values(field, operand)?),
        "between" => match <[Value; 2]>::try_from(parse_values(field, operand)?) {
            Ok([from, to]) => Test::Between(from, to),
            Err(_) => return Err(filter_fault("value", "`between` takes two values: `1,10`.")),
        },
        "contains" => Test::Contains(parse_text(operand)?),
        "starts" => Test::Starts(parse_text(operand)?),
        "ends" => Test::Ends(parse_text(operand)?),
        "is_null" => Test::IsNull(parse_bool(operand)?),
        "has" => Test::Has(one()?),
        // The last of the operators that a field's type can have.
        _ => Test::Overlaps(parse_values(field, operand)?),
    })
}

fn repeated_fault(field: &Field) -> FilterFault {
    let detail = "This can be given once only.";
    if !field.field_type.operators().contains(&"in") {
        return filter_fault("repeated", detail);
    }
    filter_fault("repeated", format!("{detail} One of several values is `{0}[in]=a,b`.", field.name))
}

/// Reads one value of the field's type, or of its element type where it is an array.
fn parse_value(field: &Field, operand: &Operand<'_>) -> Result<Value, FilterFault> {
    let element = match field.field_type {
        FieldType::Array(element) => FieldType::from(element),
        other => other,
    };
    let value = match operand {
        Operand::Text(text) => element.parse(text),
        Operand::Texts(_) => return Err(repeated_fault(field)),
        Operand::Json(json) => element.read_json(json),
    }
    .map_err(|malformed| filter_fault("value", format!("Not a value of `{}`: {malformed}.", field.name)))?;
    match &value {
        Value::Null => Err(filter_fault("value", "Null is tested with `is_null`.")),
        Value::Text(text) => {
            check_enum(field, text)?;
            Ok(value)
        }
        _ => Ok(value),
    }
}

/// Normalises the times of day in a comparison to the spelling in which they are stored.
fn normalize_times(field: &Field, test: &mut Test) -> Result<(), FilterFault> {
    let values = match test {
        Test::Eq(value)
        | Test::Ne(value)
        | Test::Gt(value)
        | Test::Gte(value)
        | Test::Lt(value)
        | Test::Lte(value) => std::slice::from_mut(value),
        Test::In(values) | Test::NotIn(values) => values,
        Test::Between(from, to) => {
            return [from, to].into_iter().try_for_each(|value| normalize_time(field, value));
        }
        _ => return Ok(()),
    };
    values.iter_mut().try_for_each(|value| normalize_time(field, value))
}

fn normalize_time(field: &Field, value: &mut Value) -> Result<(), FilterFault> {
    if let Value::Text(text) = value {
        *text = parse_time_of_day(field, text)?;
    }
    Ok(())
}

/// Normalises a time of day to chrono's spelling: it is stored and compared as text.
fn parse_time_of_day(field: &Field, text: &str) -> Result<String, FilterFault> {
    let time = ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|form| NaiveTime::parse_from_str(text, form).ok());
    let time = time.ok_or_else(|| {
        filter_fault("value", format!("Not a value of `{}`: expected a time of day, HH:MM:SS.", field.name))
    })?;
    Ok(format!("{time:?}"))
}

/// A text that the field's enum does not list is a misspelling, not a filter that matches nothing.
fn check_enum(field: &Field, text: &str) -> Result<(), FilterFault> {
    let Some(values) = field.enum_values() else {
        return Ok(());
    };
    let names = values.iter().filter_map(Json::as_str);
    if names.clone().any(|name| name == text) {
        return Ok(());
    }
    let all: Vec<_> = names.clone().collect();
    let detail = format!("`{}` is one of {}.", field.name, all.join(", "));
    Err(filter_fault("value", suggest(detail, text, names)))
}

fn parse_values(field: &Field, operand: &Operand<'_>) -> Result<Vec<Value>, FilterFault> {
    let (count, max) = match operand {
        Operand::Text("") => return Ok(Vec::new()),
        Operand::Text(text) => (text.split(',').count(), MAX_URL_VALUES),
        Operand::Texts(texts) => (texts.len(), MAX_URL_VALUES),
        Operand::Json(Json::Array(items)) => (items.len(), MAX_VALUES),
        Operand::Json(_) => return Err(filter_fault("value", "This operator takes an array.")),
    };
    if count > max {
        let detail = format!("At most {max} values are compared at once here; a body takes {MAX_VALUES}.");
        return Err(filter_fault("limit", detail));
    }
    match operand {
        Operand::Text(text) => {
            text.split(',').map(|item| parse_value(field, &Operand::Text(&unescape(item)))).collect()
        }
        // Repeated parameters are not split: a comma is part of a value.
        Operand::Texts(texts) => texts.iter().map(|item| parse_value(field, &Operand::Text(item))).collect(),
        Operand::Json(items) => {
            let items = items.as_array().into_iter().flatten();
            items.map(|item| parse_value(field, &Operand::Json(item))).collect()
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

fn parse_text(operand: &Operand<'_>) -> Result<String, FilterFault> {
    let text = match operand {
        Operand::Text(text) => Some(*text),
        Operand::Texts(_) => None,
        Operand::Json(json) => json.as_str(),
    };
    text.filter(|text| !text.contains('\0'))
        .map(str::to_owned)
        .ok_or_else(|| filter_fault("value", "This operator takes text without U+0000."))
}

fn parse_bool(operand: &Operand<'_>) -> Result<bool, FilterFault> {
    match operand {
        Operand::Text("true") | Operand::Json(Json::Bool(true)) => Ok(true),
        Operand::Text("false") | Operand::Json(Json::Bool(false)) => Ok(false),
        _ => Err(filter_fault("value", "`is_null` takes true or false.")),
    }
}
