//! Conformance cases of each operator on each type, with one row that holds null.

use std::sync::Arc;

use super::fixture::{Fixture, parse, position, row_values, text};
use super::{Case, Failure, expect_eq, named};
use crate::{FieldType, Filter, Query, Schema, Sort, Test, Value};

pub(super) const CASES: &[Case] = named![
    equality_of_booleans,
    equality_of_integers,
    equality_of_floats,
    equality_of_decimals,
    equality_of_text,
    equality_of_uuids,
    equality_of_times,
    equality_of_dates,
    ne_matches_null,
    integers_are_compared_by_value,
    integers_beyond_2_to_the_53_are_exact,
    floats_are_compared_by_value,
    decimals_are_ordered_by_value,
    text_is_ordered_by_bytes,
    uuids_are_compared_by_value,
    times_of_any_precision_are_compared,
    dates_are_compared_by_value,
    between_includes_both_bounds,
    in_matches_any_listed_value,
    empty_in_matches_no_row,
    nin_matches_null,
    empty_nin_matches_every_row,
    in_works_on_every_type,
    contains_is_literal_and_case_sensitive,
    percent_is_literal,
    underscore_is_literal,
    backslash_is_literal,
    quotes_are_literal,
    starts_is_anchored,
    ends_is_anchored,
    empty_substring_matches_every_non_null_text,
    text_tests_match_whole_characters,
    is_null_works_on_every_type,
    has_matches_array_element,
    overlaps_matches_any_element,
    duplicate_array_elements_return_row_once,
    integer_arrays_match_has_and_overlaps,
];

/// Rows `a`, `b`, `c` with ascending values of a field, and `n` with null.
async fn ascending_rows(fixture: &Fixture, field: &str, values: [Value; 3]) -> Result<Arc<Schema>, Failure> {
    let [a, b, c] = values;
    fixture
        .table_with_rows(&[
            ("a", vec![(field, a)]),
            ("b", vec![(field, b)]),
            ("c", vec![(field, c)]),
            ("n", vec![]),
        ])
        .await
}

async fn expect_matches(
    fixture: &Fixture,
    schema: &Arc<Schema>,
    field: &str,
    test: Test,
    ids: &str,
) -> Result<(), Failure> {
    fixture.expect_ids(schema, Filter::Compare(position(schema, field), test), ids).await
}

/// Checks equality and its negation.
async fn expect_equality(fixture: Fixture, field: &str, values: [Value; 3]) -> Result<(), Failure> {
    let schema = ascending_rows(&fixture, field, values.clone()).await?;
    let [a, b, _] = values;
    expect_matches(&fixture, &schema, field, Test::Eq(b.clone()), "b").await?;
    expect_matches(&fixture, &schema, field, Test::Ne(b), "a c n").await?;
    expect_matches(&fixture, &schema, field, Test::Eq(a), "a").await
}

/// Checks all comparisons.
async fn expect_order(fixture: Fixture, field: &str, values: [Value; 3]) -> Result<(), Failure> {
    let schema = ascending_rows(&fixture, field, values.clone()).await?;
    let [a, b, c] = values;
    expect_matches(&fixture, &schema, field, Test::Gt(b.clone()), "c").await?;
    expect_matches(&fixture, &schema, field, Test::Gte(b.clone()), "b c").await?;
    expect_matches(&fixture, &schema, field, Test::Lt(b.clone()), "a").await?;
    expect_matches(&fixture, &schema, field, Test::Lte(b.clone()), "a b").await?;
    expect_matches(&fixture, &schema, field, Test::Between(a.clone(), b), "a b").await?;
    expect_matches(&fixture, &schema, field, Test::Between(c, a), "").await
}

fn parse_three(field_type: FieldType, texts: [&str; 3]) -> [Value; 3] {
    texts.map(|content| parse(field_type, content))
}

async fn equality_of_booleans(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture
        .table_with_rows(&[
            ("f", vec![("boolean", Value::Boolean(false))]),
            ("n", vec![]),
            ("t", vec![("boolean", Value::Boolean(true))]),
        ])
        .await?;
    expect_matches(&fixture, &schema, "boolean", Test::Eq(Value::Boolean(true)), "t").await?;
    expect_matches(&fixture, &schema, "boolean", Test::Ne(Value::Boolean(true)), "f n").await?;
    expect_matches(&fixture, &schema, "boolean", Test::In(vec![Value::Boolean(false)]), "f").await
}

