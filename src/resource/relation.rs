//! Relations between resources.

use resourceful_contract::Cardinality;

/// A relation to another resource, for `include=` and dotted filters. Built by [`belongs_to`] and [`has_many`].
#[derive(Clone, Debug)]
pub struct Relation {
    pub(crate) name: String,
    pub(crate) resource: String,
    pub(crate) cardinality: Cardinality,
    pub(crate) key: Option<String>,
    pub(crate) limit: u32,
}

/// Each item of this resource refers to at most one item of `resource`.
///
/// The referring field is the relation's name with `_id`, unless [`Relation::key`] names another. It refers to the
/// other resource's id. Within one database it becomes a foreign key if the table is created from the declaration.
///
/// ```
/// use resourceful::resource::belongs_to;
///
/// let country = belongs_to("country", "countries").key("country_code");
/// # let _ = country;
/// ```
#[must_use]
pub fn belongs_to(name: impl Into<String>, resource: impl Into<String>) -> Relation {
    Relation {
        name: name.into(),
        resource: resource.into(),
        cardinality: Cardinality::One,
        key: None,
        limit: 1,
    }
}

/// Any number of items of `resource` refer to each item of this one.
///
/// The referring field is part of the other resource and must be named with [`Relation::key`]. An include shows at most
/// [`Relation::limit`] of them for each item, 50 by default, by ascending id.
#[must_use]
pub fn has_many(name: impl Into<String>, resource: impl Into<String>) -> Relation {
    Relation {
        name: name.into(),
        resource: resource.into(),
        cardinality: Cardinality::Many,
        key: None,
        limit: 50,
    }
}

impl Relation {
    /// The referring field: in this resource for `belongs_to`, in the other one for `has_many`.
    #[must_use]
    pub fn key(mut self, field: impl Into<String>) -> Self {
        self.key = Some(field.into());
        self
    }

    /// The maximum number of items that an include shows for each item of a `has_many`; 50 by default, at least 1.
    #[must_use]
    pub fn limit(mut self, items: u32) -> Self {
        self.limit = items.max(1);
        self
    }

    /// The referring field, declared or by convention.
    pub(crate) fn key_name(&self) -> String {
        self.key.clone().unwrap_or_else(|| format!("{}_id", self.name))
    }
}
