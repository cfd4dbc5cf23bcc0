//! The outbox sender takes the items that are due, sends them and records each result.
//!
//! ```text
//!            due                    sent
//!   ready ────────► leased ────────────────────────► sent
//!     ▲               │ │
//!     │ back-off      │ │ refused permanently, or attempts used up
//!     └───────────────┘ └──────────────────────────► dead
//!          failed
//! ```
//!
//! Each kind has its own [`Transport`], and no transport waits for another: a slow mail server delays no
//! request. A transport sends several items at once, each with its own timeouts, and no plugin gets all the
//! slots. A slow item delays other items of its kind no longer than its timeouts. An item is sent at least
//! once: if the daemon stops while an item is being sent, the next start sends it again.

use std::{sync::Arc, time::Duration};

use posthouse_egress::Egress;
use posthouse_guest::plugin::Registry;
use posthouse_model::{
    Env, OutboxKind, Redact,
    config::{Http, MailTransport, Retry},
    fault::{self, FaultPoint},
    shortened,
};
use posthouse_store::{Origin, OutboxJob, OutboxResult, Store, StoreError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Redactions,
    mail::{InvalidMailTarget, MailDesk},
    masked,
    requests::RequestDesk,
    retry::wait_at_least,
    transport::{NotSent, Transport},
};

use crate::telemetry::Telemetry;

/// How long a transport is idle before it closes its connections.
const REST: Duration = Duration::from_secs(20);
/// The time limit at shutdown for items that are being sent.
const ENDING: Duration = Duration::from_secs(10);
/// The maximum length of a stored error, in bytes.
const LONGEST_ERROR: usize = 1024;

/// Sends the items that attempts put into the outbox.
pub struct Sender {
    counter: OutboxWorker,
    mail: MailDesk,
    requests: RequestDesk,
}

impl Sender {
    /// A sender of mail through this transport, and of requests within the grants of the registry's plugins. It
    /// connects to nothing yet.
    ///
    /// # Errors
    /// [`InvalidMailTarget`] if TLS for the mail server can't be set up.
    pub fn new(
        store: Store,
        transport: &MailTransport,
        egress: Egress,
        registry: Registry,
        http: &Http,
        env: Env,
        telemetry: Telemetry,
    ) -> Result<Self, InvalidMailTarget> {
        // Half of `min_free` is reserved for finishing accepted events. New events already stop at `min_free`.
        let mail = MailDesk::new(transport, store.min_free() / 2, env.clone())?;
        let requests = RequestDesk::new(egress, registry, http, env.clone());
        let redactions: Redactions = Arc::new(|_| Redact::default());
        Ok(Self { counter: OutboxWorker { store, env, telemetry, redactions }, mail, requests })
    }

    /// Masks errors in the log as `redactions` says for the event's source.
    #[must_use]
    pub fn redacting(mut self, redactions: Redactions) -> Self {
        self.counter.redactions = redactions;
        self
    }

    /// Sends until `stop` is cancelled or the store closes, then waits briefly for items that are being sent.
    /// Items that are not finished by then are sent again after the next start.
    pub async fn run(self, stop: CancellationToken) {
        let Self { counter, mail, requests } = self;
        tokio::join!(counter.clone().serve(mail, stop.clone()), counter.serve(requests, stop));
    }
}

/// The parts that all transports share.
#[derive(Clone)]
struct OutboxWorker {
    store: Store,
    env: Env,
    telemetry: Telemetry,
    redactions: Redactions,
}

