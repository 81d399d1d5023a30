//! A table: its rows by id, and its indexes.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use resourceful_contract::{FieldType, Schema, Value};

/// A value as a B-tree key.
#[derive(Clone, Debug)]
pub(crate) struct Key(pub(crate) Value);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.compare(&other.0)
    }
}

/// One value for each column of the layout.
pub(crate) type Row = Arc<[Value]>;

/// The columns of a table, and its constraints between rows.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) columns: Vec<Column>,
    pub(crate) id: usize,
    /// Column positions of each index, and whether it is unique, without the index on the id.
    pub(crate) indexes: Vec<(Vec<usize>, bool)>,
    pub(crate) references: Vec<Reference>,
}

#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The field's name on the wire, for errors.
    pub(crate) field: String,
    pub(crate) field_type: FieldType,
}

/// A foreign key of a table.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) column: usize,
    pub(crate) table: String,
    pub(crate) target: String,
}

impl Layout {
    pub(crate) fn of(schema: &Schema) -> Self {
        let mut indexes: Vec<_> =
            schema.indexes.iter().map(|index| (index.fields.clone(), index.unique)).collect();
        for reference in &schema.references {
            if !indexes.iter().any(|(fields, _)| fields.first() == Some(&reference.field)) {
                indexes.push((vec![reference.field], false));
            }
        }
        Self {
            columns: schema
                .fields
                .iter()
                .map(|field| Column {
                    name: field.column.clone(),
                    field: field.name.clone(),
                    field_type: field.field_type,
                })
                .collect(),
            id: schema.id,
            indexes,
            references: schema
                .references
                .iter()
                .map(|reference| Reference {
                    column: reference.field,
                    table: reference.table.clone(),
                    target: reference.column.clone(),
                })
                .collect(),
        }
    }

    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    pub(crate) fn field_names(&self, columns: &[usize]) -> Vec<String> {
        columns.iter().map(|column| self.columns[*column].field.clone()).collect()
    }
}

/// The rows of a table. A clone shares them until either copy is changed.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    layout: Arc<Layout>,
    rows: OrdMap<Key, Row>,
    /// For each index of the layout, the indexed values of all rows, each followed by the row's id.
    indexes: Vec<OrdSet<Vec<Key>>>,
    last_id: i64,
}

