//! Conformance cases of ids of every type.

use std::sync::Arc;

use super::fixture::{Fixture, fails, parse, text};
use super::{Case, Failure, named, same};
use crate::{ErrorKind, Field, FieldType, Filter, Guard, IdSource, Query, Schema, Test, Value, Write};

pub(super) const CASES: &[Case] = named![
    the_engines_uuids_are_kept,
    the_clients_texts_are_kept,
    the_clients_integers_are_kept,
    the_storage_mints_ascending_integers,
    minted_ids_never_clash_with_given_ones,
    an_id_that_is_taken_is_a_unique_violation,
    tables_are_made_once_and_keep_their_rows,
    a_missing_table_is_named,
];

async fn table(fixture: &Fixture, field_type: FieldType, source: IdSource) -> Result<Arc<Schema>, Failure> {
    let fields = vec![Field::new("id", field_type), Field::new("name", FieldType::Text)];
    fixture.table("items", fields, source, |_| ()).await
}

/// Inserts, reads, updates and deletes a row with this id.
async fn lives(fixture: &Fixture, schema: &Arc<Schema>, id: Value) -> Result<(), Failure> {
    let written = fixture.insert(schema, &[id.clone(), text("before")]).await?;
    same("the id", &written.id, &id)?;
    fixture.update(schema, id.clone(), &[("name", text("after"))], Guard::none()).await?;
    let (_, rows) = fixture.fetch(&Query::one(schema.clone(), id.clone())).await?;
    same("the row", &rows.iter().map(|row| row["name"].clone()).collect::<Vec<_>>(), &vec!["after".into()])?;
    fixture.delete(schema, id.clone(), Guard::none()).await?;
    fails(fixture.delete(schema, id, Guard::none()).await, ErrorKind::NotFound)?;
    Ok(())
}

async fn the_engines_uuids_are_kept(fixture: Fixture) -> Result<(), Failure> {
    let schema = table(&fixture, FieldType::Uuid, IdSource::Engine).await?;
    lives(&fixture, &schema, parse(FieldType::Uuid, "0198c0de-0000-7000-8000-000000000001")).await
}

async fn the_clients_texts_are_kept(fixture: Fixture) -> Result<(), Failure> {
    let schema = table(&fixture, FieldType::Text, IdSource::Client).await?;
    for id in ["a", "A", "a b", "ü🦀", "'; --", "%"] {
        lives(&fixture, &schema, text(id)).await?;
    }
    Ok(())
}

async fn the_clients_integers_are_kept(fixture: Fixture) -> Result<(), Failure> {
    let schema = table(&fixture, FieldType::Integer, IdSource::Client).await?;
    for id in [0, -1, i64::MIN, i64::MAX - 1] {
        lives(&fixture, &schema, Value::Integer(id)).await?;
    }
    Ok(())
}

async fn the_storage_mints_ascending_integers(fixture: Fixture) -> Result<(), Failure> {
    let schema = table(&fixture, FieldType::Integer, IdSource::Storage).await?;
    let mut last = 0;
    for _ in 0..3 {
        let written = fixture.insert(&schema, &[Value::Null, text("x")]).await?;
        let Value::Integer(id) = written.id else {
            return Err(Failure::new("an integer"));
        };
        same("ascending", &(id > last), &true)?;
        last = id;
    }
    Ok(())
}

async fn minted_ids_never_clash_with_given_ones(fixture: Fixture) -> Result<(), Failure> {
    let schema = table(&fixture, FieldType::Integer, IdSource::Storage).await?;
    let given = (1..=120).map(|id| (&schema, Write::Insert { values: vec![Value::Integer(id), text("x")] }));
    fixture.all(given.collect()).await?;
    fixture.insert(&schema, &[Value::Integer(200), text("x")]).await?;
    let written = fixture.insert(&schema, &[Value::Null, text("x")]).await?;
    same("the next id", &written.id, &Value::Integer(201))?;
    let one = Filter::Compare(0, Test::Eq(Value::Integer(77)));
    fixture.selects(&schema, one, "77").await
}

async fn an_id_that_is_taken_is_a_unique_violation(fixture: Fixture) -> Result<(), Failure> {
    let schema = table(&fixture, FieldType::Text, IdSource::Client).await?;
    fixture.insert(&schema, &[text("a"), text("x")]).await?;
    let clash = fails(fixture.insert(&schema, &[text("a"), text("y")]).await, ErrorKind::UniqueViolation)?;
    same("the field", &clash.fields().to_vec(), &vec!["id".to_owned()])
}

async fn tables_are_made_once_and_keep_their_rows(fixture: Fixture) -> Result<(), Failure> {
    let schema = table(&fixture, FieldType::Text, IdSource::Client).await?;
    fixture.insert(&schema, &[text("a"), text("x")]).await?;
    table(&fixture, FieldType::Text, IdSource::Client).await?;
    fixture.selects(&schema, Filter::everything(), "a").await
}

async fn a_missing_table_is_named(fixture: Fixture) -> Result<(), Failure> {
    let name = format!("{}_absent", fixture.prefix());
    let schema = Schema::new("absent", &name, vec![Field::new("id", FieldType::Text)], 0, IdSource::Client);
    let mismatches = fixture.storage.check(&Arc::new(schema)).await?;
    let named =
        mismatches.iter().any(|mismatch| mismatch.field.is_none() && mismatch.message.contains(&name));
    same(&format!("named in {mismatches:?}"), &named, &true)
}
