//! Cache settings, and responses that are marked as public.

use std::time::Duration;

use super::Faults;
use crate::access::Operation;
use crate::access::anyone;
use crate::resource::Cache;
use crate::resource::derive::Draft;

const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Directives that let a shared cache reuse a response for other callers (RFC 9111, 3.5).
const SHARED_DIRECTIVES: [&str; 3] = ["public", "s-maxage", "must-revalidate"];
/// The maximum length of a name that every cache accepts in `Cache-Groups` (RFC 9875, 2).
const MAX_TAG_LENGTH: usize = 32;

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    let builder = &draft.builder;
    if let Some(cache) = &builder.cache {
        verify_lifetimes(cache, faults);
        verify_names(cache, faults);
    }
    let is_shared = builder.cache_control.as_deref().is_some_and(|directives| {
        let names = directives.split(',').map(|directive| directive.split('=').next().unwrap_or_default());
        names
            .map(str::trim)
            .any(|name| SHARED_DIRECTIVES.iter().any(|shared| name.eq_ignore_ascii_case(shared)))
    });
    if !is_shared {
        return;
    }
    let reads = [Operation::List, Operation::Read];
    let is_open = builder.permissions.as_ref().is_none_or(|permissions| {
        reads.iter().all(|operation| permissions.of(*operation).is_none_or(|needed| *needed == anyone()))
    });
    let is_restricted =
        builder.policies.iter().any(|policy| reads.iter().any(|read| policy.operations.contains(read)))
            || !builder.visible_to.is_empty()
            || !builder.redacted_for.is_empty();
    if !is_open || is_restricted {
        faults.push(
            None,
            "its responses depend on the caller, and `public` lets proxies serve one caller's to others",
            ".cache_control(\"private, max-age=60\"), or reads for anyone() without policies and field rules",
        );
    }
}

fn verify_lifetimes(cache: &Cache, faults: &mut Faults) {
    for freshness in cache.freshness_settings() {
        if freshness.fresh.is_zero() || freshness.fresh > MAX_LIFETIME || freshness.stale > MAX_LIFETIME {
            faults.push(
                None,
                "responses must be fresh for more than zero time, and fresh or stale for at most a day",
                ".cache(Cache::fresh(Duration::from_secs(30)).stale(Duration::from_secs(300)))",
            );
            break;
        }
    }
    for (operation, _) in &cache.operations {
        if !matches!(operation, Operation::List | Operation::Read) {
            faults.push(
                None,
                format!("answers of `{}` are never cached", operation.name()),
                "name Operation::List or Operation::Read in the cache",
            );
        }
    }
}

fn verify_names(cache: &Cache, faults: &mut Faults) {
    for tag in &cache.tags {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if tag.is_empty() || tag.len() > MAX_TAG_LENGTH || !tag.bytes().all(is_plain) {
            faults.push(
                None,
                format!(
                    "`{tag}` cannot be a tag: 1 to {MAX_TAG_LENGTH} characters of visible ASCII without quotes"
                ),
                ".tag(\"catalog\")",
            );
        }
    }
    for pattern in &cache.invalidated_by {
        if pattern.split_once('.').is_none_or(|(resource, event)| resource.is_empty() || event.is_empty()) {
            faults.push(
                None,
                format!("`{pattern}` is no pattern of another resource's changes"),
                ".invalidate_on(\"categories.*\")",
            );
        }
    }
}
