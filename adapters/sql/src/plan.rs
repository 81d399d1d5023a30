//! Cache of built statements, and how their rows are decoded.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use resourceful_contract::{FieldType, Link, Schema, Value, Version};

use crate::dialect::Dialect;
use crate::undecodable;
use crate::undecodable::Origin;

/// The maximum number of cached plans; the query shapes of a well-behaved application are far fewer.
const MAX_PLANS: usize = 1_024;
/// The maximum total size in bytes: clients choose the shapes of filters, so plans are limited by size as well.
const MAX_TOTAL_BYTES: usize = 16 << 20;
/// The maximum size in bytes of a cached plan; a larger one is built again each time.
const MAX_PLAN_BYTES: usize = 64 << 10;
/// The approximate overhead of a plan in bytes.
const PLAN_OVERHEAD: usize = 1_024;

/// A query's statement, and the columns of its result.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) text: Arc<str>,
    /// For each placeholder of the text, the index of its argument.
    pub(crate) arg_order: Vec<usize>,
    pub(crate) fields: Vec<OutputField>,
    pub(crate) includes: Vec<IncludedRows>,
    pub(crate) sort: Vec<(usize, FieldType)>,
    pub(crate) keys: Vec<(usize, FieldType)>,
    pub(crate) versions: Vec<OutputField>,
    /// The result column of the id, if there is one.
    pub(crate) id: Option<usize>,
    /// The result column of the total, and whether it is an exact count.
    pub(crate) total: Option<(usize, bool)>,
    /// The query's cost class.
    pub(crate) cost: Cost,
    /// Whether the query selects its row by the id.
    pub(crate) is_single_row: bool,
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
pub(crate) struct OutputField {
    /// The bytes before its value: a brace or comma, the name and a colon.
    pub(crate) prefix: Vec<u8>,
    pub(crate) column: usize,
    pub(crate) field_type: FieldType,
    /// The field's position in its schema.
    pub(crate) field: usize,
}

/// Related rows within an object.
#[derive(Debug)]
pub(crate) enum IncludedRows {
    /// In columns of the same row; no related row where the marker is null.
    One { name: Vec<u8>, marker: usize, fields: Vec<OutputField>, target: Arc<Schema> },
    /// As a JSON array of tuples in one column.
    Many { name: Vec<u8>, column: usize, fields: Vec<OutputField>, target: Arc<Schema> },
}

/// The row of a dialect's driver.
pub(crate) type Row<D> = <<D as Dialect>::Db as sqlx::Database>::Row;

/// Appends a JSON object of these fields.
pub(crate) fn write_object<D: Dialect>(
    out: &mut Vec<u8>,
    row: &Row<D>,
    fields: &[OutputField],
    origin: Origin<'_>,
) {
    for field in fields {
        out.extend_from_slice(&field.prefix);
        undecodable::write_value::<D>(out, row, field, origin);
    }
    out.push(b'}');
}

/// A row's version, from its counter column or from all its columns.
pub(crate) fn row_version<D: Dialect>(schema: &Schema, row: &Row<D>, columns: &[OutputField]) -> Version {
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
        undecodable::write_digest_input::<D>(&mut content, row, field);
    }
    content.push(b'}');
    Version::of_content(&content)
}

/// A cached value with a known size.
pub(crate) trait CacheWeight {
    /// Its approximate size in bytes.
    fn bytes(&self) -> usize;
}

impl CacheWeight for Plan {
    fn bytes(&self) -> usize {
        let named = |fields: &[OutputField]| fields.iter().map(|field| field.prefix.len()).sum::<usize>();
        let outputs = self.fields.len() + self.versions.len() + self.sort.len() + self.keys.len();
        self.text.len()
            + self.arg_order.len() * size_of::<usize>()
            + named(&self.fields)
            + outputs * size_of::<OutputField>()
    }
}

/// Plans by query shape.
#[derive(Debug)]
pub(crate) struct PlanCache<P>(RwLock<CacheState<P>>);

#[derive(Debug)]
struct CacheState<P> {
    plans: HashMap<Box<[u8]>, Arc<P>>,
    bytes: usize,
}

impl<P> Default for PlanCache<P> {
    fn default() -> Self {
        Self(RwLock::new(CacheState { plans: HashMap::new(), bytes: 0 }))
    }
}

impl<P: CacheWeight> PlanCache<P> {
    pub(crate) fn clear(&self) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.plans.clear();
        known.bytes = 0;
    }

    pub(crate) fn get_or_build(&self, shape: &[u8], build: impl FnOnce() -> P) -> Arc<P> {
        // A panic cannot leave the map half written, as whole plans are inserted.
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = known.plans.get(shape) {
            return plan.clone();
        }
        drop(known);
        let plan = Arc::new(build());
        let bytes = shape.len() + plan.bytes() + PLAN_OVERHEAD;
        if bytes > MAX_PLAN_BYTES {
            return plan;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.plans.len() >= MAX_PLANS || known.bytes + bytes > MAX_TOTAL_BYTES {
            // Frees the capacity too, so that an attack does not leave a large allocation behind.
            *known = CacheState { plans: HashMap::new(), bytes: 0 };
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
    use super::{CacheWeight, MAX_PLAN_BYTES, MAX_PLANS, MAX_TOTAL_BYTES, PlanCache};

    struct TestPlan(usize);

    impl CacheWeight for TestPlan {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn plan_cache_is_bounded_by_count_and_size() {
        let plans = PlanCache::default();
        for shape in 0..10 * MAX_PLANS as u64 {
            plans.get_or_build(&shape.to_le_bytes(), || TestPlan(10));
            assert!(plans.size().0 <= MAX_PLANS);
        }
        for shape in 0..10 * MAX_PLANS as u64 {
            plans.get_or_build(&[&shape.to_le_bytes()[..], &[0]].concat(), || TestPlan(MAX_PLAN_BYTES / 2));
            assert!(plans.size().1 <= MAX_TOTAL_BYTES, "{:?}", plans.size());
        }
        assert!(plans.size().0 > 0);
    }

    #[test]
    fn plan_is_cached_unless_too_large() {
        let plans = PlanCache::default();
        let small = plans.get_or_build(b"small", || TestPlan(10));
        assert!(std::sync::Arc::ptr_eq(&small, &plans.get_or_build(b"small", || unreachable!("it is kept"))));
        plans.get_or_build(b"large", || TestPlan(MAX_PLAN_BYTES));
        assert_eq!(plans.size().0, 1);
        let mut is_built = false;
        plans.get_or_build(b"large", || {
            is_built = true;
            TestPlan(MAX_PLAN_BYTES)
        });
        assert!(is_built);
    }
}