impl OutboxWorker {
    async fn serve<D: Transport>(self, transport: D, stop: CancellationToken) {
        let (transport, kind) = (Arc::new(transport), D::KIND.as_str());
        let mut under_way = JoinSet::new();
        'work: loop {
            while under_way.len() >= D::SLOTS.at_once {
                tokio::select! {
                    () = stop.cancelled() => break 'work,
                    _ = under_way.join_next() => {}
                }
            }
            // This future is kept until it ends. If it were dropped halfway, it could have leased items that
            // nobody sends.
            let leased = self.store.lease_outbox(D::KIND, D::SLOTS);
            tokio::pin!(leased);
            let leased = loop {
                tokio::select! {
                    () = stop.cancelled() => break 'work,
                    leased = &mut leased => break leased,
                    Some(_) = under_way.join_next() => {}
                    () = tokio::time::sleep(REST), if under_way.is_empty() => transport.rest().await,
                }
            };
            match leased {
                Ok(jobs) => {
                    for job in jobs {
                        under_way.spawn(self.clone().send(Arc::clone(&transport), job));
                    }
                }
                Err(StoreError::Closed) => break,
                Err(error @ StoreError::Poisoned(_)) => {
                    tracing::error!(%error, kind, "the outbox stopped: nothing is sent until the daemon restarts");
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, kind, "could not read the outbox");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    }
                }
            }
        }
        let ended = async { while under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(ENDING, ended).await.is_err() {
            tracing::warn!(
                kind,
                "stopped while outbox items were being sent; they are sent again after the next start"
            );
        }
        transport.rest().await;
    }
}

impl OutboxWorker {
    /// Tries once to send an item, and records the result.
    async fn send<D: Transport>(self, transport: Arc<D>, mut job: OutboxJob) {
        let span = self.telemetry.sending(&mut job.trace);
        let sent = transport.send(&job).await;
        if let Some(span) = span {
            let failed = sent.as_ref().err().map(NotSent::word);
            // The empty name belongs to no source, so this asks whether any source has masks.
            let masked = !(self.redactions)("").is_empty();
            span.end(job.id.0, job.delivery, job.attempt, &job.item, masked, failed);
        }
        if sent.is_ok() {
            fault::reached(FaultPoint::ItemSent);
        }
        let result = result(transport.retry(), &self.env, job.attempt, sent);
        self.log(&job, &result).await;
        let (outbox, delivery, kind) = (job.id.0, job.delivery, D::KIND.as_str());
        if let Err(error) = self.store.complete_outbox(&job, result).await {
            tracing::error!(outbox, %delivery, kind, %error, "could not record the outcome of an outbox item");
        }
    }

    /// Logs the result. If it is a warning or an error, the line names the item's source, event and plugin.
    async fn log(&self, job: &OutboxJob, result: &OutboxResult) {
        let (outbox, attempt, delivery, kind) = (job.id.0, job.attempt, job.delivery, job.item.kind());
        let trace = job.trace.map(|trace| tracing::field::display(trace.trace_id()));
        let (error, due) = match result {
            OutboxResult::Sent => {
                tracing::debug!(outbox, %delivery, attempt, kind = kind.as_str(), trace, "outbox item sent");
                return;
            }
            OutboxResult::Retry { due, error } => (error, Some(due)),
            OutboxResult::Dead { error } => (error, None),
        };
        let origin = self.store.origin(delivery).await.ok().flatten();
        let mut error = own_words(kind, error).to_owned();
        // The empty name belongs to no source, so this asks whether any source has masks.
        if !(self.redactions)("").is_empty() {
            let payloads = self.store.payloads(vec![delivery]).await.unwrap_or_default().remove(&delivery);
            let redactions = Arc::clone(&self.redactions);
            error = masked(payloads.unwrap_or_default(), redactions, job.item.head().chosen(), error).await;
        }
        let (source, event, plugin) = match &origin {
            Some(Origin { source, event, plugin, .. }) => {
                (Some(source.as_str()), Some(event.as_str()), Some(&**plugin))
            }
            None => (None, None, None),
        };
        let kind = kind.as_str();
        match due {
            Some(due) => tracing::warn!(
                source, event, plugin, %delivery, outbox, attempt, kind, trace, %due, error,
                "outbox item not sent; it will be retried"
            ),
            None => {
                tracing::error!(
                    source, event, plugin, %delivery, outbox, attempt, kind, trace, error, "outbox item not sent; it is dead"
                );
            }
        }
    }
}

