//! Conformance cases of writes: what changes return, and the atomicity of change sets.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::fixture::{Fixture, expect_error, position, row_values, text};
use super::{Case, Failure, expect_eq, named};
use crate::{
    Change, ChangeSet, ErrorKind, Field, FieldType, Filter, Guard, IdSource, Index, Query, Reference, Schema,
    Value, Version, Write,
};

pub(super) const CASES: &[Case] = named![
    insert_returns_row,
    counter_starts_at_given_value,
    update_returns_row_after_change,
    update_changes_only_named_fields,
    update_can_set_null,
    delete_removes_row,
    each_update_increments_the_counter,
    digest_depends_on_content,
    change_set_is_atomic,
    changes_see_earlier_changes,
    large_change_set_is_stored,
    error_names_failed_change,
    unique_violation_names_field,
    composite_unique_violation_names_fields,
    nulls_never_violate_uniqueness,
    update_to_duplicate_is_unique_violation,
    null_in_required_field_is_rejected,
    #[needs(foreign_keys)]
    dangling_reference_is_foreign_key_violation,
    #[needs(foreign_keys)]
    referenced_row_cannot_be_deleted,
    #[needs(foreign_keys)]
    parent_and_child_are_inserted_in_one_set,
    progress_reports_total,
];

fn returned_json(written: &crate::RowOutcome) -> Result<Json, Failure> {
    serde_json::from_slice(&written.json).map_err(|error| Failure::new(error.to_string()))
}

async fn insert_returns_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[]).await?;
    let written = fixture.insert(&schema, &row_values(&schema, "a", &[("text", text("x"))])).await?;
    expect_eq(
        "id and version",
        &(written.id.clone(), written.version),
        &(text("a"), Some(Version::Counter(1))),
    )?;
    let (_, rows) = fixture.fetch(&Query::one(schema, text("a"))).await?;
    expect_eq("the row", &returned_json(&written)?, &rows[0])
}

async fn counter_starts_at_given_value(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[]).await?;
    let counter = schema.version.expect("the rows of this suite have a counter");
    for (id, given, first) in
        [("a", Value::Integer(4_711), 4_711), ("b", Value::Integer(1 << 30), 1 << 30), ("c", Value::Null, 1)]
    {
        let mut values = row_values(&schema, id, &[]);
        values[counter] = given;
        let written = fixture.insert(&schema, &values).await?;
        expect_eq("the version", &written.version, &Some(Version::Counter(first)))?;
        let guard = Guard::version(Version::Counter(first));
        let changed = fixture.update(&schema, text(id), &[("text", text("x"))], guard).await?;
        expect_eq("the next version", &changed.version, &Some(Version::Counter(first + 1)))?;
    }
    Ok(())
}

async fn update_returns_row_after_change(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[("a", vec![("text", text("x"))])]).await?;
    let written = fixture.update(&schema, text("a"), &[("text", text("y"))], Guard::none()).await?;
    expect_eq("version", &written.version, &Some(Version::Counter(2)))?;
    let (_, rows) = fixture.fetch(&Query::one(schema, text("a"))).await?;
    expect_eq("the row", &returned_json(&written)?, &rows[0])?;
    expect_eq("the field", &rows[0]["text"], &json!("y"))
}

async fn update_changes_only_named_fields(fixture: Fixture) -> Result<(), Failure> {
    let values = vec![("text", text("x")), ("integer", Value::Integer(1))];
    let schema = fixture.table_with_rows(&[("a", values.clone()), ("b", values)]).await?;
    let set = [("integer", Value::Integer(2)), ("boolean", Value::Boolean(true))];
    fixture.update(&schema, text("a"), &set, Guard::none()).await?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    let picked: Vec<_> =
        rows.iter().map(|row| json!([row["text"], row["integer"], row["boolean"]])).collect();
    expect_eq("the rows", &picked, &vec![json!(["x", 2, true]), json!(["x", 1, null])])
}

