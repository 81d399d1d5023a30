//! Conformance cases of guards: a change is applied if its guard holds, and fails with the reason otherwise.

use std::sync::Arc;

use super::fixture::{Fixture, expect_error, position, text};
use super::{Case, Failure, expect_eq, named};
use crate::{ErrorKind, Field, FieldType, Filter, Guard, IdSource, Query, Schema, Test, Value, Version};

pub(super) const CASES: &[Case] = named![
    change_of_absent_row_is_not_found,
    row_excluded_by_filter_is_not_found,
    matching_filter_admits_change,
    wrong_counter_is_version_mismatch,
    matching_counter_admits_change,
    digest_never_matches_row_with_counter,
    wrong_digest_is_version_mismatch,
    matching_digest_admits_change,
    filter_and_version_are_both_checked,
    guard_checks_row_before_change,
];

async fn rows(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    fixture
        .table_with_rows(&[
            ("a", vec![("text", text("mine"))]),
            ("b", vec![("text", text("theirs"))]),
            ("n", vec![]),
        ])
        .await
}

fn guard_on_mine(schema: &Schema, version: Option<Version>) -> Guard {
    Guard { filter: Filter::Compare(position(schema, "text"), Test::Eq(text("mine"))), version }
}

/// Checks that both an update and a delete fail, and that the row stays.
async fn expect_refused(
    fixture: &Fixture,
    schema: &Arc<Schema>,
    id: &str,
    guard: Guard,
    kind: ErrorKind,
) -> Result<(), Failure> {
    let set = [("integer", Value::Integer(1))];
    expect_error(fixture.update(schema, text(id), &set, guard.clone()).await, kind)?;
    expect_error(fixture.delete(schema, text(id), guard).await, kind)?;
    let changed = Filter::Compare(position(schema, "integer"), Test::Eq(Value::Integer(1)));
    fixture.expect_ids(schema, changed, "").await
}

async fn change_of_absent_row_is_not_found(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    expect_refused(&fixture, &schema, "absent", Guard::none(), ErrorKind::NotFound).await?;
    expect_refused(&fixture, &schema, "absent", Guard::version(Version::Counter(1)), ErrorKind::NotFound)
        .await
}

async fn row_excluded_by_filter_is_not_found(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    expect_refused(&fixture, &schema, "b", guard_on_mine(&schema, None), ErrorKind::NotFound).await?;
    expect_refused(&fixture, &schema, "n", guard_on_mine(&schema, None), ErrorKind::NotFound).await?;
    expect_refused(
        &fixture,
        &schema,
        "b",
        guard_on_mine(&schema, Some(Version::Counter(1))),
        ErrorKind::NotFound,
    )
    .await
}

async fn matching_filter_admits_change(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    fixture
        .update(&schema, text("a"), &[("integer", Value::Integer(1))], guard_on_mine(&schema, None))
        .await?;
    fixture.delete(&schema, text("a"), guard_on_mine(&schema, None)).await?;
    fixture.expect_ids(&schema, Filter::everything(), "b n").await
}

async fn wrong_counter_is_version_mismatch(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    for counter in [0, 2, i64::MAX] {
        expect_refused(
            &fixture,
            &schema,
            "a",
            Guard::version(Version::Counter(counter)),
            ErrorKind::VersionMismatch,
        )
        .await?;
    }
    Ok(())
}

async fn matching_counter_admits_change(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let written = fixture
        .update(&schema, text("a"), &[("integer", Value::Integer(1))], Guard::version(Version::Counter(1)))
        .await?;
    expect_eq("the counter", &written.version, &Some(Version::Counter(2)))?;
    fixture.delete(&schema, text("a"), Guard::version(Version::Counter(2))).await?;
    Ok(())
}

async fn digest_never_matches_row_with_counter(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let guard = Guard::version(Version::Digest([7; 16]));
    expect_refused(&fixture, &schema, "a", guard, ErrorKind::VersionMismatch).await
}

async fn row_without_counter(fixture: &Fixture) -> Result<(Arc<Schema>, Version), Failure> {
    let fields = vec![
        Field::new("id", FieldType::Text),
        Field::new("text", FieldType::Text).nullable(),
        Field::new("integer", FieldType::Integer).nullable(),
    ];
    let schema = fixture.create_table("uncounted", fields, IdSource::Client, |_| ()).await?;
    let written = fixture.insert(&schema, &[text("a"), text("mine"), Value::Null]).await?;
    let version = written.version.ok_or_else(|| Failure::new("an answered row has a version"))?;
    Ok((schema, version))
}

async fn wrong_digest_is_version_mismatch(fixture: Fixture) -> Result<(), Failure> {
    let (schema, _) = row_without_counter(&fixture).await?;
    for version in [Version::Digest([0; 16]), Version::Counter(1)] {
        expect_refused(&fixture, &schema, "a", Guard::version(version), ErrorKind::VersionMismatch).await?;
    }
    expect_refused(&fixture, &schema, "absent", Guard::version(Version::Digest([0; 16])), ErrorKind::NotFound)
        .await
}

async fn matching_digest_admits_change(fixture: Fixture) -> Result<(), Failure> {
    let (schema, version) = row_without_counter(&fixture).await?;
    let written = fixture
        .update(&schema, text("a"), &[("integer", Value::Integer(1))], Guard::version(version))
        .await?;
    let (rows, _) = fixture.fetch(&Query::one(schema.clone(), text("a"))).await?;
    expect_eq("as read", &rows.versions.first().copied(), &written.version)?;
    let guard = Guard { filter: Filter::everything(), version: written.version };
    fixture.delete(&schema, text("a"), guard).await?;
    Ok(())
}

async fn filter_and_version_are_both_checked(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    expect_refused(
        &fixture,
        &schema,
        "a",
        guard_on_mine(&schema, Some(Version::Counter(9))),
        ErrorKind::VersionMismatch,
    )
    .await?;
    let guard = guard_on_mine(&schema, Some(Version::Counter(1)));
    fixture.update(&schema, text("a"), &[("integer", Value::Integer(1))], guard).await?;
    Ok(())
}

async fn guard_checks_row_before_change(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    // The change itself makes the row invisible; the guard applies to the row before the change.
    let guard = guard_on_mine(&schema, None);
    fixture.update(&schema, text("a"), &[("text", text("theirs"))], guard.clone()).await?;
    expect_error(
        fixture.update(&schema, text("a"), &[("text", text("mine"))], guard).await,
        ErrorKind::NotFound,
    )?;
    Ok(())
}
