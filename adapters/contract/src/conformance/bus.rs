//! Conformance cases of a [`Bus`].

use std::sync::Arc;
use std::time::Duration;

use super::{Failure, same};
use crate::{Bus, BusEvent, Consumer, MAX_DELIVERIES};

/// Runs all bus cases, on channels whose names begin with the prefix.
///
/// # Errors
/// The first failed case.
pub async fn bus(bus: Arc<dyn Bus>, prefix: &str) -> Result<(), Failure> {
    let channel = |name: &str| format!("{prefix}.{name}");
    everyone_hears_all_in_order(&*bus, &channel("order"), &channel("other")).await?;
    what_was_before_is_not_heard(&*bus, &channel("before")).await?;
    a_dropped_future_loses_nothing(&*bus, &channel("dropped")).await?;
    whoever_is_too_slow_is_told(&*bus, &channel("slow")).await?;
    each_group_handles_each_message_once(&*bus, &channel("groups")).await?;
    what_is_abandoned_goes_to_another(&*bus, &channel("abandoned")).await?;
    what_is_never_acknowledged_is_a_dead_letter(&*bus, &channel("dead")).await?;
    what_nobody_takes_is_not_kept_for_ever(&*bus, &channel("bounded")).await
}

async fn everyone_hears_all_in_order(bus: &dyn Bus, channel: &str, other: &str) -> Result<(), Failure> {
    let mut listeners = [bus.listen(channel).await?, bus.listen(channel).await?];
    for number in 0..100_u8 {
        bus.publish(other, vec![255]).await?;
        bus.publish(channel, vec![number]).await?;
    }
    for listener in &mut listeners {
        for number in 0..100_u8 {
            same("a message", &listener.heard().await?, &BusEvent::Message(vec![number]))?;
        }
    }
    Ok(())
}

async fn what_was_before_is_not_heard(bus: &dyn Bus, channel: &str) -> Result<(), Failure> {
    bus.publish(channel, b"before".to_vec()).await?;
    let mut listener = bus.listen(channel).await?;
    bus.publish(channel, b"after".to_vec()).await?;
    same("the first message", &listener.heard().await?, &BusEvent::Message(b"after".to_vec()))
}

async fn a_dropped_future_loses_nothing(bus: &dyn Bus, channel: &str) -> Result<(), Failure> {
    let mut listener = bus.listen(channel).await?;
    {
        // Polled once, then dropped.
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
        same("a message", &listener.heard().await?, &BusEvent::Message(expected.to_vec()))?;
    }
    Ok(())
}

