//! A snapshot of all tables.

use std::collections::HashMap;
use std::sync::Arc;

use resourceful_contract::{ErrorKind, Index, Mismatch, Schema, StorageError};

use crate::table::{Layout, Table};

/// A snapshot of all tables. A clone shares the data until either copy is changed.
#[derive(Clone, Default)]
pub(crate) struct State {
    tables: HashMap<String, Arc<Table>>,
}

impl State {
    pub(crate) fn table_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tables.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn create(&mut self, schema: &Schema) {
        self.tables.entry(schema.table.clone()).or_insert_with(|| Arc::new(Table::new(Layout::of(schema))));
    }

    pub(crate) fn table(&self, name: &str) -> Result<&Table, StorageError> {
        self.tables.get(name).map(AsRef::as_ref).ok_or_else(|| missing_table(name))
    }

    pub(crate) fn table_mut(&mut self, name: &str) -> Result<&mut Table, StorageError> {
        self.tables.get_mut(name).map(Arc::make_mut).ok_or_else(|| missing_table(name))
    }

    /// All tables that reference this one, with the referencing and the referenced column.
    pub(crate) fn references_to<'a>(
        &'a self,
        table: &'a str,
    ) -> impl Iterator<Item = (&'a Table, usize, &'a str)> + 'a {
        self.tables.values().flat_map(move |other| {
            let references = other.layout().references.iter();
            references
                .filter(move |reference| reference.table == table)
                .map(move |reference| (other.as_ref(), reference.column, reference.target.as_str()))
        })
    }

    pub(crate) fn check(&self, schema: &Schema) -> Vec<Mismatch> {
        let Ok(table) = self.table(&schema.table) else {
            let message = format!("there is no table `{}`", schema.table);
            return vec![Mismatch::new(None, message).with_help(".create_table_if_missing()")];
        };
        let layout = table.layout();
        let mut mismatches = Vec::new();
        for field in &schema.fields {
            let message = match layout.column(&field.column) {
                None => format!("the table `{}` has no column `{}`", schema.table, field.column),
                Some(column) if layout.columns[column].field_type != field.field_type => format!(
                    "the column `{}` holds {:?}, and the field {:?}",
                    field.column, layout.columns[column].field_type, field.field_type
                ),
                Some(_) => continue,
            };
            mismatches.push(Mismatch::new(Some(&field.name), message));
        }
        if mismatches.is_empty() {
            mismatches.extend(schema.indexes.iter().filter_map(|index| missing_index(layout, schema, index)));
        }
        mismatches
    }
}

/// A mismatch for a declared unique index that the table, created from another declaration, does not have.
fn missing_index(layout: &Layout, schema: &Schema, index: &Index) -> Option<Mismatch> {
    let columns: Vec<_> = index.fields.iter().map(|field| schema.fields[*field].column.as_str()).collect();
    let covers = |unique: &[usize]| {
        unique.iter().all(|column| columns.contains(&layout.columns[*column].name.as_str()))
    };
    let is_enforced =
        covers(&[layout.id]) || layout.indexes.iter().any(|(unique, is_unique)| *is_unique && covers(unique));
    if !index.unique || is_enforced {
        return None;
    }
    let field = index.fields.first().map(|field| schema.fields[*field].name.as_str());
    let message = format!("nothing makes `{}` unique in the table `{}`", columns.join("`, `"), schema.table);
    let help = "declare it for every resource of this table: the first one that is built makes the table";
    Some(Mismatch::new(field, message).with_help(help))
}

fn missing_table(table: &str) -> StorageError {
    StorageError::new(ErrorKind::Internal).with_context("absent table", table)
}
