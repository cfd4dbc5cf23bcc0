//! Connects ingress to [`crate::listener`]: sets the limits of its connections, and counts requests that reach
//! no handler.
//!
//! Those are counted under no source, so that the ledger adds up.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use posthouse_model::RequestOutcome;
use tokio::net::TcpListener;

use super::{Inbox, Ingress, handler::Shared};

use crate::listener::{self, Bounds, Handler, Peer, Unhandled};

/// Open connections for each active request; most connections are idle.
pub(super) const CONNECTIONS_PER_REQUEST: usize = 4;
/// One connection in this many stays free for peers without an active request.
const SPARE: usize = 8;

impl<I: Inbox> Ingress<I> {
    /// How many connections ingress would have at once, if the limit of open files allows that.
    pub fn connections_wanted(server: &posthouse_model::config::Server) -> usize {
        server.max_requests.saturating_mul(CONNECTIONS_PER_REQUEST).clamp(2, 1 << 20)
    }

    /// Serves on up to `connections` connections until `shutdown`. Then it accepts no more, lets active
    /// requests end within `shutdown_timeout`, and returns.
    pub async fn serve(&self, listener: TcpListener, connections: usize, shutdown: impl Future<Output = ()>) {
        let server = &self.0.server;
        let bounds = Bounds {
            name: "webhooks",
            connections,
            admitted: (connections - connections.div_ceil(SPARE)).max(1),
            shielded: 0,
            header_timeout: server.header_timeout,
            // The handler enforces `body_timeout` and counts slow bodies. This limit is for bodies that no
            // handler reads.
            body_timeout: server.body_timeout * 2,
            idle_timeout: server.idle_timeout,
            write_timeout: server.header_timeout,
            shutdown_timeout: server.shutdown_timeout,
            half_close: true,
        };
        let (proxies, asked) = (Arc::clone(&self.0.proxies), self.0.pulse.asked());
        listener::serve(listener, bounds, proxies, Arc::clone(&self.0), asked, shutdown).await;
    }
}

impl<I: Inbox> Handler for Shared<I> {
    type Body = Full<Bytes>;

    async fn handle(&self, request: Request<Incoming>, peer: &Arc<Peer>) -> Response<Full<Bytes>> {
        self.answer(request, peer).await
    }

