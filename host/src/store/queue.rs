//! The queue: how ready deliveries reach those who run them.
//!
//! A lane belongs to one plugin and holds at most `capacity` leased jobs, counted from the hand-over
//! until the completion has committed. A delivery comes into its lane in one of two ways:
//!
//! ```text
//!   accept ──nothing older waits, there is room──► written as leased, the job built from memory
//!      └─────otherwise───► ready ──┐
//!                retry ──► waiting ┤
//!   replay of many ──► later ─────┴─► refill: read in order of due time, as room comes free
//! ```
//!
//! The lane of a trial, of a plugin whose breaker is open, is filled by `trial` alone: nothing is handed over by
//! `accept`, and what is due longest is not preferred.
//!
//! What is later becomes ready a few at a time, once its plugin has next to nothing to do.
//!
//! A lease is a row in state `leased` and a token in the writer's memory. A new writer knows no tokens,
//! so what an earlier one had leased is made ready again when the store is opened; `lease_floor` says
//! from which id on there can be such rows.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, Row, params, types::Type};
use tokio::sync::{mpsc, oneshot};

use super::{
    Store, StoreError,
    complete::Completion,
    memory::{Memory, Tally},
    schema::code,
    time::timestamp,
    writer::{Op, Writer},
};
use crate::model::{
    DeliveryId, Event, EventId, EventSeq, EventType, Job, LeaseToken, NewEvent, OrderKey, PluginId,
    SourceName, TraceContext, Trial,
};

/// The most jobs read into one lane in one batch.
const REFILL: usize = 512;

/// Deliveries that have waited for their turn and become ready at once.
const TURN: usize = 64;

/// A plugin with fewer than this to do has room for more of them.
const LITTLE: usize = 32;

/// Turns in one batch, where what they bring has to let others of its order key go first.
const TURNS: usize = 8;

/// The next of a plugin that wait for their turn.
const LATER: &str = "
SELECT id, order_key FROM delivery INDEXED BY delivery_later
WHERE plugin = ?1 AND state = -2 ORDER BY id LIMIT ?2";

/// Deliveries as jobs are made of them.
macro_rules! jobs {
    ($index:literal, $which:literal) => {
        concat!(
            "
SELECT d.id, d.state, d.attempts, e.seq, s.name, t.name, e.organization, e.occurred_at, e.received_at,
       e.data_start, e.data_end, e.id, e.body, d.ran, e.depth, d.order_key, d.due_at, e.trace, d.replay_of
FROM delivery d ",
            $index,
            "
JOIN event e ON e.seq = d.event JOIN source s ON s.id = e.source JOIN event_type t ON t.id = e.type
WHERE ",
            $which
        )
    };
}

/// Deliveries of a plugin that are due by ?2, first those that have been due longest; with ?4 only those
/// that never waited.
const DUE: &str = jobs!(
    "INDEXED BY delivery_due",
    "d.plugin = ?1 AND d.state IN (0, 2) AND d.due_at <= ?2 AND (d.state = 0 OR NOT ?4)
ORDER BY d.due_at, d.id LIMIT ?3"
);

/// The delivery ?1.
const CHOSEN: &str = jobs!("", "d.id = ?1 AND d.state IN (0, 2)");

const NEXT_DUE: &str = "
SELECT due_at FROM delivery INDEXED BY delivery_due
WHERE plugin = ?1 AND state IN (0, 2) ORDER BY due_at LIMIT 1";

impl Store {
    /// Opens the lane by which a plugin's leased deliveries come, at most `capacity` (at least 1) at
    /// once. Dropping the lane, or [`Lane::close`], gives what it still holds back to the store. A lane
    /// that is open for the plugin already ends.
    ///
    /// # Errors
    /// When the store takes no work any more.
    pub async fn open_lane(&self, plugin: PluginId, capacity: usize) -> Result<Lane, StoreError> {
        self.lane(plugin, capacity, None).await
    }

    /// As [`Self::open_lane`], for a trial of a plugin that fails: at most as many deliveries at a time as the trial
    /// is wide. They come from all over what waits, those first that have never run.
    ///
    /// # Errors
    /// When the store takes no work any more.
    pub async fn open_trial(&self, plugin: PluginId, trial: Trial) -> Result<Lane, StoreError> {
        self.lane(plugin, trial.width as usize, Some(trial)).await
    }

