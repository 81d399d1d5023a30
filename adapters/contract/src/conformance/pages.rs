//! Conformance cases of order, fields, keys, versions, offsets and totals.

use std::sync::Arc;

use super::fixture::{Fixture, parse, position, text};
use super::{Case, Failure, expect_eq, named};
use crate::{Count, FieldType, Filter, Position, Query, Schema, Sort, Test, Total, Value, Version};

pub(super) const CASES: &[Case] = named![
    nulls_sort_last_ascending,
    nulls_sort_first_descending,
    several_keys_sort_in_mixed_directions,
    every_scalar_type_is_sortable,
    ties_are_broken_by_the_id,
    fields_are_written_in_requested_order,
    limit_bounds_page_and_sets_more,
    first_and_last_are_sort_keys,
    keys_and_versions_are_returned_beside_json,
    offset_skips_rows,
    page_at_offset_beyond_end_is_empty,
    total_counts_all_matching_rows,
    total_is_exact_on_empty_page,
    estimate_of_new_table_is_exact,
    similar_query_shapes_get_separate_plans,
];

async fn rows(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let values = |number: Option<i64>, content: &str| {
        let mut values = vec![("text", text(content))];
        values.extend(number.map(|number| ("integer", Value::Integer(number))));
        values
    };
    fixture
        .table_with_rows(&[
            ("a", values(Some(2), "x")),
            ("b", values(None, "x")),
            ("c", values(Some(1), "y")),
            ("d", values(Some(2), "y")),
            ("e", values(None, "y")),
        ])
        .await
}

fn sorted_query(schema: &Arc<Schema>, keys: &[(&str, bool)]) -> Query {
    let mut query = Query::all(schema.clone());
    query.sort = keys
        .iter()
        .map(|(name, descending)| Sort { field: position(schema, name), descending: *descending })
        .collect();
    query
}

async fn expect_order(fixture: &Fixture, query: &Query, expected: &str) -> Result<(), Failure> {
    expect_eq(&format!("{:?}", query.sort), &fixture.fetch_ids(query).await?.join(" "), &expected.to_owned())
}

async fn nulls_sort_last_ascending(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    expect_order(&fixture, &sorted_query(&schema, &[("integer", false), ("id", false)]), "c a d b e").await
}

async fn nulls_sort_first_descending(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    expect_order(&fixture, &sorted_query(&schema, &[("integer", true), ("id", true)]), "e b d a c").await
}

async fn several_keys_sort_in_mixed_directions(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    expect_order(
        &fixture,
        &sorted_query(&schema, &[("text", true), ("integer", false), ("id", false)]),
        "c d e a b",
    )
    .await?;
    expect_order(
        &fixture,
        &sorted_query(&schema, &[("integer", false), ("text", true), ("id", true)]),
        "c d a e b",
    )
    .await
}

async fn every_scalar_type_is_sortable(fixture: Fixture) -> Result<(), Failure> {
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
    let schema = fixture.table_with_rows(&[("a", high), ("b", low), ("n", vec![])]).await?;
    for (field, ..) in values {
        expect_order(&fixture, &sorted_query(&schema, &[(field, false), ("id", false)]), "b a n").await?;
        expect_order(&fixture, &sorted_query(&schema, &[(field, true), ("id", true)]), "n a b").await?;
    }
    Ok(())
}

async fn ties_are_broken_by_the_id(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    expect_order(&fixture, &sorted_query(&schema, &[("text", false), ("id", false)]), "a b c d e").await?;
    expect_order(&fixture, &sorted_query(&schema, &[("text", false), ("id", true)]), "b a e d c").await
}

async fn fields_are_written_in_requested_order(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::one(schema.clone(), text("c"));
    query.fields = vec![position(&schema, "text"), position(&schema, "integer")];
    let mut out = Vec::new();
    fixture.storage.fetch(&query, &mut out).await?;
    expect_eq(
        "the row",
        &String::from_utf8_lossy(&out).into_owned(),
        &"{\"text\":\"y\",\"integer\":1}".to_owned(),
    )
}

