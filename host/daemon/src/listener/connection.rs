//! One connection, from its first byte to its last.
//!
//! A peer that closes its sending half after the request still gets its answer where the listener allows it;
//! so an event is not dropped half-way when its sender gives up early.

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

/// What a connection may buffer of a body, and of answers that its peer does not read, in bytes.
const MAX_BUFFER: usize = 32 * 1024;
/// How long a peer that is being refused may go on sending, so that it reads why.
const LINGER: Duration = Duration::from_secs(2);
/// How long a connection that has asked nothing yet may take to, once the daemon is told to stop.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Between two looks for it.
const GLANCE: Duration = Duration::from_millis(5);

/// How often the socket of a peer that has to leave is read from.
const GLIMPSES: usize = 4;

pub(super) const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n\
    {\"error\":\"Service unavailable\"}";
const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 27\r\n\r\n{\"error\":\"Request timeout\"}";

/// How a connection came to its end.
enum End {
    /// As HTTP has it; with an error where hyper could not read what came.
    Itself(hyper::Result<()>),
    /// By a limit of its listener.
    Told(Why),
    /// The daemon stops.
    Stopping,
}

/// Serves a connection to its end. `ends` is called once only the last answer is left to be read.
pub(super) async fn serve<H: Handler>(
    handler: &H,
    stream: TcpStream,
    peer: &Arc<Peer>,
    bounds: &Bounds,
    stopping: CancellationToken,
    ends: impl FnOnce(),
) {
    // Answers are small and whole: waiting for more to send only delays them. Where that can't be had,
    // they are slower and no less right.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        // Before the future is polled: hyper may look for the peer's end in between.
        let serving = peer.serve();
        async move {
            if peer.requests() > 1 && !peer.is_known() {
                // One who sends request after request and has proved nothing gets a turn for each, as others do.
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
        .header_read_timeout(None) // `Places` keeps it
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
        // Whoever has only just connected has its request on the way, and hyper would close on it.
        tokio::select! {
            biased;
            _ = &mut connection => return,
            _ = timeout(FIRST_REQUEST, first_request(peer)) => {}
        }
        Pin::new(&mut connection).graceful_shutdown();
        // What has not ended by then is cut off; what has needs no more attention.
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
        // A stranger that leaves for somebody else is told so if that takes no time.
        End::Told(Why::Crowded) => say(&stream, last_words),
        // What it has not read would stay with the system for minutes.
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

/// What no handler has counted, and what is left to say to the peer.
fn last_words(end: &End, gate: &Gate, unfinished: bool, served: bool) -> (Option<Unhandled>, &'static [u8]) {
    if let (Some(violation), End::Itself(_)) = (gate.verdict(), end) {
        return (Some(Unhandled::Violation(violation)), violation.answer());
    }
    match end {
        End::Itself(Err(error)) if error.is_parse_too_large() => (Some(Unhandled::HeadTooLarge), b""),
        End::Itself(Err(error)) if error.is_parse() => (Some(Unhandled::Malformed), b""),
        End::Itself(_) if unfinished => (Some(Unhandled::HeadBroken), b""),
        End::Told(Why::SlowHead) => (Some(Unhandled::SlowHead), TIMEOUT),
        // Its handler counts a request that breaks off. An answer may have begun.
        End::Told(Why::SlowBody | Why::Crowded) if served => (None, b""),
        End::Told(Why::SlowBody) => (None, TIMEOUT),
        End::Told(Why::Crowded) => (Some(Unhandled::Crowded), UNAVAILABLE),
        // An idle connection that ends is no request.
        End::Itself(_) | End::Told(Why::Idle | Why::Unread) | End::Stopping => (None, b""),
    }
}

async fn first_request(peer: &Peer) {
    while peer.requests() == 0 {
        sleep(GLANCE).await;
    }
}

/// Says this at once or not at all, and takes what has come: a socket closed with bytes unread is reset, and
/// the peer may lose its answer with it.
pub(super) fn say(stream: &TcpStream, words: &[u8]) {
    // The runtime may not know yet that the socket can be written to.
    let socket = SockRef::from(stream);
    let _ = socket.send(words);
    let mut unread = [MaybeUninit::uninit(); 4096];
    for _ in 0..GLIMPSES {
        if !socket.recv(&mut unread).is_ok_and(|read| read > 0) {
            break;
        }
    }
}

/// Says the last words, then reads on for a while: a socket closed with bytes unread is reset, and the
/// peer may lose its answer with it.
async fn linger(mut stream: TcpStream, last_words: &[u8]) {
    let rest = async {
        stream.write_all(last_words).await?;
        stream.shutdown().await?;
        let mut unread = vec![0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether the peer took its answer is its own affair.
    let _ = timeout(LINGER, rest).await;
}

/// The body of an answer; its request is under way until it is dropped.
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
