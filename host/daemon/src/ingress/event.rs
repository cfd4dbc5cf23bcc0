//! Reads the event in a verified request: its id, type, time and organization, at the places that the row names.
//!
//! Of several texts, the first one whose places all have a value counts. If an event has no id, the SHA-256 of its
//! body is its id, so that a request that is sent again is a duplicate. If a time or organization can't be read,
//! it is left out. An event without a type can't be routed, and is refused.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use posthouse_model::{
    EventId, EventType, NewEvent, RequestParts, SecondKey, SourceName, config::scheme::BodyForm, text_time,
};
use serde_json::{error::Category, value::RawValue};
use sha2::{Digest as _, Sha256};

use super::{
    InvalidPayload, Verified, envelope,
    form::{self, Field},
    members::{self, Found, MAX_ELEMENTS},
    plan::{At, Bit, Each, EventPlan},
    request::Head,
};

/// The longest type, in bytes.
const MAX_TYPE: usize = 128;

/// An event of a request, and its second key.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) event: NewEvent,
    pub(super) second: Option<SecondKey>,
}

/// Reads the events of a verified request. There are none if its array of events is empty.
///
/// # Errors
/// [`InvalidPayload`] says what is missing or wrong.
pub(super) fn read(
    verified: &Verified<'_>,
    source: &SourceName,
    received_at: Timestamp,
) -> Result<Vec<Arrived>, InvalidPayload> {
    let plan = &verified.family().event;
    if plan.envelope {
        return envelope::read(verified, source, received_at).map(|arrived| vec![arrived]);
    }
    let fields = match form::is_form(verified.head().headers) {
        true => form::fields(verified.body()).map_err(|_| InvalidPayload::TooManyFields)?,
        false => Vec::new(),
    };
    let body = body(verified, &fields)?;
    let text = envelope::text(&body)?;
    let second = |index, event_type: &EventType| verified.second(index, event_type);
    let (head, whole) = (verified.head(), verified.body());
    let reader = Reader { head, whole, second: &second, plan, source, received_at, fields: &fields };
    match elements(plan, &verified.plan().row.body, text)? {
        None => Ok(vec![reader.event(text, body.clone(), None)?]),
        Some(elements) => {
            let event = |(index, element): (usize, &str)| {
                let range = envelope::range_within(text, element);
                let body = body.slice(range.start as usize..range.end as usize);
                reader.event(element, body, Some(index))
            };
            elements.into_iter().enumerate().map(event).collect()
        }
    }
}

/// Reads an event that no request brought.
///
/// # Errors
/// [`InvalidPayload`] says what is missing or wrong.
pub(super) fn listed(
    plan: &EventPlan,
    source: &SourceName,
    received_at: Timestamp,
    body: &Bytes,
) -> Result<Arrived, InvalidPayload> {
    let headers = HeaderMap::new();
    let head = Head { method: Method::POST.as_str(), query: None, headers: &headers };
    let second = |_, _: &EventType| None;
    let reader = Reader { head, whole: body, second: &second, plan, source, received_at, fields: &[] };
    reader.event(envelope::text(body)?, body.clone(), None)
}

/// The elements that are events. None: the text is one event.
fn elements<'t>(
    plan: &EventPlan,
    forms: &[BodyForm],
    text: &'t str,
) -> Result<Option<Vec<&'t str>>, InvalidPayload> {
    let is_array = |json: &str| json.trim_ascii_start().starts_with('[');
    let too_many = || InvalidPayload::TooManyEvents;
    match &plan.each {
        None => Ok(None),
        Some(Each::Body) if forms.contains(&BodyForm::Lines) => {
            let mut events = Vec::new();
            for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
                let value = value.map_err(not_json)?.get();
                match is_array(value) {
                    true => events.extend(members::elements(value).ok_or_else(too_many)?),
                    false => events.push(value),
                }
                if events.len() > MAX_ELEMENTS {
                    return Err(too_many());
                }
            }
            Ok(Some(events))
        }
        Some(Each::Body) if !is_array(text) => Ok(None),
        Some(Each::Body) => {
            serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
            members::elements(text).ok_or_else(too_many).map(Some)
        }
        Some(Each::Member(wanted, name)) => {
            let found = wanted.read(text).map_err(not_json)?;
            if let Some(name) = &found.repeated {
                return Err(InvalidPayload::Repeated(name.clone()));
            }
            let array = found.json(0).filter(|json| is_array(json));
            let array = array.ok_or_else(|| InvalidPayload::NotAnArray(name.clone()))?;
            members::elements(array).ok_or_else(too_many).map(Some)
        }
    }
}

