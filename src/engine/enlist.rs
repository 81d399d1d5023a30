//! Changes of other items that a hook wants in the same commit.

use resourceful_contract::{Change, ErrorKind as StorageKind, Guard, StorageError, Write};
use serde_json::Value as Json;

use super::Call;
use super::item::{self, Fields};
use super::sight::{Admitted, Sights};
use super::update::{Next, merge};
use crate::error::{Error, ErrorKind};
use crate::resource::{Enlisted, EnlistedWrite};

impl<'a> Call<'a> {
    /// What hooks enlisted, as the storage takes it.
    ///
    /// # Errors
    /// Where something of it cannot be done, which is the application's fault.
    pub(super) async fn enlisted(&self, enlisted: Vec<Enlisted>) -> Result<Vec<Change>, Error> {
        if enlisted.is_empty() {
            return Ok(Vec::new());
        }
        Box::pin(self.as_changes(enlisted)).await
    }

    async fn as_changes(&self, enlisted: Vec<Enlisted>) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::with_capacity(enlisted.len());
        for one in enlisted {
            let entry = self.engine.find(&one.resource).map_err(|error| unable(&one.resource, error))?;
            if !entry.storage.is(&self.entry.storage) {
                let message =
                    format!("`{}` is kept in another database than `{}`", one.resource, self.entry.name);
                return Err(Error::internal(message));
            }
            let (allowed, sights) = (Admitted::by_the_application(), Sights::by_the_application(entry));
            let call = Call { engine: self.engine, entry, actor: self.actor, allowed, sights };
            let write = call.own_write(one.write).await.map_err(|error| unable(&one.resource, error))?;
            changes.extend(write.map(|write| Change { schema: entry.schema.clone(), write, answer: None }));
        }
        Ok(changes)
    }

    /// One of them; `None` where it changes nothing.
    async fn own_write(&self, write: EnlistedWrite) -> Result<Option<Write>, Error> {
        match write {
            EnlistedWrite::Create(json) => {
                let given = item::object(json)?;
                let has_id = given.contains_key(&self.entry.schema.id_field().name);
                let checked = self.recheck(self.assemble_own(given)?)?;
                self.new_row(&checked, has_id).map(|values| Some(Write::Insert { values }))
            }
            EnlistedWrite::Update(id, patch) => {
                let id = self.id(&id)?;
                let (current, version) = self.current(id.clone()).await?;
                let mut next = Json::Object(current.clone());
                merge(&mut next, &patch);
                let next = self.recheck(item::object(next)?)?;
                Ok(match self.difference(&current, next)? {
                    Next::Unchanged => None,
                    Next::Changed(set) => Some(Write::Update { id, set, guard: Guard::version(version) }),
                })
            }
            EnlistedWrite::Delete(id) => Ok(Some(Write::Delete { id: self.id(&id)?, guard: Guard::none() })),
        }
    }

    /// A whole item of the application's own making: what it says, and for the rest what any new item has.
    fn assemble_own(&self, given: Fields) -> Result<Fields, Error> {
        let mut fields = self.assemble_again(given.clone());
        for (position, fill) in &self.definition().fills {
            if let Some(value) = self.filled(*position, *fill)? {
                fields.insert(self.entry.schema.fields[*position].name.clone(), value);
            }
        }
        fields.extend(given);
        Ok(fields)
    }
}

/// What an application enlisted cannot be done: no fault of the caller, who is told no more than that.
fn unable(resource: &str, error: Error) -> Error {
    if error.kind() == ErrorKind::Unavailable {
        return error;
    }
    Error::internal(format!(
        "a hook enlisted a change of `{resource}` that cannot be done: {error}: {:?}",
        error.faults()
    ))
}

/// Whether a commit failed for something enlisted.
pub(super) fn is_beside(error: &StorageError) -> bool {
    error.change().is_some_and(|position| position > 0)
}

/// Why it did.
pub(super) fn refused(error: StorageError) -> Error {
    if matches!(error.kind(), StorageKind::Unavailable | StorageKind::Internal | StorageKind::Corrupt) {
        return error.into();
    }
    let detail = "Something that belongs to this change clashes with what is there.";
    Error::new(ErrorKind::Conflict, "conflict", detail).with_source(error)
}
