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
use super::hub::{Subscription, SubscriptionSpec};
use super::notification::{Notice, NoticeKind};
use super::position::{StreamPosition, StreamScope};
use super::subscriber_queue::{EndReason, QueueItem};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::tables::events::EventRow;
use crate::tables::events::Position;

/// How many past events are read at once: few first, and more where they are small.
const FIRST_BATCH_SIZE: u32 = 16;
const MAX_BATCH_SIZE: u32 = 200;
/// How many bytes of past events wait to be sent before more are read.
const MAX_BUFFERED_BYTES: usize = 256 << 10;

/// The request of a subscription, whose authorization is repeated while it lasts.
pub(crate) trait SubscriptionRequest: Send + Sync + 'static {
    /// What its caller may subscribe to now.
    fn authorize(&self) -> BoxFuture<'_, Result<SubscriptionSpec, Error>>;

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
    Heartbeat(String),
    /// The client did not keep up.
    Lagged,
    /// The end of the feed, and its reason.
    End(&'static str),
}

/// Additional state of a client that resumes from a position.
#[derive(Debug)]
struct ResumeState {
    /// Events that the client knows already although they come later.
    known: Vec<(usize, i64)>,
    /// Up to where past events are still to be sent.
    replay_until: Option<Vec<Position>>,
    /// How many of them are read next.
    batch_size: u32,
}

