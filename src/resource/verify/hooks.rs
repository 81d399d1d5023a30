//! Hooks that read items as what they are.

use std::any::TypeId;

use serde_json::{Map, Value as Json};

use super::Faults;
use crate::resource::derive::Draft;

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    let any = [TypeId::of::<Map<String, Json>>(), TypeId::of::<Json>()];
    let Some((own, own_name)) = draft.builder.codec.model() else {
        // Without a type the schema is all there is, and whatever reads it may.
        return;
    };
    for (model, name) in draft.builder.hooks.iter().filter_map(|hook| hook.model) {
        if model != own && !any.contains(&model) {
            faults.push(
                None,
                format!("a hook reads its items as `{name}`, and they are `{own_name}`"),
                format!("|item: &mut {own_name}, change: &mut Change| …, or serde_json::Map<String, Value>"),
            );
        }
    }
}
