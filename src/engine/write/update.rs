//! Update: some fields of an item (JSON merge patch, RFC 7396).

use resourceful_contract::{Field, Guard, Value, Version, Write};
use serde_json::Value as Json;

use super::commit::PreparedWrite;
use super::contention::ConflictRetry;
use super::input;
use super::input::Fields;
use crate::access::Operation;
use crate::catalog::RowFilter;
use crate::engine::{Call, Expected, Item};
use crate::error::{Error, Fault, escape_pointer};
use crate::resource::validate;

/// The difference between an item's new state and the current one.
pub(in crate::engine) enum Difference {
    Unchanged,
    Changed(Vec<(usize, Value)>),
}

/// The current item that an operation changes.
#[derive(Clone, Copy)]
pub(in crate::engine) struct UpdateTarget<'a> {
    pub(in crate::engine) operation: Operation,
    pub(in crate::engine) id: &'a Value,
    pub(in crate::engine) current: &'a Fields,
    pub(in crate::engine) version: Version,
    /// The fields that the request sets without the caller being shown their values.
    pub(in crate::engine) blind: &'a [usize],
}

impl Call<'_> {
    /// Updates the fields that a merge patch names.
    pub(crate) async fn update(
        &self,
        id: &str,
        patch: Json,
        expected: Option<&Expected>,
    ) -> Result<Item, Error> {
        if self.has_hooks(Operation::Update) {
            return Box::pin(
                self.run_around_hooks(Operation::Update, self.update_inner(id, patch, expected)),
            )
            .await;
        }
        self.update_inner(id, patch, expected).await
    }

    async fn update_inner(&self, id: &str, patch: Json, expected: Option<&Expected>) -> Result<Item, Error> {
        self.require_if_match(expected)?;
        let id = self.parse_id(id)?;
        let patch = self.parse_patch(patch)?;
        let blind = self.blind_fields(&patch);
        let changeable = self.changeable().await?;
        let mut attempts = ConflictRetry::default();
        loop {
            let (current, version) = self.current_within(&changeable, id.clone(), Operation::Update).await?;
            self.check_version(expected, version)?;
            let next = self.apply_patch(&current, &patch)?;
            let target = UpdateTarget {
                operation: Operation::Update,
                id: &id,
                current: &current,
                version,
                blind: &blind,
            };
            if let Some(item) = self.commit_update(&changeable, target, next, expected, &mut attempts).await?
            {
                return Ok(item);
            }
        }
    }

    /// Commits an item's new state; `None` where the item has changed since and the whole change is to be retried on its
    /// new state.
    pub(in crate::engine) async fn commit_update<'s>(
        &'s self,
        changeable: &RowFilter,
        target: UpdateTarget<'_>,
        next: Fields,
        expected: Option<&Expected>,
        attempts: &mut ConflictRetry<'s>,
    ) -> Result<Option<Item>, Error> {
        let id = target.id;
        let Some(prepared) = self.prepare_update(changeable, target, next).await? else {
            return self.unchanged_item(id, target.version).await.map(Some);
        };
        match self.commit_one(prepared).await {
            Ok(written) => self.response_item(written).map(|(item, _)| Some(item)),
            Err(failure) if failure.is_retryable(Expected::has_versions(expected)) => {
                attempts.wait(self.engine, vec![self.item_queue(id)]).await.map(|()| None)
            }
            Err(failure) => Err(self.commit_error(failure)),
        }
    }

    /// The prepared write of an item's new state, after hooks ran and the caller's permission was checked; `None` where
    /// nothing changes.
    pub(in crate::engine) async fn prepare_update(
        &self,
        changeable: &RowFilter,
        target: UpdateTarget<'_>,
        next: Fields,
    ) -> Result<Option<PreparedWrite>, Error> {
        let UpdateTarget { operation, id, current, version, blind } = target;
        if self.has_hooks(operation)
            && let Difference::Changed(set) = self.difference_with(current, next.clone(), blind)?
        {
            // What hooks return must not depend on a row that the caller does not see.
            self.check_references(set.iter().map(|(field, value)| (*field, value))).await?;
        }
        let (next, enlisted) = match next == *current && blind.is_empty() {
            true => (next, Vec::new()),
            false => self.run_before_hooks(operation, Some(current), next).await?,
        };
        let mut after = self.should_record(operation).then(|| next.clone());
        let next = self.difference_with(current, next, blind)?;
        self.check_update(current, &next).await?;
        let Difference::Changed(set) = next else {
            return Ok(None);
        };
        let write = Write::Update { id: id.clone(), set, guard: Guard::version(version) };
        let enlisted = self.prepare_enlisted(enlisted).await?;
        let before = after.is_some().then(|| current.clone());
        if let (Some(after), Write::Update { set, .. }) = (&mut after, &write) {
            self.set_updated_at(after, set)?;
        }
        let mut main = self.pending_change(changeable, operation, write, before, after);
        main.record.blind = blind.to_vec();
        Ok(Some(PreparedWrite { main, enlisted }))
    }

    /// Sets the item's time of change.
    pub(in crate::engine) fn set_updated_at(
        &self,
        item: &mut Fields,
        set: &[(usize, Value)],
    ) -> Result<(), Error> {
        let at = set.iter().find(|(position, _)| Some(*position) == self.definition().updated_at);
        if let Some((position, at)) = at {
            item.insert(self.entry.schema.fields[*position].name.clone(), input::value_json(at)?);
        }
        Ok(())
    }

    /// The members of a merge patch that change something.
    ///
    /// # Errors
    /// Where it is not an object.
    pub(in crate::engine) fn parse_patch(&self, mut body: Json) -> Result<Fields, Error> {
        self.remove_placeholders(&mut body);
        input::into_object(body)
    }

    /// The item after a merge patch.
    ///
    /// # Errors
    /// Every field that the patch changes and that the caller sees but may not set; every other fault of the item.
    pub(in crate::engine) fn apply_patch(&self, current: &Fields, patch: &Fields) -> Result<Fields, Error> {
        self.refuse_forbidden(Some(current), patch)?;
        let mut faults = self.patch_faults(current, patch);
        let mut next = current.clone();
        for (name, value) in patch {
            // A field that does not exist for this caller stays as it is, otherwise its validation would reveal it.
            let is_settable = self.entry.schema.position(name).is_some_and(|position| {
                let field = &self.entry.schema.fields[position];
                self.is_known(field) && self.can_set(position) && !field.read_only && !field.immutable
            });
            if let Some(member) = next.get_mut(name).filter(|_| is_settable) {
                merge(member, value);
            }
        }
        if faults.is_empty() && next == *current {
            return Ok(next);
        }
        let item = Json::Object(next);
        let unreadable = self.unreadable_faults(current, patch);
        let is_unreadable = |fault: &Fault| unreadable.iter().any(|unreadable| unreadable.at == fault.at);
        faults.extend(self.schema_faults(&item).into_iter().filter(|fault| !is_unreadable(fault)));
        faults.extend(unreadable.iter().cloned());
        self.check(input::into_object(item)?, faults)
    }

    /// Members of a patch that are unknown, read-only or immutable.
    fn patch_faults(&self, current: &Fields, patch: &Fields) -> Vec<Fault> {
        let definition = self.definition();
        let mut faults = Vec::new();
        for (name, value) in patch {
            let pointer = format!("/{}", escape_pointer(name));
            let field = self.entry.schema.position(name).map(|position| &self.entry.schema.fields[position]);
            match field.filter(|field| self.is_known(field)) {
                None => {
                    let known = definition.bodies.update["properties"].as_object();
                    let names = known.into_iter().flat_map(|map| map.keys()).map(String::as_str);
                    faults.push(validate::unknown_field(
                        &pointer,
                        name,
                        &names.filter(|name| self.can_set_name(name)),
                    ));
                }
                Some(field) if self.is_unchanged(field, current, value) => {}
                Some(field) if field.read_only => faults.push(input::read_only(pointer)),
                Some(field) if field.immutable => faults.push(immutable(pointer)),
                Some(_) => {}
            }
        }
        faults
    }

    /// Whether a member of a body repeats the item's value of a field that the client may not change. A client that sends
    /// back what it read changes nothing by that. Values that the caller is not shown cannot be guessed this way.
    pub(in crate::engine) fn is_unchanged(&self, field: &Field, current: &Fields, given: &Json) -> bool {
        let Some(position) = self.entry.schema.position(&field.name) else { return false };
        (field.read_only || field.immutable || !self.can_set(position))
            && self.is_readable(position)
            && current.get(&field.name).is_some_and(|current| {
                let read = |json: &Json| field.field_type.read_json(json).ok();
                current == given || read(current).is_some_and(|current| read(given) == Some(current))
            })
    }

    /// The fields in which an assembled item differs from the current one, and the time of the change.
    pub(in crate::engine) fn difference(&self, current: &Fields, next: Fields) -> Result<Difference, Error> {
        self.difference_with(current, next, &[])
    }

    /// The same, where some fields count as changed whatever their values.
    fn difference_with(
        &self,
        current: &Fields,
        mut next: Fields,
        changed: &[usize],
    ) -> Result<Difference, Error> {
        let definition = self.definition();
        if let Some(updated) = definition.updated_at {
            next.insert(
                self.entry.schema.fields[updated].name.clone(),
                input::time_json(crate::clock::now()),
            );
        }
        let stored = || definition.model_fields.iter().copied();
        let before = self.stored_values(current, stored())?;
        let after = self.values(&next, stored())?;
        let is_comparable = |position: usize| {
            position != self.entry.schema.id
                && Some(position) != self.entry.schema.version
                && Some(position) != definition.created_at
        };
        let set: Vec<_> = stored()
            .zip(before.into_iter().zip(after))
            .filter(|(position, (before, after))| {
                is_comparable(*position) && (before != after || changed.contains(position))
            })
            .map(|(position, (_, after))| (position, after))
            .collect();
        self.check_lengths(set.iter().map(|(position, value)| (*position, value)))?;
        let changed = set.iter().any(|(position, _)| Some(*position) != definition.updated_at);
        Ok(if changed { Difference::Changed(set) } else { Difference::Unchanged })
    }
}

pub(in crate::engine) fn immutable(pointer: String) -> Fault {
    Fault::pointer(pointer, "immutable", "This is set once, when the item is created: leave it out.")
}

/// RFC 7396, 2: an object merges, null removes, anything else replaces.
pub(in crate::engine) fn merge(target: &mut Json, patch: &Json) {
    let Json::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Json::Object(Fields::new());
    }
    let Json::Object(fields) = target else {
        return;
    };
    for (name, value) in members {
        if value.is_null() {
            fields.shift_remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Json::Null), value);
        }
    }
}
