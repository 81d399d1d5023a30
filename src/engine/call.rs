//! An authorized call: the permitted rows, the caller's visibility and the write context that an operation works with.

use std::sync::Arc;

use resourceful_contract::{Filter, Value};

use super::write::context;
use super::{Engine, WriteContext};
use crate::access::{Actor, Operation};
use crate::authz::decision;
use crate::catalog::{Entry, Mask, RowFilter, Visibilities, Visibility};
use crate::error::Error;
use crate::query::Reader;
use crate::resource::{Definition, Right};

/// An authorized call of an operation. It is created only from an authorization decision.
pub(crate) struct Call<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) entry: &'a Arc<Entry>,
    pub(crate) actor: &'a Actor,
    /// The rows that the operation is allowed on.
    pub(super) allowed: RowFilter,
    /// The subset of these rows that the request addresses: each must still match when it is changed.
    pub(super) addressed: RowFilter,
    pub(super) visibilities: Visibilities,
    /// The write context of its changes.
    pub(super) context: &'a WriteContext,
}

impl Engine {
    /// Authorizes a call of an operation, before anything is read. Of the request it uses only whether relations may be
    /// followed.
    ///
    /// # Errors
    /// Where the caller may not make it.
    pub(crate) async fn call<'a>(
        &'a self,
        entry: &'a Arc<Entry>,
        actor: &'a Actor,
        right: impl Into<Right>,
        with_relations: bool,
    ) -> Result<Call<'a>, Error> {
        let right = right.into();
        // A write may refer to rows of other resources, which its caller has to see.
        let has_references =
            matches!(right.base_operation(), Operation::Create | Operation::Update | Operation::Replace);
        let (allowed, visibilities) =
            decision::authorize(&self.catalog, entry, actor, right, with_relations || has_references).await?;
        let addressed = RowFilter::unrestricted();
        Ok(Call { engine: self, entry, actor, allowed, addressed, visibilities, context: &context::DEFAULT })
    }
}

impl<'a> Call<'a> {
    /// The same call with another write context for its changes.
    pub(crate) fn clone_with<'b>(&'b self, context: &'b WriteContext) -> Call<'b> {
        Call {
            engine: self.engine,
            entry: self.entry,
            actor: self.actor,
            allowed: self.allowed.clone(),
            addressed: self.addressed.clone(),
            visibilities: self.visibilities.clone(),
            context,
        }
    }

    /// The same call, restricted to rows that match a filter at the time of their change.
    pub(crate) fn restricted_to(&self, filter: Filter) -> Call<'_> {
        Call { addressed: RowFilter::unrestricted().and_filter(filter), ..self.clone_with(self.context) }
    }

    /// The write context of one of many items that are written one by one.
    pub(crate) fn item_context(&self, item: &str) -> WriteContext {
        self.context.for_item(item)
    }

    /// Takes over the dry-run events of one of many items.
    pub(crate) fn merge_events(&self, context: &WriteContext) {
        self.context.add_events(context.take_events());
    }

    /// The same call, with this write context for its changes.
    pub(crate) const fn with_context(mut self, context: &'a WriteContext) -> Self {
        self.context = context;
        self
    }

    pub(crate) fn definition(&self) -> &'a Definition {
        &self.entry.definition
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { catalog: &self.engine.catalog, entry: self.entry, visibilities: &self.visibilities }
    }

    /// The caller's visibility of this resource.
    pub(crate) const fn visibility(&self) -> &Visibility {
        self.visibilities.requested()
    }

    /// The rows that the caller may see.
    ///
    /// # Errors
    /// Where the caller may see none.
    pub(crate) fn visible_rows(&self) -> Result<&RowFilter, Error> {
        let refused = || decision::denied(self.entry, self.actor, Operation::Read);
        self.visibility().rows.as_ref().ok_or_else(refused)
    }

    pub(crate) const fn mask(&self) -> &Mask {
        &self.visibility().mask
    }

    /// The visible fields that this caller is shown.
    pub(crate) fn visible_fields(&self) -> Vec<usize> {
        let mask = self.mask();
        let visible = &self.definition().visible;
        if mask.is_fully_readable() {
            return visible.clone();
        }
        visible.iter().copied().filter(|field| mask.is_visible(*field)).collect()
    }

    /// Parses an id from a path; a malformed id is not found, like an absent one.
    pub(crate) fn parse_id(&self, text: &str) -> Result<Value, Error> {
        let field_type = self.entry.schema.id_field().field_type;
        field_type.parse(text).map_err(|_| Error::not_found())
    }
}
