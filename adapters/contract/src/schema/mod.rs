//! The schema of a resource's rows, and their table.

mod derive;
mod field;
mod limits;
mod link;

pub use derive::Unsupported;
pub use field::{Field, FieldType, ScalarType};
pub use link::{Cardinality, Link};

use crate::Value;

/// The stored schema of one resource, bound to one table.
///
/// Built when a declaration is frozen and shared behind an `Arc` from then on. Fields are addressed by their position in
/// [`fields`](Self::fields): a query or a change that was built for a schema is only valid together with that schema.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Schema {
    /// The resource's name, as in its path.
    pub name: String,
    /// The table (SQL) or collection that holds the rows.
    pub table: String,
    /// All stored fields, in the order in which they appear in a row's JSON.
    pub fields: Vec<Field>,
    /// The position of the field that identifies a row: unique, not null, of type integer, text or UUID.
    pub id: usize,
    /// What generates the id of a new row.
    pub id_source: IdSource,
    /// The position of the version counter: an integer that the storage increments with each update. Without one, a row's
    /// version is a digest of its content ([`Version`](crate::Version)).
    pub version: Option<usize>,
    /// Indexes to create, in addition to the one on the id.
    pub indexes: Vec<Index>,
    /// Foreign keys to tables of the same storage.
    pub references: Vec<Reference>,
}

impl Schema {
    /// A schema with the given fields, identified by the field at position `id`, without version, indexes or
    /// references.
    ///
    /// # Panics
    /// If `id` is not a position in `fields`.
    #[must_use]
    pub fn new(name: &str, table: &str, fields: Vec<Field>, id: usize, id_source: IdSource) -> Self {
        assert!(id < fields.len(), "the id is one of the fields");
        Self {
            name: name.to_owned(),
            table: table.to_owned(),
            fields,
            id,
            id_source,
            version: None,
            indexes: Vec::new(),
            references: Vec::new(),
        }
    }

    /// The version counter of a new row with these values, if the schema has one: the given value, or 1.
    #[must_use]
    pub fn first_version(&self, values: &[Value]) -> Option<i64> {
        let counter = self.version?;
        Some(match values.get(counter) {
            Some(Value::Integer(version)) if *version > 0 => *version,
            _ => 1,
        })
    }

    /// The position of the field with this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The field that identifies a row.
    #[must_use]
    pub fn id_field(&self) -> &Field {
        &self.fields[self.id]
    }

    /// The positions of the fields that a response may contain, in order: all except hidden ones.
    pub fn visible(&self) -> impl Iterator<Item = usize> + '_ {
        self.fields.iter().enumerate().filter(|(_, field)| !field.hidden).map(|(position, _)| position)
    }
}

/// What generates the id of a new row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdSource {
    /// The engine: an insert carries the id.
    Engine,
    /// The storage: an insert carries [`Value::Null`] and the storage returns the id.
    ///
    /// An insert may still carry an id (as when existing rows are loaded); ids generated later never collide with it.
    Storage,
    /// The client: an insert carries the id.
    Client,
}

/// An index over one or more fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Positions of the fields, the leading one first.
    pub fields: Vec<usize>,
    /// Whether no two rows may have the same values; rows with a null in any of the fields never conflict.
    pub unique: bool,
}

/// A foreign key: every non-null value of a field is the id (or another unique field) of a row in another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Position of the referencing field.
    pub field: usize,
    /// The referenced table.
    pub table: String,
    /// The referenced column.
    pub column: String,
    /// The field name of that column.
    pub target_field: String,
}
