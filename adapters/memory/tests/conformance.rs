//! The whole suite over the reference storage.

use std::sync::Arc;

use resourceful_contract::{Storage, conformance};
use resourceful_memory::{Memory, MemoryBus, MemoryCache};

async fn storage() -> Arc<dyn Storage> {
    Memory::new().storage()
}

resourceful_contract::conformance_tests! { storage: storage() }

#[tokio::test]
async fn every_case_applies_to_memory() {
    let report = conformance::run(Memory::new().storage(), "run").await;
    println!("{report}");
    report.assert_passed();
    assert_eq!(report.passed(), conformance::cases().len());
}

#[tokio::test]
async fn memory_bus_and_cache_pass_conformance_suite() {
    assert_eq!(conformance::bus(Arc::new(MemoryBus::new()), "run").await, Ok(()));
    assert_eq!(conformance::cache_store(Arc::new(MemoryCache::new()), "run").await, Ok(()));
}
