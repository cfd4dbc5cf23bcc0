//! Decides which compilation runs next. Two run at once, and a slow one does not block the others.
//!
//! ```text
//!   first() ─► steady place: without a time limit
//!          └─► quick place:  a slice, then until a newcomer waits ─► killed ─► again()
//! ```
//!
//! Slow compilations hold the steady place one after another. The quick place is for all others. A compilation
//! there that takes longer than a slice yields if a newcomer waits. It starts again when the steady place is
//! free, or when the quick place is, after the newcomers that already wait.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The two places.
pub(super) struct Turns {
    steady: Arc<Semaphore>,
    quick: Arc<Semaphore>,
    /// How many newcomers wait.
    waiting: watch::Sender<u32>,
}

/// The right to run one child. The permits are none if a semaphore was closed, which never happens.
pub(super) struct Turn {
    steady: Option<OwnedSemaphorePermit>,
    quick: Option<OwnedSemaphorePermit>,
    queue: Arc<Semaphore>,
    waiting: watch::Receiver<u32>,
}

impl Default for Turns {
    fn default() -> Self {
        let place = || Arc::new(Semaphore::new(1));
        Self { steady: place(), quick: place(), waiting: watch::Sender::new(0) }
    }
}

impl Turns {
    /// Returns the turn of a file that was never tried.
    pub(super) async fn first(&self) -> Turn {
        let _waiting = Waiting::begin(&self.waiting);
        self.either().await
    }

    /// Returns the turn of a file that was not done within its slice. No compilation yields to it.
    pub(super) async fn again(&self) -> Turn {
        self.either().await
    }

    /// Returns a turn beside which no other compilation runs.
    pub(super) async fn alone(&self) -> Turn {
        let _waiting = Waiting::begin(&self.waiting);
        let steady = Arc::clone(&self.steady).acquire_owned().await.ok();
        let quick = Arc::clone(&self.quick).acquire_owned().await.ok();
        self.turn(steady, quick)
    }

    async fn either(&self) -> Turn {
        tokio::select! {
            biased;
            steady = Arc::clone(&self.steady).acquire_owned() => self.turn(steady.ok(), None),
            quick = Arc::clone(&self.quick).acquire_owned() => self.turn(None, quick.ok()),
        }
    }

    fn turn(&self, steady: Option<OwnedSemaphorePermit>, quick: Option<OwnedSemaphorePermit>) -> Turn {
        let (queue, waiting) = (Arc::clone(&self.steady), self.waiting.subscribe());
        Turn { steady, quick, queue, waiting }
    }
}

impl Turn {
    /// Returns when the turn is over: its slice is used up, a newcomer waits, and the steady place has not
    /// become free.
    pub(super) async fn ends(&mut self, slice: Duration) {
        if self.steady.is_none() {
            tokio::select! {
                biased;
                steady = Arc::clone(&self.queue).acquire_owned() => {
                    self.steady = steady.ok();
                    self.quick = None;
                }
                () = crowded(&mut self.waiting, slice) => return,
            }
        }
        std::future::pending().await
    }
}

/// Waits for a slice, and then until a newcomer waits.
async fn crowded(waiting: &mut watch::Receiver<u32>, slice: Duration) {
    tokio::time::sleep(slice).await;
    if waiting.wait_for(|waiting| *waiting > 0).await.is_err() {
        std::future::pending().await
    }
}

/// Counts a newcomer as waiting while it lives.
struct Waiting<'a>(&'a watch::Sender<u32>);

impl<'a> Waiting<'a> {
    fn begin(count: &'a watch::Sender<u32>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SLICE: Duration = Duration::from_millis(20);
    /// Long enough for a busy machine to react.
    const LONG: Duration = Duration::from_millis(500);

    /// Whether the turn ends within this time.
    async fn is_over(turn: &mut Turn, within: Duration) -> bool {
        timeout(within, turn.ends(SLICE)).await.is_ok()
    }

    #[tokio::test]
    async fn a_newcomer_gets_in_beside_two_that_take_long() {
        let turns = Turns::default();
        let mut steady = turns.first().await;
        let mut quick = turns.first().await;
        assert!(!is_over(&mut steady, LONG).await && !is_over(&mut quick, LONG).await, "nobody waits");

        let gives_way = async {
            quick.ends(SLICE).await;
            drop(quick);
        };
        let (mut third, ()) = tokio::join!(turns.first(), gives_way);
        assert!(!is_over(&mut steady, LONG).await, "who holds the steady place keeps it");

        // A compilation that yielded its place is no newcomer, so the next one does not yield to it.
        let again = async { timeout(LONG, turns.again()).await.is_ok() };
        let (again, over) = tokio::join!(again, is_over(&mut third, LONG));
        assert!(!again && !over);
        drop(steady);
        let moved = is_over(&mut third, LONG).await;
        assert!(!moved && third.quick.is_none(), "the steady place is free, so the quick one becomes free");
        assert!(turns.again().await.steady.is_none());
    }

    #[tokio::test]
    async fn one_that_is_to_be_alone_has_both_places() {
        let turns = Turns::default();
        let first = turns.first().await;
        assert!(timeout(LONG, turns.alone()).await.is_err());
        drop(first);
        let mut alone = turns.alone().await;
        assert!(timeout(LONG, turns.first()).await.is_err());
        assert!(!is_over(&mut alone, LONG).await);
        drop(alone);
        turns.first().await;
    }
}
