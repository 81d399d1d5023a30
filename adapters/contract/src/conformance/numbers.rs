//! Conformance cases of numbers: they round-trip exactly, in their shortest form, and filters find them.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::fixture::{Fixture, parse, position, text};
use super::{Case, Failure, expect_eq, named};
use crate::{Field, FieldType, Filter, IdSource, Query, ScalarType, Schema, Sort, Test, Value};

pub(super) const CASES: &[Case] = named![
    float32_round_trips_in_shortest_form,
    float32_is_sorted_and_compared,
    float32_arrays_round_trip_and_match,
    decimals_of_every_scale_round_trip,
    doubles_round_trip_in_shortest_form,
    json_numbers_have_canonical_form,
];

/// A table with a nullable field `number` of this type, and these values in rows `a`, `b` ….
async fn numbers_table(
    fixture: &Fixture,
    field_type: FieldType,
    values: &[Value],
) -> Result<Arc<Schema>, Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("number", field_type).nullable()];
    let schema = fixture.create_table("numbers", fields, IdSource::Client, |_| {}).await?;
    for (value, id) in values.iter().zip('a'..) {
        fixture.insert(&schema, &[text(&id.to_string()), value.clone()]).await?;
    }
    Ok(schema)
}

/// Parses each number, stores it, and expects the same number in the response, as a key, and by a filter.
async fn expect_round_trip(
    fixture: &Fixture,
    field_type: FieldType,
    literals: &[(&str, &str)],
) -> Result<Arc<Schema>, Failure> {
    let values: Vec<_> = literals.iter().map(|(literal, _)| parse(field_type, literal)).collect();
    let schema = numbers_table(fixture, field_type, &values).await?;
    let number = position(&schema, "number");
    for ((value, (_, expected)), id) in values.into_iter().zip(literals).zip('a'..) {
        let mut query = Query::all(schema.clone());
        for test in [
            Test::Eq(value.clone()),
            Test::In(vec![value.clone()]),
            Test::Between(value.clone(), value.clone()),
        ] {
            query.filter = Filter::Compare(number, test);
            query.keys = vec![number];
            let mut out = Vec::new();
            let rows = fixture.storage.fetch(&query, &mut out).await?;
            let row = format!("{{\"id\":\"{id}\",\"number\":{expected}}}");
            expect_eq("the row", &String::from_utf8_lossy(&out).into_owned(), &row)?;
            expect_eq("its key", &rows.keys, &vec![vec![value.clone()]])?;
        }
    }
    Ok(schema)
}

const SINGLES: &[(&str, &str)] = &[
    ("-3.4028235e38", "-3.4028235e38"),
    ("-0.1", "-0.1"),
    ("0", "0.0"),
    ("1e-45", "1e-45"),
    ("0.1", "0.1"),
    ("0.2", "0.2"),
    ("0.3", "0.3"),
    ("3.1415927", "3.1415927"),
    ("16777216", "16777216.0"),
    ("3.4028235e38", "3.4028235e38"),
];

async fn float32_round_trips_in_shortest_form(fixture: Fixture) -> Result<(), Failure> {
    expect_round_trip(&fixture, FieldType::Float32, SINGLES).await.map(drop)
}

async fn float32_is_sorted_and_compared(fixture: Fixture) -> Result<(), Failure> {
    let schema = expect_round_trip(&fixture, FieldType::Float32, SINGLES).await?;
    let number = position(&schema, "number");
    let mut query = Query::all(schema);
    query.sort = vec![Sort { field: number, descending: false }, Sort::ascending(0)];
    expect_eq("the order", &fixture.fetch_ids(&query).await?.join(""), &"abcdefghij".to_owned())?;
    for (test, ids) in [
        (Test::Gt(Value::Float32(0.1)), "fghij"),
        (Test::Gte(Value::Float32(0.1)), "efghij"),
        (Test::Lt(Value::Float32(0.1)), "abcd"),
        (Test::Between(Value::Float32(0.1), Value::Float32(0.3)), "efg"),
        (Test::In(vec![Value::Float32(0.2), Value::Float32(0.4)]), "f"),
        (Test::NotIn(vec![Value::Float32(0.2)]), "abcdeghij"),
        (Test::Ne(Value::Float32(0.3)), "abcdefhij"),
    ] {
        query.filter = Filter::Compare(number, test);
        expect_eq("rows", &fixture.fetch_ids(&query).await?.join(""), &ids.to_owned())?;
    }
    query.filter = Filter::everything();
    query.position = crate::Position::After(vec![Value::Float32(0.2), text("f")]);
    expect_eq("the page behind a key", &fixture.fetch_ids(&query).await?.join(""), &"ghij".to_owned())
}

