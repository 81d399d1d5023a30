//! Enlisted changes: changes of other items that a hook adds to the same commit.

use resourceful_contract::{Guard, Write};
use serde_json::Value as Json;

use super::commit::{PendingChange, enlisted_conflict};
use super::input;
use super::input::Fields;
use super::update::{Difference, merge};
use crate::access::Operation;
use crate::catalog::RowFilter;
use crate::catalog::Visibilities;
use crate::engine::Call;
use crate::error::{Error, ErrorKind};
use crate::resource::{Enlisted, EnlistedWrite};

impl<'a> Call<'a> {
    /// The enlisted changes in the form in which they are committed.
    ///
    /// # Errors
    /// Where one of them cannot be made, which is an internal error.
    pub(in crate::engine) async fn prepare_enlisted(
        &self,
        enlisted: Vec<Enlisted>,
    ) -> Result<Vec<PendingChange>, Error> {
        if enlisted.is_empty() {
            return Ok(Vec::new());
        }
        Box::pin(self.prepare_each(enlisted)).await
    }

    async fn prepare_each(&self, enlisted: Vec<Enlisted>) -> Result<Vec<PendingChange>, Error> {
        let mut changes = Vec::with_capacity(enlisted.len());
        for one in enlisted {
            let entry = self
                .engine
                .catalog
                .find(&one.resource)
                .map_err(|error| enlist_error(&one.resource, error))?;
            if !entry.storage.is_same(&self.entry.storage) {
                let message =
                    format!("`{}` is kept in another database than `{}`", one.resource, self.entry.name);
                return Err(Error::internal(message));
            }
            let (allowed, visibilities) = (RowFilter::unrestricted(), Visibilities::unrestricted(entry));
            let addressed = RowFilter::unrestricted();
            let (engine, actor, context) = (self.engine, self.actor, self.context);
            let call = Call { engine, entry, actor, allowed, addressed, visibilities, context };
            let made = call.enlisted_change(one.write).await;
            changes.extend(made.map_err(|error| match error.kind() {
                // It may have been deleted since the hook read it.
                ErrorKind::NotFound => enlisted_conflict(error),
                _ => enlist_error(&one.resource, error),
            })?);
        }
        Ok(changes)
    }

    /// One enlisted change; `None` where it changes nothing.
    async fn enlisted_change(&self, write: EnlistedWrite) -> Result<Option<PendingChange>, Error> {
        let allowed = &self.allowed;
        match write {
            EnlistedWrite::Create(json) => {
                let given = input::into_object(json)?;
                let has_id = given.contains_key(&self.entry.schema.id_field().name);
                let checked = self.revalidate(self.assemble_enlisted(given)?)?;
                let write = Write::Insert { values: self.new_row(&checked, has_id)? };
                Ok(Some(self.pending_change(allowed, Operation::Create, write, None, Some(checked))))
            }
            EnlistedWrite::Update(id, patch) => {
                let id = self.parse_id(&id)?;
                let (current, version) = self.current(id.clone()).await?;
                let mut next = Json::Object(current.clone());
                merge(&mut next, &patch);
                let next = self.revalidate(input::into_object(next)?)?;
                let mut after = next.clone();
                let Difference::Changed(set) = self.difference(&current, next)? else {
                    return Ok(None);
                };
                self.set_updated_at(&mut after, &set)?;
                let write = Write::Update { id, set, guard: Guard::version(version) };
                Ok(Some(self.pending_change(allowed, Operation::Update, write, Some(current), Some(after))))
            }
            EnlistedWrite::Delete(id) => {
                let id = self.parse_id(&id)?;
                let (current, version) = self.current(id.clone()).await?;
                self.delete_change(allowed, &id, current, version).map(Some)
            }
        }
    }

    /// A complete item of the application's own: the given fields, and the rest as for any new item.
    fn assemble_enlisted(&self, given: Fields) -> Result<Fields, Error> {
        let mut fields = self.assemble_defaults(given.clone());
        for (position, fill) in &self.definition().fills {
            if let Some(value) = self.fill_value(*position, *fill)? {
                fields.insert(self.entry.schema.fields[*position].name.clone(), value);
            }
        }
        let version = self.item_version(&fields).cloned();
        fields.extend(given);
        self.set_version(&mut fields, version);
        Ok(fields)
    }
}

/// The error for an enlisted change that cannot be made: an internal error, which gives the caller no details.
fn enlist_error(resource: &str, error: Error) -> Error {
    if error.kind() == ErrorKind::Unavailable {
        return error;
    }
    Error::internal(format!(
        "a hook enlisted a change of `{resource}` that cannot be done: {error}: {:?}",
        error.faults()
    ))
}
