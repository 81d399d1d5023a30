//! The whole suite over each database.

use resourceful_contract::conformance;
use resourceful_sql::Sql;

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_keeps_the_contract_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("suite.db").display());
    let report = conformance::run(Sql::connect(&url).await.unwrap().storage(), "run").await;
    println!("{report}");
    report.assert_passed();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_keeps_the_contract_in_memory() {
    let report = conformance::run(Sql::connect("sqlite::memory:").await.unwrap().storage(), "run").await;
    report.assert_passed();
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_keeps_the_contract() {
    let required = std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("postgres"));
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        assert!(!required, "TEST_POSTGRES_URL must be set: this run requires PostgreSQL");
        println!("not run: the suite on PostgreSQL, for want of TEST_POSTGRES_URL (tests/run sets it)");
        return;
    };
    // Tables of one run are told apart from those of another on the same server.
    let prefix = format!("c{}", &uuid::Uuid::now_v7().simple().to_string()[..12]);
    let report = conformance::run(Sql::connect(&url).await.unwrap().storage(), &prefix).await;
    println!("{report}");
    report.assert_passed();
}
