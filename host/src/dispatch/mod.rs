//! Dispatch: runs each plugin's deliveries, and nobody waits for another's plugin.
//!
//! ```text
//!   registry ──change──► Dispatch ──opens, closes──► one Runner a serving plugin
//!                                                        │ lane.next()      (store: leased jobs)
//!                                                        │ permit           (plugin's concurrency)
//!                                                        ▼
//!                                                     attempt ──► commit: its database, then the store
//! ```
//!
//! A plugin has a lane of its own in the store, a runner of its own here and permits of its own, so one
//! that is slow or failing fills its own lane and no other. A held plugin has no runner: its deliveries
//! stay in the store. One whose breaker is open has a runner for a trial of a few deliveries. Beside
//! the runners goes the [`Sender`], which empties the outbox.
//!
//! | part | what |
//! | --- | --- |
//! | `runner` | the way of a job up to the guest's return |
//! | `trial` | what a runner does while its plugin's breaker is open |
//! | `commit` | from there until nothing is left to do: two commits in their order, recovery from the first |
//! | `markers` | takes away what the first commit left, once the second is on disk |
//! | `retry` | when a failed attempt is tried again |
//! | [`Sender`], `desk`, `mail`, `requests` | the outbox |
//! | [`sweep`] | what is past its retention |

/// A line of the log about one attempt: it always says which event, for whom, which delivery.
macro_rules! about {
    ($level:ident, $job:expr, $plugin:expr, $($rest:tt)+) => {
        tracing::$level!(
            source = %$job.event.content.source,
            event = %$job.event.content.id,
            plugin = %$plugin,
            delivery = %$job.delivery,
            attempt = $job.attempt,
            trace = $job.trace.map(|trace| tracing::field::display(trace.trace_id())),
            $($rest)+
        )
    };
}

mod commit;
mod desk;
mod mail;
mod markers;
mod requests;
mod retry;
mod runner;
mod sender;
mod sweeper;
#[cfg(test)]
mod tests;
mod trial;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    model::{Ambient, Mask, PluginId, REDACTED, Redact},
    plugin::{Plugin, Registry},
    store::{Payloads, Store},
    telemetry::Telemetry,
};

pub use mail::{InvalidMailTarget, reach_mail};
pub use sender::Sender;
pub use sweeper::sweep;

use commit::Commits;
use markers::Markers;
use runner::Runner;

/// Bytes that are looked through on a thread of the runtime, in a moment.
const QUICK: usize = 16 << 10;

/// Does work on so many bytes of others, beside the runtime's threads where they are many. None where it
/// panicked, or the runtime is at its end.
async fn apart<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if bytes <= QUICK { Some(work()) } else { tokio::task::spawn_blocking(work).await.ok() }
}

/// A text without what is masked of these payloads, and without what the plugin chose where that must not show.
async fn masked(payloads: Payloads, redactions: Redactions, chosen: Vec<String>, mut text: String) -> String {
    let bytes = payloads.bytes() + text.len();
    let mask = move || {
        let mask = payloads.mask(|source| redactions(source));
        if mask.hides_words_of_plugins() {
            Mask::of_values(&chosen).text(&mut text);
        }
        mask.text(&mut text);
        text
    };
    apart(bytes, mask).await.unwrap_or_else(|| REDACTED.to_owned())
}

/// Says what is masked of the payloads of a source.
pub type Redactions = Arc<dyn Fn(&str) -> Redact + Send + Sync>;

/// Keeps a runner for every plugin that serves.
pub struct Dispatch {
    commits: Arc<Commits>,
    registry: Registry,
    ambient: Ambient,
    redactions: Redactions,
    runners: HashMap<PluginId, Runner>,
}

/// The longest sleep while a plugin waits for its pause to be over: the clock may have been set meanwhile.
const NAP: Duration = Duration::from_millis(200);

/// How long the removal of markers may take at the end; what stays is swept after the next start.
const CLEARING: Duration = Duration::from_secs(2);

impl Dispatch {
    /// A dispatch with no runners yet. Begins to remove markers, and so needs a runtime.
    pub fn new(store: Store, registry: Registry, ambient: Ambient, telemetry: Telemetry) -> Self {
        let markers = Markers::start(registry.databases(), &store);
        let commits =
            Commits { store, registry: registry.clone(), markers, ambient: ambient.clone(), telemetry };
        let redactions: Redactions = Arc::new(|_| Redact::default());
        Self { commits: Arc::new(commits), registry, ambient, redactions, runners: HashMap::new() }
    }

    /// It, masking in the record of an attempt what these say of the event's source.
    #[must_use]
    pub fn redacting(mut self, redactions: Redactions) -> Self {
        self.redactions = redactions;
        self
    }

    /// Follows the registry until `stop` turns true; then lets attempts end within `patience`. What has
    /// not ended by then is dropped without effect and runs after the next start.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, patience: Duration) {
        let mut changes = self.registry.changes();
        loop {
            // Seen before it is read: a change that comes while we follow the list wakes us again.
            changes.borrow_and_update();
            self.follow().await;
            let trial = self.registry.next_trial();
            tokio::select! {
                () = turned(&mut stop) => break,
                changed = changes.changed() => if changed.is_err() { break },
                () = slept(trial) => self.registry.begin_trials().await,
            }
        }
        self.drain(patience).await;
    }

    /// Makes the runners fit the registry's list.
    async fn follow(&mut self) {
        let serving: HashMap<PluginId, Arc<Plugin>> = self
            .registry
            .list()
            .into_iter()
            .filter(|plugin| plugin.serving() || plugin.trial().is_some())
            .map(|plugin| (plugin.record.id, plugin))
            .collect();

        // A runner has its number of permits for life: another number is another runner.
        let fits = |id: &PluginId, runner: &Runner| serving.get(id).is_some_and(|plugin| runner.fits(plugin));
        let stopped: Vec<Runner> =
            self.runners.extract_if(|id, runner| !fits(id, runner)).map(|(_, runner)| runner).collect();
        for runner in stopped {
            // Its attempts under way end on the revision they began with; nobody waits for them here.
            runner.close();
        }
        for (id, plugin) in serving {
            match self.runners.get(&id) {
                Some(runner) => runner.replace(plugin),
                None => {
                    let name = plugin.record.name.clone();
                    let (ambient, redactions) = (self.ambient.clone(), Arc::clone(&self.redactions));
                    match Runner::start(&self.commits, plugin, ambient, redactions).await {
                        Ok(runner) => drop(self.runners.insert(id, runner)),
                        Err(error) => warn!(plugin = name, %error, "a plugin's lane could not be opened"),
                    }
                }
            }
        }
    }

    async fn drain(&mut self, patience: Duration) {
        let attempts: usize = self.runners.values().map(Runner::attempts).sum();
        info!(attempts, "waiting for attempts to end");
        let deadline = tokio::time::Instant::now() + patience;
        for (_, runner) in self.runners.drain() {
            runner.finish(deadline).await;
        }
        self.commits.markers.finish(CLEARING).await;
    }
}

/// Sleeps for so long, at most for a nap; for ever where there is nothing to wait for.
async fn slept(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait.min(NAP)).await,
        None => std::future::pending().await,
    }
}

/// Waits until the flag is true, or can't become true any more.
async fn turned(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await;
}
