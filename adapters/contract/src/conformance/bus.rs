//! Conformance cases of a [`Bus`].

use std::sync::Arc;
use std::time::Duration;

use super::{Failure, expect_eq};
use crate::{Bus, BusEvent, Consumer, MAX_DELIVERIES};

/// Runs all bus cases, on channels whose names begin with the prefix.
///
/// # Errors
/// The first failed case.
pub async fn bus(bus: Arc<dyn Bus>, prefix: &str) -> Result<(), Failure> {
    let channel = |name: &str| format!("{prefix}.{name}");
    all_listeners_receive_messages_in_order(&*bus, &channel("order"), &channel("other")).await?;
    listener_receives_only_later_messages(&*bus, &channel("before")).await?;
    dropped_future_loses_no_message(&*bus, &channel("dropped")).await?;
    slow_listener_receives_missed_event(&*bus, &channel("slow")).await?;
    each_group_receives_each_message_once(&*bus, &channel("groups")).await?;
    abandoned_message_is_redelivered(&*bus, &channel("abandoned")).await?;
    unacknowledged_message_becomes_dead_letter(&*bus, &channel("dead")).await?;
    full_queue_drops_oldest_messages(&*bus, &channel("bounded")).await
}

async fn all_listeners_receive_messages_in_order(
    bus: &dyn Bus,
    channel: &str,
    other: &str,
) -> Result<(), Failure> {
    let mut listeners = [bus.listen(channel).await?, bus.listen(channel).await?];
    for number in 0..100_u8 {
        bus.publish(other, vec![255]).await?;
        bus.publish(channel, vec![number]).await?;
    }
    for listener in &mut listeners {
        for number in 0..100_u8 {
            expect_eq("a message", &listener.recv().await?, &BusEvent::Message(vec![number]))?;
        }
    }
    Ok(())
}

async fn listener_receives_only_later_messages(bus: &dyn Bus, channel: &str) -> Result<(), Failure> {
    bus.publish(channel, b"before".to_vec()).await?;
    let mut listener = bus.listen(channel).await?;
    bus.publish(channel, b"after".to_vec()).await?;
    expect_eq("the first message", &listener.recv().await?, &BusEvent::Message(b"after".to_vec()))
}

