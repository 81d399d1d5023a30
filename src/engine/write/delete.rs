//! Delete of an item.

use resourceful_contract::{ErrorKind, Guard, RowOutcome, Value, Version, Write};

use super::assemble;
use super::assemble::Fields;
use super::commit::{PendingChange, PreparedWrite};
use super::contention::ConflictRetry;
use super::update::Next;
use crate::access::Operation;
use crate::catalog::RowFilter;
use crate::engine::{Call, Expected, Item};
use crate::error::Error;

impl Call<'_> {
    /// Deletes an item.
    pub(crate) async fn delete(&self, id: &str, expected: Option<&Expected>) -> Result<Option<Item>, Error> {
        if self.is_hooked(Operation::Delete) {
            return Box::pin(self.around(Operation::Delete, self.deleted(id, expected))).await;
        }
        self.deleted(id, expected).await
    }

    async fn deleted(&self, id: &str, expected: Option<&Expected>) -> Result<Option<Item>, Error> {
        self.require_expected(expected)?;
        let id = self.id(id)?;
        let changeable = self.changeable().await?;
        if expected.is_none() && !self.is_told(Operation::Delete) && self.definition().deleted_at.is_none() {
            // Nothing needs to read the item: the statement alone decides.
            let write = Write::Delete { id: id.clone(), guard: Guard::none() };
            let main = self.made(&changeable, Operation::Delete, write, None, None);
            return self.removed(PreparedWrite { main, beside: Vec::new() }, id, true).await.map(|_| None);
        }
        let mut attempts = ConflictRetry::default();
        loop {
            let prepared = self.prepared_delete(&changeable, &id, expected).await?;
            let is_expected = Expected::is_of_version(expected);
            if let Some(written) = self.removed(prepared, id.clone(), is_expected).await? {
                return match self.definition().deleted_at {
                    Some(_) => self.answered(written).map(|(item, _)| Some(item)),
                    None => Ok(None),
                };
            }
            attempts.lost(self.engine, vec![self.contended(&id)]).await?;
        }
    }

    /// The prepared delete of the current item, after its hooks ran.
    pub(in crate::engine) async fn prepared_delete(
        &self,
        changeable: &RowFilter,
        id: &Value,
        expected: Option<&Expected>,
    ) -> Result<PreparedWrite, Error> {
        let (current, version) = self.current_of(changeable, id.clone(), Operation::Delete).await?;
        self.expect(expected, version)?;
        self.prepared_gone(changeable, id, current, version).await
    }

    /// The prepared delete of an item in this state, after its hooks ran.
    pub(in crate::engine) async fn prepared_gone(
        &self,
        changeable: &RowFilter,
        id: &Value,
        current: Fields,
        version: Version,
    ) -> Result<PreparedWrite, Error> {
        let is_hooked = self.is_hooked(Operation::Delete);
        let enlisted = if is_hooked { self.before_delete(&current).await? } else { Vec::new() };
        let beside = self.enlisted(enlisted).await?;
        let main = self.going(changeable, id, current, version)?;
        Ok(PreparedWrite { main, beside })
    }

    /// The change that deletes an item, permanently or as a soft delete.
    pub(in crate::engine) fn going(
        &self,
        changeable: &RowFilter,
        id: &Value,
        current: Fields,
        version: Version,
    ) -> Result<PendingChange, Error> {
        let (id, guard) = (id.clone(), Guard::version(version));
        let Some(field) = self.definition().deleted_at else {
            let write = Write::Delete { id, guard };
            return Ok(self.made(changeable, Operation::Delete, write, Some(current), None));
        };
        let mut next = current.clone();
        next.insert(self.entry.schema.fields[field].name.clone(), assemble::instant(crate::clock::now()));
        let mut told = next.clone();
        let Next::Changed(set) = self.difference(&current, next)? else {
            return Err(Error::not_found());
        };
        self.stamp(&mut told, &set)?;
        let write = Write::Update { id, set, guard };
        Ok(self.made(changeable, Operation::Delete, write, Some(current), Some(told)))
    }

    /// Commits a delete; `None` where the item has changed since and the delete is to be retried.
    async fn removed(
        &self,
        prepared: PreparedWrite,
        id: Value,
        is_expected: bool,
    ) -> Result<Option<RowOutcome>, Error> {
        match self.commit_one(prepared).await {
            Ok(written) => Ok(Some(written)),
            Err(failure) if failure.is_contended(is_expected) => Ok(None),
            Err(failure) if !failure.beside && failure.error.kind() == ErrorKind::NotFound => {
                Err(self.out_of_reach(id, Operation::Delete).await)
            }
            Err(failure) => Err(self.explained(failure)),
        }
    }
}
