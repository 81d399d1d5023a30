//! Conformance cases of order, fields, keys, versions, offsets and totals.

use std::sync::Arc;

use super::fixture::{Fixture, parse, position, text};
use super::{Case, Failure, named, same};
use crate::{Count, FieldType, Filter, Position, Query, Schema, Sort, Test, Total, Value, Version};

pub(super) const CASES: &[Case] = named![
    nulls_come_after_every_value_ascending,
    nulls_come_before_every_value_descending,
    several_keys_sort_in_mixed_directions,
    every_scalar_type_sorts,
    ties_are_broken_by_the_id,
    fields_are_written_in_the_order_asked_for,
    a_limit_cuts_the_page_and_says_that_there_is_more,
    the_edges_of_a_page_are_its_sort_keys,
    keys_and_versions_come_beside_the_rows,
    an_offset_skips_rows,
    an_offset_beyond_the_end_is_empty,
    a_total_counts_what_matches_whatever_the_page,
    a_total_is_right_where_the_page_is_empty,
    an_estimate_is_a_total,
    plans_are_told_apart_by_their_shape,
];

async fn rows(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let values = |number: Option<i64>, content: &str| {
        let mut values = vec![("text", text(content))];
        values.extend(number.map(|number| ("integer", Value::Integer(number))));
        values
    };
    fixture
        .rows(&[
            ("a", values(Some(2), "x")),
            ("b", values(None, "x")),
            ("c", values(Some(1), "y")),
            ("d", values(Some(2), "y")),
            ("e", values(None, "y")),
        ])
        .await
}

fn sorted(schema: &Arc<Schema>, keys: &[(&str, bool)]) -> Query {
    let mut query = Query::all(schema.clone());
    query.sort = keys
        .iter()
        .map(|(name, descending)| Sort { field: position(schema, name), descending: *descending })
        .collect();
    query
}

async fn comes(fixture: &Fixture, query: &Query, expected: &str) -> Result<(), Failure> {
    same(&format!("{:?}", query.sort), &fixture.ids(query).await?.join(" "), &expected.to_owned())
}

async fn nulls_come_after_every_value_ascending(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    comes(&fixture, &sorted(&schema, &[("integer", false), ("id", false)]), "c a d b e").await
}

async fn nulls_come_before_every_value_descending(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    comes(&fixture, &sorted(&schema, &[("integer", true), ("id", true)]), "e b d a c").await
}

async fn several_keys_sort_in_mixed_directions(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    comes(&fixture, &sorted(&schema, &[("text", true), ("integer", false), ("id", false)]), "c d e a b")
        .await?;
    comes(&fixture, &sorted(&schema, &[("integer", false), ("text", true), ("id", true)]), "c d a e b").await
}

async fn every_scalar_type_sorts(fixture: Fixture) -> Result<(), Failure> {
    let values = [
        ("boolean", Value::Boolean(false), Value::Boolean(true)),
        ("integer", Value::Integer(9), Value::Integer(10)),
        ("float", Value::Float(-0.5), Value::Float(0.25)),
        ("decimal", parse(FieldType::Decimal, "9.5"), parse(FieldType::Decimal, "10.25")),
        ("text", text("Z"), text("a")),
        (
            "uuid",
            parse(FieldType::Uuid, "0198c0de-0000-7000-8000-000000000000"),
            parse(FieldType::Uuid, "f198c0de-0000-7000-8000-000000000000"),
        ),
        (
            "datetime",
            parse(FieldType::DateTime, "2026-01-01T00:00:00Z"),
            parse(FieldType::DateTime, "2026-01-01T00:00:00.5Z"),
        ),
        ("date", parse(FieldType::Date, "0999-01-01"), parse(FieldType::Date, "2026-01-01")),
    ];
    let low: Vec<_> = values.iter().map(|(field, low, _)| (*field, low.clone())).collect();
    let high: Vec<_> = values.iter().map(|(field, _, high)| (*field, high.clone())).collect();
    let schema = fixture.rows(&[("a", high), ("b", low), ("n", vec![])]).await?;
    for (field, ..) in values {
        comes(&fixture, &sorted(&schema, &[(field, false), ("id", false)]), "b a n").await?;
        comes(&fixture, &sorted(&schema, &[(field, true), ("id", true)]), "n a b").await?;
    }
    Ok(())
}

async fn ties_are_broken_by_the_id(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    comes(&fixture, &sorted(&schema, &[("text", false), ("id", false)]), "a b c d e").await?;
    comes(&fixture, &sorted(&schema, &[("text", false), ("id", true)]), "b a e d c").await
}

