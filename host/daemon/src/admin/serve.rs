//! The limits of the admin listener's connections, for [`crate::listener`].
//!
//! Requests with the token or a session have their own places, and so have those of the health. The other
//! places are for the login and for guessers. The oldest of their connections is closed when another client
//! connects.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use crate::{
    listener::{self, Bounds, Handler, Peer, Pulse, Unhandled},
    log_limiter::LogLimiter,
};

/// The most requests with the token or a session at once. A further one gets 503.
const ADMITTED: usize = 64;
/// Other strangers can't crowd out this many requests of the health at once.
const HEALTH: usize = 16;
/// The most connections at once. The more there are, the longer a stranger may take to authenticate.
pub(crate) const CONNECTIONS: RangeInclusive<usize> = 2 * ADMITTED..=8 * ADMITTED;
/// The time limit for a head, for a body, and for reading an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for active requests at shutdown.
const ENDING: Duration = Duration::from_secs(5);

/// Answers requests until `shutdown` ends, then completes the active ones.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    idle_timeout: Duration,
    proxies: Arc<[IpNet]>,
    shutdown: impl Future<Output = ()>,
) {
    let bounds = Bounds {
        name: "admin",
        connections,
        admitted: ADMITTED,
        shielded: HEALTH,
        header_timeout: TIMEOUT,
        body_timeout: TIMEOUT,
        idle_timeout,
        write_timeout: TIMEOUT,
        shutdown_timeout: ENDING,
        // A live feed or a long search ends when its client stops reading.
        half_close: false,
    };
    let routes = Arc::new(Routes { router, gate: LogLimiter::default() });
    // No watchdog checks this loop: requests of the health go through it.
    let asked = Pulse::default().asked();
    listener::serve(listener, bounds, proxies, routes, asked, shutdown).await;
}

struct Routes {
    router: Router,
    gate: LogLimiter,
}

impl Handler for Routes {
    type Body = Body;

    async fn handle(&self, request: Request<Incoming>, peer: &Arc<Peer>) -> Response<Body> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(peer));
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn unhandled(&self, what: Unhandled, peer: IpAddr) {
        // The listener itself logs connections without room.
        if what != Unhandled::Crowded
            && let Some(held_back) = self.gate.admit()
        {
            let reason = what.label();
            tracing::info!(reason, %peer, held_back, "admin request refused before its handler");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::{Notify, oneshot},
    };

    use super::*;

    #[tokio::test]
    async fn a_request_under_way_is_answered_at_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (in_handler, may_leave) = (entered.clone(), leave.clone());
        let handler = move || async move {
            in_handler.notify_one();
            may_leave.notified().await;
            "done"
        };
        let (stop, stopping) = oneshot::channel::<()>();
        let router = Router::new().route("/", get(handler));
        let serving =
            tokio::spawn(serve(listener, router, *CONNECTIONS.end(), TIMEOUT, Arc::new([]), async move {
                let _ = stopping.await;
            }));

        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        entered.notified().await;
        // An idle connection does not delay the shutdown.
        let _idle = TcpStream::connect(address).await.unwrap();
        stop.send(()).unwrap();
        leave.notify_one();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
