//! Enlisted changes: changes of other items that a hook adds to the same commit.

use resourceful_contract::{Guard, Write};
use serde_json::Value as Json;

use super::assemble;
use super::assemble::Fields;
use super::commit::{PendingChange, refused};
use super::update::{Next, merge};
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
    pub(in crate::engine) async fn enlisted(
        &self,
        enlisted: Vec<Enlisted>,
    ) -> Result<Vec<PendingChange>, Error> {
        if enlisted.is_empty() {
            return Ok(Vec::new());
        }
        Box::pin(self.as_changes(enlisted)).await
    }

    async fn as_changes(&self, enlisted: Vec<Enlisted>) -> Result<Vec<PendingChange>, Error> {
        let mut changes = Vec::with_capacity(enlisted.len());
        for one in enlisted {
            let entry =
                self.engine.catalog.find(&one.resource).map_err(|error| unable(&one.resource, error))?;
            if !entry.storage.is(&self.entry.storage) {
                let message =
                    format!("`{}` is kept in another database than `{}`", one.resource, self.entry.name);
                return Err(Error::internal(message));
            }
            let (allowed, sights) = (RowFilter::unrestricted(), Visibilities::unrestricted(entry));
            let meant = RowFilter::unrestricted();
            let (engine, actor, terms) = (self.engine, self.actor, self.terms);
            let call = Call { engine, entry, actor, allowed, meant, sights, terms };
            let made = call.own_change(one.write).await;
            changes.extend(made.map_err(|error| match error.kind() {
                // It may have been deleted since the hook read it.
                ErrorKind::NotFound => refused(error),
                _ => unable(&one.resource, error),
            })?);
        }
        Ok(changes)
    }

    /// One enlisted change; `None` where it changes nothing.
    async fn own_change(&self, write: EnlistedWrite) -> Result<Option<PendingChange>, Error> {
        let everything = &self.allowed;
        match write {
            EnlistedWrite::Create(json) => {
                let given = assemble::object(json)?;
                let has_id = given.contains_key(&self.entry.schema.id_field().name);
                let checked = self.recheck(self.assemble_own(given)?)?;
                let write = Write::Insert { values: self.new_row(&checked, has_id)? };
                Ok(Some(self.made(everything, Operation::Create, write, None, Some(checked))))
            }
            EnlistedWrite::Update(id, patch) => {
                let id = self.id(&id)?;
                let (current, version) = self.current(id.clone()).await?;
                let mut next = Json::Object(current.clone());
                merge(&mut next, &patch);
                let next = self.recheck(assemble::object(next)?)?;
                let mut told = next.clone();
                let Next::Changed(set) = self.difference(&current, next)? else {
                    return Ok(None);
                };
                self.stamp(&mut told, &set)?;
                let write = Write::Update { id, set, guard: Guard::version(version) };
                Ok(Some(self.made(everything, Operation::Update, write, Some(current), Some(told))))
            }
            EnlistedWrite::Delete(id) => {
                let id = self.id(&id)?;
                let (current, version) = self.current(id.clone()).await?;
                self.going(everything, &id, current, version).map(Some)
            }
        }
    }

    /// A complete item of the application's own: the given fields, and the rest as for any new item.
    fn assemble_own(&self, given: Fields) -> Result<Fields, Error> {
        let mut fields = self.assemble_again(given.clone());
        for (position, fill) in &self.definition().fills {
            if let Some(value) = self.filled(*position, *fill)? {
                fields.insert(self.entry.schema.fields[*position].name.clone(), value);
            }
        }
        let version = self.version_of(&fields).cloned();
        fields.extend(given);
        self.set_version(&mut fields, version);
        Ok(fields)
    }
}

/// The error for an enlisted change that cannot be made: an internal error, which gives the caller no details.
fn unable(resource: &str, error: Error) -> Error {
    if error.kind() == ErrorKind::Unavailable {
        return error;
    }
    Error::internal(format!(
        "a hook enlisted a change of `{resource}` that cannot be done: {error}: {:?}",
        error.faults()
    ))
}