    async fn lane(
        &self,
        plugin: PluginId,
        capacity: usize,
        trial: Option<Trial>,
    ) -> Result<Lane, StoreError> {
        // Kept for the day the lane is dropped, when nobody can wait for room in the queue.
        let farewell = self.reserve().await?;
        let (reply, opened) = oneshot::channel();
        self.send(Op::OpenLane { plugin, capacity: capacity.max(1), trial, reply }).await?;
        let OpenedLane { id, jobs, outstanding } = opened.await.map_err(|_| self.silence())?;
        Ok(Lane { id, plugin, jobs, received: VecDeque::new(), outstanding, farewell: Some(farewell) })
    }

    /// When the oldest delivery was made that each plugin has leased, be it running or in line for a
    /// permit. Asks the writer.
    ///
    /// # Errors
    /// When the writer takes no work any more.
    pub async fn oldest_leased(&self) -> Result<Vec<(PluginId, Timestamp)>, StoreError> {
        self.write(|writer| {
            let mut statement =
                writer.connection.prepare_cached("SELECT made_at FROM delivery WHERE id = ?1")?;
            let mut oldest = Vec::new();
            for (plugin, delivery) in writer.lanes.oldest() {
                let made_at = statement.query_row([delivery.0], |row| row.get(0)).optional()?;
                oldest.extend(made_at.map(|made_at| (plugin, timestamp(made_at))));
            }
            Ok(oldest)
        })
        .await
    }

    /// Gives a job back unrun: ready again, its attempt not counted. Returns when that is queued.
    ///
    /// # Errors
    /// When the store takes no work any more.
    pub async fn release(&self, job: Job) -> Result<(), StoreError> {
        self.send(Op::Complete(Box::new(Completion::release(job)))).await
    }
}

/// Receives a plugin's jobs.
pub struct Lane {
    id: u64,
    plugin: PluginId,
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    received: VecDeque<Job>,
    outstanding: Arc<AtomicUsize>,
    farewell: Option<mpsc::OwnedPermit<Op>>,
}

impl Lane {
    /// The next leased delivery; none when the lane or the store is closed, or has stopped. May be
    /// cancelled without losing one.
    pub async fn next(&mut self) -> Option<Job> {
        while self.received.is_empty() {
            self.received.extend(self.jobs.recv().await?);
        }
        self.received.pop_front()
    }

    /// Nothing more comes; what was queued and not received becomes ready again. Returns when it has.
    pub async fn close(mut self) {
        let (reply, closed) = oneshot::channel();
        self.leave(Some(reply));
        let _ = closed.await;
    }

    /// Jobs received or queued whose completion has not committed yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Acquire)
    }

    fn leave(&mut self, reply: Option<oneshot::Sender<()>>) {
        self.jobs.close();
        while let Ok(jobs) = self.jobs.try_recv() {
            self.received.extend(jobs);
        }
        if let Some(farewell) = self.farewell.take() {
            let jobs = self.received.drain(..).collect();
            farewell.send(Op::CloseLane { plugin: self.plugin, lane: self.id, jobs, reply });
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.leave(None);
    }
}

/// What the handle needs to make a [`Lane`].
pub(super) struct OpenedLane {
    id: u64,
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    outstanding: Arc<AtomicUsize>,
}

/// The writer's ends of the lanes, and the leases.
#[derive(Default)]
pub(super) struct LaneEnds {
    open: HashMap<PluginId, LaneEnd>,
    /// By delivery. Only the writer gives and takes leases, so this is all of them.
    leases: BTreeMap<i64, Lease>,
    /// Leases that this batch ends.
    ended: Vec<(i64, Lease)>,
    last_lane: u64,
    last_token: i64,
}

/// The writer's end of a lane. What `staged` says holds once the batch has committed.
struct LaneEnd {
    id: u64,
    capacity: usize,
    jobs: mpsc::UnboundedSender<Vec<Job>>,
    outstanding: Arc<AtomicUsize>,
    /// Jobs leased less leases ended.
    staged: isize,
    /// Jobs newly leased.
    fresh: Vec<Job>,
    /// Jobs that ran into a conflict.
    again: Vec<Job>,
    /// When the earliest waiting delivery is due, or earlier; `i64::MAX` where none waits.
    next_due: i64,
    /// Whether some may wait for their turn.
    later: bool,
    /// What it takes, where it is that of a trial.
    trial: Option<Trial>,
    /// How many deliveries had become ready when a trial last looked for one; none where it has not looked.
    looked: Option<u64>,
}

