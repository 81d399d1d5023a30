//! No such item any more.

use resourceful_contract::{Change, ErrorKind, Guard, Value, Write};

use super::sight::Admitted;
use super::update::{ATTEMPTS, too_contended};
use super::{Call, Expected};
use crate::error::Error;
use crate::resource::Operation;

impl Call<'_> {
    /// Deletes an item.
    pub(crate) async fn delete(&self, id: &str, expected: Option<&Expected>) -> Result<(), Error> {
        self.require_expected(expected)?;
        let id = self.id(id)?;
        let changeable = self.changeable().await?;
        let is_hooked = self.is_hooked(Operation::Delete);
        if expected.is_none() && !is_hooked {
            // Nobody has to see it: the statement alone decides.
            return self.remove(&changeable, id, Guard::none()).await.map(drop);
        }
        for _ in 0..ATTEMPTS {
            let (current, version) = self.current_of(&changeable, id.clone(), Operation::Delete).await?;
            self.expect(expected, version)?;
            if is_hooked {
                self.before_delete(&current).await?;
            }
            if self.remove(&changeable, id.clone(), Guard::version(version)).await? {
                self.after(Operation::Delete, Some(&current), None).await;
                return Ok(());
            }
            if expected.is_some() {
                return Err(Error::precondition_failed("if-match"));
            }
        }
        Err(too_contended())
    }

    /// Removes a row; `false` where it is there in another version than the guard's.
    async fn remove(&self, changeable: &Admitted, id: Value, guard: Guard) -> Result<bool, Error> {
        let write = Write::Delete { id: id.clone(), guard };
        let change = Change { schema: self.entry.schema.clone(), write, answer: None };
        match self.entry.storage.commit(changeable, change).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(self.out_of_reach(id, Operation::Delete).await)
            }
            Err(error) if error.kind() == ErrorKind::VersionMismatch => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
