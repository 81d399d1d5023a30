//! Statements that are built once, and what to do with their rows.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use resourceful_contract::{FieldType, Link, Schema, Value, Version};

use crate::dialect::Dialect;
use crate::unreadable::{self, Origin};

/// The most plans that are kept; the shapes of a well-behaved application are far fewer.
const MOST: usize = 1_024;
/// The most bytes that they take together: clients choose the shapes of filters, so plans are counted by their size.
const MOST_BYTES: usize = 16 << 20;
/// The most bytes of one that is kept; a larger one is built again each time.
const LARGEST: usize = 64 << 10;
/// About what a plan takes beside what it is made of.
const OVERHEAD: usize = 1_024;

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

/// What is built once, and how much of memory it takes.
pub(crate) trait Planned {
    /// About how many bytes it takes.
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

/// Plans by their shapes.
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
        // A panic cannot leave a map of whole plans half written.
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
            // With its room: an attack's size does not stay.
            *known = Known { plans: HashMap::new(), bytes: 0 };
        }
        if known.plans.insert(shape.into(), plan.clone()).is_none() {
            known.bytes += bytes;
        }
        plan
    }

    /// How many there are, and about how many bytes they take.
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
