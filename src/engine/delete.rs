//! No such item any more.

use resourceful_contract::{ErrorKind, Guard, Value, Version, Write};

use super::commit::Prepared;
use super::sight::Admitted;
use super::update::{ATTEMPTS, too_contended};
use super::{Call, Expected};
use crate::error::Error;
use crate::resource::Operation;

impl Call<'_> {
    /// Deletes an item.
    pub(crate) async fn delete(&self, id: &str, expected: Option<&Expected>) -> Result<(), Error> {
        if self.is_hooked(Operation::Delete) {
            return Box::pin(self.around(Operation::Delete, self.deleted(id, expected))).await;
        }
        self.deleted(id, expected).await
    }

    async fn deleted(&self, id: &str, expected: Option<&Expected>) -> Result<(), Error> {
        self.require_expected(expected)?;
        let id = self.id(id)?;
        let changeable = self.changeable().await?;
        if expected.is_none() && !self.is_told(Operation::Delete) {
            // Nobody has to see it: the statement alone decides.
            let write = Write::Delete { id: id.clone(), guard: Guard::none() };
            let main = self.made(&changeable, Operation::Delete, write, None, None);
            return self.removed(Prepared { main, beside: Vec::new() }, id, true).await.map(drop);
        }
        for _ in 0..ATTEMPTS {
            let (prepared, _) = self.prepared_delete(&changeable, &id, expected).await?;
            if self.removed(prepared, id.clone(), expected.is_some()).await? {
                return Ok(());
            }
        }
        Err(too_contended())
    }

    /// A delete of an item as it is now, as hooks let it be.
    pub(super) async fn prepared_delete(
        &self,
        changeable: &Admitted,
        id: &Value,
        expected: Option<&Expected>,
    ) -> Result<(Prepared, Version), Error> {
        let (current, version) = self.current_of(changeable, id.clone(), Operation::Delete).await?;
        self.expect(expected, version)?;
        let is_hooked = self.is_hooked(Operation::Delete);
        let enlisted = if is_hooked { self.before_delete(&current).await? } else { Vec::new() };
        let beside = self.enlisted(enlisted).await?;
        let write = Write::Delete { id: id.clone(), guard: Guard::version(version) };
        let main = self.made(changeable, Operation::Delete, write, Some(current), None);
        Ok((Prepared { main, beside }, version))
    }

    /// Commits a delete; `false` where the item has changed since and it is to be made again.
    async fn removed(&self, prepared: Prepared, id: Value, is_expected: bool) -> Result<bool, Error> {
        match self.commit_one(prepared).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_contended(is_expected) => Ok(false),
            Err(failure) if !failure.beside && failure.error.kind() == ErrorKind::NotFound => {
                Err(self.out_of_reach(id, Operation::Delete).await)
            }
            Err(failure) => Err(self.explained(failure)),
        }
    }
}
