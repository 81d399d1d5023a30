//! Endpoints: where events are sent to, as a resource that an application's users manage.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use http::Uri;
use resourceful_contract::Table;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use uuid::Uuid;
use validator::Validate;

use super::sign::Secret;
use super::{ENDPOINTS, Webhooks};
use crate::access::{Actor, Permission, Permissions, all_of, any_of, owner, rows, same_tenant};
use crate::error::{Error, Fault};
use crate::nearest::suggest;
use crate::outbound::{host, is_public};
use crate::resource::{Action, Change, NoInput, Operation, ResourceBuilder, define_resource};

/// Where events are sent to. Whoever named its URL is its owner: it is sent what they may see.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(super) struct WebhookEndpoint {
    pub(super) id: Uuid,
    /// An `https` URL on the public Internet.
    #[validate(length(min = 1, max = 2000))]
    pub(super) url: String,
    /// Which events it is sent: `orders.created`, `orders.*` for all of a resource, or `*` for all.
    #[validate(length(min = 1, max = 100))]
    pub(super) events: Vec<String>,
    /// A note for those who manage it.
    #[serde(default)]
    #[validate(length(max = 500))]
    pub(super) description: Option<String>,
    /// Whether it is sent anything. An endpoint that answers 410 is disabled.
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    /// Why the application disabled it.
    #[serde(default)]
    pub(super) disabled_reason: Option<String>,
    /// The tenant of whoever created it: it is sent no other tenant's events.
    #[serde(default)]
    pub(super) tenant_id: Option<String>,
    /// Who named the URL, or took the endpoint over.
    #[serde(default)]
    pub(super) owner_id: Option<String>,
    #[serde(default)]
    pub(super) owner: Option<Map<String, Json>>,
    #[serde(default)]
    pub(super) secrets: Vec<Secret>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

/// The secret that an endpoint's messages are signed with.
#[derive(Debug, Serialize, JsonSchema)]
struct WebhookSecret {
    /// As Standard Webhooks writes it: `whsec_` and the key in base64.
    secret: String,
}

const fn yes() -> bool {
    true
}

/// What can be said of events: the resources that leave some, known when the application is built.
pub(super) type Known = Arc<OnceLock<BTreeSet<String>>>;

/// Rows of one's own tenant; without one, rows of one's own.
pub(super) fn walls() -> Permission {
    let alone = all_of([rows(serde_json::json!({"tenant_id": {"is_null": true}})), owner("owner_id")]);
    any_of([same_tenant("tenant_id"), alone])
}

pub(super) fn resource(webhooks: &Webhooks, table: Table) -> ResourceBuilder {
    let (known, is_private) = (webhooks.known.clone(), webhooks.private_targets);
    let overlap = chrono::Duration::from_std(webhooks.overlap).unwrap_or(chrono::Duration::days(1));
    let managed_by = &webhooks.managed_by;
    define_resource::<WebhookEndpoint>(ENDPOINTS)
        .adapter(table)
        .permissions(Permissions::all(managed_by.clone()))
        .policy(walls())
        .version("version")
        .timestamps("created_at", "updated_at")
        .events(false)
        .read_only(["disabled_reason", "tenant_id", "owner_id"])
        .hidden(["owner", "secrets"])
        .index(["enabled", "id"])
        .filterable(["enabled", "url"])
        .before([Operation::Create, Operation::Update], move |endpoint: &mut WebhookEndpoint, change| {
            checked(endpoint, known.get(), is_private)?;
            owned(endpoint, change);
            Ok(())
        })
        .action(
            "take-over",
            Action::on_item(managed_by.clone(), taken_over).description(
                "Makes whoever calls it the owner, so that the endpoint is sent what they may see.",
            ),
        )
        .action(
            "reveal-secret",
            Action::on_item(managed_by.clone(), revealed).description(
                "Shows the secret that this endpoint's messages are signed with, by Standard Webhooks.",
            ),
        )
        .action(
            "rotate-secret",
            Action::on_item(
                managed_by.clone(),
                move |endpoint: &mut WebhookEndpoint, _: NoInput, _: &mut Change| {
                    let now = Utc::now();
                    endpoint.secrets.retain(|secret| secret.holds(now));
                    for secret in &mut endpoint.secrets {
                        secret.until =
                            Some(secret.until.map_or(now + overlap, |until| until.min(now + overlap)));
                    }
                    let minted = Secret::mint();
                    let answer = WebhookSecret { secret: minted.secret.clone() };
                    endpoint.secrets.insert(0, minted);
                    Ok(answer)
                },
            )
            .description("Mints another secret. Messages are signed with the one before as well, for a day."),
        )
}

