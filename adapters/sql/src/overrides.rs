//! Columns of bound tables that statements treat otherwise than those of tables made from declarations.
//!
//! Filters, cursors and ORDER BY follow one rule for each column, or a keyset page would skip rows: the rule by which
//! the parameter is compared is the one by which the column is sorted. Text is compared by its own bytes whatever the
//! column's collation, so that a filter and a policy select the same rows on every storage.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use resourceful_contract::{Link, Schema};
use sea_query::Expr;

use crate::dialect::Dialect;
use crate::select::column;

/// How statements treat one column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ColumnOverride {
    /// Whether the database computes it, so that no statement gives it a value.
    pub(crate) generated: bool,
    /// The column as it is compared and sorted by.
    pub(crate) column: Option<&'static str>,
    /// A value as the column is compared with.
    pub(crate) value: Option<&'static str>,
    /// A list of values as the column is compared with.
    pub(crate) list: Option<&'static str>,
    /// The column's collation, as a statement names it.
    pub(crate) collation: Option<Arc<str>>,
}

/// The overrides of every table that was compared with its schema, by table and column.
#[derive(Debug, Default)]
pub(crate) struct Overrides(HashMap<String, HashMap<String, ColumnOverride>>);

impl Overrides {
    /// A field's column in the rows of an alias, as it is compared and sorted by.
    pub(crate) fn comparable<D: Dialect>(&self, schema: &Schema, alias: &str, field: usize) -> Expr {
        let column = self.plain::<D>(schema, alias, field);
        D::comparable(column, schema.fields[field].field_type)
    }

    /// The same as a text or an array is searched.
    pub(crate) fn plain<D: Dialect>(&self, schema: &Schema, alias: &str, field: usize) -> Expr {
        spelled::<D>(column(schema, alias, field), self.of(schema, field).column)
    }

    /// A value as a field is compared with.
    pub(crate) fn value<D: Dialect>(&self, schema: &Schema, field: usize, value: Expr) -> Expr {
        spelled::<D>(value, self.of(schema, field).value)
    }

    /// A list of values as a field is compared with.
    pub(crate) fn list<D: Dialect>(&self, schema: &Schema, field: usize, list: Expr) -> Expr {
        spelled::<D>(list, self.of(schema, field).list)
    }

    pub(crate) fn of(&self, schema: &Schema, field: usize) -> ColumnOverride {
        self.named(&schema.table, &schema.fields[field].column)
    }

    /// A column and a value that are compared with each other.
    pub(crate) fn pair<D: Dialect>(
        &self,
        table: &str,
        name: &str,
        column: Expr,
        value: Expr,
    ) -> (Expr, Expr) {
        let found = self.named(table, name);
        (spelled::<D>(column, found.column), spelled::<D>(value, found.value))
    }

    /// That the rows of two aliases are related. Where the columns have two collations one of them must be named; by
    /// that of the other side its rows are found by their index.
    pub(crate) fn related<D: Dialect>(
        &self,
        link: &Link,
        schema: &Schema,
        (ours, theirs): (&str, &str),
    ) -> Expr {
        let (local, remote) = (self.of(schema, link.local), self.of(&link.target, link.remote));
        let mut key = column(schema, ours, link.local);
        if let Some(collation) = remote.collation.filter(|_| local.collation.is_some())
            && local.collation.as_ref() != Some(&collation)
            && !collation.contains('$')
        {
            key = D::template(&format!("$1 COLLATE {collation}"), [key]);
        }
        D::template("$1 = $2", [column(&link.target, theirs, link.remote), key])
    }

    fn named(&self, table: &str, column: &str) -> ColumnOverride {
        let columns = self.0.get(table);
        columns.and_then(|columns| columns.get(column)).cloned().unwrap_or_default()
    }
}

fn spelled<D: Dialect>(expr: Expr, template: Option<&str>) -> Expr {
    match template {
        Some(template) => D::template(template, [expr]),
        None => expr,
    }
}

/// The overrides of a database, as they are known now.
#[derive(Debug, Default)]
pub(crate) struct KnownOverrides(RwLock<Arc<Overrides>>);

impl KnownOverrides {
    /// For the building of one statement.
    pub(crate) fn now(&self) -> Arc<Overrides> {
        // A panic cannot leave a pointer half written.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what is known of a table's columns; answers whether that is another thing than before.
    pub(crate) fn keep(&self, table: &str, columns: HashMap<String, ColumnOverride>) -> bool {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.0.get(table).cloned().unwrap_or_default();
        // Several resources may be bound to one table, each to columns of its own.
        let mut after = before.clone();
        after.extend(columns);
        after.retain(|_, found| *found != ColumnOverride::default());
        if before == after {
            return false;
        }
        let mut all = known.0.clone();
        all.insert(table.to_owned(), after);
        *known = Arc::new(Overrides(all));
        true
    }
}