impl Table {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            indexes: layout.indexes.iter().map(|_| OrdSet::new()).collect(),
            layout: Arc::new(layout),
            rows: OrdMap::new(),
            last_id: 0,
        }
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Generates the next id of this table.
    pub(crate) fn generate_id(&mut self) -> Value {
        self.last_id += 1;
        Value::Integer(self.last_id)
    }

    pub(crate) fn get(&self, id: &Value) -> Option<&Row> {
        self.rows.get(&Key(id.clone()))
    }

    pub(crate) fn put(&mut self, row: Row) {
        let id = Key(row[self.layout.id].clone());
        if let Value::Integer(given) = id.0 {
            self.last_id = self.last_id.max(given);
        }
        self.remove(&id.0);
        for ((columns, _), index) in self.layout.indexes.iter().zip(&mut self.indexes) {
            index.insert(index_entry(columns, &row, &id));
        }
        self.rows.insert(id, row);
    }

    pub(crate) fn remove(&mut self, id: &Value) -> Option<Row> {
        let id = Key(id.clone());
        let row = self.rows.remove(&id)?;
        for ((columns, _), index) in self.layout.indexes.iter().zip(&mut self.indexes) {
            index.remove(&index_entry(columns, &row, &id));
        }
        Some(row)
    }

    /// The columns of a unique index that this row would violate.
    pub(crate) fn violated_index(&self, row: &Row) -> Option<&[usize]> {
        let id = &row[self.layout.id];
        for ((columns, unique), index) in self.layout.indexes.iter().zip(&self.indexes) {
            if !unique || columns.iter().any(|column| row[*column].is_null()) {
                continue;
            }
            let values: Vec<_> = columns.iter().map(|column| Key(row[*column].clone())).collect();
            if entries_with_prefix(index, &values)
                .any(|entry| entry.last().is_some_and(|other| other.0 != *id))
            {
                return Some(columns);
            }
        }
        None
    }

    /// Whether any row has this value in a column.
    pub(crate) fn contains_value(&self, column: usize, value: &Value) -> bool {
        if column == self.layout.id {
            return self.get(value).is_some();
        }
        self.rows_with_value(column, value).next().is_some()
    }

    /// The rows with this value in a column, found by an index if there is one.
    pub(crate) fn rows_with_value<'a>(
        &'a self,
        column: usize,
        value: &'a Value,
    ) -> Box<dyn Iterator<Item = &'a Row> + 'a> {
        if column == self.layout.id {
            return Box::new(self.get(value).into_iter());
        }
        match self.index_starting_with(column) {
            Some(index) => {
                let value = Key(value.clone());
                let values = [value];
                let entries: Vec<&'a Vec<Key>> = entries_with_prefix(index, &values).collect();
                Box::new(entries.into_iter().filter_map(|entry| self.rows.get(entry.last()?)))
            }
            None => Box::new(self.rows.values().filter(move |row| row[column].compare(value).is_eq())),
        }
    }

    pub(crate) fn is_indexed(&self, column: usize) -> bool {
        column == self.layout.id || self.index_starting_with(column).is_some()
    }

    fn index_starting_with(&self, column: usize) -> Option<&OrdSet<Vec<Key>>> {
        let position =
            self.layout.indexes.iter().position(|(columns, _)| columns.first() == Some(&column))?;
        Some(&self.indexes[position])
    }

    /// All rows by ascending id, from this id on.
    pub(crate) fn ascending_from(&self, id: Option<&Value>) -> impl DoubleEndedIterator<Item = &Row> {
        let start = id.map_or(Bound::Unbounded, |id| Bound::Included(Key(id.clone())));
        self.rows.range((start, Bound::Unbounded)).map(|(_, row)| row)
    }

    /// All rows by descending id, from this id on.
    pub(crate) fn descending_from(&self, id: Option<&Value>) -> impl Iterator<Item = &Row> {
        let end = id.map_or(Bound::Unbounded, |id| Bound::Included(Key(id.clone())));
        self.rows.range((Bound::Unbounded, end)).rev().map(|(_, row)| row)
    }

    /// All rows in ascending order of this one column and the id, from this position on, by an index on the column; `None`
    /// if there is no such index.
    pub(crate) fn rows_by_index<'a>(
        &'a self,
        column: usize,
        from: Option<[&Value; 2]>,
        descending: bool,
    ) -> Option<Box<dyn Iterator<Item = &'a Row> + 'a>> {
        let position = self.layout.indexes.iter().position(|(columns, _)| columns == &[column])?;
        let index = &self.indexes[position];
        let start_entry = from.map(|values| values.map(|value| Key(value.clone())).to_vec());
        let bound = start_entry.map_or(Bound::Unbounded, Bound::Included);
        let row = |entry: &'a Vec<Key>| self.rows.get(entry.last()?);
        Some(if descending {
            Box::new(index.range((Bound::Unbounded, bound)).rev().filter_map(row))
        } else {
            Box::new(index.range((bound, Bound::Unbounded)).filter_map(row))
        })
    }
}

fn index_entry(columns: &[usize], row: &Row, id: &Key) -> Vec<Key> {
    columns.iter().map(|column| Key(row[*column].clone())).chain([id.clone()]).collect()
}

/// The entries of an index that begin with these values.
fn entries_with_prefix<'a, 'b>(
    index: &'a OrdSet<Vec<Key>>,
    values: &'b [Key],
) -> impl Iterator<Item = &'a Vec<Key>> + use<'a, 'b> {
    // A prefix sorts before all entries that begin with it.
    index
        .range((Bound::Included(values.to_vec()), Bound::Unbounded))
        .take_while(move |entry| entry.starts_with(values))
}
