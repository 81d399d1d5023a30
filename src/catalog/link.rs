//! Links the resources of an application to each other: relations, references, and what invalidates cached responses.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use resourceful_contract::{Cardinality, Link, Reference, Schema};

use super::entry::{Catalog, Entry, LinkedRelation, tenant_field};
use super::guarded_storage::GuardedStorage;
use crate::cache::{ObservedTable, Tag, TagVersions, WriteObserver};
use crate::nearest::suggest;
use crate::resource::{Definition, DefinitionFault, Faults, Relation, Resource};

impl Catalog {
    /// Links resources to each other. The faults are every relation without a target, and every duplicate name.
    pub(crate) fn link(
        resources: &[Resource],
        tag_versions: Option<&Arc<TagVersions>>,
    ) -> (Self, Vec<DefinitionFault>) {
        let definitions: Vec<_> = resources.iter().map(|resource| resource.0.clone()).collect();
        let mut faults = Vec::new();
        let mut positions = HashMap::new();
        for (position, definition) in definitions.iter().enumerate() {
            if positions.insert(definition.name(), position).is_some() {
                let mut duplicates = Faults::of(definition.name());
                duplicates.push(
                    None,
                    "two resources of the application have this name",
                    "rename one of them",
                );
                faults.extend(duplicates.into_faults());
            }
        }
        let watch = tag_versions
            .map(|tag_versions| build_observer(tag_versions, &definitions, &positions, &mut faults));
        let schemas: Vec<_> = definitions
            .iter()
            .map(|definition| linked_schema(definition, &definitions, &positions))
            .collect();
        let mut entries = Vec::with_capacity(definitions.len());
        for (position, definition) in definitions.iter().enumerate() {
            let mut found = Faults::of(definition.name());
            let links = definition
                .relations
                .iter()
                .filter_map(|relation| {
                    let context = RelationContext {
                        definition,
                        definitions: &definitions,
                        schemas: &schemas,
                        positions: &positions,
                    };
                    context.link(relation, &mut found)
                })
                .map(Arc::new)
                .collect();
            faults.extend(found.into_faults());
            entries.push(Arc::new(Entry {
                position,
                name: definition.name().into(),
                digest: declaration_digest(definition),
                tags: response_tags(definition),
                rights: OnceLock::new(),
                list_filters: OnceLock::new(),
                schema: schemas[position].clone(),
                storage: GuardedStorage::new(definition.table.storage().clone(), watch.clone()),
                definition: definition.clone(),
                links,
                row_bytes: AtomicUsize::new(256),
            }));
        }
        (Self { entries, write_observer: watch }, faults)
    }
}

/// The watch that tracks changes of the resources' tables.
fn build_observer(
    tag_versions: &Arc<TagVersions>,
    definitions: &[Arc<Definition>],
    positions: &HashMap<&str, usize>,
    faults: &mut Vec<DefinitionFault>,
) -> Arc<WriteObserver> {
    let mut tables: HashMap<String, ObservedTable> = HashMap::new();
    for definition in definitions {
        let tenant_field =
            tenant_field(definition).map(|field| (field, definition.schema.fields[field].name.clone()));
        let observed_table = tables.entry(definition.schema.table.clone());
        // Where two resources share a table and disagree on the tenant field, the tenant of a row is unknown.
        observed_table
            .and_modify(|observed_table| {
                observed_table.tenant.take_if(|known| Some(&*known) != tenant_field.as_ref());
            })
            .or_insert_with(|| ObservedTable { tenant: tenant_field.clone(), ..ObservedTable::default() });
    }
    for definition in definitions {
        let mut found = Faults::of(definition.name());
        for pattern in definition.cache.iter().flat_map(|cache| &cache.invalidated_by) {
            let (name, event_name) = pattern.split_once('.').unwrap_or((pattern, "*"));
            let Some(position) = positions.get(name) else {
                let message =
                    format!("`{pattern}` refers to `{name}`, which is no resource of the application.");
                let known = positions.keys().copied();
                found.push(None, suggest(message, name, known), ".invalidate_on(\"categories.*\")");
                continue;
            };
            let of = &definitions[*position];
            if event_name != "*" && !of.has_event(event_name) {
                let message = format!("no event called `{event_name}` exists for `{name}`.");
                found.push(
                    None,
                    suggest(message, event_name, of.event_suffixes()),
                    ".invalidate_on(\"categories.*\")",
                );
                continue;
            }
            let Some(observed_table) = tables.get_mut(&definitions[*position].schema.table) else { continue };
            let tag = Tag::resource(definition.name());
            if matches!(event_name, "*" | "created") {
                observed_table.created.push(tag);
            }
            // A deleted row may be kept and marked as deleted.
            if event_name != "created" {
                observed_table.updated.push(tag);
            }
            if matches!(event_name, "*" | "deleted" | "purged") {
                observed_table.deleted.push(tag);
            }
        }
        faults.extend(found.into_faults());
    }
    let table =
        |definition: &Arc<Definition>| (definition.name().to_owned(), definition.schema.table.clone());
    Arc::new(WriteObserver::new(tag_versions.clone(), tables, definitions.iter().map(table).collect()))
}

