//! The envelope: the members of a verified body that posthouse itself reads.
//!
//! Real bodies have `id`, `type`, `occurred_at`, `organization_id` and `data`. Bodies of Standard Webhooks have
//! their time in `timestamp`. Bodies of Scalekit's page have it in `created_at`, and name the organization
//! within `data`. One pass reads all of these and skips the rest without building values. So depth, large
//! numbers and halves of surrogate pairs in the rest do no harm.
//!
//! An event without a valid id and type cannot be recognised or routed, so posthouse refuses it. The other
//! members are useful, but an invalid one is no reason to lose an event: an unreadable time or organization is
//! left out. If the body repeats a member of its top level, posthouse refuses the body, because two readers may
//! choose different ones. Within `data` the last one counts.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use posthouse_model::{
    EventId, EventType, NewEvent, RequestParts, SecondKey, SourceName, TIME_MEMBERS, event_time,
    json::{self, JsonStr},
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use super::{
    Verified,
    altered::compression,
    event::{self, Arrived},
    members::MAX_ELEMENTS,
};

/// The longest organization, and the longest member name in an error, in bytes.
const MAX_TEXT: usize = 255;

/// Why a verified body is no event. The sender gets the sentence. It names members and contains nothing else of
/// the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPayload {
    /// The bytes are compressed text, though no header says so.
    #[error("the body is compressed ({0}); send it as it is")]
    Compressed(&'static str),
    /// The bytes are not text.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// The text is not JSON.
    #[error("the body is not JSON: line {line}, column {column}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The JSON is not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// A member of the top level is present more than once.
    #[error("`{0}` is there more than once")]
    Repeated(String),
    /// A required member is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A required member is not a string.
    #[error("`{0}` is not a string")]
    NotText(&'static str),
    /// The id is not 1 to 255 bytes of visible ASCII.
    #[error("the event's id must be 1 to 255 bytes of visible ASCII")]
    BadId,
    /// No text of the row's `type` has a value.
    #[error("nothing in the request says of what type the event is")]
    NoType,
    /// The row takes each element of this as an event, and it is no array.
    #[error("`{0}` is not an array")]
    NotAnArray(String),
    /// The request has more events than any sender makes.
    #[error("there are more than {MAX_ELEMENTS} events in one request")]
    TooManyEvents,
    /// The row reads forms only.
    #[error("the body is not a form (application/x-www-form-urlencoded)")]
    NotAForm,
    /// The form has more fields than any sender makes.
    #[error("the form has too many fields")]
    TooManyFields,
    /// The type is not 1 to 128 letters, digits and `. _ - : /`.
    #[error("`type` must be 1 to 128 of letters, digits and `. _ - : /`")]
    BadType,
}

impl InvalidPayload {
    /// The error for the log, without anything of the body: not even a member's name.
    pub(super) fn for_the_log(&self) -> String {
        match self {
            Self::Repeated(_) => "a member is there more than once".to_owned(),
            other => other.to_string(),
        }
    }

    /// The label in the ledger and the metrics. It never changes.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Compressed(_) => "body-compressed",
            Self::NotUtf8 => "body-not-utf8",
            Self::NotJson { .. } => "body-not-json",
            Self::NotAnObject => "body-not-object",
            Self::Repeated(_) => "member-repeated",
            Self::Missing(_) | Self::NoType => "member-missing",
            Self::NotAForm => "body-not-form",
            Self::NotAnArray(_) => "member-missing",
            Self::TooManyEvents => "too-many-events",
            Self::TooManyFields => "body-too-many-fields",
            Self::NotText(_) => "member-not-text",
            Self::BadId => "bad-event-id",
            Self::BadType => "bad-event-type",
        }
    }
}

/// Reads a verified body as an event. The event shares the body's bytes. The second key is the body's own id, if the
/// scheme says that it names the event too.
///
/// # Errors
/// [`InvalidPayload`] says what is missing or wrong.
pub(super) fn read(
    verified: &Verified<'_>,
    source: &SourceName,
    received_at: Timestamp,
) -> Result<Arrived, InvalidPayload> {
    read_body(verified.body(), || event::envelope_id(verified), verified.body_id(), source, received_at)
}

