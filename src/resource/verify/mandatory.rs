//! Mandatory settings, which have no default.

use super::Faults;
use crate::access::Operation;
use crate::resource::derive::Draft;

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    if draft.builder.table.is_none() {
        faults.push(
            None,
            "it has no adapter, so its items would not be stored",
            format!(".adapter(Memory::new().table(\"{}\"))", draft.builder.name),
        );
    }
    let Some(permissions) = &draft.builder.permissions else {
        faults.push(
            None,
            "it has no permissions, and there is no default",
            ".permissions(Permissions::read(anyone()).write(role(\"editor\")))",
        );
        return;
    };
    for operation in Operation::ALL {
        // A replacement needs the permission to update, which is reported itself.
        if operation != Operation::Replace && permissions.of(operation).is_none() {
            let name = operation.name();
            faults.push(
                None,
                format!("no permission is declared for {name}"),
                format!("Permissions::….{name}(…), or .write(…) for all writes; nobody() closes it"),
            );
        }
    }
}
