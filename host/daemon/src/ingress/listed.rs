//! Reads an event that its sender lists when it is asked. It is read as in a webhook, so that guests see the same
//! event; but it has no headers and no signature.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use posthouse_model::{NewEvent, SecondKey, SourceName, config};

use super::{InvalidPayload, envelope, event, plan::Plan};

/// Reads the events that the sender of a source lists.
pub struct ListedReader {
    source: SourceName,
    /// None: the events are envelopes.
    plan: Option<Plan>,
    /// Whether webhooks of the source have another id than the event, and the event's as a second key.
    body_id: bool,
}

impl ListedReader {
    /// A reader for this source. None if its scheme has no rows.
    pub fn new(source: &config::Source) -> Option<Self> {
        let row = source.scheme.rows.first()?;
        Some(Self {
            source: source.name.clone(),
            plan: (!row.event.envelope).then(|| Plan::new(&Arc::clone(row))),
            body_id: source.scheme.body_id,
        })
    }

    /// Reads one event, and its second key.
    ///
    /// # Errors
    /// [`InvalidPayload`] says what is missing or wrong.
    pub fn read(
        &self,
        body: &Bytes,
        received_at: Timestamp,
    ) -> Result<(NewEvent, Option<SecondKey>), InvalidPayload> {
        let arrived = match self.plan.as_ref().and_then(|plan| plan.families.first()) {
            Some(family) => event::listed(&family.event, &self.source, received_at, body)?,
            None => envelope::read_body(body, || Ok(None), self.body_id, &self.source, received_at)?,
        };
        Ok((arrived.event, arrived.second))
    }
}

#[cfg(test)]
mod tests {
    use crate::ingress::{Verifier, fixtures, sign};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_765_281_881).unwrap()
    }

    fn read(scheme: &str, body: &str) -> Result<(NewEvent, Option<SecondKey>), InvalidPayload> {
        let source = fixtures::source(scheme);
        ListedReader::new(&source).unwrap().read(&Bytes::from(body.to_owned()), now())
    }

    /// The same event as a webhook brings it.
    fn of_a_webhook(scheme: &str, id: &str, body: &str) -> (NewEvent, Option<SecondKey>) {
        let source = fixtures::source(scheme);
        let headers = sign(&source, id, now(), body.as_bytes()).unwrap();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = fixtures::request(&headers, body.as_bytes());
        let verifier = Verifier::new(&source).unwrap();
        let verified = verifier.verify(&request, now()).unwrap();
        let mut arrived = event::read(&verified, &source.name, now()).unwrap();
        assert_eq!(arrived.len(), 1);
        let arrived = arrived.remove(0);
        (arrived.event, arrived.second)
    }

    #[test]
    fn a_listed_event_is_the_event_of_its_webhook() {
        let of_scalekit = r#"{"spec_version":"1","id":"evt_1","type":"user.created","occurred_at":"2025-12-09T12:00:00Z","organization_id":"org_1","data":{"user":{"id":"usr_1"}}}"#;
        let of_stripe = r#"{"id":"evt_1","object":"event","type":"charge.refunded","created":1765281000,"account":"acct_1","data":{"object":{}}}"#;
        for (scheme, id, body) in [
            ("scalekit", "msg_1", of_scalekit),
            ("scalekit-documented", "evt_1", of_scalekit),
            ("stripe", "evt_1", of_stripe),
        ] {
            let ((listed, own), (event, second)) =
                (read(scheme, body).unwrap(), of_a_webhook(scheme, id, body));
            assert_eq!(own, second, "{scheme}: one second key");
            assert!(own.is_some() || listed.id == event.id, "{scheme}: one of the names is shared");
            assert_eq!(listed.id.as_str(), "evt_1");
            assert_eq!(listed.event_type, event.event_type, "{scheme}");
            assert_eq!(listed.occurred_at, event.occurred_at, "{scheme}");
            assert!(listed.occurred_at.is_some() && listed.organization.is_some(), "{scheme}");
            assert_eq!(listed.organization, event.organization, "{scheme}");
            assert_eq!((listed.data(), &listed.body), (event.data(), &event.body), "{scheme}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused_whichever_way_it_comes() {
        for body in ["", "[]", "{}", r#"{"type":"a"}"#, r#"{"id":"e e","type":"a"}"#, r#"{"id":"e"}"#] {
            assert!(read("scalekit", body).is_err(), "{body}");
        }
        for body in ["", "[]", r#"{"id":"evt_1"}"#, r#"{"id":"e e","type":"a"}"#] {
            assert!(read("stripe", body).is_err(), "{body}");
        }
    }
}