/// Reads a body as an event. `id` is its id, if that is not in the body. `body_id`: the body's own id is its second key.
///
/// # Errors
/// [`InvalidPayload`] says what is missing or wrong.
pub(super) fn read_body<'r>(
    body: &'r Bytes,
    id: impl FnOnce() -> Result<Option<Cow<'r, str>>, InvalidPayload>,
    body_id: bool,
    source: &SourceName,
    received_at: Timestamp,
) -> Result<Arrived, InvalidPayload> {
    let text = text(body)?;
    let members: Members<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => InvalidPayload::NotAnObject,
        _ => InvalidPayload::NotJson { line: error.line(), column: error.column() },
    })?;
    if let Some(name) = members.repeated {
        return Err(InvalidPayload::Repeated(name));
    }

    let id = match id()? {
        Some(id) => EventId::new(&id),
        None => EventId::new(&required(members.id, "id")?),
    };
    let event_type = EventType::new(&required(members.event_type, "type")?);
    let body_id = string(members.id).filter(|id| body_id && !id.is_empty());
    let second = body_id.map(|id| SecondKey::of_id(&id));
    let event = NewEvent {
        source: source.clone(),
        id: id.map_err(|_| InvalidPayload::BadId)?,
        event_type: event_type.map_err(|_| InvalidPayload::BadType)?,
        organization: organization(&members),
        occurred_at: members.times.iter().flatten().find_map(|time| event_time(time.get())),
        received_at,
        depth: 0,
        trace: None,
        body: body.clone(),
        data: members.data.map(|data| range_within(text, data.get())).unwrap_or_default(),
        request: RequestParts::default(),
    };
    Ok(Arrived { event, second })
}

/// The body as text.
///
/// # Errors
/// It is not UTF-8.
pub(super) fn text(body: &[u8]) -> Result<&str, InvalidPayload> {
    std::str::from_utf8(body).map_err(|_| match compression(body) {
        Some(coding) => InvalidPayload::Compressed(coding),
        None => InvalidPayload::NotUtf8,
    })
}

/// The members of the top level that posthouse reads.
#[derive(Default)]
struct Members<'a> {
    id: Option<&'a RawValue>,
    event_type: Option<&'a RawValue>,
    times: [Option<&'a RawValue>; TIME_MEMBERS.len()],
    organization_id: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    /// The name of a member that is present more than once, read or not, cut to [`MAX_TEXT`].
    repeated: Option<String>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                let mut names = Vec::with_capacity(16);
                while let Some(name) = map.next_key::<JsonStr<'de>>()? {
                    let member = match name.as_bytes() {
                        b"id" => Some(&mut members.id),
                        b"type" => Some(&mut members.event_type),
                        b"organization_id" => Some(&mut members.organization_id),
                        b"data" => Some(&mut members.data),
                        other => TIME_MEMBERS
                            .iter()
                            .position(|time| time.as_bytes() == other)
                            .map(|at| &mut members.times[at]),
                    };
                    match member {
                        Some(member) => *member = Some(map.next_value()?),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                    names.push(name);
                }
                names.sort_unstable();
                let repeated = names.windows(2).find(|pair| pair[0] == pair[1]);
                members.repeated = repeated.map(|pair| cut(&pair[0].clone().into_text()));
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A string, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The member's string; none if it is another type or contains half of a surrogate pair.
fn string(member: Option<&RawValue>) -> Option<Cow<'_, str>> {
    serde_json::from_str(member?.get()).ok().map(|Text(text)| text)
}

/// The string of a required member.
///
/// # Errors
/// [`InvalidPayload`] if it is missing, null or not a string.
fn required<'a>(member: Option<&'a RawValue>, name: &'static str) -> Result<Cow<'a, str>, InvalidPayload> {
    let member = member.filter(|value| value.get() != "null").ok_or(InvalidPayload::Missing(name))?;
    string(Some(member)).ok_or(InvalidPayload::NotText(name))
}

