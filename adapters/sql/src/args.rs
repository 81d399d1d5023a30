//! Arguments of SQL statements, in the order in which they are numbered.

use resourceful_contract::{FieldType, ScalarType, Value};
use sea_query::{Expr, Values};

/// One argument of a statement, borrowed from its query or change.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "postgres"),
    expect(dead_code, reason = "SQLite's values say their types themselves")
)]
pub(crate) enum Arg<'a> {
    /// A value, bound as this type even when it is null.
    One(FieldType, &'a Value),
    /// Several values of one type, bound as a list.
    Many(FieldType, &'a [Value]),
    /// Several elements of arrays of this type, bound as a list.
    Elements(ScalarType, &'a [Value]),
    Text(&'a str),
    /// A search term, bound as the pattern of the dialect.
    SearchTerm(&'a str),
    /// The same search term, in the form that ASCII text holds it.
    AsciiSearchTerm(&'a str),
    Number(i64),
}

/// Numbers the arguments of a statement while its SQL text is built.
///
/// sea-query collects the values of a statement in the order in which the text names them. The values put in are only
/// argument numbers, so what comes back is the order in which the arguments are bound.
#[derive(Debug, Default)]
pub(crate) struct Numbering(u64);

impl Numbering {
    pub(crate) fn next(&mut self) -> Expr {
        Expr::val(self.next_number())
    }

    /// The next argument number, for LIMIT and OFFSET, which take numbers only.
    pub(crate) fn next_number(&mut self) -> u64 {
        let number = self.0;
        self.0 += 1;
        number
    }
}

/// The order in which a built statement names its arguments.
pub(crate) fn argument_order(values: &Values) -> Vec<usize> {
    values
        .iter()
        .map(|value| match value {
            sea_query::Value::BigUnsigned(Some(number)) => usize::try_from(*number).unwrap_or(usize::MAX),
            // No other values are put into a statement; an index that does not exist fails the binding.
            _ => usize::MAX,
        })
        .collect()
}
