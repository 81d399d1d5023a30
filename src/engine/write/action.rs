//! Actions: named operations of the application's own, each in one commit.

use resourceful_contract::{Guard, Value, Version, Write};
use serde_json::{Value as Json, json};

use super::commit::{Output, PendingChange, PreparedWrite};
use super::contention::ConflictRetry;
use super::input;
use super::input::Fields;
use super::update::Difference;
use crate::access::Operation;
use crate::catalog::RowFilter;
use crate::engine::{Call, Expected, Item};
use crate::error::{Error, Fault};
use crate::resource::{ActionRef, Change, DeclaredAction, Right, Target, input_faults};

/// The response of an action.
#[derive(Debug)]
pub(crate) enum ActionResult {
    /// The current item.
    Item(Item),
    /// The action's own output.
    Output(Json),
}

/// The current state of the item that an action is applied to.
struct Subject<'a> {
    right: Right,
    id: &'a Value,
    current: Fields,
    version: Version,
}

impl Call<'_> {
    /// Applies an action to an item, or to the collection where it has no id.
    pub(crate) async fn act(
        &self,
        acted: ActionRef,
        id: &str,
        input: Option<Json>,
        expected: Option<&Expected>,
    ) -> Result<ActionResult, Error> {
        let declared = &self.definition().actions[acted.position];
        if declared.action.is_revert {
            let reverted = self.revert(acted, id, input.as_ref(), expected);
            return if self.has_hooks(Operation::Update) {
                Box::pin(self.run_around_hooks(Operation::Update, reverted)).await.map(ActionResult::Item)
            } else {
                Box::pin(reverted).await.map(ActionResult::Item)
            };
        }
        match acted.target {
            Target::Collection => self.apply_to_collection(declared, input).await,
            Target::Item if self.has_hooks(Operation::Update) => {
                let applied = self.apply_to_item(acted, declared, id, input, expected);
                Box::pin(self.run_around_hooks(Operation::Update, applied)).await
            }
            Target::Item => self.apply_to_item(acted, declared, id, input, expected).await,
        }
    }

    async fn apply_to_item(
        &self,
        acted: ActionRef,
        declared: &DeclaredAction,
        id: &str,
        input: Option<Json>,
        expected: Option<&Expected>,
    ) -> Result<ActionResult, Error> {
        self.require_if_match(expected)?;
        let id = self.parse_id(id)?;
        let right = Right::Action(acted);
        let changeable = match declared.action.can_target_deleted {
            true => self.changeable_with_deleted().await?,
            false => self.changeable().await?,
        };
        let mut attempts = ConflictRetry::default();
        loop {
            let (current, version) = self.current_within(&changeable, id.clone(), right).await?;
            self.check_version(expected, version)?;
            let mut change = self.hook_change(Operation::Update, Some(&current), Some(current.clone()));
            change.action = Some(declared.name.as_str().into());
            let input = validate_input(declared, input.as_ref())?;
            let output = declared.action.handler.act(&mut change, input).await?;
            let subject = Subject { right, id: &id, current, version };
            let Some(prepared) = self.prepare_action(&changeable, declared, subject, change).await? else {
                if output.is_null() {
                    return self.unchanged_item(&id, version).await.map(ActionResult::Item);
                }
                self.store_response(Some(&id), &Output::Json(&output)).await?;
                return Ok(ActionResult::Output(output));
            };
            let response = if output.is_null() { Output::Item } else { Output::Json(&output) };
            match self.commit_with(prepared, &response).await {
                Ok(_) if !output.is_null() => return Ok(ActionResult::Output(output)),
                Ok(written) => return self.response_item(written).map(|(item, _)| ActionResult::Item(item)),
                Err(failure) if failure.is_retryable(Expected::has_versions(expected)) => {
                    attempts.wait(self.engine, vec![self.item_queue(&id)]).await?;
                }
                Err(failure) => return Err(self.commit_error(failure)),
            }
        }
    }

    /// The changes of an action to its item, and those that it enlisted; `None` where there are neither.
    async fn prepare_action(
        &self,
        changeable: &RowFilter,
        declared: &DeclaredAction,
        subject: Subject<'_>,
        change: Change,
    ) -> Result<Option<PreparedWrite>, Error> {
        let Subject { right, id, current, version } = subject;
        let Change { item, mut enlisted, .. } = change;
        let mut next = self.keep_identity(&current, item.unwrap_or_default());
        if next != current {
            // Changes by the application are validated like those that a client sends.
            next = self.revalidate(next)?;
            let (hooked, more) = self.run_before_hooks(Operation::Update, Some(&current), next).await?;
            next = hooked;
            enlisted.extend(more);
        }
        let mut after = next.clone();
        let set = match self.difference(&current, next)? {
            Difference::Unchanged if enlisted.is_empty() => return Ok(None),
            Difference::Unchanged => Vec::new(),
            Difference::Changed(set) => set,
        };
        self.check_references(set.iter().map(|(field, value)| (*field, value))).await?;
        self.set_updated_at(&mut after, &set)?;
        let enlisted = self.prepare_enlisted(enlisted).await?;
        let write = Write::Update { id: id.clone(), set, guard: Guard::version(version) };
        let mut main = self.pending_change(changeable, Operation::Update, write, Some(current), Some(after));
        main.record.event = declared.action.event.clone().unwrap_or_else(|| declared.name.clone()).into();
        main.record.audit_operation = right.name(self.definition()).to_owned().into();
        Ok(Some(PreparedWrite { main, enlisted }))
    }

    /// The item with its previous id and version, whatever the action or hook wrote there.
    pub(in crate::engine) fn keep_identity(&self, current: &Fields, mut item: Fields) -> Fields {
        let schema = &self.entry.schema;
        for position in [Some(schema.id), schema.version].into_iter().flatten() {
            let name = &schema.fields[position].name;
            match current.get(name) {
                Some(previous) => item.insert(name.clone(), previous.clone()),
                None => item.shift_remove(name),
            };
        }
        item
    }

    async fn apply_to_collection(
        &self,
        declared: &DeclaredAction,
        input: Option<Json>,
    ) -> Result<ActionResult, Error> {
        let input = validate_input(declared, input.as_ref())?;
        let mut attempts = ConflictRetry::default();
        loop {
            let mut change = self.hook_change(Operation::Create, None, None);
            change.action = Some(declared.name.as_str().into());
            let output = declared.action.handler.act(&mut change, input.clone()).await?;
            let output = if output.is_null() { json!({}) } else { output };
            let pending = self.prepare_enlisted(change.enlisted).await?;
            if pending.is_empty() {
                self.store_response(None, &Output::Json(&output)).await?;
                return Ok(ActionResult::Output(output));
            }
            let single_write = |main: PendingChange| PreparedWrite { main, enlisted: Vec::new() };
            match self.commit(pending.into_iter().map(single_write).collect(), &Output::Json(&output)).await {
                Ok(_) => return Ok(ActionResult::Output(output)),
                Err(failure) if failure.is_retryable(false) => {
                    attempts.wait(self.engine, vec![self.resource_queue()]).await?;
                }
                Err(mut failure) => {
                    // The application enlisted the changes, so a conflict is not about a field that the caller sent.
                    failure.enlisted = true;
                    return Err(self.commit_error(failure));
                }
            }
        }
    }
}

/// The validated input of an action.
pub(in crate::engine) fn validate_input(
    declared: &DeclaredAction,
    input: Option<&Json>,
) -> Result<Json, Error> {
    let shape = &declared.action.input;
    let input = match input {
        Some(input) => input.clone(),
        None if shape.is_optional => json!({}),
        None => {
            let fault = Fault::pointer("", "required", "This action takes a body.");
            return Err(Error::validation(vec![fault]));
        }
    };
    input::into_object(input.clone())?;
    let faults = input_faults(&declared.input_validator, &shape.schema, &input);
    if faults.is_empty() { Ok(input) } else { Err(Error::validation(faults)) }
}
