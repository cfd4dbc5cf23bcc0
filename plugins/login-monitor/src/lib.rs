//! Monitors logins: the last login and its address, login counts, and suspicious logins.
//!
//! | event | what happens |
//! | --- | --- |
//! | `session.created`, `user.login` | the plugin stores the user's last login, and counts it for the user and for the organization; a record for analytics; an alert if it is suspicious |
//! | `session.expired`, `user.logout` | an audit record; the session's key is deleted |
//!
//! A login is suspicious if it is from a new address (but not the user's very first one). More than
//! `max_logins` of a user within `window_seconds` are suspicious too, with at most one alert in that time. If
//! both `session.created` and `user.login` report a session, it counts as one login.
//!
//! ```toml
//! [plugin.login-monitor.grants]
//! mail = { from = ["Watch <watch@example.com>"], to = ["security@example.com"] }
//! http = ["https://analytics.example.com"]   # needed for analytics_url only
//!
//! [plugin.login-monitor.config]
//! alert_to = "security@example.com"   # required; or several: ["a@example.com", "b@example.com"]
//! max_logins = 10                     # these are the defaults
//! window_seconds = 600
//! subject = "Login alert for {user}: {alert}"
//! audit_days = 365
//! analytics_days = 30
//! analytics_url = "https://analytics.example.com/v1/logins"   # without it the plugin keeps the records
//! ```
//!
//! Placeholders of the subject are `alert`, `user` (the address, or the id), `ip` and `organization`.
//!
//! Keys: `user/<user>` is the state of a user, `logins/user/<user>` and `logins/organization/<organization>` are
//! counters, `session/<session>` is an open session, and `audit/<time>/<event>` an ended one. If records are not
//! sent, `analytics/<time>/<event>` is the record of a login: user, organization, method, location and time. The
//! time in a key has 20 digits of nanoseconds, so that keys sort by time.

mod settings;
mod user;

use posthouse_sdk::{
    Capability, Delivery, Event, Failure, Manifest, Plugin, Timestamp, debug,
    event::Session,
    http::Request,
    info, kv,
    outbox::Mail,
    template::{self, Escape},
    time::rfc3339,
    warn,
};
use serde::{Deserialize, Serialize};

use crate::{settings::Settings, user::User};

struct LoginMonitor;

impl Plugin for LoginMonitor {
    fn manifest() -> Manifest {
        Manifest::new("remembers logins, raises alarms, keeps an audit record")
            .on(["session.created", "user.login"])
            .on(["session.expired", "user.logout"])
            .requires(Capability::Mail)
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        let settings = Settings::read()?;
        match event.event_type.as_str() {
            "session.created" | "user.login" => login(&event, &settings),
            "session.expired" | "user.logout" => end(&event, &settings),
            other => {
                debug!("`{other}` is none of the events that are watched; nothing to do");
                Ok(())
            }
        }
    }
}

posthouse_sdk::plugin!(LoginMonitor);

/// A session that has not ended, as far as the plugin knows.
#[derive(Serialize, Deserialize)]
struct Open {
    user: String,
    started: Timestamp,
}

fn login(event: &Event, settings: &Settings) -> Result<(), Failure> {
    let session = event.session()?;
    let key = format!("session/{}", session.id);
    if kv::get(&key)?.is_some() {
        info!("session `{}` is known; this is the same login", session.id);
        return Ok(());
    }
    kv::set_json(&key, &Open { user: session.user_id.clone(), started: event.time() })?;
    kv::increment(&format!("logins/user/{}", session.user_id), 1)?;
    if let Some(organization) = &session.organization_id {
        kv::increment(&format!("logins/organization/{organization}"), 1)?;
    }

    let key = format!("user/{}", session.user_id);
    let mut user: User = kv::get_json(&key)?.unwrap_or_default();
    let alerts = user.log_in(event.time(), &session, settings);
    kv::set_json(&key, &user)?;
    for alert in &alerts {
        send(alert, event, &session, settings)?;
    }
    analyse(event, &session, settings)
}