/// Returns the part of an error that the log shows. The text after a mail server's code may quote the mail. The
/// whole error is kept with the item, where it is masked.
fn own_words(kind: OutboxKind, error: &str) -> &str {
    match error.find(" error (").zip(error.find("): ")) {
        Some((code, reply)) if kind == OutboxKind::Mail && code < reply => &error[..=reply],
        _ => error,
    }
}

/// Returns what the store records for an item after this attempt.
fn result(retry: &Retry, env: &Env, attempt: u32, sent: Result<(), NotSent>) -> OutboxResult {
    let (error, asked) = match sent {
        Ok(()) => return OutboxResult::Sent,
        Err(NotSent::Permanent(error)) => {
            return OutboxResult::Dead { error: shortened(error, LONGEST_ERROR) };
        }
        Err(NotSent::Transient(error)) => (shortened(error, LONGEST_ERROR), Duration::ZERO),
        Err(NotSent::Later { error, after }) => (shortened(error, LONGEST_ERROR), after),
    };
    match wait_at_least(retry, attempt, asked, env) {
        None => OutboxResult::Dead { error },
        Some(wait) => {
            // A time beyond the last possible timestamp becomes that timestamp.
            let due = env.now().saturating_add(wait).unwrap_or(jiff::Timestamp::MAX);
            OutboxResult::Retry { due, error }
        }
    }
}

#[cfg(test)]
mod tests {
    use posthouse_model::testing::{Constant, ManualClock};

    use super::*;

    fn retry() -> Retry {
        Retry {
            attempts: 8,
            base: Duration::from_secs(10),
            factor: 2.0,
            max: Duration::from_secs(3600),
            jitter: 0.2,
        }
    }

    fn after(attempt: u32, sent: Result<(), NotSent>) -> OutboxResult {
        result(&retry(), &Env::new(ManualClock::epoch(), Constant(0)), attempt, sent)
    }

    fn due_at(result: &OutboxResult) -> i64 {
        match result {
            OutboxResult::Retry { due, .. } => due.as_second(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_went_wrong_decides_what_comes_next() {
        assert!(matches!(after(1, Ok(())), OutboxResult::Sent));
        let refused = after(1, Err(NotSent::Permanent("550".into())));
        assert!(matches!(refused, OutboxResult::Dead { error } if error == "550"));
        let transient = || Err(NotSent::Transient("451".into()));
        // 10 s * 2^6, minus the largest jitter.
        assert_eq!(due_at(&after(7, transient())), 512);
        assert!(matches!(after(8, transient()), OutboxResult::Dead { .. }));
    }

    #[test]
    fn a_wait_that_is_asked_for_is_the_least_and_ends_with_the_attempts() {
        let later =
            |seconds| Err(NotSent::Later { error: "429".into(), after: Duration::from_secs(seconds) });
        assert_eq!(due_at(&after(1, later(100))), 100);
        assert_eq!(due_at(&after(1, later(1))), 8, "the back-off is longer");
        assert!(matches!(after(8, later(1)), OutboxResult::Dead { .. }));
    }

    #[test]
    fn the_log_does_not_show_what_a_mail_server_says() {
        let refused = "permanent error (550): 5.1.1 <ada@example.com>: no such user";
        assert_eq!(own_words(OutboxKind::Mail, refused), "permanent error (550)");
        assert_eq!(own_words(OutboxKind::Request, refused), refused);
        let broken = "Connection error: refused (os error 111)";
        assert_eq!(own_words(OutboxKind::Mail, broken), broken);
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let long = Err(NotSent::Permanent("ü".repeat(LONGEST_ERROR)));
        let OutboxResult::Dead { error } = after(1, long) else { panic!("it is permanent") };
        assert!(error.len() <= LONGEST_ERROR + "…".len() && error.ends_with("ü…"), "{}", error.len());
    }
}
