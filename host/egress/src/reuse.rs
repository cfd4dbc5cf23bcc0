//! Detects whether a request used an existing connection, and whether that connection was dead.
//!
//! A server closes a connection that has been idle for long, possibly while a request is being written to it.
//! That is no fault of the request or the server, so the request is sent again at once on a new connection.
//! This happens only once, and only if no byte of an answer has arrived.

use std::{
    cell::Cell,
    error::Error,
    io::ErrorKind,
    task::{Context, Poll},
};

use tower::{Layer, Service};

tokio::task_local! {
    /// Whether a connection was made for this task's request.
    static CONNECTED: Cell<bool>;
}

/// A layer that records each connection made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted;

/// A connector that records each connection made.
#[derive(Debug, Clone)]
pub(super) struct Noting<S>(S);

impl<S> Layer<S> for Noted {
    type Service = Noting<S>;

    fn layer(&self, connector: S) -> Noting<S> {
        Noting(connector)
    }
}

impl<S: Service<R>, R> Service<R> for Noting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: R) -> S::Future {
        // If the request is gone already, nothing is recorded.
        let _ = CONNECTED.try_with(|connected| connected.set(true));
        self.0.call(target)
    }
}

/// Sends, and returns whether an existing connection was used.
pub(super) async fn sent<T>(sending: impl Future<Output = T>) -> (T, bool) {
    CONNECTED
        .scope(Cell::new(false), async {
            let answer = sending.await;
            let reused = CONNECTED.with(|connected| !connected.get());
            (answer, reused)
        })
        .await
}

/// Whether the connection ended before an answer began: closed, reset, or, over HTTP/2, refused by the server.
pub(super) fn was_dead(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let dead =
            error.downcast_ref::<hyper::Error>().is_some_and(|error| {
                error.is_incomplete_message() || error.is_canceled() || error.is_closed()
            }) || error.downcast_ref::<std::io::Error>().is_some_and(|error| {
                matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset
                        | ErrorKind::ConnectionAborted
                        | ErrorKind::BrokenPipe
                        | ErrorKind::NotConnected
                        | ErrorKind::UnexpectedEof
                )
            }) || error.downcast_ref::<h2::Error>().is_some_and(|error| {
                error.is_io()
                    || error.is_remote() && error.is_go_away()
                    || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
            });
        if dead {
            return true;
        }
        next = error.source();
    }
    false
}
