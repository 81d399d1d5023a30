//! Delete of an item.

use resourceful_contract::{ErrorKind, Guard, RowOutcome, Value, Version, Write};

use super::commit::{PendingChange, PreparedWrite};
use super::contention::ConflictRetry;
use super::input;
use super::input::Fields;
use super::update::Difference;
use crate::access::Operation;
use crate::catalog::RowFilter;
use crate::engine::{Call, Expected, Item};
use crate::error::Error;

impl Call<'_> {
    /// Deletes an item.
    pub(crate) async fn delete(&self, id: &str, expected: Option<&Expected>) -> Result<Option<Item>, Error> {
        if self.has_hooks(Operation::Delete) {
            return Box::pin(self.run_around_hooks(Operation::Delete, self.delete_inner(id, expected))).await;
        }
        self.delete_inner(id, expected).await
    }

    async fn delete_inner(&self, id: &str, expected: Option<&Expected>) -> Result<Option<Item>, Error> {
        self.require_if_match(expected)?;
        let id = self.parse_id(id)?;
        let changeable = self.changeable().await?;
        if expected.is_none()
            && !self.should_record(Operation::Delete)
            && self.definition().deleted_at.is_none()
        {
            // Nothing needs to read the item: the statement alone decides.
            let write = Write::Delete { id: id.clone(), guard: Guard::none() };
            let main = self.pending_change(&changeable, Operation::Delete, write, None, None);
            return self
                .commit_delete(PreparedWrite { main, enlisted: Vec::new() }, id, true)
                .await
                .map(|_| None);
        }
        let mut attempts = ConflictRetry::default();
        loop {
            let prepared = self.prepare_delete(&changeable, &id, expected).await?;
            let is_expected = Expected::has_versions(expected);
            if let Some(written) = self.commit_delete(prepared, id.clone(), is_expected).await? {
                return match self.definition().deleted_at {
                    Some(_) => self.response_item(written).map(|(item, _)| Some(item)),
                    None => Ok(None),
                };
            }
            attempts.wait(self.engine, vec![self.item_queue(&id)]).await?;
        }
    }

    /// The prepared delete of the current item, after its hooks ran.
    pub(in crate::engine) async fn prepare_delete(
        &self,
        changeable: &RowFilter,
        id: &Value,
        expected: Option<&Expected>,
    ) -> Result<PreparedWrite, Error> {
        let (current, version) = self.current_within(changeable, id.clone(), Operation::Delete).await?;
        self.check_version(expected, version)?;
        self.prepare_delete_of(changeable, id, current, version).await
    }

    /// The prepared delete of an item in this state, after its hooks ran.
    pub(in crate::engine) async fn prepare_delete_of(
        &self,
        changeable: &RowFilter,
        id: &Value,
        current: Fields,
        version: Version,
    ) -> Result<PreparedWrite, Error> {
        let is_hooked = self.has_hooks(Operation::Delete);
        let enlisted = if is_hooked { self.before_delete(&current).await? } else { Vec::new() };
        let enlisted = self.prepare_enlisted(enlisted).await?;
        let main = self.delete_change(changeable, id, current, version)?;
        Ok(PreparedWrite { main, enlisted })
    }

    /// The change that deletes an item, permanently or as a soft delete.
    pub(in crate::engine) fn delete_change(
        &self,
        changeable: &RowFilter,
        id: &Value,
        current: Fields,
        version: Version,
    ) -> Result<PendingChange, Error> {
        let (id, guard) = (id.clone(), Guard::version(version));
        let Some(field) = self.definition().deleted_at else {
            let write = Write::Delete { id, guard };
            return Ok(self.pending_change(changeable, Operation::Delete, write, Some(current), None));
        };
        let mut next = current.clone();
        next.insert(self.entry.schema.fields[field].name.clone(), input::time_json(crate::clock::now()));
        let mut after = next.clone();
        let Difference::Changed(set) = self.difference(&current, next)? else {
            return Err(Error::not_found());
        };
        self.set_updated_at(&mut after, &set)?;
        let write = Write::Update { id, set, guard };
        Ok(self.pending_change(changeable, Operation::Delete, write, Some(current), Some(after)))
    }

    /// Commits a delete; `None` where the item has changed since and the delete is to be retried.
    async fn commit_delete(
        &self,
        prepared: PreparedWrite,
        id: Value,
        is_expected: bool,
    ) -> Result<Option<RowOutcome>, Error> {
        match self.commit_one(prepared).await {
            Ok(written) => Ok(Some(written)),
            Err(failure) if failure.is_retryable(is_expected) => Ok(None),
            Err(failure) if !failure.enlisted && failure.error.kind() == ErrorKind::NotFound => {
                Err(self.access_error(id, Operation::Delete).await)
            }
            Err(failure) => Err(self.commit_error(failure)),
        }
    }
}
