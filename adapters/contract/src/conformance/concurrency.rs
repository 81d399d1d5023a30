//! Conformance cases of concurrent changes.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use super::fixture::{Fixture, position, text};
use super::{Case, Failure, expect_eq, named};
use crate::{ErrorKind, Field, FieldType, Guard, IdSource, Query, Value, Version, Write};

pub(super) const CASES: &[Case] = named![
    one_of_concurrent_counter_updates_succeeds,
    one_of_concurrent_digest_updates_succeeds,
    one_of_concurrent_inserts_with_same_id_succeeds,
    concurrent_inserts_get_distinct_ids,
    concurrent_sets_of_same_rows_never_deadlock,
];

/// Polls futures in turn on one task until all are done.
async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<(Option<T>, Pin<Box<_>>)> = Vec::new();
    for future in futures {
        pending.push((None, Box::pin(future)));
    }
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for (outcome, future) in &mut pending {
            if outcome.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(done) => *outcome = Some(done),
                    Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    pending.into_iter().filter_map(|(outcome, _)| outcome).collect()
}

/// Counts the successes, and fails if any failure is of another kind than the expected one.
fn count_successes<T>(
    outcomes: Vec<Result<T, crate::StorageError>>,
    expected_kind: ErrorKind,
) -> Result<usize, Failure> {
    let mut successes = 0;
    for outcome in outcomes {
        match outcome {
            Ok(_) => successes += 1,
            Err(error) if error.kind() == expected_kind => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(successes)
}

async fn one_of_concurrent_counter_updates_succeeds(fixture: Fixture) -> Result<(), Failure> {
    let schema = fixture.table_with_rows(&[("a", vec![])]).await?;
    let (fixture, table) = (&fixture, &schema);
    let writers = (0..50).map(|writer| async move {
        let set = [("integer", Value::Integer(writer))];
        fixture.update(table, text("a"), &set, Guard::version(Version::Counter(1))).await
    });
    expect_eq("winners", &count_successes(join_all(writers).await, ErrorKind::VersionMismatch)?, &1)?;
    let (rows, _) = fixture.fetch(&Query::one(schema.clone(), text("a"))).await?;
    expect_eq("the counter", &rows.versions, &vec![Version::Counter(2)])
}

async fn one_of_concurrent_digest_updates_succeeds(fixture: Fixture) -> Result<(), Failure> {
    let fields = vec![Field::new("id", FieldType::Text), Field::new("number", FieldType::Integer)];
    let schema = fixture.create_table("uncounted", fields, IdSource::Client, |_| ()).await?;
    let written = fixture.insert(&schema, &[text("a"), Value::Integer(-1)]).await?;
    let (fixture, table) = (&fixture, &schema);
    let writers = (0..20).map(|writer| async move {
        let guard = Guard { filter: crate::Filter::everything(), version: written.version };
        fixture.update(table, text("a"), &[("number", Value::Integer(writer))], guard).await
    });
    expect_eq("winners", &count_successes(join_all(writers).await, ErrorKind::VersionMismatch)?, &1)
}

async fn one_of_concurrent_inserts_with_same_id_succeeds(fixture: Fixture) -> Result<(), Failure> {
    let fields = vec![Field::new("id", FieldType::Text)];
    let schema = fixture.create_table("items", fields, IdSource::Client, |_| ()).await?;
    let (fixture, schema) = (&fixture, &schema);
    let writers = (0..20).map(|_| async move { fixture.insert(schema, &[text("a")]).await });
    expect_eq("winners", &count_successes(join_all(writers).await, ErrorKind::UniqueViolation)?, &1)
}

async fn concurrent_inserts_get_distinct_ids(fixture: Fixture) -> Result<(), Failure> {
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("name", FieldType::Text)];
    let schema = fixture.create_table("items", fields, IdSource::Storage, |_| ()).await?;
    let (fixture, schema) = (&fixture, &schema);
    let writers = (0..30).map(|_| async move { fixture.insert(schema, &[Value::Null, text("x")]).await });
    let mut ids = Vec::new();
    for written in join_all(writers).await {
        ids.push(written?.id);
    }
    ids.sort_by(Value::compare);
    ids.dedup();
    expect_eq("ids", &ids.len(), &30)
}

async fn concurrent_sets_of_same_rows_never_deadlock(fixture: Fixture) -> Result<(), Failure> {
    const ROWS: usize = 20;
    let names: Vec<String> = (0..ROWS).map(|row| format!("r{row:02}")).collect();
    let rows: Vec<_> = names.iter().map(|name| (name.as_str(), Vec::new())).collect();
    let schema = fixture.table_with_rows(&rows).await?;
    let (fixture, table, names) = (&fixture, &schema, &names);
    // Each writer visits half of the rows with a step of its own, so that no two have the same order.
    let writers = (0..16).map(|writer: usize| async move {
        let step = [1, 3, 7, 9, 11, 13, 17, 19][writer % 8];
        let changes = (0..ROWS / 2).map(|row| {
            let id = text(&names[(writer + row * step) % ROWS]);
            let set = vec![(position(table, "integer"), Value::Integer(1))];
            (table, Write::Update { id, set, guard: Guard::none() })
        });
        fixture.commit_all(changes.collect()).await
    });
    for outcome in join_all(writers).await {
        outcome?;
    }
    let mut query = Query::all(schema.clone());
    query.versions = true;
    let (rows, _) = fixture.fetch(&query).await?;
    let changes: i64 = rows
        .versions
        .iter()
        .map(|version| match version {
            Version::Counter(counter) => counter - 1,
            Version::Digest(_) => 0,
        })
        .sum();
    expect_eq("changes", &changes, &160)
}
