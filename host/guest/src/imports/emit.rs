//! `outbox.emit`: an event for other plugins, derived from the one at hand.
//!
//! The event is checked completely before it is staged: its type, the grant for the type, the organization, the JSON of
//! its data, and the length of the chain of derived events. Two plugins that answer each other therefore stop,
//! whatever their grants are.

use jiff::Timestamp;
use posthouse_model::{
    DeliveryId, Derived, Envelope, EventId, EventType, Grants, MAX_DEPTH, MAX_ORGANIZATION, NewEvent,
    SourceName, TraceContext, config::Limits,
};
use serde::de::IgnoredAny;

use super::{fault::Fault, limits::Budget, outbox::OutboxError};

/// The inputs of one `emit`.
pub(super) struct Emitter<'a> {
    pub(super) plugin: &'a str,
    pub(super) delivery: DeliveryId,
    /// The event at hand.
    pub(super) cause: &'a NewEvent,
    /// The span of the attempt, if it is recorded.
    pub(super) trace: Option<TraceContext>,
    pub(super) grants: &'a Grants,
    pub(super) limits: &'a Limits,
    pub(super) now: Timestamp,
    pub(super) staged: &'a mut Vec<Derived>,
    pub(super) budget: &'a mut Budget,
}

impl Emitter<'_> {
    /// Stages an event and returns its id. The id consists of the delivery's id and the event's position among those
    /// emitted, so it is the same in every attempt.
    pub(super) fn emit(
        &mut self,
        event_type: &str,
        organization: Option<&str>,
        data: &str,
    ) -> Result<String, Fault<OutboxError>> {
        let event_type =
            EventType::new(event_type).map_err(|error| invalid("event-type", error.to_string()))?;
        if !self.grants.allows_emitting(&event_type) {
            return Err(self.denied(&event_type).into());
        }
        if self.cause.depth >= MAX_DEPTH {
            let problem = format!(
                "the event at hand is the last of a chain of {MAX_DEPTH} derived events, which is the limit: \
                 nothing can be emitted because of it"
            );
            return Err(OutboxError::Limit(problem).into());
        }
        let organization = match organization {
            Some(named) => Some(checked(named)?.to_owned()),
            None => self.cause.organization.as_deref().map(str::to_owned),
        };
        serde_json::from_str::<IgnoredAny>(data)
            .map_err(|error| invalid("data", format!("is not JSON: {error}")))?;
        let name = |error: posthouse_model::InvalidName| invalid("event-type", error.to_string());
        let envelope = Envelope {
            source: SourceName::new(&format!("plugin:{}", self.plugin)).map_err(name)?,
            id: EventId::new(&format!("{}.{}", self.delivery, self.staged.len() + 1)).map_err(name)?,
            event_type,
            organization,
            occurred_at: self.now,
            depth: self.cause.depth + 1,
        };
        let mut derived = Derived::new(envelope, data);
        derived.trace = self.trace;
        self.budget.charge(self.limits, 1, derived.size(), 0)?;
        let id = derived.id().to_string();
        self.staged.push(derived);
        Ok(id)
    }

    fn denied(&self, event_type: &EventType) -> OutboxError {
        let plugin = self.plugin;
        OutboxError::Denied(format!(
            "plugin `{plugin}` has no grant to emit `{event_type}`; add it to `emit` below \
             [plugin.{plugin}.grants] in config.toml"
        ))
    }
}

fn checked(organization: &str) -> Result<&str, Fault<OutboxError>> {
    if organization.is_empty() {
        Err(invalid("organization-id", "is empty".to_owned()))
    } else if organization.len() > MAX_ORGANIZATION {
        let problem = format!("is {} bytes long; the limit is {MAX_ORGANIZATION}", organization.len());
        Err(OutboxError::Limit(format!("`organization-id` {problem}")).into())
    } else if organization.chars().any(char::is_control) {
        Err(invalid("organization-id", "holds a control character".to_owned()))
    } else {
        Ok(organization)
    }
}

