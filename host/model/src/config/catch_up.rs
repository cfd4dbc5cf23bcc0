//! `[source.catch_up]`: how a sender is asked for the events that no webhook brought.

use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::{
    Scheme, Secret,
    diagnose::shown,
    egress::is_local,
    scheme::{EventsApi, shipped},
    secret::secret,
    sections::{days, minutes, secs},
    table::{Fault, Table, Value},
    value::{duration, list, network, number, one_line, public_url, word},
};
use crate::{HttpGrant, WebPattern};

/// `[source.catch_up]`.
#[derive(Debug, Clone, PartialEq)]
pub struct CatchUp {
    /// Whether missing events are taken in. They are only reported by default.
    pub mode: CatchUpMode,
    /// The address of the sender's API, without a path.
    pub url: Url,
    /// The credentials.
    pub login: CatchUpLogin,
    /// Private addresses that its host may have; none by default.
    pub addresses: Vec<IpNet>,
    /// The time between two comparisons; 15 min by default.
    pub every: Duration,
    /// How far a comparison reaches back behind the end of the last one; 10 min by default.
    pub overlap: Duration,
    /// How long an event is left to its webhook; 5 min by default.
    pub delay: Duration,
    /// The most requests a second; 5 by default.
    pub rate: f64,
}

/// What happens to events that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUpMode {
    /// They are counted and listed.
    Report,
    /// They are taken in.
    Apply,
}

impl CatchUpMode {
    /// The word in config.toml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Apply => "apply",
        }
    }
}

/// The credentials for a sender's API.
#[derive(Debug, Clone, PartialEq)]
pub enum CatchUpLogin {
    /// OAuth 2.0 client credentials.
    Scalekit {
        /// The id of the client.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
    },
    /// A secret or restricted key.
    Stripe {
        /// The key.
        api_key: Secret,
    },
}

impl CatchUp {
    /// The grant by which its requests are checked: the origin of its URL and no other.
    pub fn grant(&self) -> Option<HttpGrant> {
        let url = WebPattern::parse(&self.url.origin().ascii_serialization()).ok()?;
        Some(HttpGrant {
            url,
            addresses: self.addresses.clone(),
            header: Default::default(),
            sign: Vec::new(),
        })
    }
}

/// Reads the table. None if something required is missing, which is reported, or if a secret is not resolved.
pub(super) fn catch_up(table: &mut Table<'_>, scheme: Option<&Scheme>) -> Option<CatchUp> {
    let api = scheme.and_then(|scheme| scheme.catch_up);
    let mut mode = CatchUpMode::Report;
    table.read("mode", &mut mode, word(&[("report", CatchUpMode::Report), ("apply", CatchUpMode::Apply)]));
    let url = match api {
        Some(EventsApi::Stripe) => {
            table.optional("url", api_url).or_else(|| Url::parse("https://api.stripe.com").ok())
        }
        _ => table.required("url", "\"https://ENVIRONMENT.scalekit.com\"", api_url),
    };
    let login = match api {
        Some(EventsApi::Scalekit) => {
            let client_id = table.required("client_id", "\"skc_…\"", one_line);
            let client_secret = required_secret(table, "client_secret", "SCALEKIT_CLIENT_SECRET");
            client_id
                .zip(client_secret)
                .map(|(client_id, client_secret)| CatchUpLogin::Scalekit { client_id, client_secret })
        }
        Some(EventsApi::Stripe) => required_secret(table, "api_key", "STRIPE_API_KEY")
            .map(|api_key| CatchUpLogin::Stripe { api_key }),
        None => {
            // Asked for, so that they are no unknown keys.
            for key in ["client_id", "client_secret", "api_key"] {
                drop(table.value(key));
            }
            None
        }
    };
    let addresses = table.optional("addresses", list(network, "[\"10.0.0.0/8\"]")).unwrap_or_default();
    let mut every = minutes(15);
    table.read("every", &mut every, duration(secs(1)..=days(1)));
    let mut overlap = minutes(10);
    table.read("overlap", &mut overlap, duration(secs(0)..=days(1)));
    let mut delay = minutes(5);
    table.read("delay", &mut delay, duration(secs(0)..=days(1)));
    let mut rate = 5.0;
    table.read("rate", &mut rate, number(0.1..=1000.0));
    if let (Some(scheme), None) = (scheme, api) {
        let known = shipped().iter().filter(|scheme| scheme.catch_up.is_some());
        let known: Vec<_> = known.map(|scheme| format!("`{}`", scheme.name)).collect();
        let message = format!(
            "`{}` can't be asked: posthouse knows no API of scheme `{}` that lists events; it knows those of {}",
            table.path("url"),
            scheme.name,
            known.join(", ")
        );
        table.document.problem(table.at("url"), message);
    }
    Some(CatchUp { mode, url: url?, login: login?, addresses, every, overlap, delay, rate })
}

fn required_secret(table: &mut Table<'_>, key: &'static str, variable: &str) -> Option<Secret> {
    table.required(key, &format!("{{ env = \"{variable}\" }}"), |value| {
        let secret = secret(value)?;
        let text = secret.expose();
        match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(secret),
            false => Err(value.fault("holds what can't stand in a request; it is visible ASCII")),
        }
    })
}

/// The address of an API: scheme, host and port.
fn api_url(value: &Value<'_>) -> Result<Url, Fault> {
    let text = public_url(value)?;
    let url = Url::parse(&text).map_err(|_| value.fault(format_args!("is `{}`, no URL", shown(&text))))?;
    if !url.path().trim_end_matches('/').is_empty() {
        return Err(value.fault(format_args!(
            "is `{}`, which has a path; write scheme and host only, such as \"https://api.example.com\"",
            shown(&text)
        )));
    }
    if url.scheme() == "http" && !is_local(url.host()) {
        let message = format!("the credentials for `{}` go in clear; say https://", shown(&text));
        value.document.warn(value.at(), message);
    }
    Ok(url)
}
