//! No such item any more.

use resourceful_contract::{Change, ChangeSet, Guard, Write};

use super::update::expect;
use super::{Call, Expected};
use crate::error::Error;
use crate::resource::Operation;

impl Call<'_> {
    /// Deletes an item.
    pub(crate) async fn delete(&self, id: &str, expected: Option<&Expected>) -> Result<(), Error> {
        self.authorize(Operation::Delete)?;
        self.require_expected(expected)?;
        let id = self.id(id)?;
        let guard = match expected {
            None => Guard::none(),
            Some(_) => {
                let (_, version) = self.current(id.clone()).await?;
                expect(expected, version)?;
                Guard::version(version)
            }
        };
        let change =
            Change { schema: self.entry.schema.clone(), write: Write::Delete { id, guard }, answer: None };
        self.entry.storage.commit(ChangeSet::one(change)).await?;
        Ok(())
    }
}
