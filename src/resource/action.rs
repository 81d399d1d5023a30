//! Actions: an application's own operations on an item or a collection.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;
use jsonschema::Validator;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use validator::Validate;

use super::Change;
use super::bodies::add_constraints;
use super::model_codec::{read, to_json};
use super::validate;
use super::validate::compile;
use crate::access::Permission;
use crate::error::{Error, Fault};

/// The input of an action that takes none: an empty object, or no body at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Validate)]
pub struct NoInput {}

/// A named operation on an item (`POST /orders/{id}/ship`) or on a collection (`POST /orders/import`). It has its own
/// permission, its input is validated like any body, and all its changes are in one transaction with its event and its
/// audit entry.
///
/// ```
/// use resourceful::prelude::*;
/// use resourceful::{Action, Change, Error, ErrorKind};
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
/// struct Order { id: Uuid, address: Option<String>, shipped: bool }
///
/// #[derive(Serialize, Deserialize, JsonSchema, Validate)]
/// struct Ship {
///     #[validate(length(min = 1))]
///     address: String,
/// }
///
/// let orders = define_resource::<Order>("orders")
///     .adapter(Memory::new().table("orders"))
///     .permissions(Permissions::all(signed_in()))
///     .action(
///         "ship",
///         Action::on_item(role("clerk"), |order: &mut Order, ship: Ship, _: &mut Change| {
///             if order.shipped {
///                 return Err(Error::new(ErrorKind::Conflict, "shipped", "It is on its way already."));
///             }
///             (order.address, order.shipped) = (Some(ship.address), true);
///             Ok(())
///         })
///         .event("shipped"),
///     )
///     .build()?;
/// # let _ = orders; Ok::<(), DefinitionErrors>(())
/// ```
///
/// An action on an item modifies the item that it receives: the result is validated and stored, the hooks of updates
/// run, `If-Match` applies, and the action runs again after a conflict with a concurrent change. The response is its
/// output (200), or the item if the output is `()`. It may enlist changes of other items ([`Change::create`] and
/// similar methods).
#[derive(Clone)]
#[must_use]
pub struct Action {
    pub(crate) target: Target,
    pub(crate) permission: Permission,
    pub(crate) event: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) input: InputSchema,
    /// JSON Schema of the output; `None` if the response is the item.
    pub(crate) output: Option<Json>,
    pub(crate) handler: Arc<dyn ErasedHandler>,
    /// Whether it applies to soft-deleted items.
    pub(crate) can_target_deleted: bool,
    /// Whether it reverts an item to an earlier state.
    pub(crate) is_revert: bool,
}

/// The target of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Item,
    Collection,
}

/// The input of an action.
#[derive(Clone, Debug)]
pub(crate) struct InputSchema {
    pub(crate) schema: Json,
    /// Whether the request body is optional.
    pub(crate) is_optional: bool,
}

/// Asynchronous handler of an action, for example one that calls another service: as [`Action::on_item`] and similar
/// functions, with a future.
///
/// ```
/// use resourceful::{Change, Error};
/// use resourceful::resource::{ActionHandler, NoInput};
///
/// struct Quote;
///
/// impl ActionHandler for Quote {
///     type Input = NoInput;
///     type Output = i64;
///
///     fn act<'a>(
///         &'a self,
///         change: &'a mut Change,
///         _: NoInput,
///     ) -> futures::future::BoxFuture<'a, Result<i64, Error>> {
///         Box::pin(async move { Ok(change.item().map_or(0, |item| item.len() as i64)) })
///     }
/// }
/// ```
pub trait ActionHandler: Send + Sync + 'static {
    /// The input: an object.
    type Input: DeserializeOwned + JsonSchema + Validate + Send;
    /// The output; with `()` the response is the item.
    type Output: Serialize + JsonSchema + Send;

    /// Runs the action: sets fields of [`Change::item_mut`], enlists changes.
    ///
    /// # Errors
    /// The error to respond with; nothing is changed then.
    fn act<'a>(
        &'a self,
        change: &'a mut Change,
        input: Self::Input,
    ) -> BoxFuture<'a, Result<Self::Output, Error>>;
}

/// A type-erased action handler.
pub(crate) trait ErasedHandler: Send + Sync {
    fn act<'a>(&'a self, change: &'a mut Change, input: Json) -> BoxFuture<'a, Result<Json, Error>>;
}

impl Action {
    /// An action on an item, as a function that modifies it. Callers must also be able to see the item.
    pub fn on_item<M, I, O, F>(permission: Permission, act: F) -> Self
    where
        M: Serialize + DeserializeOwned + 'static,
        I: DeserializeOwned + JsonSchema + Validate + Send + 'static,
        O: Serialize + JsonSchema + Send + 'static,
        F: Fn(&mut M, I, &mut Change) -> Result<O, Error> + Send + Sync + 'static,
    {
        Self::handled(permission, OnItem(act, PhantomData))
    }

