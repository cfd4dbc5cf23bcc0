//! What carries the messages of a connection, both ways.
//!
//! It runs in the task that waits for the answers. In a task of its own each message would wake another task,
//! and often another thread, which costs more than the message.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;

/// How long a connection that nobody wants any more has to take its leave of the server.
const LEAVE: Duration = Duration::from_secs(2);

/// One connection's. Dropped after the client of the connection, it takes its leave of the server.
pub(super) struct Wire(Option<BoxFuture<'static, ()>>);

impl Wire {
    pub(super) fn new<E>(connection: impl Future<Output = Result<(), E>> + Send + 'static) -> Self {
        // Why it ends, whoever waits for an answer learns from the client.
        Self(Some(Box::pin(async move { drop(connection.await) })))
    }

    /// Whether it stands, as far as the other side has said.
    pub(super) fn stands(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop()));
        self.0.is_some()
    }

    /// Carries messages while `work` asks and waits for answers.
    pub(super) async fn carry<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            self.poll(context);
            let done = work.as_mut().poll(context);
            if done.is_pending() {
                // What it asks leaves at once.
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
        // Without a runtime it is cut, which ends the session too.
        if let (Some(connection), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(LEAVE, connection));
        }
    }
}
