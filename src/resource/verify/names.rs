//! Names that can be part of a path.

use super::Faults;
use crate::resource::derive::Draft;

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    let name = &draft.builder.name;
    let legal = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '_' | '-')
    };
    if name.is_empty()
        || !name.starts_with(|first: char| first.is_ascii_lowercase())
        || !name.chars().all(legal)
    {
        faults.push(
            None,
            format!("`{name}` cannot be a resource's name, which is also its path"),
            "start with a lower-case letter, go on with lower-case letters, digits, `_` and `-`: \
             define_resource::<…>(\"order-lines\")",
        );
    }
}