fn not_json(error: serde_json::Error) -> InvalidPayload {
    match error.classify() {
        Category::Data => InvalidPayload::NotAnObject,
        _ => InvalidPayload::NotJson { line: error.line(), column: error.column() },
    }
}

/// What the events of one request share.
struct Reader<'p> {
    head: Head<'p>,
    /// The whole body.
    whole: &'p Bytes,
    /// The second key of the event with this index.
    second: &'p (dyn Fn(usize, &EventType) -> Option<SecondKey> + 'p),
    plan: &'p EventPlan,
    source: &'p SourceName,
    received_at: Timestamp,
    fields: &'p [Field<'p>],
}

impl Reader<'_> {
    /// The event in this text, which is the element of an array with this index.
    fn event(&self, text: &str, body: Bytes, index: Option<usize>) -> Result<Arrived, InvalidPayload> {
        let found = self.plan.wanted.read(text).map_err(not_json)?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(InvalidPayload::NotAnObject);
        }
        if let Some(name) = &found.repeated {
            return Err(InvalidPayload::Repeated(name.clone()));
        }
        let places = Places { head: self.head, found: &found, fields: self.fields, index };
        let id = match places.first(&self.plan.id, true)? {
            Some(id) => EventId::new(&id),
            None => EventId::new(&self.fallback_id(index)),
        };
        let event_type = places.first(&self.plan.event_type, false)?.ok_or(InvalidPayload::NoType)?;
        let time = places.first(&self.plan.time, false)?;
        let organization = places.first(&self.plan.organization, false)?;
        let data = found.json(self.plan.data).map(|data| envelope::range_within(text, data));
        let event_type = EventType::new(&as_type(&event_type)).map_err(|_| InvalidPayload::BadType)?;
        let second = (self.second)(index.unwrap_or_default(), &event_type);
        let event = NewEvent {
            source: self.source.clone(),
            id: id.map_err(|_| InvalidPayload::BadId)?,
            event_type,
            organization: organization.and_then(envelope::fit_organization),
            occurred_at: time.and_then(|time| text_time(&time)),
            received_at: self.received_at,
            depth: 0,
            trace: None,
            data: data.unwrap_or_default(),
            body,
            request: RequestParts::default(),
        };
        Ok(Arrived { event, second })
    }

    /// The id of an event without one: the SHA-256 of the body, and the index of the event in it.
    fn fallback_id(&self, index: Option<usize>) -> String {
        let hash = hex::encode(Sha256::digest(self.whole));
        match index {
            Some(index) => format!("sha256:{hash}/{index}"),
            None => format!("sha256:{hash}"),
        }
    }
}

/// The id of an envelope, if the row has it outside of the envelope.
///
/// # Errors
/// [`InvalidPayload`] if the request has it twice.
pub(super) fn envelope_id<'r>(verified: &Verified<'r>) -> Result<Option<Cow<'r, str>>, InvalidPayload> {
    let family = verified.family();
    match family.event.id.first().map(Vec::as_slice) {
        Some([Bit::Place(At::Header(name))]) => header(verified.head(), name),
        _ => Ok(None),
    }
}

