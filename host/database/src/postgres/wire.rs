//! Carries the messages of a connection, both ways.
//!
//! It runs in the task that waits for the answers. In a separate task, each message would wake that task, and
//! often another thread, which costs more than the message.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;

/// The timeout for closing a connection properly.
const LEAVE: Duration = Duration::from_secs(2);

/// The wire of one connection. If it is dropped after the connection's client, it closes the connection
/// properly.
pub(super) struct Wire(Option<BoxFuture<'static, ()>>);

impl Wire {
    pub(super) fn new<E>(connection: impl Future<Output = Result<(), E>> + Send + 'static) -> Self {
        // The client reports an error to the task that waits for an answer.
        Self(Some(Box::pin(async move { drop(connection.await) })))
    }

    /// Whether the connection is open, as far as the server has said.
    pub(super) fn is_open(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop()));
        self.0.is_some()
    }

    /// Carries messages while `work` sends statements and waits for answers.
    pub(super) async fn carry<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            self.poll(context);
            let done = work.as_mut().poll(context);
            if done.is_pending() {
                // Sends the new messages at once.
                self.poll(context);
            }
            done
        })
        .await
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && connection.as_mut().poll(context) == Poll::Ready(())
        {
            self.0 = None;
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Without a runtime the connection is cut, which ends the session, too.
        if let (Some(connection), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(LEAVE, connection));
        }
    }
}
