//! The outbox sender: takes items that are due, sends them, writes down what became of each.
//!
//! ```text
//!            due                    sent
//!   ready ────────► leased ────────────────────────► sent
//!     ▲               │ │
//!     │ back-off      │ │ refused for good, or attempts used up
//!     └───────────────┘ └──────────────────────────► dead
//!          failed
//! ```
//!
//! Each kind has a [`Desk`] of its own, and none waits for another: a mail server that is slow holds back
//! no request. At a desk several items are on their way together, each with its own time-outs, so one
//! that is slow holds back its plugin's like no longer than those; no plugin has all the places. An item is sent at least once: what was on its
//! way when the daemon ended goes again at the next start.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use super::{
    desk::{Desk, NotSent},
    mail::{InvalidMailTarget, MailDesk},
    requests::RequestDesk,
    retry::wait_after,
};
use crate::{
    config::{Http, MailTransport, Retry},
    egress::Egress,
    fault::{self, FaultPoint},
    model::Ambient,
    plugin::Registry,
    store::{OutboxJob, OutboxResult, Store, StoreError},
};

/// After how long without work a desk lets go of its connections.
const REST: Duration = Duration::from_secs(20);
/// How long what is on its way at the end may take.
const ENDING: Duration = Duration::from_secs(10);
/// The most bytes of an error that are kept.
const LONGEST_ERROR: usize = 1024;

/// Sends what attempts left in the outbox.
pub struct Sender {
    store: Store,
    ambient: Ambient,
    mail: MailDesk,
    requests: RequestDesk,
}

impl Sender {
    /// A sender of mail by this transport, and of requests by the grants of the registry's plugins;
    /// connects to nothing yet.
    ///
    /// # Errors
    /// [`InvalidMailTarget`] where the transport's URL can't be used.
    pub fn new(
        store: Store,
        transport: &MailTransport,
        egress: Egress,
        registry: Registry,
        http: &Http,
        ambient: Ambient,
    ) -> Result<Self, InvalidMailTarget> {
        let mail = MailDesk::new(transport, ambient.clone())?;
        let requests = RequestDesk::new(egress, registry, http, ambient.clone());
        Ok(Self { store, ambient, mail, requests })
    }

    /// Sends until `stop` turns true or the store closes, then waits a little for what is on its way. What
    /// has not ended by then goes again at the next start.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Self { store, ambient, mail, requests } = self;
        let counter = |stop| Counter { store: store.clone(), ambient: ambient.clone(), stop };
        let (mail, requests) = (counter(stop.clone()).serve(mail), counter(stop).serve(requests));
        tokio::join!(mail, requests);
    }
}

/// What one desk works at.
struct Counter {
    store: Store,
    ambient: Ambient,
    stop: watch::Receiver<bool>,
}

impl Counter {
    async fn serve<D: Desk>(mut self, desk: D) {
        let (desk, kind) = (Arc::new(desk), D::KIND.as_str());
        let mut under_way = JoinSet::new();
        'work: loop {
            while under_way.len() >= D::PLACES.at_once {
                tokio::select! {
                    () = stopped(&mut self.stop) => break 'work,
                    _ = under_way.join_next() => {}
                }
            }
            // Kept until it ends: dropped half way it could have leased items that nobody would send.
            let leased = self.store.lease_outbox(D::KIND, D::PLACES);
            tokio::pin!(leased);
            let leased = loop {
                tokio::select! {
                    () = stopped(&mut self.stop) => break 'work,
                    leased = &mut leased => break leased,
                    Some(_) = under_way.join_next() => {}
                    () = tokio::time::sleep(REST), if under_way.is_empty() => desk.rest().await,
                }
            };
            match leased {
                Ok(jobs) => {
                    for job in jobs {
                        under_way.spawn(send(
                            self.store.clone(),
                            self.ambient.clone(),
                            Arc::clone(&desk),
                            job,
                        ));
                    }
                }
                Err(StoreError::Closed) => break,
                Err(error @ StoreError::Poisoned(_)) => {
                    tracing::error!(%error, kind, "nothing of the outbox leaves until the daemon is started again");
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, kind, "the outbox can't be read");
                    tokio::select! {
                        () = stopped(&mut self.stop) => break,
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    }
                }
            }
        }
        let ended = async { while under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(ENDING, ended).await.is_err() {
            tracing::warn!(kind, "something of the outbox was on its way; it goes again at the next start");
        }
        desk.rest().await;
    }
}

/// Waits until it turns true, or can't any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn send<D: Desk>(store: Store, ambient: Ambient, desk: Arc<D>, job: OutboxJob) {
    let sent = desk.send(&job).await;
    if sent.is_ok() {
        fault::reached(FaultPoint::ItemSent);
    }
    let result = result(desk.retry(), &ambient, job.attempt, sent);
    let (outbox, delivery, attempt, kind) = (job.id.0, job.delivery, job.attempt, D::KIND.as_str());
    match &result {
        OutboxResult::Sent => tracing::debug!(outbox, %delivery, attempt, kind, "sent"),
        OutboxResult::Retry { due, error } => {
            tracing::warn!(outbox, %delivery, attempt, kind, %due, error, "not sent, to be tried again");
        }
        OutboxResult::Dead { error } => {
            tracing::error!(outbox, %delivery, attempt, kind, error, "given up");
        }
    }
    if let Err(error) = store.complete_outbox(&job, result).await {
        tracing::error!(outbox, %delivery, kind, %error, "what became of an outbox item can't be written down");
    }
}

/// What becomes of an item after this attempt.
fn result(retry: &Retry, ambient: &Ambient, attempt: u32, sent: Result<(), NotSent>) -> OutboxResult {
    let (error, least) = match sent {
        Ok(()) => return OutboxResult::Sent,
        Err(NotSent::Permanent(error)) => return OutboxResult::Dead { error: cut(error) },
        Err(NotSent::Transient(error)) => (cut(error), Duration::ZERO),
        Err(NotSent::Later { error, after }) => (cut(error), after),
    };
    match wait_after(retry, attempt, ambient) {
        None => OutboxResult::Dead { error },
        Some(wait) => {
            // Past the end of time is as good as the end of time.
            let due = ambient.now().saturating_add(wait.max(least)).unwrap_or(jiff::Timestamp::MAX);
            OutboxResult::Retry { due, error }
        }
    }
}

/// Shortens an error to what is worth keeping.
fn cut(mut error: String) -> String {
    if error.len() > LONGEST_ERROR {
        error.truncate(error.floor_char_boundary(LONGEST_ERROR));
        error.push('…');
    }
    error
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::{Clock, Random};

    struct Fixed;

    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
    }

    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

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
        result(&retry(), &Ambient::new(Fixed, Fixed), attempt, sent)
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
        // 10 s * 2^6, and the least of the jitter.
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
    fn a_long_error_is_cut_between_characters() {
        let cut = cut("ü".repeat(LONGEST_ERROR));
        assert!(cut.len() <= LONGEST_ERROR + "…".len() && cut.ends_with("ü…"));
    }
}
