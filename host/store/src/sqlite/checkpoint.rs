//! Checkpoints: copies the write-ahead log into the file, so that it neither grows without bound nor stalls the
//! committer.
//!
//! A thread copies pages while the session continues. It cannot reach what the session appends meanwhile, so
//! under constant load the log would never be empty and never restart. Therefore, once the log is long and
//! nearly all of it is copied, the session itself copies the small rest, between two batches.
//!
//! SQLite syncs the file only in a round that reaches the end of the log. Under load that is the session's
//! small round, which would have to wait for everything that the earlier rounds copied, while no caller gets
//! an answer (measured in docs/performance.md). So rounds are small, and the thread itself syncs after each.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{file::OpenFile, schema};
use crate::committer::Nudge;
use rusqlite::{Connection, Result};

/// The interval at which the thread checks the length of the log.
const LOOK: Duration = Duration::from_millis(100);

/// The number of uncopied pages that is worth a round: 4 MiB.
const ROUND: i64 = 1024;

/// Pages in the log at which the writer copies the rest: 64 MiB.
const LONG: i64 = 16_384;

/// Pages that may be left to the writer: 1 MiB. If the writer is so busy that there are always more, see the
/// next limit.
const REST: i64 = 256;

/// After this many rounds in a row, the writer copies the rest in any case.
const ROUNDS: u32 = 5;

/// The thread.
pub(super) struct Checkpointer {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    pub(super) fn start(file: Arc<OpenFile>, nudge: Nudge) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("store-log".to_owned()).spawn(move || {
            let connection = match schema::checkpointer(file.path()) {
                Ok(connection) => connection,
                Err(error) => return warn(&error),
            };
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                file.look_at_disk();
                // The session checks when it commits. If it has nothing to commit, this wakes it.
                if file.present.check().is_err() || file.present.is_shorter() {
                    nudge.maintain();
                    continue;
                }
                if let Err(error) = round(&connection, &file, &nudge) {
                    warn(&error);
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// The session's part: copies the rest, so that the next transaction restarts the log.
pub(super) fn copy_rest(connection: &Connection) {
    if let Err(error) = checkpoint(connection, "PASSIVE") {
        warn(&error);
    }
}

fn round(connection: &Connection, file: &OpenFile, nudge: &Nudge) -> Result<()> {
    let (mut pages, mut copied) = checkpoint(connection, "NOOP")?;
    let mut rounds = 0;
    while pages - copied > if rounds == 0 { ROUND } else { REST } && rounds < ROUNDS {
        checkpoint(connection, "PASSIVE")?;
        if let Err(error) = file.sync() {
            // The writer's own sync meets the same error, and decides what it means.
            tracing::warn!(%error, "could not sync the store's file");
        }
        (pages, copied) = checkpoint(connection, "NOOP")?;
        rounds += 1;
        if pages < LONG {
            return Ok(());
        }
    }
    if pages >= LONG {
        // If the queue is full, another round follows.
        nudge.maintain();
    }
    Ok(())
}

/// The pages in the log, and how many of them are already in the file.
fn checkpoint(connection: &Connection, mode: &str) -> Result<(i64, i64)> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// The log keeps what could not be copied, so nothing is lost; the next round tries again.
fn warn(error: &rusqlite::Error) {
    tracing::warn!(%error, "could not checkpoint the store's write-ahead log");
}
