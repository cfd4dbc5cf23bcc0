//! Lanes: how leased deliveries reach their runner, and how many of them this process holds.
//!
//! A lane belongs to one plugin and holds at most `capacity` jobs. A job counts from the commit that leased
//! it to the commit that ended its lease. The committer owns the sending ends: it tells the engine how many
//! more jobs each lane can hold, and after a commit it sends the jobs and counts the leases that ended. Only
//! the engine decides whether a lease is valid.
//!
//! ```text
//!   accept ──nothing older waits, there is room──► leased; the job is built from the operation
//!      └─────otherwise───► ready ──┐
//!                retry ──► waiting ┤
//!   replay of many ──► deferred ───┴─► refill: read in order of due time, as places become free
//! ```
//!
//! The lane of a trial belongs to a plugin whose breaker is open. It takes the deliveries that the engine
//! chooses for the trial: `accept` hands nothing to it, and the delivery that has been due for longest has no
//! priority.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use posthouse_model::{Job, PluginId, Trial};
use tokio::sync::{mpsc, oneshot};

use super::{
    Store, StoreError,
    committer::{Command, Reply},
    engine::{Committed, Room},
    op::{Completion, Op},
};

impl Store {
    /// Opens the lane that delivers a plugin's leased deliveries, at most `capacity` (at least 1) at once.
    /// When the lane is dropped or closed ([`Lane::close`]), it releases the jobs that it still holds. If a
    /// lane of the plugin is open already, that lane ends.
    ///
    /// # Errors
    /// If the store accepts no work any more.
    pub async fn open_lane(&self, plugin: PluginId, capacity: usize) -> Result<Lane, StoreError> {
        self.lane(plugin, capacity, None).await
    }

    /// As [`Self::open_lane`], for a trial of a failing plugin: at most as many deliveries at a time as the
    /// trial is wide. They are chosen from the whole queue; those that have never run are preferred.
    ///
    /// # Errors
    /// If the store accepts no work any more.
    pub async fn open_trial(&self, plugin: PluginId, trial: Trial) -> Result<Lane, StoreError> {
        self.lane(plugin, trial.width as usize, Some(trial)).await
    }

    async fn lane(
        &self,
        plugin: PluginId,
        capacity: usize,
        trial: Option<Trial>,
    ) -> Result<Lane, StoreError> {
        // Reserved for the end of the lane: a drop cannot wait until the queue has room.
        let close_permit = self.reserve().await?;
        let (reply, opened) = oneshot::channel();
        self.send(Command::OpenLane { plugin, capacity: capacity.max(1), trial, reply }).await?;
        let OpenedLane { id, jobs, outstanding } = opened.await.map_err(|_| self.stopped())?;
        Ok(Lane {
            id,
            plugin,
            jobs,
            received: VecDeque::new(),
            outstanding,
            close_permit: Some(close_permit),
        })
    }

    /// Releases a job that did not run: it is ready again, and its attempt is not counted. Returns when this
    /// is queued.
    ///
    /// # Errors
    /// If the store accepts no work any more.
    pub async fn release(&self, job: Job) -> Result<(), StoreError> {
        self.send(Command::Do(Op::Complete(Box::new(Completion::release(job))), Reply::Nobody)).await
    }
}

/// Receives a plugin's jobs.
pub struct Lane {
    id: u64,
    plugin: PluginId,
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    received: VecDeque<Job>,
    outstanding: Arc<AtomicUsize>,
    close_permit: Option<mpsc::OwnedPermit<Command>>,
}

impl Lane {
    /// The next leased delivery; none if the lane or the store is closed or has stopped. Can be cancelled
    /// without losing a job.
    pub async fn next(&mut self) -> Option<Job> {
        while self.received.is_empty() {
            self.received.extend(self.jobs.recv().await?);
        }
        self.received.pop_front()
    }

    /// Closes the lane. Returns when the jobs that were queued and not received are ready again.
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
        if let Some(permit) = self.close_permit.take() {
            let jobs = self.received.drain(..).collect();
            permit.send(Command::CloseLane { plugin: self.plugin, lane: self.id, jobs, reply });
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.leave(None);
    }
}

