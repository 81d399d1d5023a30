//! Replace: all fields of an item, or a new item where the client may give ids.

use resourceful_contract::Value;
use serde_json::Value as Json;

use super::contention::ConflictRetry;
use super::input;
use super::input::Fields;
use super::update::{UpdateTarget, immutable};
use crate::access::Operation;
use crate::engine::{Call, Expected, PutResult};
use crate::error::{Error, ErrorKind, Fault, escape_pointer};

/// The parsed body of a PUT.
struct Replacement {
    /// The body as it was sent, where it means something else for an item that does not exist yet.
    original: Option<Json>,
    /// The members that apply to an existing item: without those that hold the substitute value of a redacted field.
    fields: Fields,
    /// The names of the omitted members.
    omitted: Vec<String>,
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
    ) -> Result<PutResult, Error> {
        if self.has_hooks(Operation::Replace) {
            let put = self.replace_inner(id, body, expected, create_only);
            return Box::pin(self.run_around_hooks(Operation::Replace, put)).await;
        }
        self.replace_inner(id, body, expected, create_only).await
    }

    async fn replace_inner(
        &self,
        id: &str,
        body: Json,
        expected: Option<&Expected>,
        create_only: bool,
    ) -> Result<PutResult, Error> {
        let id = self.parse_id(id)?;
        let request = self.parse_replacement(&id, body)?;
        let changeable = self.changeable().await?;
        let mut attempts = ConflictRetry::default();
        loop {
            match self.current_within(&changeable, id.clone(), Operation::Replace).await {
                Ok(_) if create_only => return Err(Error::precondition_failed("if-none-match")),
                Ok((current, version)) => {
                    self.require_if_match(expected)?;
                    self.check_version(expected, version)?;
                    let next = self.apply_replacement(&current, &request)?;
                    let blind = &request.blind;
                    let step = UpdateTarget {
                        operation: Operation::Replace,
                        id: &id,
                        current: &current,
                        version,
                        blind,
                    };
                    if let Some(item) =
                        self.commit_update(&changeable, step, next, expected, &mut attempts).await?
                    {
                        return Ok(PutResult::Changed(item));
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound && self.definition().has_client_ids() => {
                    if let Some(put) = self.create_at_id(&id, &request, expected, create_only).await? {
                        return Ok(put);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn id_fault(&self, id: &Value, fields: &Fields) -> Option<Fault> {
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
    fn parse_replacement(&self, id: &Value, mut body: Json) -> Result<Replacement, Error> {
        let mut original = self.is_redacted().then(|| body.clone());
        let kept = self.remove_placeholders(&mut body);
        original.take_if(|_| kept.is_empty());
        let mut faults = self.body_faults(&self.definition().bodies.replace_validator, &body);
        let fields = self.members(body)?;
        faults.extend(self.id_fault(id, &fields));
        let blind = self.blind_fields(&fields);
        Ok(Replacement { original, fields, omitted: kept, blind, faults })
    }

    /// Whether a replacement leaves a field unchanged: the client may not set it, or was not shown it and left it out.
    fn is_preserved(&self, request: &Replacement, position: usize) -> bool {
        let field = &self.entry.schema.fields[position];
        let is_omitted = field.write_only && !request.fields.contains_key(&field.name);
        field.read_only
            || field.immutable
            || !self.can_set(position)
            || is_omitted
            || request.omitted.contains(&field.name)
    }

    fn apply_replacement(&self, current: &Fields, request: &Replacement) -> Result<Fields, Error> {
        let (fields, mut faults) = (&request.fields, request.faults.clone());
        self.refuse_forbidden(Some(current), fields)?;
        let mut next = self.assemble_defaults(fields.clone());
        for (position, field) in self.entry.schema.fields.iter().enumerate() {
            let Some(kept) = current.get(&field.name) else {
                continue;
            };
            let given = fields.get(&field.name);
            let is_same = given.is_some_and(|given| self.is_unchanged(field, current, given));
            if position != self.entry.schema.id && field.immutable && given.is_some() && !is_same {
                faults.push(immutable(format!("/{}", escape_pointer(&field.name))));
            }
            if self.is_preserved(request, position) {
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
    async fn create_at_id(
        &self,
        id: &Value,
        request: &Replacement,
        expected: Option<&Expected>,
        create_only: bool,
    ) -> Result<Option<PutResult>, Error> {
        let create_call = self.engine.call(self.entry, self.actor, Operation::Create, false).await?;
        let create_call = create_call.with_context(self.context);
        if expected.is_some() {
            return Err(Error::precondition_failed("if-match"));
        }
        // There is no stored value that a placeholder could stand for, so a placeholder is an ordinary value here.
        let (mut fields, faults) = match &request.original {
            None => (request.fields.clone(), request.faults.clone()),
            Some(original) => {
                let mut faults = self.body_faults(&self.definition().bodies.replace_validator, original);
                let fields = self.members(original.clone())?;
                faults.extend(self.id_fault(id, &fields));
                (fields, faults)
            }
        };
        create_call.refuse_forbidden(None, &fields)?;
        fields.insert(self.entry.schema.id_field().name.clone(), input::value_json(id)?);
        let assembled = create_call.assemble_new(fields)?;
        let assembled = create_call.check(assembled, faults)?;
        create_call.reject_reserved_id(&assembled)?;
        match create_call.insert(assembled).await {
            Ok((item, id)) => Ok(Some(PutResult::Created(item, id))),
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