async fn limit_bounds_page_and_sets_more(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    for (limit, len, more) in [(1, 1, true), (4, 4, true), (5, 5, false), (6, 5, false)] {
        let mut query = Query::all(schema.clone());
        query.limit = limit;
        let (rows, _) = fixture.fetch(&query).await?;
        expect_eq(&format!("limit {limit}"), &(rows.len, rows.more), &(len, more))?;
    }
    Ok(())
}

async fn first_and_last_are_sort_keys(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = sorted_query(&schema, &[("integer", false), ("id", false)]);
    query.fields = vec![position(&schema, "text")];
    let (rows, _) = fixture.fetch(&query).await?;
    expect_eq("first", &rows.first, &Some(vec![Value::Integer(1), text("c")]))?;
    expect_eq("last", &rows.last, &Some(vec![Value::Null, text("e")]))?;
    query.filter = Filter::nothing();
    let (rows, _) = fixture.fetch(&query).await?;
    expect_eq("edges of nothing", &(rows.first, rows.last), &(None, None))
}

async fn keys_and_versions_are_returned_beside_json(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema.clone());
    query.fields = vec![position(&schema, "text")];
    query.keys = vec![position(&schema, "integer"), position(&schema, "id")];
    query.versions = true;
    query.limit = 2;
    let mut out = b"[".to_vec();
    let rows = fixture.storage.fetch(&query, &mut out).await?;
    expect_eq("keys", &rows.keys, &vec![vec![Value::Integer(2), text("a")], vec![Value::Null, text("b")]])?;
    expect_eq("versions", &rows.versions, &vec![Version::Counter(1); 2])?;
    let object = "{\"text\":\"x\"}".len();
    expect_eq("ends", &rows.ends, &vec![1 + object, 1 + object + 1 + object])
}

async fn offset_skips_rows(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema);
    query.position = Position::Offset(2);
    query.limit = 2;
    expect_order(&fixture, &query, "c d").await
}

async fn page_at_offset_beyond_end_is_empty(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    for skip in [5, 1_000_000, 1 << 40] {
        let mut query = Query::all(schema.clone());
        query.position = Position::Offset(skip);
        expect_order(&fixture, &query, "").await?;
    }
    Ok(())
}

async fn total_counts_all_matching_rows(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema.clone());
    query.filter = Filter::Compare(position(&schema, "text"), Test::Eq(text("y")));
    query.count = Some(Count::Exact);
    query.limit = 1;
    for place in [Position::Start, Position::After(vec![text("c")]), Position::Before(vec![text("e")])] {
        query.position = place;
        let (rows, _) = fixture.fetch(&query).await?;
        expect_eq("total", &rows.total, &Some(Total { rows: 3, exact: true }))?;
    }
    Ok(())
}

async fn total_is_exact_on_empty_page(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema.clone());
    query.count = Some(Count::Exact);
    query.position = Position::Offset(50);
    let (rows, _) = fixture.fetch(&query).await?;
    expect_eq("total", &rows.total, &Some(Total { rows: 5, exact: true }))?;
    query.filter = Filter::nothing();
    let (rows, _) = fixture.fetch(&query).await?;
    expect_eq("total of nothing", &rows.total, &Some(Total { rows: 0, exact: true }))
}

async fn estimate_of_new_table_is_exact(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut query = Query::all(schema.clone());
    query.count = Some(Count::Estimated);
    let (rows, _) = fixture.fetch(&query).await?;
    // A table without statistics is counted.
    expect_eq("an estimate of a new table", &rows.total.map(|total| total.rows), &Some(5))
}

async fn similar_query_shapes_get_separate_plans(fixture: Fixture) -> Result<(), Failure> {
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
            fixture.expect_ids(&schema, Filter::Compare(*field, test.clone()), expected).await?;
        }
    }
    Ok(())
}
