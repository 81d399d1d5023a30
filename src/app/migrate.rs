//! Migrations: brings every database to the schema that the application needs, or reports what is missing.

use std::sync::Arc;

use resourceful_contract::{Migration, Storage};

use super::{AppBuilder, AppPreset};
use crate::resource::{DefinitionErrors, Faults};
use crate::tables;
use crate::tables::Tables;

/// The environment variable that lets a start in production apply missing migrations.
const MIGRATE_VARIABLE: &str = "RESOURCEFUL_MIGRATE";

/// Whether missing migrations are applied at the start.
pub(super) fn should_apply(preset: AppPreset) -> bool {
    preset != AppPreset::Production || std::env::var(MIGRATE_VARIABLE).is_ok_and(|value| value == "1")
}

/// Applies the migrations of every storage, or verifies that they are applied. Returns the labels of those that it
/// applied.
///
/// # Errors
/// Missing migrations that are not to be applied, migrations that were changed after they were applied, and those that a
/// database refuses.
pub(super) async fn migrate(builder: &AppBuilder, apply: bool) -> Result<Vec<String>, DefinitionErrors> {
    let mut faults = Faults::of("migrations");
    let mut applied = Vec::new();
    let mut declared = library_migrations(builder, &mut faults).await;
    declared.extend(builder.migrations.iter().cloned());
    for (storage, migrations) in by_storage(&declared, &mut faults) {
        let labels = |positions: &[usize]| -> Vec<String> {
            positions.iter().map(|position| migrations[*position].label()).collect()
        };
        match storage.migrate(&migrations, apply).await {
            Ok(found) if !found.changed.is_empty() => {
                for label in labels(&found.changed) {
                    faults.push(
                        None,
                        format!("`{label}` was changed after it was applied"),
                        "put it back as it was, and make the change a migration of its own",
                    );
                }
            }
            Ok(found) if !apply => {
                for label in labels(&found.missing) {
                    faults.push(
                        None,
                        format!("`{label}` is not applied, and in production migrations are not applied automatically"),
                        format!("start once with {MIGRATE_VARIABLE}=1, or call create_app(…).migrate() in a step of its own"),
                    );
                }
            }
            Ok(found) => applied.extend(labels(&found.missing)),
            Err(error) => faults.push_failure(
                &error,
                format!("the database ({}) refused: {error}", storage.name()),
                "correct the migration, or see that the database can be reached; nothing of it was applied",
            ),
        }
    }
    faults.into_result()?;
    for label in &applied {
        tracing::info!(migration = label, "applied");
    }
    Ok(applied)
}

/// The library's own tables in every storage whose resources need them: as migrations for storages that have some, and
/// created at once in storages that create tables by themselves.
async fn library_migrations(
    builder: &AppBuilder,
    faults: &mut Faults,
) -> Vec<(Arc<dyn Storage>, Vec<Migration>)> {
    let mut storages: Vec<Arc<dyn Storage>> = Vec::new();
    for definition in builder.resources.iter().map(|resource| &resource.0) {
        let storage = definition.table.storage();
        if definition.needs_library_tables() && !storages.iter().any(|grouped| Arc::ptr_eq(grouped, storage))
        {
            storages.push(storage.clone());
        }
    }
    let mut declared = Vec::new();
    for storage in storages {
        match tables::migrations(storage.dialect()) {
            Some(migrations) => declared.push((storage, migrations)),
            None => {
                for schema in Tables::new().all() {
                    if let Err(error) = storage.create_table_if_missing(schema).await {
                        let message = format!("`{}` could not be made: {error}", schema.table);
                        faults.push_failure(
                            &error,
                            message,
                            "see that the storage is there and can be written",
                        );
                    }
                }
            }
        }
    }
    #[cfg(feature = "webhooks")]
    if let Some(webhooks) = &builder.webhooks
        && let Some(migrations) = tables::webhook_migrations(webhooks.storage().dialect())
    {
        declared.push((webhooks.storage().clone(), migrations));
    }
    declared
}

/// Each storage once, with its migrations by owner and number.
fn by_storage(
    declared: &[(Arc<dyn Storage>, Vec<Migration>)],
    faults: &mut Faults,
) -> Vec<(Arc<dyn Storage>, Vec<Migration>)> {
    let mut storages: Vec<(Arc<dyn Storage>, Vec<Migration>)> = Vec::new();
    for (storage, migrations) in declared {
        match storages.iter_mut().find(|(grouped, _)| Arc::ptr_eq(grouped, storage)) {
            Some((_, grouped)) => grouped.extend(migrations.iter().cloned()),
            None => storages.push((storage.clone(), migrations.clone())),
        }
    }
    for (_, migrations) in &mut storages {
        // Owners in the order in which they were named, since one may build on what another created.
        let owners: Vec<String> = migrations.iter().map(|migration| migration.owner.clone()).collect();
        let rank = |migration: &Migration| owners.iter().position(|owner| *owner == migration.owner);
        migrations.sort_by_key(|migration| (rank(migration), migration.number));
        for pair in migrations.windows(2) {
            if pair[0].owner == pair[1].owner && pair[0].number == pair[1].number {
                let (one, other) = (pair[0].label(), pair[1].label());
                let message = format!("`{one}` and `{other}` have one number");
                faults.push(None, message, "number them in the order in which they were written");
            }
        }
    }
    storages
}
