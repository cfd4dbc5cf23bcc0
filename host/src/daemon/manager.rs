//! What the service manager hears of us, by sd_notify. Where there is none (`NOTIFY_SOCKET` is not set)
//! nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::escape;

/// The longest status, in bytes: it is one line of `systemctl status`.
const LONGEST: usize = 400;

/// Whether anybody listens.
pub(super) fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// How soon it gives us up when it hears no [`alive`].
pub(super) fn patience() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// What we are doing, or how it stands.
pub(super) fn status(text: &str) {
    say(&[NotifyState::Status(&line(text))]);
}

/// Started, or done with a reload.
pub(super) fn ready(text: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(&line(text))]);
}

/// A reload has begun; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        // Without the time systemd would take the reload for failed.
        Err(error) => warn!(%error, "systemd was not told of a reload"),
    }
}

/// The end has begun, and may take so long.
pub(super) fn stopping(most: Duration) {
    let most = u32::try_from(most.as_micros()).unwrap_or(u32::MAX);
    say(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(most),
        NotifyState::Status("stopping: what is under way ends"),
    ]);
}

/// The loops turn.
pub(super) fn alive(text: &str) {
    say(&[NotifyState::Watchdog, NotifyState::Status(&line(text))]);
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager could not be told");
    }
}

/// A text as one line that is not too long and steers no terminal.
fn line(text: &str) -> String {
    let mut line = escape::text(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned();
    if line.len() > LONGEST {
        line.truncate(line.floor_char_boundary(LONGEST));
        line.push('…');
    }
    line
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