fn response_tags(definition: &Definition) -> Vec<Tag> {
    let declared = definition.cache.iter().flat_map(|cache| &cache.tags);
    declared.map(|name| Tag::declared(name)).chain([Tag::resource(definition.name())]).collect()
}

/// Digest of the library's version and the declaration, so that nodes which differ in either are distinguished.
fn declaration_digest(definition: &Definition) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    let shape = format!(
        "{:?}{:?}{:?}{:?}{:?}",
        definition.schema,
        definition.visible,
        definition.relations,
        definition.cache,
        definition.cache_control
    );
    hasher.update(shape.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The definition's schema, with a reference for each `belongs_to` inside one storage.
fn linked_schema(
    definition: &Arc<Definition>,
    definitions: &[Arc<Definition>],
    positions: &HashMap<&str, usize>,
) -> Arc<Schema> {
    let mut schema = Schema::clone(&definition.schema);
    for relation in &definition.relations {
        let target = positions.get(relation.resource.as_str()).map(|position| &definitions[*position]);
        let (Some(target), Some(field)) = (target, schema.position(&relation.key_name())) else {
            continue;
        };
        if relation.cardinality == Cardinality::One && shares_storage(definition, target) {
            schema.references.push(Reference {
                field,
                table: target.schema.table.clone(),
                column: target.schema.id_field().column.clone(),
                target_field: target.schema.id_field().name.clone(),
            });
        }
    }
    Arc::new(schema)
}

fn shares_storage(one: &Definition, other: &Definition) -> bool {
    Arc::ptr_eq(one.table.storage(), other.table.storage())
}

/// The declaration of a relation, with its possible targets.
struct RelationContext<'a> {
    definition: &'a Arc<Definition>,
    definitions: &'a [Arc<Definition>],
    schemas: &'a [Arc<Schema>],
    positions: &'a HashMap<&'a str, usize>,
}

impl RelationContext<'_> {
    fn link(&self, relation: &Relation, faults: &mut Faults) -> Option<LinkedRelation> {
        let name = Some(relation.name.as_str());
        let Some(&target) = self.positions.get(relation.resource.as_str()) else {
            let known = self.definitions.iter().map(|definition| definition.name());
            let message =
                format!("it leads to `{}`, which is no resource of the application.", relation.resource);
            faults.push(
                name,
                suggest(message, &relation.resource, known),
                "add it with .resource(…), or correct the name",
            );
            return None;
        };
        let target_schema = &self.schemas[target];
        let source_schema = &self.definition.schema;
        let key = relation.key_name();
        let (local, remote) = match relation.cardinality {
            Cardinality::One => (source_schema.position(&key)?, target_schema.id),
            Cardinality::Many => match target_schema.position(&key) {
                Some(remote) => (source_schema.id, remote),
                None => {
                    let known = target_schema.fields.iter().map(|field| field.name.as_str());
                    let message = format!("`{}` has no field `{key}`.", relation.resource);
                    faults.push(name, suggest(message, &key, known), "name the referring field with .key(…)");
                    return None;
                }
            },
        };
        if source_schema.fields[local].field_type != target_schema.fields[remote].field_type {
            faults.push(
                name,
                format!(
                    "`{}` and `{}.{}` are of different types",
                    source_schema.fields[local].name, relation.resource, target_schema.fields[remote].name
                ),
                "give both fields one type",
            );
            return None;
        }
        Some(LinkedRelation {
            link: Arc::new(Link {
                name: relation.name.clone(),
                cardinality: relation.cardinality,
                local,
                target: target_schema.clone(),
                remote,
            }),
            target,
            is_joinable: shares_storage(self.definition, &self.definitions[target])
                && self.definition.table.storage().capabilities().relations,
            limit: relation.limit,
        })
    }
}
