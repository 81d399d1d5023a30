//! The whole suite over each database.

use resourceful_contract::conformance;

use crate::support::TestDatabase;

async fn assert_conformance(test_db: TestDatabase) {
    let report = conformance::run(test_db.connect().await.storage(), &test_db.prefix).await;
    println!("{report}");
    report.assert_passed();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_file_passes_conformance_suite() {
    assert_conformance(TestDatabase::sqlite_file()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_memory_passes_conformance_suite() {
    assert_conformance(TestDatabase::sqlite_memory()).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_passes_conformance_suite() {
    if let Some(test_db) = TestDatabase::postgres("the suite") {
        assert_conformance(test_db).await;
    }
}
