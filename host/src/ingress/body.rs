//! Reading a body: whole, once, within bounds of size, time and memory.
//!
//! A body that came in one piece, which nearly all do, is not copied. Many senders that trickle large bodies
//! could fill the memory, and nobody knows yet who they are. So large bodies share a budget of bytes and wait
//! for their part of it. While one waits, the oldest body that is not complete after a while is dropped.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::{Instant, sleep_until, timeout},
};

/// The largest body that needs no part of the budget, in bytes.
const SMALL: usize = 32 * 1024;
/// All large bodies at once, in KiB; more where two of the largest need more.
const BUDGET: usize = 64 * 1024;
/// How long a large body may hold its part before it can be dropped for another.
const UNDISTURBED: Duration = Duration::from_secs(1);
/// What a body that was dropped may take to give its part back, before another is dropped.
const GIVEN_BACK: Duration = Duration::from_millis(20);

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is over the limit")]
    TooLarge,
    #[error("the body did not come in time")]
    Slow,
    #[error("the body broke off")]
    Broken,
    #[error("the body took longer than others that wait for its memory")]
    Dropped,
}

/// How a body is encoded, by its `Content-Encoding`; none where it is sent as it is. Cut where it is long.
pub(super) fn content_coding(headers: &HeaderMap) -> Option<String> {
    const MOST: usize = 60;
    let values =
        headers.get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let codings: Vec<_> = values
        .flat_map(|value| value.split(',').map(|coding| coding.trim().to_lowercase()).collect::<Vec<_>>())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    (!codings.is_empty()).then(|| codings.join(", ").chars().take(MOST).collect())
}

/// Reads bodies.
pub(super) struct BodyReader {
    limit: u64,
    time: Duration,
    /// A permit for each KiB.
    budget: Semaphore,
    unfinished: Mutex<Unfinished>,
}

/// The large bodies that have their part of the budget and are not complete.
#[derive(Default)]
struct Unfinished {
    next: u64,
    bodies: BTreeMap<u64, (Instant, Arc<Notify>)>,
}

/// The part of the budget that a large body holds while anybody needs it.
pub(super) type Room<'b> = Option<SemaphorePermit<'b>>;

impl BodyReader {
    /// A reader of bodies of up to `limit` bytes that take up to `time`.
    pub(super) fn new(limit: u64, time: Duration) -> Self {
        // Offsets in a body are u32.
        let limit = limit.min(u32::MAX.into());
        let budget = Semaphore::new(BUDGET.max(2 * kib(limit) as usize));
        Self { limit, time, budget, unfinished: Mutex::default() }
    }

    /// Whether a body may be as long as it says.
    pub(super) fn check_length(&self, body: &Incoming) -> Result<(), BodyError> {
        if body.size_hint().lower() > self.limit { Err(BodyError::TooLarge) } else { Ok(()) }
    }

    /// The whole body.
    pub(super) async fn read(&self, body: Incoming) -> Result<(Bytes, Room<'_>), BodyError> {
        timeout(self.time, self.collect(body)).await.unwrap_or(Err(BodyError::Slow))
    }

    async fn collect(&self, mut body: Incoming) -> Result<(Bytes, Room<'_>), BodyError> {
        let (mut first, mut joined) = (Bytes::new(), BytesMut::new());
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            length += piece.len();
            if length as u64 > self.limit {
                return Err(BodyError::TooLarge);
            }
            if first.is_empty() {
                first = piece;
                continue;
            }
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&piece);
            if length > SMALL {
                return self.collect_large(joined, body).await;
            }
        }
        Ok((if joined.is_empty() { first } else { joined.freeze() }, None))
    }

    /// The same for one of which there is more than [`SMALL`].
    async fn collect_large(
        &self,
        mut joined: BytesMut,
        mut body: Incoming,
    ) -> Result<(Bytes, Room<'_>), BodyError> {
        // One that does not say its length may be as long as any.
        let length = joined.len() as u64 + body.size_hint().exact().unwrap_or(self.limit);
        let room = self.room(kib(length.min(self.limit))).await?;
        joined.reserve(usize::try_from(body.size_hint().lower().min(self.limit)).unwrap_or(0));
        let (number, dropped) = self.begin();
        let rest = async {
            while let Some(frame) = body.frame().await {
                let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
                if (joined.len() + piece.len()) as u64 > self.limit {
                    return Err(BodyError::TooLarge);
                }
                joined.extend_from_slice(&piece);
            }
            Ok(())
        };
        let begun = Begun { reader: self, number };
        let ended = tokio::select! {
            biased;
            ended = rest => ended,
            () = dropped.notified() => Err(BodyError::Dropped),
        };
        drop(begun);
        ended.map(|()| (joined.freeze(), Some(room)))
    }

    /// Waits for a part of the budget; has older bodies dropped for it, one after another.
    async fn room(&self, kib: u32) -> Result<SemaphorePermit<'_>, BodyError> {
        let permit = self.budget.acquire_many(kib);
        tokio::pin!(permit);
        let mut next = Instant::now();
        loop {
            let oldest = self.unfinished.lock().bodies.values().next().map(|(began, _)| *began);
            // Without one, all of the budget is with bodies that are complete.
            let over = oldest.unwrap_or_else(Instant::now) + UNDISTURBED;
            tokio::select! {
                biased;
                permit = &mut permit => return permit.map_err(|_| BodyError::Dropped),
                () = sleep_until(over.max(next)) => self.drop_oldest(),
            }
            next = Instant::now() + GIVEN_BACK;
        }
    }

    /// Drops the oldest body that is not complete, if it has had its time.
    fn drop_oldest(&self) {
        let mut unfinished = self.unfinished.lock();
        if let Some(oldest) = unfinished.bodies.first_entry()
            && oldest.get().0.elapsed() >= UNDISTURBED
        {
            oldest.remove().1.notify_one();
        }
    }

    fn begin(&self) -> (u64, Arc<Notify>) {
        let mut unfinished = self.unfinished.lock();
        let (number, dropped) = (unfinished.next, Arc::<Notify>::default());
        unfinished.next += 1;
        unfinished.bodies.insert(number, (Instant::now(), Arc::clone(&dropped)));
        (number, dropped)
    }
}

/// A large body that is being read.
struct Begun<'b> {
    reader: &'b BodyReader,
    number: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.reader.unfinished.lock().bodies.remove(&self.number);
    }
}

/// So many bytes in KiB, rounded up.
fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
