//! Tries a few deliveries while the plugin's breaker is open.
//!
//! The store chooses the deliveries. A round runs all that are ready and those that become ready meanwhile, up
//! to the width of the trial. The first success closes the breaker at once, whatever the rest of the round
//! does. If all that ran have failed, the breaker stays open for another pause, and the runner ends.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use posthouse_guest::plugin::Health;
use posthouse_model::{FailedTrial, Job, Trial};
use posthouse_store::Lane;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::runner::Attempts;

/// One delivery that was tried.
struct Tried {
    health: Health,
    /// Whether it had never run before.
    untried: bool,
    took: Duration,
}

impl Attempts {
    /// Runs the lane's deliveries in rounds, until a whole round has failed.
    pub(super) async fn try_some(self: Arc<Self>, trial: Trial, mut lane: Lane, closing: CancellationToken) {
        // Owned by this task, so that attempts stop when it does.
        let mut running = JoinSet::new();
        loop {
            let first = tokio::select! {
                biased;
                () = closing.cancelled() => break,
                job = lane.next() => match job {
                    Some(job) => job,
                    None => break,
                },
            };
            let plugin = self.plugin.load_full();
            // A delivery that failed before is tried alone.
            let others = if first.attempt > 1 { 0 } else { trial.width.saturating_sub(1) };
            running.spawn(Arc::clone(&self).try_one(first));
            let Some(round) = self.round(others, &mut lane, &mut running, &closing).await else { break };
            if let Some(failed) = failed_trial(&round)
                && self.commits.registry.trial_failed(&plugin, failed).await
            {
                self.over.store(true, Ordering::Release);
                break;
            }
        }
        lane.close().await;
        while running.join_next().await.is_some() {}
    }

    /// Waits for all running attempts and for up to `others` more that arrive meanwhile. Returns their results,
    /// or none if the runner is closing.
    async fn round(
        self: &Arc<Self>,
        mut others: u32,
        lane: &mut Lane,
        running: &mut JoinSet<Tried>,
        closing: &CancellationToken,
    ) -> Option<Vec<Tried>> {
        let mut round = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => return None,
                Some(job) = lane.next(), if others > 0 => {
                    others -= 1;
                    running.spawn(Arc::clone(self).try_one(job));
                }
                tried = running.join_next() => match tried {
                    Some(tried) => round.extend(tried),
                    None => return Some(round),
                },
            }
        }
    }

    async fn try_one(self: Arc<Self>, job: Job) -> Tried {
        let (untried, began) = (job.attempt == 1, Instant::now());
        let permits = self.permits(&job).await;
        let health = self.begin(job, permits).await;
        Tried { health, untried, took: began.elapsed() }
    }
}

/// Summarizes a failed round. Returns none if an attempt succeeded, or if none ran.
fn failed_trial(round: &[Tried]) -> Option<FailedTrial> {
    let failed = || round.iter().filter(|tried| tried.health == Health::Failed);
    let well = round.iter().any(|tried| tried.health == Health::Well);
    (!well && failed().next().is_some()).then(|| FailedTrial {
        untried: failed().filter(|tried| tried.untried).map(|tried| tried.took).max(),
        retried: failed().any(|tried| !tried.untried),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(health: Health, untried: bool, millis: u64) -> Tried {
        Tried { health, untried, took: Duration::from_millis(millis) }
    }

    #[test]
    fn a_round_is_in_vain_only_where_all_that_ran_have_failed() {
        use Health::{Failed, Unknown, Well};
        assert_eq!(failed_trial(&[]), None);
        assert_eq!(failed_trial(&[tried(Unknown, true, 1)]), None, "nothing is known");
        assert_eq!(failed_trial(&[tried(Failed, true, 1), tried(Well, false, 1)]), None);
        let round = [tried(Failed, true, 5), tried(Failed, true, 9), tried(Unknown, true, 20)];
        assert_eq!(
            failed_trial(&round),
            Some(FailedTrial { untried: Some(Duration::from_millis(9)), retried: false })
        );
        assert_eq!(
            failed_trial(&[tried(Failed, false, 5)]),
            Some(FailedTrial { untried: None, retried: true })
        );
    }
}
