//! Whether a request went over a connection that had served before, and what to do where that one was dead.
//!
//! A server closes a connection that is idle for long, and may do so at the very moment a request is written to it.
//! Nothing is wrong then with the request or the server: it goes again at once, over a connection of its own. Only
//! once, and only where no byte of an answer has come.

use std::{
    cell::Cell,
    error::Error,
    io::ErrorKind,
    task::{Context, Poll},
};

use tower::{Layer, Service};

tokio::task_local! {
    /// Whether the request of this task has had a connection made.
    static CONNECTED: Cell<bool>;
}

/// Makes known that a connection is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted;

/// A connector that makes known what it does.
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
        // Made for a request that has gone away meanwhile, it is nobody's.
        let _ = CONNECTED.try_with(|connected| connected.set(true));
        self.0.call(target)
    }
}

/// Sends, and tells whether that was over a connection that had served before.
pub(super) async fn sent<T>(sending: impl Future<Output = T>) -> (T, bool) {
    CONNECTED
        .scope(Cell::new(false), async {
            let answer = sending.await;
            let reused = CONNECTED.with(|connected| !connected.get());
            (answer, reused)
        })
        .await
}

/// Whether the connection ended before an answer began: closed, reset, or, over HTTP/2, told to go elsewhere.
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
