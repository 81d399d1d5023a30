//! Relations, as far as one resource can be checked alone; the rest is checked when the application is built.

use resourceful_contract::Cardinality;

use super::Faults;
use crate::nearest::suggest;
use crate::resource::derive::Draft;

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    if let Some(tree) = &draft.builder.tree {
        verify_tree(draft, &tree.parent, faults);
    }
    let relations = &draft.builder.relations;
    for (position, relation) in relations.iter().enumerate() {
        let name = relation.name.as_str();
        let legal = |character: char| character.is_ascii_alphanumeric() || character == '_';
        if name.is_empty() || !name.chars().all(legal) {
            faults.push(Some(name), "this cannot be a relation's name", "use letters, digits and `_`");
        }
        if draft.position(name).is_some() {
            faults.push(
                Some(name),
                "a field and a relation have this name, and an answer can hold only one of them",
                format!("belongs_to(\"other_name\", \"{}\").key(\"{name}\")", relation.resource),
            );
        }
        if relations[..position].iter().any(|other| other.name == relation.name) {
            faults.push(Some(name), "two relations have this name", "rename one of them");
        }
        let key = relation.key_name();
        match relation.cardinality {
            Cardinality::One => {
                if draft.position(&key).is_none() {
                    let known = draft.fields.iter().map(|field| field.name.as_str());
                    faults.push(
                        Some(name),
                        suggest(
                            format!("there is no field `{key}` that refers to `{}`.", relation.resource),
                            &key,
                            known,
                        ),
                        format!("belongs_to(\"{name}\", \"{}\").key(\"…\")", relation.resource),
                    );
                }
            }
            Cardinality::Many => {
                if relation.key.is_none() {
                    faults.push(
                        Some(name),
                        format!(
                            "it has no key: name the field of `{}` that refers to this resource",
                            relation.resource
                        ),
                        format!("has_many(\"{name}\", \"{}\").key(\"…\")", relation.resource),
                    );
                }
            }
        }
    }
}

/// Checks a tree's parent field: it refers to items of the same resource, and is null for root items.
fn verify_tree(draft: &Draft, name: &str, faults: &mut Faults) {
    let Some(field) = draft.position(name).map(|position| &draft.fields[position]) else {
        // A missing field is reported for the relation.
        return;
    };
    let id = draft.id.map(|(id, _)| &draft.fields[id]);
    if !field.nullable || id.is_some_and(|id| id.field_type != field.field_type) {
        faults.push(
            Some(name),
            "this field refers to the parent item, and it cannot hold an id or null",
            format!("{name}: Option<…>, of the type of the id"),
        );
    }
}
