//! Hooks, which must read items as the resource's model type.

use std::any::TypeId;

use serde_json::{Map, Value as Json};

use super::Faults;
use crate::resource::derive::Draft;

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    let any = [TypeId::of::<Map<String, Json>>(), TypeId::of::<Json>()];
    let Some((expected, expected_name)) = draft.builder.codec.model() else {
        // A dynamic resource has no model type, so hooks may read its items as any type.
        return;
    };
    for (model, name) in draft.builder.hooks.iter().filter_map(|hook| hook.model) {
        if model != expected && !any.contains(&model) {
            faults.push(
                None,
                format!("a hook reads its items as `{name}`, and they are `{expected_name}`"),
                format!(
                    "|item: &mut {expected_name}, change: &mut Change| …, or serde_json::Map<String, Value>"
                ),
            );
        }
    }
}