    fn unhandled(&self, what: Unhandled, peer: IpAddr) {
        let reason = what.label();
        let outcome = match what {
            Unhandled::Crowded => RequestOutcome::Failed(reason),
            _ => RequestOutcome::Rejected(reason),
        };
        self.strays.ledger.receive().settle(outcome);
        // The listener logs these itself.
        if what != Unhandled::Crowded
            && let Some(held_back) = self.strays.gate.admit()
        {
            tracing::info!(reason, %peer, held_back, "request refused before it reached a source");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::AsyncWriteExt as _,
        net::TcpStream,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::ingress::fixtures::{BODY, TestServer, read_answer, read_to_end};

    const HEAD: &str = "POST /webhooks/crm HTTP/1.1\r\nhost: x\r\n";
    /// The same as in `listener::framing`.
    const MAX_HEADER: usize = 16 * 1024;

    /// The head of a signed request, up to the header with the length.
    fn claimed(server: &TestServer) -> String {
        let request = server.signed("msg_1", BODY);
        request.split_once("content-length").unwrap().0.to_owned()
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

        // Refused before any of the body arrives.
        let (status, answer) = server.ask(&format!("{HEAD}content-length: 1001\r\n\r\n")).await;
        assert!(status == 413 && answer.contains("connection: close"), "{answer}");
        let (status, _) = server.ask(&format!("{HEAD}content-length: 9999999999999999999\r\n\r\n")).await;
        assert_eq!(status, 413);

        // Refused while the body arrives. A peer that continues to send still reads the answer.
        let mut stream = server.connect().await;
        let head = claimed(&server);
        stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
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
        let request = format!("{}content-length: 10\r\n\r\n{{", claimed(&server));
        let (status, answer) = server.ask(&request).await;
        assert!(status == 408 && answer.contains("connection: close"), "{answer}");
        assert_eq!(server.counts("crm").await.rejected["body-timeout"], 1);
    }

    #[tokio::test]
    async fn a_request_that_breaks_off_is_counted() {
        let server = TestServer::start().await;
        let mut stream = server.connect().await;
        let request = format!("{}content-length: 10\r\n\r\n{{", claimed(&server));
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
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
    async fn a_request_that_its_headers_refuse_is_answered_before_its_body() {
        let server = TestServer::start().await;
        let stale = claimed(&server).replace("webhook-timestamp: 1", "webhook-timestamp: 2");
        for (head, status) in [
            (HEAD.to_owned(), 401),
            (HEAD.replace("crm", "other"), 404),
            (HEAD.replace("POST", "PUT"), 405),
            (format!("{HEAD}webhook-id: 1\r\n"), 401),
            (stale, 401),
        ] {
            for framing in ["content-length: 1000\r\n\r\nx", "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n"] {
                let (answered, answer) = server.ask(&format!("{head}{framing}")).await;
                assert_eq!(answered, status, "{head}{framing}{answer}");
                assert!(answer.contains("connection: close\r\n"), "{answer}");
            }
            // If the whole body has arrived, the connection continues.
            let mut stream = server.connect().await;
            for _ in 0..3 {
                stream.write_all(format!("{head}content-length: 3\r\n\r\nxyz").as_bytes()).await.unwrap();
                let (answered, answer) = read_answer(&mut stream).await;
                assert!(answered == status && !answer.contains("connection: close"), "{head}: {answer}");
            }
        }
        let counts = server.counts("crm").await;
        assert_eq!((counts.rejected["unsigned"], counts.rejected["future-timestamp"]), (5, 5));
    }

    #[tokio::test]
    async fn a_refused_sender_that_waits_to_be_asked_for_its_body_is_never_asked() {
        let server = TestServer::start().await;
        let expect = "expect: 100-continue\r\ncontent-length: 46\r\n\r\n";
        assert_eq!(server.ask(&format!("{HEAD}{expect}")).await.0, 401);
        let mut stream = server.connect().await;
        stream.write_all(format!("{}{expect}", claimed(&server)).as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.0, 100);
        stream.write_all(BODY.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.0, 200);
    }

    #[tokio::test]
    async fn an_unfinished_body_takes_no_place_among_the_requests() {
        let server = TestServer::with(|server| server.max_requests = 2).await;
        let mut unfinished = Vec::new();
        for _ in 0..4 {
            let mut stream = server.connect().await;
            let request = format!("{}content-length: 1000\r\n\r\n{{", claimed(&server));
            stream.write_all(request.as_bytes()).await.unwrap();
            unfinished.push(stream);
        }
        for n in 0..20 {
            assert_eq!(server.ask(&server.signed(&format!("msg_{n}"), BODY)).await.0, 200);
        }
        assert_eq!(server.places_left(), 2);
    }

    #[tokio::test]
    async fn large_bodies_that_never_end_are_dropped_for_one_that_waits() {
        let server = TestServer::start().await;
        let head = format!("{}content-length: 1048576\r\n\r\n{}", claimed(&server), "x".repeat(40_000));
        let mut unfinished = Vec::new();
        // As many as fit into the budget, and more that wait.
        for _ in 0..100 {
            let mut stream = server.connect().await;
            stream.write_all(head.as_bytes()).await.unwrap();
            unfinished.push(stream);
        }
        let body = format!(r#"{{"type":"user.created","data":"{}"}}"#, "x".repeat(500_000));
        assert_eq!(server.ask(&server.signed("msg_1", &body)).await.0, 200);
        let (status, answer) = read_answer(&mut unfinished[0]).await;
        assert!(status == 503 && answer.contains("retry-after: 1"), "{answer}");
        drop(unfinished);
        assert!(server.counts("crm").await.failed["body-dropped"] >= 36);
    }

    #[tokio::test]
    async fn a_new_connection_takes_the_place_of_the_oldest_that_proved_nothing() {
        let server = TestServer::with(|server| server.max_requests = 1).await;
        let mut proven = server.connect().await;
        proven.write_all(server.signed("msg_0", BODY).as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut proven).await.0, 200);
        let mut strangers = Vec::new();
        for n in 1..100 {
            let mut stranger = server.connect().await;
            match n % 3 {
                0 => stranger.write_all(HEAD.as_bytes()).await.unwrap(),
                1 => stranger
                    .write_all(format!("{}content-length: 9\r\n\r\n{{", claimed(&server)).as_bytes())
                    .await
                    .unwrap(),
                _ => {}
            }
            strangers.push(stranger);
            if n % 10 == 0 {
                assert_eq!(server.ask(&server.signed(&format!("msg_{n}"), BODY)).await.0, 200);
            }
        }
        // The first ones got an answer; the connection with a valid request continues.
        let answer = read_to_end(&mut strangers[0]).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
        proven.write_all(server.signed("msg_0", BODY).as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut proven).await.0, 200);
    }

    #[tokio::test]
    async fn where_each_connection_has_a_request_under_way_a_new_one_is_told_so() {
        let server = TestServer::with(|server| server.max_requests = 8).await;
        let held = server.inbox.gate.acquire_many(1000).await.unwrap();
        let mut open = Vec::new();
        for n in 0..200 {
            let mut stream = server.connect().await;
            stream.write_all(server.signed(&format!("msg_{n}"), BODY).as_bytes()).await.unwrap();
            open.push(stream);
        }
        while server.places_left() > 0 {
            tokio::task::yield_now().await;
        }
        // Requests beyond `max_requests` get 503 at once.
        let (status, answer) = server.ask(&server.signed("msg_one_more", BODY)).await;
        assert!(status == 503 && answer.contains("retry-after: 1"), "{answer}");
        drop(held);
        let mut accepted = 0;
        for mut stream in open {
            accepted += usize::from(read_to_end_of(&mut stream).await.starts_with("HTTP/1.1 200"));
        }
        assert_eq!(accepted, 8, "who was under way is answered");
    }

    /// Reads once: the next bytes, or nothing if the other side has closed.
    async fn read_to_end_of(stream: &mut TcpStream) -> String {
        use tokio::io::AsyncReadExt as _;
        let mut bytes = vec![0; 1024];
        let read = timeout(Duration::from_secs(20), stream.read(&mut bytes)).await.unwrap();
        String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]).into_owned()
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
        // Connections are accepted in their order: once this request is answered, the other connection is
        // accepted.
        assert_eq!(server.ask(&server.signed("msg_0", BODY)).await.0, 200);
        server.stop();
        sleep(Duration::from_millis(5)).await;
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
