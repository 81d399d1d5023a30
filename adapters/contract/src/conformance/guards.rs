//! Conformance cases of guards: a change is applied if its guard holds, and fails with the reason otherwise.

use std::sync::Arc;

use super::fixture::{Fixture, fails, position, text};
use super::{Case, Failure, named, same};
use crate::{ErrorKind, Field, FieldType, Filter, Guard, IdSource, Query, Schema, Test, Value, Version};

pub(super) const CASES: &[Case] = named![
    an_absent_row_is_not_found,
    a_row_that_the_filter_hides_is_not_found,
    a_filter_that_holds_lets_the_change_happen,
    another_counter_is_a_version_mismatch,
    the_right_counter_lets_the_change_happen,
    a_digest_is_never_the_version_of_a_counted_row,
    another_digest_is_a_version_mismatch,
    the_right_digest_lets_the_change_happen,
    filter_and_version_hold_together,
    a_guard_may_ask_through_nothing_but_the_row_before,
];

async fn rows(fixture: &Fixture) -> Result<Arc<Schema>, Failure> {
    fixture
        .rows(&[("a", vec![("text", text("mine"))]), ("b", vec![("text", text("theirs"))]), ("n", vec![])])
        .await
}

fn mine(schema: &Schema, version: Option<Version>) -> Guard {
    Guard { filter: Filter::Compare(position(schema, "text"), Test::Eq(text("mine"))), version }
}

/// Checks that both an update and a delete fail, and that the row stays.
async fn refuses(
    fixture: &Fixture,
    schema: &Arc<Schema>,
    id: &str,
    guard: Guard,
    kind: ErrorKind,
) -> Result<(), Failure> {
    let set = [("integer", Value::Integer(1))];
    fails(fixture.update(schema, text(id), &set, guard.clone()).await, kind)?;
    fails(fixture.delete(schema, text(id), guard).await, kind)?;
    let changed = Filter::Compare(position(schema, "integer"), Test::Eq(Value::Integer(1)));
    fixture.selects(schema, changed, "").await
}

async fn an_absent_row_is_not_found(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    refuses(&fixture, &schema, "absent", Guard::none(), ErrorKind::NotFound).await?;
    refuses(&fixture, &schema, "absent", Guard::version(Version::Counter(1)), ErrorKind::NotFound).await
}

async fn a_row_that_the_filter_hides_is_not_found(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    refuses(&fixture, &schema, "b", mine(&schema, None), ErrorKind::NotFound).await?;
    refuses(&fixture, &schema, "n", mine(&schema, None), ErrorKind::NotFound).await?;
    refuses(&fixture, &schema, "b", mine(&schema, Some(Version::Counter(1))), ErrorKind::NotFound).await
}

async fn a_filter_that_holds_lets_the_change_happen(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    fixture.update(&schema, text("a"), &[("integer", Value::Integer(1))], mine(&schema, None)).await?;
    fixture.delete(&schema, text("a"), mine(&schema, None)).await?;
    fixture.selects(&schema, Filter::everything(), "b n").await
}

async fn another_counter_is_a_version_mismatch(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    for counter in [0, 2, i64::MAX] {
        refuses(
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

async fn the_right_counter_lets_the_change_happen(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let written = fixture
        .update(&schema, text("a"), &[("integer", Value::Integer(1))], Guard::version(Version::Counter(1)))
        .await?;
    same("the counter", &written.version, &Some(Version::Counter(2)))?;
    fixture.delete(&schema, text("a"), Guard::version(Version::Counter(2))).await?;
    Ok(())
}

async fn a_digest_is_never_the_version_of_a_counted_row(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    let guard = Guard::version(Version::Digest([7; 16]));
    refuses(&fixture, &schema, "a", guard, ErrorKind::VersionMismatch).await
}

async fn uncounted(fixture: &Fixture) -> Result<(Arc<Schema>, Version), Failure> {
    let fields = vec![
        Field::new("id", FieldType::Text),
        Field::new("text", FieldType::Text).nullable(),
        Field::new("integer", FieldType::Integer).nullable(),
    ];
    let schema = fixture.table("uncounted", fields, IdSource::Client, |_| ()).await?;
    let written = fixture.insert(&schema, &[text("a"), text("mine"), Value::Null]).await?;
    let version = written.version.ok_or_else(|| Failure::new("an answered row has a version"))?;
    Ok((schema, version))
}

async fn another_digest_is_a_version_mismatch(fixture: Fixture) -> Result<(), Failure> {
    let (schema, _) = uncounted(&fixture).await?;
    for version in [Version::Digest([0; 16]), Version::Counter(1)] {
        refuses(&fixture, &schema, "a", Guard::version(version), ErrorKind::VersionMismatch).await?;
    }
    refuses(&fixture, &schema, "absent", Guard::version(Version::Digest([0; 16])), ErrorKind::NotFound).await
}

async fn the_right_digest_lets_the_change_happen(fixture: Fixture) -> Result<(), Failure> {
    let (schema, version) = uncounted(&fixture).await?;
    let written = fixture
        .update(&schema, text("a"), &[("integer", Value::Integer(1))], Guard::version(version))
        .await?;
    let (rows, _) = fixture.fetch(&Query::one(schema.clone(), text("a"))).await?;
    same("as read", &rows.versions.first().copied(), &written.version)?;
    let guard = Guard { filter: Filter::everything(), version: written.version };
    fixture.delete(&schema, text("a"), guard).await?;
    Ok(())
}

async fn filter_and_version_hold_together(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    refuses(&fixture, &schema, "a", mine(&schema, Some(Version::Counter(9))), ErrorKind::VersionMismatch)
        .await?;
    let guard = mine(&schema, Some(Version::Counter(1)));
    fixture.update(&schema, text("a"), &[("integer", Value::Integer(1))], guard).await?;
    Ok(())
}

async fn a_guard_may_ask_through_nothing_but_the_row_before(fixture: Fixture) -> Result<(), Failure> {
    let schema = rows(&fixture).await?;
    // The change itself makes the row invisible; the guard applies to the row before the change.
    let guard = mine(&schema, None);
    fixture.update(&schema, text("a"), &[("text", text("theirs"))], guard.clone()).await?;
    fails(fixture.update(&schema, text("a"), &[("text", text("mine"))], guard).await, ErrorKind::NotFound)?;
    Ok(())
}
