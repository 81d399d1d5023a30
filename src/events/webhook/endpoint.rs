//! Webhook endpoints: URLs that events are sent to, as a resource that an application's users manage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use http::Uri;
use resourceful_contract::Table;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;
use validator::Validate;

use super::sign::Secret;
use super::{ENDPOINTS, Webhooks, chrono_duration};
use crate::access::Operation;
use crate::access::{Actor, Permission, Permissions, all_of, any_of, owner, rows, same_tenant};
use crate::error::{Error, ErrorKind, Fault};
use crate::http_client::{host, is_public};
use crate::nearest::suggest;
use crate::resource::{Action, Change, Hook, NoInput, ResourceBuilder, define_resource};

/// A URL that events are sent to. The caller who set the URL is its owner: it receives what the owner may see.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
pub(super) struct WebhookEndpoint {
    pub(super) id: Uuid,
    /// An `https` URL on the public Internet.
    #[validate(length(min = 1, max = 2000))]
    pub(super) url: String,
    /// The events that it receives: `orders.created`, `orders.*` for all of a resource, or `*` for all.
    #[validate(length(min = 1, max = 100))]
    pub(super) events: Vec<String>,
    /// A note for the callers who manage it.
    #[serde(default)]
    #[validate(length(max = 500))]
    pub(super) description: Option<String>,
    /// Whether it receives deliveries. An endpoint that responds with 410 is disabled.
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    /// Why the application disabled it.
    #[serde(default)]
    pub(super) disabled_reason: Option<String>,
    /// The tenant of the caller who created it: it receives no other tenant's events.
    #[serde(default)]
    pub(super) tenant_id: Option<String>,
    /// The caller who set the URL, or took the endpoint over.
    #[serde(default)]
    pub(super) owner_id: Option<String>,
    #[serde(default)]
    pub(super) owner: Option<Map<String, Json>>,
    #[serde(default)]
    pub(super) secrets: Vec<Secret>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

/// Pattern of the URLs that [`target`] accepts, for the OpenAPI document: public hosts by their names.
const PUBLIC_URL: &str = r"^https://([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\.){1,4}[a-z]{2,20}(:[1-9][0-9]{0,3})?(/[A-Za-z0-9._~/-]*)?$";
/// Pattern of URLs of any host, where private targets are allowed.
const ANY_URL: &str =
    r"^https?://[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?(:[1-9][0-9]{0,3})?(/[A-Za-z0-9._~/-]*)?$";

/// Every event pattern that [`check_pattern`] accepts.
fn allowed_patterns(known: Option<&EventNames>) -> Vec<String> {
    let of = |(name, names): (&String, &BTreeSet<String>)| {
        let types = names.iter().map(|word| format!("{name}.{word}"));
        std::iter::once(format!("{name}.*")).chain(types).collect::<Vec<_>>()
    };
    let current_url = known.into_iter().flatten().flat_map(of);
    std::iter::once("*".to_owned()).chain(current_url).collect()
}

/// The secret that an endpoint's messages are signed with.
#[derive(Debug, Serialize, JsonSchema)]
struct WebhookSecret {
    /// In the format of Standard Webhooks: `whsec_` and the key in base64.
    secret: String,
}

const fn yes() -> bool {
    true
}

/// The resources that publish events, with the names of these; set when the application is built.
pub(super) type EventNames = BTreeMap<String, BTreeSet<String>>;
pub(super) type KnownEvents = Arc<OnceLock<EventNames>>;

/// How many secrets an endpoint has at most: each message is signed with all of them.
const MAX_SECRETS: usize = 5;

/// Permission for rows of the caller's tenant; for callers without a tenant, for their own rows.
pub(super) fn tenant_or_owner() -> Permission {
    let own_rows = all_of([rows(json!({"tenant_id": {"is_null": true}})), owner("owner_id")]);
    any_of([same_tenant("tenant_id"), own_rows])
}

pub(super) fn resource(webhooks: &Webhooks, table: Table) -> ResourceBuilder {
    let (known, allows_private) = (webhooks.known_events.clone(), webhooks.private_targets);
    let overlap = chrono_duration(webhooks.overlap);
    let managed_by = &webhooks.managed_by;
    define_resource::<WebhookEndpoint>(ENDPOINTS)
        .adapter(table)
        .permissions(Permissions::all(managed_by.clone()))
        .policy(tenant_or_owner())
        .version("version")
        .timestamps("created_at", "updated_at")
        .events(false)
        .read_only(["disabled_reason", "tenant_id", "owner_id"])
        .hidden(["owner", "secrets"])
        .index(["enabled", "id"])
        .filterable(["enabled", "url", "tenant_id", "owner_id"])
        .with_keywords("url", json!({"pattern": if allows_private { ANY_URL } else { PUBLIC_URL }}))
        .with_keywords("events", json!({"items": {"type": "string", "enum": allowed_patterns(known.get())}}))
        .before([Operation::Create, Operation::Update], move |endpoint: &mut WebhookEndpoint, change| {
            validate_changes(endpoint, change.current(), known.get(), allows_private)?;
            assign_owner(endpoint, change);
            Ok(())
        })
        .hook(EndpointLimit { max: webhooks.max_endpoints })
        .action(
            "take-over",
            Action::on_item(managed_by.clone(), take_over).description(
                "Makes the caller the owner, so that the endpoint gets the events that the caller may see.",
            ),
        )
        .action(
            "reveal-secret",
            Action::on_item(managed_by.clone(), reveal_secret).description(
                "Shows the secret that this endpoint's messages are signed with, by Standard Webhooks.",
            ),
        )
        .action(
            "rotate-secret",
            Action::on_item(
                managed_by.clone(),
                move |endpoint: &mut WebhookEndpoint, _: NoInput, _: &mut Change| {
                    let now = Utc::now();
                    endpoint.secrets.retain(|secret| secret.is_valid(now));
                    for secret in &mut endpoint.secrets {
                        secret.until =
                            Some(secret.until.map_or(now + overlap, |until| until.min(now + overlap)));
                    }
                    let new_secret = Secret::generate();
                    let response = WebhookSecret { secret: new_secret.secret.clone() };
                    endpoint.secrets.insert(0, new_secret);
                    endpoint.secrets.truncate(MAX_SECRETS);
                    Ok(response)
                },
            )
            .description(
                "Creates a new secret. For a day, messages are signed with the previous one as well.",
            ),
        )
}

fn reveal_secret(endpoint: &mut WebhookEndpoint, _: NoInput, _: &mut Change) -> Result<WebhookSecret, Error> {
    let newest = endpoint.secrets.first().ok_or_else(|| Error::internal("an endpoint has no secret"))?;
    Ok(WebhookSecret { secret: newest.secret.clone() })
}

fn take_over(endpoint: &mut WebhookEndpoint, _: NoInput, change: &mut Change) -> Result<(), Error> {
    set_owner(endpoint, change.actor());
    Ok(())
}

fn set_owner(endpoint: &mut WebhookEndpoint, owner: &Actor) {
    endpoint.owner_id = owner.id().map(str::to_owned);
    endpoint.owner = owner.to_unelevated_json().as_object().cloned();
}

/// Makes the caller who sets the URL the owner. A caller who changes another field does not become the owner: what they may
/// see would be sent to a URL that another caller chose.
fn assign_owner(endpoint: &mut WebhookEndpoint, change: &Change) {
    let actor = change.actor();
    let current_url = change.current().and_then(|current| current.get("url")?.as_str());
    if current_url != Some(&endpoint.url) {
        set_owner(endpoint, actor);
    }
    if change.current().is_none() {
        endpoint.tenant_id = actor.tenant().map(str::to_owned);
        endpoint.secrets = vec![Secret::generate()];
    }
    if endpoint.enabled {
        endpoint.disabled_reason = None;
    }
}

/// Limits the number of endpoints. Concurrent creates may exceed the limit by a few.
struct EndpointLimit {
    max: u32,
}

impl Hook for EndpointLimit {
    fn before<'a>(&'a self, change: &'a mut Change) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if change.operation() != Operation::Create {
                return Ok(());
            }
            let actor = change.actor();
            let existing = match actor.tenant() {
                Some(tenant) => json!({"tenant_id": tenant}),
                None => json!({"tenant_id": {"is_null": true}, "owner_id": actor.id()}),
            };
            let existing = change.list(ENDPOINTS, existing, self.max).await?;
            if u32::try_from(existing.len()).is_ok_and(|existing| existing < self.max) {
                return Ok(());
            }
            let detail = format!("There are {} endpoints, which is the limit: delete one first.", self.max);
            Err(Error::new(ErrorKind::Conflict, "too-many-endpoints", detail))
        })
    }
}

