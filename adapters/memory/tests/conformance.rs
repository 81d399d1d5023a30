//! The whole suite over the reference storage.

use resourceful_contract::conformance;
use resourceful_memory::{Memory, MemoryBus, MemoryCache};

#[tokio::test]
async fn memory_keeps_the_contract() {
    let report = conformance::run(Memory::new().storage(), "run").await;
    println!("{report}");
    report.assert_passed();
    assert!(report.passed() >= 80, "the suite has at least 80 cases that memory must show");
}

#[tokio::test]
async fn bus_and_cache_in_memory_keep_their_contracts() {
    assert_eq!(conformance::bus(std::sync::Arc::new(MemoryBus::new()), "run").await, Ok(()));
    assert_eq!(conformance::cache_store(std::sync::Arc::new(MemoryCache::new()), "run").await, Ok(()));
}
