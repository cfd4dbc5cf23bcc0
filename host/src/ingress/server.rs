//! Connections: accepted, bounded, timed, drained.
//!
//! Nothing a peer does holds anything for ever. A header and a body have their time, a connection has
//! its life, connections and requests have their number, and a connection over the number is told so
//! and closed. Requests too broken to reach a handler are counted with those of no source, so that the
//! ledger adds up.
//!
//! A peer that closes its sending half after the request still gets its answer; so an event is not
//! dropped half-way when its sender gives up early.

use std::{convert::Infallible, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    server::conn::http1::{Builder, Parts},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
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
const MAX_BUFFER: usize = 64 * 1024;
/// How long a connection lives; then it ends after the request under way.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long a peer that is being refused may go on sending, so that it reads why.
const LINGER: Duration = Duration::from_secs(2);
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
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
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
    // Answers are small and whole: waiting for more to send only delays them. Failing to say so harms nobody.
    let _ = stream.set_nodelay(true);
    let handler = &*shared;
    let service = service_fn(|request| async move { Ok::<_, Infallible>(handler.handle(request).await) });
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.server.header_timeout)
        .max_header_size(MAX_HEADER)
        .max_buf_size(MAX_BUFFER)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);

    let ended = tokio::select! {
        biased;
        ended = &mut connection => Some(ended),
        _ = stopping.wait_for(|stop| *stop) => None,
        () = sleep(LIFETIME) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            match timeout(shared.server.shutdown_timeout, &mut connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    let Parts { io, read_buf, .. } = connection.into_parts();
    let mut stream = io.into_inner();
    if let Err(error) = ended
        && shared.strays.count_broken(&error, &read_buf) == Some("header-timeout")
    {
        let _ = stream.write_all(HEADER_TIMEOUT).await;
    }
    if !*stopping.borrow() {
        linger(stream).await;
    }
}

/// Reads on for a while after the last answer: a socket closed with bytes unread is reset, and the peer
/// may lose the answer with it.
async fn linger(mut stream: TcpStream) {
    let rest = async {
        stream.shutdown().await?;
        let mut unread = vec![0; 16 * 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether the peer took its answer is its own affair.
    let _ = timeout(LINGER, rest).await;
}

impl Tally {
    /// Counts a request that hyper gave up before a handler saw it; says why, where there was one.
    fn count_broken(&self, error: &hyper::Error, unread: &Bytes) -> Option<&'static str> {
        let reason = if error.is_parse_too_large() {
            "header-too-large"
        } else if error.is_parse() {
            "malformed-request"
        } else if unread.is_empty() {
            return None; // an idle connection that ended
        } else if error.is_timeout() {
            "header-timeout"
        } else {
            "header-broken"
        };
        self.ledger.receive().settle(RequestOutcome::Rejected(reason));
        if let Some(held_back) = self.gate.admit() {
            tracing::debug!(reason, held_back, "request refused: {error}");
        }
        Some(reason)
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
