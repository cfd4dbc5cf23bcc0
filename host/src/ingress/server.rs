//! Connections: accepted, bounded, timed, drained.
//!
//! Nothing a peer does holds anything for ever. A header and a body have their time, and so has an
//! answer to be read; connections and requests have their number, and a connection over the number is
//! told so and closed. Requests too broken to reach a handler are counted with those of no source, so
//! that the ledger adds up.
//!
//! A peer that closes its sending half after the request still gets its answer; so an event is not
//! dropped half-way when its sender gives up early.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::{
    server::conn::http1::{Builder, Parts},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::{
    Inbox, Ingress,
    handler::{Shared, Tally},
};
use crate::model::RequestOutcome;

/// Open connections for each request that may be under way: most of them idle.
const CONNECTIONS_PER_REQUEST: usize = 4;
/// The largest request header in bytes; 100 lines is hyper's own bound. Beyond either: 431.
const MAX_HEADER: usize = 16 * 1024;
/// What a connection may buffer, in bytes.
const MAX_BUFFER: usize = 32 * 1024;
/// How long a peer that is being refused may go on sending, so that it reads why.
const LINGER: Duration = Duration::from_secs(2);
/// How long a connection that has asked nothing yet may take to, once the daemon is told to stop.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Between two looks for it.
const GLANCE: Duration = Duration::from_millis(5);
/// How long accepting rests when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n\
    {\"error\":\"Service unavailable\"}";
const HEADER_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 27\r\n\r\n{\"error\":\"Request timeout\"}";

impl<I: Inbox> Ingress<I> {
    /// Serves until `shutdown`; then takes no more connections, lets the requests under way end within
    /// the configured time, and returns.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let most = self.0.server.max_requests.saturating_mul(CONNECTIONS_PER_REQUEST).clamp(1, 1 << 20);
        let places = Arc::new(Semaphore::new(most));
        let (stop, stopping) = watch::channel(false);
        let mut asked = self.0.pulse.asked();
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(answer) = asked.recv() => {
                    let _ = answer.send(());
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let connection = serve_connection(Arc::clone(&self.0), stream, stopping.clone());
                        tokio::spawn(async move {
                            connection.await;
                            drop(place);
                        });
                    }
                    Err(_) => self.0.strays.turn_away(&stream),
                },
                Err(error) => self.0.strays.accept_failed(&error).await,
            }
        }
        drop(listener);
        stop.send_replace(true);
        let all = u32::try_from(most).unwrap_or(u32::MAX);
        let drained = timeout(self.0.server.shutdown_timeout, places.acquire_many(all)).await;
        if drained.is_err() {
            tracing::warn!("requests under way were cut off after `shutdown_timeout`");
        }
    }
}

async fn serve_connection<I: Inbox>(
    shared: Arc<Shared<I>>,
    stream: TcpStream,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are small and whole: waiting for more to send only delays them. Where that can't be had,
    // they are slower and no less right.
    let _ = stream.set_nodelay(true);
    let (handler, activity) = (&*shared, &Activity::default());
    let service = service_fn(|request| async move {
        activity.mark();
        let response = handler.handle(request).await;
        activity.mark();
        Ok::<_, Infallible>(response)
    });
    let mut connection = Builder::new()
        .header_read_timeout(None) // `Activity` keeps it
        .max_header_size(MAX_HEADER)
        .max_buf_size(MAX_BUFFER)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);

    let end = tokio::select! {
        biased;
        ended = &mut connection => Some(End::of(ended)),
        () = activity.stalls_for(shared.server.header_timeout) => Some(End::Stalled),
        () = told(&mut stopping) => None,
    };
    let Some(end) = end else {
        // Whoever has only just connected has its request on the way, and hyper would close on it.
        tokio::select! {
            biased;
            _ = &mut connection => return,
            _ = timeout(FIRST_REQUEST, activity.begins()) => {}
        }
        Pin::new(&mut connection).graceful_shutdown();
        // What has not ended by then is cut off; what has needs no more attention.
        let _ = timeout(shared.server.shutdown_timeout, connection).await;
        return;
    };
    let Parts { io, read_buf, .. } = connection.into_parts();
    let last_words = shared.strays.count_unhandled(&end, &read_buf);
    linger(io.into_inner(), last_words).await;
}

