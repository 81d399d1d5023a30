//! Actions: named operations of the application's own, each in one commit.

use resourceful_contract::{Guard, Value, Version, Write};
use serde_json::{Value as Json, json};

use super::assemble;
use super::assemble::Fields;
use super::commit::{Output, PendingChange, PreparedWrite};
use super::contention::ConflictRetry;
use super::update::Next;
use crate::access::Operation;
use crate::catalog::RowFilter;
use crate::engine::{Call, Expected, Item};
use crate::error::{Error, Fault};
use crate::resource::{Acted, Change, DeclaredAction, Right, Target, input_faults};

/// The response of an action.
#[derive(Debug)]
pub(crate) enum Answer {
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
        acted: Acted,
        id: &str,
        input: Option<Json>,
        expected: Option<&Expected>,
    ) -> Result<Answer, Error> {
        let declared = &self.definition().actions[acted.position];
        if declared.action.reverts {
            let reverted = self.reverted(acted, id, input.as_ref(), expected);
            return if self.is_hooked(Operation::Update) {
                Box::pin(self.around(Operation::Update, reverted)).await.map(Answer::Item)
            } else {
                Box::pin(reverted).await.map(Answer::Item)
            };
        }
        match acted.target {
            Target::Collection => self.done_to_collection(declared, input).await,
            Target::Item if self.is_hooked(Operation::Update) => {
                let done = self.done_to_item(acted, declared, id, input, expected);
                Box::pin(self.around(Operation::Update, done)).await
            }
            Target::Item => self.done_to_item(acted, declared, id, input, expected).await,
        }
    }

    async fn done_to_item(
        &self,
        acted: Acted,
        declared: &DeclaredAction,
        id: &str,
        input: Option<Json>,
        expected: Option<&Expected>,
    ) -> Result<Answer, Error> {
        self.require_expected(expected)?;
        let id = self.id(id)?;
        let right = Right::Action(acted);
        let changeable = match declared.action.reaches_deleted {
            true => self.changeable_with_deleted().await?,
            false => self.changeable().await?,
        };
        let mut attempts = ConflictRetry::default();
        loop {
            let (current, version) = self.current_of(&changeable, id.clone(), right).await?;
            self.expect(expected, version)?;
            let mut change = self.about(Operation::Update, Some(&current), Some(current.clone()));
            change.action = Some(declared.name.as_str().into());
            let input = taken(declared, input.as_ref())?;
            let output = declared.action.handler.act(&mut change, input).await?;
            let subject = Subject { right, id: &id, current, version };
            let Some(prepared) = self.left_behind(&changeable, declared, subject, change).await? else {
                if output.is_null() {
                    return self.unchanged(&id, version).await.map(Answer::Item);
                }
                self.remember(Some(&id), &Output::Json(&output)).await?;
                return Ok(Answer::Output(output));
            };
            let answered = if output.is_null() { Output::Item } else { Output::Json(&output) };
            match self.commit_with(prepared, &answered).await {
                Ok(_) if !output.is_null() => return Ok(Answer::Output(output)),
                Ok(written) => return self.answered(written).map(|(item, _)| Answer::Item(item)),
                Err(failure) if failure.is_contended(Expected::is_of_version(expected)) => {
                    attempts.lost(self.engine, vec![self.contended(&id)]).await?;
                }
                Err(failure) => return Err(self.explained(failure)),
            }
        }
    }

    /// The changes of an action to its item, and those that it enlisted; `None` where there are neither.
    async fn left_behind(
        &self,
        changeable: &RowFilter,
        declared: &DeclaredAction,
        subject: Subject<'_>,
        change: Change,
    ) -> Result<Option<PreparedWrite>, Error> {
        let Subject { right, id, current, version } = subject;
        let Change { item, mut enlisted, .. } = change;
        let mut next = self.owned(&current, item.unwrap_or_default());
        if next != current {
            // Changes by the application are validated like those that a client sends.
            next = self.recheck(next)?;
            let (hooked, more) = self.before(Operation::Update, Some(&current), next).await?;
            next = hooked;
            enlisted.extend(more);
        }
        let mut told = next.clone();
        let set = match self.difference(&current, next)? {
            Next::Unchanged if enlisted.is_empty() => return Ok(None),
            Next::Unchanged => Vec::new(),
            Next::Changed(set) => set,
        };
        self.may_refer(set.iter().map(|(field, value)| (*field, value))).await?;
        self.stamp(&mut told, &set)?;
        let beside = self.enlisted(enlisted).await?;
        let write = Write::Update { id: id.clone(), set, guard: Guard::version(version) };
        let mut main = self.made(changeable, Operation::Update, write, Some(current), Some(told));
        main.record.event = declared.action.event.clone().unwrap_or_else(|| declared.name.clone()).into();
        main.record.done = right.name(self.definition()).to_owned().into();
        Ok(Some(PreparedWrite { main, beside }))
    }

    /// The item with its previous id and version, whatever the action or hook wrote there.
    pub(in crate::engine) fn owned(&self, current: &Fields, mut item: Fields) -> Fields {
        let schema = &self.entry.schema;
        for position in [Some(schema.id), schema.version].into_iter().flatten() {
            let name = &schema.fields[position].name;
            match current.get(name) {
                Some(kept) => item.insert(name.clone(), kept.clone()),
                None => item.shift_remove(name),
            };
        }
        item
    }

    async fn done_to_collection(
        &self,
        declared: &DeclaredAction,
        input: Option<Json>,
    ) -> Result<Answer, Error> {
        let input = taken(declared, input.as_ref())?;
        let mut attempts = ConflictRetry::default();
        loop {
            let mut change = self.about(Operation::Create, None, None);
            change.action = Some(declared.name.as_str().into());
            let output = declared.action.handler.act(&mut change, input.clone()).await?;
            let output = if output.is_null() { json!({}) } else { output };
            let made = self.enlisted(change.enlisted).await?;
            if made.is_empty() {
                self.remember(None, &Output::Json(&output)).await?;
                return Ok(Answer::Output(output));
            }
            let alone = |main: PendingChange| PreparedWrite { main, beside: Vec::new() };
            match self.commit(made.into_iter().map(alone).collect(), &Output::Json(&output)).await {
                Ok(_) => return Ok(Answer::Output(output)),
                Err(failure) if failure.is_contended(false) => {
                    attempts.lost(self.engine, vec![self.contended_resource()]).await?;
                }
                Err(mut failure) => {
                    // The application enlisted the changes, so a conflict is not about a field that the caller sent.
                    failure.beside = true;
                    return Err(self.explained(failure));
                }
            }
        }
    }
}

/// The validated input of an action.
pub(in crate::engine) fn taken(declared: &DeclaredAction, input: Option<&Json>) -> Result<Json, Error> {
    let shape = &declared.action.input;
    let input = match input {
        Some(input) => input.clone(),
        None if shape.optional => json!({}),
        None => {
            let fault = Fault::pointer("", "required", "This action takes a body.");
            return Err(Error::validation(vec![fault]));
        }
    };
    assemble::object(input.clone())?;
    let faults = input_faults(&declared.takes, &shape.schema, &input);
    if faults.is_empty() { Ok(input) } else { Err(Error::validation(faults)) }
}
