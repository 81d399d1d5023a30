//! Relations, as far as one resource knows of them; the rest is checked when the application is built.

use resourceful_contract::Cardinality;

use super::Faults;
use crate::nearest::suggest;
use crate::resource::derive::Draft;

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
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
                        format!("nothing says which field of `{}` refers here", relation.resource),
                        format!("has_many(\"{name}\", \"{}\").key(\"…\")", relation.resource),
                    );
                }
            }
        }
    }
}
