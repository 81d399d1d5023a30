//! A cache store over Redis strings with expiry. Redis evicts entries by its own policy (`maxmemory-policy`).

use std::time::Duration;

use redis::cmd;
use resourceful_contract::{Answer, CacheStore};

use crate::{Redis, storage_error};

#[derive(Clone, Debug)]
pub(crate) struct RedisCache(pub(crate) Redis);

fn value_key(key: &str) -> String {
    format!("resourceful:cache:{key}")
}

fn claim_key(key: &str) -> String {
    format!("resourceful:claim:{key}")
}

fn milliseconds(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl CacheStore for RedisCache {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let mut commands = self.0.commands.clone();
            cmd("GET").arg(value_key(key)).query_async(&mut commands).await.map_err(storage_error)
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, ttl: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut commands = self.0.commands.clone();
            let mut set = cmd("SET");
            set.arg(value_key(key)).arg(value).arg("PX").arg(milliseconds(ttl));
            set.query_async::<()>(&mut commands).await.map_err(storage_error)
        })
    }

    fn claim<'a>(&'a self, key: &'a str, ttl: Duration) -> Answer<'a, bool> {
        Box::pin(async move {
            let mut commands = self.0.commands.clone();
            let mut set = cmd("SET");
            set.arg(claim_key(key)).arg(1).arg("NX").arg("PX").arg(milliseconds(ttl));
            let answer: Option<String> = set.query_async(&mut commands).await.map_err(storage_error)?;
            Ok(answer.is_some())
        })
    }

    fn release<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut commands = self.0.commands.clone();
            cmd("DEL").arg(claim_key(key)).query_async::<()>(&mut commands).await.map_err(storage_error)
        })
    }
}
