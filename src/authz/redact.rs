//! Redaction: substitute values for callers who may not see a field's own.

use indexmap::IndexMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use crate::catalog::Mask;
use crate::error::Error;
use crate::query::{Reader, Selection};

/// An object whose members keep their original JSON text.
type Object = IndexMap<String, Box<RawValue>>;

/// Redacts one row, and the related rows inside it.
pub(crate) fn redact_row(
    reader: &Reader<'_>,
    selection: &Selection,
    json: &mut Vec<u8>,
) -> Result<(), Error> {
    if !is_needed(reader, selection) {
        return Ok(());
    }
    *json = redact_json(reader, selection, json)?;
    Ok(())
}

/// Removes the fields of one row that this caller is not shown.
pub(crate) fn retain_fields(reader: &Reader<'_>, visible: &[usize], json: &mut Vec<u8>) -> Result<(), Error> {
    if reader.visibilities.requested().mask.is_fully_readable() {
        return Ok(());
    }
    let mut object: Object = serde_json::from_slice(json).map_err(Error::internal)?;
    let schema = &reader.entry.schema;
    object.retain(|name, _| schema.position(name).is_some_and(|position| visible.contains(&position)));
    *json = serde_json::to_vec(&object).map_err(Error::internal)?;
    Ok(())
}

/// The fields of an item that one caller is shown, redacted.
pub(crate) fn visible_fields(
    schema: &resourceful_contract::Schema,
    mask: &Mask,
    visible: &[usize],
    mut item: Map<String, Json>,
) -> Result<Map<String, Json>, Error> {
    item.retain(|name, _| schema.position(name).is_some_and(|position| visible.contains(&position)));
    for (field, substitute) in mask.redacted() {
        if let Some(value) = item.get_mut(schema.fields[*field].name.as_str()) {
            *value = serde_json::from_str(substitute).map_err(Error::internal)?;
        }
    }
    Ok(item)
}

/// Redacts the comma-separated rows of a list in `json` from `start` on.
pub(crate) fn redact_list(
    reader: &Reader<'_>,
    selection: &Selection,
    start: usize,
    json: &mut Vec<u8>,
) -> Result<(), Error> {
    if !is_needed(reader, selection) {
        return Ok(());
    }
    let array = [b"[", &json[start..], b"]"].concat();
    let rows: Vec<&RawValue> = serde_json::from_slice(&array).map_err(Error::internal)?;
    let rows: Vec<_> = rows
        .iter()
        .map(|one| redact_json(reader, selection, one.get().as_bytes()))
        .collect::<Result<_, _>>()?;
    json.truncate(start);
    json.extend_from_slice(&rows.join(&b','));
    Ok(())
}

fn is_needed(reader: &Reader<'_>, selection: &Selection) -> bool {
    let redacts = |resource| {
        reader.visibilities.of(resource).is_some_and(|visibility| !visibility.mask.redacted().is_empty())
    };
    redacts(reader.entry.position) || selection.includes.iter().any(|relation| redacts(relation.target))
}

fn redact_json(reader: &Reader<'_>, selection: &Selection, json: &[u8]) -> Result<Vec<u8>, Error> {
    let mut object: Object = serde_json::from_slice(json).map_err(Error::internal)?;
    replace_redacted(&mut object, &reader.entry.schema, &reader.visibilities.requested().mask)?;
    for relation in &selection.includes {
        let target = reader.catalog.entry(relation.target);
        let (Some(visibility), Some(related)) =
            (reader.visibilities.of(relation.target), object.get_mut(relation.link.name.as_str()))
        else {
            continue;
        };
        *related = redact_related(related, &target.schema, &visibility.mask)?;
    }
    serde_json::to_vec(&object).map_err(Error::internal)
}

/// A related row, `null`, or several rows.
fn redact_related(
    json: &RawValue,
    schema: &resourceful_contract::Schema,
    mask: &Mask,
) -> Result<Box<RawValue>, Error> {
    let one = |json: &str| -> Result<Box<RawValue>, Error> {
        let mut object: Object = serde_json::from_str(json).map_err(Error::internal)?;
        replace_redacted(&mut object, schema, mask)?;
        serde_json::value::to_raw_value(&object).map_err(Error::internal)
    };
    match json.get().as_bytes().first() {
        Some(b'{') => one(json.get()),
        Some(b'[') => {
            let rows: Vec<&RawValue> = serde_json::from_str(json.get()).map_err(Error::internal)?;
            let rows = rows.iter().map(|row| one(row.get())).collect::<Result<Vec<_>, _>>()?;
            serde_json::value::to_raw_value(&rows).map_err(Error::internal)
        }
        _ => Ok(json.to_owned()),
    }
}

fn replace_redacted(
    object: &mut Object,
    schema: &resourceful_contract::Schema,
    mask: &Mask,
) -> Result<(), Error> {
    for (field, substitute) in mask.redacted() {
        if let Some(value) = object.get_mut(schema.fields[*field].name.as_str()) {
            *value = RawValue::from_string(substitute.to_string()).map_err(Error::internal)?;
        }
    }
    Ok(())
}
