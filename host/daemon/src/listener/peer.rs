//! One connection, as the accept loop and the handlers see it.
//!
//! The connection's task records events in atomics. The loop reads them a few times within each timeout, which
//! costs less than a timer for each request.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The position of a peer in its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Part {
    /// It has sent complete messages, or nothing.
    Between,
    /// Within a head.
    Head,
    /// Within a body.
    Body,
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Why {
    /// It sent no request in time, or none after the last.
    Idle = 1,
    /// A head took too long.
    SlowHead,
    /// A body took too long.
    SlowBody,
    /// The peer does not read its answers.
    Unread,
    /// Another connection needs its slot.
    Crowded,
}

/// The state that all connections of a listener share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The current tick since the start; see [`super::slots`].
    pub(super) now: AtomicU32,
    /// Connections with an admitted request that is not answered yet.
    admitted: AtomicUsize,
    most_admitted: usize,
    /// Connections that are shielded.
    shielded: AtomicUsize,
    most_shielded: usize,
}

impl Shared {
    pub(super) fn new(most_admitted: usize, most_shielded: usize) -> Self {
        Self { most_admitted, most_shielded, ..Self::default() }
    }
}

/// Increments a count, unless it is at its limit. Returns whether it did.
fn one_more(count: &AtomicUsize, most: usize) -> bool {
    let more = |count: usize| (count < most).then_some(count + 1);
    count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Peer {
    address: IpAddr,
    /// Connections are numbered in the order in which they were accepted.
    pub(super) number: u64,
    shared: Arc<Shared>,
    part: AtomicU8,
    /// The tick of the last change of `part`.
    part_since: AtomicU32,
    /// Requests that were received completely.
    whole: AtomicU64,
    /// Requests that have reached a handler.
    requests: AtomicU64,
    serving: AtomicBool,
    /// The tick of the last answer, or of the connection's start.
    answered: AtomicU32,
    /// The tick since which the peer has not read what is written to it, plus 1. 0 while it reads.
    unread_since: AtomicU32,
    admitted: AtomicBool,
    shielded: AtomicBool,
    pub(super) known: AtomicBool,
    end: AtomicU8,
    told: Notify,
    /// The reader to wake once the current request is answered.
    waiting: Mutex<Option<Waker>>,
}

/// The listener has its limit of admitted requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded;

impl Peer {
    pub(super) fn new(address: IpAddr, number: u64, shared: Arc<Shared>) -> Self {
        let now = shared.now.load(Ordering::Relaxed);
        Self {
            address,
            number,
            shared,
            part: AtomicU8::new(Part::Between as u8),
            part_since: AtomicU32::new(now),
            whole: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            answered: AtomicU32::new(now),
            unread_since: AtomicU32::new(0),
            admitted: AtomicBool::new(false),
            shielded: AtomicBool::new(false),
            known: AtomicBool::new(false),
            end: AtomicU8::new(0),
            told: Notify::new(),
            waiting: Mutex::default(),
        }
    }

    /// A peer without a listener, for tests of handlers.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        Self::new([127, 0, 0, 1].into(), 0, Arc::new(Shared::new(1, 1)))
    }

    /// The address at the other end of the connection. An IPv4 address within IPv6 is unwrapped.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Records that the current request is authorised: by a valid signature, or by an operator's token. Until
    /// it is answered, its connection is not closed to make room for others.
    ///
    /// # Errors
    /// [`Crowded`] if the listener has its limit of such requests. The peer has to retry.
    pub(crate) fn admit(&self) -> Result<(), Crowded> {
        if self.admitted.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !one_more(&self.shared.admitted, self.shared.most_admitted) {
            return Err(Crowded);
        }
        self.admitted.store(true, Ordering::Release);
        self.known.store(true, Ordering::Release);
        Ok(())
    }

    /// Prevents the connection from being closed to make room, for as long as the value exists. Only a few
    /// requests can have that at once, and strangers can ask for it. So the value must not exist until the peer
    /// has read its answer.
    pub(crate) fn shield(self: &Arc<Self>) -> Option<Shield> {
        if self.is_kept() || !one_more(&self.shared.shielded, self.shared.most_shielded) {
            return None;
        }
        self.shielded.store(true, Ordering::Release);
        Some(Shield(Arc::clone(self)))
    }

    /// Records that a request reaches its handler. It is active until the value is dropped, with its answer.
    pub(super) fn serve(self: &Arc<Self>) -> Serving {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.serving.store(true, Ordering::Release);
        Serving(Arc::clone(self))
    }

    /// Has a reader wait for the answer to the current request. Returns false if there is no request, or if the
    /// reader has to read more of it.
    pub(super) fn waits_for_answer(&self, reader: &Waker) -> bool {
        if !self.is_serving() || !self.has_sent_all() {
            return false;
        }
        *self.waiting.lock() = Some(reader.clone());
        true
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// Whether the connection must not be closed to make room.
    pub(super) fn is_kept(&self) -> bool {
        self.admitted.load(Ordering::Acquire) || self.is_shielded()
    }

    /// Whether any of its requests was admitted.
    pub(super) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    pub(super) fn is_shielded(&self) -> bool {
        self.shielded.load(Ordering::Acquire)
    }

    /// Whether the current request was received completely.
    pub(super) fn has_sent_all(&self) -> bool {
        self.whole.load(Ordering::Acquire) >= self.requests()
    }

    /// Records that one more request was received completely.
    pub(super) fn has_sent_one(&self) {
        self.whole.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn is_at(&self, part: Part) {
        if self.part.swap(part as u8, Ordering::AcqRel) != part as u8 {
            self.part_since.store(self.now(), Ordering::Release);
        }
    }

    /// Records whether the peer reads what is written to it.
    pub(super) fn reads(&self, reads: bool) {
        let since = if reads { 0 } else { self.now().saturating_add(1) };
        if (self.unread_since.load(Ordering::Relaxed) == 0) != reads {
            self.unread_since.store(since, Ordering::Release);
        }
    }

    /// The tick of its last answer, or of its start.
    pub(super) fn idle_since(&self) -> u32 {
        self.answered.load(Ordering::Acquire)
    }

    /// The timeout that has expired, if any.
    pub(super) fn overdue(&self, limits: &Ticks) -> Option<Why> {
        let now = self.now();
        let over = |since: u32, limit: u32| now.saturating_sub(since) > limit;
        let unread = self.unread_since.load(Ordering::Acquire);
        if unread > 0 && over(unread - 1, limits.write) {
            return Some(Why::Unread);
        }
        let part = self.part.load(Ordering::Acquire);
        // The time of a request that was sent during the last one begins with that one's answer.
        let since = self.part_since.load(Ordering::Acquire).max(self.idle_since());
        if part == Part::Body as u8 && !(self.is_serving() && self.has_sent_all()) {
            return over(since, limits.body).then_some(Why::SlowBody);
        }
        if self.is_serving() {
            return None;
        }
        if part == Part::Head as u8 {
            return over(since, limits.head).then_some(Why::SlowHead);
        }
        let limit = if self.requests() == 0 { limits.head } else { limits.idle };
        over(since, limit).then_some(Why::Idle)
    }

    /// Tells the connection to end. The first reason counts, but [`Why::Crowded`] replaces any other: then
    /// nothing more is written.
    pub(super) fn tell(&self, why: Why) {
        let first = self.end.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if why == Why::Crowded {
            self.end.store(why as u8, Ordering::Release);
        }
        if first || why == Why::Crowded {
            self.told.notify_one();
        }
    }

    /// Waits until the listener ends the connection. Returns the reason.
    pub(super) async fn told(&self) -> Why {
        loop {
            let told = self.told.notified();
            let why = self.end.load(Ordering::Acquire);
            for known in [Why::Idle, Why::SlowHead, Why::SlowBody, Why::Unread, Why::Crowded] {
                if why == known as u8 {
                    return known;
                }
            }
            told.await;
        }
    }

    /// Waits until another connection needs the slot.
    pub(super) async fn crowded(&self) {
        while self.end.load(Ordering::Acquire) != Why::Crowded as u8 {
            self.told.notified().await;
        }
    }

    fn now(&self) -> u32 {
        self.shared.now.load(Ordering::Relaxed)
    }
}

/// A request that is active.
pub(super) struct Serving(Arc<Peer>);

impl Drop for Serving {
    fn drop(&mut self) {
        let peer = &self.0;
        if peer.admitted.swap(false, Ordering::AcqRel) {
            peer.shared.admitted.fetch_sub(1, Ordering::AcqRel);
        }
        peer.answered.store(peer.now(), Ordering::Release);
        peer.serving.store(false, Ordering::Release);
        if let Some(reader) = peer.waiting.lock().take() {
            reader.wake();
        }
    }
}

/// Shields a connection while it exists; see [`Peer::shield`].
#[derive(Debug)]
pub(crate) struct Shield(Arc<Peer>);

impl Drop for Shield {
    fn drop(&mut self) {
        self.0.shielded.store(false, Ordering::Release);
        self.0.shared.shielded.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The timeouts, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticks {
    pub(super) head: u32,
    pub(super) body: u32,
    pub(super) idle: u32,
    pub(super) write: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Ticks = Ticks { head: 10, body: 20, idle: 100, write: 30 };

    fn peer() -> (Arc<Peer>, Arc<Shared>) {
        let shared = Arc::new(Shared::new(1, 1));
        (Arc::new(Peer::new([127, 0, 0, 1].into(), 0, Arc::clone(&shared))), shared)
    }

    /// The first tick after now at which a timeout expires, and its reason.
    fn due(peer: &Peer, shared: &Shared) -> Option<(u32, Why)> {
        let from = shared.now.load(Ordering::Relaxed);
        let due = (1..=1000).find_map(|ticks| {
            shared.now.store(from + ticks, Ordering::Relaxed);
            Some((ticks, peer.overdue(&LIMITS)?))
        });
        shared.now.store(from, Ordering::Relaxed);
        due
    }

    #[test]
    fn each_part_of_a_message_has_its_own_time() {
        let (peer, shared) = peer();
        assert_eq!(due(&peer, &shared), Some((11, Why::Idle)), "it never asked");
        shared.now.store(5, Ordering::Relaxed);
        peer.is_at(Part::Head);
        assert_eq!(due(&peer, &shared), Some((11, Why::SlowHead)));
        shared.now.store(10, Ordering::Relaxed);
        peer.is_at(Part::Head);
        assert_eq!(due(&peer, &shared), Some((6, Why::SlowHead)), "further bytes give no further time");
        peer.is_at(Part::Body);
        let serving = peer.serve();
        assert_eq!(due(&peer, &shared), Some((21, Why::SlowBody)));
        peer.is_at(Part::Between);
        peer.has_sent_one();
        assert_eq!(due(&peer, &shared), None, "the handler has its time");
        peer.is_at(Part::Body);
        assert_eq!(due(&peer, &shared), None, "though the next request comes meanwhile");
        peer.is_at(Part::Between);
        shared.now.store(500, Ordering::Relaxed);
        peer.reads(false);
        peer.reads(false);
        assert_eq!(due(&peer, &shared), Some((31, Why::Unread)));
        peer.reads(true);
        drop(serving);
        assert_eq!(due(&peer, &shared), Some((101, Why::Idle)), "after a request it may be idle for longer");
    }

    #[test]
    fn no_more_requests_are_admitted_than_may_be_and_each_only_until_its_answer() {
        let (first, shared) = peer();
        let second = Arc::new(Peer::new([127, 0, 0, 1].into(), 1, shared));
        let (serving, other) = (first.serve(), second.serve());
        assert_eq!((first.admit(), first.admit()), (Ok(()), Ok(())));
        assert_eq!(second.admit(), Err(Crowded));
        drop(serving);
        assert!(first.known.load(Ordering::Relaxed) && !first.is_kept());
        assert_eq!(second.admit(), Ok(()));
        drop(other);
    }
}
