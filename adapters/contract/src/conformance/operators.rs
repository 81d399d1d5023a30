//! Conformance cases of each operator on each type, with one row that holds null.

use std::sync::Arc;

use super::fixture::{Fixture, parse, position, row, text};
use super::{Case, Failure, named, same};
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
    ne_takes_nulls,
    integers_have_an_order,
    neighbours_beyond_2_to_the_53_are_told_apart,
    floats_have_an_order,
    decimals_are_ordered_by_value,
    text_is_ordered_by_bytes,
    uuids_have_an_order,
    times_are_ordered_whatever_their_precision,
    dates_have_an_order,
    between_takes_both_ends,
    in_takes_any_of_a_list,
    in_with_nothing_matches_nothing,
    nin_takes_nulls,
    nin_with_nothing_matches_everything,
    in_works_on_every_type,
    contains_is_literal_and_case_sensitive,
    percent_is_literal,
    underscore_is_literal,
    backslash_is_literal,
    quotes_are_literal,
    starts_is_anchored,
    ends_is_anchored,
    empty_parts_match_every_text_and_no_null,
    text_tests_see_whole_characters,
    null_is_found_in_every_type,
    arrays_are_tested_for_an_element,
    arrays_are_tested_for_any_of_several_elements,
    an_element_that_is_there_twice_selects_its_row_once,
    arrays_of_integers_are_tested,
];

/// Rows `a`, `b`, `c` with ascending values of a field, and `n` with null.
async fn ascending(fixture: &Fixture, field: &str, values: [Value; 3]) -> Result<Arc<Schema>, Failure> {
    let [a, b, c] = values;
    fixture
        .rows(&[("a", vec![(field, a)]), ("b", vec![(field, b)]), ("c", vec![(field, c)]), ("n", vec![])])
        .await
}

async fn selects(
    fixture: &Fixture,
    schema: &Arc<Schema>,
    field: &str,
    test: Test,
    ids: &str,
) -> Result<(), Failure> {
    fixture.selects(schema, Filter::Compare(position(schema, field), test), ids).await
}

/// Checks equality and its negation.
async fn equality(fixture: Fixture, field: &str, values: [Value; 3]) -> Result<(), Failure> {
    let schema = ascending(&fixture, field, values.clone()).await?;
    let [a, b, _] = values;
    selects(&fixture, &schema, field, Test::Eq(b.clone()), "b").await?;
    selects(&fixture, &schema, field, Test::Ne(b), "a c n").await?;
    selects(&fixture, &schema, field, Test::Eq(a), "a").await
}

/// Checks all comparisons.
async fn order(fixture: Fixture, field: &str, values: [Value; 3]) -> Result<(), Failure> {
    let schema = ascending(&fixture, field, values.clone()).await?;
    let [a, b, c] = values;
    selects(&fixture, &schema, field, Test::Gt(b.clone()), "c").await?;
    selects(&fixture, &schema, field, Test::Gte(b.clone()), "b c").await?;
    selects(&fixture, &schema, field, Test::Lt(b.clone()), "a").await?;
    selects(&fixture, &schema, field, Test::Lte(b.clone()), "a b").await?;
    selects(&fixture, &schema, field, Test::Between(a.clone(), b), "a b").await?;
    selects(&fixture, &schema, field, Test::Between(c, a), "").await
}

fn three(field_type: FieldType, texts: [&str; 3]) -> [Value; 3] {
    texts.map(|content| parse(field_type, content))
}

async fn equality_of_booleans(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture
        .rows(&[
            ("f", vec![("boolean", Value::Boolean(false))]),
            ("n", vec![]),
            ("t", vec![("boolean", Value::Boolean(true))]),
        ])
        .await?;
    selects(&fixture, &schema, "boolean", Test::Eq(Value::Boolean(true)), "t").await?;
    selects(&fixture, &schema, "boolean", Test::Ne(Value::Boolean(true)), "f n").await?;
    selects(&fixture, &schema, "boolean", Test::In(vec![Value::Boolean(false)]), "f").await
}

async fn equality_of_integers(fixture: Fixture) -> Result<(), Failure> {
    equality(fixture, "integer", [i64::MIN, 0, i64::MAX].map(Value::Integer)).await
}

async fn equality_of_floats(fixture: Fixture) -> Result<(), Failure> {
    equality(fixture, "float", [-1e300, 0.1, 1e300].map(Value::Float)).await
}

async fn equality_of_decimals(fixture: Fixture) -> Result<(), Failure> {
    equality(fixture, "decimal", three(FieldType::Decimal, ["-0.3", "0.30", "3"])).await
}

async fn equality_of_text(fixture: Fixture) -> Result<(), Failure> {
    equality(fixture, "text", ["A", "a", "ä"].map(text)).await
}

async fn equality_of_uuids(fixture: Fixture) -> Result<(), Failure> {
    equality(fixture, "uuid", three(FieldType::Uuid, UUIDS)).await
}

