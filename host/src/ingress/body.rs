//! Reading a body: whole, once, within bounds of size, time and memory.
//!
//! A body that came in one piece, which nearly all do, is not copied. Many senders that trickle large
//! bodies could fill the memory, and nobody knows yet who they are: so only a few bodies at once may
//! grow large, and the others wait for a place, within their time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The largest body that needs no place, in bytes.
const SMALL: usize = 32 * 1024;
/// Large bodies at once.
const LARGE_AT_ONCE: usize = 64;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is over the limit")]
    TooLarge,
    #[error("the body did not come in time")]
    Slow,
    #[error("the body broke off")]
    Broken,
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
    large: Semaphore,
}

impl BodyReader {
    /// A reader of bodies of up to `limit` bytes that take up to `time`.
    pub(super) fn new(limit: u64, time: Duration) -> Self {
        // Offsets in a body are u32.
        Self { limit: limit.min(u32::MAX.into()), time, large: Semaphore::new(LARGE_AT_ONCE) }
    }

    /// The whole body, with the place it holds while anybody needs it.
    pub(super) async fn read(
        &self,
        body: Incoming,
    ) -> Result<(Bytes, Option<SemaphorePermit<'_>>), BodyError> {
        if body.size_hint().lower() > self.limit {
            return Err(BodyError::TooLarge);
        }
        tokio::time::timeout(self.time, self.collect(body)).await.unwrap_or(Err(BodyError::Slow))
    }

    async fn collect(&self, mut body: Incoming) -> Result<(Bytes, Option<SemaphorePermit<'_>>), BodyError> {
        let (mut first, mut joined, mut place) = (Bytes::new(), BytesMut::new(), None);
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            length += piece.len();
            if length as u64 > self.limit {
                return Err(BodyError::TooLarge);
            }
            if length > SMALL && place.is_none() {
                place = self.large.acquire().await.ok();
                joined.reserve(length.saturating_add(body.size_hint().lower() as usize));
            }
            if first.is_empty() {
                first = piece;
                continue;
            }
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&piece);
        }
        Ok((if joined.is_empty() { first } else { joined.freeze() }, place))
    }
}