struct Lease {
    token: LeaseToken,
    lane: u64,
    outstanding: Arc<AtomicUsize>,
    /// That of its delivery.
    order_key: Option<OrderKey>,
}

impl LaneEnd {
    fn free(&self) -> usize {
        self.capacity.saturating_sub(self.held())
    }

    /// Jobs that hold a place.
    fn held(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed).saturating_add_signed(self.staged)
    }

    /// Whether there is room for a refill that is worth a read.
    fn wants(&self) -> bool {
        match self.trial {
            Some(_) => self.free() > 0,
            None => self.free() * 2 >= self.capacity,
        }
    }

    /// When it next has something to take; `i64::MAX` where nothing waits.
    fn due(&self, tally: &Tally) -> i64 {
        match self.trial {
            None if tally.states[code::READY as usize] > 0 => 0,
            None => self.next_due,
            Some(_) if self.looked != Some(tally.arrived) => 0,
            Some(trial) if trial.any && self.held() == 0 => self.next_due,
            Some(_) => i64::MAX,
        }
    }
}

impl LaneEnds {
    pub(super) fn open(
        &mut self,
        plugin: PluginId,
        capacity: usize,
        trial: Option<Trial>,
        reply: oneshot::Sender<OpenedLane>,
    ) {
        self.last_lane += 1;
        let (sender, jobs) = mpsc::unbounded_channel();
        let outstanding = Arc::new(AtomicUsize::new(0));
        let end = LaneEnd {
            id: self.last_lane,
            capacity,
            jobs: sender,
            outstanding: Arc::clone(&outstanding),
            staged: 0,
            fresh: Vec::new(),
            again: Vec::new(),
            // Not known: the first refill finds out.
            next_due: 0,
            later: true,
            trial,
            looked: None,
        };
        if reply.send(OpenedLane { id: self.last_lane, jobs, outstanding }).is_ok()
            && let Some(former) = self.open.insert(plugin, end)
        {
            self.orphan(former);
        }
    }

    /// Ends the lane, if it is still the plugin's. Its jobs keep their leases until they come back.
    pub(super) fn close(&mut self, plugin: PluginId, lane: u64) {
        if self.open.get(&plugin).is_some_and(|end| end.id == lane)
            && let Some(former) = self.open.remove(&plugin)
        {
            self.orphan(former);
        }
    }

    pub(super) fn close_all(&mut self) {
        self.open.clear();
    }

    /// Jobs staged for a lane that ends within the same batch: sent all the same, they come back
    /// unheard, and [`Self::settle`] hands them to be released.
    fn orphan(&mut self, former: LaneEnd) {
        if !former.fresh.is_empty() || !former.again.is_empty() {
            self.last_lane += 1;
            // Under a plugin id that no plugin has; nothing is ever due there.
            let key = PluginId(-(self.last_lane as i64));
            self.open.insert(key, LaneEnd { next_due: i64::MAX, capacity: 0, ..former });
        }
    }

    /// Leases the delivery to its plugin's lane, if that is open, has room, and nothing older waits.
    pub(super) fn hand_over(
        &mut self,
        plugin: PluginId,
        delivery: i64,
        order_key: Option<&OrderKey>,
        older_ready: bool,
        now: i64,
    ) -> Option<LeaseToken> {
        let lane = self.open.get(&plugin).filter(|lane| lane.trial.is_none())?;
        (!older_ready && lane.next_due > now && lane.free() > 0)
            .then(|| self.lease(plugin, delivery, order_key.cloned()))
            .flatten()
    }

    fn lease(&mut self, plugin: PluginId, delivery: i64, order_key: Option<OrderKey>) -> Option<LeaseToken> {
        let lane = self.open.get_mut(&plugin)?;
        lane.staged += 1;
        self.last_token += 1;
        let token = LeaseToken(self.last_token);
        let lease = Lease { token, lane: lane.id, outstanding: Arc::clone(&lane.outstanding), order_key };
        self.leases.insert(delivery, lease);
        Some(token)
    }

    /// A job to be sent to its lane once the batch has committed.
    pub(super) fn stage(&mut self, job: Job) {
        if let Some(lane) = self.open.get_mut(&job.plugin) {
            lane.fresh.push(job);
        }
    }