/// The record of a login for analytics.
#[derive(Serialize)]
struct Analytics<'a> {
    user_id: &'a str,
    organization_id: Option<&'a str>,
    auth_method: Option<&'a str>,
    location: Option<&'a str>,
    at: String,
}

/// Sends the record of a login to `analytics_url`, or stores it if that is not set.
fn analyse(event: &Event, session: &Session, settings: &Settings) -> Result<(), Failure> {
    let at = event.time();
    let record = Analytics {
        user_id: &session.user_id,
        organization_id: session.organization_id.as_deref(),
        auth_method: session.auth_method.as_deref(),
        location: session.location.as_deref(),
        at: rfc3339(at),
    };
    if let Some(url) = &settings.analytics_url {
        Request::post(url).json(&record)?.send_later()?;
        return Ok(());
    }
    kv::set_json(&format!("analytics/{at:020}/{}", event.id), &record)?;
    forget_old("analytics", event.received_at, settings.analytics)
}

fn send(alert: &str, event: &Event, session: &Session, settings: &Settings) -> Result<(), Failure> {
    let email = session.user.as_ref().and_then(|user| user.email.as_deref());
    let values = [
        ("alert", Some(alert)),
        ("user", email.or(Some(&session.user_id))),
        ("ip", session.ip.as_deref()),
        ("organization", session.organization_id.as_deref()),
    ];
    let subject = template::fill(&settings.subject, Escape::Line, &values)
        .map_err(|error| posthouse_sdk::config::Error::invalid("subject", error))?;
    let mut text = format!("{alert}.\n\n");
    for (name, value) in [
        ("User", Some(session.user_id.as_str())),
        ("Mail", email),
        ("Organization", session.organization_id.as_deref()),
        ("Session", Some(&session.id)),
        ("Time", Some(&rfc3339(event.time()))),
        ("Address", session.ip.as_deref()),
        ("Location", session.location.as_deref()),
        ("Method", session.auth_method.as_deref()),
        ("Browser", session.user_agent.as_deref()),
    ] {
        // A browser's user agent must not be able to imitate another of these lines.
        if let Some(value) = value {
            text.push_str(&format!("{name}: {}\n", Escape::Line.apply(value)));
        }
    }
    let mail = Mail::new(&settings.alert_to, subject, text);
    let message_id = settings.also_to.iter().fold(mail, Mail::to).send()?;
    warn!("{alert} of `{}`: alert {message_id}", session.user_id);
    Ok(())
}

/// The audit record of a session that has ended.
#[derive(Serialize)]
struct Audit<'a> {
    event: &'a str,
    user: &'a str,
    session: &'a str,
    organization: Option<&'a str>,
    ip: Option<&'a str>,
    /// The time of the event that began the session, if the plugin got that event.
    started: Option<String>,
    ended: String,
}

fn end(event: &Event, settings: &Settings) -> Result<(), Failure> {
    let session = event.session()?;
    let key = format!("session/{}", session.id);
    let open: Option<Open> = kv::get_json(&key)?;
    let at = event.time();
    let audit = Audit {
        event: &event.event_type,
        user: &session.user_id,
        session: &session.id,
        organization: session.organization_id.as_deref(),
        ip: session.ip.as_deref(),
        started: open.map(|open| rfc3339(open.started)),
        ended: rfc3339(at),
    };
    kv::set_json(&format!("audit/{at:020}/{}", event.id), &audit)?;
    kv::delete(&key)?;
    forget_old("audit", event.received_at, settings.audit)
}

/// Deletes up to two records of this kind that are older than `age`, in nanoseconds. Each event adds one record,
/// so old records cannot pile up.
fn forget_old(kind: &str, now: Timestamp, age: u64) -> Result<(), Failure> {
    let oldest = format!("{kind}/{:020}", now.saturating_sub(age));
    for entry in kv::list(&format!("{kind}/"), None, 2)? {
        if entry.key < oldest {
            kv::delete(&entry.key)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
