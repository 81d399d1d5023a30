//! Declarations that do not hold: every fault at once, each with its help.

use resourceful::Sql;
use resourceful::prelude::*;
use serde_json::json;

use crate::support::models::{Note, Product};

fn text(errors: &impl std::fmt::Display) -> String {
    errors.to_string()
}

#[test]
fn a_resource_without_permissions_or_adapter_does_not_build() {
    let errors = define_resource::<Note>("notes").build().unwrap_err();
    insta::assert_snapshot!("mandatory", text(&errors));
    let partial = define_resource::<Note>("notes")
        .adapter(Memory::new().table("notes"))
        .permissions(Permissions::read(anyone()).create(signed_in()))
        .build()
        .unwrap_err();
    insta::assert_snapshot!("permissions", text(&partial));
}

#[test]
fn every_fault_is_reported_with_a_fix() {
    let errors = define_resource::<Product>("Products!")
        .adapter(Memory::new().table("products").column("prise", "price"))
        .permissions(Permissions::all(anyone()))
        .id_field("uuid")
        .version("name")
        .timestamps("created_at", "stock")
        .read_only(["sku", "nmae"])
        .filterable(["secret"])
        .write_only(["secret"])
        .sortable(["tags"])
        .searchable(["stock"])
        .index(Vec::<String>::new())
        .limits(10, 5)
        .cache_control("bad\nheader")
        .relation(belongs_to("name", "categories"))
        .relation(has_many("parts", "parts"))
        .relation(has_many("parts", "parts").key("product_id"))
        .build()
        .unwrap_err();
    insta::assert_snapshot!("everything", text(&errors));
}

#[test]
fn reserved_query_parameters_cannot_be_filterable_fields() {
    for name in ["sort", "fields", "include", "limit", "after", "before", "page", "q", "deleted", "as_of"] {
        let schema =
            json!({"type": "object", "properties": {"id": {"type": "integer"}, name: {"type": "string"}}});
        let declare = || {
            define_dynamic_resource("things", schema.clone())
                .adapter(Memory::new().table("things"))
                .permissions(Permissions::all(anyone()))
        };
        let errors = declare().filterable([name]).build().unwrap_err();
        assert!(text(&errors).contains("rename it on the wire"), "{errors}");
        assert!(declare().index([name]).build().is_err());
        assert!(declare().build().is_ok(), "{name} may be a field that nobody filters by");
    }
}

#[tokio::test]
async fn invalid_relations_are_faults() {
    let memory = Memory::new();
    let notes = define_resource::<Note>("notes")
        .adapter(memory.table("notes"))
        .permissions(Permissions::all(anyone()))
        .relation(has_many("replies", "nots").key("note_id"))
        .relation(has_many("others", "notes").key("note_id"))
        .relation(has_many("texts", "notes").key("text"))
        .build()
        .unwrap();
    let errors =
        create_app(AppPreset::Testing).resource(notes.clone()).resource(notes).build().await.unwrap_err();
    insta::assert_snapshot!("relations", text(&errors));
}

#[tokio::test]
async fn mismatched_table_is_reported_per_column() {
    let database = Sql::connect("sqlite::memory:").await.unwrap();
    let declare = |name: &str| {
        define_resource::<Note>("notes")
            .adapter(database.table(name))
            .permissions(Permissions::all(anyone()))
            .version("version")
            .build()
            .unwrap()
    };
    let errors = create_app(AppPreset::Testing).resource(declare("notes")).build().await.unwrap_err();
    assert!(text(&errors).contains("notes"), "{errors}");
    // Another resource's table, with other columns.
    let other = define_dynamic_resource(
        "others",
        json!({"type": "object", "properties": {"id": {"type": "integer"}, "texts": {"type": "string"}}}),
    )
    .adapter(database.table("others").create_table_if_missing())
    .permissions(Permissions::all(anyone()))
    .build()
    .unwrap();
    create_app(AppPreset::Testing).resource(other).build().await.unwrap();
    let errors = create_app(AppPreset::Testing).resource(declare("others")).build().await.unwrap_err();
    let text = text(&errors);
    assert!(text.contains("notes.text") && text.contains("notes.version"), "{text}");
    assert_eq!(database.storage().name(), "sqlite");
}

#[tokio::test]
async fn production_requires_a_secret_and_a_valid_prefix() {
    let app = || create_app(AppPreset::Production);
    let errors = app().prefix("v1/").build().await.unwrap_err();
    insta::assert_snapshot!("production", text(&errors));
    assert!(app().secret("short").build().await.is_err());
    assert!(app().secret("0123456789abcdef0123456789abcdef").prefix("/v1").build().await.is_ok());
}
