//! The whole suite over each database.

use resourceful_contract::conformance;

use crate::support::Place;

async fn keeps_the_contract(place: Place) {
    let report = conformance::run(place.connect().await.storage(), &place.prefix).await;
    println!("{report}");
    report.assert_passed();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_keeps_the_contract_in_a_file() {
    keeps_the_contract(Place::sqlite_file()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_keeps_the_contract_in_memory() {
    keeps_the_contract(Place::sqlite_memory()).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_keeps_the_contract() {
    if let Some(place) = Place::postgres("the suite") {
        keeps_the_contract(place).await;
    }
}
