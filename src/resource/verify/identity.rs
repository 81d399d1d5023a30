//! The id and the version counter.

use resourceful_contract::FieldType;

use super::Faults;
use crate::nearest::suggest;
use crate::resource::Id;
use crate::resource::derive::Draft;

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    match draft.id {
        None => {
            let name = &draft.builder.id_field;
            let names = draft.fields.iter().map(|field| field.name.as_str());
            faults.push(
                None,
                suggest(format!("no field `{name}` identifies an item."), name, names),
                ".id_field(\"…\") names another field of the model",
            );
        }
        Some((position, kind)) => id(draft, position, kind, faults),
    }
    if let Some(position) = draft.version {
        let field = &draft.fields[position];
        if field.field_type != FieldType::Integer || field.nullable {
            faults.push(
                Some(&field.name),
                "a version counter must be an integer that is never null",
                format!("{}: i64", field.name),
            );
        }
        if draft.id.is_some_and(|(id, _)| id == position) {
            faults.push(Some(&field.name), "one field cannot be id and version", ".version(\"version\")");
        }
    }
}

fn id(draft: &Draft, position: usize, kind: Id, faults: &mut Faults) {
    let field = &draft.fields[position];
    let name = Some(field.name.as_str());
    if field.nullable {
        faults.push(name, "an id is never null", format!("drop the Option around `{}`", field.name));
    }
    if field.hidden {
        faults.push(name, "an id cannot be hidden: every answer and path shows it", "drop .write_only(…)");
    }
    let (is_valid, wanted) = match kind {
        Id::UuidV7 => (field.field_type == FieldType::Uuid, "a Uuid"),
        Id::Integer => (field.field_type == FieldType::Integer, "an i64"),
        Id::Text => (field.field_type == FieldType::Text, "a String"),
        Id::Client => (
            matches!(field.field_type, FieldType::Uuid | FieldType::Integer | FieldType::Text),
            "a Uuid, an i64 or a String",
        ),
    };
    if !is_valid {
        faults.push(
            name,
            format!("{kind:?} ids need a field of another type"),
            format!("make `{}` {wanted}, or name another kind with .id(…)", field.name),
        );
    }
}
