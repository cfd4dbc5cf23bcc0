//! Commits an attempt, from the guest's ok until nothing is left to do.
//!
//! ```text
//!   guest returned ok ──no transaction, or one that changed nothing──► store.complete: queued, nothing else to do
//!     │
//!     ▼
//!   marker + COMMIT on the plugin's database       the commit point: before it nothing has happened,
//!     │                                            after it the delivery does not run again
//!     ▼
//!   the database syncs                             one sync covers many attempts
//!     ▼
//!   store: outbox, emitted, attempt, "done"        waits until it is on disk
//!     │
//!     ▼
//!   the marker is removed                          by `markers`, in the background
//! ```
//!
//! If anything stops between the second step and the last, the marker remains. It contains everything that the
//! store still has to record. If a delivery may have run before, the runner first looks for its marker
//! ([`Commits::find`]). If there is one, the delivery is finished from it and no guest runs.
//! `docs/architecture.md` draws every step and what a restart does there.
//!
//! An attempt releases its permit at the commit point. While the database and the store sync, the next attempt
//! runs, and many attempts share one sync.

use std::{future::Future, time::Duration};

use posthouse_database::{CommitError, Committed, Database, Unavailable};
use posthouse_guest::plugin::{AttemptFailure, Finished, Plugin, Registry};
use posthouse_model::{
    Attempt, Carried, DeliveryId, Effects, Env, Job, Outcome,
    fault::{self, FaultPoint},
};
use posthouse_store::{Completed, Store, StoreError, Verdict};
use tokio::sync::{AcquireError, OwnedSemaphorePermit};

use super::markers::Markers;

use crate::telemetry::{AttemptTrace, Telemetry};

/// The right to run an attempt, or the error of a closed semaphore.
pub(super) type Permits = Result<OwnedSemaphorePermit, AcquireError>;

/// Commits the effects of attempts.
pub(super) struct Commits {
    pub(super) store: Store,
    pub(super) registry: Registry,
    pub(super) markers: Markers,
    pub(super) env: Env,
    pub(super) telemetry: Telemetry,
}

/// An earlier attempt that has committed to the plugin's database.
pub(super) struct Earlier {
    database: Database,
    /// Its effects and its record, or why the marker can't be read.
    carried: Result<Carried, serde_json::Error>,
}

impl Commits {
    /// Returns the earlier attempt of this delivery that has committed to the plugin's database, if there is
    /// one.
    ///
    /// # Errors
    /// [`Unavailable`] if the database does not answer. The delivery must not run then.
    pub(super) async fn find(
        &self,
        plugin: &Plugin,
        delivery: DeliveryId,
    ) -> Result<Option<Earlier>, Unavailable> {
        let Some(database) = plugin.database() else { return Ok(None) };
        let found = in_time(plugin, database, database.find_marker(delivery)).await??;
        Ok(found
            .map(|marker| Earlier { database: database.clone(), carried: serde_json::from_slice(&marker) }))
    }

    /// Applies all effects of an attempt that returned ok, or none of them.
    ///
    /// # Errors
    /// [`AttemptFailure`] if no effect remains, or if only the marker shows whether the attempt committed.
    pub(super) async fn commit(
        &self,
        plugin: &Plugin,
        job: &Job,
        attempt: &Attempt,
        finished: Finished,
        permits: Permits,
        trace: &mut Option<AttemptTrace>,
    ) -> Result<(), AttemptFailure> {
        fault::reached(FaultPoint::GuestReturned);
        let name = &plugin.record.name;
        let Finished { effects, transaction, decision: _ } = finished;
        let Some(transaction) = transaction else {
            plugin.went_well(job.delivery);
            self.complete(name, job.clone(), attempt.clone(), effects, Some(permits), trace.take()).await;
            return Ok(());
        };
        let began = trace.as_ref().map(AttemptTrace::now);
        let database = transaction.database().clone();
        let not_run = |error: &dyn std::fmt::Display| AttemptFailure::NotRun { error: error.to_string() };
        let carried =
            serde_json::to_vec(&Carried::new(&effects, attempt)).map_err(|error| not_run(&error))?;
        match in_time(plugin, &database, transaction.commit(carried, permits))
            .await
            .map_err(|error| not_run(&error))?
        {
            Ok(Committed::Marked) => {
                fault::reached(FaultPoint::DatabaseSynced);
                plugin.went_well(job.delivery);
                let mut trace = trace.take();
                if let Some((trace, began)) = trace.as_mut().zip(began) {
                    trace.committed(Some(database.name()), began);
                }
                self.finish(name, job.clone(), attempt.clone(), effects, &database, trace).await;
                Ok(())
            }
            Ok(Committed::NothingWritten) => {
                plugin.went_well(job.delivery);
                self.complete(name, job.clone(), attempt.clone(), effects, None, trace.take()).await;
                Ok(())
            }
            Err(CommitError::AlreadyCommitted) => match self.find(plugin, job.delivery).await {
                Ok(Some(earlier)) => {
                    self.resume(name, job.clone(), earlier, trace.take()).await;
                    Ok(())
                }
                Ok(None) => Err(not_run(&"its marker existed, and is gone")),
                Err(error) => Err(not_run(&error)),
            },
            Err(CommitError::Conflict) => Err(AttemptFailure::Conflict),
            Err(error @ CommitError::Failed { .. }) => {
                Err(AttemptFailure::Stopped { error: format!("the commit failed: {error}"), trace: None })
            }
            // The next attempt looks for the marker before it runs.
            Err(error @ (CommitError::Unknown(_) | CommitError::Unavailable(_))) => Err(not_run(&error)),
            Err(error @ CommitError::Broken(_)) => Err(AttemptFailure::Broken { error: error.to_string() }),
        }
    }

