//! Related rows of `has_many`, aggregated by the database and formatted like all other rows.

use resourceful_contract::{FieldType, Include, ScalarType, Schema, Value, json};
use sea_query::{Expr, IntoIden as _, Order, Query};
use serde_json::Value as Json;

use crate::dialect::{CodecError, Dialect, to_float32};
use crate::plan::OutputField;
use crate::select::{column, table};
use crate::undecodable::log_undecodable;

/// The subquery that returns a JSON array with a tuple for each related row.
pub(crate) fn related_rows_subquery<D: Dialect>(
    include: &Include,
    alias: &str,
    condition: Expr,
    limit: u64,
) -> Expr {
    let target = &include.link.target;
    let name = |position: usize| format!("c{position}");
    let mut rows = Query::select();
    for (position, field) in include.fields.iter().enumerate() {
        rows.expr_as(column(target, alias, *field), name(position).into_iden());
    }
    rows.from_as(table(&target.table), alias.to_owned().into_iden())
        .and_where(condition)
        .order_by_expr(column(target, alias, target.id), Order::Asc)
        .limit(limit);
    let subquery_alias = format!("{alias}s");
    let columns = include.fields.iter().enumerate().map(|(position, field)| {
        let expr = Expr::col((subquery_alias.clone().into_iden(), name(position).into_iden()));
        (expr, target.fields[*field].field_type)
    });
    let mut aggregated = Query::select();
    aggregated
        .expr(D::aggregate(D::tuple(columns.collect())))
        .from_subquery(rows, subquery_alias.clone().into_iden());
    Expr::SubQuery(None, Box::new(aggregated.into()))
}

/// Converts an array of tuples to an array of objects, and appends it.
pub(crate) fn write_related(
    out: &mut Vec<u8>,
    tuples: Option<&str>,
    fields: &[OutputField],
    target: &Schema,
) -> Result<(), CodecError> {
    let tuples: Vec<Vec<Json>> = match tuples {
        Some(tuples) => serde_json::from_str(tuples)?,
        None => Vec::new(),
    };
    out.push(b'[');
    for (position, tuple) in tuples.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        for (field, value) in fields.iter().zip(tuple) {
            out.extend_from_slice(&field.prefix);
            let value = decode_json(value, field.field_type).unwrap_or_else(|error| {
                let at = fields.iter().position(|field| field.field == target.id);
                log_undecodable(target, field.field, || at.map(|at| tuple[at].to_string()), &error);
                Value::Null
            });
            json::value(out, &value);
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}

/// Decodes a value from the output of the database's own JSON functions.
fn decode_json(json: &Json, field_type: FieldType) -> Result<Value, CodecError> {
    Ok(match (field_type, json) {
        (FieldType::Boolean, Json::Number(number)) => Value::Boolean(number.as_i64() != Some(0)),
        // As SQLite's quote() writes it.
        (FieldType::Float | FieldType::Float32, Json::String(text)) if text == "NULL" => Value::Null,
        (FieldType::Float, Json::String(text)) => Value::Float(text.parse()?),
        (FieldType::Float32, Json::String(text)) => Value::Float32(to_float32(text.parse()?)?),
        (FieldType::Json, Json::String(text)) => Value::Json(serde_json::from_str(text)?),
        (FieldType::Array(element), Json::String(text)) => {
            decode_elements(&serde_json::from_str::<Vec<Json>>(text)?, element)?
        }
        (FieldType::Array(element), Json::Array(items)) => decode_elements(items, element)?,
        (FieldType::DateTime, Json::String(text)) => {
            // PostgreSQL adds the era; a year BC cannot be expressed in JSON's date-time format.
            let text = text.strip_suffix("AD").unwrap_or(text);
            let instant = chrono::DateTime::parse_from_rfc3339(text)?;
            Value::DateTime(instant.with_timezone(&chrono::Utc))
        }
        (field_type, json) => field_type.read_json(json)?,
    })
}

fn decode_elements(items: &[Json], element: ScalarType) -> Result<Value, CodecError> {
    let values: Result<_, _> = items.iter().map(|item| decode_json(item, element.into())).collect();
    Ok(Value::Array(values?))
}
