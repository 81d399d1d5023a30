//! Conformance cases of change sets: follow-up changes, dry runs, and changes to all matching rows.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::fixture::{Fixture, fails, position, row, text};
use super::{Case, Failure, named, same};
use crate::{
    Change, ChangeSet, ErrorKind, Field, FieldType, Filter, IdSource, Query, RowOutcome, Schema, Test, Value,
    Write,
};

pub(super) const CASES: &[Case] = named![
    what_follows_is_told_of_every_row,
    what_follows_fails_with_the_set,
    a_dry_run_leaves_nothing,
    a_dry_run_fails_as_it_would,
    every_row_that_matches_is_updated,
    every_row_that_matches_is_deleted,
    many_rows_answer_in_order,
    many_minted_ids_ascend,
];

fn insert(schema: &Arc<Schema>, id: &str, content: &str) -> Change {
    let values = row(schema, id, &[("text", text(content))]);
    Change {
        schema: schema.clone(),
        write: Write::Insert { values },
        answer: Some(schema.visible().collect()),
    }
}

async fn what_follows_is_told_of_every_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[]).await?;
    let minted = minting(&fixture).await?;
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
    same("the rows", &committed.rows.len(), &2)?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    let told = json!({"id": rows[0]["id"], "text": rows[0]["text"]});
    let length = r#"{"text":"x"}"#.len().to_string();
    same("what follows", &told, &json!({"id": format!("of {:?}", committed.rows[0].id), "text": length}))
}

async fn what_follows_fails_with_the_set(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[("a", vec![])]).await?;
    let to = schema.clone();
    let then = move |_: &[RowOutcome]| vec![insert(&to, "c", "x"), insert(&to, "a", "clashes")];
    let set = ChangeSet { then: Some(Arc::new(then)), ..ChangeSet::one(insert(&schema, "b", "x")) };
    let error = fails(fixture.storage.commit(set).await, ErrorKind::UniqueViolation)?;
    same("the failing change", &error.change(), &Some(2))?;
    fixture.selects(&schema, Filter::everything(), "a").await
}

async fn a_dry_run_leaves_nothing(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[("a", vec![])]).await?;
    let to = schema.clone();
    let then = move |_: &[RowOutcome]| vec![insert(&to, "c", "x")];
    let set = ChangeSet {
        then: Some(Arc::new(then)),
        dry_run: true,
        ..ChangeSet::of(vec![insert(&schema, "b", "x")])
    };
    let committed = fixture.storage.commit(set).await?;
    let ids: Vec<_> = committed.rows.iter().map(|row| row.id.clone()).collect();
    same("what it answers", &ids, &vec![text("b"), text("c")])?;
    let alone = ChangeSet { dry_run: true, ..ChangeSet::one(insert(&schema, "d", "x")) };
    fixture.storage.commit(alone).await?;
    fixture.selects(&schema, Filter::everything(), "a").await
}

async fn a_dry_run_fails_as_it_would(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[("a", vec![])]).await?;
    let set = ChangeSet { dry_run: true, ..ChangeSet::one(insert(&schema, "a", "x")) };
    fails(fixture.storage.commit(set).await, ErrorKind::UniqueViolation)?;
    Ok(())
}

async fn three(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let named = |name: &'static str| vec![("text", text(name))];
    fixture.rows(&[("a", named("x")), ("b", named("y")), ("c", named("x"))]).await
}

async fn every_row_that_matches_is_updated(fixture: Fixture) -> Result<(), Failure> {
    let schema = three(&fixture).await?;
    let filter = Filter::Compare(position(&schema, "text"), Test::Eq(text("x")));
    let set = vec![(position(&schema, "integer"), Value::Integer(7))];
    let committed = fixture.all(vec![(&schema, Write::UpdateAll { filter, set })]).await?;
    same("how many", &committed.rows[0], &RowOutcome::all(2))?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    let found: Vec<_> = rows.iter().map(|row| json!([row["integer"], row["version"]])).collect();
    same("rows and their counters", &found, &vec![json!([7, 2]), json!([null, 1]), json!([7, 2])])
}

async fn every_row_that_matches_is_deleted(fixture: Fixture) -> Result<(), Failure> {
    let schema = three(&fixture).await?;
    let filter = Filter::Compare(0, Test::In(vec![text("a"), text("c"), text("e")]));
    let committed = fixture.all(vec![(&schema, Write::DeleteAll { filter })]).await?;
    same("how many", &committed.rows[0], &RowOutcome::all(2))?;
    fixture.selects(&schema, Filter::everything(), "b").await
}

async fn many_rows_answer_in_order(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[]).await?;
    let ids: Vec<String> = (0..37).map(|number: u32| format!("{:02}", (number * 11) % 37)).collect();
    let changes = ids.iter().map(|id| insert(&schema, id, &format!("of {id}"))).collect();
    let committed = fixture.storage.commit(ChangeSet::of(changes)).await?;
    for (id, row) in ids.iter().zip(&committed.rows) {
        let json: Json =
            serde_json::from_slice(&row.json).map_err(|error| Failure::new(error.to_string()))?;
        same("the row", &(&row.id, &json["text"]), &(&text(id), &json!(format!("of {id}"))))?;
    }
    same("how many", &committed.rows.len(), &37)
}

async fn minting(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("text", FieldType::Text)];
    fixture.table("minted", fields, IdSource::Storage, |_| {}).await
}

async fn many_minted_ids_ascend(fixture: Fixture) -> Result<(), Failure> {
    let schema = minting(&fixture).await?;
    let one = |number: i64| (&schema, Write::Insert { values: vec![Value::Null, text(&number.to_string())] });
    let committed = fixture.all((0..23).map(one).collect()).await?;
    let (_, rows) = fixture.fetch(&Query::all(schema.clone())).await?;
    let texts: Vec<_> = rows.iter().map(|row| row["text"].clone()).collect();
    same("in the order of their ids", &texts, &(0..23).map(|number| json!(number.to_string())).collect())?;
    let ids: Vec<_> = rows.iter().map(|row| row["id"].as_i64().map_or(Value::Null, Value::Integer)).collect();
    same("as it answered", &committed.rows.iter().map(|row| row.id.clone()).collect(), &ids)
}
