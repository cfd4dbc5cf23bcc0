//! The socket as hyper reads it: whole, valid request heads, and their bodies.
//!
//! The gate follows the framing of every message ([`super::framing`]). It holds back a head until it is
//! complete, so that a violation is found before hyper has seen any of it. After a violation hyper reads the
//! end of the stream; the connection then answers with [`Gate::verdict`].
//!
//! It also notes what the timeouts need to know: where in a message the peer is, and since when the peer
//! has not read what we write.

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

/// How many bytes more of an unfinished head are read at once, at least.
const GROWTH: usize = 1024;

/// A connection's socket.
pub(super) struct Gate {
    stream: TcpStream,
    peer: Arc<Peer>,
    /// What was read and not passed on: an unfinished head, or what did not fit into the reader's buffer.
    held: BytesMut,
    /// How many bytes of `held` may be passed on.
    checked: usize,
    /// The body at hand; none between messages and within a head.
    body: Option<Framing>,
    /// Nothing more is passed on.
    ended: bool,
    verdict: Option<Violation>,
}

impl Gate {
    pub(super) fn new(stream: TcpStream, peer: Arc<Peer>) -> Self {
        Self { stream, peer, held: BytesMut::new(), checked: 0, body: None, ended: false, verdict: None }
    }

    /// Why reading ended at a message of which hyper has seen nothing. A violation in a body that hyper is
    /// reading has no verdict: to the handler that body has broken off.
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

    /// Follows the messages in `bytes`, of which `searched` have been searched for the end of a head. Returns
    /// how many may be passed on; the rest is an unfinished head.
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
                // To hyper the end means that nobody waits for an answer any more.
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

    /// Leaves the sending half open: the connection may have more to say than hyper has.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
