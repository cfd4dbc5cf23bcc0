//! `respond = "handled"`: the response waits for the first attempt of each of the event's deliveries.
//!
//! | first attempts | answer |
//! | --- | --- |
//! | all done | 200 `{"received":true}` |
//! | a plugin rejected the event permanently | 200 with `"warning"`, in the plugin's words |
//! | one failed otherwise | 500 `{"error":"Critical processing error"}`, at once |
//! | one has not ended in time, or its plugin is held | 200 with `"pending":true` |
//!
//! The event is on disk in every case, and posthouse's own retries continue whatever the sender got. A sender
//! that retries after a 500 gets `duplicate`.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use posthouse_model::Subscriber;
use posthouse_store::{FirstAttempt, FirstAttempts};
use tokio::time::{Instant, timeout_at};

use super::ending::json;

/// The longest `warning`, in bytes, of all warnings together.
const WARNING: usize = 4 << 10;

/// An event that is on disk, and whose first attempts run.
pub(super) struct Handling {
    attempts: FirstAttempts,
    /// How many deliveries are watched.
    watched: usize,
    /// Whether other deliveries wait because their plugin is held.
    held: bool,
    patience: Duration,
}

/// The result of the first attempts.
#[derive(Debug, PartialEq, Eq)]
enum Handled {
    Failed,
    /// The reasons of the rejections, and whether some attempts have not ended.
    Taken {
        warnings: Vec<String>,
        pending: bool,
    },
}

impl Handling {
    pub(super) fn new(attempts: FirstAttempts, subscribers: &[Subscriber], patience: Duration) -> Self {
        let watched = subscribers.iter().filter(|subscriber| !subscriber.held).count();
        Self { attempts, watched, held: watched < subscribers.len(), patience }
    }

    /// Waits for the attempts, and returns the response for the sender.
    pub(super) async fn response(self) -> Response<Full<Bytes>> {
        match self.wait().await {
            Handled::Failed => {
                json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"Critical processing error"}"#)
            }
            Handled::Taken { warnings, pending } => {
                let mut answer = serde_json::json!({ "received": true });
                if !warnings.is_empty() {
                    let mut warning = warnings.join("; ");
                    warning.truncate(warning.floor_char_boundary(WARNING));
                    answer["warning"] = warning.into();
                }
                if pending {
                    answer["pending"] = true.into();
                }
                json(StatusCode::OK, answer.to_string())
            }
        }
    }

    async fn wait(mut self) -> Handled {
        let deadline = Instant::now() + self.patience;
        let mut warnings = Vec::new();
        for _ in 0..self.watched {
            match timeout_at(deadline, self.attempts.next()).await {
                Ok(Some(FirstAttempt::Done)) => {}
                Ok(Some(FirstAttempt::Refused(reason))) => warnings.push(reason),
                Ok(Some(FirstAttempt::Failed)) => return Handled::Failed,
                // The time is up, or the store has stopped.
                Ok(None) | Err(_) => return Handled::Taken { warnings, pending: true },
            }
        }
        Handled::Taken { warnings, pending: self.held }
    }
}

#[cfg(test)]
mod tests {
    use posthouse_model::PluginId;
    use posthouse_store::watch;

    use super::*;

    fn subscribers(served: usize, held: usize) -> Vec<Subscriber> {
        let of = |held| move |n| Subscriber { held, ..Subscriber::from(PluginId(n as i64)) };
        (0..served).map(of(false)).chain((0..held).map(of(true))).collect()
    }

    async fn handled(served: usize, held: usize, told: &[FirstAttempt]) -> Handled {
        let (watcher, attempts) = watch();
        told.iter().for_each(|attempt| watcher.tell(attempt.clone()));
        let handling = Handling::new(attempts, &subscribers(served, held), Duration::from_millis(20));
        let handled = handling.wait().await;
        drop(watcher);
        handled
    }

    #[tokio::test]
    async fn the_worst_that_is_known_is_said() {
        use FirstAttempt::{Done, Failed, Refused};
        let taken = |warnings: &[&str], pending| Handled::Taken {
            warnings: warnings.iter().map(|text| (*text).to_owned()).collect(),
            pending,
        };
        let no = || Refused("no".to_owned());
        assert_eq!(handled(0, 0, &[]).await, taken(&[], false));
        assert_eq!(handled(2, 0, &[Done, Done]).await, taken(&[], false));
        assert_eq!(handled(3, 0, &[Done, no(), no()]).await, taken(&["no", "no"], false));
        assert_eq!(handled(2, 0, &[Done]).await, taken(&[], true));
        assert_eq!(handled(2, 0, &[no()]).await, taken(&["no"], true));
        assert_eq!(handled(1, 1, &[Done]).await, taken(&[], true));
        assert_eq!(handled(0, 1, &[]).await, taken(&[], true));
        assert_eq!(handled(3, 1, &[no(), Failed]).await, Handled::Failed);
    }

    #[tokio::test]
    async fn a_store_that_stops_leaves_nobody_with_a_wrong_answer() {
        let (watcher, attempts) = watch();
        drop(watcher);
        let handling = Handling::new(attempts, &subscribers(1, 0), Duration::from_secs(600));
        assert_eq!(handling.wait().await, Handled::Taken { warnings: Vec::new(), pending: true });
    }
}
