//! Conformance cases of writes: what changes return, and the atomicity of change sets.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::fixture::{Fixture, fails, position, row, text};
use super::{Case, Failure, named, same};
use crate::{
    Change, ChangeSet, ErrorKind, Field, FieldType, Filter, Guard, IdSource, Index, Query, Reference, Schema,
    Value, Version, Write,
};

pub(super) const CASES: &[Case] = named![
    an_insert_answers_the_row,
    a_counter_begins_at_what_it_is_given,
    an_update_answers_the_row_as_it_is_then,
    an_update_sets_what_it_names_and_nothing_else,
    an_update_can_clear_a_field,
    a_delete_leaves_nothing,
    each_update_increments_the_counter,
    a_digest_follows_the_content,
    a_set_of_changes_is_all_or_none,
    changes_see_those_before_them,
    a_large_set_is_stored_whole,
    the_failing_change_is_named,
    a_unique_clash_names_the_field,
    a_unique_clash_of_several_fields_names_them,
    nulls_never_clash,
    an_update_into_a_clash_is_refused,
    a_null_where_none_may_be_is_rejected,
    #[needs(foreign_keys)]
    a_reference_to_nothing_is_refused_and_named,
    #[needs(foreign_keys)]
    what_is_referred_to_cannot_be_deleted,
    #[needs(foreign_keys)]
    parent_and_child_come_in_one_set,
    progress_reaches_the_end,
];

fn answered(written: &crate::RowOutcome) -> Result<Json, Failure> {
    serde_json::from_slice(&written.json).map_err(|error| Failure::new(error.to_string()))
}

async fn an_insert_answers_the_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[]).await?;
    let written = fixture.insert(&schema, &row(&schema, "a", &[("text", text("x"))])).await?;
    same("id and version", &(written.id.clone(), written.version), &(text("a"), Some(Version::Counter(1))))?;
    let (_, rows) = fixture.fetch(&Query::one(schema, text("a"))).await?;
    same("the row", &answered(&written)?, &rows[0])
}

async fn a_counter_begins_at_what_it_is_given(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[]).await?;
    let counter = schema.version.expect("the rows of this suite have a counter");
    for (id, given, first) in
        [("a", Value::Integer(4_711), 4_711), ("b", Value::Integer(1 << 30), 1 << 30), ("c", Value::Null, 1)]
    {
        let mut values = row(&schema, id, &[]);
        values[counter] = given;
        let written = fixture.insert(&schema, &values).await?;
        same("the version", &written.version, &Some(Version::Counter(first)))?;
        let guard = Guard::version(Version::Counter(first));
        let changed = fixture.update(&schema, text(id), &[("text", text("x"))], guard).await?;
        same("the next version", &changed.version, &Some(Version::Counter(first + 1)))?;
    }
    Ok(())
}

async fn an_update_answers_the_row_as_it_is_then(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[("a", vec![("text", text("x"))])]).await?;
    let written = fixture.update(&schema, text("a"), &[("text", text("y"))], Guard::none()).await?;
    same("version", &written.version, &Some(Version::Counter(2)))?;
    let (_, rows) = fixture.fetch(&Query::one(schema, text("a"))).await?;
    same("the row", &answered(&written)?, &rows[0])?;
    same("the field", &rows[0]["text"], &json!("y"))
}

async fn an_update_sets_what_it_names_and_nothing_else(fixture: Fixture) -> Result<(), Failure> {
    let values = vec![("text", text("x")), ("integer", Value::Integer(1))];
    let schema = fixture.rows(&[("a", values.clone()), ("b", values)]).await?;
    let set = [("integer", Value::Integer(2)), ("boolean", Value::Boolean(true))];
    fixture.update(&schema, text("a"), &set, Guard::none()).await?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    let picked: Vec<_> =
        rows.iter().map(|row| json!([row["text"], row["integer"], row["boolean"]])).collect();
    same("the rows", &picked, &vec![json!(["x", 2, true]), json!(["x", 1, null])])
}

async fn an_update_can_clear_a_field(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[("a", vec![("text", text("x")), ("integer", Value::Integer(1))])]).await?;
    let nulls: Vec<_> =
        ["boolean", "integer", "float", "decimal", "text", "uuid", "datetime", "date", "json", "array"]
            .into_iter()
            .map(|field| (field, Value::Null))
            .collect();
    let written = fixture.update(&schema, text("a"), &nulls, Guard::none()).await?;
    same("the field", &answered(&written)?["integer"], &Json::Null)
}

async fn a_delete_leaves_nothing(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[("a", vec![]), ("b", vec![])]).await?;
    let written = fixture.delete(&schema, text("a"), Guard::none()).await?;
    same("what is answered", &(written.version, written.json.len()), &(None, 0))?;
    fixture.selects(&schema, Filter::everything(), "b").await
}