    /// Sends a job through its lane again once the batch has committed; false where the lane is gone.
    pub(super) fn stage_again(&mut self, job: &Job) -> bool {
        let lease = self.leases.get(&job.delivery.0);
        match self.open.get_mut(&job.plugin) {
            Some(lane) if lease.is_some_and(|lease| lease.lane == lane.id) => {
                lane.again.push(Job { conflicts: job.conflicts.saturating_add(1), ..job.clone() });
                true
            }
            _ => false,
        }
    }

    /// Whether the job's lease still holds.
    pub(super) fn holds(&self, job: &Job) -> bool {
        self.leases.get(&job.delivery.0).is_some_and(|lease| lease.token == job.token)
    }

    /// Whether others of its key may wait for this delivery.
    pub(super) fn has_key(&self, delivery: DeliveryId) -> bool {
        self.leases.get(&delivery.0).is_some_and(|lease| lease.order_key.is_some())
    }

    /// Takes the lease away. Returns the delivery's order key.
    pub(super) fn end(&mut self, plugin: PluginId, delivery: DeliveryId) -> Option<OrderKey> {
        let lease = self.leases.remove(&delivery.0)?;
        if let Some(lane) = self.open.get_mut(&plugin).filter(|lane| lane.id == lease.lane) {
            lane.staged -= 1;
        }
        let order_key = lease.order_key.clone();
        self.ended.push((delivery.0, lease));
        order_key
    }

    /// A delivery of this plugin is in the table, and waits until this time.
    pub(super) fn waits(&mut self, plugin: PluginId, due: i64) {
        if let Some(lane) = self.open.get_mut(&plugin) {
            lane.next_due = lane.next_due.min(due);
        }
    }

    /// A delivery of this plugin is in the table, and waits for its turn.
    pub(super) fn has_later(&mut self, plugin: PluginId) {
        if let Some(lane) = self.open.get_mut(&plugin) {
            lane.later = true;
        }
    }

    /// When a lane with room next has something to take; none where nothing waits.
    pub(super) fn next_due(&self, memory: &Memory) -> Option<i64> {
        self.open
            .iter()
            .filter(|(_, lane)| lane.wants())
            .map(|(&plugin, lane)| lane.due(&memory.tally(plugin)))
            .filter(|&due| due != i64::MAX)
            .min()
    }

    /// The oldest leased delivery of each plugin whose lane is open.
    pub(super) fn oldest(&self) -> Vec<(PluginId, DeliveryId)> {
        let mut oldest: HashMap<u64, i64> = HashMap::new();
        for (&delivery, lease) in &self.leases {
            oldest.entry(lease.lane).or_insert(delivery);
        }
        let of_lane = |(&plugin, lane): (&PluginId, &LaneEnd)| {
            oldest.get(&lane.id).map(|&delivery| (plugin, DeliveryId(delivery)))
        };
        self.open.iter().filter_map(of_lane).collect()
    }

    /// The least id of a leased delivery.
    pub(super) fn lowest_lease(&self) -> i64 {
        self.leases.first_key_value().map_or(i64::MAX, |(&delivery, _)| delivery)
    }

    /// After the commit. Returns jobs whose lane has gone meanwhile: they are to be released.
    pub(super) fn settle(&mut self) -> Vec<Job> {
        for (_, lease) in self.ended.drain(..) {
            lease.outstanding.fetch_sub(1, Ordering::AcqRel);
        }
        let mut unheard = Vec::new();
        for lane in self.open.values_mut() {
            lane.staged = 0;
            lane.outstanding.fetch_add(lane.fresh.len(), Ordering::AcqRel);
            lane.again.append(&mut lane.fresh);
            if !lane.again.is_empty()
                && let Err(mpsc::error::SendError(jobs)) = lane.jobs.send(std::mem::take(&mut lane.again))
            {
                unheard.extend(jobs);
            }
        }
        self.open.retain(|plugin, _| plugin.0 >= 0);
        unheard
    }

    /// After a rollback.
    pub(super) fn undo(&mut self) {
        for lane in self.open.values_mut() {
            lane.again.clear();
            for job in lane.fresh.drain(..) {
                self.leases.remove(&job.delivery.0);
            }
            lane.staged = 0;
            lane.next_due = 0;
            lane.later = true;
            lane.looked = None;
        }
        self.open.retain(|plugin, _| plugin.0 >= 0);
        self.leases.extend(self.ended.drain(..));
    }
}

