//! Runs each plugin's deliveries. No plugin waits for another.
//!
//! ```text
//!   registry ──change──► Dispatch ──opens, closes──► one Runner a serving plugin
//!                                                        │ lane.next()      (store: leased jobs)
//!                                                        │ permit           (plugin's concurrency)
//!                                                        ▼
//!                                                     attempt ──► commit: its database, then the store
//! ```
//!
//! Each plugin has its own lane in the store, and its own runner and permits here. A slow or failing plugin
//! therefore fills its own lane and no other. A held plugin has no runner, and its deliveries stay in the
//! store. If a plugin's breaker is open, its runner tries a few deliveries. The [`Sender`] runs beside the
//! runners and empties the outbox.
//!
//! | part | what |
//! | --- | --- |
//! | `runner` | takes a job and runs it until the guest returns |
//! | `trial` | what a runner does while its plugin's breaker is open |
//! | `commit` | commits an attempt to its database and then to the store, and recovers from its marker |
//! | [`Decisions`] | decides about the requests of interceptors |
//! | `markers` | removes the marker of an attempt once the store has committed it to disk |
//! | `retry` | when a failed attempt is retried |
//! | [`Sender`], `transport`, `mail`, `requests` | the outbox |
//! | [`sweep`] | removes events past their retention |

/// Logs a line about one attempt, with its source, event, plugin, delivery, attempt and trace.
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
mod decisions;
mod mail;
mod markers;
mod requests;
mod retry;
mod runner;
mod sender;
mod sweeper;
#[cfg(test)]
mod tests;
mod transport;
mod trial;

use std::{collections::HashMap, sync::Arc, time::Duration};

use posthouse_guest::plugin::{Plugin, Registry};
use posthouse_model::{Attempt, Effects, Env, Mask, PluginId, REDACTED, REVISION_SHOWN, Redact};
use posthouse_store::{Payloads, Store};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::telemetry::Telemetry;

pub use decisions::{Decisions, Told};
pub use mail::{InvalidMailTarget, reach_mail};
pub use sender::Sender;
pub use sweeper::sweep;

use commit::Commits;
use markers::Markers;
use runner::Runner;

/// Up to this many bytes, masking runs on a thread of the runtime.
const QUICK: usize = 16 << 10;

/// Runs work over `bytes` bytes of data from outside: on a blocking thread if there are more than [`QUICK`],
/// else at once. Returns none if a blocking thread's work panicked or the runtime is shutting down.
async fn apart<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if bytes <= QUICK { Some(work()) } else { tokio::task::spawn_blocking(work).await.ok() }
}

/// Returns the text with the masked values of these payloads replaced. Where a mask also hides the plugin's own
/// words, the values in `chosen` are replaced too.
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

/// Masks the record of an attempt by what `mask` makes of `bytes` bytes of payloads. Removes all its texts if masking
/// fails.
async fn masked_attempt(
    mut attempt: Attempt,
    bytes: usize,
    mask: impl FnOnce() -> Mask + Send + 'static,
) -> Attempt {
    let texts = [&attempt.error, &attempt.trace, &attempt.actions];
    let length = texts.into_iter().flatten().map(String::len).sum::<usize>()
        + attempt.logs.iter().map(|line| line.message.len()).sum::<usize>();
    if length == 0 {
        return attempt;
    }
    let bare = Attempt { error: None, trace: None, actions: None, logs: Vec::new(), ..attempt.clone() };
    let work = move || {
        let mask = mask();
        attempt.logs.iter_mut().for_each(|line| mask.text(&mut line.message));
        let texts = [&mut attempt.error, &mut attempt.trace, &mut attempt.actions];
        texts.into_iter().flatten().for_each(|text| mask.text(text));
        attempt
    };
    apart(bytes + length, work).await.unwrap_or(bare)
}

/// Why what a guest emitted has no room in the backlog. None if it has.
fn no_room(store: &Store, effects: &Effects) -> Option<String> {
    if effects.emitted.is_empty() {
        return None;
    }
    let full = store.room().err()?;
    Some(format!("limit `max_backlog` reached: {full}, so nothing can be emitted"))
}

