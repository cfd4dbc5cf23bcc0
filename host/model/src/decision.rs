//! Decisions: what an interceptor is asked, and what it answers.
//!
//! The sender of an interceptor waits for the answer. The form is Scalekit's: 200 with `{"decision":"ALLOW"}` or
//! `{"decision":"DENY"}` (<https://docs.scalekit.com/reference/interceptors/triggers>).

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::{EventId, EventType, MAX_ORGANIZATION, NewEvent, RequestParts, SourceName};

/// The most characters of the message that a person reads.
const MESSAGE: usize = 500;
/// The most characters of the code of a refusal.
const CODE: usize = 50;
/// The most bytes of the claims.
const CLAIMS: usize = 16 << 10;
/// Claims beyond this many bytes are worth a warning: a token is sent with every request.
const LARGE_CLAIMS: usize = 4 << 10;
/// The most roles of a membership.
const ROLES: usize = 64;
/// The most bytes of a role.
const ROLE: usize = 255;

/// The answer that allows, and grants nothing.
const ALLOW: &str = r#"{"decision":"ALLOW"}"#;
/// The answer that denies, with the sender's general text.
const DENY: &str = r#"{"decision":"DENY"}"#;

/// One verified request of an interceptor. Members that are options are absent if the sender names none.
#[derive(Debug, Clone)]
pub struct Question {
    /// The interceptor, as a source: `interceptor:` and its name.
    pub source: SourceName,
    /// The sender's id of the request.
    pub id: EventId,
    /// What is about to happen, for example `PRE_SIGNUP`.
    pub trigger: EventType,
    /// The sender's environment.
    pub environment: Option<Arc<str>>,
    /// The user.
    pub user: Option<Arc<str>>,
    /// The user's mail address.
    pub email: Option<Arc<str>>,
    /// The organization, at most 255 bytes.
    pub organization: Option<Arc<str>>,
    /// The client of a machine-to-machine token.
    pub client: Option<Arc<str>>,
    /// The address of the person, as the sender saw it.
    pub ip: Option<Arc<str>>,
    /// The region of the person.
    pub region: Option<Arc<str>>,
    /// When the trigger happened, according to the sender.
    pub triggered_at: Option<Timestamp>,
    /// When posthouse received it.
    pub received_at: Timestamp,
    /// The verified bytes: JSON, and so UTF-8.
    pub body: Bytes,
    /// The range of the value of `data` in the body. Empty if the body has no `data`.
    pub data: Range<u32>,
}

impl Question {
    /// The prefix of the source of every interceptor.
    pub const SOURCE: &str = "interceptor:";

    /// The name of the interceptor in config.toml.
    pub fn interceptor(&self) -> &str {
        self.source.as_str().strip_prefix(Self::SOURCE).unwrap_or(self.source.as_str())
    }

    /// The request as an event. What a guest emits while it decides is derived from it.
    pub fn event(&self) -> NewEvent {
        NewEvent {
            source: self.source.clone(),
            id: self.id.clone(),
            event_type: self.trigger.clone(),
            organization: self.organization.clone(),
            occurred_at: self.triggered_at,
            received_at: self.received_at,
            depth: 0,
            trace: None,
            body: self.body.clone(),
            data: self.data.clone(),
            request: RequestParts::default(),
        }
    }
}

/// What a guest decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may go on.
    Allow {
        /// A JSON object as text, whose members become claims of the token.
        claims: Option<String>,
        /// A membership that the new user gets.
        membership: Option<Membership>,
    },
    /// It may not.
    Deny {
        /// What the person reads. None: the sender shows a general text.
        message: Option<String>,
        /// A code for programs.
        code: Option<String>,
    },
}

/// A membership in an organization of the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The organization.
    pub organization: OrganizationRef,
    /// The names of the roles.
    pub roles: Vec<String>,
}

/// An organization of the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrganizationRef {
    /// By the sender's own id.
    Id(String),
    /// By the id that its owner gave it.
    ExternalId(String),
}

/// Why a decision can't be an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDecision {
    /// The claims are not a JSON object.
    #[error("its claims are not a JSON object")]
    NotAnObject,
    /// The claims are too large.
    #[error("its claims have {0} bytes; {CLAIMS} is the limit")]
    LargeClaims(usize),
    /// The id of the organization is empty or too long.
    #[error("the organization of its membership has {0} bytes; 1 to {MAX_ORGANIZATION} are allowed")]
    BadOrganization(usize),
    /// There are too many roles, or one is empty or too long.
    #[error("its membership has more than {ROLES} roles, or one that is empty or longer than {ROLE} bytes")]
    BadRoles,
}

/// A decision that can be an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// Whether it allows.
    pub allows: bool,
    /// The JSON that says so.
    pub answer: String,
    /// A remark for the record, such as a message that was cut.
    #[serde(skip)]
    pub remark: Option<String>,
}

impl Ruling {
    /// The ruling that allows or denies, and says nothing else.
    pub fn plain(allows: bool) -> Self {
        Self { allows, answer: if allows { ALLOW } else { DENY }.to_owned(), remark: None }
    }