async fn update_can_set_null(fixture: Fixture) -> Result<(), Failure> {
    let schema =
        fixture.table_with_rows(&[("a", vec![("text", text("x")), ("integer", Value::Integer(1))])]).await?;
    let nulls: Vec<_> =
        ["boolean", "integer", "float", "decimal", "text", "uuid", "datetime", "date", "json", "array"]
            .into_iter()
            .map(|field| (field, Value::Null))
            .collect();
    let written = fixture.update(&schema, text("a"), &nulls, Guard::none()).await?;
    expect_eq("the field", &returned_json(&written)?["integer"], &Json::Null)
}

async fn delete_removes_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[("a", vec![]), ("b", vec![])]).await?;
    let written = fixture.delete(&schema, text("a"), Guard::none()).await?;
    expect_eq("what is answered", &(written.version, written.json.len()), &(None, 0))?;
    fixture.expect_ids(&schema, Filter::everything(), "b").await
}

async fn each_update_increments_the_counter(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[("a", vec![])]).await?;
    for expected in 2..5 {
        let written = fixture.update(&schema, text("a"), &[("text", text("x"))], Guard::none()).await?;
        expect_eq("the counter", &written.version, &Some(Version::Counter(expected)))?;
    }
    let (rows, _) = fixture.fetch(&Query::one(schema, text("a"))).await?;
    expect_eq("as read", &rows.versions, &vec![Version::Counter(4)])
}

async fn plain_table(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("name", FieldType::Text).nullable()];
    fixture.create_table("plain", fields, IdSource::Client, |_| ()).await
}

async fn digest_depends_on_content(fixture: Fixture) -> Result<(), Failure> {
    let schema = plain_table(&fixture).await?;
    let first = fixture.insert(&schema, &[text("a"), text("x")]).await?;
    let mut query = Query::one(schema.clone(), text("a"));
    query.fields = vec![0];
    let (rows, _) = fixture.fetch(&query).await?;
    expect_eq("as read in part", &rows.versions, &first.version.into_iter().collect())?;
    let second = fixture.update(&schema, text("a"), &[("name", text("y"))], Guard::none()).await?;
    expect_eq("changed", &(second.version == first.version), &false)?;
    let third = fixture.update(&schema, text("a"), &[("name", text("x"))], Guard::none()).await?;
    expect_eq("back", &third.version, &first.version)
}

async fn change_set_is_atomic(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[("a", vec![("text", text("before"))])]).await?;
    let changes = vec![
        (&schema, Write::Insert { values: row_values(&schema, "b", &[]) }),
        (
            &schema,
            Write::Update {
                id: text("a"),
                set: vec![(position(&schema, "text"), text("after"))],
                guard: Guard::none(),
            },
        ),
        (&schema, Write::Delete { id: text("absent"), guard: Guard::none() }),
    ];
    expect_error(fixture.commit_all(changes).await, ErrorKind::NotFound)?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    expect_eq(
        "the rows",
        &rows.iter().map(|row| row["text"].clone()).collect::<Vec<_>>(),
        &vec![json!("before")],
    )
}

async fn changes_see_earlier_changes(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[]).await?;
    let set = vec![(position(&schema, "text"), text("x"))];
    let changes = vec![
        (&schema, Write::Insert { values: row_values(&schema, "a", &[]) }),
        (&schema, Write::Update { id: text("a"), set, guard: Guard::version(Version::Counter(1)) }),
        (&schema, Write::Insert { values: row_values(&schema, "b", &[]) }),
        (&schema, Write::Delete { id: text("b"), guard: Guard::none() }),
    ];
    let committed = fixture.commit_all(changes).await?;
    expect_eq("answers", &committed.rows.len(), &4)?;
    fixture.expect_ids(&schema, Filter::everything(), "a").await
}

