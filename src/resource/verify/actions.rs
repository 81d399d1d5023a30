//! Actions and state machines: each path and each field has one claimant, and every state is a value of the field.

use super::Faults;
use crate::resource::derive::Draft;

/// Paths of a collection that actions cannot have.
const RESERVED_COLLECTION_PATHS: [&str; 3] = ["query", "bulk", "stream"];
/// Paths of an item that actions cannot have.
const RESERVED_ITEM_PATHS: [&str; 3] = ["history", "children", "subtree"];

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    verify_claims(draft, faults);
    for (name, _) in &draft.builder.actions {
        let legal = |character: char| character.is_ascii_lowercase() || "_-0123456789".contains(character);
        if name.is_empty()
            || !name.chars().all(legal)
            || !name.starts_with(|first: char| first.is_ascii_lowercase())
        {
            faults.push(
                None,
                format!("`{name}` cannot be the name of an action: it is part of a path"),
                "a name in lower case, such as \"ship\" or \"send_back\"",
            );
        } else if RESERVED_COLLECTION_PATHS.contains(&name.as_str())
            || RESERVED_ITEM_PATHS.contains(&name.as_str())
        {
            faults.push(
                None,
                format!("`{name}` cannot be the name of an action: the path is reserved"),
                "give the action another name",
            );
        }
    }
    for machine in &draft.builder.state_machines {
        verify_states(draft, machine, faults);
    }
}

/// Reports paths and fields that are claimed twice.
fn verify_claims(draft: &Draft, faults: &mut Faults) {
    let claims = &draft.builder.claims;
    for (position, (what, by)) in claims.iter().enumerate() {
        if let Some((_, first)) = claims[..position].iter().find(|(other, _)| other == what) {
            let both = if first == by { format!("{by} twice") } else { format!("{first} and {by} both") };
            let field = what.strip_prefix("the field `").and_then(|rest| rest.strip_suffix('`'));
            faults.push(
                field,
                format!("{both} claim {what}"),
                "leave one of them out, or give it another name",
            );
        }
    }
}

fn verify_states(draft: &Draft, machine: &crate::resource::StateMachine, faults: &mut Faults) {
    let name = machine.field.as_str();
    let Some(position) = draft.position(name) else {
        faults.push(
            Some(name),
            "the state machine is over a field that the model does not have",
            "name one of its text fields in StateMachine::of(…)",
        );
        return;
    };
    let field = &draft.fields[position];
    if field.field_type != resourceful_contract::FieldType::Text || field.nullable {
        faults.push(
            Some(name),
            "the state machine is over a field that is no text, or may be null",
            "a String, or an enum of unit variants",
        );
        return;
    }
    let Some(values) = field.enum_values() else { return };
    let transitions = machine.transitions.iter();
    let named_states = transitions.flat_map(|transition| transition.from.iter().chain([&transition.to]));
    let mut unknown: Vec<_> = named_states
        .chain([&machine.initial])
        .filter(|state| !values.contains(&state.as_str().into()))
        .collect();
    unknown.sort();
    unknown.dedup();
    for state in unknown {
        let known: Vec<_> = values.iter().filter_map(serde_json::Value::as_str).collect();
        faults.push(
            Some(name),
            format!("`{state}` is no state of it"),
            format!("one of {}", known.join(", ")),
        );
    }
}
