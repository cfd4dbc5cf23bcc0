//! The reading half of the handle, and the engines that answer it.
//!
//! Each method asks the engine in use, which has a method with the same name. The documentation here says
//! what it must return.

use std::{
    collections::{BTreeMap, HashMap},
    future::{Ready, ready},
    time::Duration,
};

use futures_util::future::{BoxFuture, Either};
use posthouse_model::{
    DeliveryId, DeliveryState, EventSeq, KvVersion, OutboxKind, PluginId, SourceName, Usage,
};

use super::{
    Answer, AuditEntry, AuditFilter, CatchUpState, DeadGroup, DeliveryFilter, DeliveryPage, DeliveryPlace,
    DeliverySummary, EventDetail, EventFilter, EventNames, EventPage, EventSummary, LastEvent, Names, Origin,
    OutboxFilter, OutboxSummary, Payloads, PluginRecord, PluginRevision, Point, Recent, Store, StoreError,
    StoreStats, StoredHeads, engine::Features, sqlite, time::nanos,
};

/// The reading half of the engine in use.
pub(super) enum Reads {
    Sqlite(sqlite::Reads),
    #[cfg(test)]
    Memory(super::memory::Reads),
}

/// A read that an engine may answer immediately. SQLite does, and then nothing is allocated.
pub type Reading<'a, T> = Either<Ready<Answer<T>>, BoxFuture<'a, Answer<T>>>;

/// The value of a key and the version of its last write.
pub type Value = Option<(Vec<u8>, KvVersion)>;

/// Keys with their values and versions, in the order of the keys' bytes.
pub type Entries = Vec<(String, Vec<u8>, KvVersion)>;

/// The number of rows in a list that asks for `limit`.
pub(super) fn page(limit: u32) -> u32 {
    if limit == 0 { 100 } else { limit.min(1000) }
}

/// Calls the engine in use.
macro_rules! ask {
    ($store:ident.$method:ident($($argument:expr),*)$($then:tt)*) => {
        match $store.reads() {
            Reads::Sqlite(engine) => engine.$method($($argument),*)$($then)*,
            #[cfg(test)]
            Reads::Memory(engine) => engine.$method($($argument),*)$($then)*,
        }
    };
}

pub(super) use ask;

impl Reads {
    /// Ends all reads.
    pub(super) fn close(&self) {
        match self {
            Self::Sqlite(engine) => engine.close(),
            #[cfg(test)]
            Self::Memory(engine) => engine.close(),
        }
    }
}

impl Store {
    /// The features of the engine beyond the contract.
    pub fn features(&self) -> Features {
        ask!(self.features())
    }

    /// Why nothing is accepted while the disk is nearly full.
    pub fn shortage(&self) -> Option<StoreError> {
        ask!(self.shortage())
    }

    /// Connections that read the store, for guests and for operators.
    pub fn readers(&self) -> [(&'static str, Usage); 2] {
        ask!(self.readers())
    }

    /// Free bytes and total bytes of the store's disk. None if the system does not report them, or the engine
    /// has no disk.
    pub fn disk(&self) -> Option<(u64, u64)> {
        ask!(self.disk())
    }

    /// The committed value of a key, and its version.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn kv_get<'a>(&'a self, plugin: PluginId, key: &'a str) -> Reading<'a, Value> {
        Either::Left(ready(ask!(self.kv_get(plugin, key))))
    }