async fn large_change_set_is_stored(fixture: Fixture) -> Result<(), Failure> {
    let schema = plain_table(&fixture).await?;
    let rows = (0..1_234)
        .map(|number| (&schema, Write::Insert { values: vec![text(&format!("{number:05}")), text("x")] }));
    let committed = fixture.commit_all(rows.collect()).await?;
    expect_eq(
        "ids",
        &(committed.rows[0].id.clone(), committed.rows[1_233].id.clone()),
        &(text("00000"), text("01233")),
    )?;
    let mut query = Query::all(schema);
    query.limit = 5_000;
    expect_eq("rows", &fixture.fetch_ids(&query).await?.len(), &1_234)
}

async fn error_names_failed_change(fixture: Fixture) -> Result<(), Failure> {
    let schema = plain_table(&fixture).await?;
    let mut ids: Vec<_> = (0..250).map(|number| format!("{number:05}")).collect();
    ids[157] = "00003".to_owned();
    let rows = ids.iter().map(|id| (&schema, Write::Insert { values: vec![text(id), Value::Null] }));
    let violation = expect_error(fixture.commit_all(rows.collect()).await, ErrorKind::UniqueViolation)?;
    expect_eq("the change", &violation.change(), &Some(157))?;
    fixture.expect_ids(&schema, Filter::everything(), "").await
}

async fn unique_table(fixture: &Fixture, fields: Vec<usize>) -> Result<Arc<Schema>, Failure> {
    let columns = vec![
        Field::new("id", FieldType::Text),
        Field::new("email", FieldType::Text).nullable(),
        Field::new("tenant", FieldType::Text).nullable(),
    ];
    let index = Index { fields, unique: true };
    fixture.create_table("unique", columns, IdSource::Client, |schema| schema.indexes.push(index)).await
}

async fn unique_violation_names_field(fixture: Fixture) -> Result<(), Failure> {
    let schema = unique_table(&fixture, vec![1]).await?;
    fixture.insert(&schema, &[text("a"), text("x"), Value::Null]).await?;
    let violation = expect_error(
        fixture.insert(&schema, &[text("b"), text("x"), Value::Null]).await,
        ErrorKind::UniqueViolation,
    )?;
    expect_eq("fields", &violation.fields().to_vec(), &vec!["email".to_owned()])?;
    expect_eq("change", &violation.change(), &Some(0))
}

async fn composite_unique_violation_names_fields(fixture: Fixture) -> Result<(), Failure> {
    let schema = unique_table(&fixture, vec![2, 1]).await?;
    fixture.insert(&schema, &[text("a"), text("x"), text("t")]).await?;
    fixture.insert(&schema, &[text("b"), text("x"), text("u")]).await?;
    let violation = expect_error(
        fixture.insert(&schema, &[text("c"), text("x"), text("t")]).await,
        ErrorKind::UniqueViolation,
    )?;
    expect_eq("fields", &violation.fields().to_vec(), &vec!["tenant".to_owned(), "email".to_owned()])
}

async fn nulls_never_violate_uniqueness(fixture: Fixture) -> Result<(), Failure> {
    let schema = unique_table(&fixture, vec![2, 1]).await?;
    for id in ["a", "b"] {
        fixture.insert(&schema, &[text(id), Value::Null, text("t")]).await?;
    }
    fixture.expect_ids(&schema, Filter::everything(), "a b").await
}

async fn update_to_duplicate_is_unique_violation(fixture: Fixture) -> Result<(), Failure> {
    let schema = unique_table(&fixture, vec![1]).await?;
    fixture.insert(&schema, &[text("a"), text("x"), Value::Null]).await?;
    fixture.insert(&schema, &[text("b"), text("y"), Value::Null]).await?;
    let update = fixture.update(&schema, text("b"), &[("email", text("x"))], Guard::none()).await;
    expect_error(update, ErrorKind::UniqueViolation)?;
    fixture.update(&schema, text("a"), &[("email", text("x"))], Guard::none()).await?;
    Ok(())
}

