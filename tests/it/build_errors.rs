//! Why an application is not built: a fault of the declaration, or a database that is away.

use resourceful::BuildError;
use resourceful::prelude::*;

use crate::support::{TestStorage, notes};

#[tokio::test]
async fn closed_database_is_a_retryable_error() {
    for storage in [Some(TestStorage::sqlite().await), TestStorage::postgres().await].into_iter().flatten() {
        let app = create_app(AppPreset::Testing).resource(notes(&storage));
        storage.storage().close().await.unwrap();
        let error = app.build().await.unwrap_err();
        assert!(matches!(error, BuildError::Unavailable(_)), "{}: {error}", storage.name);
        assert!(error.is_retryable() && error.faults().iter().all(|fault| fault.is_transient));
        // Servers report it as 503.
        let error = resourceful::Error::from(error);
        assert_eq!(error.kind(), resourceful::ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn fault_of_the_declaration_is_not_retryable_even_if_the_database_is_away_too() {
    let storage = TestStorage::sqlite().await;
    let app = create_app(AppPreset::Testing).resource(notes(&storage)).resource(notes(&storage));
    storage.storage().close().await.unwrap();
    let error = app.build().await.unwrap_err();
    assert!(matches!(error, BuildError::Declaration(_)) && !error.is_retryable(), "{error}");
}