    /// Committed keys that begin with `prefix` and follow the key `after`, in byte order, with their values
    /// and versions; at most `limit`.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn kv_list<'a>(
        &'a self,
        plugin: PluginId,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: u32,
    ) -> Reading<'a, Entries> {
        Either::Left(ready(ask!(self.kv_list(plugin, prefix, after, limit))))
    }

    /// The bytes of all committed keys and values of the plugin.
    pub fn kv_bytes(&self, plugin: PluginId) -> u64 {
        self.shared().kv_bytes(plugin)
    }

    /// Those of the deliveries that are done on disk. Deliveries that this store does not know are not among
    /// them.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn done_among(&self, deliveries: Vec<DeliveryId>) -> Answer<Vec<DeliveryId>> {
        self.in_state(DeliveryState::Done, deliveries).await
    }

    /// Those of the deliveries that are dead on disk.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn dead_among(&self, deliveries: Vec<DeliveryId>) -> Answer<Vec<DeliveryId>> {
        self.in_state(DeliveryState::Dead, deliveries).await
    }

    async fn in_state(&self, state: DeliveryState, deliveries: Vec<DeliveryId>) -> Answer<Vec<DeliveryId>> {
        if deliveries.is_empty() {
            return Ok(deliveries);
        }
        ask!(self.in_state(state, deliveries).await)
    }

    /// The event and plugin that the items of a delivery belong to; none if the event is no longer in the
    /// store.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn origin(&self, delivery: DeliveryId) -> Answer<Option<Origin>> {
        ask!(self.origin(delivery).await)
    }

    /// The number of items of each kind that are neither sent nor dead.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn unsent(&self) -> Answer<[(OutboxKind, u64); OutboxKind::ALL.len()]> {
        ask!(self.unsent().await)
    }

    /// Outbox items, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn outbox(&self, filter: OutboxFilter) -> Answer<Vec<OutboxSummary>> {
        ask!(self.outbox(filter).await)
    }

    /// Events, newest first, without a time limit.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn events(&self, filter: EventFilter) -> Answer<Vec<EventSummary>> {
        self.search(filter, Duration::MAX).await.map(|page| page.events)
    }

    /// Deliveries, newest first, without a time limit.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn deliveries(&self, filter: DeliveryFilter) -> Answer<Vec<DeliverySummary>> {
        self.deliveries_within(filter, Duration::MAX).await.map(|page| page.deliveries)
    }

    /// The ledger of deliveries, and the last 24 hours by event type.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn stats(&self) -> Answer<StoreStats> {
        let now = nanos(self.env().now());
        let stats = ask!(self.stats(now).await)?;
        Ok(StoreStats { max_bytes: self.max_size(), oversize: self.shared().is_oversize(), ..stats })
    }

    /// The number of deliveries in each state.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn states(&self) -> Answer<BTreeMap<DeliveryState, u64>> {
        ask!(self.states().await)
    }

    /// The last `window` (a minute to a day) in at most `points` points of equal length, in whole minutes,
    /// oldest first. The last point contains the current minute.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn series(&self, window: Duration, points: u32) -> Answer<Vec<Point>> {
        let now = nanos(self.env().now());
        ask!(self.series(now, window, points).await)
    }

    /// Everything about the events with this id, or about one of them if the source is given.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn event(&self, source: Option<SourceName>, id: &str) -> Answer<Vec<EventDetail>> {
        ask!(self.event(source, id).await)
    }

    /// Events, newest first: one page, or those found within `time`.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn search(&self, filter: EventFilter, time: Duration) -> Answer<EventPage> {
        ask!(self.search(filter, time).await)
    }

    /// Deliveries, newest first: one page, or those found within `time`.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn deliveries_within(&self, filter: DeliveryFilter, time: Duration) -> Answer<DeliveryPage> {
        ask!(self.deliveries_within(filter, time).await)
    }

    /// The number of deliveries that [`Self::replay_deliveries`] would replay: finished ones that have not
    /// been replayed.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn count_deliveries(&self, filter: DeliveryFilter) -> Answer<u64> {
        ask!(self.count_deliveries(filter).await)
    }

    /// The event that a delivery belongs to; none if the store does not have the delivery.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn place_of(&self, delivery: DeliveryId) -> Answer<Option<DeliveryPlace>> {
        ask!(self.place_of(delivery).await)
    }

    /// Every name that the store knows, in alphabetical order.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn names(&self) -> Answer<Names> {
        ask!(self.names().await)
    }

    /// Every plugin that was ever loaded and not forgotten, by name.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn plugins(&self) -> Answer<Vec<PluginRecord>> {
        ask!(self.plugins().await)
    }

    /// The newest revisions of a plugin, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn revisions(&self, plugin: PluginId) -> Answer<Vec<PluginRevision>> {
        ask!(self.revisions(plugin).await)
    }

    /// The newest 100,000 dead letters by plugin and cause, those with the most to replay first; at most
    /// 200 groups.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn dead_groups(&self) -> Answer<Vec<DeadGroup>> {
        ask!(self.dead_groups().await)
    }

    /// The plugin's newest attempts: up to 500, among the newest 20,000 deliveries of all plugins.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn recent(&self, plugin: PluginId) -> Answer<Recent> {
        ask!(self.recent(plugin).await)
    }

    /// The payloads that each of these deliveries originates from, if they are still in the store.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn payloads(&self, deliveries: Vec<DeliveryId>) -> Answer<HashMap<DeliveryId, Payloads>> {
        ask!(self.payloads(deliveries).await)
    }

    /// The newest event of each source that ever sent one, by the source's name. The event itself may be
    /// gone.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn last_events(&self) -> Answer<Vec<LastEvent>> {
        ask!(self.last_events().await)
    }

    /// The state of catching up on a source.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn catch_up_state(&self, source: &SourceName) -> Answer<CatchUpState> {
        ask!(self.catch_up_state(source.clone()).await)
    }

    /// Whether the store has each of these events of a source, under either of its names.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn knows(&self, source: &SourceName, events: Vec<EventNames>) -> Answer<Vec<bool>> {
        ask!(self.knows(source.clone(), events).await)
    }

    /// One step of [`Self::stored_heads`]. `since` is in nanoseconds since 1970.
    pub(super) async fn heads_since(
        &self,
        source: SourceName,
        since: i64,
        before: Option<EventSeq>,
        own_ids: bool,
    ) -> Answer<StoredHeads> {
        ask!(self.heads_since(source, since, before, own_ids).await)
    }

    /// Operators' actions, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn audit(&self, filter: AuditFilter) -> Answer<Vec<AuditEntry>> {
        ask!(self.audit(filter).await)
    }

    /// The deliveries that [`Self::replay_deliveries`] replays, newest first.
    pub(super) async fn replayable(&self, filter: &DeliveryFilter) -> Answer<Vec<DeliveryId>> {
        ask!(self.replayable(filter).await)
    }

    /// Lets the next batch fail.
    #[cfg(test)]
    #[allow(clippy::useless_conversion, reason = "one of the engines has its own error type")]
    pub(super) fn inject(&self, fault: super::conformance::InjectedFailure) {
        ask!(self.inject(fault.into()));
    }
}
