//! Why an application is not built: a fault of the declaration, or a database that is away.

use std::sync::Arc;

use resourceful::BuildError;
use resourceful::adapter::{Storage, Table};
use resourceful::prelude::*;
use resourceful_contract::{
    Answer, Capabilities, ChangeSet, Committed, ErrorKind, Mismatch, Query, Rows, Schema, StorageError,
};

use crate::support::{TestStorage, notes};

/// A storage that cannot be reached.
#[derive(Debug)]
struct Unreachable;

fn away<T: Send + 'static>() -> Answer<'static, T> {
    Box::pin(std::future::ready(Err(StorageError::new(ErrorKind::Unavailable))))
}

impl Storage for Unreachable {
    fn name(&self) -> &'static str {
        "unreachable"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::core()
    }

    fn create_table_if_missing<'a>(&'a self, _: &'a Arc<Schema>) -> Answer<'a, ()> {
        away()
    }

    fn check<'a>(&'a self, _: &'a Arc<Schema>) -> Answer<'a, Vec<Mismatch>> {
        away()
    }

    fn fetch<'a>(&'a self, _: &'a Query, _: &'a mut Vec<u8>) -> Answer<'a, Rows> {
        away()
    }

    fn commit(&self, _: ChangeSet) -> Answer<'_, Committed> {
        away()
    }

    fn ready(&self) -> Answer<'_, ()> {
        away()
    }

    fn close(&self) -> Answer<'_, ()> {
        away()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, Validate)]
struct Row {
    id: i64,
}

fn rows(name: &str) -> Resource {
    define_resource::<Row>(name)
        .adapter(Table::new(Arc::new(Unreachable), name))
        .permissions(Permissions::all(anyone()))
        .build()
        .unwrap()
}

#[tokio::test]
async fn unreachable_database_is_a_retryable_error() {
    let error = create_app(AppPreset::Testing).resource(rows("rows")).build().await.unwrap_err();
    assert!(matches!(error, BuildError::Unavailable(_)), "{error}");
    assert!(error.is_retryable() && error.faults().iter().all(|fault| fault.is_transient));
    let error = resourceful::Error::from(error);
    assert_eq!(error.kind(), resourceful::ErrorKind::Unavailable);
}

#[tokio::test]
async fn fault_of_the_declaration_is_not_retryable_even_if_a_database_is_away() {
    let storage = TestStorage::memory();
    // A column of another type in a table that exists, beside a database that is away.
    let app = create_app(AppPreset::Testing).resource(notes(&storage)).build().await;
    assert!(app.is_ok());
    let other = define_resource::<Row>("notes")
        .adapter(storage.table("notes"))
        .permissions(Permissions::all(anyone()))
        .build()
        .unwrap();
    let duplicate = create_app(AppPreset::Testing).resource(other.clone()).resource(other);
    let error = duplicate.resource(rows("rows")).build().await.unwrap_err();
    assert!(matches!(error, BuildError::Declaration(_)) && !error.is_retryable(), "{error}");
}
