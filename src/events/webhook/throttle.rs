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
pub(super) const WIDTH: usize = 64;
const EACH: usize = 4;
/// How many to the endpoints of one tenant, and to all degraded endpoints together.
const SHARE: usize = WIDTH / 2;
/// The longest response time of an endpoint that is not degraded.
const SLOW: Duration = Duration::from_secs(2);
/// How long no further message is sent to an endpoint after one failed; each further failure doubles it.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How long an endpoint without free capacity may go without a response before it counts as stuck.
const PATIENT: Duration = Duration::from_secs(1);
/// How long its due deliveries are postponed then; each failure after the first doubles it.
const PUT_OFF: Duration = Duration::from_secs(15);
pub(super) const LONGEST_PUT_OFF: Duration = Duration::from_secs(3600);
/// How long the state of an idle endpoint is kept.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How many endpoints a filter can exclude; the deliveries of further ones are skipped one by one.
const LEFT_OUT: usize = 1_000;

/// The state of every endpoint, as this node sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct EndpointThrottles(Arc<Mutex<HashMap<Uuid, EndpointThrottle>>>);

/// The state of one endpoint.
#[derive(Debug)]
struct EndpointThrottle {
    /// Its tenant; its owner where there is none.
    of: Option<String>,
    under_way: usize,
    failures: u32,
    is_slow: bool,
    rests_until: Option<Instant>,
    last: Instant,
    /// Since when, and for how long, due deliveries are postponed.
    put_off: Option<(Instant, Duration)>,
    /// Whether there may be deliveries that were postponed for longer than a claim holds.
    has_put_off: bool,
}

impl EndpointThrottle {
    const fn is_degraded(&self) -> bool {
        self.failures > 0 || self.is_slow
    }

    /// Whether no further response is expected soon.
    fn is_stuck(&self, now: Instant) -> bool {
        let rests = self.rests_until.is_some_and(|until| until > now);
        rests || self.is_busy(now) && now - self.last > PATIENT
    }

    fn off(&self) -> Duration {
        doubled(PUT_OFF, self.failures.saturating_sub(1), LONGEST_PUT_OFF)
    }

    fn is_busy(&self, now: Instant) -> bool {
        let most = if self.is_degraded() { 1 } else { EACH };
        self.under_way >= most || self.rests_until.is_some_and(|until| until > now)
    }
}

/// Capacity for one message to an endpoint, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    lines: EndpointThrottles,
    endpoint: Uuid,
}

impl Turn {
    fn line(&self, change: impl FnOnce(&mut EndpointThrottle)) {
        if let Some(line) = self.lines.held().get_mut(&self.endpoint) {
            change(line);
        }
    }

    /// Whether postponed deliveries are to be looked up, now that the endpoint responds again.
    pub(super) fn has_put_off(&self) -> bool {
        self.lines.held().get(&self.endpoint).is_some_and(|line| line.has_put_off)
    }

    /// Records that no deliveries are postponed any more.
    pub(super) fn nothing_put_off(&self) {
        self.line(|line| line.has_put_off = false);
    }

