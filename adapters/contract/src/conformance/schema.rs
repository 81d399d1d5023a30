//! Conformance cases that compare a declaration with its table.

use super::fixture::{Fixture, expect_error, parse, text};
use super::{Case, Failure, expect_eq, named};
use crate::{
    ErrorKind, Field, FieldType, Filter, Guard, IdSource, Index, Position, Query, ScalarType, Schema, Sort,
    Test, Value,
};

pub(super) const CASES: &[Case] = named![
    similar_table_and_column_names_get_separate_indexes,
    long_names_with_common_prefix_get_separate_indexes,
    missing_unique_index_is_reported,
    unique_index_on_fewer_fields_suffices,
    indexes_accept_longest_allowed_values,
    overlong_values_can_be_queried,
];

fn code_fields(column: &str) -> Vec<Field> {
    let mut code = Field::new("code", FieldType::Text);
    code.column = column.to_owned();
    vec![Field::new("id", FieldType::Integer), code, Field::new("part", FieldType::Integer)]
}

fn with_unique_index(fields: &[usize]) -> impl FnOnce(&mut Schema) {
    let index = Index { fields: fields.to_vec(), unique: true };
    |schema| schema.indexes = vec![index]
}

async fn expect_unique(fixture: &Fixture, schema: &std::sync::Arc<Schema>) -> Result<(), Failure> {
    let row = |id: i64| [Value::Integer(id), text("a"), Value::Integer(id)];
    fixture.insert(schema, &row(1)).await?;
    let violation = expect_error(fixture.insert(schema, &row(2)).await, ErrorKind::UniqueViolation)?;
    expect_eq("fields", &violation.fields().to_vec(), &vec!["code".to_owned()])
}

async fn similar_table_and_column_names_get_separate_indexes(fixture: Fixture) -> Result<(), Failure> {
    for (table, column) in [("order", "line_code"), ("order_line", "code"), ("order_line_code", "key")] {
        let schema = fixture
            .create_table(table, code_fields(column), IdSource::Client, with_unique_index(&[1]))
            .await?;
        expect_unique(&fixture, &schema).await?;
    }
    Ok(())
}

async fn long_names_with_common_prefix_get_separate_indexes(fixture: Fixture) -> Result<(), Failure> {
    let long = "a_name_of_a_column_that_goes_on_for_quite_a_while_until";
    for (table, column) in [("one", "here"), ("one_more", "here"), ("one_more_yet", "there")] {
        let fields = code_fields(&format!("{long}_{column}"));
        let schema = fixture.create_table(table, fields, IdSource::Client, with_unique_index(&[1])).await?;
        expect_unique(&fixture, &schema).await?;
    }
    Ok(())
}

async fn missing_unique_index_is_reported(fixture: Fixture) -> Result<(), Failure> {
    let created = fixture.create_table("items", code_fields("code"), IdSource::Client, |_| ()).await?;
    let mut declared = Schema::clone(&created);
    declared.indexes = vec![Index { fields: vec![1, 2], unique: true }];
    let mismatches = fixture.storage.check(&std::sync::Arc::new(declared)).await?;
    let reported: Vec<_> = mismatches.iter().map(|one| (one.field.as_deref(), one.is_warning)).collect();
    expect_eq("mismatches", &reported, &vec![(Some("code"), false)])?;
    expect_eq("the columns are named", &mismatches[0].message.contains("`code`, `part`"), &true)?;
    expect_eq("a line mends it", &mismatches[0].help.is_some(), &true)
}

async fn unique_index_on_fewer_fields_suffices(fixture: Fixture) -> Result<(), Failure> {
    let created =
        fixture.create_table("items", code_fields("code"), IdSource::Client, with_unique_index(&[1])).await?;
    let mut declared = Schema::clone(&created);
    // With the columns in another order, and with the id, which is unique by itself.
    declared.indexes =
        [[2, 1], [2, 0]].map(|fields| Index { fields: fields.to_vec(), unique: true }).to_vec();
    let mismatches = fixture.storage.check(&std::sync::Arc::new(declared)).await?;
    expect_eq("mismatches", &mismatches, &Vec::new())
}

