//! What a person reads who could not connect: why, and what to do about it.

use resourceful_contract::{ErrorKind, StorageError};
use resourceful_sql::Sql;

use crate::support::Place;

/// What Rust prints where `main` returns the error.
async fn report(url: &str) -> String {
    let options = Sql::options(url).acquire_timeout(std::time::Duration::from_millis(300));
    let error: StorageError = options.connect().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unsupported), "{error}");
    format!("{error:?}")
}

fn holds(report: &str, parts: &[&str]) {
    for part in parts {
        assert!(report.contains(part), "no `{part}` in\n{report}");
    }
    assert!(!report.contains("StorageError"), "{report}");
}

#[tokio::test]
async fn a_url_of_another_database_is_told_what_a_url_begins_with() {
    holds(
        &report("mysql://h/d").await,
        &["begins with `mysql:`", "help: a URL begins with sqlite: or postgres:"],
    );
    // What has no scheme may be a password in the wrong place.
    holds(&report("secret").await, &["url: has no scheme"]);
    assert!(!report("secret").await.contains("secret"));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_file_that_cannot_be_opened_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, and long enough to be looked at ".repeat(40)).unwrap();
    let of_text = report(&format!("sqlite://{}", text.display())).await;
    holds(&of_text, &["notes.txt", "file is not a database", "something else than an SQLite database"]);
    let missing = folder.path().join("none").join("shop.db");
    let of_missing = report(&format!("sqlite://{}", missing.display())).await;
    holds(&of_missing, &["none/shop.db", "unable to open database file", "a path whose folder is there"]);
    holds(&report("sqlite://a.db?mode=read").await, &["url: cannot be read", "?mode=ro to read only"]);
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_server_that_is_not_there_or_lets_nobody_in_is_told_apart() {
    let Some(place) = Place::postgres("failures to connect") else { return };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let of_nobody = report(&format!("postgres://a:secret@127.0.0.1:{closed}/shop")).await;
    let port = format!("port {closed}");
    holds(&of_nobody, &["127.0.0.1", &port, "database shop", "refused", "nothing listens there"]);
    assert!(!of_nobody.contains("secret"), "{of_nobody}");
    let (base, _) = place.url.rsplit_once('/').unwrap();
    holds(&report(&format!("{base}/nowhere")).await, &["\"nowhere\" does not exist", "createdb nowhere"]);
    holds(&report(&format!("{base}/a?pool_mode=batch")).await, &["`batch`", "`pool_mode=session`"]);
    holds(
        &report("postgres://h:notaport/d").await,
        &["url: cannot be read", "postgres://user:password@host"],
    );
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn too_many_connections_are_called_so_at_the_start_and_later() {
    let Some(place) = Place::postgres("too many connections") else { return };
    let role = format!("{}_role", place.prefix);
    place.run(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")).await;
    let (_, host) = place.url.split_once('@').unwrap();
    let url = format!("postgres://{role}@{host}");
    let options =
        Sql::options(&url).max_connections(2).acquire_timeout(std::time::Duration::from_millis(300));
    let storage = options.connect().await.unwrap().storage();
    holds(&report(&url).await, &["too many connections", "lower `max_connections`"]);
    let (one, other) = futures::join!(storage.ready(), storage.ready());
    let refused = one.and(other).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(refused.to_string().contains("too many connections"), "{refused}");
    storage.close().await.unwrap();
    place.run(&format!("DROP ROLE {role}")).await;
}
