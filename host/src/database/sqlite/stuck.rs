//! The last resort: a guest's statement that does not end.
//!
//! It is interrupted at its deadline, and again and again from then on. Every statement that we know of ends then:
//! what SQLite does between two looks at its flag is bounded ([`super::program`], [`super::functions`],
//! [`super::nesting`], [`super::dropping`]). One that does not would hold the database for everybody, and nothing
//! takes SQLite's lock away from a thread of one's own process. So the daemon ends as in a crash, which it is
//! made for, and is started anew. The attempt had ended before, at its own limit of time, and was counted as
//! failed: a plugin that does this again and again uses up its attempts, and its breaker opens.

use std::time::Duration;

use super::control::Control;

/// How long after its deadline a statement may still be at work. Long enough for a disk that hangs for a while.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// Between two interrupts.
const AGAIN: Duration = Duration::from_millis(20);

/// Interrupts the guest's statement that is at work, until it has ended. Where it is late by more than `grace`,
/// has `give_up` called, and does nothing more.
pub(super) async fn watch(control: &Control, grace: Duration, give_up: impl FnOnce(Duration) + Send) {
    while control.interrupt() {
        let late = control.overdue();
        if late > grace {
            return give_up(late);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Ends the daemon at once. Nothing is flushed, closed or dumped, and whoever started it starts it again.
pub(super) fn end_daemon(database: &str, late: Duration) {
    tracing::error!(
        database,
        ?late,
        "a plugin's statement did not end when it was interrupted and holds the database; the daemon ends itself, to \
         be started again"
    );
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
