//! The feed of one client, in order: missed events, then changes as they happen, and heartbeats.
//!
//! A client joins first and then receives what it missed, up to where it joined: so there is neither a gap nor a repeat
//! between the two. A feed is the same for every transport.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Live;
use super::hub::{Subscription, Wanted};
use super::notification::{Kind, Notice};
use super::position::{Scope, StreamPosition};
use super::subscriber_queue::{End, Next};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::tables::events::EventRow;
use crate::tables::events::Position;

/// How many past events are read at once: few first, and more where they are small.
const FIRST: u32 = 16;
const STEP: u32 = 200;
/// How many bytes of past events wait to be sent before more are read.
const ENOUGH: usize = 256 << 10;

/// The request of a subscription, whose authorization is repeated while it lasts.
pub(crate) trait SubscriptionRequest: Send + Sync + 'static {
    /// What its caller may subscribe to now.
    fn wanted(&self) -> BoxFuture<'_, Result<Wanted, Error>>;

    /// A counter that is incremented when the caller is to be authorized again at once, where there is one.
    fn changed(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// The next item for a client. Positions are encrypted.
#[derive(Debug)]
pub(crate) enum FeedItem {
    /// Every change from here on is sent.
    Ready(String),
    Notice(Arc<Notice>, Option<String>),
    /// The state of the client is not to be relied on: it reads the data again, and continues from here.
    Reset(String),
    /// A heartbeat: no change for this client. The position is encrypted differently each time, so that it does not show
    /// whether anything happened at all.
    Beat(String),
    /// The client did not keep up.
    Lagged,
    /// The end of the feed, and its reason.
    End(&'static str),
}

/// Additional state of a client that resumes from a position.
#[derive(Debug)]
struct Resumed {
    /// Events that the client knows already although they come later.
    known: Vec<(usize, i64)>,
    /// Up to where past events are still to be sent.
    past: Option<Vec<Position>>,
    /// How many of them are read next.
    step: u32,
}

/// The feed of one client.
pub(crate) struct Feed {
    live: Arc<Live>,
    claim: Arc<dyn SubscriptionRequest>,
    /// Set until the end.
    subscription: Option<Subscription>,
    /// What its positions are bound to.
    scope: Arc<Scope>,
    /// Up to where everything was sent, in each database of the scope.
    at: Vec<Position>,
    /// Set where the client resumes from a position; most begin now, and do not carry its size.
    resumed: Option<Box<Resumed>>,
    waiting: VecDeque<FeedItem>,
    rights: watch::Receiver<u64>,
    /// The same for this caller alone.
    own: Option<watch::Receiver<u64>>,
    beat: Instant,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Feed {
    /// Opens a feed: from now on, or from a position that the client holds. `invalid` is the error for a position that it
    /// cannot hold.
    ///
    /// # Errors
    /// Where the client may not subscribe, or there are too many streams.
    pub(crate) async fn open(
        live: Arc<Live>,
        claim: Arc<dyn SubscriptionRequest>,
        after: Option<String>,
        invalid: impl FnOnce() -> Error + Send,
    ) -> Result<Self, Error> {
        let (rights, own) = (live.rights.subscribe(), claim.changed());
        let wanted = decided(&live, &claim).await?;
        let scope = wanted.scope.clone();
        let place = match after.map(|sealed| StreamPosition::open(&live.engine, &scope, &sealed)) {
            Some(Some(place)) => Some(place),
            Some(None) => return Err(invalid()),
            None => None,
        };
        let (subscription, seen) = live.join(wanted).await?;
        let pause = live.hub.limits().heartbeat;
        let scope = subscription.scope.clone();
        let can_catch_up = subscription.can_catch_up();
        let mut feed = Self {
            at: seen.clone(),
            subscription: Some(subscription),
            scope: scope.clone(),
            resumed: None,
            waiting: VecDeque::new(),
            rights,
            own,
            beat: Instant::now() + pause,
            claim,
            live: live.clone(),
        };
        match place {
            None => feed.waiting.push_back(FeedItem::Ready(feed.sealed())),
            Some((place, true))
                if (place.at == seen || can_catch_up)
                    && Box::pin(live.reaches_back_to(&scope, &place.at)).await? =>
            {
                feed.at = place.at;
                feed.resumed = Some(Box::new(Resumed { known: place.known, past: Some(seen), step: FIRST }));
                feed.waiting.push_back(FeedItem::Ready(feed.sealed()));
            }
            Some(_) => {
                let place = feed.sealed();
                feed.waiting.extend([FeedItem::Ready(place.clone()), FeedItem::Reset(place)]);
            }
        }
        Ok(feed)
    }

    /// The next item; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<FeedItem> {
        loop {
            if self.past().is_some() || !self.waiting.is_empty() {
                self.look_up().await;
            }
            if let Some(said) = self.waiting.pop_front() {
                if self.waiting.is_empty() {
                    // Most feeds send few items: their empty queues keep no capacity.
                    self.waiting = VecDeque::new();
                }
                return Some(said);
            }
            let subscription = self.subscription.as_ref()?;
            if self.past().is_some() {
                if let Err(error) = Box::pin(self.catch_up()).await {
                    tracing::warn!(error = format!("{error:#}"), "what a stream missed could not be read");
                    self.end("unavailable");
                }
                continue;
            }
            tokio::select! {
                biased;
                Some(()) = changed(&mut self.own) => Box::pin(self.renew()).await,
                () = tokio::time::sleep_until(self.beat) => Box::pin(self.look_after()).await,
                next = subscription.next() => match next {
                    Next::Look => Box::pin(self.renew()).await,
                    next => self.take(next),
                },
            }
        }
    }

    /// Checks whether the client may still receive what waits, since it may take its time to fetch that.
    async fn look_up(&mut self) {
        let Some(subscription) = &self.subscription else { return };
        if subscription.is_closing() {
            self.waiting.clear();
            return self.end("closing");
        }
        let is_due = Instant::now() >= self.beat;
        // A sender that is gone reports no change; that is handled where a change is awaited.
        let mut has_changed = false;
        for rights in self.own.iter_mut().chain([&mut self.rights]) {
            if rights.has_changed().unwrap_or(false) {
                rights.mark_unchanged();
                has_changed = true;
            }
        }
        if is_due {
            self.beat = self.next_beat();
        }
        if is_due || has_changed {
            Box::pin(self.renew()).await;
        }
        if is_due && self.past().is_some() {
            self.waiting.push_back(FeedItem::Beat(self.sealed()));
        }
    }

    /// The position of all subscribers that follow one database and have received everything up to here.
    pub(super) fn place_of<'a>(&self, notice: &'a Notice) -> &'a str {
        let place = || StreamPosition { at: vec![notice.position], known: Vec::new() };
        notice.place.get_or_init(|| place().seal_alike(&self.live.engine, &self.scope).into())
    }

    fn next_beat(&self) -> Instant {
        Instant::now() + self.live.hub.limits().heartbeat
    }

    /// Up to where past events are still to be sent.
    fn past(&self) -> Option<&[Position]> {
        self.resumed.as_ref()?.past.as_deref()
    }

    fn known(&self) -> &[(usize, i64)] {
        self.resumed.as_ref().map_or(&[], |resumed| &resumed.known)
    }

    /// Forgets a known event that has come: it does not come again.
    fn meet(&mut self, known: (usize, i64)) {
        if let Some(resumed) = &mut self.resumed {
            resumed.known.retain(|one| *one != known);
        }
    }

    /// Forgets all known events: the client knows none of those that come from here on.
    fn forget_known(&mut self) {
        if let Some(resumed) = &mut self.resumed {
            resumed.known.clear();
        }
    }

    fn end_past(&mut self) {
        if let Some(resumed) = &mut self.resumed {
            resumed.past = None;
        }
    }

    fn sealed(&self) -> String {
        let place = StreamPosition { at: self.at.clone(), known: self.known().to_vec() };
        place.seal(&self.live.engine, &self.scope)
    }

    fn end(&mut self, why: &'static str) {
        self.waiting.push_back(FeedItem::End(why));
        // Its subscription is freed at once, however slow the client is.
        self.subscription = None;
    }

    fn take(&mut self, next: Next) {
        match next {
            // Rights have just been checked; they are checked once more.
            Next::Look => self.beat = Instant::now(),
            Next::Notice(notice) => self.tell(notice),
            Next::End(End::Lagged) => {
                self.waiting.push_back(FeedItem::Lagged);
                self.subscription = None;
            }
            Next::End(End::Closing) => self.end("closing"),
        }
    }

    /// Adds a change to the feed, unless the client knows it.
    fn tell(&mut self, notice: Arc<Notice>) {
        let Some(subscription) = &self.subscription else { return };
        let databases = &subscription.scope.databases;
        let Some(index) = databases.iter().position(|database| *database == notice.database) else { return };
        let is_shared = databases.len() == 1;
        let is_new = notice.position > self.at[index];
        let is_reset = notice.kind == Kind::Reset;
        // Several classes of one stream may have notices of one change; and a restored database continues at an earlier
        // position.
        if !is_new && !(is_reset && (is_shared || notice.position < self.at[index])) {
            return;
        }
        self.at[index] = notice.position;
        let known = (notice.database, notice.position.sequence);
        if is_reset {
            self.forget_known();
            self.waiting.push_back(FeedItem::Reset(self.sealed()));
        } else if self.known().contains(&known) {
            self.meet(known);
        } else {
            let own = (!is_shared || !self.known().is_empty()).then(|| self.sealed());
            self.waiting.push_back(FeedItem::Notice(notice, own));
        }
    }

    /// Adds a part of the missed events to the feed.
    async fn catch_up(&mut self) -> Result<(), Error> {
        let (Some(past), Some(subscription)) = (self.past(), &self.subscription) else { return Ok(()) };
        let behind = self.at.iter().zip(past).position(|(at, past)| at < past);
        let Some(index) = behind else {
            self.end_past();
            return Ok(());
        };
        let (from, to) = (self.at[index], past[index]);
        let database = subscription.scope.databases[index];
        let (engine, of) = (self.live.engine.clone(), subscription.resources(database));
        let step = self.resumed.as_ref().map_or(FIRST, |resumed| resumed.step);
        let reading = read(engine.clone(), database, from, step, of);
        let (rows, is_whole) = self.live.hub.reading.take(reading).await?;
        if !is_whole {
            // Events were cleared while the client was still reading earlier ones.
            self.at = past.to_vec();
            self.resumed = None;
            self.waiting.push_back(FeedItem::Reset(self.sealed()));
            return Ok(());
        }
        let mut is_last =
            rows.len() < step as usize || rows.last().is_some_and(|row| Position::of(row) >= to);
        let (mut notices, mut met, mut bytes, mut used, mut reached) = (Vec::new(), Vec::new(), 0, 0, from);
        for row in rows.iter().filter(|row| Position::of(row) <= to) {
            if bytes > ENOUGH {
                // The rest is read again when these have been fetched, no more than this many at a time.
                is_last = false;
                break;
            }
            let told = subscription.replayed(&engine, database, row).await;
            if told.is_empty() {
                met.push((database, row.sequence));
            }
            bytes += told.iter().map(|notice| notice.json.len()).sum::<usize>();
            notices.extend(told);
            (used, reached) = (used + 1, Position::of(row));
        }
        for known in met {
            self.meet(known);
        }
        if let Some(resumed) = &mut self.resumed {
            resumed.step = if bytes > ENOUGH { used } else { STEP.min(step * 2) };
        }
        let reached = if is_last { to } else { reached };
        for notice in notices {
            self.tell(notice);
        }
        self.at[index] = self.at[index].max(reached);
        Ok(())
    }

    /// Sends a heartbeat, where the client is still authorized.
    async fn look_after(&mut self) {
        self.beat = self.next_beat();
        self.renew().await;
        let Some(subscription) = &self.subscription else { return };
        let done = match subscription.idle() {
            Ok(next) => return self.take(next),
            Err(done) => done,
        };
        for (at, done) in self.at.iter_mut().zip(done) {
            *at = done.map_or(*at, |done| done.max(*at));
        }
        self.waiting.push_back(FeedItem::Beat(self.sealed()));
    }

    /// Authorizes the subscription again.
    async fn renew(&mut self) {
        let live = self.live.clone();
        self.rights.mark_unchanged();
        if let Some(subscription) = &self.subscription {
            subscription.looked();
        }
        let wanted = match decided(&live, &self.claim).await {
            Ok(wanted) => wanted,
            Err(error) => {
                let why = match error.kind() {
                    ErrorKind::Unauthenticated => "unauthenticated",
                    // A request that was valid at the beginning may be invalid with the rights that are left.
                    ErrorKind::Forbidden | ErrorKind::NotFound | ErrorKind::BadRequest => "forbidden",
                    _ => "unavailable",
                };
                // Waiting items were authorized by the former rights.
                self.waiting.retain(|said| matches!(said, FeedItem::Ready(_)));
                return self.end(why);
            }
        };
        if let Some(subscription) = self.subscription.as_mut().filter(|one| one.is_told_as(&wanted.scope)) {
            if self.live.hub.hand_over(subscription, wanted.who).is_err() {
                self.end("unavailable");
            }
            return;
        }
        self.subscription = None;
        self.waiting.retain(|said| matches!(said, FeedItem::Ready(_)));
        match self.live.join(wanted).await {
            Ok((subscription, seen)) => {
                (self.at, self.resumed) = (seen, None);
                self.scope = subscription.scope.clone();
                self.subscription = Some(subscription);
                self.waiting.push_back(FeedItem::Reset(self.sealed()));
            }
            Err(error) => {
                tracing::debug!(%error, "a stream could not go on with other rights");
                self.end("unavailable");
            }
        }
    }
}

/// The next past events, and whether none of them was cleared.
async fn read(
    engine: Arc<Engine>,
    database: usize,
    from: Position,
    step: u32,
    of: Vec<Arc<str>>,
) -> Result<(Vec<EventRow>, bool), Error> {
    let recorded = engine.outbox.storages();
    let vault = recorded.get(database).ok_or_else(|| Error::internal("a database is not there"))?;
    let rows = engine.outbox.published_after(vault, from, step, Some(&of)).await?;
    // Checked after reading: events that were cleared meanwhile may have been among them.
    Ok((rows, engine.outbox.bounds(vault).await?.reach_back_to(from)))
}

/// What a caller may subscribe to, decided under the concurrency limit.
async fn decided(live: &Live, claim: &Arc<dyn SubscriptionRequest>) -> Result<Wanted, Error> {
    let claim = claim.clone();
    live.hub.deciding.take(async move { claim.wanted().await }).await
}

/// Waits for the counter to change; `None` where it never will.
async fn changed(own: &mut Option<watch::Receiver<u64>>) -> Option<()> {
    // Boxed, so that feeds whose caller cannot present another credential do not carry its size.
    Box::pin(own.as_mut()?.changed()).await.ok()
}
