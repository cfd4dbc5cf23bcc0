//! Posts each event to the URL of an application, so that its own webhook handler can stay as it is.
//!
//! ```toml
//! [plugin.shop]                                # any name; one file serves several
//! component = "forward"
//! events = ["order.*", "user.created"]         # required: the plugin declares none
//! order_by = "user"                            # optional: one user's events arrive in order
//! rate = { per_second = 100 }                  # optional
//! retry = { attempts = 33, base = "10s" }      # a day
//!
//! [plugin.shop.grants]
//! http = [{ url = "http://localhost:3000", sign = { env = "SHOP_SECRET" } }]
//!
//! [plugin.shop.config]
//! url = "http://localhost:3000/webhooks"
//! where = { "/data/plan" = "pro" }             # optional: values in the body, all of which must be there
//! retry_on = [404]                             # optional: further statuses after which it tries again
//! ```
//!
//! The request has the body and the content type that the sender's request had, byte for byte, and the headers that the
//! source lists. It also has these:
//!
//! | header | value |
//! | --- | --- |
//! | `x-posthouse-source` | the name of the source |
//! | `x-posthouse-type` | the type of the event |
//! | `x-posthouse-id` | the sender's id of the event |
//! | `idempotency-key` | the same in each attempt, and a new one in a replay; the host adds it |
//! | `webhook-id`, `webhook-timestamp`, `webhook-signature` | with `sign` in the grant: the host signs by Standard Webhooks; the id is the `idempotency-key` |
//!
//! A status of 2xx is success. After 408, 425, 429, 5xx or no response at all, the delivery is retried, not before the time
//! that a `Retry-After` names. After any other status it is a dead letter at once. The request is sent within the attempt.
//! So with `order_by`, the next event of a key is sent after the application has taken the one before.

use std::collections::BTreeMap;

use posthouse_sdk::{
    Capability, Delivery, Event, Failure, Manifest, Plugin, config, debug,
    http::{self, Request},
};
use serde_json::{Number, Value};

struct Forward;

impl Plugin for Forward {
    fn manifest() -> Manifest {
        // Which events an application wants is for config.toml to say.
        Manifest::new("posts each event to the URL of an application").requires(Capability::Http)
    }

    fn handle(event: Event, _delivery: Delivery) -> Result<(), Failure> {
        let url = config::require("url")?;
        let retry_on: Vec<u16> = config::json("retry_on")?.unwrap_or_default();
        let wanted: BTreeMap<String, Value> = config::json("where")?.unwrap_or_default();
        if !wanted.is_empty() && !is_wanted(&event, &wanted)? {
            debug!("not forwarded, because of `where`");
            return Ok(());
        }
        match request(url, event).deliver()?.success() {
            Err(error @ http::Error::Status { status, retry_after, .. }) if retry_on.contains(&status) => {
                Err(Failure::retry_after(error.to_string(), retry_after.unwrap_or_default()))
            }
            Err(error @ http::Error::Status { status: 300..=399, .. }) => Err(Failure::reject(format!(
                "{error}, a redirect; write the address where it leads into `url`"
            ))),
            outcome => outcome.map(drop).map_err(Failure::from),
        }
    }
}

posthouse_sdk::plugin!(Forward);

/// The request for an event.
fn request(url: String, event: Event) -> Request {
    let Event { id, source, event_type, body, headers, content_type, original, .. } = event;
    let mut request = Request::post(url)
        .header("x-posthouse-source", source)
        .header("x-posthouse-type", event_type)
        .header("x-posthouse-id", id);
    for (name, value) in headers.into_iter().filter(|(name, value)| is_passed_on(name, value)) {
        request = request.header(&name, value);
    }
    let kind = if content_type.is_empty() { "application/json".to_owned() } else { content_type };
    request.header("content-type", kind).body(original.unwrap_or(body))
}

/// Whether a header of the sender's request may be one of ours: the host sets some itself, and takes only ASCII.
fn is_passed_on(name: &str, value: &str) -> bool {
    let is_ours = matches!(name, "content-type" | "idempotency-key") || name.starts_with("x-posthouse-");
    let fits = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    !is_ours && value.bytes().all(fits)
}

/// Whether the body has each of these values at its pointer. One of several is enough where an array is wanted.
fn is_wanted(event: &Event, wanted: &BTreeMap<String, Value>) -> Result<bool, Failure> {
    let body: Value = serde_json::from_slice(&event.body)
        .map_err(|error| Failure::reject(format!("`where` can't be applied to this body: {error}")))?;
    for (pointer, value) in wanted {
        if !pointer.starts_with('/') {
            let problem = format!("`{pointer}` is no JSON pointer, such as /data/plan");
            return Err(config::Error::invalid("where", problem).into());
        }
        let there = body.pointer(pointer);
        let is = |value: &Value| there.is_some_and(|there| equal(there, value));
        let holds = match value {
            Value::Array(several) => several.iter().any(is),
            one => is(one),
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two values are equal. Numbers are compared as numbers: `1` equals `1.0`.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || is_float(one, other) && one.as_f64() == other.as_f64()
        }
        _ => one == other,
    }
}

fn is_float(one: &Number, other: &Number) -> bool {
    one.is_f64() || other.is_f64()
}

#[cfg(test)]
mod tests;