impl Writer<'_> {
    /// Reads due deliveries into the lanes that are behind and have room.
    pub(super) fn refill(&mut self) -> Result<()> {
        let idle: Vec<PluginId> =
            self.lanes.open.keys().copied().filter(|plugin| self.has_little_to_do(*plugin)).collect();
        for plugin in idle {
            for _ in 0..TURNS {
                if self.has_little_to_do(plugin) {
                    self.take_turn(plugin)?;
                }
            }
        }
        let behind: Vec<(PluginId, usize, Option<Trial>, bool)> = self
            .lanes
            .open
            .iter()
            .filter(|(_, lane)| lane.wants() && lane.free() > 0)
            .filter(|(plugin, lane)| lane.due(&self.memory.tally(**plugin)) <= self.now)
            .map(|(plugin, lane)| (*plugin, lane.free().min(REFILL), lane.trial, lane.held() == 0))
            .collect();
        behind.into_iter().try_for_each(|(plugin, room, trial, idle)| match trial {
            None => self.refill_lane(plugin, room),
            Some(trial) => self.refill_trial(plugin, room, trial.any && idle),
        })
    }

    /// Whether the plugin has room for some that wait for their turn, if there are any.
    fn has_little_to_do(&self, plugin: PluginId) -> bool {
        let ready = self.memory.tally(plugin).states[code::READY as usize].unsigned_abs() as usize;
        self.lanes.open.get(&plugin).is_some_and(|lane| lane.later && lane.held() + ready < LITTLE)
    }

    /// Makes the next of those ready that wait for their turn.
    fn take_turn(&mut self, plugin: PluginId) -> Result<()> {
        let next: Vec<(i64, Option<String>)> = self
            .connection
            .prepare_cached(LATER)?
            .query_map([plugin.0, TURN as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?;
        for (delivery, key) in &next {
            let behind = match key {
                Some(key) => self.has_one_ahead(plugin, key, *delivery)?,
                None => false,
            };
            let state = if behind { code::BEHIND } else { code::READY };
            self.connection
                .prepare_cached("UPDATE delivery SET state = ?2, due_at = ?3 WHERE id = ?1")?
                .execute([*delivery, state, self.now])?;
            self.memory.moved(plugin, code::LATER, state);
        }
        if let Some(lane) = self.lanes.open.get_mut(&plugin) {
            lane.later = next.len() == TURN;
        }
        Ok(())
    }

    fn refill_lane(&mut self, plugin: PluginId, room: usize) -> Result<()> {
        let mut due = self.due(plugin, room, false)?;
        if due.is_empty() && self.memory.tally(plugin).states[code::READY as usize] > 0 {
            // Ready since a time that is yet to come: the clock was set back.
            due = self.due(plugin, room, true)?;
        }
        let exhausted = due.len() < room;
        self.lease_due(plugin, due)?;
        let next_due = if exhausted { self.earliest(plugin)? } else { self.now };
        if let Some(lane) = self.lanes.open.get_mut(&plugin) {
            lane.next_due = next_due;
        }
        Ok(())
    }

    /// Chooses what a trial tries: untried deliveries, or where there are none and `any` holds, one that failed.
    fn refill_trial(&mut self, plugin: PluginId, room: usize, any: bool) -> Result<()> {
        let arrived = self.memory.tally(plugin).arrived;
        let mut chosen = self.untried(plugin, room)?;
        if chosen.is_empty() && any {
            chosen.extend(self.least_tried(plugin)?);
        }
        let mut due = Vec::with_capacity(chosen.len());
        for delivery in chosen {
            let mut chosen = self.connection.prepare_cached(CHOSEN)?;
            due.extend(chosen.query_row([delivery], Due::from_row).optional()?);
        }
        self.lease_due(plugin, due)?;
        let next_due = self.earliest(plugin)?;
        if let Some(lane) = self.lanes.open.get_mut(&plugin) {
            lane.next_due = next_due;
            lane.looked = Some(arrived);
        }
        Ok(())
    }

    fn lease_due(&mut self, plugin: PluginId, due: Vec<Due>) -> Result<()> {
        for Due { delivery, state, attempts, may_have_run, order_key, due_at, replay, event } in due {
            let Some(token) = self.lanes.lease(plugin, delivery, order_key) else { continue };
            self.connection
                .prepare_cached("UPDATE delivery SET state = 1 WHERE id = ?1")?
                .execute([delivery])?;
            self.memory.moved(plugin, state, code::LEASED);
            let delivery = DeliveryId(delivery);
            let event = Arc::new(event);
            let attempt = attempts + 1;
            self.lanes.stage(Job {
                delivery,
                token,
                plugin,
                attempt,
                conflicts: 0,
                may_have_run,
                due_at: timestamp(due_at),
                replay,
                trace: None,
                event,
            });
        }
        Ok(())
    }

    fn due(&self, plugin: PluginId, room: usize, early: bool) -> Result<Vec<Due>> {
        let until = if early { i64::MAX } else { self.now };
        self.connection
            .prepare_cached(DUE)?
            .query_map(params![plugin.0, until, room as i64, early], Due::from_row)?
            .collect()
    }

    fn earliest(&self, plugin: PluginId) -> Result<i64> {
        let mut statement = self.connection.prepare_cached(NEXT_DUE)?;
        let mut rows = statement.query([plugin.0])?;
        rows.next()?.map_or(Ok(i64::MAX), |row| row.get(0))
    }
}

/// An event that is in the store.
pub(super) fn read_event(connection: &Connection, event: EventSeq) -> Result<NewEvent> {
    connection
        .prepare_cached(
            "SELECT 0, 0, 0, e.seq, s.name, t.name, e.organization, e.occurred_at, e.received_at,
                    e.data_start, e.data_end, e.id, e.body, 0, e.depth, NULL, 0, e.trace
             FROM event e JOIN source s ON s.id = e.source JOIN event_type t ON t.id = e.type
             WHERE e.seq = ?1",
        )?
        .query_row([event.0], content)
}

/// The event's part of a row of [`DUE`].
fn content(row: &Row<'_>) -> Result<NewEvent> {
    Ok(NewEvent {
        source: named(row, 4, SourceName::new)?,
        event_type: named(row, 5, EventType::new)?,
        organization: row.get_ref(6)?.as_str_or_null()?.map(Arc::from),
        occurred_at: row.get::<_, Option<i64>>(7)?.map(timestamp),
        received_at: timestamp(row.get(8)?),
        depth: row.get(14)?,
        trace: row.get_ref(17)?.as_blob_or_null()?.and_then(TraceContext::from_bytes),
        data: row.get(9)?..row.get(10)?,
        id: named(row, 11, EventId::new)?,
        body: Bytes::copy_from_slice(row.get_ref(12)?.as_blob()?),
    })
}

/// A row of [`DUE`].
struct Due {
    delivery: i64,
    state: i64,
    attempts: u32,
    may_have_run: bool,
    order_key: Option<OrderKey>,
    due_at: i64,
    replay: bool,
    event: Event,
}

impl Due {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        let event = Event { seq: EventSeq(row.get(3)?), content: content(row)? };
        let attempts = row.get(2)?;
        let may_have_run = attempts > 0 || row.get(13)?;
        let order_key = row.get_ref(15)?.as_str_or_null()?.and_then(OrderKey::new);
        Ok(Self {
            delivery: row.get(0)?,
            state: row.get(1)?,
            attempts,
            may_have_run,
            order_key,
            due_at: row.get(16)?,
            replay: row.get::<_, Option<i64>>(18)?.is_some(),
            event,
        })
    }
}

