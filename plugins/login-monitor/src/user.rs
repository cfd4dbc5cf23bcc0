//! The state of a user, and the check for suspicious logins.

use posthouse_sdk::{Timestamp, event::Session};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

/// The maximum number of addresses kept for a user: those seen last.
const ADDRESSES: usize = 50;

/// The state of a user. Its size is limited, because it is kept forever.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct User {
    last: Option<Login>,
    /// The address seen longest ago is the first.
    addresses: Vec<String>,
    /// Logins within the window, oldest first; no more than needed to see that there are too many.
    recent: Vec<Timestamp>,
    /// The time of the last alert about too many logins.
    alerted: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Login {
    at: Timestamp,
    ip: Option<String>,
    location: Option<String>,
    session: String,
    organization: Option<String>,
}

impl User {
    /// Records a login, and returns a text for each suspicious property. Events may arrive in another order
    /// than they happened.
    pub(crate) fn log_in(&mut self, at: Timestamp, session: &Session, settings: &Settings) -> Vec<String> {
        if self.last.as_ref().is_none_or(|last| last.at <= at) {
            self.last = Some(Login {
                at,
                ip: session.ip.clone(),
                location: session.location.clone(),
                session: session.id.clone(),
                organization: session.organization_id.clone(),
            });
        }
        let new_address = session.ip.as_deref().and_then(|ip| self.note_address(ip));
        new_address.into_iter().chain(self.note_time(at, settings)).collect()
    }

    fn note_address(&mut self, ip: &str) -> Option<String> {
        let known = self.addresses.iter().position(|address| address == ip);
        let is_first = self.addresses.is_empty();
        if let Some(index) = known {
            self.addresses.remove(index);
        }
        self.addresses.push(ip.to_owned());
        if self.addresses.len() > ADDRESSES {
            self.addresses.remove(0);
        }
        (known.is_none() && !is_first).then(|| format!("login from the new address {ip}"))
    }

    fn note_time(&mut self, at: Timestamp, settings: &Settings) -> Option<String> {
        self.recent.insert(self.recent.partition_point(|time| *time <= at), at);
        let newest = self.recent.last().copied().unwrap_or(at);
        self.recent.retain(|time| newest - time < settings.window);
        let surplus = self.recent.len().saturating_sub(settings.max_logins + 1);
        self.recent.drain(..surplus);
        let alerted_lately = self.alerted.is_some_and(|alerted| at.abs_diff(alerted) < settings.window);
        if self.recent.len() <= settings.max_logins || alerted_lately {
            return None;
        }
        self.alerted = Some(at);
        let seconds = settings.window / 1_000_000_000;
        Some(format!("more than {} logins within {seconds} s", settings.max_logins))
    }
}
