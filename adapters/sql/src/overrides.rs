//! Per-column overrides for existing tables, whose columns statements treat differently from those created from
//! declarations.
//!
//! Filters, cursors and ORDER BY follow one rule for each column, or a keyset page would skip rows: a parameter is compared
//! by the same rule by which the column is sorted. Text is compared by its bytes whatever the column's collation, so that a
//! filter and a policy select the same rows on every storage.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use resourceful_contract::{Link, Schema};
use sea_query::Expr;

use crate::dialect::Dialect;
use crate::select::column;

/// How statements treat one column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ColumnOverride {
    /// Whether the column is generated, so that no statement assigns it.
    pub(crate) generated: bool,
    /// Template of the column, as it is compared and sorted.
    pub(crate) column: Option<&'static str>,
    /// Template of a value that the column is compared with.
    pub(crate) value: Option<&'static str>,
    /// Template of a list of values that the column is compared with.
    pub(crate) list: Option<&'static str>,
    /// The column's collation, as written in a statement.
    pub(crate) collation: Option<Arc<str>>,
}

/// The overrides of all tables that were compared with their schemas, by table and column.
#[derive(Debug, Default)]
pub(crate) struct Overrides(HashMap<String, HashMap<String, ColumnOverride>>);

impl Overrides {
    /// A field's column in the rows of an alias, in the form in which it is compared and sorted.
    pub(crate) fn comparable<D: Dialect>(&self, schema: &Schema, alias: &str, field: usize) -> Expr {
        let column = self.plain::<D>(schema, alias, field);
        D::comparable(column, schema.fields[field].field_type)
    }

    /// A field's column in the form in which a text or an array is searched.
    pub(crate) fn plain<D: Dialect>(&self, schema: &Schema, alias: &str, field: usize) -> Expr {
        spelled::<D>(column(schema, alias, field), self.of(schema, field).column)
    }

    /// A value in the form in which a field is compared with it.
    pub(crate) fn value<D: Dialect>(&self, schema: &Schema, field: usize, value: Expr) -> Expr {
        spelled::<D>(value, self.of(schema, field).value)
    }

    /// A list of values in the form in which a field is compared with it.
    pub(crate) fn list<D: Dialect>(&self, schema: &Schema, field: usize, list: Expr) -> Expr {
        spelled::<D>(list, self.of(schema, field).list)
    }

    pub(crate) fn of(&self, schema: &Schema, field: usize) -> ColumnOverride {
        self.named(&schema.table, &schema.fields[field].column)
    }

    /// A column and a value, in the forms in which they are compared with each other.
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

    /// The condition that the rows of two aliases are related. If the columns have different collations, one must be named;
    /// with the collation of the other side, its rows are found by their index.
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

/// The current overrides of a database.
#[derive(Debug, Default)]
pub(crate) struct KnownOverrides(RwLock<Arc<Overrides>>);

impl KnownOverrides {
    /// A snapshot for building one statement.
    pub(crate) fn now(&self) -> Arc<Overrides> {
        // A panic cannot leave a half-written pointer.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores the overrides of a table's columns; returns whether they differ from before.
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
