//! Cache of built statements, and how their rows are decoded.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use resourceful_contract::{FieldType, Link, Schema, Value, Version};

use crate::dialect::Dialect;
use crate::unreadable::{self, Origin};

/// The maximum number of cached plans; the query shapes of a well-behaved application are far fewer.
const MOST: usize = 1_024;
/// The maximum total size in bytes: clients choose the shapes of filters, so plans are limited by size as well.
const MOST_BYTES: usize = 16 << 20;
/// The maximum size in bytes of a cached plan; a larger one is built again each time.
const LARGEST: usize = 64 << 10;
/// The approximate overhead of a plan in bytes.
const OVERHEAD: usize = 1_024;

/// A query's statement, and the columns of its result.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) text: Arc<str>,
    /// For each placeholder of the text, the index of its argument.
    pub(crate) order: Vec<usize>,
    pub(crate) fields: Vec<Output>,
    pub(crate) includes: Vec<Included>,
    pub(crate) sort: Vec<(usize, FieldType)>,
    pub(crate) keys: Vec<(usize, FieldType)>,
    pub(crate) versions: Vec<Output>,
    /// The result column of the id, if there is one.
    pub(crate) id: Option<usize>,
    /// The result column of the total, and whether it is an exact count.
    pub(crate) total: Option<(usize, bool)>,
    /// The query's cost class.
    pub(crate) cost: Cost,
    /// Whether the query selects its row by the id.
    pub(crate) single: bool,
    /// Held so that their addresses, which identify them in a shape, are not reused.
    pub(crate) schema: Arc<Schema>,
    #[expect(dead_code, reason = "held for its address")]
    pub(crate) links: Vec<Arc<Link>>,
}

/// The cost class of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// A page found by an index, or a scan that ends once the page is full.
    Light,
    /// The rows of a page, with a lookup of other rows for each.
    Joined,
    /// A query that reads rows without an index, or all rows, whatever the page.
    Heavy,
}

/// A field of a JSON object.
#[derive(Debug)]
pub(crate) struct Output {
    /// The bytes before its value: a brace or comma, the name and a colon.
    pub(crate) prefix: Vec<u8>,
    pub(crate) column: usize,
    pub(crate) field_type: FieldType,
    /// The field's position in its schema.
    pub(crate) field: usize,
}

/// Related rows within an object.
#[derive(Debug)]
pub(crate) enum Included {
    /// In columns of the same row; no related row where the marker is null.
    One { name: Vec<u8>, marker: usize, fields: Vec<Output>, target: Arc<Schema> },
    /// As a JSON array of tuples in one column.
    Many { name: Vec<u8>, column: usize, fields: Vec<Output>, target: Arc<Schema> },
}

/// The row of a dialect's driver.
pub(crate) type Row<D> = <<D as Dialect>::Db as sqlx::Database>::Row;

/// Appends a JSON object of these fields.
pub(crate) fn object<D: Dialect>(out: &mut Vec<u8>, row: &Row<D>, fields: &[Output], origin: Origin<'_>) {
    for field in fields {
        out.extend_from_slice(&field.prefix);
        unreadable::write::<D>(out, row, field, origin);
    }
    out.push(b'}');
}

/// A row's version, from its counter column or from all its columns.
pub(crate) fn version<D: Dialect>(schema: &Schema, row: &Row<D>, columns: &[Output]) -> Version {
    if let (Some(_), [counter]) = (schema.version, columns) {
        return match D::read(row, counter.column, FieldType::Integer) {
            Ok(Value::Integer(counter)) => Version::Counter(counter),
            // No guard matches this version, so guarded changes fail until the counter is repaired.
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

/// A cached value with a known size.
pub(crate) trait Planned {
    /// Its approximate size in bytes.
    fn bytes(&self) -> usize;
}

impl Planned for Plan {
    fn bytes(&self) -> usize {
        let named = |fields: &[Output]| fields.iter().map(|field| field.prefix.len()).sum::<usize>();
        let outputs = self.fields.len() + self.versions.len() + self.sort.len() + self.keys.len();
        self.text.len()
            + self.order.len() * size_of::<usize>()
            + named(&self.fields)
            + outputs * size_of::<Output>()
    }
}

/// Plans by query shape.
#[derive(Debug)]
pub(crate) struct Plans<P>(RwLock<Known<P>>);

#[derive(Debug)]
struct Known<P> {
    plans: HashMap<Box<[u8]>, Arc<P>>,
    bytes: usize,
}

impl<P> Default for Plans<P> {
    fn default() -> Self {
        Self(RwLock::new(Known { plans: HashMap::new(), bytes: 0 }))
    }
}

impl<P: Planned> Plans<P> {
    pub(crate) fn clear(&self) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.plans.clear();
        known.bytes = 0;
    }

    pub(crate) fn find(&self, shape: &[u8], build: impl FnOnce() -> P) -> Arc<P> {
        // A panic cannot leave the map half written, as whole plans are inserted.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = known.plans.get(shape) {
            return plan.clone();
        }
        drop(known);
        let plan = Arc::new(build());
        let bytes = shape.len() + plan.bytes() + OVERHEAD;
        if bytes > LARGEST {
            return plan;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.plans.len() >= MOST || known.bytes + bytes > MOST_BYTES {
            // Frees the capacity too, so that an attack does not leave a large allocation behind.
            *known = Known { plans: HashMap::new(), bytes: 0 };
        }
        if known.plans.insert(shape.into(), plan.clone()).is_none() {
            known.bytes += bytes;
        }
        plan
    }

    /// The number of plans and their approximate size in bytes.
    #[cfg(test)]
    fn size(&self) -> (usize, usize) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (known.plans.len(), known.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{LARGEST, MOST, MOST_BYTES, Planned, Plans};

    struct Sized(usize);

    impl Planned for Sized {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn plans_are_bounded_by_their_number_and_their_bytes() {
        let plans = Plans::default();
        for shape in 0..10 * MOST as u64 {
            plans.find(&shape.to_le_bytes(), || Sized(10));
            assert!(plans.size().0 <= MOST);
        }
        for shape in 0..10 * MOST as u64 {
            plans.find(&[&shape.to_le_bytes()[..], &[0]].concat(), || Sized(LARGEST / 2));
            assert!(plans.size().1 <= MOST_BYTES, "{:?}", plans.size());
        }
        assert!(plans.size().0 > 0);
    }

    #[test]
    fn a_plan_is_built_once_unless_it_is_too_large_to_keep() {
        let plans = Plans::default();
        let small = plans.find(b"small", || Sized(10));
        assert!(std::sync::Arc::ptr_eq(&small, &plans.find(b"small", || unreachable!("it is kept"))));
        plans.find(b"large", || Sized(LARGEST));
        assert_eq!(plans.size().0, 1);
        let mut is_built = false;
        plans.find(b"large", || {
            is_built = true;
            Sized(LARGEST)
        });
        assert!(is_built);
    }
}
