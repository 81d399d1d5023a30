//! Conformance cases of types: values of every type round-trip, with the same JSON on every storage.

use serde_json::{Value as Json, json};

use super::fixture::{Fixture, parse, text};
use super::{Case, Failure, expect_eq, named};
use crate::{FieldType, Query, Value};

pub(super) const CASES: &[Case] = named![
    nulls_of_every_type_round_trip,
    booleans_round_trip,
    integers_of_64_bits_round_trip,
    floats_round_trip_exactly,
    decimals_round_trip_without_trailing_zeros,
    text_of_every_script_round_trips,
    text_with_every_escape_round_trips,
    long_text_round_trips,
    uuids_round_trip,
    times_are_returned_in_utc_microseconds,
    dates_round_trip,
    objects_round_trip,
    arrays_round_trip,
    row_json_is_exact,
];

/// Stores one value after another and checks what the write and a read return.
async fn expect_round_trip(fixture: Fixture, field: &str, values: Vec<(Value, Json)>) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[]).await?;
    for (number, (value, expected)) in values.into_iter().enumerate() {
        let id = format!("row{number}");
        let row = super::fixture::row_values(&schema, &id, &[(field, value.clone())]);
        let written = fixture.insert(&schema, &row).await?;
        let returned: Json =
            serde_json::from_slice(&written.json).map_err(|error| Failure::new(error.to_string()))?;
        expect_eq(&format!("{value:?} as written"), &returned[field], &expected)?;
        let mut query = Query::one(schema.clone(), text(&id));
        query.keys = vec![super::fixture::position(&schema, field)];
        let (rows, read) = fixture.fetch(&query).await?;
        expect_eq(&format!("{value:?} as read"), &read[0], &returned)?;
        expect_eq("its key", &rows.keys, &vec![vec![value]])?;
    }
    Ok(())
}

async fn nulls_of_every_type_round_trip(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[("a", vec![])]).await?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    let nulls = rows[0].as_object().map(|row| row.values().filter(|value| value.is_null()).count());
    expect_eq("null fields", &nulls, &Some(11))
}

async fn booleans_round_trip(fixture: Fixture) -> Result<(), Failure> {
    let values = [true, false].map(|flag| (Value::Boolean(flag), json!(flag)));
    expect_round_trip(fixture, "boolean", values.into()).await
}

async fn integers_of_64_bits_round_trip(fixture: Fixture) -> Result<(), Failure> {
    let numbers = [0, -1, i64::MIN, i64::MAX, (1 << 53) + 1, -(1 << 53) - 1];
    expect_round_trip(
        fixture,
        "integer",
        numbers.map(|number| (Value::Integer(number), json!(number))).into(),
    )
    .await
}

async fn floats_round_trip_exactly(fixture: Fixture) -> Result<(), Failure> {
    let numbers = [0.0, 0.1, 0.1 + 0.2, -1.5, 1e300, 5e-324, f64::MAX, 1.0 / 3.0, 123_456_789.123_456_79];
    expect_round_trip(fixture, "float", numbers.map(|number| (Value::Float(number), json!(number))).into())
        .await
}

async fn decimals_round_trip_without_trailing_zeros(fixture: Fixture) -> Result<(), Failure> {
    let literals = [
        ("0", "0"),
        ("0.10", "0.1"),
        ("-12.345", "-12.345"),
        ("100", "100"),
        ("9999999999999999999999999999", "9999999999999999999999999999"),
        ("0.0000000000000000000000000001", "0.0000000000000000000000000001"),
    ];
    let values = literals.map(|(given, found)| (parse(FieldType::Decimal, given), json!(found)));
    expect_round_trip(fixture, "decimal", values.into()).await
}

async fn text_of_every_script_round_trips(fixture: Fixture) -> Result<(), Failure> {
    let texts =
        ["", " ", "Żółć", "名前", "🦀👩‍👩‍👧", "e\u{301}", "\u{202e}right to left", "NULL", "00123", "\u{10ffff}"];
    expect_round_trip(fixture, "text", texts.map(|content| (text(content), json!(content))).into()).await
}

