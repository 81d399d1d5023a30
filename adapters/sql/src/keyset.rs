//! Keyset pagination: the rows beyond a cursor in a total order.

use resourceful_contract::{Position, Query, Value};
use sea_query::{Expr, ExprTrait as _};

use crate::args::Numbering;
use crate::column_overrides::Overrides;
use crate::dialect::Dialect;
use crate::filter::combine;

/// One sort key of a cursor.
struct CursorKey {
    column: Expr,
    argument: Expr,
    /// Whether rows beyond the cursor have greater values.
    is_ascending: bool,
    is_nullable: bool,
    /// Whether the cursor's own value is null.
    is_null: bool,
}

/// The condition that a row lies beyond the query's cursor; `None` for a page that begins at the start.
pub(crate) fn beyond_cursor<D: Dialect>(
    query: &Query,
    alias: &str,
    numbering: &mut Numbering,
    overrides: &Overrides,
) -> Option<Expr> {
    let (cursor, backwards) = match &query.position {
        Position::After(cursor) => (cursor, false),
        Position::Before(cursor) => (cursor, true),
        Position::Start | Position::Offset(_) => return None,
    };
    let keys = cursor_keys::<D>(query, (cursor, backwards), alias, numbering, overrides);
    let same_direction = keys.windows(2).all(|pair| pair[0].is_ascending == pair[1].is_ascending);
    if same_direction && keys.iter().all(|key| !key.is_nullable) {
        return Some(row_comparison::<D>(&keys));
    }
    let mut beyond = Vec::new();
    for (position, key) in keys.iter().enumerate() {
        let Some(step) = strictly_beyond::<D>(key) else {
            continue;
        };
        let mut all: Vec<_> = keys[..position].iter().map(equals_cursor::<D>).collect();
        all.push(step);
        beyond.push(combine::<D>(all, true));
    }
    let beyond = D::template("($1)", [combine::<D>(beyond, false)]);
    // A condition on the first key alone lets an index scan begin at the cursor.
    Some(match keys.first().and_then(|key| at_or_beyond::<D>(key)) {
        Some(bound) => bound.and(beyond),
        None => beyond,
    })
}

fn cursor_keys<D: Dialect>(
    query: &Query,
    (cursor, backwards): (&[Value], bool),
    alias: &str,
    numbering: &mut Numbering,
    overrides: &Overrides,
) -> Vec<CursorKey> {
    query
        .sort
        .iter()
        .zip(cursor)
        .map(|(sort, value)| {
            let field = &query.schema.fields[sort.field];
            CursorKey {
                column: overrides.comparable::<D>(&query.schema, alias, sort.field),
                argument: overrides.comparable_value::<D>(&query.schema, sort.field, numbering.next()),
                is_ascending: sort.descending == backwards,
                is_nullable: field.nullable,
                is_null: value.is_null(),
            }
        })
        .collect()
}

/// `(a, b) > (x, y)`, a row comparison that one index scan answers.
fn row_comparison<D: Dialect>(keys: &[CursorKey]) -> Expr {
    let count = keys.len();
    let numbers =
        |from: usize| (from..from + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ");
    let operator = if keys.first().is_none_or(|key| key.is_ascending) { '>' } else { '<' };
    let template = format!("({}) {operator} ({})", numbers(1), numbers(count + 1));
    let columns = keys.iter().map(|key| key.column.clone());
    D::template(&template, columns.chain(keys.iter().map(|key| key.argument.clone())))
}

/// The condition that a row equals the cursor in this key.
fn equals_cursor<D: Dialect>(key: &CursorKey) -> Expr {
    if key.is_nullable {
        D::is_not_distinct(key.column.clone(), key.argument.clone())
    } else {
        D::template("$1 = $2", [key.column.clone(), key.argument.clone()])
    }
}

/// The condition that a row is strictly beyond the cursor in this key; nulls sort after every value. `None` if no row can
/// be.
fn strictly_beyond<D: Dialect>(key: &CursorKey) -> Option<Expr> {
    let (column, argument) = (key.column.clone(), key.argument.clone());
    Some(match (key.is_ascending, key.is_null) {
        (true, true) => return None,
        (false, true) => D::template("$1 IS NOT NULL", [column]),
        (true, false) if key.is_nullable => {
            D::template("($1 > $2 OR $3 IS NULL)", [column.clone(), argument, column])
        }
        (true, false) => D::template("$1 > $2", [column, argument]),
        (false, false) => D::template("$1 < $2", [column, argument]),
    })
}

/// The condition that a row is at or beyond the cursor in this key, where an index can use it.
fn at_or_beyond<D: Dialect>(key: &CursorKey) -> Option<Expr> {
    let (column, argument) = (key.column.clone(), key.argument.clone());
    match (key.is_ascending, key.is_null, key.is_nullable) {
        (true, true, _) => Some(D::template("$1 IS NULL", [column])),
        (true, false, false) => Some(D::template("$1 >= $2", [column, argument])),
        (false, false, _) => Some(D::template("$1 <= $2", [column, argument])),
        (false, true, _) | (true, false, true) => None,
    }
}