/// The parts that the handle needs to create a [`Lane`].
pub(super) struct OpenedLane {
    id: u64,
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    outstanding: Arc<AtomicUsize>,
}

/// The committer's ends of the lanes.
#[derive(Default)]
pub(super) struct Lanes {
    open: HashMap<PluginId, LaneEnd>,
    /// By the lane's number: each open lane, and each ended lane that still has leases.
    counts: HashMap<u64, Count>,
    last: u64,
}

struct Count {
    outstanding: Arc<AtomicUsize>,
    is_open: bool,
}

struct LaneEnd {
    id: u64,
    capacity: usize,
    jobs: mpsc::UnboundedSender<Vec<Job>>,
    outstanding: Arc<AtomicUsize>,
    trial: Option<Trial>,
    /// Jobs of the commit that is being published.
    staged: Vec<Job>,
}

impl Lanes {
    /// Opens a lane; an open lane of the plugin ends.
    pub(super) fn open(
        &mut self,
        plugin: PluginId,
        capacity: usize,
        trial: Option<Trial>,
        reply: oneshot::Sender<OpenedLane>,
    ) {
        self.last += 1;
        let (sender, jobs) = mpsc::unbounded_channel();
        let outstanding = Arc::new(AtomicUsize::new(0));
        let opened = OpenedLane { id: self.last, jobs, outstanding: Arc::clone(&outstanding) };
        if reply.send(opened).is_ok() {
            self.end(plugin);
            self.counts.insert(self.last, Count { outstanding: Arc::clone(&outstanding), is_open: true });
            let end =
                LaneEnd { id: self.last, capacity, jobs: sender, outstanding, trial, staged: Vec::new() };
            self.open.insert(plugin, end);
        }
    }

    /// Ends the lane, if it is still the plugin's. Its jobs keep their leases until they are completed or
    /// released.
    pub(super) fn close(&mut self, plugin: PluginId, lane: u64) {
        if self.open.get(&plugin).is_some_and(|end| end.id == lane) {
            self.end(plugin);
        }
    }

    pub(super) fn close_all(&mut self) {
        self.open.clear();
    }

    fn end(&mut self, plugin: PluginId) {
        let Some(former) = self.open.remove(&plugin) else { return };
        if former.outstanding.load(Ordering::Relaxed) == 0 {
            self.counts.remove(&former.id);
        } else if let Some(count) = self.counts.get_mut(&former.id) {
            count.is_open = false;
        }
    }

    /// The number of jobs that each open lane can still take.
    pub(super) fn rooms(&self, rooms: &mut Vec<Room>) {
        rooms.clear();
        rooms.extend(self.open.iter().map(|(&plugin, lane)| Room {
            plugin,
            lane: lane.id,
            capacity: lane.capacity,
            held: lane.outstanding.load(Ordering::Relaxed),
            trial: lane.trial,
        }));
    }

    /// After a commit: counts the leases that ended and sends the jobs. Returns the jobs whose lane has
    /// closed meanwhile: the caller releases them.
    pub(super) fn settle(&mut self, committed: &mut Committed) -> Vec<Job> {
        for lane in committed.ended.drain(..) {
            self.lease_ended(lane);
        }
        let mut unheard = Vec::new();
        for job in committed.again.drain(..) {
            match self.open.get_mut(&job.plugin) {
                Some(lane) => lane.staged.push(job),
                None => unheard.push(job),
            }
        }
        for job in committed.jobs.drain(..) {
            match self.open.get_mut(&job.plugin) {
                Some(lane) => {
                    lane.outstanding.fetch_add(1, Ordering::AcqRel);
                    lane.staged.push(job);
                }
                None => unheard.push(job),
            }
        }
        for lane in self.open.values_mut().filter(|lane| !lane.staged.is_empty()) {
            if let Err(mpsc::error::SendError(jobs)) = lane.jobs.send(std::mem::take(&mut lane.staged)) {
                unheard.extend(jobs);
            }
        }
        unheard
    }

    fn lease_ended(&mut self, lane: u64) {
        if let Some(count) = self.counts.get(&lane)
            && count.outstanding.fetch_sub(1, Ordering::AcqRel) == 1
            && !count.is_open
        {
            self.counts.remove(&lane);
        }
    }
}
