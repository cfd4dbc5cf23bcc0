//! Markers go: once the store has a delivery as done, on disk, its marker says nothing any more.
//!
//! ```text
//!   attempts ──finished──► gather for a moment ──► one transaction removes many
//!   start, and every minute ──► all markers there are ──► those whose delivery this store has as done
//! ```
//!
//! Nobody waits for it: a marker that stays does no harm. What is forgotten on the way (a full queue, a
//! database that can't be reached, a crash) is swept, and so is what was left while a backup was made
//! (`database/keep.rs`). A delivery that was given up while a commit of an
//! earlier attempt was still on its way through a network that hung is found so, too: it is made ready
//! again, and finished from its marker. One whose marker can't be read stays given up, until it can: what
//! the marker carries is kept. Never removed: the marker of a delivery that is not
//! done, which tells the next attempt not to run, and one of a delivery that this store does not know,
//! which may be another's.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use crate::{
    database::{Database, Databases, Unavailable},
    fault::{self, FaultPoint},
    model::{Carried, DeliveryId},
    store::{Store, StoreError},
};

/// Markers that one transaction removes, and that one step of a sweep looks at.
const MANY: usize = 500;

/// Finished deliveries that may wait to be removed; those beyond are left to the sweep.
const QUEUE: usize = 8192;

/// How long finished deliveries are gathered: a removal costs a sync of the database's.
const GATHER: Duration = Duration::from_millis(100);

/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(60);

/// Between two looks whether markers that were left may go.
const LEFT: Duration = Duration::from_secs(1);

/// Takes finished deliveries in, for any database.
pub(super) struct Markers {
    databases: Databases,
    store: Store,
    removers: Mutex<Removers>,
}

/// The tasks, one a database, and what leads to them.
#[derive(Default)]
struct Removers {
    queues: HashMap<String, mpsc::Sender<DeliveryId>>,
    tasks: JoinSet<()>,
}

impl Markers {
    /// Begins to remove markers of all databases that are there; one that a reload adds follows when it is
    /// first used.
    pub(super) fn start(databases: &Databases, store: &Store) -> Self {
        let (databases, store) = (databases.clone(), store.clone());
        let markers = Self { databases, store, removers: Mutex::default() };
        for database in markers.databases.all() {
            markers.removers.lock().queue(&database, &markers);
        }
        markers
    }

    /// The store has this delivery as done, on disk. Never waits.
    pub(super) fn remove(&self, database: &Database, delivery: DeliveryId) {
        if self.removers.lock().queue(database, self).try_send(delivery).is_err() {
            debug!(%delivery, "its marker is left to the sweep");
        }
    }

    /// Removes what was handed in and not removed yet, and ends; waits no longer than `patience`.
    pub(super) async fn finish(&self, patience: Duration) {
        let Removers { queues, mut tasks } = std::mem::take(&mut *self.removers.lock());
        drop(queues);
        let cleared = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, cleared).await.is_err() {
            warn!("markers are left in a database; the next start removes them");
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

/// Why a sweep did not come to its end.
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
        // Whether markers were left because somebody wants them to stay.
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
            return debug!(count = deliveries.len(), "markers stay while a backup is made; they are swept");
        }
        match self.database.remove_markers(deliveries).await {
            Ok(()) => fault::reached(FaultPoint::MarkerRemoved),
            Err(error) => {
                debug!(%error, count = deliveries.len(), "markers could not be removed; they are swept");
            }
        }
    }

    async fn sweep(&self) {
        match self.swept().await {
            Ok(0) => {}
            Ok(count) => info!(database = self.database.name(), count, "left-over markers were removed"),
            Err(error) => warn!(database = self.database.name(), %error, "markers could not be swept"),
        }
    }

    /// Goes through all markers and removes those of deliveries that are done. Returns how many.
    async fn swept(&self) -> Result<usize, SweepError> {
        let (mut after, mut count) = (None, 0);
        loop {
            let markers = self.database.markers(MANY, after).await?;
            let Some(last) = markers.last().copied() else { return Ok(count) };
            after = Some(last);
            let done = self.store.done_among(markers.clone()).await?;
            // What the store has as done before a backup begins, the backup has as done.
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
                    count,
                    "deliveries were given up while a commit of theirs was on its way; they are finished now"
                ),
            }
        }
    }

    /// Those whose marker says what is left to do. The others would only be given up again.
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
