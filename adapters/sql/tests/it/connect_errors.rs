//! What a person reads who could not connect: why, and what to do about it.

use resourceful_contract::{ErrorKind, StorageError};
use resourceful_sql::Sql;

use crate::support::TestDatabase;

/// What Rust prints where `main` returns the error.
async fn connect_report(url: &str) -> String {
    let options = Sql::options(url).acquire_timeout(std::time::Duration::from_millis(300));
    let error: StorageError = options.connect().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unsupported), "{error}");
    format!("{error:?}")
}

fn assert_contains(report: &str, parts: &[&str]) {
    for part in parts {
        assert!(report.contains(part), "no `{part}` in\n{report}");
    }
    assert!(!report.contains("StorageError"), "{report}");
}

#[tokio::test]
async fn unsupported_scheme_error_names_supported_schemes() {
    assert_contains(
        &connect_report("mysql://h/d").await,
        &["begins with `mysql:`", "help: a URL begins with sqlite: or postgres:"],
    );
    // What has no scheme may be a password in the wrong place.
    assert_contains(&connect_report("secret").await, &["url: has no scheme"]);
    assert!(!connect_report("secret").await.contains("secret"));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn unopenable_file_error_names_cause() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, and long enough to be looked at ".repeat(40)).unwrap();
    let text_report = connect_report(&format!("sqlite://{}", text.display())).await;
    assert_contains(
        &text_report,
        &["notes.txt", "file is not a database", "something else than an SQLite database"],
    );
    let missing = folder.path().join("none").join("shop.db");
    let missing_report = connect_report(&format!("sqlite://{}", missing.display())).await;
    assert_contains(
        &missing_report,
        &["none/shop.db", "unable to open database file", "a path whose folder is there"],
    );
    assert_contains(
        &connect_report("sqlite://a.db?mode=read").await,
        &["url: cannot be read", "?mode=ro to read only"],
    );
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn connection_errors_name_cause_and_fix() {
    let Some(test_db) = TestDatabase::postgres("failures to connect") else { return };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let unreachable_report = connect_report(&format!("postgres://a:secret@127.0.0.1:{closed}/shop")).await;
    let port = format!("port {closed}");
    assert_contains(
        &unreachable_report,
        &["127.0.0.1", &port, "database shop", "refused", "nothing listens there"],
    );
    assert!(!unreachable_report.contains("secret"), "{unreachable_report}");
    let (base, _) = test_db.url.rsplit_once('/').unwrap();
    assert_contains(
        &connect_report(&format!("{base}/nowhere")).await,
        &["\"nowhere\" does not exist", "createdb nowhere"],
    );
    assert_contains(
        &connect_report(&format!("{base}/a?pool_mode=batch")).await,
        &["`batch`", "`pool_mode=session`"],
    );
    assert_contains(
        &connect_report("postgres://h:notaport/d").await,
        &["url: cannot be read", "postgres://user:password@host"],
    );
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn too_many_connections_are_reported_on_connect_and_later() {
    let Some(test_db) = TestDatabase::postgres("too many connections") else { return };
    let role = format!("{}_role", test_db.prefix);
    test_db.execute(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")).await;
    let (_, host) = test_db.url.split_once('@').unwrap();
    let url = format!("postgres://{role}@{host}");
    let options =
        Sql::options(&url).max_connections(2).acquire_timeout(std::time::Duration::from_millis(300));
    let storage = options.connect().await.unwrap().storage();
    assert_contains(&connect_report(&url).await, &["too many connections", "lower `max_connections`"]);
    // The one connection may be back before the other call asks for it: the two have to overlap.
    let mut refused = None;
    for _ in 0..100 {
        let (one, other) = futures::join!(storage.ready(), storage.ready());
        refused = one.and(other).err();
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("two calls at once need two connections");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(refused.to_string().contains("too many connections"), "{refused}");
    storage.close().await.unwrap();
    test_db.execute(&format!("DROP ROLE {role}")).await;
}
