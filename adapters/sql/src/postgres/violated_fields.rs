//! Finds the fields that caused a refused change in PostgreSQL's catalog.

use resourceful_contract::{Schema, Value};
use rust_decimal::prelude::ToPrimitive as _;
use sqlx::postgres::{PgArguments, PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, Row as _};

use crate::storage::unprepared_query;
use crate::violated_fields::constraint_fields;

pub(super) async fn rejected_fields(
    connection: &mut PgConnection,
    schema: &Schema,
    error: &sqlx::Error,
    written: &[(usize, &Value)],
) -> Result<Vec<usize>, sqlx::Error> {
    let detail = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    let Some(detail) = detail else { return Ok(Vec::new()) };
    match detail.code() {
        "23514" => {
            let (constraint, domain) = (detail.constraint(), detail.data_type());
            let rule = constrained_fields(
                connection,
                schema,
                constraint.unwrap_or_default(),
                domain.unwrap_or_default(),
            );
            Ok(constraint_fields(rule.await?, written))
        }
        // String data right truncation (text too long); numeric value out of range.
        "22001" | "22003" => oversized_fields(connection, schema, written).await,
        _ => Ok(Vec::new()),
    }
}

fn position(schema: &Schema, column: &str) -> Option<usize> {
    schema.fields.iter().position(|field| field.column == column)
}

/// The fields whose columns a check constraint names, or whose columns are of a domain.
async fn constrained_fields(
    connection: &mut PgConnection,
    schema: &Schema,
    constraint: &str,
    domain: &str,
) -> Result<Vec<usize>, sqlx::Error> {
    let table = super::regclass_literal(schema);
    let columns = format!(
        "SELECT a.attname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
         WHERE a.attrelid = to_regclass({table}) AND a.attnum > 0 AND NOT a.attisdropped \
         AND (t.typtype = 'd' AND t.typname = $2 OR EXISTS (SELECT 1 FROM pg_constraint c \
           WHERE c.conrelid = a.attrelid AND c.conname = $1 AND a.attnum = ANY(c.conkey)))"
    );
    let columns = sqlx::query_scalar::<_, String>(AssertSqlSafe(columns)).persistent(false);
    let columns = columns.bind(constraint).bind(domain);
    let columns = columns.fetch_all(connection).await?;
    Ok(columns.iter().filter_map(|column| position(schema, column)).collect())
}

/// The written fields whose values are too large for their columns.
async fn oversized_fields(
    connection: &mut PgConnection,
    schema: &Schema,
    written: &[(usize, &Value)],
) -> Result<Vec<usize>, sqlx::Error> {
    let table = super::regclass_literal(schema);
    let columns = format!(
        "SELECT a.attname::text, b.typname::text, \
           CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END \
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
         JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END \
         WHERE a.attrelid = to_regclass({table}) AND a.attnum > 0 AND NOT a.attisdropped"
    );
    let mut fields = Vec::new();
    for row in unprepared_query(AssertSqlSafe(columns), PgArguments::default()).fetch_all(connection).await? {
        let (column, type_name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let modifier: i32 = row.try_get(2)?;
        let value =
            position(schema, &column).and_then(|field| written.iter().find(|(written, _)| *written == field));
        if let Some((field, value)) = value
            && !fits(&type_name, modifier, value)
        {
            fields.push(*field);
        }
    }
    Ok(fields)
}

/// Whether a column of this type accepts a value. `modifier` holds a length or a precision with a scale, and 4 more; it is
/// negative where there is none.
fn fits(type_name: &str, modifier: i32, value: &Value) -> bool {
    if let (Some(element), Value::Array(items)) = (type_name.strip_prefix('_'), value) {
        return items.iter().all(|item| fits(element, modifier, item));
    }
    let modifier = modifier.checked_sub(4).filter(|modifier| *modifier >= 0);
    match (type_name, value) {
        ("varchar" | "bpchar", Value::Text(text)) => {
            // Trailing blanks beyond the length are truncated.
            modifier.is_none_or(|length| text.trim_end_matches(' ').chars().count() <= length as usize)
        }
        ("int2", Value::Integer(number)) => i16::try_from(*number).is_ok(),
        ("int4", Value::Integer(number)) => i32::try_from(*number).is_ok(),
        ("float4", Value::Float(number)) => (*number as f32).is_finite(),
        ("numeric", Value::Decimal(number)) => modifier.is_none_or(|modifier| {
            let precision = (modifier >> 16) & 0xffff;
            // An 11-bit signed number.
            let scale = ((modifier & 0x7ff) ^ 0x400) - 0x400;
            // Rounded to its scale, a value must have no more digits before the point than are left.
            let scaled = number.to_f64().unwrap_or(f64::INFINITY).abs() * 10_f64.powi(scale);
            scaled.round() < 10_f64.powi(precision)
        }),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_against_column_limits() {
        let text = |text: &str| Value::Text(text.to_owned());
        let decimal = |text: &str| resourceful_contract::FieldType::Decimal.parse(text).unwrap();
        let numeric = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        for (type_name, modifier, value, expected) in [
            ("varchar", 9, text("äöüßé"), true),
            ("varchar", 9, text("äöüßéx"), false),
            ("varchar", 9, text("abcde   "), true),
            ("varchar", -1, text("abcdefghij"), true),
            ("_varchar", 5, Value::Array(vec![text("a"), text("ab")]), false),
            ("int2", -1, Value::Integer(32_768), false),
            ("int4", -1, Value::Integer(-2_147_483_648), true),
            ("float4", -1, Value::Float(1e39), false),
            ("numeric", numeric(10, 2), decimal("99999999.994"), true),
            ("numeric", numeric(10, 2), decimal("99999999.995"), false),
            ("numeric", numeric(3, -2), decimal("99949"), true),
            ("numeric", numeric(3, -2), decimal("99950"), false),
            ("numeric", -1, decimal("1e20"), true),
            ("text", -1, text("abc"), true),
        ] {
            assert_eq!(fits(type_name, modifier, &value), expected, "{type_name} {modifier} {value:?}");
        }
    }
}
