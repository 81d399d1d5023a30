//! A cache store over Redis strings with expiry. Redis evicts entries by its own policy (`maxmemory-policy`).

use std::time::Duration;

use redis::cmd;
use resourceful_contract::{Answer, CacheStore};

use crate::{Redis, failed};

#[derive(Clone, Debug)]
pub(crate) struct RedisCache(pub(crate) Redis);

fn kept(key: &str) -> String {
    format!("resourceful:cache:{key}")
}

fn claimed(key: &str) -> String {
    format!("resourceful:claim:{key}")
}

fn milliseconds(keep: Duration) -> u64 {
    u64::try_from(keep.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl CacheStore for RedisCache {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let mut commands = self.0.commands.clone();
            cmd("GET").arg(kept(key)).query_async(&mut commands).await.map_err(failed)
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, keep: Duration) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut commands = self.0.commands.clone();
            let mut set = cmd("SET");
            set.arg(kept(key)).arg(value).arg("PX").arg(milliseconds(keep));
            set.query_async::<()>(&mut commands).await.map_err(failed)
        })
    }

    fn claim<'a>(&'a self, key: &'a str, keep: Duration) -> Answer<'a, bool> {
        Box::pin(async move {
            let mut commands = self.0.commands.clone();
            let mut set = cmd("SET");
            set.arg(claimed(key)).arg(1).arg("NX").arg("PX").arg(milliseconds(keep));
            let answer: Option<String> = set.query_async(&mut commands).await.map_err(failed)?;
            Ok(answer.is_some())
        })
    }

    fn release<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut commands = self.0.commands.clone();
            cmd("DEL").arg(claimed(key)).query_async::<()>(&mut commands).await.map_err(failed)
        })
    }
}
