//! The last resort for a guest's statement that does not end.
//!
//! From its deadline on, the statement is interrupted every 20 ms. Every statement that we know of ends then,
//! because the work between two checks is bounded ([`super::program`], [`super::functions`], [`super::nesting`],
//! [`super::dropping`]). A statement that goes on would hold the database for every plugin, and a process cannot
//! take SQLite's lock from one of its own threads. Therefore the daemon kills itself, and its service manager
//! restarts it. The attempt has failed and was counted before, at its own time limit: a plugin that does this
//! repeatedly uses up its attempts and opens its breaker.

use std::time::Duration;

use super::control::Control;

/// How long a statement may run past its deadline: long enough for a disk that hangs for some seconds.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// The pause between two interrupts.
const AGAIN: Duration = Duration::from_millis(20);

/// Interrupts the running guest's statement until it ends. If it is past its deadline by more than `grace`, calls
/// `give_up` with that time and returns.
pub(super) async fn watch(control: &Control, grace: Duration, give_up: impl FnOnce(Duration) + Send) {
    while control.interrupt() {
        let late = control.overdue();
        if late > grace {
            return give_up(late);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Kills the daemon. Nothing is flushed, closed or dumped; the service manager restarts it.
pub(super) fn end_daemon(database: &str, late: Duration) {
    tracing::error!(
        database,
        ?late,
        "statement of a plugin did not end when interrupted and holds the database; the daemon kills itself to be \
         restarted"
    );
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
