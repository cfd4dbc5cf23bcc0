//! Checkpoints: copies the write-ahead log into the file, so that it neither grows without bound nor stalls the
//! committer.
//!
//! A thread copies pages while the session goes on. It can't reach what the session appends meanwhile, so under
//! constant load the log would never be empty and never restart. Therefore, once the log is long and nearly all
//! of it is copied, the session copies the small rest itself, between two batches.
//!
//! SQLite syncs the file only in a round that reaches the end of the log. Under load that is the session's small
//! one, which would have to wait for all that the rounds before had copied, while nobody is answered (measured in
//! docs/performance.md). So rounds are small, and the thread syncs each itself.

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

/// How often the length of the log is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Pages to be copied that are worth a round: 4 MiB.
const ROUND: i64 = 1024;

/// Pages in the log at which the writer copies the rest: 64 MiB.
const LONG: i64 = 16_384;

/// Pages that may be left to the writer, unless it is so busy that there are always more: 1 MiB.
const REST: i64 = 256;

/// Rounds in a row before the writer gets what is left in any case.
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
                // The session looks itself when it commits. If nobody sends it anything, this wakes it.
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

/// The session's part: copies what is left, so that the next transaction restarts the log.
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
            tracing::warn!(%error, "the store's file could not be synced");
        }
        (pages, copied) = checkpoint(connection, "NOOP")?;
        rounds += 1;
        if pages < LONG {
            return Ok(());
        }
    }
    if pages >= LONG {
        // If the queue is full there will be another round.
        nudge.maintain();
    }
    Ok(())
}

/// Pages in the log, and how many of them are in the file already.
fn checkpoint(connection: &Connection, mode: &str) -> Result<(i64, i64)> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// The log keeps what could not be copied, so nothing is lost; the next round tries again.
fn warn(error: &rusqlite::Error) {
    tracing::warn!(%error, "the store's write-ahead log could not be checkpointed");
}
