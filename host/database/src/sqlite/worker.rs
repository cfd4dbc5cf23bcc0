//! A thread with one connection: SQLite blocks, and the async threads must not.
//!
//! It does its work in order. A caller that stops waiting for an answer does not stop the work. Ending the
//! transaction does.

use std::{
    path::PathBuf,
    pin::pin,
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{connection::GuestConnection, control::Control, room::Room, stuck};
use crate::Unavailable;

type Work = Box<dyn FnOnce(&mut GuestConnection) + Send>;

/// The handle of a thread. When it is dropped, the thread ends and closes its connection.
pub(super) struct Worker {
    name: String,
    work: mpsc::Sender<Work>,
    control: Arc<Control>,
    statement_timeout: Duration,
}

impl Worker {
    /// Starts a thread and opens its connection.
    pub(super) async fn start(
        name: String,
        path: PathBuf,
        statement_timeout: Duration,
        room: Arc<Room>,
    ) -> Result<Self, Unavailable> {
        let (opened, open) = oneshot::channel();
        let (work, queue) = mpsc::channel::<Work>();
        let database = name.clone();
        let spawned = std::thread::Builder::new().name(format!("sql {name}")).spawn(move || {
            let mut guest = match GuestConnection::open(database, &path, statement_timeout, room) {
                Ok(guest) => guest,
                Err(unavailable) => return drop(opened.send(Err(unavailable))),
            };
            if opened.send(Ok(guest.control())).is_err() {
                return;
            }
            while let Ok(work) = queue.recv() {
                work(&mut guest);
            }
        });
        let unavailable = |reason: String| Unavailable { name: name.clone(), reason };
        spawned.map_err(|error| unavailable(format!("no thread for it: {error}")))?;
        let control = open.await.map_err(|_| unavailable("its thread has ended".to_owned()))??;
        Ok(Self { name, work, control, statement_timeout })
    }

    /// Does `work` on the thread.
    ///
    /// # Errors
    /// The thread has ended.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut GuestConnection) -> T + Send + 'static,
    ) -> Result<T, ()> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |guest| drop(answer.send(work(guest))));
        self.work.send(work).map_err(drop)?;
        answered.await.map_err(drop)
    }

    /// Like [`Self::run`], but interrupts a guest's statement that is past its deadline.
    pub(super) async fn watched<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut GuestConnection) -> T + Send + 'static,
    ) -> Result<T, ()> {
        let mut answer = pin!(self.run(work));
        loop {
            if let Ok(answer) = tokio::time::timeout(self.statement_timeout, &mut answer).await {
                return answer;
            }
            let give_up = |late| stuck::end_daemon(&self.name, late);
            tokio::select! {
                answer = &mut answer => return answer,
                () = stuck::watch(&self.control, stuck::GRACE, give_up) => {}
            }
        }
    }

    /// Does `work` on the thread, and gives it the worker.
    pub(super) fn hand_over(self, work: impl FnOnce(Self, &mut GuestConnection) + Send + 'static) {
        let queue = self.work.clone();
        // If the thread has ended, there is nothing left to do.
        let _ = queue.send(Box::new(move |guest| work(self, guest)));
    }

    /// Like [`Self::hand_over`], but first stops the running statement.
    pub(super) fn end(self, work: impl FnOnce(Self, &mut GuestConnection) + Send + 'static) {
        self.control.stop();
        if self.control.is_guest()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (name, control) = (self.name.clone(), Arc::clone(&self.control));
            runtime.spawn(async move {
                stuck::watch(&control, stuck::GRACE, |late| stuck::end_daemon(&name, late)).await;
            });
        }
        self.hand_over(work);
    }
}