async fn fields_are_written_in_the_order_asked_for(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::one(schema.clone(), text("c"));
    query.fields = vec![position(&schema, "text"), position(&schema, "integer")];
    let mut out = Vec::new();
    fixture.storage.fetch(&query, &mut out).await?;
    same("the row", &String::from_utf8_lossy(&out).into_owned(), &"{\"text\":\"y\",\"integer\":1}".to_owned())
}

async fn a_limit_cuts_the_page_and_says_that_there_is_more(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    for (limit, len, more) in [(1, 1, true), (4, 4, true), (5, 5, false), (6, 5, false)] {
        let mut query = Query::all(schema.clone());
        query.limit = limit;
        let (rows, _) = fixture.fetch(&query).await?;
        same(&format!("limit {limit}"), &(rows.len, rows.more), &(len, more))?;
    }
    Ok(())
}

async fn the_edges_of_a_page_are_its_sort_keys(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = sorted(&schema, &[("integer", false), ("id", false)]);
    query.fields = vec![position(&schema, "text")];
    let (rows, _) = fixture.fetch(&query).await?;
    same("first", &rows.first, &Some(vec![Value::Integer(1), text("c")]))?;
    same("last", &rows.last, &Some(vec![Value::Null, text("e")]))?;
    query.filter = Filter::nothing();
    let (rows, _) = fixture.fetch(&query).await?;
    same("edges of nothing", &(rows.first, rows.last), &(None, None))
}

async fn keys_and_versions_come_beside_the_rows(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema.clone());
    query.fields = vec![position(&schema, "text")];
    query.keys = vec![position(&schema, "integer"), position(&schema, "id")];
    query.versions = true;
    query.limit = 2;
    let mut out = b"[".to_vec();
    let rows = fixture.storage.fetch(&query, &mut out).await?;
    same("keys", &rows.keys, &vec![vec![Value::Integer(2), text("a")], vec![Value::Null, text("b")]])?;
    same("versions", &rows.versions, &vec![Version::Counter(1); 2])?;
    let object = "{\"text\":\"x\"}".len();
    same("ends", &rows.ends, &vec![1 + object, 1 + object + 1 + object])
}

async fn an_offset_skips_rows(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema);
    query.position = Position::Offset(2);
    query.limit = 2;
    comes(&fixture, &query, "c d").await
}

async fn an_offset_beyond_the_end_is_empty(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    for skip in [5, 1_000_000, 1 << 40] {
        let mut query = Query::all(schema.clone());
        query.position = Position::Offset(skip);
        comes(&fixture, &query, "").await?;
    }
    Ok(())
}

async fn a_total_counts_what_matches_whatever_the_page(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema.clone());
    query.filter = Filter::Compare(position(&schema, "text"), Test::Eq(text("y")));
    query.count = Some(Count::Exact);
    query.limit = 1;
    for place in [Position::Start, Position::After(vec![text("c")]), Position::Before(vec![text("e")])] {
        query.position = place;
        let (rows, _) = fixture.fetch(&query).await?;
        same("total", &rows.total, &Some(Total { rows: 3, exact: true }))?;
    }
    Ok(())
}

async fn a_total_is_right_where_the_page_is_empty(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema.clone());
    query.count = Some(Count::Exact);
    query.position = Position::Offset(50);
    let (rows, _) = fixture.fetch(&query).await?;
    same("total", &rows.total, &Some(Total { rows: 5, exact: true }))?;
    query.filter = Filter::nothing();
    let (rows, _) = fixture.fetch(&query).await?;
    same("total of nothing", &rows.total, &Some(Total { rows: 0, exact: true }))
}

async fn an_estimate_is_a_total(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema.clone());
    query.count = Some(Count::Estimated);
    let (rows, _) = fixture.fetch(&query).await?;
    // A table without statistics is counted.
    same("an estimate of a new table", &rows.total.map(|total| total.rows), &Some(5))
}

async fn plans_are_told_apart_by_their_shape(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let field = |name| position(&schema, name);
    // Query shapes that differ in one place each, run twice in turn.
    let tests = [
        (field("integer"), Test::Eq(Value::Integer(2)), "a d"),
        (field("integer"), Test::Ne(Value::Integer(2)), "b c e"),
        (field("integer"), Test::Eq(Value::Integer(1)), "c"),
        (field("text"), Test::Eq(text("x")), "a b"),
        (field("text"), Test::Starts("y".to_owned()), "c d e"),
        (field("id"), Test::In(vec![text("a"), text("e")]), "a e"),
        (field("id"), Test::In(vec![text("b")]), "b"),
    ];
    for _ in 0..2 {
        for (field, test, expected) in &tests {
            fixture.selects(&schema, Filter::Compare(*field, test.clone()), expected).await?;
        }
    }
    Ok(())
}
