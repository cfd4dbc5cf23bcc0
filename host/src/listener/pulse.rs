//! The pulse of a loop: who asks whether it still turns is answered by the loop itself.
//!
//! A timer beside the loop would go on when the loop hangs, and prove nothing.

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait.
const WAITING: usize = 8;

/// Between a loop and who watches over it.
pub(crate) struct Pulse {
    ask: mpsc::Sender<oneshot::Sender<()>>,
    asked: Mutex<Option<Asked>>,
}

/// The questions, for the loop to answer.
pub(crate) type Asked = mpsc::Receiver<oneshot::Sender<()>>;

impl Default for Pulse {
    fn default() -> Self {
        let (ask, asked) = mpsc::channel(WAITING);
        Self { ask, asked: Mutex::new(Some(asked)) }
    }
}

impl Pulse {
    /// Returns once the loop has answered: never where it hangs, or has ended.
    pub(crate) async fn beat(&self) {
        let (answer, answered) = oneshot::channel();
        if self.ask.send(answer).await.is_err() || answered.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// For the loop: what it is asked. A second loop is asked nothing.
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