/// A bus is bounded, so a listener that reads too slowly misses messages, and receives an event that says so.
async fn whoever_is_too_slow_is_told(bus: &dyn Bus, channel: &str) -> Result<(), Failure> {
    const MANY: u32 = 25_000;
    let mut listener = bus.listen(channel).await?;
    for number in 0..MANY {
        bus.publish(channel, number.to_be_bytes().to_vec()).await?;
    }
    let (mut next, mut missed) = (0, false);
    while next < MANY {
        match listener.heard().await? {
            BusEvent::Missed => missed = true,
            BusEvent::Back => {}
            BusEvent::Message(bytes) => {
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

/// Longer than any case takes.
const NEVER: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(50);
/// Longer than a busy machine delays a consumer that extends its claim on a message.
const LATER: Duration = Duration::from_secs(1);

async fn each_group_handles_each_message_once(bus: &dyn Bus, queue: &str) -> Result<(), Failure> {
    bus.send(queue, b"before".to_vec()).await?;
    let [one, other] = [bus.consume(queue, "crew", NEVER).await?, bus.consume(queue, "crew", NEVER).await?];
    let alone = bus.consume(queue, "alone", NEVER).await?;
    for number in 0..100_u8 {
        bus.send(queue, vec![number]).await?;
    }
    for number in 0..100_u8 {
        // In the order of sending, whichever consumer takes it.
        let consumer = if number % 3 == 0 { &one } else { &other };
        let taken = consumer.next().await?;
        same("a message of a group", &(taken.message, taken.times), &(vec![number], 1))?;
        consumer.acknowledge(&taken.id).await?;
        let taken = alone.next().await?;
        same("a message of another group", &taken.message, &vec![number])?;
        alone.acknowledge(&taken.id).await?;
    }
    bus.send(queue, b"last".to_vec()).await?;
    for consumer in [&one, &alone] {
        same("what comes after all others", &consumer.next().await?.message, &b"last".to_vec())?;
    }
    same("dead letters", &bus.dead_letters(queue, "crew").await?, &Vec::new())
}

async fn what_is_abandoned_goes_to_another(bus: &dyn Bus, queue: &str) -> Result<(), Failure> {
    let first = bus.consume(queue, "crew", NEVER).await?;
    for message in [b"kept", b"left"] {
        bus.send(queue, message.to_vec()).await?;
    }
    let (kept, left) = (first.next().await?, first.next().await?);
    same("the first message", &kept.message, &b"kept".to_vec())?;
    drop(first);
    let second = bus.consume(queue, "crew", NEVER).await?;
    let third = bus.consume(queue, "crew", LATER).await?;
    // A consumer that is still working on a message extends its claim.
    let keeping = async {
        loop {
            second.keep(std::slice::from_ref(&kept.id)).await?;
            others_first().await;
        }
    };
    let taking = async {
        let taken = third.next().await?;
        Ok::<_, Failure>(taken)
    };
    let again = first_of(keeping, taking).await?;
    same("what was abandoned", &(&again.message, again.times), &(&left.message, 2))?;
    third.acknowledge(&again.id).await?;
    // The claim on the first message was extended until now; from here on it is abandoned.
    let again = third.next().await?;
    same("what is kept no more", &again.message, &kept.message)?;
    third.acknowledge(&again.id).await?;
    bus.send(queue, b"last".to_vec()).await?;
    same("what comes after all others", &third.next().await?.message, &b"last".to_vec())
}

/// Yields once, so that everything else can make progress.
async fn others_first() {
    let mut went = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut went, true) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// The outcome of the second future, while the first one runs concurrently.
async fn first_of<T>(
    beside: impl Future<Output = Result<(), Failure>>,
    awaited: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (mut beside, mut awaited) = (std::pin::pin!(beside), std::pin::pin!(awaited));
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(Err(failure)) = beside.as_mut().poll(context) {
            return std::task::Poll::Ready(Err(failure));
        }
        awaited.as_mut().poll(context)
    })
    .await
}

async fn what_is_never_acknowledged_is_a_dead_letter(bus: &dyn Bus, queue: &str) -> Result<(), Failure> {
    let consumer: Arc<dyn Consumer> = bus.consume(queue, "crew", SOON).await?;
    bus.send(queue, b"poison".to_vec()).await?;
    for times in 1..=MAX_DELIVERIES {
        let taken = consumer.next().await?;
        same("poison", &(taken.message, taken.times), &(b"poison".to_vec(), times))?;
    }
    // The message is found abandoned once more, and is delivered to no consumer.
    let mut next = consumer.next();
    let mut dead = Vec::new();
    while dead.is_empty() {
        let looking = async {
            others_first().await;
            Ok(bus.dead_letters(queue, "crew").await?)
        };
        let given = async {
            let taken = next.as_mut().await?;
            Err(Failure::new(format!("{taken:?} was given once more")))
        };
        dead = first_of(given, looking).await?;
    }
    same("dead letters", &dead, &vec![b"poison".to_vec()])?;
    bus.send(queue, b"wholesome".to_vec()).await?;
    same("what comes after it", &next.await?.message, &b"wholesome".to_vec())
}

/// A queue is bounded: the oldest messages are dropped first.
async fn what_nobody_takes_is_not_kept_for_ever(bus: &dyn Bus, queue: &str) -> Result<(), Failure> {
    const MANY: u32 = 25_000;
    let consumer = bus.consume(queue, "crew", NEVER).await?;
    for number in 0..MANY {
        bus.send(queue, number.to_be_bytes().to_vec()).await?;
    }
    let mut last = None;
    let mut count = 0;
    while last != Some(MANY - 1) {
        let taken = consumer.next().await?;
        consumer.acknowledge(&taken.id).await?;
        let number = taken.message.try_into().map(u32::from_be_bytes).unwrap_or(MANY);
        if last.is_some_and(|last| number != last + 1) {
            return Err(Failure::new(format!("{number} was given after {last:?}")));
        }
        (last, count) = (Some(number), count + 1);
    }
    if count == MANY { Err(Failure::new(format!("all of {MANY} messages were kept"))) } else { Ok(()) }
}
