//! Retention: removes events that finished long ago, in small slices, so that their space can be used again.
//! If the store is larger than it may be, the oldest finished events are removed early.
//!
//! An event is removed with its deliveries, attempts and outbox items once all of these are finished; an
//! unfinished event stays, however old. Decisions of interceptors are removed by the same rules. With it the store forgets its id: the same id would be a new event.
//! So events of the last minutes stay too, however large the store is: until then the signature of a recorded
//! request may still be fresh enough to be accepted.
//!
//! Size-based pruning never removes dead letters that have not been replayed, of deliveries or of the outbox. If
//! they keep the store above its limit, the log says so.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use posthouse_model::EventSeq;

use super::{
    Answer, Store,
    op::{Cause, Op, Outcome},
    reads::Reads,
    time::nanos,
};

/// The number of events that one transaction removes.
const SLICE: usize = 500;

/// After this many steps a walk starts at the oldest event again; until then it continues where it stopped.
const REWIND: u32 = 60;

/// Events that arrived within this time are not removed because of the store's size. In nanoseconds: twice
/// the usual tolerance for the time of a signature.
const YOUNG: i64 = 600 * 1_000_000_000;

/// A store that is too large is brought this far below its limit, a thirty-second of it, so that the next
/// event does not trigger another walk.
const SLACK: u64 = 32;

/// The interval between two log lines about a limit that cannot be met.
const COMPLAIN: Duration = Duration::from_secs(3600);

/// The result of one step of a walk.
pub(super) struct Finished {
    /// Events that may be removed, oldest first.
    pub(super) events: Vec<EventSeq>,
    /// The last event that the step looked at.
    pub(super) last: EventSeq,
    /// Whether it has reached the end.
    pub(super) ended: bool,
}

/// The positions of the walks over the events.
#[derive(Debug, Default)]
pub(super) struct Walks {
    by_age: Cursor,
    by_size: Cursor,
    complained: Option<Instant>,
}

#[derive(Debug)]
struct Cursor {
    after: EventSeq,
    walks: u32,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { after: EventSeq(0), walks: 0 }
    }
}

impl Cursor {
    /// Where the next walk begins.
    fn begin(&mut self) -> EventSeq {
        self.walks += 1;
        if self.walks > REWIND {
            *self = Self::default();
        }
        self.after
    }
}

impl Walks {
    fn of(&mut self, cause: Cause) -> &mut Cursor {
        match cause {
            Cause::Age => &mut self.by_age,
            Cause::Size(_) => &mut self.by_size,
        }
    }
}

impl Store {
    /// Removes events that finished before `retention` ago, and older ones if the store is larger than
    /// `max_size`, in small slices. Returns how many. Old unfinished events are skipped, and looked at again
    /// some calls later. Then returns unused space to the system.
    ///
    /// # Errors
    /// If the write failed.
    pub async fn prune(&self) -> Answer<u64> {
        let cutoff = nanos(self.env().now()).saturating_sub(self.retention_nanos());
        let mut count = self.walk(Cause::Age, cutoff).await?;
        count += self.prune_decisions(cutoff, None).await?;
        if !self.features().size_bound {
            return Ok(count);
        }
        if let Some(most) = self.max_size() {
            count += self.fit(most).await?;
        }
        let most = self.max_size();
        while let Outcome::Flag(true) = self.ask(Op::ReleaseSpace { most }).await? {}
        Ok(count)
    }

    /// Brings the store down to its size, as far as possible.
    async fn fit(&self, most: u64) -> Answer<u64> {
        let young = nanos(self.env().now()).saturating_sub(YOUNG);
        let mut count = 0;
        if self.live_bytes().await? > most {
            let goal = most - most / SLACK;
            count = self.walk(Cause::Size(goal), young).await?;
            count += self.prune_decisions(young, Some(goal)).await?;
        }
        let live = self.live_bytes().await?;
        self.shared().publish_oversize(live > most);
        let mut walks = self.walks().lock();
        if live <= most {
            walks.complained = None;
        } else if walks.complained.is_none_or(|last| last.elapsed() >= COMPLAIN) {
            walks.complained = Some(Instant::now());
            tracing::warn!(
                in_use = %ByteSize(live),
                max_size = %ByteSize(most),
                "the store is larger than `max_size`, and no event may be removed: replay the dead letters, or \
                 raise `max_size`"
            );
        }
        Ok(count)
    }

    /// Removes those of the events received before `cutoff` that may be removed, oldest first.
    async fn walk(&self, cause: Cause, cutoff: i64) -> Answer<u64> {
        let mut after = self.walks().lock().of(cause).begin();
        let mut count = 0;
        loop {
            let found = self.finished(after, cutoff, cause).await?;
            for slice in found.events.chunks(SLICE) {
                let Outcome::Removed(removed, enough) =
                    self.ask(Op::Remove { events: slice.to_vec(), cause }).await?
                else {
                    return Ok(count);
                };
                count += removed;
                if enough {
                    return Ok(count);
                }
            }
            after = found.last;
            self.walks().lock().of(cause).after = after;
            if found.ended {
                return Ok(count);
            }
        }
    }

    async fn finished(&self, after: EventSeq, cutoff: i64, cause: Cause) -> Answer<Finished> {
        match self.reads() {
            Reads::Sqlite(engine) => engine.finished(after, cutoff, cause).await,
            #[cfg(test)]
            Reads::Memory(engine) => engine.finished(after, cutoff, cause).await,
        }
    }

    /// The bytes in use. Only for engines that know their size.
    async fn live_bytes(&self) -> Answer<u64> {
        match self.reads() {
            Reads::Sqlite(engine) => engine.live_bytes().await,
            #[cfg(test)]
            Reads::Memory(_) => Ok(0),
        }
    }
}
