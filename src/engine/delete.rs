//! No such item any more.

use resourceful_contract::{Change, ErrorKind, Guard, Write};

use super::{Call, Expected};
use crate::error::Error;
use crate::resource::Operation;

impl Call<'_> {
    /// Deletes an item.
    pub(crate) async fn delete(&self, id: &str, expected: Option<&Expected>) -> Result<(), Error> {
        self.require_expected(expected)?;
        let id = self.id(id)?;
        let changeable = self.changeable().await?;
        let guard = match expected {
            None => Guard::none(),
            Some(_) => {
                let (_, version) = self.current_of(&changeable, id.clone(), Operation::Delete).await?;
                self.expect(expected, version)?;
                Guard::version(version)
            }
        };
        let write = Write::Delete { id: id.clone(), guard };
        let change = Change { schema: self.entry.schema.clone(), write, answer: None };
        match self.entry.storage.commit(&changeable, change).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(self.out_of_reach(id, Operation::Delete).await);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