/// The feed of one client.
pub(crate) struct Feed {
    live: Arc<Live>,
    claim: Arc<dyn SubscriptionRequest>,
    /// Set until the end.
    subscription: Option<Subscription>,
    /// What its positions are bound to.
    scope: Arc<StreamScope>,
    /// Up to where everything was sent, in each database of the scope.
    positions: Vec<Position>,
    /// Set where the client resumes from a position; most begin now, and do not carry its size.
    resumed: Option<Box<ResumeState>>,
    pending: VecDeque<FeedItem>,
    rights: watch::Receiver<u64>,
    /// The same for this caller alone.
    credential_changes: Option<watch::Receiver<u64>>,
    next_heartbeat: Instant,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("at", &self.positions).finish_non_exhaustive()
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
        let spec = authorize_limited(&live, &claim).await?;
        let scope = spec.scope.clone();
        let position = match after.map(|sealed| StreamPosition::open(&live.engine, &scope, &sealed)) {
            Some(Some(position)) => Some(position),
            Some(None) => return Err(invalid()),
            None => None,
        };
        let (subscription, joined_at) = live.join(spec).await?;
        let interval = live.hub.limits().heartbeat;
        let scope = subscription.scope.clone();
        let can_catch_up = subscription.can_replay();
        let mut feed = Self {
            positions: joined_at.clone(),
            subscription: Some(subscription),
            scope: scope.clone(),
            resumed: None,
            pending: VecDeque::new(),
            rights,
            credential_changes: own,
            next_heartbeat: Instant::now() + interval,
            claim,
            live: live.clone(),
        };
        match position {
            None => feed.pending.push_back(FeedItem::Ready(feed.seal_position())),
            Some((position, true))
                if (position.positions == joined_at || can_catch_up)
                    && Box::pin(live.can_replay_from(&scope, &position.positions)).await? =>
            {
                feed.positions = position.positions;
                feed.resumed = Some(Box::new(ResumeState {
                    known: position.known,
                    replay_until: Some(joined_at),
                    batch_size: FIRST_BATCH_SIZE,
                }));
                feed.pending.push_back(FeedItem::Ready(feed.seal_position()));
            }
            Some(_) => {
                let position = feed.seal_position();
                feed.pending.extend([FeedItem::Ready(position.clone()), FeedItem::Reset(position)]);
            }
        }
        Ok(feed)
    }

    /// The next item; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<FeedItem> {
        loop {
            if self.replay_until().is_some() || !self.pending.is_empty() {
                self.check_pending().await;
            }
            if let Some(item) = self.pending.pop_front() {
                if self.pending.is_empty() {
                    // Most feeds send few items: their empty queues keep no capacity.
                    self.pending = VecDeque::new();
                }
                return Some(item);
            }
            let subscription = self.subscription.as_ref()?;
            if self.replay_until().is_some() {
                if let Err(error) = Box::pin(self.catch_up()).await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the missed events of a stream could not be read"
                    );
                    self.end("unavailable");
                }
                continue;
            }
            tokio::select! {
                biased;
                Some(()) = changed(&mut self.credential_changes) => Box::pin(self.reauthorize()).await,
                () = tokio::time::sleep_until(self.next_heartbeat) => Box::pin(self.send_heartbeat()).await,
                next = subscription.next() => match next {
                    QueueItem::Recheck => Box::pin(self.reauthorize()).await,
                    next => self.handle_next(next),
                },
            }
        }
    }

    /// Checks whether the client may still receive what waits, since it may take its time to fetch that.
    async fn check_pending(&mut self) {
        let Some(subscription) = &self.subscription else { return };
        if subscription.is_closing() {
            self.pending.clear();
            return self.end("closing");
        }
        let is_due = Instant::now() >= self.next_heartbeat;
        // A sender that is gone reports no change; that is handled where a change is awaited.
        let mut has_changed = false;
        for rights in self.credential_changes.iter_mut().chain([&mut self.rights]) {
            if rights.has_changed().unwrap_or(false) {
                rights.mark_unchanged();
                has_changed = true;
            }
        }
        if is_due {
            self.next_heartbeat = self.heartbeat_deadline();
        }
        if is_due || has_changed {
            Box::pin(self.reauthorize()).await;
        }
        if is_due && self.replay_until().is_some() {
            self.pending.push_back(FeedItem::Heartbeat(self.seal_position()));
        }
    }

    /// The position of all subscribers that follow one database and have received everything up to here.
    pub(super) fn shared_position<'a>(&self, notice: &'a Notice) -> &'a str {
        let position = || StreamPosition { positions: vec![notice.position], known: Vec::new() };
        notice
            .shared_position
            .get_or_init(|| position().seal_deterministic(&self.live.engine, &self.scope).into())
    }

    fn heartbeat_deadline(&self) -> Instant {
        Instant::now() + self.live.hub.limits().heartbeat
    }

    /// Up to where past events are still to be sent.
    fn replay_until(&self) -> Option<&[Position]> {
        self.resumed.as_ref()?.replay_until.as_deref()
    }

    fn known(&self) -> &[(usize, i64)] {
        self.resumed.as_ref().map_or(&[], |resumed| &resumed.known)
    }

    /// Forgets a known event that has come: it does not come again.
    fn remove_known(&mut self, known: (usize, i64)) {
        if let Some(resumed) = &mut self.resumed {
            resumed.known.retain(|one| *one != known);
        }
    }

    /// Forgets all known events: the client knows none of those that come from here on.
    fn clear_known(&mut self) {
        if let Some(resumed) = &mut self.resumed {
            resumed.known.clear();
        }
    }

    fn end_replay(&mut self) {
        if let Some(resumed) = &mut self.resumed {
            resumed.replay_until = None;
        }
    }

    fn seal_position(&self) -> String {
        let position = StreamPosition { positions: self.positions.clone(), known: self.known().to_vec() };
        position.seal(&self.live.engine, &self.scope)
    }

    fn end(&mut self, reason: &'static str) {
        self.pending.push_back(FeedItem::End(reason));
        // Its subscription is freed at once, however slow the client is.
        self.subscription = None;
    }

    fn handle_next(&mut self, next: QueueItem) {
        match next {
            // Rights have just been checked; they are checked once more.
            QueueItem::Recheck => self.next_heartbeat = Instant::now(),
            QueueItem::Notice(notice) => self.push_notice(notice),
            QueueItem::End(EndReason::Lagged) => {
                self.pending.push_back(FeedItem::Lagged);
                self.subscription = None;
            }
            QueueItem::End(EndReason::Closing) => self.end("closing"),
        }
    }

    /// Adds a change to the feed, unless the client knows it.
    fn push_notice(&mut self, notice: Arc<Notice>) {
        let Some(subscription) = &self.subscription else { return };
        let databases = &subscription.scope.databases;
        let Some(index) = databases.iter().position(|database| *database == notice.database) else { return };
        let is_shared = databases.len() == 1;
        let is_new = notice.position > self.positions[index];
        let is_reset = notice.kind == NoticeKind::Reset;
        // Several classes of one stream may have notices of one change; and a restored database continues at an earlier
        // position.
        if !is_new && !(is_reset && (is_shared || notice.position < self.positions[index])) {
            return;
        }
        self.positions[index] = notice.position;
        let known = (notice.database, notice.position.sequence);
        if is_reset {
            self.clear_known();
            self.pending.push_back(FeedItem::Reset(self.seal_position()));
        } else if self.known().contains(&known) {
            self.remove_known(known);
        } else {
            let own = (!is_shared || !self.known().is_empty()).then(|| self.seal_position());
            self.pending.push_back(FeedItem::Notice(notice, own));
        }
    }

    /// Adds a part of the missed events to the feed.
    async fn catch_up(&mut self) -> Result<(), Error> {
        let (Some(past), Some(subscription)) = (self.replay_until(), &self.subscription) else {
            return Ok(());
        };
        let behind = self.positions.iter().zip(past).position(|(at, past)| at < past);
        let Some(index) = behind else {
            self.end_replay();
            return Ok(());
        };
        let (from, to) = (self.positions[index], past[index]);
        let database = subscription.scope.databases[index];
        let (engine, resources) = (self.live.engine.clone(), subscription.resources(database));
        let batch_size = self.resumed.as_ref().map_or(FIRST_BATCH_SIZE, |resumed| resumed.batch_size);
        let reading = read_past_events(engine.clone(), database, from, batch_size, resources);
        let (rows, is_complete) = self.live.hub.resource_read.run(reading).await?;
        if !is_complete {
            // Events were cleared while the client was still reading earlier ones.
            self.positions = past.to_vec();
            self.resumed = None;
            self.pending.push_back(FeedItem::Reset(self.seal_position()));
            return Ok(());
        }
        let mut is_last =
            rows.len() < batch_size as usize || rows.last().is_some_and(|row| Position::of(row) >= to);
        let (mut notices, mut skipped, mut bytes, mut used, mut reached) =
            (Vec::new(), Vec::new(), 0, 0, from);
        for row in rows.iter().filter(|row| Position::of(row) <= to) {
            if bytes > MAX_BUFFERED_BYTES {
                // The rest is read again when these have been fetched, no more than this many at a time.
                is_last = false;
                break;
            }
            let replayed = subscription.replay(&engine, database, row).await;
            if replayed.is_empty() {
                skipped.push((database, row.sequence));
            }
            bytes += replayed.iter().map(|notice| notice.json.len()).sum::<usize>();
            notices.extend(replayed);
            (used, reached) = (used + 1, Position::of(row));
        }
        for known in skipped {
            self.remove_known(known);
        }
        if let Some(resumed) = &mut self.resumed {
            resumed.batch_size =
                if bytes > MAX_BUFFERED_BYTES { used } else { MAX_BATCH_SIZE.min(batch_size * 2) };
        }
        let reached = if is_last { to } else { reached };
        for notice in notices {
            self.push_notice(notice);
        }
        self.positions[index] = self.positions[index].max(reached);
        Ok(())
    }

    /// Sends a heartbeat, where the client is still authorized.
    async fn send_heartbeat(&mut self) {
        self.next_heartbeat = self.heartbeat_deadline();
        self.reauthorize().await;
        let Some(subscription) = &self.subscription else { return };
        let distributed = match subscription.try_next() {
            Ok(next) => return self.handle_next(next),
            Err(distributed) => distributed,
        };
        for (at, distributed) in self.positions.iter_mut().zip(distributed) {
            *at = distributed.map_or(*at, |distributed| distributed.max(*at));
        }
        self.pending.push_back(FeedItem::Heartbeat(self.seal_position()));
    }

    /// Authorizes the subscription again.
    async fn reauthorize(&mut self) {
        let live = self.live.clone();
        self.rights.mark_unchanged();
        if let Some(subscription) = &self.subscription {
            subscription.clear_recheck();
        }
        let spec = match authorize_limited(&live, &self.claim).await {
            Ok(spec) => spec,
            Err(error) => {
                let reason = match error.kind() {
                    ErrorKind::Unauthenticated => "unauthenticated",
                    // A request that was valid at the beginning may be invalid with the rights that are left.
                    ErrorKind::Forbidden | ErrorKind::NotFound | ErrorKind::BadRequest => "forbidden",
                    _ => "unavailable",
                };
                // Waiting items were authorized by the former rights.
                self.pending.retain(|item| matches!(item, FeedItem::Ready(_)));
                return self.end(reason);
            }
        };
        if let Some(subscription) = self.subscription.as_mut().filter(|one| one.has_scope(&spec.scope)) {
            if self.live.hub.change_identity(subscription, spec.identity).is_err() {
                self.end("unavailable");
            }
            return;
        }
        self.subscription = None;
        self.pending.retain(|item| matches!(item, FeedItem::Ready(_)));
        match self.live.join(spec).await {
            Ok((subscription, joined_at)) => {
                (self.positions, self.resumed) = (joined_at, None);
                self.scope = subscription.scope.clone();
                self.subscription = Some(subscription);
                self.pending.push_back(FeedItem::Reset(self.seal_position()));
            }
            Err(error) => {
                tracing::debug!(%error, "a stream could not continue after a change of rights");
                self.end("unavailable");
            }
        }
    }
}

/// The next past events, and whether none of them was cleared.
async fn read_past_events(
    engine: Arc<Engine>,
    database: usize,
    from: Position,
    batch_size: u32,
    resources: Vec<Arc<str>>,
) -> Result<(Vec<EventRow>, bool), Error> {
    let storages = engine.outbox.storages();
    let storage = storages.get(database).ok_or_else(|| Error::internal("a database is not there"))?;
    let rows = engine.outbox.published_after(storage, from, batch_size, Some(&resources)).await?;
    // Checked after reading: events that were cleared meanwhile may have been among them.
    Ok((rows, engine.outbox.bounds(storage).await?.covers(from)))
}

/// What a caller may subscribe to, decided under the concurrency limit.
async fn authorize_limited(
    live: &Live,
    claim: &Arc<dyn SubscriptionRequest>,
) -> Result<SubscriptionSpec, Error> {
    let claim = claim.clone();
    live.hub.authorization_limiter.run(async move { claim.authorize().await }).await
}

/// Waits for the counter to change; `None` where it never will.
async fn changed(own: &mut Option<watch::Receiver<u64>>) -> Option<()> {
    // Boxed, so that feeds whose caller cannot present another credential do not carry its size.
    Box::pin(own.as_mut()?.changed()).await.ok()
}
