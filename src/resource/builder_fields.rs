//! Settings of a declaration for its fields, indexes and relations.

use super::{Id, ListParameter, Relation, ResourceBuilder};

impl ResourceBuilder {
    /// The field that identifies an item; `id` by default.
    pub fn id_field(mut self, field: impl Into<String>) -> Self {
        self.id_field = field.into();
        self
    }

    /// Which side generates ids. By default the server generates UUIDs ([`Id::UuidV7`]), the database generates
    /// integers ([`Id::Integer`]), and clients assign text ids ([`Id::Client`]).
    pub fn id(mut self, id: Id) -> Self {
        self.id = Some(id);
        self
    }

    /// Keeps a version counter in this field, from which ETags are made: each change increments it. It begins at 1, or
    /// at a random number (up to 2^30) if clients assign ids, so that the ETags of a deleted item differ from those of
    /// an item that is later created under its id.
    ///
    /// A field of the model becomes read-only and shows the counter; if the model has no such field, only the table has
    /// the column. Without a counter an item's ETag is a digest of its content.
    pub fn version(mut self, field: impl Into<String>) -> Self {
        self.version = Some(field.into());
        self
    }

    /// Lets the server maintain two `date-time` fields of the model: when an item was created and last changed.
    pub fn timestamps(mut self, created: impl Into<String>, updated: impl Into<String>) -> Self {
        let (created, updated) = (created.into(), updated.into());
        for field in [&created, &updated] {
            self.claim(format!("the field `{field}`"), ".timestamps(…)");
        }
        self.timestamps = Some((created, updated));
        self
    }

    /// Fields that responses contain and bodies cannot set (also `readOnly` in the schema).
    pub fn read_only<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.read_only.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Fields that bodies may set and responses never contain (also `writeOnly` in the schema).
    pub fn write_only<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.write_only.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Fields that are set when an item is created and cannot be changed afterwards.
    pub fn immutable<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.immutable.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Fields that lists can be filtered by, in addition to the id and the indexed fields.
    pub fn filterable<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.filterable.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Fields that lists can be sorted by, in addition to the id and the indexed fields.
    pub fn sortable<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.sortable.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Text fields that `q=` searches. Without any, `q` is an unknown parameter.
    pub fn searchable<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.searchable.extend(fields.into_iter().map(Into::into));
        self
    }

    /// An index over these fields, the leading one first. Lists can be filtered and sorted by indexed fields.
    pub fn index<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.indexes.push((fields.into_iter().map(Into::into).collect(), false));
        self
    }

    /// A unique index over these fields. With the preset [`multi_tenant`](crate::presets::multi_tenant) values are
    /// unique within a tenant, since a conflict would reveal another tenant's items.
    pub fn unique<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.indexes.push((fields.into_iter().map(Into::into).collect(), true));
        self
    }

    /// A unique index across all tenants, for namespaces that all tenants share, such as domain names. A conflict then
    /// reveals that some tenant holds the value.
    pub fn unique_globally<N: Into<String>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.globally_unique.push(self.indexes.len());
        self.unique(fields)
    }

    /// Scopes unique indexes to this field: items that differ in it may hold the same unique values, except those that
    /// are [`unique_globally`](Self::unique_globally). For presets that assign each item to a tenant.
    pub fn unique_within(mut self, field: impl Into<String>) -> Self {
        self.unique_within = Some(field.into());
        self
    }

    /// Adds a query parameter of lists: a filter that clients choose by name. See [`ListParameter`].
    pub fn list_parameter(mut self, parameter: ListParameter) -> Self {
        self.claim(format!("the parameter `{}`", parameter.name), ".list_parameter(…)");
        self.list_parameters.push(parameter);
        self
    }

    /// Adds a relation to another resource of the application.
    pub fn relation(mut self, relation: Relation) -> Self {
        self.relations.push(relation);
        self
    }
}
