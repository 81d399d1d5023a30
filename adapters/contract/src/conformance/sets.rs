//! Conformance cases of change sets: follow-up changes, dry runs, and changes to all matching rows.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::fixture::{Fixture, expect_error, position, row_values, text};
use super::{Case, Failure, expect_eq, named};
use crate::{
    Change, ChangeSet, ErrorKind, Field, FieldType, Filter, IdSource, Query, RowOutcome, Schema, Test, Value,
    Write,
};

pub(super) const CASES: &[Case] = named![
    follow_up_receives_row_outcomes,
    failed_follow_up_rolls_back_set,
    dry_run_stores_nothing,
    dry_run_returns_errors,
    update_all_changes_matching_rows,
    delete_all_removes_matching_rows,
    outcomes_follow_order_of_changes,
    generated_ids_ascend_within_set,
];

fn insert(schema: &Arc<Schema>, id: &str, content: &str) -> Change {
    let values = row_values(schema, id, &[("text", text(content))]);
    Change {
        schema: schema.clone(),
        write: Write::Insert { values },
        answer: Some(schema.visible().collect()),
    }
}

async fn follow_up_receives_row_outcomes(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[]).await?;
    let minted = generated_ids_table(&fixture).await?;
    let to = schema.clone();
    let then = move |rows: &[RowOutcome]| {
        rows.iter().map(|row| insert(&to, &format!("of {:?}", row.id), &row.json.len().to_string())).collect()
    };
    let values = vec![Value::Null, text("x")];
    let first = Change {
        schema: minted.clone(),
        write: Write::Insert { values },
        answer: Some(vec![position(&minted, "text")]),
    };
    let set = ChangeSet { then: Some(Arc::new(then)), ..ChangeSet::one(first) };
    let committed = fixture.storage.commit(set).await?;
    expect_eq("the rows", &committed.rows.len(), &2)?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    let follow_up = json!({"id": rows[0]["id"], "text": rows[0]["text"]});
    let length = r#"{"text":"x"}"#.len().to_string();
    expect_eq(
        "what follows",
        &follow_up,
        &json!({"id": format!("of {:?}", committed.rows[0].id), "text": length}),
    )
}

async fn failed_follow_up_rolls_back_set(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[("a", vec![])]).await?;
    let to = schema.clone();
    let then = move |_: &[RowOutcome]| vec![insert(&to, "c", "x"), insert(&to, "a", "clashes")];
    let set = ChangeSet { then: Some(Arc::new(then)), ..ChangeSet::one(insert(&schema, "b", "x")) };
    let error = expect_error(fixture.storage.commit(set).await, ErrorKind::UniqueViolation)?;
    expect_eq("the failing change", &error.change(), &Some(2))?;
    fixture.expect_ids(&schema, Filter::everything(), "a").await
}

async fn dry_run_stores_nothing(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[("a", vec![])]).await?;
    let to = schema.clone();
    let then = move |_: &[RowOutcome]| vec![insert(&to, "c", "x")];
    let set = ChangeSet {
        then: Some(Arc::new(then)),
        dry_run: true,
        ..ChangeSet::of(vec![insert(&schema, "b", "x")])
    };
    let committed = fixture.storage.commit(set).await?;
    let ids: Vec<_> = committed.rows.iter().map(|row| row.id.clone()).collect();
    expect_eq("what it answers", &ids, &vec![text("b"), text("c")])?;
    let alone = ChangeSet { dry_run: true, ..ChangeSet::one(insert(&schema, "d", "x")) };
    fixture.storage.commit(alone).await?;
    fixture.expect_ids(&schema, Filter::everything(), "a").await
}

async fn dry_run_returns_errors(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[("a", vec![])]).await?;
    let set = ChangeSet { dry_run: true, ..ChangeSet::one(insert(&schema, "a", "x")) };
    expect_error(fixture.storage.commit(set).await, ErrorKind::UniqueViolation)?;
    Ok(())
}

async fn three_rows(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let named = |name: &'static str| vec![("text", text(name))];
    fixture.table_with_rows(&[("a", named("x")), ("b", named("y")), ("c", named("x"))]).await
}

async fn update_all_changes_matching_rows(fixture: Fixture) -> Result<(), Failure> {
    let schema = three_rows(&fixture).await?;
    let filter = Filter::Compare(position(&schema, "text"), Test::Eq(text("x")));
    let set = vec![(position(&schema, "integer"), Value::Integer(7))];
    let committed = fixture.commit_all(vec![(&schema, Write::UpdateAll { filter, set })]).await?;
    expect_eq("how many", &committed.rows[0], &RowOutcome::all(2))?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    let found: Vec<_> = rows.iter().map(|row| json!([row["integer"], row["version"]])).collect();
    expect_eq("rows and their counters", &found, &vec![json!([7, 2]), json!([null, 1]), json!([7, 2])])
}

async fn delete_all_removes_matching_rows(fixture: Fixture) -> Result<(), Failure> {
    let schema = three_rows(&fixture).await?;
    let filter = Filter::Compare(0, Test::In(vec![text("a"), text("c"), text("e")]));
    let committed = fixture.commit_all(vec![(&schema, Write::DeleteAll { filter })]).await?;
    expect_eq("how many", &committed.rows[0], &RowOutcome::all(2))?;
    fixture.expect_ids(&schema, Filter::everything(), "b").await
}

async fn outcomes_follow_order_of_changes(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[]).await?;
    let ids: Vec<String> = (0..37).map(|number: u32| format!("{:02}", (number * 11) % 37)).collect();
    let changes = ids.iter().map(|id| insert(&schema, id, &format!("of {id}"))).collect();
    let committed = fixture.storage.commit(ChangeSet::of(changes)).await?;
    for (id, row) in ids.iter().zip(&committed.rows) {
        let json: Json =
            serde_json::from_slice(&row.json).map_err(|error| Failure::new(error.to_string()))?;
        expect_eq("the row", &(&row.id, &json["text"]), &(&text(id), &json!(format!("of {id}"))))?;
    }
    expect_eq("how many", &committed.rows.len(), &37)
}

async fn generated_ids_table(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Text)];
    fixture.create_table("minted", fields, IdSource::Storage, |_| {}).await
}

async fn generated_ids_ascend_within_set(fixture: Fixture) -> Result<(), Failure> {
    let schema = generated_ids_table(&fixture).await?;
    let one = |number: i64| (&schema, Write::Insert { values: vec![Value::Null, text(&number.to_string())] });
    let committed = fixture.commit_all((0..23).map(one).collect()).await?;
    let (_, rows) = fixture.fetch(&Query::all(schema.clone())).await?;
    let texts: Vec<_> = rows.iter().map(|row| row["text"].clone()).collect();
    expect_eq(
        "in the order of their ids",
        &texts,
        &(0..23).map(|number| json!(number.to_string())).collect(),
    )?;
    let ids: Vec<_> = rows.iter().map(|row| row["id"].as_i64().map_or(Value::Null, Value::Integer)).collect();
    expect_eq("as it answered", &committed.rows.iter().map(|row| row.id.clone()).collect(), &ids)
}
