//! The connections of a listener. Ingress and admin both use it, with their own limits and handlers.
//!
//! ```text
//!  accept ──► slots       a slot for the new connection; if all are taken, a stranger is closed for it
//!    │                    peer: a connection as its listener and its handlers know it
//!    ▼
//!  connection             hyper, its timeouts, its last words
//!    ▲
//!  gate                   passes on complete, valid heads · framing: RFC 9112, read strictly
//! ```
//!
//! Guarantees, whatever peers do:
//!
//! - There are at most [`Bounds::connections`] connections. A new one is accepted unless each of them has an
//!   admitted request ([`Peer::admit`]). If no file descriptors are left, a new connection gets 503.
//! - A connection has one active request. Data that it sends meanwhile waits in the system's buffers.
//! - There are time limits for a head, a body, the time between requests and the reading of answers.
//! - Every request ends once, in its handler or in [`Handler::unhandled`].

mod connection;
mod forwarded;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gate;
mod peer;
mod pulse;
mod slots;

use std::{fs::File, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use ipnet::IpNet;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::slots::ConnectionSlots;
pub(crate) use self::{
    forwarded::client,
    framing::Violation,
    peer::Peer,
    pulse::{Asked, Pulse},
};
use crate::log_limiter::LogLimiter;

/// The system's buffer for answers that a peer does not read, in bytes for each connection.
const SEND_BUFFER: usize = 64 * 1024;
/// How long connections may take to end after they were asked to.
const FREED: Duration = Duration::from_millis(2);
/// The pause before the next accept if the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The limits of connections.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// The name in the log.
    pub(crate) name: &'static str,
    /// The maximum number of connections.
    pub(crate) connections: usize,
    /// The maximum number of admitted requests. Lower than the number of connections, so that there is room
    /// for strangers.
    pub(crate) admitted: usize,
    /// The maximum number of shielded requests; see [`Peer::shield`].
    pub(crate) shielded: usize,
    /// The time for a request's head, and from the start of a connection to its first request.
    pub(crate) header_timeout: Duration,
    /// The time for a body.
    pub(crate) body_timeout: Duration,
    /// The time between an answer and the next request.
    pub(crate) idle_timeout: Duration,
    /// The time in which the peer must read some of an answer.
    pub(crate) write_timeout: Duration,
    /// The time for active requests at shutdown.
    pub(crate) shutdown_timeout: Duration,
    /// Whether a peer that has closed its sending half gets its answer.
    pub(crate) half_close: bool,
}

/// Answers the requests of a listener.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// Answers a request. Dropped if the connection ends first.
    fn handle(
        &self,
        request: Request<Incoming>,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// A request, or a connection, has ended without reaching [`Handler::handle`].
    fn unhandled(&self, what: Unhandled, peer: IpAddr);
}

/// How a request ended that reached no handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unhandled {
    /// It violates HTTP.
    Violation(Violation),
    /// hyper can't read it.
    Malformed,
    /// hyper finds its head too large.
    HeadTooLarge,
    /// Its head was interrupted.
    HeadBroken,
    /// Its head took too long.
    SlowHead,
    /// Its connection was closed to make room for another, or got no slot itself.
    Crowded,
}

impl Unhandled {
    /// The label in the ledger and the metrics; it never changes.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Violation(violation) => violation.label(),
            Self::Malformed => Violation::Malformed.label(),
            Self::HeadTooLarge => Violation::HeadTooLarge.label(),
            Self::HeadBroken => "header-broken",
            Self::SlowHead => "header-timeout",
            Self::Crowded => "too-many-connections",
        }
    }
}

/// Serves until `shutdown`. Then accepts no more connections, lets the active requests finish within their
/// time, and returns. The loop itself answers `asked` each time.
pub(crate) async fn serve<H: Handler>(
    listener: TcpListener,
    bounds: Bounds,
    proxies: Arc<[IpNet]>,
    handler: Arc<H>,
    mut asked: Asked,
    shutdown: impl Future<Output = ()>,
) {
    // Connections inherit it. If it cannot be set, the system's own limit applies.
    let _ = SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER);
    let slots = Arc::new(ConnectionSlots::new(&bounds, proxies));
    let bounds = Arc::new(bounds);
    let (stopping, open) = (CancellationToken::new(), TaskTracker::new());
    // If this future is dropped, connections stop as well.
    let stop = stopping.clone().drop_guard();
    let mut reserve = Reserve::new();
    let mut ticks = interval(slots.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(answer) = asked.recv() => {
                let _ = answer.send(());
                continue;
            }
            _ = ticks.tick() => {
                slots.look();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            Err(error) => {
                reserve.accept_failed(&error, &bounds, &slots, &listener, &*handler).await;
                continue;
            }
        };
        let Some((peer, made_room)) = slots.enter(address) else {
            turn_away(&stream, address, &*handler);
            reserve.warn(&bounds, "every connection has an active, valid request: a new one got 503");
            continue;
        };
        if made_room {
            reserve.warn(&bounds, "all connections are taken: the oldest without a valid request was closed");
        }
        let (handler, slots) = (Arc::clone(&handler), Arc::clone(&slots));
        let (bounds, stopping) = (Arc::clone(&bounds), stopping.clone());
        open.spawn(async move {
            let ends = || slots.ends(&peer);
            connection::serve(&*handler, stream, &peer, &bounds, stopping, ends).await;
            slots.leave(&peer);
        });
    }
    drop(listener);
    drop(stop);
    open.close();
    if timeout(bounds.shutdown_timeout, open.wait()).await.is_err() {
        tracing::warn!(
            listener = bounds.name,
            "closed connections with active requests after `shutdown_timeout`"
        );
    }
}

/// Answers a connection that gets no slot.
fn turn_away<H: Handler>(stream: &TcpStream, address: IpAddr, handler: &H) {
    connection::say(stream, connection::UNAVAILABLE);
    handler.unhandled(Unhandled::Crowded, address);
}

/// A spare descriptor. If the system has no more, it is closed to accept a connection and answer it;
/// otherwise the connection would hang in the listener's queue.
struct Reserve {
    spare: Option<File>,
    gate: LogLimiter,
}

impl Reserve {
    fn new() -> Self {
        Self { spare: File::open("/dev/null").ok(), gate: LogLimiter::default() }
    }

    async fn accept_failed<H: Handler>(
        &mut self,
        error: &io::Error,
        bounds: &Bounds,
        slots: &ConnectionSlots,
        listener: &TcpListener,
        handler: &H,
    ) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset};
        // A peer that left early is no reason to wait.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset) {
            return;
        }
        if let Some(held_back) = self.gate.admit() {
            tracing::error!(
                listener = bounds.name,
                held_back,
                "could not accept a connection: {error}; raise the limit of open files (`LimitNOFILE` of the unit)"
            );
        }
        // Connections that are closed free their descriptors in a moment. If none can be closed, a waiting
        // connection gets an answer.
        if !slots.shrink() && self.spare.take().is_some() {
            if let Ok(Ok((stream, address))) = timeout(ACCEPT_PAUSE, listener.accept()).await {
                turn_away(&stream, address.ip().to_canonical(), handler);
            }
            self.spare = File::open("/dev/null").ok();
        }
        sleep(FREED).await;
        if self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
            sleep(ACCEPT_PAUSE).await;
        }
    }

    fn warn(&self, bounds: &Bounds, what: &'static str) {
        if let Some(held_back) = self.gate.admit() {
            let (listener, connections) = (bounds.name, bounds.connections);
            tracing::warn!(listener, connections, held_back, "{what}");
        }
    }
}
