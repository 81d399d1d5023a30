//! Statements that are built once, and what to do with their rows.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use resourceful_contract::{FieldType, Link, Schema, Value, Version};

use crate::dialect::Dialect;
use crate::unreadable::{self, Origin};

/// The most plans that are kept; the shapes of a well-behaved application are far fewer.
const MOST: usize = 1_024;

/// A query's statement, and where in its rows everything stands.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) text: Arc<str>,
    /// For each placeholder of the text, the argument that belongs there.
    pub(crate) order: Vec<usize>,
    pub(crate) fields: Vec<Output>,
    pub(crate) includes: Vec<Included>,
    pub(crate) sort: Vec<(usize, FieldType)>,
    pub(crate) keys: Vec<(usize, FieldType)>,
    pub(crate) versions: Vec<Output>,
    /// The column of the id, where the answer has it.
    pub(crate) id: Option<usize>,
    /// The column of the total, and whether it is counted.
    pub(crate) total: Option<(usize, bool)>,
    /// How much work it may be.
    pub(crate) cost: Cost,
    /// Whether it names its row by the id.
    pub(crate) single: bool,
    /// Held so that their addresses, which name them in a shape, stay theirs.
    pub(crate) schema: Arc<Schema>,
    #[expect(dead_code, reason = "held for its address")]
    pub(crate) links: Vec<Arc<Link>>,
}

/// How much work a query may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// A page that an index leads to, or a scan that ends once the page is full.
    Light,
    /// The rows of a page and others beside each of them.
    Joined,
    /// It looks at rows that no index leads to, or at all of them, whatever the page.
    Heavy,
}

/// A field of an object.
#[derive(Debug)]
pub(crate) struct Output {
    /// The brace or comma before it, its name and the colon.
    pub(crate) prefix: Vec<u8>,
    pub(crate) column: usize,
    pub(crate) field_type: FieldType,
    /// The field's position in its schema.
    pub(crate) field: usize,
}

/// Related rows of an object.
#[derive(Debug)]
pub(crate) enum Included {
    /// In columns of the same row; none where the marker is null.
    One { name: Vec<u8>, marker: usize, fields: Vec<Output>, target: Arc<Schema> },
    /// As a JSON array of tuples in one column.
    Many { name: Vec<u8>, column: usize, fields: Vec<Output>, target: Arc<Schema> },
}

/// The row of a dialect's driver.
pub(crate) type Row<D> = <<D as Dialect>::Db as sqlx::Database>::Row;

/// Appends an object of these fields.
pub(crate) fn object<D: Dialect>(out: &mut Vec<u8>, row: &Row<D>, fields: &[Output], origin: Origin<'_>) {
    for field in fields {
        out.extend_from_slice(&field.prefix);
        unreadable::write::<D>(out, row, field, origin);
    }
    out.push(b'}');
}

/// A row's version, from the column of its counter or from all its columns.
pub(crate) fn version<D: Dialect>(schema: &Schema, row: &Row<D>, columns: &[Output]) -> Version {
    if let (Some(_), [counter]) = (schema.version, columns) {
        return match D::read(row, counter.column, FieldType::Integer) {
            Ok(Value::Integer(counter)) => Version::Counter(counter),
            // No change is guarded by this one, so that each of them fails until the counter is mended.
            _ => Version::Counter(0),
        };
    }
    let mut content = Vec::with_capacity(512);
    for field in columns {
        content.extend_from_slice(&field.prefix);
        unreadable::digested::<D>(&mut content, row, field);
    }
    content.push(b'}');
    Version::of_content(&content)
}

/// Plans by their shapes.
#[derive(Debug)]
pub(crate) struct Plans<P> {
    known: RwLock<HashMap<Box<[u8]>, Arc<P>>>,
}

impl<P> Default for Plans<P> {
    fn default() -> Self {
        Self { known: RwLock::default() }
    }
}

impl<P> Plans<P> {
    pub(crate) fn clear(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn find(&self, shape: &[u8], build: impl FnOnce() -> P) -> Arc<P> {
        // A panic cannot leave a map of whole plans half written.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = known.get(shape) {
            return plan.clone();
        }
        drop(known);
        let plan = Arc::new(build());
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(shape.into(), plan.clone());
        plan
    }
}
