//! The socket as hyper reads it: only complete and valid request heads, and their bodies.
//!
//! The gate tracks the framing of every message ([`super::framing`]). It holds back a head until the head is
//! complete, so that it finds a violation before hyper sees any of it. After a violation hyper reads the end of
//! the stream. The connection then answers with [`Gate::verdict`].
//!
//! The gate also records facts for the timeouts: the peer's position in a message, and since when the peer has
//! not read what we write.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    framing::{self, Framing, Violation},
    peer::{Part, Peer},
};

/// The gate reads at least this many more bytes of an unfinished head at once.
const GROWTH: usize = 1024;

/// The socket of a connection.
pub(super) struct Gate {
    stream: TcpStream,
    peer: Arc<Peer>,
    /// Bytes that were read and not passed on: an unfinished head, or bytes that did not fit into the reader's
    /// buffer.
    held: BytesMut,
    /// How many bytes of `held` may be passed on.
    checked: usize,
    /// The framing of the current body; none between messages and within a head.
    body: Option<Framing>,
    /// Set once nothing more is passed on.
    ended: bool,
    verdict: Option<Violation>,
}

impl Gate {
    pub(super) fn new(stream: TcpStream, peer: Arc<Peer>) -> Self {
        Self { stream, peer, held: BytesMut::new(), checked: 0, body: None, ended: false, verdict: None }
    }

    /// Why reading ended at a message of which hyper has seen nothing. A violation in a body that hyper reads
    /// has no verdict: to the handler that body is broken.
    pub(super) fn verdict(&self) -> Option<Violation> {
        self.verdict
    }

    /// Whether the peer has begun a head and not finished it.
    pub(super) fn holds_part(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Tracks the messages in `bytes`. `searched` bytes were searched for the end of a head already. Returns
    /// how many bytes may be passed on; the rest is an unfinished head.
    fn follow(&mut self, bytes: &[u8], searched: usize) -> usize {
        let (mut at, mut message, mut searched) = (0, None, searched);
        while at < bytes.len() {
            let step = match &mut self.body {
                Some(body) => body.take(&bytes[at..]),
                None => {
                    message = Some(at);
                    match framing::head(&bytes[at..], std::mem::take(&mut searched)) {
                        Ok(Some((length, mut framing))) => {
                            // A body of no bytes is complete at once.
                            let whole = framing.take(&[]).is_ok_and(|(_, whole)| whole);
                            self.body = Some(framing);
                            Ok((length, whole))
                        }
                        Ok(None) => {
                            self.peer.is_at(Part::Head);
                            return at;
                        }
                        Err(violation) => Err(violation),
                    }
                }
            };
            match step {
                Ok((taken, whole)) => {
                    at += taken;
                    if whole {
                        self.body = None;
                        self.peer.has_sent_one();
                    }
                }
                Err(violation) => {
                    self.ended = true;
                    self.verdict = message.map(|_| violation);
                    return message.unwrap_or(0);
                }
            }
        }
        self.peer.is_at(if self.body.is_some() { Part::Body } else { Part::Between });
        at
    }
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.checked > 0 {
                let now = this.checked.min(buf.remaining());
                buf.put_slice(&this.held[..now]);
                this.held.advance(now);
                this.checked -= now;
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                // For hyper the end of the stream means that the peer no longer waits for an answer.
                let waits = this.peer.waits_for_answer(cx.waker());
                return if waits { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            if this.held.is_empty() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
                if buf.filled().len() == before {
                    return Poll::Ready(Ok(()));
                }
                let passes = this.follow(&buf.filled()[before..], 0);
                if !this.ended {
                    this.held.extend_from_slice(&buf.filled()[before + passes..]);
                }
                buf.set_filled(before + passes);
                if passes > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let searched = this.held.len();
                this.held.reserve(GROWTH);
                if ready!(pin!(this.stream.read_buf(&mut this.held)).poll(cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                let held = std::mem::take(&mut this.held);
                this.checked = this.follow(&held, searched);
                this.held = held;
            }
        }
    }
}

impl AsyncWrite for Gate {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.peer.reads(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.peer.reads(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Leaves the sending half open, because the connection may write more after hyper has finished.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
