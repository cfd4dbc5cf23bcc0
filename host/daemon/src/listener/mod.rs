//! The connections of a listener. Ingress and admin use it alike, with bounds and handlers of their own.
//!
//! ```text
//!  accept ──► places      a place for the new connection; where all are taken, a stranger leaves for it
//!    │                    peer: a connection as its listener and its handlers know it
//!    ▼
//!  connection             hyper, its timeouts, its last words
//!    ▲
//!  gate                   passes on whole and valid heads · framing: RFC 9112, read strictly
//! ```
//!
//! Guarantees, whatever peers do:
//!
//! - There are at most [`Bounds::connections`] connections, and a new one gets in unless each of them has an
//!   admitted request ([`Peer::admit`]). With no descriptors left a new connection gets 503.
//! - A connection has one request under way. What it sends meanwhile waits in the system's buffers.
//! - A head, a body, the time between requests and the reading of answers are bounded in time.
//! - Every request ends in its handler or in [`Handler::unhandled`], once.

mod connection;
mod forwarded;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gate;
mod peer;
mod places;
mod pulse;

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

use self::places::Places;
pub(crate) use self::{
    forwarded::client,
    framing::Violation,
    peer::Peer,
    pulse::{Asked, Pulse},
};
use crate::log_limiter::LogLimiter;

/// What the system may buffer of answers that a peer does not read, in bytes for each connection.
const SEND_BUFFER: usize = 64 * 1024;
/// What connections that are told to leave may take to.
const FREED: Duration = Duration::from_millis(2);
/// How long accepting rests where the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What connections may take.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// For the log.
    pub(crate) name: &'static str,
    /// Connections at once.
    pub(crate) connections: usize,
    /// Admitted requests at once. Fewer than connections, so that there is room for strangers.
    pub(crate) admitted: usize,
    /// Shielded requests at once; see [`Peer::shield`].
    pub(crate) shielded: usize,
    /// For a request's head, and from connecting to the first.
    pub(crate) header_timeout: Duration,
    /// For its body.
    pub(crate) body_timeout: Duration,
    /// Between an answer and the next request.
    pub(crate) idle_timeout: Duration,
    /// For the peer to read some of an answer.
    pub(crate) write_timeout: Duration,
    /// For what is under way at the end.
    pub(crate) shutdown_timeout: Duration,
    /// Whether a peer that has closed its sending half gets its answer.
    pub(crate) half_close: bool,
}

/// Who answers the requests of a listener.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// Answers a request. Dropped where the connection ends before.
    fn handle(
        &self,
        request: Request<Incoming>,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// A request, or a connection, has ended without reaching [`Handler::handle`].
    fn unhandled(&self, what: Unhandled, peer: IpAddr);
}

/// How a request ends that reaches no handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unhandled {
    /// It breaks a rule of HTTP.
    Violation(Violation),
    /// hyper can't read it.
    Malformed,
    /// hyper finds its head too large.
    HeadTooLarge,
    /// Its head broke off.
    HeadBroken,
    /// Its head took too long.
    SlowHead,
    /// Its connection was closed to make room for another, or found none itself.
    Crowded,
}

impl Unhandled {
    /// Its name in the ledger and the metrics; it never changes.
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

/// Serves until `shutdown`; then takes no more connections, lets the requests under way end within their
/// time, and returns. `asked` is answered each time by the loop itself.
pub(crate) async fn serve<H: Handler>(
    listener: TcpListener,
    bounds: Bounds,
    proxies: Arc<[IpNet]>,
    handler: Arc<H>,
    mut asked: Asked,
    shutdown: impl Future<Output = ()>,
) {
    // Connections inherit it. Where it can't be had the system has its own bound.
    let _ = SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER);
    let places = Arc::new(Places::new(&bounds, proxies));
    let bounds = Arc::new(bounds);
    let (stopping, open) = (CancellationToken::new(), TaskTracker::new());
    // Should this future be dropped, connections stop as well.
    let stop = stopping.clone().drop_guard();
    let mut reserve = Reserve::new();
    let mut ticks = interval(places.tick);
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
                places.look();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            Err(error) => {
                reserve.accept_failed(&error, &bounds, &places, &listener, &*handler).await;
                continue;
            }
        };
        let Some((peer, made_room)) = places.enter(address) else {
            turn_away(&stream, address, &*handler);
            reserve.warn(&bounds, "each connection has a valid request under way: a new one got 503");
            continue;
        };
        if made_room {
            reserve.warn(&bounds, "all connections are taken: the oldest without a valid request was closed");
        }
        let (handler, places) = (Arc::clone(&handler), Arc::clone(&places));
        let (bounds, stopping) = (Arc::clone(&bounds), stopping.clone());
        open.spawn(async move {
            let ends = || places.ends(&peer);
            connection::serve(&*handler, stream, &peer, &bounds, stopping, ends).await;
            places.leave(&peer);
        });
    }
    drop(listener);
    drop(stop);
    open.close();
    if timeout(bounds.shutdown_timeout, open.wait()).await.is_err() {
        tracing::warn!(listener = bounds.name, "requests under way were cut off after `shutdown_timeout`");
    }
}

/// Answers a connection that gets no place.
fn turn_away<H: Handler>(stream: &TcpStream, address: IpAddr, handler: &H) {
    connection::say(stream, connection::UNAVAILABLE);
    handler.unhandled(Unhandled::Crowded, address);
}

/// A descriptor to spare. Where the system gives no more of them, it makes room to accept a connection and
/// to answer it, which would otherwise hang in the listener's queue.
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
        places: &Places,
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
                "can't accept connections: {error}; raise the limit of open files (`LimitNOFILE` of the unit)"
            );
        }
        // Descriptors of those that leave are free in a moment. Where nobody can, who waits is told so.
        if !places.shrink() && self.spare.take().is_some() {
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