async fn equality_of_integers(fixture: Fixture) -> Result<(), Failure> {
    expect_equality(fixture, "integer", [i64::MIN, 0, i64::MAX].map(Value::Integer)).await
}

async fn equality_of_floats(fixture: Fixture) -> Result<(), Failure> {
    expect_equality(fixture, "float", [-1e300, 0.1, 1e300].map(Value::Float)).await
}

async fn equality_of_decimals(fixture: Fixture) -> Result<(), Failure> {
    expect_equality(fixture, "decimal", parse_three(FieldType::Decimal, ["-0.3", "0.30", "3"])).await
}

async fn equality_of_text(fixture: Fixture) -> Result<(), Failure> {
    expect_equality(fixture, "text", ["A", "a", "ä"].map(text)).await
}

async fn equality_of_uuids(fixture: Fixture) -> Result<(), Failure> {
    expect_equality(fixture, "uuid", parse_three(FieldType::Uuid, UUIDS)).await
}

async fn equality_of_times(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending_rows(&fixture, "datetime", parse_three(FieldType::DateTime, TIMES)).await?;
    let zoned = parse(FieldType::DateTime, "2026-01-01T02:00:00.5+02:00");
    expect_matches(&fixture, &schema, "datetime", Test::Eq(zoned.clone()), "b").await?;
    expect_matches(&fixture, &schema, "datetime", Test::Ne(zoned), "a c n").await
}

async fn equality_of_dates(fixture: Fixture) -> Result<(), Failure> {
    expect_equality(fixture, "date", parse_three(FieldType::Date, DATES)).await
}

const UUIDS: [&str; 3] = [
    "00000000-0000-7000-8000-00000000000a",
    "0198c0de-0000-7000-8000-000000000000",
    "ffffffff-0000-7000-8000-000000000000",
];
const TIMES: [&str; 3] = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01Z"];
const DATES: [&str; 3] = ["0999-12-31", "2024-02-29", "2024-03-01"];

async fn ne_matches_null(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending_rows(&fixture, "text", ["x", "y", "z"].map(text)).await?;
    expect_matches(&fixture, &schema, "text", Test::Ne(text("absent")), "a b c n").await
}

async fn integers_are_compared_by_value(fixture: Fixture) -> Result<(), Failure> {
    expect_order(fixture, "integer", [-10, 9, 10].map(Value::Integer)).await
}

async fn integers_beyond_2_to_the_53_are_exact(fixture: Fixture) -> Result<(), Failure> {
    expect_order(fixture, "integer", [0, 1, 2].map(|step| Value::Integer((1 << 53) + step))).await
}

async fn floats_are_compared_by_value(fixture: Fixture) -> Result<(), Failure> {
    expect_order(fixture, "float", [-0.5, 0.1, 0.1 + f64::EPSILON].map(Value::Float)).await
}

async fn decimals_are_ordered_by_value(fixture: Fixture) -> Result<(), Failure> {
    expect_order(fixture, "decimal", parse_three(FieldType::Decimal, ["-10", "9.5", "10.25"])).await
}

async fn text_is_ordered_by_bytes(fixture: Fixture) -> Result<(), Failure> {
    expect_order(fixture, "text", ["Z", "a", "é"].map(text)).await
}

async fn uuids_are_compared_by_value(fixture: Fixture) -> Result<(), Failure> {
    expect_order(fixture, "uuid", parse_three(FieldType::Uuid, UUIDS)).await
}

async fn times_of_any_precision_are_compared(fixture: Fixture) -> Result<(), Failure> {
    expect_order(fixture, "datetime", parse_three(FieldType::DateTime, TIMES)).await
}

async fn dates_are_compared_by_value(fixture: Fixture) -> Result<(), Failure> {
    expect_order(fixture, "date", parse_three(FieldType::Date, DATES)).await
}

