//! A sample of every known event type. Scalekit really sends 41 of them, in the shape of its real bodies.
//! Only its page on webhooks names the other 8, which have the page's own shape.
//!
//! The page has ten types. Two of them, `organization.created` and `organization.updated`, are really sent
//! and so have the real shape. The people and companies in the samples do not exist.

use std::{collections::BTreeMap, sync::LazyLock};

use jiff::Timestamp;
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::TIME_MEMBERS;

/// Every sample, by its type.
const SAMPLES: &str = include_str!("samples.json");

/// The built-in samples can't be read.
#[derive(Debug, thiserror::Error)]
#[error("the samples built into posthouse can't be read: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

/// The samples.
#[derive(Debug)]
pub struct Samples(Map<String, Value>);

impl Samples {
    /// Reads the built-in samples.
    ///
    /// # Errors
    /// [`Unreadable`] never happens in a build whose tests passed.
    pub fn read() -> Result<Self, Unreadable> {
        Ok(Self(serde_json::from_str(SAMPLES)?))
    }

    /// Every type, in alphabetical order.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The body of the type's sample, with this id and time. None for an unknown type.
    pub fn body(&self, event_type: &str, id: &str, at: Timestamp) -> Option<Map<String, Value>> {
        let mut body = self.0.get(event_type)?.as_object()?.clone();
        body.insert("id".to_owned(), id.into());
        for time in TIME_MEMBERS {
            if let Some(member) = body.get_mut(time) {
                *member = at.to_string().into();
            }
        }
        Some(body)
    }
}

/// The types of the samples, sorted.
static KNOWN: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut types: Vec<_> =
        Samples::read().map(|samples| samples.types().map(str::to_owned).collect()).unwrap_or_default();
    types.sort_unstable();
    types
});

/// The types that have a sample. They can be told apart where the number of types must stay small.
pub fn known_types() -> &'static [String] {
    &KNOWN
}

/// The index of this type in [`known_types`]. None for a type that a sender may have made up.
pub fn known_type(event_type: &str) -> Option<usize> {
    KNOWN.binary_search_by(|known| known.as_str().cmp(event_type)).ok()
}

/// The body of an event of a type that has no sample.
pub fn of_own_type(event_type: &str, id: &str, at: Timestamp) -> Map<String, Value> {
    let members = [("id", id), ("type", event_type), ("occurred_at", &at.to_string())];
    members.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()
}

/// The JSON text of an event with these members. If `data` is given, it is copied digit for digit.
///
/// # Errors
/// If the members can't be written, which no member of a sample can cause.
pub fn event_text(members: &Map<String, Value>, data: Option<&RawValue>) -> serde_json::Result<String> {
    let mut text = BTreeMap::new();
    for (name, value) in members {
        text.insert(name.as_str(), to_raw_value(value)?);
    }
    if let Some(data) = data {
        text.insert("data", data.to_owned());
    }
    serde_json::to_string(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventType;

    #[test]
    fn every_sample_is_an_event_of_its_type() {
        let samples = Samples::read().unwrap();
        assert_eq!(samples.types().count(), 49);
        let at = Timestamp::from_second(1_765_281_881).unwrap();
        for event_type in samples.types() {
            EventType::new(event_type).unwrap();
            let body = samples.body(event_type, "evt_1", at).unwrap();
            assert_eq!(body["type"], event_type);
            assert_eq!(body["id"], "evt_1");
            assert!(body["data"].as_object().is_some_and(|data| !data.is_empty()), "{event_type}");
            let times: Vec<_> = TIME_MEMBERS.iter().filter_map(|time| body.get(*time)).collect();
            assert_eq!(times, ["2025-12-09T12:04:41Z"], "{event_type}");
        }
        assert!(samples.body("user.creatd", "evt_1", at).is_none());
        for (number, event_type) in known_types().iter().enumerate() {
            assert_eq!(known_type(event_type), Some(number));
        }
        assert_eq!((known_types().len(), known_type("user.creatd")), (49, None));
    }

    #[test]
    fn data_that_is_given_stands_in_the_event_as_it_is_written() {
        let at = Timestamp::from_second(1_765_281_881).unwrap();
        let odd = r#"{ "n": 0.10, "id": 123456789012345678901234567890, "a": "\ud800", "a": [1e400] }"#;
        let data: Box<RawValue> = serde_json::from_str(odd).unwrap();
        let text = event_text(&of_own_type("a.b", "evt_1", at), Some(&data)).unwrap();
        let expected =
            format!(r#"{{"data":{odd},"id":"evt_1","occurred_at":"2025-12-09T12:04:41Z","type":"a.b"}}"#);
        assert_eq!(text, expected);
    }

    #[test]
    fn no_sample_names_a_real_address() {
        for word in SAMPLES.split('"').filter(|word| word.contains('@') || word.contains("://")) {
            let host = word.rsplit('@').next().unwrap().trim_start_matches("https://");
            let host = host.split('/').next().unwrap();
            assert!(host == "example.com" || host.ends_with(".example.com"), "{word}");
        }
    }
}