async fn equality_of_times(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending(&fixture, "datetime", three(FieldType::DateTime, TIMES)).await?;
    let zoned = parse(FieldType::DateTime, "2026-01-01T02:00:00.5+02:00");
    selects(&fixture, &schema, "datetime", Test::Eq(zoned.clone()), "b").await?;
    selects(&fixture, &schema, "datetime", Test::Ne(zoned), "a c n").await
}

async fn equality_of_dates(fixture: Fixture) -> Result<(), Failure> {
    equality(fixture, "date", three(FieldType::Date, DATES)).await
}

const UUIDS: [&str; 3] = [
    "00000000-0000-7000-8000-00000000000a",
    "0198c0de-0000-7000-8000-000000000000",
    "ffffffff-0000-7000-8000-000000000000",
];
const TIMES: [&str; 3] = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01Z"];
const DATES: [&str; 3] = ["0999-12-31", "2024-02-29", "2024-03-01"];

async fn ne_takes_nulls(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending(&fixture, "text", ["x", "y", "z"].map(text)).await?;
    selects(&fixture, &schema, "text", Test::Ne(text("absent")), "a b c n").await
}

async fn integers_have_an_order(fixture: Fixture) -> Result<(), Failure> {
    order(fixture, "integer", [-10, 9, 10].map(Value::Integer)).await
}

async fn neighbours_beyond_2_to_the_53_are_told_apart(fixture: Fixture) -> Result<(), Failure> {
    order(fixture, "integer", [0, 1, 2].map(|step| Value::Integer((1 << 53) + step))).await
}

async fn floats_have_an_order(fixture: Fixture) -> Result<(), Failure> {
    order(fixture, "float", [-0.5, 0.1, 0.1 + f64::EPSILON].map(Value::Float)).await
}

async fn decimals_are_ordered_by_value(fixture: Fixture) -> Result<(), Failure> {
    order(fixture, "decimal", three(FieldType::Decimal, ["-10", "9.5", "10.25"])).await
}

async fn text_is_ordered_by_bytes(fixture: Fixture) -> Result<(), Failure> {
    order(fixture, "text", ["Z", "a", "é"].map(text)).await
}

async fn uuids_have_an_order(fixture: Fixture) -> Result<(), Failure> {
    order(fixture, "uuid", three(FieldType::Uuid, UUIDS)).await
}

async fn times_are_ordered_whatever_their_precision(fixture: Fixture) -> Result<(), Failure> {
    order(fixture, "datetime", three(FieldType::DateTime, TIMES)).await
}

async fn dates_have_an_order(fixture: Fixture) -> Result<(), Failure> {
    order(fixture, "date", three(FieldType::Date, DATES)).await
}

async fn between_takes_both_ends(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    selects(&fixture, &schema, "integer", Test::Between(Value::Integer(1), Value::Integer(3)), "a b c")
        .await?;
    selects(&fixture, &schema, "integer", Test::Between(Value::Integer(2), Value::Integer(2)), "b").await
}

async fn in_takes_any_of_a_list(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    selects(&fixture, &schema, "integer", Test::In([3, 1, 1, 9].map(Value::Integer).into()), "a c").await
}

async fn in_with_nothing_matches_nothing(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    selects(&fixture, &schema, "integer", Test::In(Vec::new()), "").await
}

async fn nin_takes_nulls(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    selects(&fixture, &schema, "integer", Test::NotIn([1, 2].map(Value::Integer).into()), "c n").await
}

async fn nin_with_nothing_matches_everything(fixture: Fixture) -> Result<(), Failure> {
    let schema = ascending(&fixture, "integer", [1, 2, 3].map(Value::Integer)).await?;
    selects(&fixture, &schema, "integer", Test::NotIn(Vec::new()), "a b c n").await
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
    let schema = fixture.rows(&[("a", values.to_vec()), ("n", vec![])]).await?;
    for (field, value) in values {
        selects(&fixture, &schema, field, Test::In(vec![value.clone()]), "a").await?;
        selects(&fixture, &schema, field, Test::NotIn(vec![value]), "n").await?;
    }
    Ok(())
}

/// Texts that contain each character with a special meaning in some pattern language.
async fn texts(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
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
    fixture.rows(&rows).await
}

fn part(content: &str) -> String {
    content.to_owned()
}

async fn contains_is_literal_and_case_sensitive(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture).await?;
    selects(&fixture, &schema, "text", Test::Contains(part("lai")), "a").await?;
    selects(&fixture, &schema, "text", Test::Contains(part("LAI")), "").await?;
    selects(&fixture, &schema, "text", Test::Contains(part("as")), "c d").await
}

async fn percent_is_literal(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture).await?;
    selects(&fixture, &schema, "text", Test::Contains(part("%")), "b").await?;
    selects(&fixture, &schema, "text", Test::Starts(part("%")), "").await?;
    selects(&fixture, &schema, "text", Test::Ends(part("%")), "b").await
}

async fn underscore_is_literal(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture).await?;
    selects(&fixture, &schema, "text", Test::Contains(part("_")), "c").await?;
    selects(&fixture, &schema, "text", Test::Starts(part("_____")), "").await
}

