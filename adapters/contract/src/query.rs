//! Queries: one tree, whether it came from a URL, a body or a policy.

use std::sync::Arc;

use crate::{Link, Schema, Value};

/// A query for the rows of one resource.
#[derive(Clone, Debug)]
pub struct Query {
    /// The resource; every position below is one of its fields unless said otherwise.
    pub schema: Arc<Schema>,
    /// The filter that rows must match.
    pub filter: Filter,
    /// The sort keys. They end with a unique field (the id), so the order is total.
    pub sort: Vec<Sort>,
    /// The fields to write into each row's JSON, in this order.
    pub fields: Vec<usize>,
    /// The related rows to write into each row's JSON, after the fields, in this order.
    pub includes: Vec<Include>,
    /// Fields whose values are returned beside the JSON of each row ([`Rows::keys`](crate::Rows::keys)).
    pub keys: Vec<usize>,
    /// Whether each row's version is returned ([`Rows::versions`](crate::Rows::versions)).
    pub versions: bool,
    /// Where the page begins or ends.
    pub position: Position,
    /// The maximum number of rows; at least 1.
    pub limit: u32,
    /// Whether, and how, the number of all rows that match the filter is returned, whatever the page.
    pub count: Option<Count>,
}

impl Query {
    /// A query for all rows of a resource by ascending id, with all visible fields.
    #[must_use]
    pub fn all(schema: Arc<Schema>) -> Self {
        Self {
            filter: Filter::everything(),
            sort: vec![Sort::ascending(schema.id)],
            fields: schema.visible().collect(),
            includes: Vec::new(),
            keys: Vec::new(),
            versions: false,
            position: Position::Start,
            limit: 50,
            count: None,
            schema,
        }
    }

    /// A query for the row with this id, with its version.
    #[must_use]
    pub fn one(schema: Arc<Schema>, id: Value) -> Self {
        Self {
            filter: Filter::Compare(schema.id, Test::Eq(id)),
            sort: Vec::new(),
            versions: true,
            limit: 1,
            ..Self::all(schema)
        }
    }
}

/// A filter on rows: a tree of conditions with two-valued logic.
///
/// A test of a null value is false, except for `Ne` and `NotIn`, which are the negations of `Eq` and `In`, and for `IsNull`.
/// `Not` therefore selects exactly the rows that its inner filter does not: there is no third truth value, by which a row
/// would match neither a filter nor its negation.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Rows that match all of these filters; all rows if there are none.
    All(Vec<Filter>),
    /// Rows that match at least one of these filters; no row if there are none.
    Any(Vec<Filter>),
    /// Rows that do not match this filter.
    Not(Box<Filter>),
    /// Rows whose field at this position passes the test.
    Compare(usize, Test),
    /// Rows with at least one related row that matches; the inner filter is on the target's fields.
    Related(RelatedBy, Box<Filter>),
    /// Rows that contain this text in at least one of these text fields, ignoring case as [`fold`](crate::fold) does.
    Search(Vec<usize>, String),
}

/// The relation that a [`Filter::Related`] follows. Two are equal if they are the same relation.
#[derive(Clone, Debug)]
pub struct RelatedBy(pub Arc<Link>);

impl PartialEq for RelatedBy {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Filter {
    /// The filter that every row matches.
    #[must_use]
    pub const fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// The filter that no row matches.
    #[must_use]
    pub const fn nothing() -> Self {
        Self::Any(Vec::new())
    }

    /// Whether this filter matches every row.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::All(filters) if filters.iter().all(Self::is_everything))
    }

    /// A filter for rows that match both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one.is_everything() => other,
            (one, other) if other.is_everything() => one,
            (Self::All(mut filters), other) => {
                filters.push(other);
                Self::All(filters)
            }
            (one, other) => Self::All(vec![one, other]),
        }
    }
}

