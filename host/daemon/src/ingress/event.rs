//! Reads the event in a verified request: its id, type, time and organization, at the places that the row names.
//!
//! Of several texts, the first one whose places all have a value counts. If an event has no id, the SHA-256 of its
//! body is its id, so that a request that is sent again is a duplicate. If a time or organization can't be read,
//! it is left out. An event without a type can't be routed, and is refused.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use posthouse_model::{EventId, EventType, NewEvent, SourceName, config::scheme::BodyForm, text_time};
use serde_json::error::Category;
use sha2::{Digest as _, Sha256};

use super::{
    InvalidPayload, Verified, envelope,
    form::{self, Field},
    members::Found,
    plan::{At, Bit},
    request::Head,
};

/// The longest type, in bytes.
const MAX_TYPE: usize = 128;

/// Reads a verified request as an event.
///
/// # Errors
/// [`InvalidPayload`] says what is missing or wrong.
pub(super) fn read(
    verified: &Verified<'_>,
    source: &SourceName,
    received_at: Timestamp,
) -> Result<NewEvent, InvalidPayload> {
    let plan = &verified.family().event;
    if plan.envelope {
        return envelope::read(verified, source, received_at);
    }
    let fields = match form::is_form(verified.head().headers) {
        true => form::fields(verified.body()).map_err(|_| InvalidPayload::TooManyFields)?,
        false => Vec::new(),
    };
    let body = body(verified, &fields)?;
    let text = envelope::text(&body)?;
    let found = plan.wanted.read(text).map_err(|error| match error.classify() {
        Category::Data => InvalidPayload::NotAnObject,
        _ => InvalidPayload::NotJson { line: error.line(), column: error.column() },
    })?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(InvalidPayload::NotAnObject);
    }
    if let Some(name) = &found.repeated {
        return Err(InvalidPayload::Repeated(name.clone()));
    }
    let places = Places { head: verified.head(), found: &found, fields: &fields };
    let id = match places.first(&plan.id)? {
        Some(id) => EventId::new(&id),
        None => EventId::new(&format!("sha256:{}", hex::encode(Sha256::digest(verified.body())))),
    };
    let event_type = places.first(&plan.event_type)?.ok_or(InvalidPayload::NoType)?;
    let time = places.first(&plan.time)?;
    let organization = places.first(&plan.organization)?;
    let data = found.json(plan.data).map(|data| envelope::range_within(text, data));
    Ok(NewEvent {
        source: source.clone(),
        id: id.map_err(|_| InvalidPayload::BadId)?,
        event_type: EventType::new(&as_type(&event_type)).map_err(|_| InvalidPayload::BadType)?,
        organization: organization.and_then(envelope::fit_organization),
        occurred_at: time.and_then(|time| text_time(&time)),
        received_at,
        depth: 0,
        trace: None,
        data: data.unwrap_or_default(),
        body,
    })
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
                BodyForm::Json => {}
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
    match forms.contains(&BodyForm::Json) {
        true => Ok(verified.body().clone()),
        false => Err(InvalidPayload::NotAForm),
    }
}

/// Where the texts of a row find their values.
struct Places<'p, 'r> {
    head: Head<'p>,
    found: &'p Found<'r>,
    fields: &'p [Field<'r>],
}

impl<'p> Places<'p, '_> {
    /// The first of these texts whose places all have a value.
    fn first(&self, texts: &[Vec<Bit>]) -> Result<Option<Cow<'p, str>>, InvalidPayload> {
        for text in texts {
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
            At::Entry(_) => Ok(None),
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