/// A name that was checked when it was written. One that no longer passes means a damaged store.
fn named<Name, E: std::error::Error + Send + Sync + 'static>(
    row: &Row<'_>,
    column: usize,
    check: impl FnOnce(&str) -> Result<Name, E>,
) -> Result<Name> {
    check(row.get_ref(column)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// Makes ready again what an earlier process had leased. Before the writer starts.
pub(super) fn recover(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction()?;
    let leased: Vec<(i64, i64)> = transaction
        .prepare(
            "SELECT plugin, count(*) FROM delivery
             WHERE id >= (SELECT lease_floor FROM sequence) AND state = 1 GROUP BY plugin",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    for (plugin, count) in leased {
        transaction.execute(
            "UPDATE tally SET leased = leased - ?2, ready = ready + ?2 WHERE plugin = ?1",
            [plugin, count],
        )?;
    }
    transaction.execute(
        "UPDATE delivery SET state = 0, ran = 1
         WHERE id >= (SELECT lease_floor FROM sequence) AND state = 1",
        [],
    )?;
    let items = transaction.execute("UPDATE outbox SET state = 0 WHERE state = 1", [])? as i64;
    transaction.execute(
        "UPDATE sequence SET outbox_leased = outbox_leased - ?1, outbox_ready = outbox_ready + ?1",
        [items],
    )?;
    transaction.execute("UPDATE sequence SET lease_floor = next_delivery", [])?;
    transaction.commit()
}
