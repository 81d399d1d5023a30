//! No such item any more.

use resourceful_contract::{Change, ErrorKind, Guard, Value, Write};

use super::sight::Admitted;
use super::update::{ATTEMPTS, is_contended, too_contended};
use super::{Call, Expected, enlist};
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
        let is_hooked = self.is_hooked(Operation::Delete);
        if expected.is_none() && !is_hooked {
            // Nobody has to see it: the statement alone decides.
            return self.remove(&changeable, id, Guard::none(), Vec::new()).await;
        }
        for _ in 0..ATTEMPTS {
            let (current, version) = self.current_of(&changeable, id.clone(), Operation::Delete).await?;
            self.expect(expected, version)?;
            let enlisted = if is_hooked { self.before_delete(&current).await? } else { Vec::new() };
            let beside = self.enlisted(enlisted).await?;
            match self.remove(&changeable, id.clone(), Guard::version(version), beside).await {
                Ok(()) => {
                    self.after(Operation::Delete, Some(&current), None).await;
                    return Ok(());
                }
                Err(error) if is_contended(&error, expected.is_some()) => {}
                Err(error) => return Err(error),
            }
        }
        Err(too_contended())
    }

    async fn remove(
        &self,
        changeable: &Admitted,
        id: Value,
        guard: Guard,
        beside: Vec<Change>,
    ) -> Result<(), Error> {
        let write = Write::Delete { id: id.clone(), guard };
        let change = Change { schema: self.entry.schema.clone(), write, answer: None };
        match self.entry.storage.commit(changeable, change, beside).await {
            Ok(_) => Ok(()),
            Err(error) if enlist::is_beside(&error) => Err(enlist::refused(error)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(self.out_of_reach(id, Operation::Delete).await)
            }
            Err(error) => Err(error.into()),
        }
    }
}
