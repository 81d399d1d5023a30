//! The names and roles of fields.

use resourceful_contract::FieldType;

use super::Faults;
use crate::nearest::suggest;
use crate::resource::derive::Draft;

pub(super) fn verify(draft: &Draft, faults: &mut Faults) {
    let builder = &draft.builder;
    let lists = [
        ("read_only", &builder.read_only),
        ("write_only", &builder.write_only),
        ("immutable", &builder.immutable),
        ("filterable", &builder.filterable),
        ("sortable", &builder.sortable),
        ("searchable", &builder.searchable),
        ("hidden", &builder.hidden),
    ];
    for (setter, names) in lists {
        verify_exist(draft, setter, names, faults);
    }
    let names = |rules: &[(String, _)]| rules.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    verify_exist(draft, "visible_to", &names(&builder.visible_to), faults);
    verify_exist(draft, "writable_by", &names(&builder.writable_by), faults);
    verify_exist(
        draft,
        "redacted_for",
        &builder.redacted_for.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
        faults,
    );
    verify_exist(
        draft,
        "fill",
        &builder.fills.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
        faults,
    );
    verify_exist(draft, "unique_within", builder.unique_within.as_slice(), faults);
    for (names, unique) in &builder.indexes {
        let setter = if *unique { "unique" } else { "index" };
        verify_exist(draft, setter, names, faults);
        if names.is_empty() {
            faults.push(None, "an index needs a field", format!(".{setter}([\"field\"])"));
        }
    }
    if let Some(table) = &builder.table {
        let bound: Vec<String> = table.columns().keys().cloned().collect();
        verify_exist(draft, "column", &bound, faults);
    }
    timestamps(draft, faults);
    verify_server_set(draft, faults);
}

fn verify_exist(draft: &Draft, setter: &str, names: &[String], faults: &mut Faults) {
    for name in names.iter().filter(|name| draft.position(name).is_none()) {
        let known = draft.fields.iter().map(|field| field.name.as_str());
        faults.push(
            Some(name),
            suggest(format!(".{setter}(…) names a field that the model does not have."), name, known),
            format!("name a field of the model in .{setter}(…)"),
        );
    }
}

fn timestamps(draft: &Draft, faults: &mut Faults) {
    let Some((created, updated)) = &draft.builder.timestamps else {
        return;
    };
    for name in [created, updated] {
        let help = format!("{name}: DateTime<Utc>");
        match draft.position(name).map(|position| draft.fields[position].field_type) {
            None => {
                faults.push(Some(name), ".timestamps(…) names a field that the model does not have", help);
            }
            Some(FieldType::DateTime) => {}
            Some(_) => faults.push(Some(name), "a timestamp must be a date-time", help),
        }
    }
}

/// Reports required fields that only the server sets and that nothing sets: every create would fail.
fn verify_server_set(draft: &Draft, faults: &mut Faults) {
    let required = draft.builder.json_schema.get("required").and_then(|names| names.as_array());
    for (position, field) in draft.fields.iter().enumerate() {
        let is_set = draft.id.is_some_and(|(id, _)| id == position)
            || draft.version == Some(position)
            || draft
                .builder
                .timestamps
                .as_ref()
                .is_some_and(|(created, updated)| *created == field.name || *updated == field.name)
            || draft.builder.fills.iter().any(|(name, _)| *name == field.name);
        let is_required = required.is_some_and(|names| names.iter().any(|name| name == field.name.as_str()));
        if field.read_only && !is_set && is_required && !field.nullable && field.default().is_none() {
            faults.push(
                Some(&field.name),
                "it is read-only, and nothing gives it a value when an item is created",
                "#[serde(default)], an Option, or .timestamps(…) / .version(…)",
            );
        }
        if field.read_only && field.write_only && !draft.builder.hidden.contains(&field.name) {
            faults.push(Some(&field.name), "it is both read-only and write-only", "drop one of the two");
        }
    }
}
