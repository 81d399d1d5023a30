//! Conformance cases of ids of every type.

use std::sync::Arc;

use super::fixture::{Fixture, expect_error, parse, text};
use super::{Case, Failure, expect_eq, named};
use crate::{ErrorKind, Field, FieldType, Filter, Guard, IdSource, Query, Schema, Test, Value, Write};

pub(super) const CASES: &[Case] = named![
    engine_uuids_are_stored,
    client_text_ids_are_stored,
    client_integer_ids_are_stored,
    storage_generates_ascending_ids,
    generated_ids_skip_explicit_ids,
    duplicate_id_is_unique_violation,
    creating_existing_table_keeps_rows,
    missing_table_is_reported,
];

async fn items_table(
    fixture: &Fixture,
    field_type: FieldType,
    source: IdSource,
) -> Result<Arc<Schema>, Failure> {
    let fields = vec![Field::new("id", field_type), Field::new("name", FieldType::Text)];
    fixture.create_table("items", fields, source, |_| ()).await
}

/// Inserts, reads, updates and deletes a row with this id.
async fn expect_crud(fixture: &Fixture, schema: &Arc<Schema>, id: Value) -> Result<(), Failure> {
    let written = fixture.insert(schema, &[id.clone(), text("before")]).await?;
    expect_eq("the id", &written.id, &id)?;
    fixture.update(schema, id.clone(), &[("name", text("after"))], Guard::none()).await?;
    let (_, rows) = fixture.fetch(&Query::one(schema.clone(), id.clone())).await?;
    expect_eq(
        "the row",
        &rows.iter().map(|row| row["name"].clone()).collect::<Vec<_>>(),
        &vec!["after".into()],
    )?;
    fixture.delete(schema, id.clone(), Guard::none()).await?;
    expect_error(fixture.delete(schema, id, Guard::none()).await, ErrorKind::NotFound)?;
    Ok(())
}

async fn engine_uuids_are_stored(fixture: Fixture) -> Result<(), Failure> {
    let schema = items_table(&fixture, FieldType::Uuid, IdSource::Engine).await?;
    expect_crud(&fixture, &schema, parse(FieldType::Uuid, "0198c0de-0000-7000-8000-000000000001")).await
}

async fn client_text_ids_are_stored(fixture: Fixture) -> Result<(), Failure> {
    let schema = items_table(&fixture, FieldType::Text, IdSource::Client).await?;
    for id in ["a", "A", "a b", "ü🦀", "'; --", "%"] {
        expect_crud(&fixture, &schema, text(id)).await?;
    }
    Ok(())
}

async fn client_integer_ids_are_stored(fixture: Fixture) -> Result<(), Failure> {
    let schema = items_table(&fixture, FieldType::Integer, IdSource::Client).await?;
    for id in [0, -1, i64::MIN, i64::MAX - 1] {
        expect_crud(&fixture, &schema, Value::Integer(id)).await?;
    }
    Ok(())
}

async fn storage_generates_ascending_ids(fixture: Fixture) -> Result<(), Failure> {
    let schema = items_table(&fixture, FieldType::Integer, IdSource::Storage).await?;
    let mut last = 0;
    for _ in 0..3 {
        let written = fixture.insert(&schema, &[Value::Null, text("x")]).await?;
        let Value::Integer(id) = written.id else {
            return Err(Failure::new("an integer"));
        };
        expect_eq("ascending", &(id > last), &true)?;
        last = id;
    }
    Ok(())
}

async fn generated_ids_skip_explicit_ids(fixture: Fixture) -> Result<(), Failure> {
    let schema = items_table(&fixture, FieldType::Integer, IdSource::Storage).await?;
    let explicit =
        (1..=120).map(|id| (&schema, Write::Insert { values: vec![Value::Integer(id), text("x")] }));
    fixture.commit_all(explicit.collect()).await?;
    fixture.insert(&schema, &[Value::Integer(200), text("x")]).await?;
    let written = fixture.insert(&schema, &[Value::Null, text("x")]).await?;
    expect_eq("the next id", &written.id, &Value::Integer(201))?;
    let one = Filter::Compare(0, Test::Eq(Value::Integer(77)));
    fixture.expect_ids(&schema, one, "77").await
}

async fn duplicate_id_is_unique_violation(fixture: Fixture) -> Result<(), Failure> {
    let schema = items_table(&fixture, FieldType::Text, IdSource::Client).await?;
    fixture.insert(&schema, &[text("a"), text("x")]).await?;
    let violation =
        expect_error(fixture.insert(&schema, &[text("a"), text("y")]).await, ErrorKind::UniqueViolation)?;
    expect_eq("the field", &violation.fields().to_vec(), &vec!["id".to_owned()])
}

async fn creating_existing_table_keeps_rows(fixture: Fixture) -> Result<(), Failure> {
    let schema = items_table(&fixture, FieldType::Text, IdSource::Client).await?;
    fixture.insert(&schema, &[text("a"), text("x")]).await?;
    items_table(&fixture, FieldType::Text, IdSource::Client).await?;
    fixture.expect_ids(&schema, Filter::everything(), "a").await
}

async fn missing_table_is_reported(fixture: Fixture) -> Result<(), Failure> {
    let name = format!("{}_absent", fixture.prefix());
    let schema = Schema::new("absent", &name, vec![Field::new("id", FieldType::Text)], 0, IdSource::Client);
    let mismatches = fixture.storage.check(&Arc::new(schema)).await?;
    let named =
        mismatches.iter().any(|mismatch| mismatch.field.is_none() && mismatch.message.contains(&name));
    expect_eq(&format!("named in {mismatches:?}"), &named, &true)
}
