//! Related items inside a response: by the storage itself where it holds both sides, otherwise in batches.

use std::collections::HashMap;

use resourceful_contract::{Cardinality, Filter, Include, Position, Query, Rows, Sort, Test, Value};

use crate::catalog::RowFilter;
use crate::catalog::{Entry, LinkedRelation};
use crate::engine::Call;
use crate::error::Error;
use crate::query::Selection;

/// Limit of related rows in one batch.
const BATCH_SIZE: u32 = 5_000;

/// The includes that the storage resolves in the same statement.
pub(in crate::engine) async fn storage_includes(
    call: &Call<'_>,
    selection: &Selection,
) -> Result<Vec<Include>, Error> {
    let mut includes = Vec::new();
    for relation in selection.includes.iter().filter(|relation| relation.is_joinable) {
        let target = call.engine.catalog.entry(relation.target);
        let (row_filter, fields) = target_visibility(call, relation)?;
        let filter = row_filter.resolved(target, &call.engine.catalog).await?.filter().clone();
        includes.push(Include { link: relation.link.clone(), fields, filter, limit: relation.limit });
    }
    Ok(includes)
}

/// The caller's visibility of a relation's other side: its rows and their fields.
fn target_visibility<'a>(
    call: &'a Call<'_>,
    relation: &LinkedRelation,
) -> Result<(&'a RowFilter, Vec<usize>), Error> {
    let visibility = call.visibilities.of(relation.target);
    let row_filter = visibility.and_then(|visibility| Some((visibility.rows.as_ref()?, &visibility.mask)));
    let (rows, mask) =
        row_filter.ok_or_else(|| Error::internal("an include without a sight of its target"))?;
    let visible = &call.engine.catalog.entry(relation.target).definition.visible;
    Ok((rows, visible.iter().copied().filter(|field| mask.is_visible(*field)).collect()))
}

/// The keys that the other includes are looked up by.
pub(in crate::engine) fn keys(selection: &Selection) -> Vec<usize> {
    batched_relations(selection).map(|relation| relation.link.local).collect()
}

fn batched_relations(selection: &Selection) -> impl Iterator<Item = &LinkedRelation> {
    selection.includes.iter().map(AsRef::as_ref).filter(|relation| !relation.is_joinable)
}

/// Writes the items of other storages into the rows in `json` from `start` on.
pub(in crate::engine) async fn splice(
    call: &Call<'_>,
    selection: &Selection,
    rows: &Rows,
    start: usize,
    json: &mut Vec<u8>,
) -> Result<(), Error> {
    if batched_relations(selection).next().is_none() || rows.len == 0 {
        return Ok(());
    }
    let mut found = Vec::new();
    for (key, relation) in batched_relations(selection).enumerate() {
        let keys: Vec<&Value> = rows.keys.iter().map(|keys| &keys[key]).collect();
        let (row_filter, fields) = target_visibility(call, relation)?;
        let target = Target {
            entry: call.engine.catalog.entry(relation.target),
            row_filter: row_filter
                .resolved(call.engine.catalog.entry(relation.target), &call.engine.catalog)
                .await?,
            fields,
        };
        found.push((relation, fetch_related(&target, relation, &keys).await?));
    }
    let mut spliced = Vec::with_capacity(json.len() * 2);
    spliced.extend_from_slice(&json[..start]);
    let mut begin = start;
    for (row, end) in rows.ends.iter().enumerate() {
        // All but the closing brace; a row shows at least one field.
        spliced.extend_from_slice(&json[begin..end - 1]);
        for (key, (relation, found)) in found.iter().enumerate() {
            spliced.push(b',');
            resourceful_contract::json::text(&mut spliced, &relation.link.name);
            spliced.push(b':');
            write_related(relation, found.get(&key_text(&rows.keys[row][key])), &mut spliced);
        }
        spliced.push(b'}');
        if row + 1 < rows.len {
            spliced.push(b',');
        }
        begin = end + 1;
    }
    *json = spliced;
    Ok(())
}

fn write_related(relation: &LinkedRelation, found: Option<&Vec<Vec<u8>>>, out: &mut Vec<u8>) {
    match relation.link.cardinality {
        Cardinality::One => match found.and_then(|rows| rows.first()) {
            Some(row) => out.extend_from_slice(row),
            None => out.extend_from_slice(b"null"),
        },
        Cardinality::Many => {
            out.push(b'[');
            out.extend_from_slice(&found.map(|rows| rows.join(&b',')).unwrap_or_default());
            out.push(b']');
        }
    }
}

/// The other side of a relation, with the caller's visibility of it.
struct Target<'a> {
    entry: &'a Entry,
    row_filter: RowFilter,
    fields: Vec<usize>,
}

/// The related rows by the text of their key, each group within the relation's limit.
async fn fetch_related(
    target: &Target<'_>,
    relation: &LinkedRelation,
    keys: &[&Value],
) -> Result<HashMap<String, Vec<Vec<u8>>>, Error> {
    let mut distinct_keys: Vec<Value> =
        keys.iter().filter(|key| !key.is_null()).map(|key| (*key).clone()).collect();
    distinct_keys.sort_by(Value::compare);
    distinct_keys.dedup();
    let mut groups = HashMap::new();
    if distinct_keys.is_empty() {
        return Ok(groups);
    }
    if fetch_groups(target, relation, Test::In(distinct_keys.clone()), BATCH_SIZE, &mut groups).await? {
        // One key has so many rows that a shared batch would starve the others: each key gets its own query.
        groups.clear();
        for key in distinct_keys {
            fetch_groups(target, relation, Test::Eq(key), relation.limit, &mut groups).await?;
        }
    }
    for group in groups.values_mut() {
        group.truncate(relation.limit as usize);
    }
    Ok(groups)
}

/// Adds the rows that pass the test to their groups; returns whether there were more than the limit.
async fn fetch_groups(
    target: &Target<'_>,
    relation: &LinkedRelation,
    test: Test,
    limit: u32,
    groups: &mut HashMap<String, Vec<Vec<u8>>>,
) -> Result<bool, Error> {
    let query = Query {
        schema: target.entry.schema.clone(),
        filter: Filter::Compare(relation.link.remote, test),
        sort: vec![Sort::ascending(target.entry.schema.id)],
        fields: target.fields.clone(),
        includes: Vec::new(),
        keys: vec![relation.link.remote],
        versions: false,
        position: Position::Start,
        limit,
        count: None,
    };
    let mut json = Vec::new();
    let rows = target.entry.storage.fetch(&target.row_filter.guard_query(query), &mut json).await?;
    let mut begin = 0;
    for (end, keys) in rows.ends.iter().zip(&rows.keys) {
        groups.entry(key_text(&keys[0])).or_default().push(json[begin..*end].to_vec());
        begin = end + 1;
    }
    Ok(rows.more)
}

/// A key as text: two values of one field are equal when their JSON is.
fn key_text(key: &Value) -> String {
    let mut text = Vec::new();
    resourceful_contract::json::value(&mut text, key);
    String::from_utf8_lossy(&text).into_owned()
}