async fn backslash_is_literal(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture).await?;
    selects(&fixture, &schema, "text", Test::Contains(part("\\")), "d").await?;
    selects(&fixture, &schema, "text", Test::Contains(part("\\%")), "").await
}

async fn quotes_are_literal(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture).await?;
    selects(&fixture, &schema, "text", Test::Contains(part("'")), "e").await?;
    selects(&fixture, &schema, "text", Test::Ends(part("\"")), "e").await
}

async fn starts_is_anchored(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture).await?;
    selects(&fixture, &schema, "text", Test::Starts(part("p")), "a").await?;
    selects(&fixture, &schema, "text", Test::Starts(part("lain")), "").await?;
    selects(&fixture, &schema, "text", Test::Starts(part("plain and more")), "").await
}

async fn ends_is_anchored(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture).await?;
    selects(&fixture, &schema, "text", Test::Ends(part("in")), "a").await?;
    selects(&fixture, &schema, "text", Test::Ends(part("pla")), "").await?;
    selects(&fixture, &schema, "text", Test::Ends(part("more than plain")), "").await
}

async fn empty_parts_match_every_text_and_no_null(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture).await?;
    for test in [Test::Contains(part("")), Test::Starts(part("")), Test::Ends(part(""))] {
        selects(&fixture, &schema, "text", test, "a b c d e f g").await?;
    }
    Ok(())
}

async fn text_tests_see_whole_characters(fixture: Fixture) -> Result<(), Failure> {
    let schema = texts(&fixture).await?;
    selects(&fixture, &schema, "text", Test::Starts(part("🦀")), "f").await?;
    selects(&fixture, &schema, "text", Test::Contains(part("🦀 c")), "f").await?;
    selects(&fixture, &schema, "text", Test::Starts(part("🦁")), "").await
}

async fn null_is_found_in_every_type(fixture: Fixture) -> Result<(), Failure> {
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
    let schema = fixture.rows(&[("a", values.clone()), ("n", vec![])]).await?;
    for (field, _) in values {
        selects(&fixture, &schema, field, Test::IsNull(true), "n").await?;
        selects(&fixture, &schema, field, Test::IsNull(false), "a").await?;
    }
    Ok(())
}

async fn arrays(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let list = |items: &[&str]| vec![("array", Value::Array(items.iter().map(|item| text(item)).collect()))];
    fixture.rows(&[("a", list(&["x", "y,z"])), ("b", list(&["y"])), ("c", list(&[])), ("n", vec![])]).await
}

async fn arrays_are_tested_for_an_element(fixture: Fixture) -> Result<(), Failure> {
    let schema = arrays(&fixture).await?;
    selects(&fixture, &schema, "array", Test::Has(text("y")), "b").await?;
    selects(&fixture, &schema, "array", Test::Has(text("y,z")), "a").await?;
    let field = position(&schema, "array");
    let not = Filter::Not(Box::new(Filter::Compare(field, Test::Has(text("y")))));
    fixture.selects(&schema, not, "a c n").await
}

async fn arrays_are_tested_for_any_of_several_elements(fixture: Fixture) -> Result<(), Failure> {
    let schema = arrays(&fixture).await?;
    selects(&fixture, &schema, "array", Test::Overlaps(vec![text("x"), text("y")]), "a b").await?;
    selects(&fixture, &schema, "array", Test::Overlaps(Vec::new()), "").await
}

async fn an_element_that_is_there_twice_selects_its_row_once(fixture: Fixture) -> Result<(), Failure> {
    let schema = arrays(&fixture).await?;
    let twice = Value::Array(vec![text("x"), text("x"), text("y")]);
    fixture.insert(&schema, &row(&schema, "d", &[("array", twice)])).await?;
    let field = position(&schema, "array");
    for test in [Test::Has(text("x")), Test::Overlaps(vec![text("x"), text("y"), text("x")])] {
        for descending in [false, true] {
            let mut query = Query::all(schema.clone());
            query.filter = Filter::Compare(field, test.clone());
            query.sort = vec![Sort { field: 0, descending }];
            let mut ids = fixture.ids(&query).await?;
            ids.sort();
            let expected = if matches!(test, Test::Has(_)) { "a d" } else { "a b d" };
            same("rows", &ids.join(" "), &expected.to_owned())?;
        }
    }
    Ok(())
}

async fn arrays_of_integers_are_tested(fixture: Fixture) -> Result<(), Failure> {
    let list =
        |items: &[i64]| vec![("numbers", Value::Array(items.iter().copied().map(Value::Integer).collect()))];
    let schema = fixture.rows(&[("a", list(&[1, i64::MAX])), ("b", list(&[11]))]).await?;
    selects(&fixture, &schema, "numbers", Test::Has(Value::Integer(1)), "a").await?;
    selects(&fixture, &schema, "numbers", Test::Overlaps(vec![Value::Integer(i64::MAX)]), "a").await
}
