//! Removes markers. Once the store has a delivery on disk as done, its marker is no longer needed.
//!
//! ```text
//!   attempts ──finished──► gather for a moment ──► one transaction removes many
//!   start, and every minute ──► all markers there are ──► those whose delivery this store has as done
//! ```
//!
//! No attempt waits for the removal, since a marker that remains does no harm. A removal can be missed: the
//! queue is full, a database does not answer, or the daemon crashes. A sweep removes such markers. It also
//! removes those that a backup held (`database/keep.rs`).
//!
//! A delivery can become a dead letter while the commit of an earlier attempt is still on its way through a
//! network that hangs. The sweep finds its marker, makes the delivery ready again, and the next attempt
//! finishes it from the marker. If the marker can't be read, the delivery stays dead until it can, and the
//! marker is kept.
//!
//! Two kinds of markers are never removed. The marker of a delivery that is not done tells the next attempt not
//! to run. The marker of a delivery that this store does not know may belong to another store.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use posthouse_database::{Database, Databases, Unavailable};
use posthouse_model::{
    Carried, DeliveryId,
    fault::{self, FaultPoint},
};
use posthouse_store::{Store, StoreError};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

/// The most markers that one transaction removes, and that one step of a sweep reads.
const MANY: usize = 500;

/// Finished deliveries that may wait in the queue. The sweep handles those beyond.
const QUEUE: usize = 8192;

/// How long finished deliveries are gathered, since each removal costs a sync of the database.
const GATHER: Duration = Duration::from_millis(100);

/// The time between two sweeps.
const SWEEP: Duration = Duration::from_secs(60);

/// The time between two checks whether a backup has released its markers.
const LEFT: Duration = Duration::from_secs(1);

/// Accepts finished deliveries for any database.
pub(super) struct Markers {
    databases: Databases,
    store: Store,
    removers: Mutex<Removers>,
}

/// The tasks, one a database, and their queues.
#[derive(Default)]
struct Removers {
    queues: HashMap<String, mpsc::Sender<DeliveryId>>,
    tasks: JoinSet<()>,
}

impl Markers {
    /// Starts to remove markers of all present databases. For a database that a reload adds, the task starts at
    /// its first use.
    pub(super) fn start(databases: &Databases, store: &Store) -> Self {
        let (databases, store) = (databases.clone(), store.clone());
        let markers = Self { databases, store, removers: Mutex::default() };
        for database in markers.databases.all() {
            markers.removers.lock().queue(&database, &markers);
        }
        markers
    }

    /// Enqueues the marker's removal. The caller has this delivery on disk as done. Never waits.
    pub(super) fn remove(&self, database: &Database, delivery: DeliveryId) {
        if self.removers.lock().queue(database, self).try_send(delivery).is_err() {
            debug!(%delivery, "removal queue is full; the next sweep removes the marker");
        }
    }

    /// Removes the queued markers and stops. Waits at most `within`.
    pub(super) async fn finish(&self, within: Duration) {
        let Removers { queues, mut tasks } = std::mem::take(&mut *self.removers.lock());
        drop(queues);
        let cleared = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(within, cleared).await.is_err() {
            warn!("could not remove all markers in time; the next start removes them");
        }
    }
}

impl Removers {
    fn queue(&mut self, database: &Database, markers: &Markers) -> &mpsc::Sender<DeliveryId> {
        let Self { queues, tasks } = self;
        queues.entry(database.name().to_owned()).or_insert_with(|| {
            let (sender, finished) = mpsc::channel(QUEUE);
            let (databases, store) = (markers.databases.clone(), markers.store.clone());
            let remover = Remover { databases, database: database.clone(), store };
            tasks.spawn(remover.run(finished));
            sender
        })
    }
}

/// Removes the markers of one database.
struct Remover {
    databases: Databases,
    database: Database,
    store: Store,
}

/// Why a sweep did not finish.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Database(#[from] Unavailable),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Remover {
    async fn run(self, mut finished: mpsc::Receiver<DeliveryId>) {
        let mut sweeps = interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gone = Vec::with_capacity(MANY);
        // Whether markers were left because a backup holds them.
        let mut left = false;
        loop {
            tokio::select! {
                biased;
                _ = sweeps.tick() => self.sweep().await,
                () = tokio::time::sleep(LEFT), if left => {
                    if !self.databases.markers_stay() {
                        left = false;
                        self.sweep().await;
                    }
                }
                count = finished.recv_many(&mut gone, MANY) => {
                    if count == 0 {
                        return;
                    }
                    if gone.len() < MANY && !finished.is_closed() {
                        tokio::time::sleep(GATHER).await;
                    }
                    while gone.len() < MANY && let Ok(delivery) = finished.try_recv() {
                        gone.push(delivery);
                    }
                    left |= self.databases.markers_stay();
                    self.remove(&gone).await;
                    gone.clear();
                }
            }
        }
    }

    async fn remove(&self, deliveries: &[DeliveryId]) {
        if self.databases.markers_stay() {
            return debug!(
                count = deliveries.len(),
                "kept markers for a backup; the sweep after it removes them"
            );
        }
        match self.database.remove_markers(deliveries).await {
            Ok(()) => fault::reached(FaultPoint::MarkerRemoved),
            Err(error) => {
                debug!(%error, count = deliveries.len(), "could not remove markers; the next sweep removes them");
            }
        }
    }

    async fn sweep(&self) {
        match self.swept().await {
            Ok(0) => {}
            Ok(count) => info!(database = self.database.name(), count, "removed left-over markers"),
            Err(error) => warn!(database = self.database.name(), %error, "could not sweep markers"),
        }
    }

    /// Reads all markers and removes those of deliveries that are done. Returns how many it removed.
    async fn swept(&self) -> Result<usize, SweepError> {
        let (mut after, mut count) = (None, 0);
        loop {
            let markers = self.database.markers(MANY, after).await?;
            let Some(last) = markers.last().copied() else { return Ok(count) };
            after = Some(last);
            let done = self.store.done_among(markers.clone()).await?;
            // A delivery that the store has as done before a backup begins is done in the backup too.
            if !self.databases.markers_stay() {
                self.database.remove_markers(&done).await?;
                count += done.len();
            }
            let others = markers.into_iter().filter(|marker| !done.contains(marker)).collect();
            let readable = self.readable(self.store.dead_among(others).await?).await?;
            match self.store.revive(readable).await? {
                0 => {}
                count => warn!(
                    database = self.database.name(),
                    count, "dead letters had committed in the database; their deliveries are completed now"
                ),
            }
        }
    }

    /// Returns the deliveries whose marker can be read. The others would only die again.
    async fn readable(&self, deliveries: Vec<DeliveryId>) -> Result<Vec<DeliveryId>, Unavailable> {
        let mut readable = Vec::new();
        for delivery in deliveries {
            let marker = self.database.find_marker(delivery).await?;
            if marker.is_some_and(|marker| serde_json::from_slice::<Carried>(&marker).is_ok()) {
                readable.push(delivery);
            }
        }
        Ok(readable)
    }
}