/// Validates new values only: an unchanged value may have become invalid, and must not make other changes fail.
fn validate_changes(
    endpoint: &WebhookEndpoint,
    current: Option<&Map<String, Json>>,
    known: Option<&EventNames>,
    private_targets: bool,
) -> Result<(), Error> {
    let before = |name: &str| current.and_then(|current| current.get(name));
    let mut faults = Vec::new();
    if before("url").and_then(Json::as_str) != Some(&endpoint.url)
        && let Err(detail) = parse_target(&endpoint.url, private_targets)
    {
        faults.push(Fault::pointer("/url", "format", detail));
    }
    let known_before = before("events").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    for (position, pattern) in endpoint.events.iter().enumerate() {
        let is_new = known_before.iter().all(|known| known.as_str() != Some(pattern));
        if let (true, Some(Err(detail))) = (is_new, known.map(|known| check_pattern(pattern, known))) {
            faults.push(Fault::pointer(format!("/events/{position}"), "value", detail));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::validation(faults)) }
}

/// # Errors
/// Where a pattern matches no event.
fn check_pattern(pattern: &str, known: &EventNames) -> Result<(), String> {
    if pattern == "*" {
        return Ok(());
    }
    let (resource, word) = pattern.split_once('.').unwrap_or((pattern, ""));
    let Some(names) = known.get(resource) else {
        let detail = "No resource of this name leaves events.".to_owned();
        return Err(suggest(detail, resource, known.keys().map(String::as_str)));
    };
    if word.is_empty() {
        return Err(format!("Must be `{resource}.*`, `*`, or a type such as `{resource}.created`."));
    }
    if word == "*" || names.contains(word) {
        return Ok(());
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let detail = format!("No such event: `{resource}` leaves {}.", all.join(", "));
    Err(suggest(detail, word, all))
}

/// The URI of an endpoint, where it is a permitted target. Its host name is resolved and checked when a message is sent.
///
/// # Errors
/// What is wrong with it and what would be valid.
pub(super) fn parse_target(url: &str, private_targets: bool) -> Result<Uri, String> {
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
    let has_port = uri.authority().map(http::uri::Authority::as_str) != uri.host();
    if has_port && uri.port_u16().is_none_or(|port| port == 0) {
        return Err("Its port must be a number from 1 to 65535.".to_owned());
    }
    let is_local = host.trim_end_matches('.').eq_ignore_ascii_case("localhost");
    let is_refused = host.parse().is_ok_and(|address| !is_public(address)) || is_local;
    if is_refused && !private_targets {
        return Err(format!("`{host}` is no address of the public Internet."));
    }
    Ok(uri)
}