async fn null_in_required_field_is_rejected(fixture: Fixture) -> Result<(), Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("name", FieldType::Text)];
    let schema = fixture.create_table("strict", fields, IdSource::Client, |_| ()).await?;
    let rejected =
        expect_error(fixture.insert(&schema, &[text("a"), Value::Null]).await, ErrorKind::Rejected)?;
    expect_eq("fields", &rejected.fields().to_vec(), &vec!["name".to_owned()])
}

/// A table of countries, and one of cities that reference them.
async fn related_tables(fixture: &Fixture) -> Result<(Arc<Schema>, Arc<Schema>), Failure> {
    let countries = plain_table(fixture).await?;
    let fields = vec![Field::new("id", FieldType::Text), Field::new("country", FieldType::Text).nullable()];
    let reference = Reference {
        field: 1,
        table: countries.table.clone(),
        column: "id".to_owned(),
        target_field: "id".to_owned(),
    };
    let cities = fixture
        .create_table("cities", fields, IdSource::Client, |schema| schema.references.push(reference))
        .await?;
    Ok((countries, cities))
}

async fn dangling_reference_is_foreign_key_violation(fixture: Fixture) -> Result<(), Failure> {
    let (countries, cities) = related_tables(&fixture).await?;
    let dangling = expect_error(
        fixture.insert(&cities, &[text("a"), text("nowhere")]).await,
        ErrorKind::ForeignKeyViolation,
    )?;
    expect_eq("fields", &dangling.fields().to_vec(), &vec!["country".to_owned()])?;
    fixture.insert(&cities, &[text("a"), Value::Null]).await?;
    fixture.insert(&countries, &[text("is"), Value::Null]).await?;
    fixture.update(&cities, text("a"), &[("country", text("is"))], Guard::none()).await?;
    let moved = fixture.update(&cities, text("a"), &[("country", text("nowhere"))], Guard::none()).await;
    let moved = expect_error(moved, ErrorKind::ForeignKeyViolation)?;
    expect_eq("fields", &moved.fields().to_vec(), &vec!["country".to_owned()])
}

async fn referenced_row_cannot_be_deleted(fixture: Fixture) -> Result<(), Failure> {
    let (countries, cities) = related_tables(&fixture).await?;
    fixture.insert(&countries, &[text("is"), Value::Null]).await?;
    fixture.insert(&cities, &[text("a"), text("is")]).await?;
    expect_error(
        fixture.delete(&countries, text("is"), Guard::none()).await,
        ErrorKind::ForeignKeyViolation,
    )?;
    fixture.delete(&cities, text("a"), Guard::none()).await?;
    fixture.delete(&countries, text("is"), Guard::none()).await?;
    Ok(())
}

async fn parent_and_child_are_inserted_in_one_set(fixture: Fixture) -> Result<(), Failure> {
    let (countries, cities) = related_tables(&fixture).await?;
    let changes = vec![
        (&countries, Write::Insert { values: vec![text("is"), Value::Null] }),
        (&cities, Write::Insert { values: vec![text("a"), text("is")] }),
    ];
    fixture.commit_all(changes).await?;
    fixture.expect_ids(&cities, Filter::everything(), "a").await
}

async fn progress_reports_total(fixture: Fixture) -> Result<(), Failure> {
    let schema = plain_table(&fixture).await?;
    let rows = (0..700).map(|number| Change {
        schema: schema.clone(),
        write: Write::Insert { values: vec![text(&number.to_string()), Value::Null] },
        answer: None,
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let progress = move |rows: usize| {
        if let Ok(sender) = sender.lock() {
            let _ = sender.send(rows);
        }
    };
    let changes = ChangeSet { progress: Some(Arc::new(progress)), ..ChangeSet::of(rows.collect()) };
    fixture.storage.commit(changes).await?;
    expect_eq("the last word", &receiver.try_iter().last(), &Some(700))
}