    /// Records whether an attempt succeeded, and its response time.
    pub(super) fn went(&self, well: bool, took: Duration) {
        self.line(|line| {
            line.is_slow = took > SLOW;
            if well {
                (line.failures, line.rests_until) = (0, None);
                return;
            }
            let rest = doubled(REST, line.failures, LONGEST_REST);
            line.failures = line.failures.saturating_add(1);
            line.rests_until = Some(Instant::now() + rest);
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.line(|line| {
            line.under_way = line.under_way.saturating_sub(1);
            line.last = Instant::now();
        });
    }
}

impl EndpointThrottles {
    fn held(&self) -> MutexGuard<'_, HashMap<Uuid, EndpointThrottle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes capacity for the endpoint of a delivery, where there is some.
    pub(super) fn enter(&self, delivery: &WebhookDelivery, room: usize) -> Option<Turn> {
        let mut lines = self.held();
        let of = delivery.tenant_id.as_ref().or(delivery.owner_id.as_ref());
        let share = |counts: &dyn Fn(&EndpointThrottle) -> bool| {
            lines.values().filter(|line| counts(line)).map(|line| line.under_way).sum::<usize>()
        };
        let known = lines.get(&delivery.endpoint_id);
        let is_busy = known.is_some_and(|line| line.is_busy(Instant::now()));
        let is_doubted = known.is_some_and(EndpointThrottle::is_degraded);
        if room == 0
            || is_busy
            || share(&|line| line.of.as_ref() == of) >= SHARE
            || is_doubted && share(&EndpointThrottle::is_degraded) >= SHARE
        {
            return None;
        }
        let line = lines.entry(delivery.endpoint_id).or_insert_with(|| EndpointThrottle {
            of: of.cloned(),
            under_way: 0,
            failures: 0,
            is_slow: false,
            rests_until: None,
            last: Instant::now(),
            put_off: None,
            // An earlier process may have postponed some.
            has_put_off: true,
        });
        if line.under_way == 0 {
            // The wait for a response begins now.
            line.last = Instant::now();
        }
        line.under_way += 1;
        Some(Turn { lines: self.clone(), endpoint: delivery.endpoint_id })
    }

    /// Endpoints without free capacity, as many as a filter can exclude.
    pub(super) fn busy(&self) -> Vec<Uuid> {
        let now = Instant::now();
        let mut lines = self.held();
        lines.retain(|_, line| line.under_way > 0 || now - line.last < REMEMBERED);
        let busy = lines.iter().filter(|(_, line)| line.is_busy(now));
        busy.map(|(endpoint, _)| *endpoint).take(LEFT_OUT).collect()
    }

    /// Endpoints whose deliveries are to be postponed, and for how long: no response is expected soon, and until then the
    /// deliveries would be scanned again and again.
    pub(super) fn stuck(&self) -> Vec<(Uuid, Duration)> {
        let now = Instant::now();
        let mut stuck = Vec::new();
        for (endpoint, line) in self.held().iter_mut() {
            if line.is_stuck(now) && line.put_off.is_none_or(|(at, off)| now - at >= off) {
                line.put_off = Some((now, line.off()));
                line.has_put_off = true;
                stuck.push((*endpoint, line.off()));
            }
        }
        stuck
    }

    /// For how long new deliveries of an endpoint are postponed from the start; `None` where they may be sent now.
    pub(super) fn puts_off(&self, endpoint: Uuid) -> Option<Duration> {
        let mut lines = self.held();
        let line = lines.get_mut(&endpoint).filter(|line| line.is_stuck(Instant::now()))?;
        line.has_put_off = true;
        Some(line.off())
    }

    /// Lets every endpoint be tried at once, whatever its earlier results.
    pub(super) fn rested(&self) {
        for line in self.held().values_mut() {
            (line.failures, line.is_slow, line.rests_until) = (0, false, None);
        }
    }
}

fn doubled(pause: Duration, times: u32, longest: Duration) -> Duration {
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
    fn turns(lines: &EndpointThrottles, delivery: &WebhookDelivery) -> Vec<Turn> {
        (0..10).map_while(|_| lines.enter(delivery, 1)).collect()
    }

    #[test]
    fn whoever_is_slow_or_failed_has_half_of_the_room_together() {
        let lines = EndpointThrottles::default();
        let doubted: Vec<_> = (0..WIDTH).map(|number| delivery(&format!("t{number}"))).collect();
        for (number, delivery) in doubted.iter().enumerate() {
            let turn = lines.enter(delivery, 1).unwrap();
            turn.went(number % 2 == 0, SLOW * 2);
        }
        assert_eq!(lines.busy().len(), WIDTH / 2, "those that failed rest");
        for line in lines.held().values_mut() {
            line.rests_until = None;
        }
        let taken: Vec<_> = doubted.iter().flat_map(|delivery| turns(&lines, delivery)).collect();
        assert_eq!(taken.len(), SHARE);
        assert_eq!(turns(&lines, &delivery("another")).len(), EACH);
    }

    #[test]
    fn a_tenant_has_half_of_the_room() {
        let lines = EndpointThrottles::default();
        let of_one: Vec<_> = (0..WIDTH).map(|_| delivery("one")).collect();
        let taken: Vec<_> = of_one.iter().flat_map(|delivery| turns(&lines, delivery)).collect();
        assert_eq!(taken.len(), SHARE);
        assert_eq!(turns(&lines, &delivery("another")).len(), EACH);
        drop(taken);
        assert_eq!(turns(&lines, &of_one[0]).len(), EACH);
    }

    #[test]
    fn what_is_due_is_put_off_where_nothing_is_answered_and_not_where_a_burst_begins() {
        let (lines, delivery) = (EndpointThrottles::default(), delivery("one"));
        let long_ago = |lines: &EndpointThrottles| {
            for line in lines.held().values_mut() {
                line.last -= PATIENT * 2;
            }
        };
        drop(turns(&lines, &delivery));
        long_ago(&lines);
        let taken = turns(&lines, &delivery);
        assert_eq!((taken.len(), lines.stuck()), (EACH, Vec::new()), "it was idle, and has just begun");
        long_ago(&lines);
        assert_eq!(lines.stuck(), [(delivery.endpoint_id, PUT_OFF)]);
        assert!(lines.stuck().is_empty(), "once for a while");
        assert_eq!(lines.puts_off(delivery.endpoint_id), Some(PUT_OFF), "what is new waits as well");
        drop(taken);
        for line in lines.held().values_mut() {
            line.put_off = None;
        }
        assert!(lines.stuck().is_empty(), "it has answered");
        assert_eq!(lines.puts_off(delivery.endpoint_id), None);
    }

    #[test]
    fn the_longer_an_endpoint_fails_the_longer_its_deliveries_are_put_off() {
        let (lines, delivery) = (EndpointThrottles::default(), delivery("one"));
        let off: Vec<_> = (0..10)
            .map(|_| {
                for line in lines.held().values_mut() {
                    line.rests_until = None;
                }
                let turn = lines.enter(&delivery, 1).unwrap();
                turn.went(false, Duration::ZERO);
                lines.puts_off(delivery.endpoint_id).unwrap()
            })
            .collect();
        assert_eq!(off[..3], [PUT_OFF, PUT_OFF * 2, PUT_OFF * 4]);
        assert_eq!(off.last(), Some(&LONGEST_PUT_OFF));
    }
}