async fn between_includes_both_bounds(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending_rows(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    expect_matches(
        &fixture,
        &schema,
        "integer",
        Test::Between(Value::Integer(1), Value::Integer(3)),
        "a b c",
    )
    .await?;
    expect_matches(&fixture, &schema, "integer", Test::Between(Value::Integer(2), Value::Integer(2)), "b")
        .await
}

async fn in_matches_any_listed_value(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending_rows(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    expect_matches(&fixture, &schema, "integer", Test::In([3, 1, 1, 9].map(Value::Integer).into()), "a c")
        .await
}

async fn empty_in_matches_no_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending_rows(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    expect_matches(&fixture, &schema, "integer", Test::In(Vec::new()), "").await
}

async fn nin_matches_null(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending_rows(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    expect_matches(&fixture, &schema, "integer", Test::NotIn([1, 2].map(Value::Integer).into()), "c n").await
}

async fn empty_nin_matches_every_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending_rows(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    expect_matches(&fixture, &schema, "integer", Test::NotIn(Vec::new()), "a b c n").await
}

async fn in_works_on_every_type(fixture: Fixture) -> Result<(), Failure> {
    let values = [
        ("boolean", Value::Boolean(true)),
        ("integer", Value::Integer(5)),
        ("float", Value::Float(0.1)),
        ("decimal", parse(FieldType::Decimal, "1.50")),
        ("text", text("a,\"b\"")),
        ("uuid", parse(FieldType::Uuid, UUIDS[1])),
        ("datetime", parse(FieldType::DateTime, TIMES[1])),
        ("date", parse(FieldType::Date, DATES[1])),
    ];
    let schema = fixture.table_with_rows(&[("a", values.to_vec()), ("n", vec![])]).await?;
    for (field, value) in values {
        expect_matches(&fixture, &schema, field, Test::In(vec![value.clone()]), "a").await?;
        expect_matches(&fixture, &schema, field, Test::NotIn(vec![value]), "n").await?;
    }
    Ok(())
}

/// Texts that contain each character with a special meaning in some pattern language.
async fn rows_of_texts(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let texts = [
        ("a", "plain"),
        ("b", "100%"),
        ("c", "snake_case"),
        ("d", "back\\slash"),
        ("e", "it's \"quoted\""),
        ("f", "🦀 crab"),
        ("g", ""),
    ];
    let rows: Vec<_> = texts.iter().map(|(id, content)| (*id, vec![("text", text(content))])).collect();
    let mut rows = rows;
    rows.push(("n", vec![]));
    fixture.table_with_rows(&rows).await
}

fn substring(content: &str) -> String {
    content.to_owned()
}

async fn contains_is_literal_and_case_sensitive(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_texts(&fixture).await?;
    expect_matches(&fixture, &schema, "text", Test::Contains(substring("lai")), "a").await?;
    expect_matches(&fixture, &schema, "text", Test::Contains(substring("LAI")), "").await?;
    expect_matches(&fixture, &schema, "text", Test::Contains(substring("as")), "c d").await
}

async fn percent_is_literal(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_texts(&fixture).await?;
    expect_matches(&fixture, &schema, "text", Test::Contains(substring("%")), "b").await?;
    expect_matches(&fixture, &schema, "text", Test::Starts(substring("%")), "").await?;
    expect_matches(&fixture, &schema, "text", Test::Ends(substring("%")), "b").await
}

async fn underscore_is_literal(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_texts(&fixture).await?;
    expect_matches(&fixture, &schema, "text", Test::Contains(substring("_")), "c").await?;
    expect_matches(&fixture, &schema, "text", Test::Starts(substring("_____")), "").await
}

async fn backslash_is_literal(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_texts(&fixture).await?;
    expect_matches(&fixture, &schema, "text", Test::Contains(substring("\\")), "d").await?;
    expect_matches(&fixture, &schema, "text", Test::Contains(substring("\\%")), "").await
}

async fn quotes_are_literal(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_texts(&fixture).await?;
    expect_matches(&fixture, &schema, "text", Test::Contains(substring("'")), "e").await?;
    expect_matches(&fixture, &schema, "text", Test::Ends(substring("\"")), "e").await
}

async fn starts_is_anchored(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_texts(&fixture).await?;
    expect_matches(&fixture, &schema, "text", Test::Starts(substring("p")), "a").await?;
    expect_matches(&fixture, &schema, "text", Test::Starts(substring("lain")), "").await?;
    expect_matches(&fixture, &schema, "text", Test::Starts(substring("plain and more")), "").await
}

async fn ends_is_anchored(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_texts(&fixture).await?;
    expect_matches(&fixture, &schema, "text", Test::Ends(substring("in")), "a").await?;
    expect_matches(&fixture, &schema, "text", Test::Ends(substring("pla")), "").await?;
    expect_matches(&fixture, &schema, "text", Test::Ends(substring("more than plain")), "").await
}

async fn empty_substring_matches_every_non_null_text(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_texts(&fixture).await?;
    for test in [Test::Contains(substring("")), Test::Starts(substring("")), Test::Ends(substring(""))] {
        expect_matches(&fixture, &schema, "text", test, "a b c d e f g").await?;
    }
    Ok(())
}

async fn text_tests_match_whole_characters(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_texts(&fixture).await?;
    expect_matches(&fixture, &schema, "text", Test::Starts(substring("🦀")), "f").await?;
    expect_matches(&fixture, &schema, "text", Test::Contains(substring("🦀 c")), "f").await?;
    expect_matches(&fixture, &schema, "text", Test::Starts(substring("🦁")), "").await
}

async fn is_null_works_on_every_type(fixture: Fixture) -> Result<(), Failure> {
    let values = vec![
        ("boolean", Value::Boolean(false)),
        ("integer", Value::Integer(0)),
        ("float", Value::Float(0.0)),
        ("decimal", parse(FieldType::Decimal, "0")),
        ("text", text("")),
        ("uuid", parse(FieldType::Uuid, UUIDS[0])),
        ("datetime", parse(FieldType::DateTime, TIMES[0])),
        ("date", parse(FieldType::Date, DATES[0])),
        ("json", Value::Json(serde_json::json!({}))),
        ("array", Value::Array(Vec::new())),
    ];
    let schema = fixture.table_with_rows(&[("a", values.clone()), ("n", vec![])]).await?;
    for (field, _) in values {
        expect_matches(&fixture, &schema, field, Test::IsNull(true), "n").await?;
        expect_matches(&fixture, &schema, field, Test::IsNull(false), "a").await?;
    }
    Ok(())
}

async fn rows_of_arrays(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let list = |items: &[&str]| vec![("array", Value::Array(items.iter().map(|item| text(item)).collect()))];
    fixture
        .table_with_rows(&[("a", list(&["x", "y,z"])), ("b", list(&["y"])), ("c", list(&[])), ("n", vec![])])
        .await
}

async fn has_matches_array_element(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_arrays(&fixture).await?;
    expect_matches(&fixture, &schema, "array", Test::Has(text("y")), "b").await?;
    expect_matches(&fixture, &schema, "array", Test::Has(text("y,z")), "a").await?;
    let field = position(&schema, "array");
    let not = Filter::Not(Box::new(Filter::Compare(field, Test::Has(text("y")))));
    fixture.expect_ids(&schema, not, "a c n").await
}

async fn overlaps_matches_any_element(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_arrays(&fixture).await?;
    expect_matches(&fixture, &schema, "array", Test::Overlaps(vec![text("x"), text("y")]), "a b").await?;
    expect_matches(&fixture, &schema, "array", Test::Overlaps(Vec::new()), "").await
}

async fn duplicate_array_elements_return_row_once(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows_of_arrays(&fixture).await?;
    let twice = Value::Array(vec![text("x"), text("x"), text("y")]);
    fixture.insert(&schema, &row_values(&schema, "d", &[("array", twice)])).await?;
    let field = position(&schema, "array");
    for test in [Test::Has(text("x")), Test::Overlaps(vec![text("x"), text("y"), text("x")])] {
        for descending in [false, true] {
            let mut query = Query::all(schema.clone());
            query.filter = Filter::Compare(field, test.clone());
            query.sort = vec![Sort { field: 0, descending }];
            let mut ids = fixture.fetch_ids(&query).await?;
            ids.sort();
            let expected = if matches!(test, Test::Has(_)) { "a d" } else { "a b d" };
            expect_eq("rows", &ids.join(" "), &expected.to_owned())?;
        }
    }
    Ok(())
}

async fn integer_arrays_match_has_and_overlaps(fixture: Fixture) -> Result<(), Failure> {
    let list =
        |items: &[i64]| vec![("numbers", Value::Array(items.iter().copied().map(Value::Integer).collect()))];
    let schema = fixture.table_with_rows(&[("a", list(&[1, i64::MAX])), ("b", list(&[11]))]).await?;
    expect_matches(&fixture, &schema, "numbers", Test::Has(Value::Integer(1)), "a").await?;
    expect_matches(&fixture, &schema, "numbers", Test::Overlaps(vec![Value::Integer(i64::MAX)]), "a").await
}