async fn text_with_every_escape_round_trips(fixture: Fixture) -> Result<(), Failure> {
    let controls: String = (1..=0x20_u8).map(char::from).collect();
    let texts = ["\"", "\\", "'", "''", "%", "_", "\\%", "a\nb\tc\r", "{\"a\": 1}", "\u{7f}", &controls];
    expect_round_trip(fixture, "text", texts.map(|content| (text(content), json!(content))).into()).await
}

async fn long_text_round_trips(fixture: Fixture) -> Result<(), Failure> {
    let long = "🦀".repeat(50_000);
    expect_round_trip(fixture, "text", vec![(text(&long), json!(long))]).await
}

async fn uuids_round_trip(fixture: Fixture) -> Result<(), Failure> {
    let ids = ["00000000-0000-0000-0000-000000000000", "0198c0de-0000-7000-8000-00000000000a"];
    expect_round_trip(fixture, "uuid", ids.map(|id| (parse(FieldType::Uuid, id), json!(id))).into()).await
}

async fn times_are_returned_in_utc_microseconds(fixture: Fixture) -> Result<(), Failure> {
    let literals = [
        ("2026-11-21T05:00:00Z", "2026-11-21T05:00:00Z"),
        ("2026-11-21T05:00:00.5Z", "2026-11-21T05:00:00.500Z"),
        ("2026-11-21T05:00:00.123456789Z", "2026-11-21T05:00:00.123456Z"),
        ("2026-11-21T05:00:00+05:30", "2026-11-20T23:30:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ];
    let values = literals.map(|(given, found)| (parse(FieldType::DateTime, given), json!(found)));
    expect_round_trip(fixture, "datetime", values.into()).await
}

async fn dates_round_trip(fixture: Fixture) -> Result<(), Failure> {
    let days = ["2024-02-29", "0001-01-01", "9999-12-31", "1969-12-31"];
    expect_round_trip(fixture, "date", days.map(|day| (parse(FieldType::Date, day), json!(day))).into()).await
}

async fn objects_round_trip(fixture: Fixture) -> Result<(), Failure> {
    let objects = [
        json!({}),
        json!({"a": null, "b": [1, "two", {"c": true}], "ü": "🦀\"\\", "n": 0.1}),
        json!([1, 2, 3]),
        json!("text"),
        json!(true),
    ];
    expect_round_trip(fixture, "json", objects.map(|object| (Value::Json(object.clone()), object)).into())
        .await
}

async fn arrays_round_trip(fixture: Fixture) -> Result<(), Failure> {
    let arrays = [vec![], vec!["a"], vec!["a", "b,c", "\"", "{}", "", "NULL", "🦀"]];
    let values =
        arrays.map(|items| (Value::Array(items.iter().map(|item| text(item)).collect()), json!(items)));
    expect_round_trip(fixture, "array", values.into()).await
}

async fn row_json_is_exact(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture
        .table_with_rows(&[(
            "a",
            vec![
                ("boolean", Value::Boolean(true)),
                ("integer", Value::Integer(-7)),
                ("float", Value::Float(2.0)),
                ("decimal", parse(FieldType::Decimal, "1.50")),
                ("text", text("\u{1}\"é\n")),
                ("datetime", parse(FieldType::DateTime, "2026-11-21T05:00:00.25Z")),
                ("date", parse(FieldType::Date, "2026-11-21")),
                ("array", Value::Array(vec![text("x")])),
                ("numbers", Value::Array(vec![Value::Integer(1)])),
            ],
        )])
        .await?;
    let mut out = Vec::new();
    fixture.storage.fetch(&Query::all(schema), &mut out).await?;
    let expected = "{\"id\":\"a\",\"boolean\":true,\"integer\":-7,\"float\":2.0,\"decimal\":\"1.5\",\
                    \"text\":\"\\u0001\\\"é\\n\",\"uuid\":null,\"datetime\":\"2026-11-21T05:00:00.250Z\",\
                    \"date\":\"2026-11-21\",\"json\":null,\"array\":[\"x\"],\"version\":1,\"numbers\":[1]}";
    expect_eq("the row", &String::from_utf8_lossy(&out).into_owned(), &expected.to_owned())
}
