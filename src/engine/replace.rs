//! All fields of an item, and the item itself where the client may give ids.

use resourceful_contract::Value;
use serde_json::Value as Json;

use super::item::{self, Fields};
use super::update::{ATTEMPTS, Step, immutable};
use super::{Call, Expected, Put};
use crate::error::{Error, ErrorKind, Fault, escape_pointer};
use crate::resource::Operation;

impl Call<'_> {
    /// Puts an item at an id: replaces what is there, or creates it where the client may give ids.
    ///
    /// `create_only` refuses to replace (`If-None-Match: *`).
    pub(crate) async fn replace(
        &self,
        id: &str,
        body: Json,
        expected: Option<&Expected>,
        create_only: bool,
    ) -> Result<Put, Error> {
        if self.is_hooked(Operation::Replace) {
            let put = self.put(id, body, expected, create_only);
            return Box::pin(self.around(Operation::Replace, put)).await;
        }
        self.put(id, body, expected, create_only).await
    }

    async fn put(
        &self,
        id: &str,
        body: Json,
        expected: Option<&Expected>,
        create_only: bool,
    ) -> Result<Put, Error> {
        let id = self.id(id)?;
        let mut faults = self.body_faults(&self.definition().bodies.replaces, &body)?;
        let fields = self.members(body)?;
        faults.extend(self.other_id(&id, &fields));
        let changeable = self.changeable().await?;
        let mut attempts = ATTEMPTS;
        loop {
            match self.current_of(&changeable, id.clone(), Operation::Replace).await {
                Ok(_) if create_only => return Err(Error::precondition_failed("if-none-match")),
                Ok((current, version)) => {
                    self.require_expected(expected)?;
                    self.expect(expected, version)?;
                    let next = self.replaced(&current, &fields, faults.clone())?;
                    let step = Step { operation: Operation::Replace, id: &id, current: &current, version };
                    if let Some(item) = self.change(&changeable, step, next, expected, &mut attempts).await? {
                        return Ok(Put::Changed(item));
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound && self.definition().client_ids() => {
                    if let Some(put) =
                        self.put_new(&id, &fields, expected, create_only, faults.clone()).await?
                    {
                        return Ok(put);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn other_id(&self, id: &Value, fields: &Fields) -> Option<Fault> {
        let field = self.entry.schema.id_field();
        let given = field.field_type.read_json(fields.get(&field.name)?).ok()?;
        let pointer = format!("/{}", escape_pointer(&field.name));
        (given != *id)
            .then(|| Fault::pointer(pointer, "mismatch", "Must be the id in the path, or left out."))
    }

    fn replaced(&self, current: &Fields, fields: &Fields, mut faults: Vec<Fault>) -> Result<Fields, Error> {
        let mut next = self.assemble_again(fields.clone());
        for (position, field) in self.entry.schema.fields.iter().enumerate() {
            let Some(kept) = current.get(&field.name) else {
                continue;
            };
            let given = fields.get(&field.name);
            if position != self.entry.schema.id && field.immutable && given.is_some_and(|given| given != kept)
            {
                faults.push(immutable(format!("/{}", escape_pointer(&field.name))));
            }
            if field.read_only || field.immutable || !self.may_set(position) {
                next.insert(field.name.clone(), kept.clone());
                // What the server keeps need not be repeated.
                let pointer = format!("/{}", escape_pointer(&field.name));
                faults.retain(|fault| {
                    fault.code != "required" || fault.at != crate::error::Place::Pointer(pointer.clone())
                });
            }
        }
        self.check(next, faults)
    }

    /// Creates the item; `None` where another request did so first, so that there is something to replace.
    async fn put_new(
        &self,
        id: &Value,
        fields: &Fields,
        expected: Option<&Expected>,
        create_only: bool,
        faults: Vec<Fault>,
    ) -> Result<Option<Put>, Error> {
        let creating = self.engine.call(self.entry, self.actor, Operation::Create, false).await?;
        let creating = creating.on(self.terms);
        if expected.is_some() {
            return Err(Error::precondition_failed("if-match"));
        }
        let mut fields = fields.clone();
        fields.insert(self.entry.schema.id_field().name.clone(), item::spelled(id)?);
        let assembled = creating.assemble_new(fields)?;
        let assembled = creating.check(assembled, faults)?;
        creating.unreserved(&assembled)?;
        match creating.insert(assembled).await {
            Ok((item, id)) => Ok(Some(Put::Created(item, id))),
            Err(error) if error.kind() == ErrorKind::Conflict && self.current(id.clone()).await.is_ok() => {
                if create_only {
                    Err(Error::precondition_failed("if-none-match"))
                } else {
                    Ok(None)
                }
            }
            Err(error) => Err(error),
        }
    }
}