/// A short form of a revision, for an attempt's record.
fn short(revision: &str) -> String {
    revision.get(..REVISION_SHOWN).unwrap_or(revision).to_owned()
}

/// Returns what to mask in the payloads of a source.
pub type Redactions = Arc<dyn Fn(&str) -> Redact + Send + Sync>;

/// Keeps a runner for every plugin that is serving or on trial.
pub struct Dispatch {
    commits: Arc<Commits>,
    registry: Registry,
    env: Env,
    redactions: Redactions,
    runners: HashMap<PluginId, Runner>,
}

/// The longest sleep before the next trial. It is short because the clock may be set meanwhile.
const NAP: Duration = Duration::from_millis(200);

/// How long the removal of markers may take at shutdown. The next start sweeps the rest.
const CLEARING: Duration = Duration::from_secs(2);

impl Dispatch {
    /// A dispatch with no runners yet. It starts the tasks that remove markers, so it needs a runtime.
    pub fn new(store: Store, registry: Registry, env: Env, telemetry: Telemetry) -> Self {
        let markers = Markers::start(registry.databases(), &store);
        let commits = Commits { store, registry: registry.clone(), markers, env: env.clone(), telemetry };
        let redactions: Redactions = Arc::new(|_| Redact::default());
        Self { commits: Arc::new(commits), registry, env, redactions, runners: HashMap::new() }
    }

    /// Masks the record of each attempt as `redactions` says for the event's source.
    #[must_use]
    pub fn redacting(mut self, redactions: Redactions) -> Self {
        self.redactions = redactions;
        self
    }

    /// Follows the registry until `stop` is cancelled; then gives attempts `within` to end. An attempt that has
    /// not ended by then is dropped without effect and runs after the next start.
    pub async fn run(mut self, stop: CancellationToken, within: Duration) {
        let mut changes = self.registry.changes();
        loop {
            // Marked as seen before the list is read, so that a change during `follow` wakes the loop again.
            changes.borrow_and_update();
            self.follow().await;
            let trial = self.registry.next_trial();
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                () = slept(trial) => self.registry.begin_trials().await,
            }
        }
        self.drain(within).await;
    }

    /// Starts, replaces and closes runners to match the registry's list.
    async fn follow(&mut self) {
        let serving: HashMap<PluginId, Arc<Plugin>> = self
            .registry
            .list()
            .into_iter()
            .filter(|plugin| plugin.serving() || plugin.trial().is_some())
            .map(|plugin| (plugin.record.id, plugin))
            .collect();

        // A runner's number of permits is fixed. If the number changes, a new runner replaces it.
        let fits = |id: &PluginId, runner: &Runner| serving.get(id).is_some_and(|plugin| runner.fits(plugin));
        let stopped: Vec<Runner> =
            self.runners.extract_if(|id, runner| !fits(id, runner)).map(|(_, runner)| runner).collect();
        for runner in stopped {
            // Its running attempts end on their revision. Dispatch does not wait for them here.
            runner.close();
        }
        for (id, plugin) in serving {
            match self.runners.get(&id) {
                Some(runner) => runner.replace(plugin),
                None => {
                    let name = plugin.record.name.clone();
                    let (env, redactions) = (self.env.clone(), Arc::clone(&self.redactions));
                    match Runner::start(&self.commits, plugin, env, redactions).await {
                        Ok(runner) => drop(self.runners.insert(id, runner)),
                        Err(error) => warn!(plugin = name, %error, "could not open a plugin's lane"),
                    }
                }
            }
        }
    }

    async fn drain(&mut self, within: Duration) {
        let attempts: usize = self.runners.values().map(Runner::attempts).sum();
        info!(attempts, "waiting for running attempts");
        let deadline = tokio::time::Instant::now() + within;
        for (_, runner) in self.runners.drain() {
            runner.finish(deadline).await;
        }
        self.commits.markers.finish(CLEARING).await;
    }
}

/// Sleeps for `wait`, but at most [`NAP`]. Without a `wait` it never returns.
async fn slept(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait.min(NAP)).await,
        None => std::future::pending().await,
    }
}
