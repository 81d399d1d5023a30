//! Conformance cases of a [`CacheStore`].

use std::sync::Arc;
use std::time::Duration;

use super::{Failure, expect_eq};
use crate::CacheStore;

const LONG_TTL: Duration = Duration::from_secs(60);
const SHORT_TTL: Duration = Duration::from_millis(1);

/// Runs all cases of a cache store, under keys that begin with the prefix.
///
/// # Errors
/// The first failed case.
pub async fn cache_store(store: Arc<dyn CacheStore>, prefix: &str) -> Result<(), Failure> {
    let key = |name: &str| format!("{prefix}.{name}");
    let kept = key("kept");
    expect_eq("nothing", &store.get(&kept).await?, &None)?;
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    store.put(&kept, bytes.clone(), LONG_TTL).await?;
    expect_eq("what is kept", &store.get(&kept).await?, &Some(bytes))?;
    store.put(&kept, Vec::new(), LONG_TTL).await?;
    expect_eq("what is there instead", &store.get(&kept).await?, &Some(Vec::new()))?;
    store.put(&kept, vec![1], SHORT_TTL).await?;
    wait_until_expired(&*store, &kept).await?;

    let claimed = key("claimed");
    expect_eq("the first claim", &store.claim(&claimed, LONG_TTL).await?, &true)?;
    expect_eq("the second claim", &store.claim(&claimed, LONG_TTL).await?, &false)?;
    expect_eq("a claim of another key", &store.claim(&key("other"), LONG_TTL).await?, &true)?;
    expect_eq("what is kept under a claimed key", &store.get(&claimed).await?, &None)?;
    store.release(&claimed).await?;
    expect_eq("a claim after the release", &store.claim(&claimed, SHORT_TTL).await?, &true)?;
    store.release(&key("never")).await?;
    // The claim expires without a release.
    while !store.claim(&claimed, LONG_TTL).await? {}
    store.release(&claimed).await?;
    store.release(&key("other")).await?;
    Ok(())
}

/// Returns when the key has expired; never, if it does not expire.
async fn wait_until_expired(store: &dyn CacheStore, key: &str) -> Result<(), Failure> {
    while store.get(key).await?.is_some() {}
    Ok(())
}