fn revealed(endpoint: &mut WebhookEndpoint, _: NoInput, _: &mut Change) -> Result<WebhookSecret, Error> {
    let newest = endpoint.secrets.first().ok_or_else(|| Error::internal("an endpoint has no secret"))?;
    Ok(WebhookSecret { secret: newest.secret.clone() })
}

fn taken_over(endpoint: &mut WebhookEndpoint, _: NoInput, change: &mut Change) -> Result<(), Error> {
    belongs_to(endpoint, change.actor());
    Ok(())
}

fn belongs_to(endpoint: &mut WebhookEndpoint, owner: &Actor) {
    endpoint.owner_id = owner.id().map(str::to_owned);
    endpoint.owner = owner.written().as_object().cloned();
}

/// Whoever names a URL owns the endpoint. Whoever changes anything else of it does not: what they may see would go to
/// where somebody else said.
fn owned(endpoint: &mut WebhookEndpoint, change: &Change) {
    let actor = change.actor();
    let named = change.current().and_then(|current| current.get("url")?.as_str());
    if named != Some(&endpoint.url) {
        belongs_to(endpoint, actor);
    }
    if change.current().is_none() {
        endpoint.tenant_id = actor.tenant().map(str::to_owned);
        endpoint.secrets = vec![Secret::mint()];
    }
    if endpoint.enabled {
        endpoint.disabled_reason = None;
    }
}

fn checked(
    endpoint: &WebhookEndpoint,
    known: Option<&BTreeSet<String>>,
    private_targets: bool,
) -> Result<(), Error> {
    let mut faults = Vec::new();
    if let Err(detail) = target(&endpoint.url, private_targets) {
        faults.push(Fault::pointer("/url", "format", detail));
    }
    for (position, pattern) in endpoint.events.iter().enumerate() {
        let at = format!("/events/{position}");
        let (resource, rest) = pattern.split_once('.').unwrap_or((pattern, ""));
        if pattern == "*" {
            continue;
        }
        let Some(known) = known else { continue };
        if !known.contains(resource) {
            let detail = format!("No resource `{resource}` leaves events.");
            faults.push(Fault::pointer(
                at,
                "value",
                suggest(detail, resource, known.iter().map(String::as_str)),
            ));
        } else if rest.is_empty() {
            let detail = format!("Must be `{resource}.*`, `*`, or a type such as `{resource}.created`.");
            faults.push(Fault::pointer(at, "value", detail));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::validation(faults)) }
}

/// The address of an endpoint, where it is one that may be sent to. What its name means is looked at when it is.
///
/// # Errors
/// What is wrong with it and what would be right.
pub(super) fn target(url: &str, private_targets: bool) -> Result<Uri, String> {
    let uri: Uri =
        url.parse().map_err(|_| "Must be a URL, such as `https://example.com/hooks`.".to_owned())?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if private_targets => {}
        _ => return Err("Must begin with `https://`: what is sent is not for others to read.".to_owned()),
    }
    let Some(host) = host(&uri) else { return Err("Must name a host.".to_owned()) };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("Must hold no user or password: messages are signed instead.".to_owned());
    }
    let is_refused = host.parse().is_ok_and(|address| !is_public(address)) || host == "localhost";
    if is_refused && !private_targets {
        return Err(format!("`{host}` is no address of the public Internet."));
    }
    Ok(uri)
}
