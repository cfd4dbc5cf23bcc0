//! A derived event: an event that a plugin emits for others, on its way into the store.
//!
//! Its body has the envelope of a real event, so that its subscribers read it like any other. Its depth is
//! its distance from the webhook that began the chain. The depth is limited, so plugins can't loop.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DeliveryId, EventId, EventType, NewEvent, RequestParts, SourceName, Subscriber, TraceContext};

/// The longest chain of events in which each is derived from the one before it.
pub const MAX_DEPTH: u8 = 8;

/// The most bytes of an organization's id.
pub const MAX_ORGANIZATION: usize = 255;

/// An event that an attempt has staged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    source: SourceName,
    id: EventId,
    event_type: EventType,
    organization: Option<String>,
    occurred_at: Timestamp,
    depth: u8,
    body: String,
    data: Range<u32>,
    /// The span of the attempt that emitted it, if that is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// The plugins that get it. Determined when the attempt is completed, and again if the completion is
    /// repeated.
    #[serde(skip)]
    pub subscribers: Vec<Subscriber>,
}

/// The parts of a derived event besides `data`.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// `plugin:<name>`.
    pub source: SourceName,
    /// The event's id, the same in every attempt.
    pub id: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// The organization that it concerns, at most [`MAX_ORGANIZATION`] bytes.
    pub organization: Option<String>,
    /// When it was emitted.
    pub occurred_at: Timestamp,
    /// One more than the depth of the event that it is derived from.
    pub depth: u8,
}

impl Derived {
    /// The event's type.
    pub fn event_type(&self) -> &EventType {
        &self.event_type
    }

    /// Creates an event with this data, which must be JSON text.
    pub fn new(envelope: Envelope, data: &str) -> Self {
        #[derive(Serialize)]
        struct Head<'a> {
            spec_version: &'a str,
            id: &'a str,
            r#type: &'a str,
            occurred_at: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            organization_id: Option<&'a str>,
        }
        let Envelope { source, id, event_type, organization, occurred_at, depth } = envelope;
        let head = Head {
            spec_version: "1",
            id: id.as_str(),
            r#type: event_type.as_str(),
            occurred_at: occurred_at.to_string(),
            organization_id: organization.as_deref(),
        };
        let mut body = serde_json::to_string(&head).unwrap_or_default();
        body.pop();
        body.push_str(r#","data":"#);
        let start = body.len();
        body.push_str(data.trim_matches([' ', '\t', '\r', '\n']));
        let end = body.len();
        body.push('}');
        let at = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Self {
            source,
            id,
            event_type,
            organization,
            occurred_at,
            depth,
            body,
            data: at(start)..at(end),
            trace: None,
            subscribers: Vec::new(),
        }
    }

    /// The event's id.
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// Bytes of its body.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// The event as it is stored if it is received at this time.
    pub fn event(&self, received_at: Timestamp) -> NewEvent {
        NewEvent {
            source: self.source.clone(),
            id: self.id.clone(),
            event_type: self.event_type.clone(),
            organization: self.organization.as_deref().map(Arc::from),
            occurred_at: Some(self.occurred_at),
            received_at,
            depth: self.depth,
            trace: self.trace,
            body: Bytes::copy_from_slice(self.body.as_bytes()),
            data: self.data.clone(),
            request: RequestParts::default(),
        }
    }
}

/// The delivery that emitted an event, from the event's source and id. None for a webhook.
pub fn emitted_by(source: &str, id: &str) -> Option<DeliveryId> {
    source.starts_with("plugin:").then(|| id.split_once('.')?.0.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, EventSeq};

    #[test]
    fn its_body_reads_like_that_of_a_real_event_and_survives_being_written_down() {
        let envelope = Envelope {
            source: SourceName::new("plugin:seats").unwrap(),
            id: EventId::new("dlv_7.1").unwrap(),
            event_type: EventType::new("seat.added").unwrap(),
            organization: Some("org_\"1\"".to_owned()),
            occurred_at: Timestamp::from_second(1_767_225_600).unwrap(),
            depth: 1,
        };
        let derived = Derived::new(envelope, " {\"seats\": 3}\n");
        let written = serde_json::to_string(&derived).unwrap();
        assert_eq!(serde_json::from_str::<Derived>(&written).unwrap(), derived);

        let content = derived.event(Timestamp::UNIX_EPOCH);
        let body: serde_json::Value = serde_json::from_slice(&content.body).unwrap();
        let expected = serde_json::json!({
            "spec_version": "1", "id": "dlv_7.1", "type": "seat.added",
            "occurred_at": "2026-01-01T00:00:00Z", "organization_id": "org_\"1\"", "data": { "seats": 3 },
        });
        assert_eq!(body, expected);
        assert_eq!(Event { seq: EventSeq(1), content }.data(), "{\"seats\": 3}");
    }
}
