//! `POST /_explain`: which rule granted or denied access, for callers that may ask.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::CACHE_CONTROL;
use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;

use super::handler::{original_uri, with_accept};
use super::{AppState, Body, Context, body};
use crate::access::Operation;
use crate::access::{Actor, CheckRequest, Verdict};
use crate::engine::Explanation;
use crate::error::{Error, ErrorKind, Fault};
use crate::query::reject_parameters;
use crate::resource::pointer_of;

/// The path of the route.
pub(crate) const EXPLAIN_PATH: &str = "/_explain";

/// A request to explain why an actor may perform an operation, or may not.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The resource's name.
    resource: String,
    operation: Operation,
    /// The id of one of its items.
    id: Option<String>,
    /// The actor; the caller where it is absent, an anonymous caller where it is null.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<ExplainedActor>")]
    actor: Option<Option<ExplainedActor>>,
}

/// An actor, as an authenticator would return it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Actor")]
struct ExplainedActor {
    id: String,
    /// Whether the actor is a program.
    #[serde(default)]
    service: bool,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    /// The tenant that the actor is in.
    tenant: Option<String>,
    /// The roles inside the tenant.
    #[serde(default)]
    tenant_roles: Vec<String>,
    /// Whether the actor has elevated rights.
    #[serde(default)]
    elevated: bool,
}

/// Distinguishes null from an absent member.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<ExplainedActor>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl ExplainedActor {
    fn into_actor(self) -> Actor {
        let known = if self.service { Actor::service(self.id) } else { Actor::user(self.id) };
        let actor = self.roles.into_iter().fold(known, Actor::with_role);
        let actor = self.scopes.into_iter().fold(actor, Actor::with_scope);
        let actor = match self.tenant {
            Some(tenant) => actor.in_tenant(tenant, self.tenant_roles),
            None => actor,
        };
        if self.elevated { actor.elevated() } else { actor }
    }
}

/// Handles a request for an explanation.
pub(crate) async fn explain(state: &AppState, request: Request) -> Response {
    let context = Context::of_request(&request);
    let (mut parts, mut body) = request.into_parts();
    let _permits = state.count_body(&mut parts.headers, &mut body);
    match state.explain_access(&parts, body).await {
        Ok(explanation) => ([(CACHE_CONTROL, "no-store")], axum::Json(explanation)).into_response(),
        Err(error) => {
            let response = state.error_response(&error, original_uri(&parts).path(), &context);
            with_accept(response, &error, Body::Create.accept())
        }
    }
}

impl AppState {
    async fn explain_access(&self, parts: &Parts, body: axum::body::Body) -> Result<Explanation, Error> {
        let caller = self.actor(parts).await?;
        self.authorize_explain(&caller).await?;
        reject_parameters(parts.uri.query())?;
        let json = body::read_json(Body::Create, &parts.headers, body, self.body_limit).await?;
        let question: Question = serde_path_to_error::deserialize(json).map_err(|error| {
            let detail = error.inner().to_string();
            Error::validation(vec![Fault::pointer(pointer_of(error.path()), "type", detail)])
        })?;
        if self.engine.catalog.find(&question.resource).is_err() {
            return Err(Error::validation(vec![self.engine.catalog.unknown_resource(&question.resource)]));
        }
        let actor = match question.actor {
            None => caller,
            Some(named) => {
                named.map_or(Actor::anonymous(), ExplainedActor::into_actor).with_included(&self.roles)
            }
        };
        self.engine.explain(&actor, &question.resource, question.operation, question.id.as_deref()).await
    }

    /// # Errors
    /// If the caller may not ask for explanations.
    pub(crate) async fn authorize_explain(&self, caller: &Actor) -> Result<(), Error> {
        let rule = self.explain_rule.as_ref().ok_or_else(Error::not_found)?;
        let check_request =
            CheckRequest { actor: caller.clone(), resource: EXPLAIN_PATH.into(), operation: Operation::Read };
        // No scope covers this route, which shows the rules of every resource.
        if caller.is_limited() {
            return Err(Error::new(ErrorKind::Forbidden, "forbidden", "You may not request explanations."));
        }
        match rule.decide(&check_request, &|_| Err("there are no rows here".to_owned()), None).await {
            Verdict::Allow => Ok(()),
            _ if caller.is_anonymous() => {
                Err(Error::new(ErrorKind::Unauthenticated, "unauthenticated", "This requires a credential."))
            }
            _ => Err(Error::new(ErrorKind::Forbidden, "forbidden", "You may not request explanations.")),
        }
    }
}