async fn float32_arrays_round_trip_and_match(fixture: Fixture) -> Result<(), Failure> {
    let list = |items: &[f32]| Value::Array(items.iter().copied().map(Value::Float32).collect());
    let values = [list(&[0.1, 0.2]), list(&[]), list(&[0.3])];
    let schema = numbers_table(&fixture, FieldType::Array(ScalarType::Float32), &values).await?;
    let (_, rows) = fixture.fetch(&Query::all(schema.clone())).await?;
    expect_eq("an array", &rows[0]["number"].to_string(), &"[0.1,0.2]".to_owned())?;
    let number = position(&schema, "number");
    fixture.expect_ids(&schema, Filter::Compare(number, Test::Has(Value::Float32(0.2))), "a").await?;
    let some = Test::Overlaps(vec![Value::Float32(0.1), Value::Float32(0.3)]);
    fixture.expect_ids(&schema, Filter::Compare(number, some), "a c").await
}

async fn decimals_of_every_scale_round_trip(fixture: Fixture) -> Result<(), Failure> {
    let literal = [
        ("1234567890123456.789", "\"1234567890123456.789\""),
        ("1234567890.123456789012345678", "\"1234567890.123456789012345678\""),
        ("-9999999999999999999999999999", "\"-9999999999999999999999999999\""),
        ("1e-28", "\"0.0000000000000000000000000001\""),
        ("1e28", "\"10000000000000000000000000000\""),
        ("0.1000", "\"0.1\""),
        ("-0.0", "\"0\""),
    ];
    expect_round_trip(&fixture, FieldType::Decimal, &literal).await.map(drop)
}

async fn doubles_round_trip_in_shortest_form(fixture: Fixture) -> Result<(), Failure> {
    let literal = [
        ("0.1", "0.1"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e308"),
        ("9007199254740992", "9007199254740992.0"),
        ("1e16", "1e16"),
        ("-0.0", "0.0"),
    ];
    expect_round_trip(&fixture, FieldType::Float, &literal).await.map(drop)
}

async fn json_numbers_have_canonical_form(fixture: Fixture) -> Result<(), Failure> {
    let documents = [
        (json!(1e16), "10000000000000000"),
        (json!([2.0, -0.0, 0.5, 1e-5, 1.5e-7, 100.25]), "[2,0,0.5,0.00001,1.5e-7,100.25]"),
        (json!({"n": 1e19}), "{\"n\":10000000000000000000}"),
        (
            json!([i64::MIN, i64::MAX, u64::MAX]),
            "[-9223372036854775808,9223372036854775807,18446744073709551615]",
        ),
        (json!([1e20, 1.2345678901234568e25]), ""),
        (json!([1e300, -1e300, 1e-300, 5e-324, f64::MAX, f64::MIN_POSITIVE]), ""),
        (json!("0.00000 and 12345678901234567890"), ""),
    ];
    let read = |json: &Json| FieldType::Json.read_json(json).unwrap_or(Value::Null);
    let values: Vec<_> = documents.iter().map(|(json, _)| read(json)).collect();
    let schema = numbers_table(&fixture, FieldType::Json, &values).await?;
    for ((value, (given, literal)), id) in values.iter().zip(&documents).zip('a'..) {
        let mut out = Vec::new();
        let query = Query { fields: vec![1], ..Query::one(schema.clone(), text(&id.to_string())) };
        fixture.storage.fetch(&query, &mut out).await?;
        let Value::Json(stored) = value else { return Err(Failure::new("a document is JSON")) };
        let expected = format!("{{\"number\":{stored}}}");
        expect_eq("a document", &String::from_utf8_lossy(&out).into_owned(), &expected)?;
        if !literal.is_empty() {
            let given = Json::to_string(given);
            let found: Json =
                serde_json::from_slice(&out).map_err(|error| Failure::new(error.to_string()))?;
            let expected: Json =
                serde_json::from_str(literal).map_err(|error| Failure::new(error.to_string()))?;
            expect_eq(&given, &found["number"], &expected)?;
        }
    }
    Ok(())
}
