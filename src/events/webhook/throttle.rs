//! Throttles deliveries per endpoint and tenant, so that slow or failing endpoints do not delay the others.
//!
//! Of a node's capacity, no tenant takes more than half, and neither do all endpoints together that failed last or were
//! slow: whatever they do, capacity is left for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::delivery::WebhookDelivery;

/// How many messages are sent at once, and how many of them to one endpoint.
pub(super) const MAX_IN_FLIGHT: usize = 64;
const MAX_PER_ENDPOINT: usize = 4;
/// How many to the endpoints of one tenant, and to all degraded endpoints together.
const MAX_SHARE: usize = MAX_IN_FLIGHT / 2;
/// The longest response time of an endpoint that is not degraded.
const SLOW_RESPONSE: Duration = Duration::from_secs(2);
/// How long no further message is sent to an endpoint after one failed; each further failure doubles it.
const COOLDOWN: Duration = Duration::from_secs(1);
const MAX_COOLDOWN: Duration = Duration::from_secs(60);
/// How long an endpoint without free capacity may go without a response before it counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How long its due deliveries are postponed then; each failure after the first doubles it.
const POSTPONEMENT: Duration = Duration::from_secs(15);
pub(super) const MAX_POSTPONEMENT: Duration = Duration::from_secs(3600);
/// How long the state of an idle endpoint is kept.
const IDLE_RETENTION: Duration = Duration::from_secs(3600);
/// How many endpoints a filter can exclude; the deliveries of further ones are skipped one by one.
const MAX_EXCLUDED: usize = 1_000;

/// The state of every endpoint, as this node sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct EndpointThrottles(Arc<Mutex<HashMap<Uuid, EndpointThrottle>>>);

/// The state of one endpoint.
#[derive(Debug)]
struct EndpointThrottle {
    /// Its tenant; its owner where there is none.
    owner: Option<String>,
    in_flight: usize,
    failures: u32,
    is_slow: bool,
    cooldown_until: Option<Instant>,
    last_activity: Instant,
    /// Since when, and for how long, due deliveries are postponed.
    postponed: Option<(Instant, Duration)>,
    /// Whether there may be deliveries that were postponed for longer than a claim holds.
    has_postponed: bool,
}

impl EndpointThrottle {
    const fn is_degraded(&self) -> bool {
        self.failures > 0 || self.is_slow
    }

    /// Whether no further response is expected soon.
    fn is_stuck(&self, now: Instant) -> bool {
        let is_cooling_down = self.cooldown_until.is_some_and(|until| until > now);
        is_cooling_down || self.is_busy(now) && now - self.last_activity > STUCK_AFTER
    }

    fn next_postponement(&self) -> Duration {
        backoff(POSTPONEMENT, self.failures.saturating_sub(1), MAX_POSTPONEMENT)
    }

    fn is_busy(&self, now: Instant) -> bool {
        let most = if self.is_degraded() { 1 } else { MAX_PER_ENDPOINT };
        self.in_flight >= most || self.cooldown_until.is_some_and(|until| until > now)
    }
}

/// Capacity for one message to an endpoint, until it is dropped.
#[derive(Debug)]
pub(super) struct DeliveryPermit {
    throttles: EndpointThrottles,
    endpoint: Uuid,
}

impl DeliveryPermit {
    fn update(&self, change: impl FnOnce(&mut EndpointThrottle)) {
        if let Some(throttle) = self.throttles.lock().get_mut(&self.endpoint) {
            change(throttle);
        }
    }

    /// Whether postponed deliveries are to be looked up, now that the endpoint responds again.
    pub(super) fn has_postponed(&self) -> bool {
        self.throttles.lock().get(&self.endpoint).is_some_and(|throttle| throttle.has_postponed)
    }

    /// Records that no deliveries are postponed any more.
    pub(super) fn clear_postponed(&self) {
        self.update(|throttle| throttle.has_postponed = false);
    }

    /// Records whether an attempt succeeded, and its response time.
    pub(super) fn record_result(&self, is_success: bool, response_time: Duration) {
        self.update(|throttle| {
            throttle.is_slow = response_time > SLOW_RESPONSE;
            if is_success {
                (throttle.failures, throttle.cooldown_until) = (0, None);
                return;
            }
            let cooldown = backoff(COOLDOWN, throttle.failures, MAX_COOLDOWN);
            throttle.failures = throttle.failures.saturating_add(1);
            throttle.cooldown_until = Some(Instant::now() + cooldown);
        });
    }
}

