//! One entry of a plugin's `http` grant. It says where the plugin may send requests, which headers the host
//! adds, and which private addresses its hosts may have.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};

use super::{
    Secret,
    diagnose::shown,
    secret::secret,
    table::{Fault, Table, Value},
    value::{list, network, text},
};
use crate::{HttpGrant, WebPattern, is_reserved_header, webhook_key};

/// The fewest bytes of a key, by Standard Webhooks.
const SHORTEST_KEY: usize = 24;

/// Reads a URL, or a table with `url`, `header`, `sign` and `addresses`.
pub(super) fn grant(value: &Value<'_>) -> Result<HttpGrant, Fault> {
    let grant = if value.get().as_str().is_some() {
        HttpGrant { url: pattern(value)?, addresses: Vec::new(), header: BTreeMap::new(), sign: Vec::new() }
    } else {
        let mut table = value.table().map_err(|_| {
            value.mistyped(
                "a URL in quotes, or { url = \"https://api.example.com\", header.Authorization = { env = \
                 \"API_TOKEN\" } }",
            )
        })?;
        let url = table.required("url", "\"https://api.example.com\"", pattern);
        let addresses = table.optional("addresses", list(network, "[\"10.0.0.0/8\"]")).unwrap_or_default();
        let header = table.optional("header", Value::table).map(|table| headers(&table)).unwrap_or_default();
        let sign = table.optional("sign", signing_keys).unwrap_or_default();
        table.finish();
        // The problem with the URL is reported already.
        let Some(url) = url else { return Err(Fault::Unread) };
        HttpGrant { url, addresses, header, sign }
    };
    if grant.url.in_clear() && !grant.header.is_empty() && !is_local(grant.url.host().map(as_ref)) {
        let message = format!("the headers of `{}` go in clear; say https://", grant.url);
        value.document.warn(value.at(), message);
    }
    Ok(grant)
}

/// Reads one key of Standard Webhooks, or an array of them. The receiver may have any of them.
fn signing_keys(value: &Value<'_>) -> Result<Vec<Secret>, Fault> {
    match value.items() {
        Some(_) => list(signing_key, "[{ env = \"APP_SECRET\" }]")(value),
        None => signing_key(value).map(|key| vec![key]),
    }
}

fn signing_key(value: &Value<'_>) -> Result<Secret, Fault> {
    let secret = secret(value)?;
    match webhook_key(secret.expose()) {
        Some(key) if key.len() >= SHORTEST_KEY => Ok(secret),
        Some(key) => Err(value.fault(format_args!(
            "has a key of {} bytes, which can be guessed; make one of {SHORTEST_KEY} or more",
            key.len()
        ))),
        None => Err(value.fault(
            "is no key of Standard Webhooks: `whsec_` and base64; `echo whsec_$(head -c 32 /dev/urandom | base64)` makes \
             one",
        )),
    }
}

fn as_ref(host: &url::Host<String>) -> url::Host<&str> {
    match host {
        url::Host::Domain(name) => url::Host::Domain(name),
        url::Host::Ipv4(ip) => url::Host::Ipv4(*ip),
        url::Host::Ipv6(ip) => url::Host::Ipv6(*ip),
    }
}

/// Whether a host is this machine.
pub(super) fn is_local(host: Option<url::Host<&str>>) -> bool {
    host.is_some_and(|host| match host {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(ip) => ip.is_loopback(),
        url::Host::Ipv6(ip) => ip.is_loopback(),
    })
}

fn pattern(value: &Value<'_>) -> Result<WebPattern, Fault> {
    let text = text(value)?;
    WebPattern::parse(text).map_err(|problem| {
        // A login in the URL would be a secret.
        let text =
            if text.contains('@') { String::new() } else { format!("holds `{}`, which ", shown(text)) };
        value.fault(format_args!(
            "{text}{problem}; write one such as \"https://api.example.com\" or \
             \"https://*.example.com:8443/v1/\""
        ))
    })
}

/// Reads `header.Authorization = { env = "API_TOKEN" }`: the complete value of each header, by its name in
/// lower case.
pub(super) fn headers(table: &Table<'_>) -> BTreeMap<String, Secret> {
    let read = |(name, value): (&str, Value<'_>)| {
        let header = value.parsed(|value| {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| value.fault("is no name of a header; one looks like `Authorization`"))?;
            if is_reserved_header(header.as_str()) {
                return Err(value.fault("is a header that posthouse sets itself; leave it out"));
            }
            Ok(header)
        })?;
        let secret = value.parsed(|value| {
            let secret = secret(value)?;
            match HeaderValue::from_str(secret.expose()) {
                Ok(_) => Ok(secret),
                Err(_) => Err(value.fault("is not a value of a header; a value is one line of ASCII")),
            }
        })?;
        Some((header.as_str().to_owned(), secret))
    };
    table.entries().filter_map(read).collect()
}