/// Waits for the word to stop.
async fn told(stopping: &mut watch::Receiver<bool>) {
    // An error means that the listener is gone, which is to stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// How a connection came to its end.
enum End {
    /// As HTTP has it.
    Proper,
    /// By a request that hyper could not read.
    Broken(hyper::Error),
    /// By waiting too long for the peer to send a header, or to read an answer.
    Stalled,
}

impl End {
    fn of(ended: hyper::Result<()>) -> Self {
        ended.err().map_or(Self::Proper, Self::Broken)
    }
}

/// Counts the beginnings and ends of requests on a connection: odd while one is under way. A timer for
/// each header would be exact, and costs more than verifying a signature does; looking now and then
/// is as good.
#[derive(Default)]
struct Activity(AtomicU64);

impl Activity {
    fn mark(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the first request has begun.
    async fn begins(&self) {
        while self.0.load(Ordering::Relaxed) == 0 {
            sleep(GLANCE).await;
        }
    }

    /// Waits until no request has begun or ended or been under way for so long, or up to a quarter more.
    async fn stalls_for(&self, time: Duration) {
        const LOOKS: u32 = 4;
        let (mut seen, mut quiet) = (0, 0);
        while quiet < LOOKS {
            sleep(time / LOOKS).await;
            let marks = self.0.load(Ordering::Relaxed);
            quiet = if marks == seen && marks.is_multiple_of(2) { quiet + 1 } else { 0 };
            seen = marks;
        }
    }
}

/// Says the last words, then reads on for a while: a socket closed with bytes unread is reset, and the
/// peer may lose its answer with it.
async fn linger(mut stream: TcpStream, last_words: &[u8]) {
    let rest = async {
        stream.write_all(last_words).await?;
        stream.shutdown().await?;
        let mut unread = vec![0; 16 * 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether the peer took its answer is its own affair.
    let _ = timeout(LINGER, rest).await;
}

impl Tally {
    /// Counts a request that no handler saw. Gives what is left to say to the peer.
    fn count_unhandled(&self, end: &End, unread: &[u8]) -> &'static [u8] {
        let (reason, last_words): (_, &[u8]) = match end {
            End::Broken(error) if error.is_parse_too_large() => ("header-too-large", b""),
            End::Broken(error) if error.is_parse() => ("malformed-request", b""),
            End::Broken(_) if !unread.is_empty() => ("header-broken", b""),
            End::Stalled if !unread.is_empty() => ("header-timeout", HEADER_TIMEOUT),
            // An idle connection that ends is no request.
            End::Proper | End::Broken(_) | End::Stalled => return b"",
        };
        self.ledger.receive().settle(RequestOutcome::Rejected(reason));
        if let Some(held_back) = self.gate.admit() {
            tracing::debug!(reason, held_back, "request refused before its handler");
        }
        last_words
    }

    /// Answers a connection that is one too many.
    fn turn_away(&self, stream: &TcpStream) {
        let _ = stream.try_write(TOO_MANY_CONNECTIONS);
        self.ledger.receive().settle(RequestOutcome::Failed("too-many-connections"));
        if let Some(held_back) = self.gate.admit() {
            tracing::warn!(held_back, "too many connections; see `max_requests`");
        }
    }

    /// Gives the system time where it has no more sockets; a peer that left early is no reason to wait.
    async fn accept_failed(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset) {
            return;
        }
        if let Some(held_back) = self.gate.admit() {
            tracing::error!(
                held_back,
                "can't accept connections: {error}; is the limit of open files too low?"
            );
        }
        sleep(ACCEPT_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::fixtures::{BODY, TestServer, read_answer, read_to_end};

    const HEAD: &str = "POST /webhooks/crm HTTP/1.1\r\nhost: x\r\n";

    #[test]
    fn the_canned_answers_are_well_formed() {
        for answer in [TOO_MANY_CONNECTIONS, HEADER_TIMEOUT] {
            let (head, body) = std::str::from_utf8(answer).unwrap().split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_serves_request_after_request() {
        let server = TestServer::start().await;
        let mut stream = server.connect().await;
        for id in ["msg_1", "msg_2"] {
            stream.write_all(server.signed(id, BODY).as_bytes()).await.unwrap();
            assert_eq!(read_answer(&mut stream).await.0, 200);
        }
        let pipelined: String = (3..40).map(|n| server.signed(&format!("msg_{n}"), BODY)).collect();
        stream.write_all(pipelined.as_bytes()).await.unwrap();
        for _ in 3..40 {
            assert_eq!(read_answer(&mut stream).await.0, 200);
        }
        assert_eq!(server.counts("crm").await.accepted, 39);
    }

    #[tokio::test]
    async fn a_body_may_come_in_any_number_of_pieces() {
        let server = TestServer::start().await;
        let body = format!(r#"{{"type":"user.created","data":"{}"}}"#, "x".repeat(300_000));
        let request = server.signed("msg_1", &body);
        let (head, _) = request.split_once("content-length").unwrap();
        let chunks: String = body
            .as_bytes()
            .chunks(999)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()))
            .collect();
        let (status, answer) =
            server.ask(&format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(server.ask(&server.signed("msg_2", &body)).await.0, 200);
        for (event, _) in &*server.inbox.taken.lock() {
            assert_eq!(event.body, body.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_empty() {
        let server = TestServer::start().await;
        assert_eq!(server.ask(&format!("{HEAD}\r\n")).await.0, 401);
        assert_eq!(server.counts("crm").await.rejected["unsigned"], 1);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_cut_off() {
        let server = TestServer::with(|server| server.max_body = 1000).await;
        let fits = format!(r#"{{"type":"user.created","data":"{}"}}"#, "x".repeat(1000 - 33));
        assert_eq!(fits.len(), 1000);
        assert_eq!(server.ask(&server.signed("msg_1", &fits)).await.0, 200);

        // Told before anything of the body has come.
        let (status, answer) = server.ask(&format!("{HEAD}content-length: 1001\r\n\r\n")).await;
        assert!(status == 413 && answer.contains("connection: close"), "{answer}");
        let (status, _) = server.ask(&format!("{HEAD}content-length: 9999999999999999999\r\n\r\n")).await;
        assert_eq!(status, 413);

        // Told while it comes; and a peer that goes on sending reads the answer nonetheless.
        let mut stream = server.connect().await;
        stream.write_all(format!("{HEAD}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
        for _ in 0..1000 {
            stream.write_all(format!("400\r\n{}\r\n", "x".repeat(0x400)).as_bytes()).await.unwrap();
        }
        assert_eq!(read_answer(&mut stream).await.0, 413);
        assert_eq!(server.counts("crm").await.rejected["body-too-large"], 3);
    }

    #[tokio::test]
    async fn a_header_over_the_limit_is_refused() {
        let server = TestServer::start().await;
        let many: String = (0..1000).map(|n| format!("x-{n}: y\r\n")).collect();
        let long = format!("x: {}\r\n", "y".repeat(MAX_HEADER));
        let no_end = format!("x: {}", "y".repeat(1024 * 1024));
        for header in [many, long, no_end] {
            assert_eq!(server.ask(&format!("{HEAD}{header}\r\n")).await.0, 431);
        }
        assert_eq!(server.strays().await, [("header-too-large".to_owned(), 3)]);
    }

    #[tokio::test]
    async fn garbage_is_refused_and_counted() {
        let server = TestServer::start().await;
        for garbage in [
            "\u{1}\u{2}\u{3}\r\n\r\n",
            "POST\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let mut stream = server.connect().await;
            stream.write_all(garbage.as_bytes()).await.unwrap();
            let answer = read_to_end(&mut stream).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{garbage:?}: {answer}");
        }
        assert_eq!(server.strays().await, [("malformed-request".to_owned(), 4)]);
        assert_eq!(server.ask(&server.signed("msg_1", BODY)).await.0, 200);
    }

    #[tokio::test]
    async fn a_slow_header_is_cut_off_and_an_idle_connection_is_not_a_request() {
        let server = TestServer::with(|server| server.header_timeout = Duration::from_millis(100)).await;
        let mut idle = server.connect().await;
        let mut slow = server.connect().await;
        slow.write_all(HEAD.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut slow).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert_eq!(read_to_end(&mut idle).await, "");
        assert_eq!(server.strays().await, [("header-timeout".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn a_peer_that_reads_no_answers_is_cut_off() {
        let server = TestServer::with(|server| server.header_timeout = Duration::from_millis(200)).await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut deaf = socket.connect(server.address).await.unwrap();
        let requests = "GET /webhooks/crm HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
        let cut_off = async { while deaf.write_all(requests.as_bytes()).await.is_ok() {} };
        timeout(Duration::from_secs(60), cut_off).await.expect("it is never cut off");
        server.counts("crm").await;
    }

    #[tokio::test]
    async fn a_slow_body_is_cut_off() {
        let server = TestServer::with(|server| server.body_timeout = Duration::from_millis(100)).await;
        let (status, answer) = server.ask(&format!("{HEAD}content-length: 10\r\n\r\n{{")).await;
        assert!(status == 408 && answer.contains("connection: close"), "{answer}");
        assert_eq!(server.counts("crm").await.rejected["body-timeout"], 1);
    }

    #[tokio::test]
    async fn a_request_that_breaks_off_is_counted() {
        let server = TestServer::start().await;
        let mut stream = server.connect().await;
        stream.write_all(format!("{HEAD}content-length: 10\r\n\r\n{{").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        read_to_end(&mut stream).await;
        assert_eq!(server.counts("crm").await.rejected["body-broken"], 1);

        let mut stream = server.connect().await;
        stream.write_all(HEAD.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        read_to_end(&mut stream).await;
        assert_eq!(server.strays().await, [("header-broken".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn a_peer_that_has_said_all_still_gets_its_answer() {
        let server = TestServer::start().await;
        let held = server.inbox.gate.acquire_many(1000).await.unwrap();
        let mut stream = server.connect().await;
        stream.write_all(server.signed("msg_1", BODY).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        while server.places_left() == 1024 {
            tokio::task::yield_now().await;
        }
        drop(held);
        assert!(read_to_end(&mut stream).await.ends_with(r#"{"received":true}"#));
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so() {
        let server = TestServer::with(|server| server.max_requests = 1).await;
        let mut open = Vec::new();
        for n in 0..CONNECTIONS_PER_REQUEST {
            let mut stream = server.connect().await;
            stream.write_all(server.signed(&format!("msg_{n}"), BODY).as_bytes()).await.unwrap();
            assert_eq!(read_answer(&mut stream).await.0, 200);
            open.push(stream);
        }
        let mut refused = server.connect().await;
        let answer = read_to_end(&mut refused).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
        assert_eq!(server.counts(crate::ingress::NO_SOURCE).await.failed["too-many-connections"], 1);
        // Those that are in go on, and a place that becomes free is taken.
        open[0].write_all(server.signed("msg_0", BODY).as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut open[0]).await.0, 200);
        drop(open);
    }

    #[tokio::test]
    async fn stopping_lets_requests_end_and_idle_connections_go() {
        let mut server = TestServer::start().await;
        let mut idle = server.connect().await;
        idle.write_all(server.signed("msg_0", BODY).as_bytes()).await.unwrap();
        read_answer(&mut idle).await;

        let inbox = Arc::clone(&server.inbox);
        let held = inbox.gate.acquire_many(1000).await.unwrap();
        let mut busy = server.connect().await;
        busy.write_all(server.signed("msg_1", BODY).as_bytes()).await.unwrap();
        while server.places_left() == 1024 {
            tokio::task::yield_now().await;
        }
        server.stop();
        assert_eq!(read_to_end(&mut idle).await, "");
        drop(held);
        let (status, answer) = read_answer(&mut busy).await;
        assert!(status == 200 && answer.contains("connection: close"), "{answer}");
        let address = server.address;
        server.stopped().await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn who_connected_just_before_the_end_is_still_served() {
        let mut server = TestServer::start().await;
        let mut fresh = server.connect().await;
        // They are taken in the order in which they come: once this one is answered the other is taken.
        assert_eq!(server.ask(&server.signed("msg_0", BODY)).await.0, 200);
        server.stop();
        sleep(GLANCE).await;
        fresh.write_all(server.signed("msg_1", BODY).as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut fresh).await.0, 200);
        server.stopped().await;
    }

    #[tokio::test]
    async fn stopping_has_an_end() {
        let mut server =
            TestServer::with(|server| server.shutdown_timeout = Duration::from_millis(100)).await;
        let inbox = Arc::clone(&server.inbox);
        let _held = inbox.gate.acquire_many(1000).await.unwrap();
        let mut stuck = server.connect().await;
        stuck.write_all(server.signed("msg_1", BODY).as_bytes()).await.unwrap();
        while server.places_left() == 1024 {
            tokio::task::yield_now().await;
        }
        server.stop();
        server.stopped().await;
        assert_eq!(read_to_end(&mut stuck).await, "");
    }
}
