//! The plugin's table of config.toml.

use posthouse_sdk::config::{Error, get, parse_or, texts};

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// The operator's settings, or the defaults.
pub(crate) struct Settings {
    /// The recipient of alerts.
    pub(crate) alert_to: String,
    /// Further recipients.
    pub(crate) also_to: Vec<String>,
    /// More logins than this within `window` are suspicious.
    pub(crate) max_logins: usize,
    /// In nanoseconds.
    pub(crate) window: u64,
    /// A template.
    pub(crate) subject: String,
    /// How long audit records are kept, in nanoseconds.
    pub(crate) audit: u64,
    /// Where analytics records are sent.
    pub(crate) analytics_url: Option<String>,
    /// How long analytics records are kept if they are not sent, in nanoseconds.
    pub(crate) analytics: u64,
}

impl Settings {
    /// Reads the whole table, so that a mistake shows at the first event and not at the first alert.
    pub(crate) fn read() -> Result<Self, Error> {
        let mut recipients = texts("alert_to")?.into_iter().filter(|address| !address.is_empty());
        Ok(Self {
            alert_to: recipients.next().ok_or_else(|| Error::Missing("alert_to".to_owned()))?,
            also_to: recipients.collect(),
            max_logins: within("max_logins", 10, 1000)? as usize,
            window: within("window_seconds", 600, 86_400 * 30)? * SECOND,
            subject: get("subject").unwrap_or_else(|| "Login alert for {user}: {alert}".to_owned()),
            audit: within("audit_days", 365, 36_500)? * DAY,
            analytics_url: get("analytics_url").filter(|url| !url.is_empty()),
            analytics: within("analytics_days", 30, 36_500)? * DAY,
        })
    }
}

/// A number from 1 to `most`.
fn within(key: &str, default: u64, most: u64) -> Result<u64, Error> {
    let number = parse_or(key, default)?;
    if (1..=most).contains(&number) {
        Ok(number)
    } else {
        Err(Error::invalid(key, format!("it must be 1 to {most}")))
    }
}