/// The organization: `organization_id`, or else its place in events of Scalekit's page. There it is
/// `data.organization.id`, or the `organization_id` of `data`, of its membership or of its session.
fn organization(members: &Members<'_>) -> Option<Arc<str>> {
    let named = |member: &str| fit_organization(serde_json::from_str::<Text<'_>>(member).ok()?.0);
    string(members.organization_id).and_then(fit_organization).or_else(|| {
        let [whole, own, membership, session] =
            json::members(members.data?.get(), ["organization", "organization_id", "membership", "session"]);
        let within = |part: Option<&str>, name| json::member(part?, name).and_then(named);
        within(whole, "id")
            .or_else(|| own.and_then(named))
            .or_else(|| within(membership, "organization_id"))
            .or_else(|| within(session, "organization_id"))
    })
}

/// The text, if it can be an organization: 1 to [`MAX_TEXT`] bytes without control characters.
pub(super) fn fit_organization(text: Cow<'_, str>) -> Option<Arc<str>> {
    let fits = (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| Arc::from(&*text))
}

/// The range of a part within the text that contains it; empty if it does not fit in u32.
pub(super) fn range_within(whole: &str, part: &str) -> Range<u32> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    match (u32::try_from(start), u32::try_from(start + part.len())) {
        (Ok(start), Ok(end)) => start..end,
        _ => 0..0,
    }
}

/// The name for an error, cut to [`MAX_TEXT`] bytes.
fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_TEXT)].to_owned()
}

#[cfg(test)]
mod tests {
    use posthouse_model::{Event, EventSeq, config::Source};
    use proptest::prelude::*;

    use super::*;

    use crate::ingress::{Verifier, fixtures, sign};

    fn read_as(scheme: &str, body: &[u8]) -> Result<NewEvent, InvalidPayload> {
        let source: Source = fixtures::source(scheme);
        let now = Timestamp::from_second(1_765_281_881).unwrap();
        let headers = sign(&source, "msg_1", now, body).unwrap();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = fixtures::request(&headers, body);
        let verifier = Verifier::new(&source).unwrap();
        read(&verifier.verify(&request, now).unwrap(), &source.name, now).map(|arrived| arrived.event)
    }

    /// Reads the body of a scheme whose event id is in the body.
    fn event(body: &str) -> Result<NewEvent, InvalidPayload> {
        read_as("scalekit-documented", body.as_bytes())
    }

    fn problem(body: &str) -> String {
        event(body).expect_err(body).to_string()
    }

    fn data_of(content: NewEvent) -> String {
        Event { seq: EventSeq(1), content }.data().to_owned()
    }

    #[test]
    fn a_real_body_is_read() {
        let event = event(
            r#"{"spec_version":"1","id":"evt_1","type":"organization.created","object":"Organization",
            "occurred_at":"2024-01-15T10:30:00.123456789Z","environment_id":"env_1",
            "organization_id":"org_1","data": {"id":"org_1","n":1e999} ,"display_name":"Created"}"#,
        )
        .unwrap();
        assert_eq!(event.id.as_str(), "evt_1");
        assert_eq!(event.event_type.as_str(), "organization.created");
        assert_eq!(event.organization.as_deref(), Some("org_1"));
        assert_eq!(event.occurred_at, Some("2024-01-15T10:30:00.123456789Z".parse().unwrap()));
        assert_eq!(data_of(event), r#"{"id":"org_1","n":1e999}"#);
    }