async fn dropped_future_loses_no_message(bus: &dyn Bus, channel: &str) -> Result<(), Failure> {
    let mut listener = bus.listen(channel).await?;
    {
        // Polled once, then dropped.
        let mut waiting = listener.recv();
        std::future::poll_fn(|context| {
            let _ = waiting.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    bus.publish(channel, b"one".to_vec()).await?;
    bus.publish(channel, b"two".to_vec()).await?;
    for expected in [b"one", b"two"] {
        expect_eq("a message", &listener.recv().await?, &BusEvent::Message(expected.to_vec()))?;
    }
    Ok(())
}

/// A bus is bounded, so a listener that reads too slowly misses messages, and receives an event that says so.
async fn slow_listener_receives_missed_event(bus: &dyn Bus, channel: &str) -> Result<(), Failure> {
    const MESSAGE_COUNT: u32 = 25_000;
    let mut listener = bus.listen(channel).await?;
    for number in 0..MESSAGE_COUNT {
        bus.publish(channel, number.to_be_bytes().to_vec()).await?;
    }
    let (mut next, mut missed) = (0, false);
    while next < MESSAGE_COUNT {
        match listener.recv().await? {
            BusEvent::Missed => missed = true,
            BusEvent::Back => {}
            BusEvent::Message(bytes) => {
                let number = bytes.try_into().map(u32::from_be_bytes).unwrap_or(MESSAGE_COUNT);
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
const NO_TIMEOUT: Duration = Duration::from_secs(600);
const SHORT_TIMEOUT: Duration = Duration::from_millis(50);
/// Longer than a busy machine delays a consumer that extends its claim on a message.
const LONG_TIMEOUT: Duration = Duration::from_secs(1);

async fn each_group_receives_each_message_once(bus: &dyn Bus, queue: &str) -> Result<(), Failure> {
    bus.send(queue, b"before".to_vec()).await?;
    let [one, other] =
        [bus.consume(queue, "crew", NO_TIMEOUT).await?, bus.consume(queue, "crew", NO_TIMEOUT).await?];
    let alone = bus.consume(queue, "alone", NO_TIMEOUT).await?;
    for number in 0..100_u8 {
        bus.send(queue, vec![number]).await?;
    }
    for number in 0..100_u8 {
        // In the order of sending, whichever consumer takes it.
        let consumer = if number % 3 == 0 { &one } else { &other };
        let delivery = consumer.next().await?;
        expect_eq("a message of a group", &(delivery.message, delivery.times), &(vec![number], 1))?;
        consumer.acknowledge(&delivery.id).await?;
        let delivery = alone.next().await?;
        expect_eq("a message of another group", &delivery.message, &vec![number])?;
        alone.acknowledge(&delivery.id).await?;
    }
    bus.send(queue, b"last".to_vec()).await?;
    for consumer in [&one, &alone] {
        expect_eq("what comes after all others", &consumer.next().await?.message, &b"last".to_vec())?;
    }
    expect_eq("dead letters", &bus.dead_letters(queue, "crew").await?, &Vec::new())
}

async fn abandoned_message_is_redelivered(bus: &dyn Bus, queue: &str) -> Result<(), Failure> {
    let first = bus.consume(queue, "crew", NO_TIMEOUT).await?;
    for message in [b"kept", b"left"] {
        bus.send(queue, message.to_vec()).await?;
    }
    let (kept, left) = (first.next().await?, first.next().await?);
    expect_eq("the first message", &kept.message, &b"kept".to_vec())?;
    drop(first);
    let second = bus.consume(queue, "crew", NO_TIMEOUT).await?;
    let third = bus.consume(queue, "crew", LONG_TIMEOUT).await?;
    // A consumer that is still working on a message extends its claim.
    let extending = async {
        loop {
            second.keep(std::slice::from_ref(&kept.id)).await?;
            yield_once().await;
        }
    };
    let receiving = async {
        let delivery = third.next().await?;
        Ok::<_, Failure>(delivery)
    };
    let redelivery = run_with_background(extending, receiving).await?;
    expect_eq("what was abandoned", &(&redelivery.message, redelivery.times), &(&left.message, 2))?;
    third.acknowledge(&redelivery.id).await?;
    // The claim on the first message was extended until now; from here on it is abandoned.
    let redelivery = third.next().await?;
    expect_eq("what is kept no more", &redelivery.message, &kept.message)?;
    third.acknowledge(&redelivery.id).await?;
    bus.send(queue, b"last".to_vec()).await?;
    expect_eq("what comes after all others", &third.next().await?.message, &b"last".to_vec())
}

/// Yields once, so that everything else can make progress.
async fn yield_once() {
    let mut has_yielded = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut has_yielded, true) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// The outcome of the second future, while the first one runs concurrently.
async fn run_with_background<T>(
    background: impl Future<Output = Result<(), Failure>>,
    awaited: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (mut background, mut awaited) = (std::pin::pin!(background), std::pin::pin!(awaited));
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(Err(failure)) = background.as_mut().poll(context) {
            return std::task::Poll::Ready(Err(failure));
        }
        awaited.as_mut().poll(context)
    })
    .await
}

async fn unacknowledged_message_becomes_dead_letter(bus: &dyn Bus, queue: &str) -> Result<(), Failure> {
    let consumer: Arc<dyn Consumer> = bus.consume(queue, "crew", SHORT_TIMEOUT).await?;
    bus.send(queue, b"poison".to_vec()).await?;
    for times in 1..=MAX_DELIVERIES {
        let delivery = consumer.next().await?;
        expect_eq("poison", &(delivery.message, delivery.times), &(b"poison".to_vec(), times))?;
    }
    // The message is found abandoned once more, and is delivered to no consumer.
    let mut next = consumer.next();
    let mut dead = Vec::new();
    while dead.is_empty() {
        let polling = async {
            yield_once().await;
            Ok(bus.dead_letters(queue, "crew").await?)
        };
        let given = async {
            let delivery = next.as_mut().await?;
            Err(Failure::new(format!("{delivery:?} was given once more")))
        };
        dead = run_with_background(given, polling).await?;
    }
    expect_eq("dead letters", &dead, &vec![b"poison".to_vec()])?;
    bus.send(queue, b"wholesome".to_vec()).await?;
    expect_eq("what comes after it", &next.await?.message, &b"wholesome".to_vec())
}

/// A queue is bounded: the oldest messages are dropped first.
async fn full_queue_drops_oldest_messages(bus: &dyn Bus, queue: &str) -> Result<(), Failure> {
    const MESSAGE_COUNT: u32 = 25_000;
    let consumer = bus.consume(queue, "crew", NO_TIMEOUT).await?;
    for number in 0..MESSAGE_COUNT {
        bus.send(queue, number.to_be_bytes().to_vec()).await?;
    }
    let mut last = None;
    let mut count = 0;
    while last != Some(MESSAGE_COUNT - 1) {
        let delivery = consumer.next().await?;
        consumer.acknowledge(&delivery.id).await?;
        let number = delivery.message.try_into().map(u32::from_be_bytes).unwrap_or(MESSAGE_COUNT);
        if last.is_some_and(|last| number != last + 1) {
            return Err(Failure::new(format!("{number} was given after {last:?}")));
        }
        (last, count) = (Some(number), count + 1);
    }
    if count == MESSAGE_COUNT {
        Err(Failure::new(format!("all of {MESSAGE_COUNT} messages were kept")))
    } else {
        Ok(())
    }
}
