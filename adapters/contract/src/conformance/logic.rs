//! Conformance cases of two-valued logic: a row matches either a filter or its negation, never neither.

use std::sync::Arc;

use super::fixture::{Fixture, position, text};
use super::{Case, Failure, named};
use crate::{Filter, Schema, Test, Value};

pub(super) const CASES: &[Case] = named![
    empty_all_matches_every_row,
    empty_any_matches_no_row,
    not_selects_exact_complement,
    negated_comparison_matches_null,
    double_negation_equals_filter,
    nested_connectives_are_evaluated,
    tests_of_one_field_are_combined,
    deeply_nested_filter_is_evaluated,
];

async fn rows(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    let number = |number| vec![("integer", Value::Integer(number)), ("text", text("x"))];
    fixture.table_with_rows(&[("a", number(1)), ("b", number(2)), ("c", number(3)), ("n", vec![])]).await
}

fn integer(schema: &Schema, test: fn(Value) -> Test, number: i64) -> Filter {
    Filter::Compare(position(schema, "integer"), test(Value::Integer(number)))
}

fn not(filter: Filter) -> Filter {
    Filter::Not(Box::new(filter))
}

async fn empty_all_matches_every_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    fixture.expect_ids(&schema, Filter::everything(), "a b c n").await?;
    fixture.expect_ids(&schema, not(Filter::everything()), "").await
}

async fn empty_any_matches_no_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    fixture.expect_ids(&schema, Filter::nothing(), "").await?;
    fixture.expect_ids(&schema, not(Filter::nothing()), "a b c n").await
}

async fn not_selects_exact_complement(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let filters = [
        (integer(&schema, Test::Eq, 2), "a c n"),
        (integer(&schema, Test::Ne, 2), "b"),
        (integer(&schema, Test::Gt, 1), "a n"),
        (Filter::Compare(position(&schema, "integer"), Test::In(vec![Value::Integer(1)])), "b c n"),
        (Filter::Compare(position(&schema, "integer"), Test::NotIn(vec![Value::Integer(1)])), "a"),
        (Filter::Compare(position(&schema, "text"), Test::Contains("x".to_owned())), "n"),
        (Filter::Compare(position(&schema, "integer"), Test::IsNull(true)), "a b c"),
    ];
    for (filter, expected) in filters {
        fixture.expect_ids(&schema, not(filter), expected).await?;
    }
    Ok(())
}

async fn negated_comparison_matches_null(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let between =
        Filter::Compare(position(&schema, "integer"), Test::Between(Value::Integer(0), Value::Integer(9)));
    fixture.expect_ids(&schema, not(between), "n").await
}

async fn double_negation_equals_filter(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    fixture.expect_ids(&schema, not(not(integer(&schema, Test::Gte, 2))), "b c").await
}

async fn nested_connectives_are_evaluated(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let either = Filter::Any(vec![integer(&schema, Test::Eq, 1), integer(&schema, Test::Eq, 3)]);
    let both = Filter::All(vec![either.clone(), not(integer(&schema, Test::Lt, 2))]);
    fixture.expect_ids(&schema, both.clone(), "c").await?;
    fixture.expect_ids(&schema, not(both), "a b n").await?;
    fixture.expect_ids(&schema, not(Filter::Any(vec![either, integer(&schema, Test::Eq, 2)])), "n").await
}

async fn tests_of_one_field_are_combined(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let filters =
        vec![integer(&schema, Test::Gt, 1), integer(&schema, Test::Lt, 3), integer(&schema, Test::Ne, 9)];
    fixture.expect_ids(&schema, Filter::All(filters), "b").await
}

async fn deeply_nested_filter_is_evaluated(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let mut filter = integer(&schema, Test::Eq, 2);
    for _ in 0..16 {
        filter = not(Filter::All(vec![filter, Filter::everything()]));
    }
    fixture.expect_ids(&schema, filter, "b").await
}
