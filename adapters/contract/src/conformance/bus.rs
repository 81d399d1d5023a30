//! What every bus must show.

use std::sync::Arc;

use super::{Failure, same};
use crate::{Bus, Heard};

/// Runs every case of a bus, on channels whose names begin with the prefix.
///
/// # Errors
/// The first case that does not hold.
pub async fn bus(bus: Arc<dyn Bus>, prefix: &str) -> Result<(), Failure> {
    let channel = |name: &str| format!("{prefix}.{name}");
    everyone_hears_all_in_order(&*bus, &channel("order"), &channel("other")).await?;
    what_was_before_is_not_heard(&*bus, &channel("before")).await?;
    a_dropped_future_loses_nothing(&*bus, &channel("dropped")).await?;
    whoever_is_too_slow_is_told(&*bus, &channel("slow")).await
}

async fn everyone_hears_all_in_order(bus: &dyn Bus, channel: &str, other: &str) -> Result<(), Failure> {
    let mut listeners = [bus.listen(channel).await?, bus.listen(channel).await?];
    for number in 0..100_u8 {
        bus.publish(other, vec![255]).await?;
        bus.publish(channel, vec![number]).await?;
    }
    for listener in &mut listeners {
        for number in 0..100_u8 {
            same("a message", &listener.heard().await?, &Heard::Message(vec![number]))?;
        }
    }
    Ok(())
}

async fn what_was_before_is_not_heard(bus: &dyn Bus, channel: &str) -> Result<(), Failure> {
    bus.publish(channel, b"before".to_vec()).await?;
    let mut listener = bus.listen(channel).await?;
    bus.publish(channel, b"after".to_vec()).await?;
    same("the first message", &listener.heard().await?, &Heard::Message(b"after".to_vec()))
}

async fn a_dropped_future_loses_nothing(bus: &dyn Bus, channel: &str) -> Result<(), Failure> {
    let mut listener = bus.listen(channel).await?;
    {
        // Asked once, and given up.
        let mut waiting = listener.heard();
        std::future::poll_fn(|context| {
            let _ = waiting.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    bus.publish(channel, b"one".to_vec()).await?;
    bus.publish(channel, b"two".to_vec()).await?;
    for expected in [b"one", b"two"] {
        same("a message", &listener.heard().await?, &Heard::Message(expected.to_vec()))?;
    }
    Ok(())
}

/// A bus is bounded, so somebody who does not listen in time misses something, and is told.
async fn whoever_is_too_slow_is_told(bus: &dyn Bus, channel: &str) -> Result<(), Failure> {
    const MANY: u32 = 25_000;
    let mut listener = bus.listen(channel).await?;
    for number in 0..MANY {
        bus.publish(channel, number.to_be_bytes().to_vec()).await?;
    }
    let (mut next, mut missed) = (0, false);
    while next < MANY {
        match listener.heard().await? {
            Heard::Missed => missed = true,
            Heard::Back => {}
            Heard::Message(bytes) => {
                let number = bytes.try_into().map(u32::from_be_bytes).unwrap_or(MANY);
                if number != next && !missed {
                    return Err(Failure::new(format!(
                        "{number} was heard after {next} messages, in silence"
                    )));
                }
                (next, missed) = (number + 1, false);
            }
        }
    }
    Ok(())
}
