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
//! Up to [`AT_ONCE`] items are on their way together, and each has its own time-outs, so a slow mail
//! server holds back the rest no longer than those. An item is sent at least once: what was on its way
//! when the daemon ended goes again at the next start.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use super::{
    mail::{InvalidMailTarget, Mailer, NotSent},
    retry::wait_after,
};
use crate::{
    config::{MailTransport, Retry},
    fault::{self, FaultPoint},
    model::{Ambient, OutboxItem},
    store::{OutboxJob, OutboxResult, Store, StoreError},
};

/// The most items that are on their way together.
const AT_ONCE: usize = 8;
/// After how long without work the connections to the mail server are closed.
const REST: Duration = Duration::from_secs(20);
/// How long what is on its way at the end may take.
const ENDING: Duration = Duration::from_secs(10);
/// The most bytes of an error that are kept.
const LONGEST_ERROR: usize = 1024;

/// Sends what attempts left in the outbox.
pub struct Sender {
    store: Store,
    desk: Arc<Desk>,
}

/// What each sending needs.
struct Desk {
    mailer: Mailer,
    retry: Retry,
    ambient: Ambient,
}

impl Sender {
    /// A sender by this transport; connects to nothing yet.
    ///
    /// # Errors
    /// [`InvalidMailTarget`] where the transport's URL can't be used.
    pub fn new(store: Store, transport: MailTransport, ambient: Ambient) -> Result<Self, InvalidMailTarget> {
        let desk = Desk { mailer: Mailer::new(&transport)?, retry: transport.retry, ambient };
        Ok(Self { store, desk: Arc::new(desk) })
    }

    /// Sends until `stop` turns true or the store closes, then waits a little for what is on its way. What
    /// has not ended by then goes again at the next start.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut under_way = JoinSet::new();
        'work: loop {
            while under_way.len() >= AT_ONCE {
                tokio::select! {
                    () = stopped(&mut stop) => break 'work,
                    _ = under_way.join_next() => {}
                }
            }
            // Kept until it ends: dropped half way it could have leased items that nobody would send.
            let leased = self.store.lease_outbox(AT_ONCE - under_way.len());
            tokio::pin!(leased);
            let leased = loop {
                tokio::select! {
                    () = stopped(&mut stop) => break 'work,
                    leased = &mut leased => break leased,
                    Some(_) = under_way.join_next() => {}
                    () = tokio::time::sleep(REST), if under_way.is_empty() => self.desk.mailer.rest().await,
                }
            };
            match leased {
                Ok(jobs) => {
                    for job in jobs {
                        under_way.spawn(send(self.store.clone(), Arc::clone(&self.desk), job));
                    }
                }
                Err(StoreError::Closed) => break,
                Err(error @ StoreError::Poisoned(_)) => {
                    tracing::error!(%error, "no mail leaves until the daemon is started again");
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "the outbox can't be read");
                    tokio::select! {
                        () = stopped(&mut stop) => break,
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    }
                }
            }
        }
        let ended = async { while under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(ENDING, ended).await.is_err() {
            tracing::warn!("mail was on its way; it goes again at the next start");
        }
        self.desk.mailer.rest().await;
    }
}

/// Waits until it turns true, or can't any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn send(store: Store, desk: Arc<Desk>, job: OutboxJob) {
    let sent = match &job.item {
        OutboxItem::Mail(mail) => desk.mailer.send(mail, &desk.ambient).await,
    };
    if sent.is_ok() {
        fault::reached(FaultPoint::ItemSent);
    }
    let result = desk.result(job.attempt, sent);
    let (outbox, delivery, attempt) = (job.id.0, job.delivery, job.attempt);
    match &result {
        OutboxResult::Sent => tracing::debug!(outbox, %delivery, attempt, "mail sent"),
        OutboxResult::Retry { due, error } => {
            tracing::warn!(outbox, %delivery, attempt, %due, error, "mail not sent, to be tried again");
        }
        OutboxResult::Dead { error } => {
            tracing::error!(outbox, %delivery, attempt, error, "mail given up");
        }
    }
    if let Err(error) = store.complete_outbox(job.id, result).await {
        tracing::error!(outbox, %delivery, %error, "what became of a mail can't be written down");
    }
}

impl Desk {
    fn result(&self, attempt: u32, sent: Result<(), NotSent>) -> OutboxResult {
        match sent {
            Ok(()) => OutboxResult::Sent,
            Err(NotSent::Permanent(error)) => OutboxResult::Dead { error: cut(error) },
            Err(NotSent::Transient(error)) => match wait_after(&self.retry, attempt, &self.ambient) {
                None => OutboxResult::Dead { error: cut(error) },
                Some(wait) => {
                    // Past the end of time is as good as the end of time.
                    let due = self.ambient.now().saturating_add(wait).unwrap_or(jiff::Timestamp::MAX);
                    OutboxResult::Retry { due, error: cut(error) }
                }
            },
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
    use crate::{
        config::MailTarget,
        model::{Clock, Random},
    };

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

    fn desk() -> Desk {
        let transport = MailTransport { target: MailTarget::Folder("unused".into()), retry: retry() };
        Desk { mailer: Mailer::new(&transport).unwrap(), retry: retry(), ambient: Ambient::new(Fixed, Fixed) }
    }

    #[test]
    fn what_went_wrong_decides_what_comes_next() {
        let desk = desk();
        assert!(matches!(desk.result(1, Ok(())), OutboxResult::Sent));
        let refused = desk.result(1, Err(NotSent::Permanent("550".into())));
        assert!(matches!(refused, OutboxResult::Dead { error } if error == "550"));
        let later = desk.result(7, Err(NotSent::Transient("451".into())));
        // 10 s * 2^6, and the least of the jitter.
        let expected = Timestamp::from_second(512).unwrap();
        assert!(matches!(later, OutboxResult::Retry { due, .. } if due == expected), "{later:?}");
        assert!(matches!(desk.result(8, Err(NotSent::Transient("451".into()))), OutboxResult::Dead { .. }));
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let cut = cut("ü".repeat(LONGEST_ERROR));
        assert!(cut.len() <= LONGEST_ERROR + "…".len() && cut.ends_with("ü…"));
    }
}
