//! Finds the fields that caused a refused change in the text of SQLite's constraints.

use resourceful_contract::{Schema, Value};
use sqlx::sqlite::SqliteConnection;

use crate::violated_fields::{constraint_fields, identifiers};

/// The prefix of a check constraint's error; the constraint's name follows, or its expression if it has none.
const CHECK_PREFIX: &str = "CHECK constraint failed: ";

pub(super) async fn rejected_fields(
    connection: &mut SqliteConnection,
    schema: &Schema,
    error: &sqlx::Error,
    written: &[(usize, &Value)],
) -> Result<Vec<usize>, sqlx::Error> {
    let message = error.as_database_error().map(sqlx::error::DatabaseError::message);
    let Some(check) = message.and_then(|message| message.strip_prefix(CHECK_PREFIX)) else {
        return Ok(Vec::new());
    };
    let table =
        sqlx::query_scalar::<_, String>("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1")
            .bind(&schema.table)
            .fetch_optional(connection)
            .await?;
    let table = table.unwrap_or_default();
    let words = identifiers(check_expression(&table, check).unwrap_or(check));
    let columns = schema.fields.iter().enumerate();
    let rule = columns.filter(|(_, field)| words.iter().any(|word| word.eq_ignore_ascii_case(&field.column)));
    Ok(constraint_fields(rule.map(|(position, _)| position).collect(), written))
}

/// The expression of a named check constraint in a CREATE TABLE statement.
fn check_expression<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    let folded = table.to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    let (at, _) = folded.match_indices("constraint").find(|(at, found)| {
        let rest = folded[at + found.len()..].trim_start();
        let rest = rest.trim_start_matches(['"', '`', '[']);
        rest.strip_prefix(&name)
            .is_some_and(|rest| rest.trim_start_matches(['"', '`', ']']).trim_start().starts_with("check"))
    })?;
    let begin = at + folded[at..].find('(')?;
    let mut depth = 0;
    for (offset, character) in table[begin..].char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&table[begin..begin + offset]);
        }
    }
    None
}