    /// An action on a collection; its changes are those that the function enlists.
    pub fn on_collection<I, O, F>(permission: Permission, act: F) -> Self
    where
        I: DeserializeOwned + JsonSchema + Validate + Send + 'static,
        O: Serialize + JsonSchema + Send + 'static,
        F: Fn(I, &mut Change) -> Result<O, Error> + Send + Sync + 'static,
    {
        Self { target: Target::Collection, ..Self::handled(permission, OnCollection(act, PhantomData)) }
    }

    /// An action on an item, with an asynchronous handler.
    pub fn handled<H: ActionHandler>(permission: Permission, handler: H) -> Self {
        let output = schema::<H::Output>();
        Self {
            target: Target::Item,
            permission,
            event: None,
            description: None,
            input: InputSchema::of::<H::Input>(),
            output: (output.get("type").and_then(Json::as_str) != Some("null")).then_some(output),
            handler: Arc::new(HandlerAdapter(handler)),
            can_target_deleted: false,
            is_revert: false,
        }
    }

    /// Declares the action on the collection instead of an item.
    pub const fn of_collection(mut self) -> Self {
        self.target = Target::Collection;
        self
    }

    /// The suffix of its event type, after the resource's name; the action's own name by default.
    pub fn event(mut self, event: impl Into<String>) -> Self {
        self.event = Some(event.into());
        self
    }

    /// The action's description in the OpenAPI document.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Action").field("target", &self.target).finish_non_exhaustive()
    }
}

impl InputSchema {
    fn of<I: JsonSchema>() -> Self {
        let mut schema = schema::<I>();
        add_constraints(&mut schema);
        if schema.get("properties").is_none() && schema.get("type").is_some_and(|kind| kind == "object") {
            // A struct without fields accepts no members.
            schema["properties"] = serde_json::json!({});
            schema["additionalProperties"] =
                schema.get("additionalProperties").cloned().unwrap_or(false.into());
        }
        if let Some(Json::Object(definitions)) = schema.get_mut("$defs") {
            definitions.values_mut().for_each(add_constraints);
        }
        let is_optional = schema.get("required").and_then(Json::as_array).is_none_or(Vec::is_empty);
        Self { schema, is_optional }
    }

    /// # Errors
    /// The error of the schema, as the validator reports it.
    pub(crate) fn validator(&self) -> Result<Validator, String> {
        compile(&self.schema)
    }
}

fn schema<T: JsonSchema>() -> Json {
    let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    if let Json::Object(map) = &mut schema {
        map.remove("$schema");
    }
    schema
}

/// Validation faults of an action's input.
pub(crate) fn faults(validator: &Validator, schema: &Json, input: &Json) -> Vec<Fault> {
    let names = schema.get("properties").and_then(Json::as_object);
    let names = names.into_iter().flat_map(|map| map.keys()).map(String::as_str);
    validate::faults(validator, input, &names)
}

struct HandlerAdapter<H>(H);

impl<H: ActionHandler> ErasedHandler for HandlerAdapter<H> {
    fn act<'a>(&'a self, change: &'a mut Change, input: Json) -> BoxFuture<'a, Result<Json, Error>> {
        Box::pin(async move {
            let input = read::<H::Input>(&input).map_err(Error::validation)?;
            let output = self.0.act(change, input).await?;
            to_json(&output).map_err(Error::internal)
        })
    }
}

struct OnItem<M, I, O, F>(F, PhantomData<fn(M, I) -> O>);

impl<M, I, O, F> ActionHandler for OnItem<M, I, O, F>
where
    M: Serialize + DeserializeOwned + 'static,
    I: DeserializeOwned + JsonSchema + Validate + Send + 'static,
    O: Serialize + JsonSchema + Send + 'static,
    F: Fn(&mut M, I, &mut Change) -> Result<O, Error> + Send + Sync + 'static,
{
    type Input = I;
    type Output = O;

    fn act<'a>(&'a self, change: &'a mut Change, input: I) -> BoxFuture<'a, Result<O, Error>> {
        let mut output = None;
        let outcome = change.with_model(|model: &mut M, change| {
            output = Some((self.0)(model, input, change)?);
            Ok(())
        });
        let output = outcome.and_then(|()| output.ok_or_else(|| Error::internal("an action did not run")));
        Box::pin(std::future::ready(output))
    }
}

struct OnCollection<I, O, F>(F, PhantomData<fn(I) -> O>);

impl<I, O, F> ActionHandler for OnCollection<I, O, F>
where
    I: DeserializeOwned + JsonSchema + Validate + Send + 'static,
    O: Serialize + JsonSchema + Send + 'static,
    F: Fn(I, &mut Change) -> Result<O, Error> + Send + Sync + 'static,
{
    type Input = I;
    type Output = O;

    fn act<'a>(&'a self, change: &'a mut Change, input: I) -> BoxFuture<'a, Result<O, Error>> {
        Box::pin(std::future::ready((self.0)(input, change)))
    }
}
