//! Conformance cases of types: values of every type round-trip, with the same JSON on every storage.

use serde_json::{Value as Json, json};

use super::fixture::{Fixture, parse, text};
use super::{Case, Failure, named, same};
use crate::{FieldType, Query, Value};

pub(super) const CASES: &[Case] = named![
    nulls_of_every_type_come_back,
    booleans_come_back,
    integers_of_64_bits_come_back,
    floats_come_back_exactly,
    decimals_come_back_exactly_without_trailing_zeros,
    text_of_every_script_comes_back,
    text_with_every_escape_comes_back,
    long_text_comes_back,
    uuids_come_back,
    times_come_back_in_utc_to_the_microsecond,
    dates_come_back,
    objects_come_back,
    arrays_come_back,
    a_row_is_spelled_byte_for_byte,
];

/// Stores one value after another and checks what the write and a read return.
async fn comes_back(fixture: Fixture, field: &str, values: Vec<(Value, Json)>) -> Result<(), Failure> {
    let schema = fixture.rows(&[]).await?;
    for (number, (value, expected)) in values.into_iter().enumerate() {
        let id = format!("row{number}");
        let row = super::fixture::row(&schema, &id, &[(field, value.clone())]);
        let written = fixture.insert(&schema, &row).await?;
        let answered: Json =
            serde_json::from_slice(&written.json).map_err(|error| Failure::new(error.to_string()))?;
        same(&format!("{value:?} as written"), &answered[field], &expected)?;
        let mut query = Query::one(schema.clone(), text(&id));
        query.keys = vec![super::fixture::position(&schema, field)];
        let (rows, read) = fixture.fetch(&query).await?;
        same(&format!("{value:?} as read"), &read[0], &answered)?;
        same("its key", &rows.keys, &vec![vec![value]])?;
    }
    Ok(())
}

async fn nulls_of_every_type_come_back(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.rows(&[("a", vec![])]).await?;
    let (_, rows) = fixture.fetch(&Query::all(schema)).await?;
    let nulls = rows[0].as_object().map(|row| row.values().filter(|value| value.is_null()).count());
    same("null fields", &nulls, &Some(11))
}

async fn booleans_come_back(fixture: Fixture) -> Result<(), Failure> {
    let values = [true, false].map(|flag| (Value::Boolean(flag), json!(flag)));
    comes_back(fixture, "boolean", values.into()).await
}

async fn integers_of_64_bits_come_back(fixture: Fixture) -> Result<(), Failure> {
    let numbers = [0, -1, i64::MIN, i64::MAX, (1 << 53) + 1, -(1 << 53) - 1];
    comes_back(fixture, "integer", numbers.map(|number| (Value::Integer(number), json!(number))).into()).await
}

async fn floats_come_back_exactly(fixture: Fixture) -> Result<(), Failure> {
    let numbers = [0.0, 0.1, 0.1 + 0.2, -1.5, 1e300, 5e-324, f64::MAX, 1.0 / 3.0, 123_456_789.123_456_79];
    comes_back(fixture, "float", numbers.map(|number| (Value::Float(number), json!(number))).into()).await
}

async fn decimals_come_back_exactly_without_trailing_zeros(fixture: Fixture) -> Result<(), Failure> {
    let spelled = [
        ("0", "0"),
        ("0.10", "0.1"),
        ("-12.345", "-12.345"),
        ("100", "100"),
        ("9999999999999999999999999999", "9999999999999999999999999999"),
        ("0.0000000000000000000000000001", "0.0000000000000000000000000001"),
    ];
    let values = spelled.map(|(given, found)| (parse(FieldType::Decimal, given), json!(found)));
    comes_back(fixture, "decimal", values.into()).await
}

async fn text_of_every_script_comes_back(fixture: Fixture) -> Result<(), Failure> {
    let texts =
        ["", " ", "Żółć", "名前", "🦀👩‍👩‍👧", "e\u{301}", "\u{202e}right to left", "NULL", "00123", "\u{10ffff}"];
    comes_back(fixture, "text", texts.map(|content| (text(content), json!(content))).into()).await
}

async fn text_with_every_escape_comes_back(fixture: Fixture) -> Result<(), Failure> {
    let controls: String = (1..=0x20_u8).map(char::from).collect();
    let texts = ["\"", "\\", "'", "''", "%", "_", "\\%", "a\nb\tc\r", "{\"a\": 1}", "\u{7f}", &controls];
    comes_back(fixture, "text", texts.map(|content| (text(content), json!(content))).into()).await
}

async fn long_text_comes_back(fixture: Fixture) -> Result<(), Failure> {
    let long = "🦀".repeat(50_000);
    comes_back(fixture, "text", vec![(text(&long), json!(long))]).await
}

async fn uuids_come_back(fixture: Fixture) -> Result<(), Failure> {
    let ids = ["00000000-0000-0000-0000-000000000000", "0198c0de-0000-7000-8000-00000000000a"];
    comes_back(fixture, "uuid", ids.map(|id| (parse(FieldType::Uuid, id), json!(id))).into()).await
}

async fn times_come_back_in_utc_to_the_microsecond(fixture: Fixture) -> Result<(), Failure> {
    let spelled = [
        ("2026-11-21T05:00:00Z", "2026-11-21T05:00:00Z"),
        ("2026-11-21T05:00:00.5Z", "2026-11-21T05:00:00.500Z"),
        ("2026-11-21T05:00:00.123456789Z", "2026-11-21T05:00:00.123456Z"),
        ("2026-11-21T05:00:00+05:30", "2026-11-20T23:30:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ];
    let values = spelled.map(|(given, found)| (parse(FieldType::DateTime, given), json!(found)));
    comes_back(fixture, "datetime", values.into()).await
}

async fn dates_come_back(fixture: Fixture) -> Result<(), Failure> {
    let days = ["2024-02-29", "0001-01-01", "9999-12-31", "1969-12-31"];
    comes_back(fixture, "date", days.map(|day| (parse(FieldType::Date, day), json!(day))).into()).await
}

async fn objects_come_back(fixture: Fixture) -> Result<(), Failure> {
    let objects = [
        json!({}),
        json!({"a": null, "b": [1, "two", {"c": true}], "ü": "🦀\"\\", "n": 0.1}),
        json!([1, 2, 3]),
        json!("text"),
        json!(true),
    ];
    comes_back(fixture, "json", objects.map(|object| (Value::Json(object.clone()), object)).into()).await
}

async fn arrays_come_back(fixture: Fixture) -> Result<(), Failure> {
    let arrays = [vec![], vec!["a"], vec!["a", "b,c", "\"", "{}", "", "NULL", "🦀"]];
    let values =
        arrays.map(|items| (Value::Array(items.iter().map(|item| text(item)).collect()), json!(items)));
    comes_back(fixture, "array", values.into()).await
}

async fn a_row_is_spelled_byte_for_byte(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture
        .rows(&[(
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
    same("the row", &String::from_utf8_lossy(&out).into_owned(), &expected.to_owned())
}
