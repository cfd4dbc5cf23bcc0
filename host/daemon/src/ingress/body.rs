//! Reads the body of a request within limits of size, time and memory. The handler calls it once for each
//! request.
//!
//! A body that arrives in one piece is not copied; nearly all do. Many senders that trickle large bodies could
//! fill the memory, and they are not verified yet. So large bodies share a budget of bytes, and each waits for
//! its part. While one waits, the reader drops the oldest body that is still incomplete after a second.

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
/// The budget of all large bodies together, in KiB. It is larger if two bodies of the largest size need more.
const BUDGET: usize = 64 * 1024;
/// A large body holds its part at least this long before another can displace it.
const UNDISTURBED: Duration = Duration::from_secs(1);
/// After dropping a body, the reader waits this long for its part before it drops another.
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

/// The `Content-Encoding` of a body, cut to 60 characters; none if the body is sent unencoded.
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

/// Reads bodies; shared by all requests.
pub(super) struct BodyReader {
    limit: u64,
    time: Duration,
    /// One permit for each KiB.
    budget: Semaphore,
    unfinished: Mutex<Unfinished>,
}

/// The large bodies that hold their part of the budget and are incomplete.
#[derive(Default)]
struct Unfinished {
    next: u64,
    bodies: BTreeMap<u64, (Instant, Arc<Notify>)>,
}

/// The part of the budget that a large body holds while the caller uses it; none for a small body.
pub(super) type Room<'b> = Option<SemaphorePermit<'b>>;

impl BodyReader {
    /// A reader of bodies of up to `limit` bytes, each within `time`.
    pub(super) fn new(limit: u64, time: Duration) -> Self {
        // `NewEvent` keeps offsets into the body as u32.
        let limit = limit.min(u32::MAX.into());
        let budget = Semaphore::new(BUDGET.max(2 * kib(limit) as usize));
        Self { limit, time, budget, unfinished: Mutex::default() }
    }

    /// Checks the announced length of a body against the limit.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] if the length is above the limit.
    pub(super) fn check_length(&self, body: &Incoming) -> Result<(), BodyError> {
        if body.size_hint().lower() > self.limit { Err(BodyError::TooLarge) } else { Ok(()) }
    }

    /// Reads the whole body, and returns it with its part of the budget.
    ///
    /// # Errors
    /// [`BodyError`] says why it cannot be read.
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

    /// Goes on with a body of which more than [`SMALL`] bytes have arrived.
    async fn collect_large(
        &self,
        mut joined: BytesMut,
        mut body: Incoming,
    ) -> Result<(Bytes, Room<'_>), BodyError> {
        // A body without a length may be as long as the limit.
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

    /// Waits for a part of the budget. Drops older incomplete bodies, one after another, until it gets that
    /// part.
    async fn room(&self, kib: u32) -> Result<SemaphorePermit<'_>, BodyError> {
        let permit = self.budget.acquire_many(kib);
        tokio::pin!(permit);
        let mut next = Instant::now();
        loop {
            let oldest = self.unfinished.lock().bodies.values().next().map(|(began, _)| *began);
            // If no body is incomplete, complete ones hold all of the budget.
            let over = oldest.unwrap_or_else(Instant::now) + UNDISTURBED;
            tokio::select! {
                biased;
                permit = &mut permit => return permit.map_err(|_| BodyError::Dropped),
                () = sleep_until(over.max(next)) => self.drop_oldest(),
            }
            next = Instant::now() + GIVEN_BACK;
        }
    }

    /// Drops the oldest incomplete body if it has held its part for [`UNDISTURBED`].
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

/// Removes a large body from the incomplete ones when its reading ends.
struct Begun<'b> {
    reader: &'b BodyReader,
    number: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.reader.unfinished.lock().bodies.remove(&self.number);
    }
}

/// This many bytes in KiB, rounded up.
fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