async fn each_update_increments_the_counter(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[("a", vec![])]).await?;
    for expected in 2..5 {
        let written = fixture.update(&schema, text("a"), &[("text", text("x"))], Guard::none()).await?;
        same("the counter", &written.version, &Some(Version::Counter(expected)))?;
    }
    let (rows, _) = fixture.fetch(&Query::one(schema, text("a"))).await?;
    same("as read", &rows.versions, &vec![Version::Counter(4)])
}

async fn plain(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("name", FieldType::Text).nullable()];
    fixture.table("plain", fields, IdSource::Client, |_| ()).await
}

async fn a_digest_follows_the_content(fixture: Fixture) -> Result<(), Failure> {
    let schema = plain(&fixture).await?;
    let first = fixture.insert(&schema, &[text("a"), text("x")]).await?;
    let mut query = Query::one(schema.clone(), text("a"));
    query.fields = vec![0];
    let (rows, _) = fixture.fetch(&query).await?;
    same("as read in part", &rows.versions, &first.version.into_iter().collect())?;
    let second = fixture.update(&schema, text("a"), &[("name", text("y"))], Guard::none()).await?;
    same("changed", &(second.version == first.version), &false)?;
    let third = fixture.update(&schema, text("a"), &[("name", text("x"))], Guard::none()).await?;
    same("back", &third.version, &first.version)
}

async fn a_set_of_changes_is_all_or_none(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[("a", vec![("text", text("before"))])]).await?;
    let changes = vec![
        (&schema, Write::Insert { values: row(&schema, "b", &[]) }),
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
    fails(fixture.all(changes).await, ErrorKind::NotFound)?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    same("the rows", &rows.iter().map(|row| row["text"].clone()).collect::<Vec<_>>(), &vec![json!("before")])
}

async fn changes_see_those_before_them(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[]).await?;
    let set = vec![(position(&schema, "text"), text("x"))];
    let changes = vec![
        (&schema, Write::Insert { values: row(&schema, "a", &[]) }),
        (&schema, Write::Update { id: text("a"), set, guard: Guard::version(Version::Counter(1)) }),
        (&schema, Write::Insert { values: row(&schema, "b", &[]) }),
        (&schema, Write::Delete { id: text("b"), guard: Guard::none() }),
    ];
    let committed = fixture.all(changes).await?;
    same("answers", &committed.rows.len(), &4)?;
    fixture.selects(&schema, Filter::everything(), "a").await
}

async fn a_large_set_is_stored_whole(fixture: Fixture) -> Result<(), Failure> {
    let schema = plain(&fixture).await?;
    let rows = (0..1_234)
        .map(|number| (&schema, Write::Insert { values: vec![text(&format!("{number:05}")), text("x")] }));
    let committed = fixture.all(rows.collect()).await?;
    same(
        "ids",
        &(committed.rows[0].id.clone(), committed.rows[1_233].id.clone()),
        &(text("00000"), text("01233")),
    )?;
    let mut query = Query::all(schema);
    query.limit = 5_000;
    same("rows", &fixture.ids(&query).await?.len(), &1_234)
}

async fn the_failing_change_is_named(fixture: Fixture) -> Result<(), Failure> {
    let schema = plain(&fixture).await?;
    let mut ids: Vec<_> = (0..250).map(|number| format!("{number:05}")).collect();
    ids[157] = "00003".to_owned();
    let rows = ids.iter().map(|id| (&schema, Write::Insert { values: vec![text(id), Value::Null] }));
    let clash = fails(fixture.all(rows.collect()).await, ErrorKind::UniqueViolation)?;
    same("the change", &clash.change(), &Some(157))?;
    fixture.selects(&schema, Filter::everything(), "").await
}

async fn unique(fixture: &Fixture, fields: Vec<usize>) -> Result<Arc<Schema>, Failure> {
    let columns = vec![
        Field::new("id", FieldType::Text),
        Field::new("email", FieldType::Text).nullable(),
        Field::new("tenant", FieldType::Text).nullable(),
    ];
    let index = Index { fields, unique: true };
    fixture.table("unique", columns, IdSource::Client, |schema| schema.indexes.push(index)).await
}

async fn a_unique_clash_names_the_field(fixture: Fixture) -> Result<(), Failure> {
    let schema = unique(&fixture, vec![1]).await?;
    fixture.insert(&schema, &[text("a"), text("x"), Value::Null]).await?;
    let clash = fails(
        fixture.insert(&schema, &[text("b"), text("x"), Value::Null]).await,
        ErrorKind::UniqueViolation,
    )?;
    same("fields", &clash.fields().to_vec(), &vec!["email".to_owned()])?;
    same("change", &clash.change(), &Some(0))
}

async fn a_unique_clash_of_several_fields_names_them(fixture: Fixture) -> Result<(), Failure> {
    let schema = unique(&fixture, vec![2, 1]).await?;
    fixture.insert(&schema, &[text("a"), text("x"), text("t")]).await?;
    fixture.insert(&schema, &[text("b"), text("x"), text("u")]).await?;
    let clash =
        fails(fixture.insert(&schema, &[text("c"), text("x"), text("t")]).await, ErrorKind::UniqueViolation)?;
    same("fields", &clash.fields().to_vec(), &vec!["tenant".to_owned(), "email".to_owned()])
}

