//! Sends a request of the outbox over HTTP, after a check against the current grant.
//!
//! | result | what happens to the item |
//! | --- | --- |
//! | 2xx, whatever its headers and its body are | sent |
//! | 408, 425, 429, 5xx, no response | retried, not before `Retry-After` (bounded) has passed |
//! | any other status | dead |
//! | the grant does not allow it (any more) | dead; a replay checks the grant again |
//!
//! A server that never answers occupies a plugin's slots until each request times out. So a plugin gets no
//! more slots than stay free for all others: up to 32 of the 64. While the requests of six plugins hang, the
//! requests of a seventh are still sent at once.
//!
//! A request is sent at least once. Each retry carries the same `Idempotency-Key`, so that the other side can
//! detect a repeat.

use std::time::Duration;

use jiff::Timestamp;
use posthouse_egress as egress;
use posthouse_egress::{Bounds, Egress, Refusal, Sent};
use posthouse_guest::plugin::Registry;
use posthouse_model::{
    Env, OutboxItem, OutboxKind,
    config::{Http, Retry},
};
use posthouse_store::{OutboxJob, OutboxSlots};

use super::transport::{NotSent, Transport};

/// Sends HTTP requests.
pub(super) struct RequestDesk {
    egress: Egress,
    registry: Registry,
    timeout: Duration,
    retry: Retry,
    /// The longest wait that the other side may ask for.
    retry_after: Duration,
    env: Env,
}

impl RequestDesk {
    pub(super) fn new(egress: Egress, registry: Registry, http: &Http, env: Env) -> Self {
        let Http { timeout, retry, retry_after, .. } = *http;
        Self { egress, registry, timeout, retry, retry_after, env }
    }
}

impl Transport for RequestDesk {
    const KIND: OutboxKind = OutboxKind::Request;
    const SLOTS: OutboxSlots = OutboxSlots { at_once: 64, kept: true };

    fn retry(&self) -> &Retry {
        &self.retry
    }

    async fn send(&self, job: &OutboxJob) -> Result<(), NotSent> {
        let OutboxItem::Request(request) = &job.item else {
            return Err(NotSent::Permanent("it is not a request".to_owned()));
        };
        let Some(plugin) = self.registry.get(job.plugin) else {
            return Err(NotSent::Permanent("its plugin was forgotten, and so its grant".to_owned()));
        };
        let settings = self.registry.settings(&plugin.record.name);
        let plugin_http = self.egress.plugin_http(&plugin.record.name, &settings.grants.http);
        let bounds = Bounds { time: self.timeout, ..Bounds::of(&settings.limits) };
        judge(plugin_http.send(request, &bounds, job.trace.as_ref()).await, self.env.now(), self.retry_after)
    }

    /// Idle connections close automatically.
    async fn rest(&self) {}
}

/// Decides what a response or a refusal means for the item. `most` limits the wait that the server asks for.
fn judge(sent: Result<Sent, Refusal>, now: Timestamp, most: Duration) -> Result<(), NotSent> {
    let Sent { status, retry_after } = match sent {
        Ok(sent) => sent,
        // If the head can't be read, the status is unknown.
        Err(Refusal::Timeout(error) | Refusal::Failed(error) | Refusal::Unreadable(error)) => {
            return Err(NotSent::Transient(error));
        }
        Err(Refusal::Denied(error) | Refusal::Invalid(error) | Refusal::Limit(error)) => {
            return Err(NotSent::Permanent(error));
        }
    };
    let error = format!("the other side answered {status}");
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => {
            Err(match retry_after.and_then(|text| egress::retry_after(&text, now)) {
                Some(after) => NotSent::Later { error, after: after.min(most) },
                None => NotSent::Transient(error),
            })
        }
        _ => Err(NotSent::Permanent(error)),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn answered(status: u16, retry_after: Option<&str>) -> Result<(), NotSent> {
        let status = StatusCode::from_u16(status).unwrap();
        let now = "2026-03-01T12:00:00Z".parse().unwrap();
        let retry_after = retry_after.map(str::to_owned);
        judge(Ok(Sent { status, retry_after }), now, Duration::from_secs(3600))
    }

    #[test]
    fn the_status_decides_what_comes_next() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(answered(status, None), Ok(()), "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(answered(status, None), Err(NotSent::Transient(_))), "{status}");
        }
        for status in [300, 301, 302, 304, 400, 401, 403, 404, 409, 410, 422] {
            assert!(matches!(answered(status, Some("1")), Err(NotSent::Permanent(_))), "{status}");
        }
    }

    #[test]
    fn the_other_side_may_ask_for_a_wait_within_a_bound() {
        let after = |text| match answered(429, Some(text)) {
            Err(NotSent::Later { after, .. }) => Some(after.as_secs()),
            Err(NotSent::Transient(_)) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("17"), Some(17));
        assert_eq!(after(" 0 "), Some(0));
        assert_eq!(after("999999999999"), Some(3600));
        assert_eq!(after("99999999999999999999999"), Some(3600), "too large for any number");
        assert_eq!(after("Sun, 01 Mar 2026 12:00:30 GMT"), Some(30));
        assert_eq!(after("Sun, 01 Mar 2099 11:00:00 GMT"), Some(3600));
        for odd in ["soon", "-1", "1.5", ""] {
            assert_eq!(after(odd), None, "{odd}");
        }
    }
}