    /// Returns when everything that an attempt may have read in the plugin's database is on disk. Until then
    /// nothing may report how the attempt ended.
    ///
    /// # Errors
    /// [`Unavailable`] if that is in doubt. The attempt counts as not run.
    pub(super) async fn settle(&self, plugin: &Plugin) -> Result<(), Unavailable> {
        match plugin.database() {
            Some(database) => in_time(plugin, database, database.settle()).await?,
            None => Ok(()),
        }
    }

    /// Finishes a delivery from the marker of an earlier attempt.
    pub(super) async fn resume(&self, plugin: &str, job: Job, earlier: Earlier, trace: Option<AttemptTrace>) {
        let database = earlier.database;
        match earlier.carried {
            Ok(carried) => {
                about!(info, job, plugin, database = database.name(), "completed a delivery from its marker");
                let (effects, attempt) = carried.into_effects();
                self.finish(plugin, job, attempt, effects, &database, trace).await;
            }
            Err(unreadable) => {
                // The parser's own message is left out, because it may quote the marker's content.
                let (line, column) = (unreadable.line(), unreadable.column());
                let error = format!(
                    "it committed in database `{}`, but its marker can't be read, so its effects in the store and the outbox \
                     are missing: line {line}, column {column}",
                    database.name()
                );
                about!(error, job, plugin, error, "delivery became a dead letter");
                let attempt = Attempt {
                    number: job.attempt,
                    revision: None,
                    started_at: self.env.now(),
                    duration: Duration::ZERO,
                    outcome: Outcome::Rejected,
                    error: Some(error),
                    trace: None,
                    logs: Vec::new(),
                    actions: None,
                };
                let told = job.clone();
                if let Err(error) = self.store.complete(job, attempt, Verdict::Dead).await {
                    about!(warn, told, plugin, %error, "could not record a dead letter");
                }
            }
        }
    }

    /// Records the attempt in the store after the commit point. Then the marker may be removed.
    async fn finish(
        &self,
        plugin: &str,
        job: Job,
        attempt: Attempt,
        mut effects: Effects,
        database: &Database,
        trace: Option<AttemptTrace>,
    ) {
        let told = job.clone();
        self.address(&mut effects);
        let traced = trace.map(|trace| (trace.now(), trace, attempt.clone()));
        match self.store.complete_durably(job, attempt, Verdict::Done(effects)).await {
            Ok(Completed::Written) => {
                fault::reached(FaultPoint::StoreTold);
                self.markers.remove(database, told.delivery);
                if let Some((began, mut trace, attempt)) = traced {
                    trace.committed(None, began);
                    trace.end(&told, plugin, &attempt, false);
                }
            }
            // Another runner holds the lease now and finishes it from the marker. A sweep removes a marker that
            // remains.
            Ok(Completed::LostLease | Completed::Conflict) => {}
            Err(error) => {
                about!(
                    warn,
                    told,
                    plugin,
                    %error,
                    "could not record a committed attempt; the next start completes it from its marker"
                );
            }
        }
    }

    /// Records the whole attempt in the store, if no database takes part.
    async fn complete(
        &self,
        plugin: &str,
        job: Job,
        attempt: Attempt,
        mut effects: Effects,
        permits: Option<Permits>,
        trace: Option<AttemptTrace>,
    ) {
        let told = job.clone();
        self.address(&mut effects);
        let Some(mut trace) = trace else {
            if let Err(error) = self.store.complete(job, attempt, Verdict::Done(effects)).await {
                not_completed(&told, plugin, &error);
            }
            return;
        };
        let (began, record) = (trace.now(), attempt.clone());
        let completed = match self.store.submit(job, attempt, Verdict::Done(effects)).await {
            Ok(handed_in) => {
                drop(permits);
                handed_in.committed().await
            }
            Err(error) => Err(error),
        };
        match completed {
            Ok(Completed::LostLease) => {}
            Ok(completed) => {
                trace.committed(None, began);
                trace.end(&told, plugin, &record, completed == Completed::Conflict);
            }
            Err(error) => not_completed(&told, plugin, &error),
        }
    }

    /// Finds the plugins that receive the emitted events.
    fn address(&self, effects: &mut Effects) {
        if effects.emitted.is_empty() {
            return;
        }
        let now = self.env.now();
        for derived in &mut effects.emitted {
            derived.subscribers = self.registry.recipients(&derived.event(now));
        }
    }
}

fn not_completed(job: &Job, plugin: &str, error: &StoreError) {
    about!(
        warn,
        job,
        plugin,
        %error,
        "could not record an attempt; the delivery runs again after the next start"
    );
}

/// Waits for the database's answer, at most the plugin's `time` limit, so that a network that hangs blocks no
/// runner for longer. The database may still carry out the request after the timeout.
async fn in_time<T>(
    plugin: &Plugin,
    database: &Database,
    answer: impl Future<Output = T>,
) -> Result<T, Unavailable> {
    let limit = plugin.settings.limits.time;
    tokio::time::timeout(limit, answer).await.map_err(|_| Unavailable {
        name: database.name().to_owned(),
        reason: format!("no answer within {limit:?} (`time` of [plugin.{}.limits])", plugin.record.name),
    })
}