async fn nulls_never_clash(fixture: Fixture) -> Result<(), Failure> {
    let schema = unique(&fixture, vec![2, 1]).await?;
    for id in ["a", "b"] {
        fixture.insert(&schema, &[text(id), Value::Null, text("t")]).await?;
    }
    fixture.selects(&schema, Filter::everything(), "a b").await
}

async fn an_update_into_a_clash_is_refused(fixture: Fixture) -> Result<(), Failure> {
    let schema = unique(&fixture, vec![1]).await?;
    fixture.insert(&schema, &[text("a"), text("x"), Value::Null]).await?;
    fixture.insert(&schema, &[text("b"), text("y"), Value::Null]).await?;
    let update = fixture.update(&schema, text("b"), &[("email", text("x"))], Guard::none()).await;
    fails(update, ErrorKind::UniqueViolation)?;
    fixture.update(&schema, text("a"), &[("email", text("x"))], Guard::none()).await?;
    Ok(())
}

async fn a_null_where_none_may_be_is_rejected(fixture: Fixture) -> Result<(), Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("name", FieldType::Text)];
    let schema = fixture.table("strict", fields, IdSource::Client, |_| ()).await?;
    let rejected = fails(fixture.insert(&schema, &[text("a"), Value::Null]).await, ErrorKind::Rejected)?;
    same("fields", &rejected.fields().to_vec(), &vec!["name".to_owned()])
}

/// A table of countries, and one of cities that reference them.
async fn family(fixture: &Fixture) -> Result<(Arc<Schema>, Arc<Schema>), Failure> {
    let countries = plain(fixture).await?;
    let fields = vec![Field::new("id", FieldType::Text), Field::new("country", FieldType::Text).nullable()];
    let reference = Reference {
        field: 1,
        table: countries.table.clone(),
        column: "id".to_owned(),
        target_field: "id".to_owned(),
    };
    let cities =
        fixture.table("cities", fields, IdSource::Client, |schema| schema.references.push(reference)).await?;
    Ok((countries, cities))
}

async fn a_reference_to_nothing_is_refused_and_named(fixture: Fixture) -> Result<(), Failure> {
    let (countries, cities) = family(&fixture).await?;
    let dangling =
        fails(fixture.insert(&cities, &[text("a"), text("nowhere")]).await, ErrorKind::ForeignKeyViolation)?;
    same("fields", &dangling.fields().to_vec(), &vec!["country".to_owned()])?;
    fixture.insert(&cities, &[text("a"), Value::Null]).await?;
    fixture.insert(&countries, &[text("is"), Value::Null]).await?;
    fixture.update(&cities, text("a"), &[("country", text("is"))], Guard::none()).await?;
    let moved = fixture.update(&cities, text("a"), &[("country", text("nowhere"))], Guard::none()).await;
    let moved = fails(moved, ErrorKind::ForeignKeyViolation)?;
    same("fields", &moved.fields().to_vec(), &vec!["country".to_owned()])
}

async fn what_is_referred_to_cannot_be_deleted(fixture: Fixture) -> Result<(), Failure> {
    let (countries, cities) = family(&fixture).await?;
    fixture.insert(&countries, &[text("is"), Value::Null]).await?;
    fixture.insert(&cities, &[text("a"), text("is")]).await?;
    fails(fixture.delete(&countries, text("is"), Guard::none()).await, ErrorKind::ForeignKeyViolation)?;
    fixture.delete(&cities, text("a"), Guard::none()).await?;
    fixture.delete(&countries, text("is"), Guard::none()).await?;
    Ok(())
}

async fn parent_and_child_come_in_one_set(fixture: Fixture) -> Result<(), Failure> {
    let (countries, cities) = family(&fixture).await?;
    let changes = vec![
        (&countries, Write::Insert { values: vec![text("is"), Value::Null] }),
        (&cities, Write::Insert { values: vec![text("a"), text("is")] }),
    ];
    fixture.all(changes).await?;
    fixture.selects(&cities, Filter::everything(), "a").await
}

async fn progress_reaches_the_end(fixture: Fixture) -> Result<(), Failure> {
    let schema = plain(&fixture).await?;
    let rows = (0..700).map(|number| Change {
        schema: schema.clone(),
        write: Write::Insert { values: vec![text(&number.to_string()), Value::Null] },
        answer: None,
    });
    let (said, heard) = std::sync::mpsc::channel();
    let said = std::sync::Mutex::new(said);
    let progress = move |rows: usize| {
        if let Ok(said) = said.lock() {
            let _ = said.send(rows);
        }
    };
    let changes = ChangeSet { progress: Some(Arc::new(progress)), ..ChangeSet::of(rows.collect()) };
    fixture.storage.commit(changes).await?;
    same("the last word", &heard.try_iter().last(), &Some(700))
}