    /// `ALLOW` or `DENY`.
    pub fn word(&self) -> &'static str {
        word(self.allows)
    }
}

/// `ALLOW` or `DENY`.
fn word(allows: bool) -> &'static str {
    if allows { "ALLOW" } else { "DENY" }
}

impl Decision {
    /// Checks the decision against the sender's bounds, and writes the answer. A message or code that is too long is cut,
    /// so that a refusal stays one.
    ///
    /// # Errors
    /// [`InvalidDecision`] if the sender could not use what is granted.
    pub fn rule(self) -> Result<Ruling, InvalidDecision> {
        match self {
            Self::Allow { claims: None, membership: None } => Ok(Ruling::plain(true)),
            Self::Allow { claims, membership } => allow(claims, membership),
            Self::Deny { message, code } => Ok(deny(message, code)),
        }
    }
}

fn allow(claims: Option<String>, membership: Option<Membership>) -> Result<Ruling, InvalidDecision> {
    #[derive(Serialize)]
    struct Answer {
        decision: &'static str,
        response: Response,
    }
    #[derive(Serialize)]
    struct Response {
        #[serde(skip_serializing_if = "Option::is_none")]
        create_organization_membership: Option<Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        claims: Option<Box<RawValue>>,
    }
    let large = claims.as_ref().map(String::len).filter(|bytes| *bytes > LARGE_CLAIMS);
    let claims = claims.map(object).transpose()?;
    let membership = membership.map(given).transpose()?;
    let response = Response { create_organization_membership: membership, claims };
    let answer = serde_json::to_string(&Answer { decision: word(true), response });
    let remark = large.map(|bytes| {
        format!(
            "the claims have {bytes} bytes, and a token is sent with every request: keep them below 4 KiB"
        )
    });
    Ok(Ruling { allows: true, answer: answer.map_err(|_| InvalidDecision::NotAnObject)?, remark })
}

/// The claims as JSON that is copied digit for digit.
fn object(claims: String) -> Result<Box<RawValue>, InvalidDecision> {
    if claims.len() > CLAIMS {
        return Err(InvalidDecision::LargeClaims(claims.len()));
    }
    let raw: Box<RawValue> = serde_json::from_str(&claims).map_err(|_| InvalidDecision::NotAnObject)?;
    if raw.get().trim_ascii_start().starts_with('{') { Ok(raw) } else { Err(InvalidDecision::NotAnObject) }
}

fn given(membership: Membership) -> Result<Value, InvalidDecision> {
    let Membership { organization, roles } = membership;
    let (member, id) = match organization {
        OrganizationRef::Id(id) => ("organization_id", id),
        OrganizationRef::ExternalId(id) => ("external_organization_id", id),
    };
    if !(1..=MAX_ORGANIZATION).contains(&id.len()) {
        return Err(InvalidDecision::BadOrganization(id.len()));
    }
    if roles.len() > ROLES || roles.iter().any(|role| !(1..=ROLE).contains(&role.len())) {
        return Err(InvalidDecision::BadRoles);
    }
    Ok(json!({ member: id, "roles": roles }))
}

fn deny(message: Option<String>, code: Option<String>) -> Ruling {
    let mut remark = None;
    let mut bounded = |what: &str, text: Option<String>, most: usize| {
        let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())?;
        match text.char_indices().nth(most) {
            None => Some(text),
            Some((end, _)) => {
                remark = Some(format!("the {what} of the refusal was cut to {most} characters"));
                Some(text[..end].to_owned())
            }
        }
    };
    let (message, code) = (bounded("message", message, MESSAGE), bounded("code", code, CODE));
    let mut error = Map::new();
    error.extend(message.map(|message| ("message".to_owned(), message.into())));
    error.extend(code.map(|code| ("code".to_owned(), code.into())));
    match error.is_empty() {
        true => Ruling::plain(false),
        false => {
            let answer = json!({ "decision": word(false), "error": error }).to_string();
            Ruling { allows: false, answer, remark }
        }
    }
}

/// The `data` of the event that says that a decision took effect after its sender had got another answer.
pub fn late_data(question: &Question, decided: &Ruling, sent: &Ruling) -> String {
    let data = json!({
        "interceptor": question.interceptor(),
        "id": question.id.as_str(),
        "trigger": question.trigger.as_str(),
        "organization_id": question.organization.as_deref(),
        "user_id": question.user.as_deref(),
        "decided": decided.word(),
        "sent": sent.word(),
    });
    to_raw_value(&data).map_or_else(|_| "null".to_owned(), |data| data.get().to_owned())
}

/// Why an interceptor answered by itself, without a decision of its plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// The plugin is not there, or does not decide about this trigger.
    NoPlugin,
    /// The plugin is held: paused, broken, without a grant, or its breaker is open.
    Held,
    /// The deadline passed, with or without an instance.
    Timeout,
    /// The guest trapped or reached a limit.
    Stopped,
    /// The guest returned `unsure`.
    Unsure,
    /// Other transactions changed what the guest read, twice.
    Conflict,
    /// The decision breaks a bound of the sender.
    Invalid,
    /// The store or the plugin's database could not be used.
    Store,
}

