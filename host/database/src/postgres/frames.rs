//! Watches the stream from the server for messages that are larger than a call may return.
//!
//! The client reads a row completely before we can check it, and one value may have a gigabyte. So this checks
//! each length that the server announces, as it arrives. A message beyond the bound breaks the connection,
//! before memory is allocated for it.
//!
//! The server also reports when a setting of the session has changed (ParameterStatus), and when a channel that
//! the session listens to has a notification. Neither happens in a session after its set-up.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// The largest message that answers the host's own statements, in bytes.
pub(super) const OWN: usize = 512 << 20;
/// The letters of the messages that report a change of the session.
const PARAMETER_STATUS: u8 = b'S';
const NOTIFICATION: u8 = b'A';

/// The bound, and the size of the message that exceeded it.
#[derive(Debug, Clone, Default)]
pub(super) struct Bound(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    most: AtomicUsize,
    over: AtomicUsize,
    changed: AtomicBool,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { most: AtomicUsize::new(OWN), over: AtomicUsize::new(0), changed: AtomicBool::new(false) }
    }
}

impl Bound {
    /// From now on a message may have this many bytes.
    pub(super) fn set(&self, most: usize) {
        self.0.most.store(most, Ordering::Relaxed);
    }

    /// The size of the message that broke the connection, if one did.
    pub(super) fn over(&self) -> Option<usize> {
        Some(self.0.over.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Records that the session is set up. From now on no setting may change.
    pub(super) fn begin(&self) {
        self.0.changed.store(false, Ordering::Relaxed);
    }

    /// Whether the server has reported a change of the session since then.
    pub(super) fn has_changed(&self) -> bool {
        self.0.changed.load(Ordering::Relaxed)
    }

    fn message(&self, kind: u8) {
        if matches!(kind, PARAMETER_STATUS | NOTIFICATION) {
            self.0.changed.store(true, Ordering::Relaxed);
        }
    }

    fn check(&self, bytes: usize) -> io::Result<()> {
        if bytes <= self.0.most.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.0.over.store(bytes, Ordering::Relaxed);
        Err(io::Error::other("the server sent a message that is larger than allowed"))
    }
}

/// A stream of messages in clear: to the server itself, or within TLS.
pub(super) struct Watched<S> {
    stream: S,
    bound: Bound,
    /// None while the stream is still encrypted.
    frames: Option<Frames>,
}

/// The position of the stream in its messages. Each message is a letter, a length that includes itself, and the
/// rest.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 5],
    filled: usize,
    left: usize,
}

impl Frames {
    pub(super) fn pass(&mut self, mut bytes: &[u8], bound: &Bound) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let within = self.left.min(bytes.len());
                self.left -= within;
                bytes = &bytes[within..];
                continue;
            }
            self.head[self.filled] = bytes[0];
            self.filled += 1;
            bytes = &bytes[1..];
            if self.filled == self.head.len() {
                let [kind, length @ ..] = self.head;
                bound.message(kind);
                self.filled = 0;
                self.left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                bound.check(self.left)?;
            }
        }
        Ok(())
    }
}

impl<S> Watched<S> {
    /// A stream whose messages are readable, unless TLS will run over it.
    pub(super) fn new(stream: S, bound: Bound, clear: bool) -> Self {
        Self { stream, bound, frames: clear.then(Frames::default) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if let Some(frames) = &mut this.frames {
            frames.pass(&buffer.filled()[before..], &this.bound)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Watched<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// Makes TLS whose content is watched.
pub(super) struct WatchedTls<C>(pub(super) C, pub(super) Bound);

impl<S, C> TlsConnect<S> for WatchedTls<C>
where
    C: TlsConnect<S>,
    C::Future: Send + 'static,
{
    type Stream = Watched<C::Stream>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, C::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.0.connect(stream);
        let bound = self.1;
        Box::pin(async move { Ok(Watched::new(connecting.await?, bound, true)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_the_bound_is_seen_however_it_is_cut() {
        let mut stream = Vec::new();
        for length in [0, 1, 10, 100] {
            stream.push(b'D');
            stream.extend(u32::to_be_bytes(length + 4));
            stream.extend(vec![7; length as usize]);
        }
        for most in [9, 99, 100] {
            for cut in 1..stream.len() {
                let bound = Bound::default();
                bound.set(most);
                let mut frames = Frames::default();
                let passed = stream.chunks(cut).try_for_each(|bytes| frames.pass(bytes, &bound));
                assert_eq!(passed.is_ok(), most == 100, "{most}, cut at {cut}");
                assert_eq!(
                    bound.over(),
                    [(9, 10), (99, 100)].iter().find(|(m, _)| *m == most).map(|(_, over)| *over)
                );
            }
        }
    }
}
