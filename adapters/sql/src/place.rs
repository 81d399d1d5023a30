//! Keyset pagination: the rows beyond a cursor in a total order.

use resourceful_contract::{Position, Query, Value};
use sea_query::{Expr, ExprTrait as _};

use crate::args::Numbering;
use crate::dialect::Dialect;
use crate::filter::joined;
use crate::overrides::Overrides;

/// One sort key of a cursor.
struct Key {
    column: Expr,
    argument: Expr,
    /// Whether rows beyond the cursor have greater values.
    upwards: bool,
    nullable: bool,
    /// Whether the cursor's own value is null.
    null: bool,
}

/// The condition that a row lies beyond the query's cursor; `None` for a page that begins at the start.
pub(crate) fn beyond<D: Dialect>(
    query: &Query,
    alias: &str,
    numbering: &mut Numbering,
    overrides: &Overrides,
) -> Option<Expr> {
    let (place, backwards) = match &query.position {
        Position::After(place) => (place, false),
        Position::Before(place) => (place, true),
        Position::Start | Position::Offset(_) => return None,
    };
    let keys = keys::<D>(query, (place, backwards), alias, numbering, overrides);
    let same_direction = keys.windows(2).all(|pair| pair[0].upwards == pair[1].upwards);
    if same_direction && keys.iter().all(|key| !key.nullable) {
        return Some(row_value::<D>(&keys));
    }
    let mut beyond = Vec::new();
    for (position, key) in keys.iter().enumerate() {
        let Some(step) = past::<D>(key) else {
            continue;
        };
        let mut all: Vec<_> = keys[..position].iter().map(at::<D>).collect();
        all.push(step);
        beyond.push(joined::<D>(all, true));
    }
    let beyond = D::template("($1)", [joined::<D>(beyond, false)]);
    // A condition on the first key alone lets an index scan begin at the cursor.
    Some(match keys.first().and_then(|key| not_before::<D>(key)) {
        Some(bound) => bound.and(beyond),
        None => beyond,
    })
}

fn keys<D: Dialect>(
    query: &Query,
    (place, backwards): (&[Value], bool),
    alias: &str,
    numbering: &mut Numbering,
    overrides: &Overrides,
) -> Vec<Key> {
    query
        .sort
        .iter()
        .zip(place)
        .map(|(sort, value)| {
            let field = &query.schema.fields[sort.field];
            Key {
                column: overrides.comparable::<D>(&query.schema, alias, sort.field),
                argument: overrides.value::<D>(&query.schema, sort.field, numbering.next()),
                upwards: sort.descending == backwards,
                nullable: field.nullable,
                null: value.is_null(),
            }
        })
        .collect()
}

/// `(a, b) > (x, y)`, a row comparison that one index scan answers.
fn row_value<D: Dialect>(keys: &[Key]) -> Expr {
    let count = keys.len();
    let numbers =
        |from: usize| (from..from + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ");
    let operator = if keys.first().is_none_or(|key| key.upwards) { '>' } else { '<' };
    let template = format!("({}) {operator} ({})", numbers(1), numbers(count + 1));
    let columns = keys.iter().map(|key| key.column.clone());
    D::template(&template, columns.chain(keys.iter().map(|key| key.argument.clone())))
}

/// The condition that a row equals the cursor in this key.
fn at<D: Dialect>(key: &Key) -> Expr {
    if key.nullable {
        D::is_same(key.column.clone(), key.argument.clone())
    } else {
        D::template("$1 = $2", [key.column.clone(), key.argument.clone()])
    }
}

/// The condition that a row is strictly beyond the cursor in this key; nulls sort after every value. `None` if no row can
/// be.
fn past<D: Dialect>(key: &Key) -> Option<Expr> {
    let (column, argument) = (key.column.clone(), key.argument.clone());
    Some(match (key.upwards, key.null) {
        (true, true) => return None,
        (false, true) => D::template("$1 IS NOT NULL", [column]),
        (true, false) if key.nullable => {
            D::template("($1 > $2 OR $3 IS NULL)", [column.clone(), argument, column])
        }
        (true, false) => D::template("$1 > $2", [column, argument]),
        (false, false) => D::template("$1 < $2", [column, argument]),
    })
}

/// The condition that a row is at or beyond the cursor in this key, where an index can use it.
fn not_before<D: Dialect>(key: &Key) -> Option<Expr> {
    let (column, argument) = (key.column.clone(), key.argument.clone());
    match (key.upwards, key.null, key.nullable) {
        (true, true, _) => Some(D::template("$1 IS NULL", [column])),
        (true, false, false) => Some(D::template("$1 >= $2", [column, argument])),
        (false, false, _) => Some(D::template("$1 <= $2", [column, argument])),
        (false, true, _) | (true, false, true) => None,
    }
}