fn invalid(field: &str, problem: String) -> Fault<OutboxError> {
    OutboxError::Invalid(format!("`{field}` {problem}")).into()
}

#[cfg(test)]
mod tests {
    use posthouse_model::{Pattern, testing::event};

    use super::*;

    use crate::imports::tests::limits;

    fn cause(depth: u8) -> NewEvent {
        NewEvent { depth, ..event("evt_1", "membership.created", Timestamp::UNIX_EPOCH) }
    }

    fn emit(
        depth: u8,
        emit: &[&str],
        event_type: &str,
        organization: Option<&str>,
        data: &str,
    ) -> Result<NewEvent, String> {
        let mut staged = Vec::new();
        let grants = Grants {
            emit: emit.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect(),
            ..Grants::default()
        };
        let result = Emitter {
            plugin: "seats",
            delivery: DeliveryId(7),
            cause: &cause(depth),
            trace: None,
            grants: &grants,
            limits: &limits(),
            now: Timestamp::UNIX_EPOCH,
            staged: &mut staged,
            budget: &mut Budget::default(),
        }
        .emit(event_type, organization, data);
        match result {
            Ok(id) => {
                let event = staged[0].event(Timestamp::UNIX_EPOCH);
                assert_eq!(event.id.as_str(), id);
                Ok(event)
            }
            Err(Fault::Answer(
                OutboxError::Denied(text) | OutboxError::Invalid(text) | OutboxError::Limit(text),
            )) => Err(text),
            Err(Fault::Stop(stop)) => Err(stop.to_string()),
        }
    }

    #[test]
    fn an_event_is_of_the_plugin_and_by_default_about_the_same_organization() {
        let event = emit(0, &["seat.*"], "seat.added", None, "{\"n\":1}").unwrap();
        assert_eq!((event.source.as_str(), event.id.as_str()), ("plugin:seats", "dlv_7.1"));
        assert_eq!((event.organization.as_deref(), event.depth), (Some("org_1"), 1));
        assert_eq!(event.data(), "{\"n\":1}");
        let event = emit(7, &["*"], "seat.added", Some("org_2"), "null").unwrap();
        assert_eq!((event.organization.as_deref(), event.depth), (Some("org_2"), 8));
    }

    #[test]
    fn what_is_not_granted_names_the_line_that_would_allow_it() {
        let refused = emit(0, &["seat.*", "user.created"], "user.deleted", None, "{}").unwrap_err();
        let expected = "plugin `seats` has no grant to emit `user.deleted`; add it to `emit` below \
                        [plugin.seats.grants] in config.toml";
        assert_eq!(refused, expected);
        assert!(emit(0, &[], "seat.added", None, "{}").unwrap_err().contains("no grant to emit"));
    }

    #[test]
    fn a_chain_of_derived_events_has_an_end() {
        let refused = emit(MAX_DEPTH, &["*"], "seat.added", None, "{}").unwrap_err();
        assert!(refused.contains("a chain of 8 derived events, which is the limit"), "{refused}");
    }

    #[test]
    fn what_is_no_event_names_the_field_and_what_is_too_much_the_limit() {
        let long = "o".repeat(MAX_ORGANIZATION + 1);
        let big = format!("\"{}\"", "x".repeat(limits().staged_bytes));
        let cases = [
            ("seat added", None, "{}", "`event-type` event type holds ' '"),
            ("seat.added", Some(""), "{}", "`organization-id` is empty"),
            ("seat.added", Some("a\nb"), "{}", "`organization-id` holds a control character"),
            ("seat.added", Some(&long), "{}", "`organization-id` is 256 bytes long"),
            ("seat.added", None, "", "`data` is not JSON"),
            ("seat.added", None, "{},\"id\":\"forged\"", "`data` is not JSON"),
            ("seat.added", None, "{} }", "`data` is not JSON"),
            ("seat.added", None, &big, "limit `staged_bytes` (4 MiB) reached"),
        ];
        for (event_type, organization, data, says) in cases {
            let refused = emit(0, &["*"], event_type, organization, data).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