    #[test]
    fn a_body_of_the_page_is_read() {
        let event = event(
            r#"{"id":"evt_1","type":"user.created","created_at":"2024-01-15T10:30:00Z","data":
            {"user":{"id":"usr_1"},"organization":{"id":"org_9","display_name":"Example"}}}"#,
        )
        .unwrap();
        assert_eq!(event.organization.as_deref(), Some("org_9"));
        assert_eq!(event.occurred_at, Some("2024-01-15T10:30:00Z".parse().unwrap()));
    }

    #[test]
    fn the_organization_of_a_page_event_is_found_within_what_the_event_is_about() {
        let cases = [
            (r#"{"membership":{"user_id":"usr_1","organization_id":"org_1"}}"#, Some("org_1")),
            (r#"{"session":{"id":"ses_1","organization_id":"org_2"}}"#, Some("org_2")),
            (r#"{"user":{"id":"usr_1"},"organization_id":"org_3"}"#, Some("org_3")),
            // The member nearest to the top wins; an unreadable one hides no other.
            (r#"{"organization":{"id":"org_4"},"membership":{"organization_id":"org_5"}}"#, Some("org_4")),
            (r#"{"organization":"?","membership":{"organization_id":"org_6"}}"#, Some("org_6")),
            (r#"{"membership":[],"session":{"organization_id":"org_7"}}"#, Some("org_7")),
            (r#"{"membership":{"organization_id":7}}"#, None),
            (r#"{"user":{"organization_id":"org_8"}}"#, None),
        ];
        for (data, organization) in cases {
            let event = event(&format!(r#"{{"id":"evt_1","type":"a.b","data":{data}}}"#)).unwrap();
            assert_eq!(event.organization.as_deref(), organization, "{data}");
        }
    }

    #[test]
    fn the_time_is_that_of_the_first_member_that_holds_one() {
        for (body, second) in [
            (r#""timestamp":"2024-01-15T10:30:00Z""#, Some(1_705_314_600)),
            (r#""timestamp":1705314600"#, Some(1_705_314_600)),
            (r#""timestamp":1705314600000"#, Some(1_705_314_600)),
            (r#""timestamp":"1705314600""#, Some(1_705_314_600)),
            (r#""created_at":1705314600"#, Some(1_705_314_600)),
            (r#""created_at":1,"timestamp":2000000000,"occurred_at":1705314600"#, Some(1_705_314_600)),
            (r#""created_at":1705314600,"timestamp":2000000000"#, Some(2_000_000_000)),
            (r#""occurred_at":null,"timestamp":{},"created_at":1705314600"#, Some(1_705_314_600)),
            (r#""data":{"occurred_at":1705314600,"timestamp":1705314600}"#, None),
            (r#""time":1705314600"#, None),
        ] {
            let time = event(&format!(r#"{{"id":"e","type":"a",{body}}}"#)).unwrap().occurred_at;
            assert_eq!(time.map(Timestamp::as_second), second, "{body}");
        }
    }

    #[test]
    fn odd_members_that_nobody_reads_are_no_reason_to_refuse() {
        for member in [
            r#""\ud800":"\udfff""#,
            r#""\ud800":1,"\ud801":2"#,
            r#""":{"":1e400,"":-0}"#,
            r#""a\u0000":"\u0000""#,
            r#""data":{"organization":{"id":"x","id":"org_1"},"organization":{"id":"\ud800","id":"org_1"},"\ud800":1e400}"#,
        ] {
            let event = event(&format!(r#"{{"id":"e","type":"a",{member}}}"#)).expect(member);
            let named = member.contains("data").then_some("org_1");
            assert_eq!(event.organization.as_deref(), named, "{member}");
        }
        assert_eq!(
            problem(r#"{"id":"e","type":"a","\ud800":1,"\ud800":2}"#),
            "`\u{fffd}` is there more than once"
        );
    }

    #[test]
    fn a_signed_id_goes_before_that_of_the_body() {
        let event = read_as("standard-webhooks", br#"{"id":7,"type":"a"}"#).unwrap();
        assert_eq!(event.id.as_str(), "msg_1");
        assert_eq!(data_of(event), "null");
    }

    #[test]
    fn what_can_be_done_without_is_never_a_reason_to_refuse() {
        for member in [
            r#""occurred_at":"yesterday""#,
            r#""occurred_at":7"#,
            r#""occurred_at":null"#,
            r#""organization_id":{"deep":[]}"#,
            r#""organization_id":"""#,
            r#""organization_id":"a\nb""#,
            r#""data":null"#,
            r#""data":[1,2]"#,
            r#""data":{"organization":"org"}"#,
            r#""data":{"organization":{"id":5}}"#,
            r#""extra":1e99999"#,
            r#""extra":-99999999999999999999999999999"#,
        ] {
            let event = event(&format!(r#"{{"id":"e","type":"a",{member}}}"#)).expect(member);
            assert_eq!((event.occurred_at, event.organization), (None, None), "{member}");
        }
        let fallback = event(r#"{"id":"e","type":"a","occurred_at":0,"created_at":"2024-01-15T10:30:00Z"}"#);
        assert!(fallback.unwrap().occurred_at.is_some());
        let long = format!(r#"{{"id":"e","type":"a","organization_id":"{}"}}"#, "o".repeat(MAX_TEXT + 1));
        assert_eq!(event(&long).unwrap().organization, None);
    }

    #[test]
    fn what_is_no_event_is_refused_without_showing_it() {
        for (body, detail) in [
            ("", "the body is not JSON: line 1, column 0"),
            ("{\n  \"id\": }", "the body is not JSON: line 2, column 9"),
            ("\u{feff}{}", "the body is not JSON: line 1, column 1"),
            (r#"{"id":"e","type":"a"} {}"#, "the body is not JSON: line 1, column 23"),
            (r#""secret""#, "the body is not a JSON object"),
            ("[]", "the body is not a JSON object"),
            (r#"{"type":"a"}"#, "`id` is missing"),
            (r#"{"id":null,"type":"a"}"#, "`id` is missing"),
            (r#"{"id":"e"}"#, "`type` is missing"),
            (r#"{"id":17,"type":"a"}"#, "`id` is not a string"),
            (r#"{"id":"e","type":["secret"]}"#, "`type` is not a string"),
            (r#"{"id":"e","type":"\ud800"}"#, "`type` is not a string"),
            (r#"{"id":"e","type":"secret!"}"#, "`type` must be 1 to 128 of letters, digits and `. _ - : /`"),
            (r#"{"id":"","type":"a"}"#, "the event's id must be 1 to 255 bytes of visible ASCII"),
            (r#"{"id":"e e","type":"a"}"#, "the event's id must be 1 to 255 bytes of visible ASCII"),
            (r#"{"id":"e","type":"a","id":"f"}"#, "`id` is there more than once"),
            (r#"{"id":"e","type":"a","\u0069d":"f"}"#, "`id` is there more than once"),
            (r#"{"id":"e","type":"a","x":1,"x":2}"#, "`x` is there more than once"),
        ] {
            assert_eq!(problem(body), detail, "{body}");
        }
        let long = "ä".repeat(1000);
        assert!(problem(&format!(r#"{{"{long}":1,"{long}":2}}"#)).len() < 300);
        assert_eq!(read_as("standard-webhooks", b"{\"type\":\"\xff\"}").err(), Some(InvalidPayload::NotUtf8));
        assert_eq!(
            read_as("standard-webhooks", b"\x1f\x8b\x08").err(),
            Some(InvalidPayload::Compressed("gzip"))
        );
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
        for member in ["data", "id_", "organization_id"] {
            let body = format!(r#"{{"id":"e","type":"a","{member}":{deep}}}"#);
            assert!(event(&body).is_ok(), "{member}");
        }
        assert_eq!(problem(&format!(r#"{{"id":{deep},"type":"a"}}"#)), "`id` is not a string");
        assert!(problem(&"[".repeat(1_000_000)).starts_with("the body is not"));
        assert!(problem(&"{\"a\":".repeat(200_000)).starts_with("the body is not JSON"));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>) {
            let _ = read_as("scalekit-documented", &body);
        }

        #[test]
        fn data_is_found_whatever_stands_around_it(
            before in "[ \n\t]{0,5}",
            after in "[ \n\t]{0,5}",
            text in "\\PC{0,40}",
            first: bool,
        ) {
            let data = serde_json::json!({ "text": text, "data": "not this one" }).to_string();
            let rest = r#""id":"e","type":"a","display_name":"Zoë 🚀""#;
            let data_member = format!(r#""data":{before}{data}{after}"#);
            let (one, two) = if first { (&*data_member, rest) } else { (rest, &*data_member) };
            let event = event(&format!("{{{one},{two}}}")).unwrap();
            prop_assert_eq!(data_of(event), data);
        }
    }
}