/// Incompressible text of this many bytes.
fn random_text(bytes: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letter = |_| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"[(state >> 40) as usize % 64],
        )
    };
    (0..bytes).map(letter).collect()
}

/// The longest value of a field.
fn longest_value(schema: &Schema, field: usize, seed: u64) -> Value {
    let max_bytes = schema.max_bytes(field).unwrap_or(10_000);
    match schema.fields[field].field_type {
        FieldType::Text => Value::Text(random_text(max_bytes, seed)),
        FieldType::Array(_) => {
            let mut items = Vec::new();
            while Value::Array(items.clone()).indexed_bytes() + 11 <= max_bytes {
                items.push(Value::Text(random_text(3, seed + items.len() as u64)));
            }
            Value::Array(items)
        }
        FieldType::Decimal => parse(FieldType::Decimal, "-7922816251426433.7593543950335"),
        _ => Value::Integer(i64::MAX - i64::try_from(seed).unwrap_or(0)),
    }
}

async fn indexes_accept_longest_allowed_values(fixture: Fixture) -> Result<(), Failure> {
    let text = |name: &str| Field::new(name, FieldType::Text);
    for (number, (id, indexes)) in [
        (FieldType::Text, vec![(vec![1], true), (vec![2], false), (vec![3], false)]),
        (FieldType::Integer, vec![(vec![1], true), (vec![2], false), (vec![3], true)]),
        (FieldType::Text, vec![(vec![1, 2], true), (vec![4, 3, 5], true)]),
        (FieldType::Text, vec![(vec![1, 2, 3, 4, 5], false)]),
        (FieldType::Text, vec![(vec![0, 1, 4], true), (vec![2, 0], false)]),
        (FieldType::Integer, vec![(vec![1, 0, 2, 5, 4, 3], true)]),
    ]
    .into_iter()
    .enumerate()
    {
        let fields = vec![
            Field::new("id", id),
            text("one"),
            text("two"),
            Field::new("list", FieldType::Array(ScalarType::Text)),
            Field::new("money", FieldType::Decimal),
            Field::new("number", FieldType::Integer),
        ];
        let indexes = indexes.into_iter().map(|(fields, unique)| Index { fields, unique });
        let declare = |schema: &mut Schema| schema.indexes = indexes.collect();
        let schema =
            fixture.create_table(&format!("long{number}"), fields, IdSource::Client, declare).await?;
        let row = |seed: u64| -> Vec<_> {
            (0..6).map(|field| longest_value(&schema, field, seed * 100 + field as u64)).collect()
        };
        let values = row(1);
        fixture.insert(&schema, &values).await?;
        let set: Vec<_> = row(2).into_iter().enumerate().skip(1).collect();
        let named: Vec<_> =
            set.iter().map(|(field, value)| (schema.fields[*field].name.as_str(), value.clone())).collect();
        fixture.update(&schema, values[0].clone(), &named, Guard::none()).await?;
    }
    Ok(())
}

async fn overlong_values_can_be_queried(fixture: Fixture) -> Result<(), Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("name", FieldType::Text)];
    let indexed = |schema: &mut Schema| schema.indexes = vec![Index { fields: vec![1], unique: true }];
    let schema = fixture.create_table("items", fields, IdSource::Client, indexed).await?;
    fixture.insert(&schema, &[text("a"), text("m")]).await?;
    let long = text(&random_text(20_000, 7));
    for (test, expected) in [
        (Test::Eq(long.clone()), ""),
        (Test::In(vec![long.clone(), text("m")]), "a"),
        (Test::Ne(long.clone()), "a"),
        (Test::Starts(random_text(20_000, 7)), ""),
    ] {
        for field in [0, 1] {
            let expected = if field == 0 && matches!(test, Test::In(_)) { "" } else { expected };
            fixture.expect_ids(&schema, Filter::Compare(field, test.clone()), expected).await?;
        }
    }
    let mut query = Query::all(schema.clone());
    query.sort = vec![Sort::ascending(1), Sort::ascending(0)];
    query.position = Position::After(vec![text(&format!("a{}", random_text(20_000, 8))), long]);
    expect_eq("after a long place", &fixture.fetch_ids(&query).await?, &vec!["a".to_owned()])
}
