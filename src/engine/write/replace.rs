//! Replace: all fields of an item, or a new item where the client may give ids.

use resourceful_contract::Value;
use serde_json::Value as Json;

use super::assemble;
use super::assemble::Fields;
use super::contention::ConflictRetry;
use super::update::{Step, immutable};
use crate::access::Operation;
use crate::engine::{Call, Expected, Put};
use crate::error::{Error, ErrorKind, Fault, escape_pointer};

/// The parsed body of a PUT.
struct Replacement {
    /// The body as it was sent, where it means something else for an item that does not exist yet.
    whole: Option<Json>,
    /// The members that apply to an existing item: without those that hold the substitute value of a redacted field.
    fields: Fields,
    /// The names of the omitted members.
    kept: Vec<String>,
    /// The fields that are set without the caller being shown their values.
    blind: Vec<usize>,
    faults: Vec<Fault>,
}

impl Call<'_> {
    /// Writes an item at an id: replaces the existing one, or creates it where the client may give ids.
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
        let request = self.replacement(&id, body)?;
        let changeable = self.changeable().await?;
        let mut attempts = ConflictRetry::default();
        loop {
            match self.current_of(&changeable, id.clone(), Operation::Replace).await {
                Ok(_) if create_only => return Err(Error::precondition_failed("if-none-match")),
                Ok((current, version)) => {
                    self.require_expected(expected)?;
                    self.expect(expected, version)?;
                    let next = self.replaced(&current, &request)?;
                    let blind = &request.blind;
                    let step =
                        Step { operation: Operation::Replace, id: &id, current: &current, version, blind };
                    if let Some(item) = self.change(&changeable, step, next, expected, &mut attempts).await? {
                        return Ok(Put::Changed(item));
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound && self.definition().client_ids() => {
                    if let Some(put) = self.put_new(&id, &request, expected, create_only).await? {
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

    /// Parses the body of a PUT.
    ///
    /// # Errors
    /// Where it is not an object.
    fn replacement(&self, id: &Value, mut body: Json) -> Result<Replacement, Error> {
        let mut whole = self.is_redacted().then(|| body.clone());
        let kept = self.without_placeholders(&mut body);
        whole.take_if(|_| kept.is_empty());
        let mut faults = self.body_faults(&self.definition().bodies.replaces, &body);
        let fields = self.members(body)?;
        faults.extend(self.other_id(id, &fields));
        let blind = self.set_blindly(&fields);
        Ok(Replacement { whole, fields, kept, blind, faults })
    }

    /// Whether a replacement leaves a field unchanged: the client may not set it, or was not shown it and left it out.
    fn keeps(&self, request: &Replacement, position: usize) -> bool {
        let field = &self.entry.schema.fields[position];
        let is_unsaid = field.write_only && !request.fields.contains_key(&field.name);
        field.read_only
            || field.immutable
            || !self.may_set(position)
            || is_unsaid
            || request.kept.contains(&field.name)
    }

    fn replaced(&self, current: &Fields, request: &Replacement) -> Result<Fields, Error> {
        let (fields, mut faults) = (&request.fields, request.faults.clone());
        self.refuse_forbidden(Some(current), fields)?;
        let mut next = self.assemble_again(fields.clone());
        for (position, field) in self.entry.schema.fields.iter().enumerate() {
            let Some(kept) = current.get(&field.name) else {
                continue;
            };
            let given = fields.get(&field.name);
            let is_same = given.is_some_and(|given| self.is_unchanged(field, current, given));
            if position != self.entry.schema.id && field.immutable && given.is_some() && !is_same {
                faults.push(immutable(format!("/{}", escape_pointer(&field.name))));
            }
            if self.keeps(request, position) {
                next.insert(field.name.clone(), kept.clone());
                // Fields that the server keeps need not be repeated.
                let pointer = format!("/{}", escape_pointer(&field.name));
                let is_about =
                    |fault: &Fault| fault.at == crate::error::FaultLocation::Pointer(pointer.clone());
                faults.retain(|fault| match &*fault.code {
                    "required" => !is_about(fault),
                    "read-only" => !is_same || !is_about(fault),
                    _ => true,
                });
            }
        }
        self.check(next, faults)
    }

    /// Creates the item; `None` where a concurrent request created it first, so that there is an item to replace.
    async fn put_new(
        &self,
        id: &Value,
        request: &Replacement,
        expected: Option<&Expected>,
        create_only: bool,
    ) -> Result<Option<Put>, Error> {
        let creating = self.engine.call(self.entry, self.actor, Operation::Create, false).await?;
        let creating = creating.on(self.terms);
        if expected.is_some() {
            return Err(Error::precondition_failed("if-match"));
        }
        // There is no stored value that a placeholder could stand for, so a placeholder is an ordinary value here.
        let (mut fields, faults) = match &request.whole {
            None => (request.fields.clone(), request.faults.clone()),
            Some(whole) => {
                let mut faults = self.body_faults(&self.definition().bodies.replaces, whole);
                let fields = self.members(whole.clone())?;
                faults.extend(self.other_id(id, &fields));
                (fields, faults)
            }
        };
        creating.refuse_forbidden(None, &fields)?;
        fields.insert(self.entry.schema.id_field().name.clone(), assemble::value_json(id)?);
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