impl Fallback {
    /// Every cause.
    pub const ALL: [Self; 8] = [
        Self::NoPlugin,
        Self::Held,
        Self::Timeout,
        Self::Stopped,
        Self::Unsure,
        Self::Conflict,
        Self::Invalid,
        Self::Store,
    ];

    /// The name of the cause.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPlugin => "no-plugin",
            Self::Held => "held",
            Self::Timeout => "timeout",
            Self::Stopped => "stopped",
            Self::Unsure => "unsure",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Store => "store",
        }
    }

    /// The cause with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of a decision's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionState {
    /// It is under way, or the daemon stopped before it ended.
    Running,
    /// The plugin decided, and its effects are committed.
    Decided,
    /// posthouse answered in place of the plugin.
    Fallback,
}

impl DecisionState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Running, Self::Decided, Self::Fallback];

    /// The name of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Decided => "decided",
            Self::Fallback => "fallback",
        }
    }

    /// The state with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(ruling: &Ruling) -> Value {
        serde_json::from_str(&ruling.answer).unwrap()
    }

    fn denied(message: &str, code: &str) -> Ruling {
        Decision::Deny { message: Some(message.to_owned()), code: Some(code.to_owned()) }.rule().unwrap()
    }

    fn allowed(claims: Option<&str>, membership: Option<Membership>) -> Result<Ruling, InvalidDecision> {
        Decision::Allow { claims: claims.map(str::to_owned), membership }.rule()
    }

    #[test]
    fn an_answer_has_the_form_that_the_sender_reads() {
        assert_eq!(value(&allowed(None, None).unwrap()), json!({ "decision": "ALLOW" }));
        let membership = |organization| {
            Some(Membership { organization, roles: vec!["admin".to_owned(), "viewer".to_owned()] })
        };
        let claims = r#"{ "n": 12345678901234567890123, "a": [1] }"#;
        let both = allowed(Some(claims), membership(OrganizationRef::Id("org_1".to_owned()))).unwrap();
        assert!(both.answer.contains("12345678901234567890123"), "{}", both.answer);
        let response = &value(&both)["response"];
        let expected = json!({ "organization_id": "org_1", "roles": ["admin", "viewer"] });
        assert_eq!(response["create_organization_membership"], expected);
        assert_eq!(response["claims"]["a"], json!([1]));
        let external = allowed(None, membership(OrganizationRef::ExternalId("acme".to_owned()))).unwrap();
        let given = &value(&external)["response"]["create_organization_membership"];
        assert_eq!(given["external_organization_id"], json!("acme"));
        assert_eq!(
            value(&denied("no seat is left", "no_seat")),
            json!({ "decision": "DENY", "error": { "message": "no seat is left", "code": "no_seat" } })
        );
        assert_eq!(value(&denied(" ", "")), json!({ "decision": "DENY" }));
    }

    #[test]
    fn a_refusal_that_is_too_long_is_cut_and_stays_a_refusal() {
        let long = denied(&"ü".repeat(501), &"c".repeat(51));
        assert!(!long.allows && long.remark.is_some());
        let error = &value(&long)["error"];
        assert_eq!(error["message"].as_str().unwrap().chars().count(), 500);
        assert_eq!(error["code"].as_str().unwrap().len(), 50);
        assert_eq!(denied(&"ü".repeat(500), &"c".repeat(50)).remark, None);
    }

    #[test]
    fn what_the_sender_could_not_use_is_no_answer() {
        assert_eq!(allowed(Some("[1]"), None), Err(InvalidDecision::NotAnObject));
        assert_eq!(allowed(Some("{"), None), Err(InvalidDecision::NotAnObject));
        let claims = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
        assert_eq!(allowed(Some(&claims(4096)), None).unwrap().remark, None);
        assert!(allowed(Some(&claims(16_384)), None).unwrap().remark.is_some());
        assert_eq!(allowed(Some(&claims(16_385)), None), Err(InvalidDecision::LargeClaims(16_385)));
        let membership = |id: &str, roles: &[&str]| {
            let organization = OrganizationRef::Id(id.to_owned());
            Some(Membership { organization, roles: roles.iter().map(|role| (*role).to_owned()).collect() })
        };
        for (given, error) in [
            (membership("", &[]), InvalidDecision::BadOrganization(0)),
            (membership(&"o".repeat(256), &[]), InvalidDecision::BadOrganization(256)),
            (membership("o", &[""]), InvalidDecision::BadRoles),
            (membership("o", &["r"; 65]), InvalidDecision::BadRoles),
        ] {
            assert_eq!(allowed(None, given), Err(error));
        }
    }

    #[test]
    fn every_name_is_read_back() {
        for cause in Fallback::ALL {
            assert_eq!(Fallback::named(cause.as_str()), Some(cause));
        }
        for state in DecisionState::ALL {
            assert_eq!(DecisionState::named(state.as_str()), Some(state));
        }
    }
}
