//! One connection, from its first byte to its last.
//!
//! A peer that closes its sending half after the request still gets its answer, if the listener allows it. So
//! an event is not lost half-way if its sender stops sending early.

use std::{
    convert::Infallible,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, header::CONNECTION};
use hyper::{
    body::{Body, Frame, SizeHint},
    server::conn::http1::{Builder, Parts},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Bounds, Handler, Unhandled,
    framing::MAX_HEAD,
    gate::Gate,
    peer::{Peer, Serving, Why},
};

/// The buffer for a body, and for answers that the peer does not read, in bytes.
const MAX_BUFFER: usize = 32 * 1024;
/// How long a refused peer may keep sending, so that it can read the reason.
const LINGER: Duration = Duration::from_secs(2);
/// How long a connection without any request may take to send one, once the daemon stops.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// The interval between two checks for that.
const GLANCE: Duration = Duration::from_millis(5);

/// The interval at which the socket of a peer that must leave is read.
const GLIMPSES: usize = 4;

pub(super) const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n\
    {\"error\":\"Service unavailable\"}";
const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 27\r\n\r\n{\"error\":\"Request timeout\"}";

/// How a connection ended.
enum End {
    /// Normally; with an error if hyper could not read a message.
    Itself(hyper::Result<()>),
    /// Because of a limit of its listener.
    Told(Why),
    /// Because the daemon stops.
    Stopping,
}

/// Serves a connection to its end. `ends` is called once when the peer only has to read the last answer.
pub(super) async fn serve<H: Handler>(
    handler: &H,
    stream: TcpStream,
    peer: &Arc<Peer>,
    bounds: &Bounds,
    stopping: CancellationToken,
    ends: impl FnOnce(),
) {
    // Answers are small and complete, so waiting for more data only delays them. If the option cannot be set,
    // they are slower but still correct.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        // Before the future is polled, because hyper may look for the peer's end in between.
        let serving = peer.serve();
        async move {
            if peer.requests() > 1 && !peer.is_known() {
                // A peer that sends request after request without a valid one gets the same share as the
                // others.
                tokio::task::yield_now().await;
            }
            let mut response = handler.handle(request, peer).await;
            if !peer.has_sent_all() {
                // Nobody reads the rest of the body.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| Answer { body, _serving: serving }))
        }
    });
    let mut connection = Builder::new()
        .header_read_timeout(None) // `ConnectionSlots` keeps it
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .half_close(bounds.half_close)
        .serve_connection(TokioIo::new(Gate::new(stream, Arc::clone(peer))), service);

    let end = tokio::select! {
        biased;
        ended = &mut connection => End::Itself(ended),
        why = peer.told() => End::Told(why),
        () = stopping.cancelled() => End::Stopping,
    };
    if matches!(end, End::Stopping) {
        // A new connection has its request on the way, and hyper would close the connection before it
        // arrives.
        tokio::select! {
            biased;
            _ = &mut connection => return,
            _ = timeout(FIRST_REQUEST, first_request(peer)) => {}
        }
        Pin::new(&mut connection).graceful_shutdown();
        // A connection that has not ended by then is closed.
        let _ = timeout(bounds.shutdown_timeout, connection).await;
        return;
    }
    let served = peer.is_serving();
    let Parts { io, read_buf, .. } = connection.into_parts();
    let gate = io.into_inner();
    let unfinished = !read_buf.is_empty() || gate.holds_part();
    let (unhandled, last_words) = last_words(&end, &gate, unfinished, served);
    if let Some(unhandled) = unhandled {
        handler.unhandled(unhandled, peer.address());
    }
    let stream = gate.into_stream();
    match end {
        // A stranger whose connection is closed for another gets an answer, if that takes no time.
        End::Told(Why::Crowded) => say(&stream, last_words),
        // Unread answers would stay in the system's buffers for minutes.
        End::Told(Why::Unread) => drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
        End::Itself(_) | End::Told(_) | End::Stopping => {
            ends();
            tokio::select! {
                () = linger(stream, last_words) => {}
                () = peer.crowded() => {}
            }
        }
    }
}

/// Counts requests that no handler counted, and returns the last answer for the peer.
fn last_words(end: &End, gate: &Gate, unfinished: bool, served: bool) -> (Option<Unhandled>, &'static [u8]) {
    if let (Some(violation), End::Itself(_)) = (gate.verdict(), end) {
        return (Some(Unhandled::Violation(violation)), violation.answer());
    }
    match end {
        End::Itself(Err(error)) if error.is_parse_too_large() => (Some(Unhandled::HeadTooLarge), b""),
        End::Itself(Err(error)) if error.is_parse() => (Some(Unhandled::Malformed), b""),
        End::Itself(_) if unfinished => (Some(Unhandled::HeadBroken), b""),
        End::Told(Why::SlowHead) => (Some(Unhandled::SlowHead), TIMEOUT),
        // The handler counts a request that was interrupted. An answer may have begun.
        End::Told(Why::SlowBody | Why::Crowded) if served => (None, b""),
        End::Told(Why::SlowBody) => (None, TIMEOUT),
        End::Told(Why::Crowded) => (Some(Unhandled::Crowded), UNAVAILABLE),
        // The end of an idle connection is not a request.
        End::Itself(_) | End::Told(Why::Idle | Why::Unread) | End::Stopping => (None, b""),
    }
}

async fn first_request(peer: &Peer) {
    while peer.requests() == 0 {
        sleep(GLANCE).await;
    }
}

/// Writes this at once or not at all, and reads what has arrived. If a socket is closed with unread bytes,
/// the system resets it, and the peer may lose its answer.
pub(super) fn say(stream: &TcpStream, words: &[u8]) {
    // The runtime may not know yet that the socket is writable.
    let socket = SockRef::from(stream);
    let _ = socket.send(words);
    let mut unread = [MaybeUninit::uninit(); 4096];
    for _ in 0..GLIMPSES {
        if !socket.recv(&mut unread).is_ok_and(|read| read > 0) {
            break;
        }
    }
}

/// Writes the last answer, then keeps reading for a while. If a socket is closed with unread bytes, the
/// system resets it, and the peer may lose its answer.
async fn linger(mut stream: TcpStream, last_words: &[u8]) {
    let rest = async {
        stream.write_all(last_words).await?;
        stream.shutdown().await?;
        let mut unread = vec![0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // It does not matter whether the peer reads its answer.
    let _ = timeout(LINGER, rest).await;
}

/// The body of an answer. Its request is active until this is dropped.
struct Answer<B> {
    body: B,
    _serving: Serving,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canned_answers_are_well_formed() {
        for answer in [UNAVAILABLE, TIMEOUT] {
            let (head, body) =
                std::str::from_utf8(answer).expect("text").split_once("\r\n\r\n").expect("a body");
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
            serde_json::from_str::<serde_json::Value>(body).expect("JSON");
        }
    }
}