/// A test of one field's value. Operands are of the field's type and never null.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Equal.
    Eq(Value),
    /// Not equal; null is not equal to any value.
    Ne(Value),
    /// Greater.
    Gt(Value),
    /// Greater or equal.
    Gte(Value),
    /// Less.
    Lt(Value),
    /// Less or equal.
    Lte(Value),
    /// Equal to one of these; false for an empty list.
    In(Vec<Value>),
    /// Equal to none of these; true for an empty list, and for null.
    NotIn(Vec<Value>),
    /// At least the first and at most the second.
    Between(Value, Value),
    /// Text that contains this, case-sensitive, every character literal.
    Contains(String),
    /// Text that starts with this, case-sensitive, every character literal.
    Starts(String),
    /// Text that ends with this, case-sensitive, every character literal.
    Ends(String),
    /// Null (`true`) or not (`false`).
    IsNull(bool),
    /// An array that contains this element.
    Has(Value),
    /// An array that contains at least one of these elements.
    Overlaps(Vec<Value>),
}

impl Test {
    /// Whether a value passes. Null passes only `IsNull(true)`, `Ne` and `NotIn`.
    ///
    /// ```
    /// use resourceful_contract::{Test, Value};
    ///
    /// assert!(Test::Gt(Value::Integer(1)).passes(&Value::Integer(2)));
    /// assert!(!Test::Gt(Value::Integer(1)).passes(&Value::Null));
    /// assert!(Test::Ne(Value::Integer(1)).passes(&Value::Null));
    /// ```
    #[must_use]
    pub fn passes(&self, value: &Value) -> bool {
        let equal = |other: &Value| value.compare(other).is_eq();
        let is_in = |others: &[Value]| !value.is_null() && others.iter().any(equal);
        let text = |test: &dyn Fn(&str) -> bool| matches!(value, Value::Text(text) if test(text));
        let holds = |element: &Value| matches!(value, Value::Array(items) if items.iter().any(|item| item.compare(element).is_eq()));
        match self {
            Self::Ne(other) => !equal(other),
            Self::NotIn(others) => !is_in(others),
            Self::IsNull(null) => value.is_null() == *null,
            _ if value.is_null() => false,
            Self::Eq(other) => equal(other),
            Self::Gt(other) => value.compare(other).is_gt(),
            Self::Gte(other) => value.compare(other).is_ge(),
            Self::Lt(other) => value.compare(other).is_lt(),
            Self::Lte(other) => value.compare(other).is_le(),
            Self::Between(from, to) => value.compare(from).is_ge() && value.compare(to).is_le(),
            Self::In(others) => is_in(others),
            Self::Contains(part) => text(&|text| text.contains(part.as_str())),
            Self::Starts(part) => text(&|text| text.starts_with(part.as_str())),
            Self::Ends(part) => text(&|text| text.ends_with(part.as_str())),
            Self::Has(element) => holds(element),
            Self::Overlaps(elements) => elements.iter().any(holds),
        }
    }
}

/// One sort key. Nulls come after every value in ascending order and before every value in descending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The field to sort by.
    pub field: usize,
    /// Whether the order is descending.
    pub descending: bool,
}

impl Sort {
    /// Ascending order.
    #[must_use]
    pub const fn ascending(field: usize) -> Self {
        Self { field, descending: false }
    }

    /// Descending order.
    #[must_use]
    pub const fn descending(field: usize) -> Self {
        Self { field, descending: true }
    }
}

/// Where a page begins or ends, in the query's order. Values are those of the sort keys, in their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Position {
    /// The first page.
    Start,
    /// The rows right after this position; its row need not exist any more.
    After(Vec<Value>),
    /// The rows right before this position, returned in the query's order all the same.
    Before(Vec<Value>),
    /// The rows after skipping this many.
    Offset(u64),
}

/// How the number of matching rows is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// By counting.
    Exact,
    /// By the storage's statistics if suitable ones exist; by counting otherwise.
    Estimated,
}

/// Related rows to write into each row's JSON under the relation's name: an object or `null` for
/// [`Cardinality::One`](crate::Cardinality::One), an array by ascending id for
/// [`Cardinality::Many`](crate::Cardinality::Many).
#[derive(Clone, Debug)]
pub struct Include {
    /// The relation to follow.
    pub link: Arc<Link>,
    /// The target's fields to show, by their positions in the target's schema.
    pub fields: Vec<usize>,
    /// The filter on related rows; rows that do not match are left out as if they did not exist.
    pub filter: Filter,
    /// The maximum number of related rows for each row.
    pub limit: u32,
}