impl Drop for DeliveryPermit {
    fn drop(&mut self) {
        self.update(|throttle| {
            throttle.in_flight = throttle.in_flight.saturating_sub(1);
            throttle.last_activity = Instant::now();
        });
    }
}

impl EndpointThrottles {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, EndpointThrottle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes capacity for the endpoint of a delivery, where there is some.
    pub(super) fn acquire(&self, delivery: &WebhookDelivery, capacity: usize) -> Option<DeliveryPermit> {
        let mut throttles = self.lock();
        let owner = delivery.tenant_id.as_ref().or(delivery.owner_id.as_ref());
        let share = |counts: &dyn Fn(&EndpointThrottle) -> bool| {
            throttles
                .values()
                .filter(|throttle| counts(throttle))
                .map(|throttle| throttle.in_flight)
                .sum::<usize>()
        };
        let known = throttles.get(&delivery.endpoint_id);
        let is_busy = known.is_some_and(|throttle| throttle.is_busy(Instant::now()));
        let is_degraded = known.is_some_and(EndpointThrottle::is_degraded);
        if capacity == 0
            || is_busy
            || share(&|throttle| throttle.owner.as_ref() == owner) >= MAX_SHARE
            || is_degraded && share(&EndpointThrottle::is_degraded) >= MAX_SHARE
        {
            return None;
        }
        let throttle = throttles.entry(delivery.endpoint_id).or_insert_with(|| EndpointThrottle {
            owner: owner.cloned(),
            in_flight: 0,
            failures: 0,
            is_slow: false,
            cooldown_until: None,
            last_activity: Instant::now(),
            postponed: None,
            // An earlier process may have postponed some.
            has_postponed: true,
        });
        if throttle.in_flight == 0 {
            // The wait for a response begins now.
            throttle.last_activity = Instant::now();
        }
        throttle.in_flight += 1;
        Some(DeliveryPermit { throttles: self.clone(), endpoint: delivery.endpoint_id })
    }

    /// Endpoints without free capacity, as many as a filter can exclude.
    pub(super) fn busy_endpoints(&self) -> Vec<Uuid> {
        let now = Instant::now();
        let mut throttles = self.lock();
        throttles
            .retain(|_, throttle| throttle.in_flight > 0 || now - throttle.last_activity < IDLE_RETENTION);
        let busy = throttles.iter().filter(|(_, throttle)| throttle.is_busy(now));
        busy.map(|(endpoint, _)| *endpoint).take(MAX_EXCLUDED).collect()
    }

    /// Endpoints whose deliveries are to be postponed, and for how long: no response is expected soon, and until then the
    /// deliveries would be scanned again and again.
    pub(super) fn stuck_endpoints(&self) -> Vec<(Uuid, Duration)> {
        let now = Instant::now();
        let mut stuck = Vec::new();
        for (endpoint, throttle) in self.lock().iter_mut() {
            if throttle.is_stuck(now) && throttle.postponed.is_none_or(|(at, delay)| now - at >= delay) {
                throttle.postponed = Some((now, throttle.next_postponement()));
                throttle.has_postponed = true;
                stuck.push((*endpoint, throttle.next_postponement()));
            }
        }
        stuck
    }

    /// For how long new deliveries of an endpoint are postponed from the start; `None` where they may be sent now.
    pub(super) fn postponement(&self, endpoint: Uuid) -> Option<Duration> {
        let mut throttles = self.lock();
        let throttle = throttles.get_mut(&endpoint).filter(|throttle| throttle.is_stuck(Instant::now()))?;
        throttle.has_postponed = true;
        Some(throttle.next_postponement())
    }

    /// Lets every endpoint be tried at once, whatever its earlier results.
    pub(super) fn reset(&self) {
        for throttle in self.lock().values_mut() {
            (throttle.failures, throttle.is_slow, throttle.cooldown_until) = (0, false, None);
        }
    }
}

