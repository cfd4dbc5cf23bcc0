//! The content of a delivery's marker: all that posthouse still has to do once the plugin's database has
//! committed.
//!
//! The text is in an operator's database, perhaps over an upgrade of posthouse. So members are only added,
//! each with a default, and unknown ones are ignored.

use serde::{Deserialize, Serialize};

use super::{Attempt, Derived, Effects, OutboxItem, Ruling};

/// The rest of an attempt whose database has committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Outbox items, in the order staged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<OutboxItem>,
    /// Derived events, in the order staged. Their subscribers are determined again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emitted: Vec<Derived>,
    /// The record of the attempt.
    pub attempt: Attempt,
    /// What the attempt decided, if it was that of an interceptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruling: Option<Ruling>,
}

impl Carried {
    /// The part of these effects that is still to be done. It contains no keys and values: a plugin with a
    /// database has them there.
    pub fn new(effects: &Effects, attempt: &Attempt) -> Self {
        let (outbox, emitted) = (effects.outbox.clone(), effects.emitted.clone());
        Self { outbox, emitted, attempt: attempt.clone(), ruling: None }
    }

    /// The same, with what the attempt decided.
    #[must_use]
    pub fn with_ruling(self, ruling: &Ruling) -> Self {
        Self { ruling: Some(ruling.clone()), ..self }
    }

    /// The effects that the store commits for an attempt whose result is no longer in memory.
    pub fn into_effects(self) -> (Effects, Attempt) {
        let Self { outbox, emitted, attempt, ruling: _ } = self;
        (Effects { outbox, emitted, ..Effects::default() }, attempt)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{LogLevel, LogLine, Mail, Outcome};

    fn attempt() -> Attempt {
        Attempt {
            number: 3,
            revision: Some("0123456789ab".to_owned()),
            started_at: "2026-01-02T03:04:05.123456789Z".parse().unwrap(),
            duration: Duration::from_nanos(1_234_567),
            outcome: Outcome::Done,
            error: None,
            trace: None,
            logs: vec![LogLine {
                after: Duration::ZERO,
                level: LogLevel::Info,
                message: "„zwei“\n".to_owned(),
            }],
            actions: Some("set k".to_owned()),
        }
    }

    #[test]
    fn it_comes_back_as_it_went() {
        let mail = Mail {
            message_id: "<1@example.com>".to_owned(),
            from: "team@example.com".to_owned(),
            to: vec!["ada@example.com".to_owned()],
            cc: Vec::new(),
            bcc: Vec::new(),
            reply_to: None,
            subject: "hello".to_owned(),
            text: "\0 and \u{2028}".to_owned(),
            html: None,
        };
        let effects = Effects { outbox: vec![OutboxItem::Mail(mail)], ..Effects::default() };
        let carried = Carried::new(&effects, &attempt());
        let text = serde_json::to_vec(&carried).unwrap();
        let back: Carried = serde_json::from_slice(&text).unwrap();
        assert_eq!(back, carried);
        assert_eq!(back.into_effects(), (effects, attempt()));
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over_and_what_is_missing_is_empty() {
        let text =
            format!(r#"{{"attempt": {}, "something": [1]}}"#, serde_json::to_string(&attempt()).unwrap());
        let carried: Carried = serde_json::from_str(&text).unwrap();
        assert_eq!((carried.outbox, carried.emitted, carried.attempt), (Vec::new(), Vec::new(), attempt()));
    }
}