/// The JSON of the event: the body, a field of it, or an object of its fields.
fn body(verified: &Verified<'_>, fields: &[Field<'_>]) -> Result<Bytes, InvalidPayload> {
    let forms = &verified.plan().row.body;
    if form::is_form(verified.head().headers) {
        for of in forms {
            match of {
                BodyForm::Json | BodyForm::Lines => {}
                BodyForm::Field(name) => {
                    let mut values = form::values(fields, name);
                    match (values.next(), values.next()) {
                        (Some(json), None) => return Ok(Bytes::from(json.to_string())),
                        (Some(_), Some(_)) => return Err(InvalidPayload::Repeated(name.clone())),
                        (None, _) => {}
                    }
                }
                BodyForm::Form => return Ok(Bytes::from(form::to_json(fields))),
            }
        }
    }
    match forms.contains(&BodyForm::Json) || forms.contains(&BodyForm::Lines) {
        true => Ok(verified.body().clone()),
        false => Err(InvalidPayload::NotAForm),
    }
}

/// Where the texts of a row find their values.
struct Places<'p, 'r> {
    head: Head<'p>,
    found: &'p Found<'r>,
    fields: &'p [Field<'r>],
    /// The index of the event in an array.
    index: Option<usize>,
}

impl<'p> Places<'p, '_> {
    /// The first of these texts whose places all have a value. `own`: each event must have one of its own.
    fn first(&self, texts: &[Vec<Bit>], own: bool) -> Result<Option<Cow<'p, str>>, InvalidPayload> {
        for text in texts {
            // Several events of one request must not share a value that is meant for one.
            let is_shared = |bit: &Bit| matches!(bit, Bit::Place(At::Header(_) | At::Query(_) | At::Form(_)));
            if own && self.index.is_some() && text.iter().any(is_shared) {
                continue;
            }
            if let Some(value) = self.text(text)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn text(&self, bits: &[Bit]) -> Result<Option<Cow<'p, str>>, InvalidPayload> {
        if let [Bit::Place(at)] = bits {
            return self.place(at);
        }
        let mut text = String::new();
        for bit in bits {
            match bit {
                Bit::Literal(literal) => text.push_str(literal),
                Bit::Place(at) => match self.place(at)? {
                    Some(value) => text.push_str(&value),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(Cow::Owned(text)))
    }

    fn place(&self, at: &At) -> Result<Option<Cow<'p, str>>, InvalidPayload> {
        let one = |fields: &[Field<'p>], name: &str| {
            let mut values = form::values(fields, name).filter(|value| !value.is_empty());
            match (values.next(), values.next()) {
                (_, Some(_)) => Err(InvalidPayload::Repeated(name.to_owned())),
                (value, None) => Ok(value.cloned()),
            }
        };
        match at {
            At::Header(name) => header(self.head, name),
            At::Json(number, _) => Ok(self.found.text(*number).map(|text| Cow::Owned(text.into_owned()))),
            At::Query(name) => {
                let fields = form::fields(self.head.query.unwrap_or_default().as_bytes());
                one(&fields.map_err(|_| InvalidPayload::TooManyFields)?, name)
            }
            At::Form(name) => one(self.fields, name),
            At::Entry(_) | At::Claim(_) => Ok(None),
        }
    }
}

/// The text of a header that may be there once. None if it is not there, empty, or no text.
fn header<'r>(head: Head<'r>, name: &http::HeaderName) -> Result<Option<Cow<'r, str>>, InvalidPayload> {
    let mut values = head.headers.get_all(name).iter();
    let value = values.next().and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    match values.next() {
        Some(_) => Err(InvalidPayload::Repeated(name.as_str().to_owned())),
        None => Ok(value.filter(|value| !value.is_empty()).map(Cow::Borrowed)),
    }
}

/// A text as a type: each character that a type can't have becomes `-`.
fn as_type(text: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || ".-_:/".contains(letter);
    text.chars().map(|letter| if allowed(letter) { letter } else { '-' }).take(MAX_TYPE).collect()
}
