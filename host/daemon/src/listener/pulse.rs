//! The pulse of a loop. To learn whether the loop still runs, ask it: the loop itself answers.
//!
//! A timer beside the loop would continue when the loop hangs, and prove nothing.

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// How many questions may wait.
const WAITING: usize = 8;

/// Connects a loop and its watcher.
pub(crate) struct Pulse {
    ask: mpsc::Sender<oneshot::Sender<()>>,
    asked: Mutex<Option<Asked>>,
}

/// The questions that the loop answers.
pub(crate) type Asked = mpsc::Receiver<oneshot::Sender<()>>;

impl Default for Pulse {
    fn default() -> Self {
        let (ask, asked) = mpsc::channel(WAITING);
        Self { ask, asked: Mutex::new(Some(asked)) }
    }
}

impl Pulse {
    /// Returns once the loop has answered. It never returns if the loop hangs or has ended.
    pub(crate) async fn beat(&self) {
        let (answer, answered) = oneshot::channel();
        if self.ask.send(answer).await.is_err() || answered.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The receiver of the questions, for the loop. A second loop gets no questions.
    pub(crate) fn asked(&self) -> Asked {
        self.asked.lock().take().unwrap_or_else(|| mpsc::channel(1).1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn answers(pulse: &Pulse) -> bool {
        tokio::time::timeout(Duration::from_millis(50), pulse.beat()).await.is_ok()
    }

    #[tokio::test]
    async fn it_beats_while_its_loop_turns_and_not_a_moment_longer() {
        let pulse = Pulse::default();
        assert!(!answers(&pulse).await, "no loop has begun");
        let mut asked = pulse.asked();
        let turning = tokio::spawn(async move {
            while let Some(answer) = asked.recv().await {
                let _ = answer.send(());
            }
        });
        assert!(answers(&pulse).await);
        turning.abort();
        let _ = turning.await;
        assert!(!answers(&pulse).await, "the loop has ended");
    }
}
