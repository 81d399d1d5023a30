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
    pub(crate) is_generated: bool,
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
        let column = self.searchable::<D>(schema, alias, field);
        D::comparable(column, schema.fields[field].field_type)
    }

    /// A field's column in the form in which a text or an array is searched.
    pub(crate) fn searchable<D: Dialect>(&self, schema: &Schema, alias: &str, field: usize) -> Expr {
        apply_template::<D>(column(schema, alias, field), self.for_field(schema, field).column)
    }

    /// A value in the form in which a field is compared with it.
    pub(crate) fn comparable_value<D: Dialect>(&self, schema: &Schema, field: usize, value: Expr) -> Expr {
        apply_template::<D>(value, self.for_field(schema, field).value)
    }

    /// A list of values in the form in which a field is compared with it.
    pub(crate) fn comparable_list<D: Dialect>(&self, schema: &Schema, field: usize, list: Expr) -> Expr {
        apply_template::<D>(list, self.for_field(schema, field).list)
    }

    pub(crate) fn for_field(&self, schema: &Schema, field: usize) -> ColumnOverride {
        self.for_column(&schema.table, &schema.fields[field].column)
    }

    /// A column and a value, in the forms in which they are compared with each other.
    pub(crate) fn comparable_pair<D: Dialect>(
        &self,
        table: &str,
        name: &str,
        column: Expr,
        value: Expr,
    ) -> (Expr, Expr) {
        let found = self.for_column(table, name);
        (apply_template::<D>(column, found.column), apply_template::<D>(value, found.value))
    }

    /// The condition that the rows of two aliases are related. If the columns have different collations, one must be named;
    /// with the collation of the other side, its rows are found by their index.
    pub(crate) fn join_condition<D: Dialect>(
        &self,
        link: &Link,
        schema: &Schema,
        (local_alias, target_alias): (&str, &str),
    ) -> Expr {
        let (local, remote) = (self.for_field(schema, link.local), self.for_field(&link.target, link.remote));
        let mut key = column(schema, local_alias, link.local);
        if let Some(collation) = remote.collation.filter(|_| local.collation.is_some())
            && local.collation.as_ref() != Some(&collation)
            && !collation.contains('$')
        {
            key = D::template(&format!("$1 COLLATE {collation}"), [key]);
        }
        D::template("$1 = $2", [column(&link.target, target_alias, link.remote), key])
    }

    fn for_column(&self, table: &str, column: &str) -> ColumnOverride {
        let columns = self.0.get(table);
        columns.and_then(|columns| columns.get(column)).cloned().unwrap_or_default()
    }
}

fn apply_template<D: Dialect>(expr: Expr, template: Option<&str>) -> Expr {
    match template {
        Some(template) => D::template(template, [expr]),
        None => expr,
    }
}

/// The current overrides of a database.
#[derive(Debug, Default)]
pub(crate) struct SharedOverrides(RwLock<Arc<Overrides>>);

impl SharedOverrides {
    /// A snapshot for building one statement.
    pub(crate) fn snapshot(&self) -> Arc<Overrides> {
        // A panic cannot leave a half-written pointer.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores the overrides of a table's columns; returns whether they differ from before.
    pub(crate) fn merge(&self, table: &str, columns: HashMap<String, ColumnOverride>) -> bool {
        let mut shared = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = shared.0.get(table).cloned().unwrap_or_default();
        // Several resources may be bound to one table, each to columns of its own.
        let mut after = before.clone();
        after.extend(columns);
        after.retain(|_, found| *found != ColumnOverride::default());
        if before == after {
            return false;
        }
        let mut all = shared.0.clone();
        all.insert(table.to_owned(), after);
        *shared = Arc::new(Overrides(all));
        true
    }
}
