//! What every bus must show, and what a server that goes away must not break.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use resourceful_contract::{BusEvent, ErrorKind, conformance};
use resourceful_redis::Redis;

#[tokio::test]
async fn redis_bus_and_cache_pass_conformance_suite() -> Result<(), Box<dyn std::error::Error>> {
    let required = std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("redis"));
    let Ok(url) = std::env::var("TEST_REDIS_URL") else {
        assert!(!required, "TEST_REDIS_URL must be set: this run requires Redis");
        println!("not run: on Redis, for want of TEST_REDIS_URL (tests/run sets it)");
        return Ok(());
    };
    let redis = Redis::connect(&url).await?;
    let prefix = uuid::Uuid::now_v7().to_string();
    assert_eq!(conformance::bus(redis.bus(), &prefix).await, Ok(()));
    assert_eq!(conformance::cache_store(redis.cache(), &prefix).await, Ok(()));
    Ok(())
}

/// A Redis server of the test's own, that keeps nothing when it is killed.
struct Server {
    port: u16,
    child: Child,
}

impl Server {
    fn start(port: u16) -> std::io::Result<Self> {
        let port_text = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { port, child })
    }

    /// Connects as soon as it answers.
    async fn connect(&self) -> Redis {
        loop {
            match Redis::connect(&format!("redis://127.0.0.1:{}", self.port)).await {
                Ok(redis) => return redis,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn listener_reconnects_after_server_restart_and_reports_loss() -> Result<(), Box<dyn std::error::Error>>
{
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let Ok(server) = Server::start(port) else {
        let required = std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("redis"));
        assert!(!required, "redis-server must be there: this run requires Redis");
        println!("not run: a killed Redis, for want of redis-server (tests/run installs it)");
        return Ok(());
    };
    let bus = server.connect().await.bus();
    let mut listener = bus.listen("news").await?;
    let consumer = bus.consume("work", "crew", Duration::from_secs(60)).await?;
    bus.send("work", b"one".to_vec()).await?;
    assert_eq!(consumer.next().await?.message, b"one");
    bus.publish("news", b"one".to_vec()).await?;
    assert_eq!(listener.recv().await?, BusEvent::Message(b"one".to_vec()));
    // One that hangs says no more than one that is gone.
    let signal = |name: &str| Command::new("kill").args([name, &server.child.id().to_string()]).status();
    assert!(signal("-STOP")?.success());
    let hung = listener.recv().await.expect_err("nobody answers");
    assert_eq!(hung.kind(), ErrorKind::Unavailable, "{hung}");
    assert!(signal("-CONT")?.success());
    while listener.recv().await? != BusEvent::Back {}
    drop(server);
    let away = listener.recv().await.expect_err("nobody answers");
    assert_eq!(away.kind(), ErrorKind::Unavailable, "{away}");
    assert!(bus.publish("news", b"lost".to_vec()).await.is_err(), "publishing fails");

    let server = Server::start(port)?;
    server.connect().await;
    // Publishing works again as well, on the same handle.
    while bus.publish("news", b"two".to_vec()).await.is_err() {}
    let mut events = Vec::new();
    while events.last() != Some(&BusEvent::Message(b"two".to_vec())) {
        match listener.recv().await {
            Ok(one) => events.push(one),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    assert_eq!(events, [BusEvent::Missed, BusEvent::Message(b"two".to_vec())]);
    // Nobody has to join again, though the server has forgotten that there was a group.
    bus.send("work", b"two".to_vec()).await?;
    let delivery = loop {
        match consumer.next().await {
            Ok(delivery) => break delivery,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!((delivery.message, delivery.times), (b"two".to_vec(), 1));
    Ok(())
}