fn backoff(pause: Duration, times: u32, longest: Duration) -> Duration {
    pause.saturating_mul(1 << times.min(20)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::webhook::endpoint::WebhookEndpoint;
    use crate::outbox::Event;

    fn delivery(tenant: &str) -> WebhookDelivery {
        let now = crate::clock::now();
        let endpoint = serde_json::json!({
            "id": Uuid::new_v4(), "url": "", "events": [], "tenant_id": tenant, "created_at": now, "updated_at": now,
        });
        let endpoint: WebhookEndpoint = serde_json::from_value(endpoint).unwrap();
        let event = serde_json::json!({
            "specversion": "1.0", "id": Uuid::new_v4(), "source": "/orders", "type": "orders.created", "subject": "7",
            "time": now, "datacontenttype": "application/json", "sequence": "1", "data": {},
        });
        WebhookDelivery::new(&endpoint, &serde_json::from_value::<Event>(event).unwrap()).unwrap()
    }

    /// Takes as many turns as there are, at most ten for one delivery.
    fn permits_for(throttles: &EndpointThrottles, delivery: &WebhookDelivery) -> Vec<DeliveryPermit> {
        (0..10).map_while(|_| throttles.acquire(delivery, 1)).collect()
    }

    #[test]
    fn degraded_endpoints_share_half_of_capacity() {
        let throttles = EndpointThrottles::default();
        let degraded: Vec<_> = (0..MAX_IN_FLIGHT).map(|number| delivery(&format!("t{number}"))).collect();
        for (number, delivery) in degraded.iter().enumerate() {
            let permit = throttles.acquire(delivery, 1).unwrap();
            permit.record_result(number % 2 == 0, SLOW_RESPONSE * 2);
        }
        assert_eq!(throttles.busy_endpoints().len(), MAX_IN_FLIGHT / 2, "those that failed rest");
        for throttle in throttles.lock().values_mut() {
            throttle.cooldown_until = None;
        }
        let permits: Vec<_> =
            degraded.iter().flat_map(|delivery| permits_for(&throttles, delivery)).collect();
        assert_eq!(permits.len(), MAX_SHARE);
        assert_eq!(permits_for(&throttles, &delivery("another")).len(), MAX_PER_ENDPOINT);
    }

    #[test]
    fn tenant_gets_half_of_capacity() {
        let throttles = EndpointThrottles::default();
        let of_one: Vec<_> = (0..MAX_IN_FLIGHT).map(|_| delivery("one")).collect();
        let permits: Vec<_> = of_one.iter().flat_map(|delivery| permits_for(&throttles, delivery)).collect();
        assert_eq!(permits.len(), MAX_SHARE);
        assert_eq!(permits_for(&throttles, &delivery("another")).len(), MAX_PER_ENDPOINT);
        drop(permits);
        assert_eq!(permits_for(&throttles, &of_one[0]).len(), MAX_PER_ENDPOINT);
    }

    #[test]
    fn stuck_endpoint_is_postponed_and_burst_is_not() {
        let (throttles, delivery) = (EndpointThrottles::default(), delivery("one"));
        let long_ago = |throttles: &EndpointThrottles| {
            for throttle in throttles.lock().values_mut() {
                throttle.last_activity -= STUCK_AFTER * 2;
            }
        };
        drop(permits_for(&throttles, &delivery));
        long_ago(&throttles);
        let permits = permits_for(&throttles, &delivery);
        assert_eq!(
            (permits.len(), throttles.stuck_endpoints()),
            (MAX_PER_ENDPOINT, Vec::new()),
            "it was idle, and has just begun"
        );
        long_ago(&throttles);
        assert_eq!(throttles.stuck_endpoints(), [(delivery.endpoint_id, POSTPONEMENT)]);
        assert!(throttles.stuck_endpoints().is_empty(), "once for a while");
        assert_eq!(
            throttles.postponement(delivery.endpoint_id),
            Some(POSTPONEMENT),
            "what is new waits as well"
        );
        drop(permits);
        for throttle in throttles.lock().values_mut() {
            throttle.postponed = None;
        }
        assert!(throttles.stuck_endpoints().is_empty(), "it has answered");
        assert_eq!(throttles.postponement(delivery.endpoint_id), None);
    }

    #[test]
    fn postponement_doubles_with_each_failure() {
        let (throttles, delivery) = (EndpointThrottles::default(), delivery("one"));
        let delay: Vec<_> = (0..10)
            .map(|_| {
                for throttle in throttles.lock().values_mut() {
                    throttle.cooldown_until = None;
                }
                let permit = throttles.acquire(&delivery, 1).unwrap();
                permit.record_result(false, Duration::ZERO);
                throttles.postponement(delivery.endpoint_id).unwrap()
            })
            .collect();
        assert_eq!(delay[..3], [POSTPONEMENT, POSTPONEMENT * 2, POSTPONEMENT * 4]);
        assert_eq!(delay.last(), Some(&MAX_POSTPONEMENT));
    }
}
