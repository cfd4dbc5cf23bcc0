//! Reports to the service manager by sd_notify. Without one (`NOTIFY_SOCKET` is not set) these functions do
//! nothing.

use std::time::Duration;

use posthouse_model::shortened;
use sd_notify::NotifyState;
use tracing::warn;

use crate::escape;

/// The longest status, in bytes. It is one line of `systemctl status`.
const LONGEST: usize = 400;

/// Whether there is a service manager.
pub(super) fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The watchdog's timeout: without [`alive`] for this long, the service manager restarts the daemon. None
/// without a watchdog.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Sets the status line.
pub(super) fn status(text: &str) {
    say(&[NotifyState::Status(&line(text))]);
}

/// Reports that the start or a reload is complete.
pub(super) fn ready(text: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(&line(text))]);
}

/// Reports that a reload has begun; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        // Without the time systemd would consider the reload failed.
        Err(error) => warn!(%error, "could not report a reload to systemd"),
    }
}

/// Reports that the daemon stops, which may take up to `most`.
pub(super) fn stopping(most: Duration) {
    let most = u32::try_from(most.as_micros()).unwrap_or(u32::MAX);
    say(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(most),
        NotifyState::Status("stopping: active requests and attempts finish"),
    ]);
}

/// Reports that the loops run, and sets the status line.
pub(super) fn alive(text: &str) {
    say(&[NotifyState::Watchdog, NotifyState::Status(&line(text))]);
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "could not notify the service manager");
    }
}

/// The text as one line of limited length, without control characters.
fn line(text: &str) -> String {
    shortened(escape::text(&text.split_whitespace().collect::<Vec<_>>().join(" ")), LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_that_ends() {
        assert_eq!(
            line("config.toml:3:1: no\nconfig.toml:4:1: nor that"),
            "config.toml:3:1: no config.toml:4:1: nor that"
        );
        let long = line(&"ä ".repeat(1000));
        assert!(long.len() <= LONGEST + "…".len() && long.ends_with('…'), "{long}");
    }
}
