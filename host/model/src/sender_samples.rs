//! Samples of requests of the senders that posthouse knows: two for each whose key the receiver has, in the shape of that sender's documentation.
//! The people, companies and addresses in them do not exist.
//!
//! `sender_samples.json` has the samples by scheme and name. A name is the event's type, or the sample has the type in
//! `type`. A text `"{seconds}"` or `"{milliseconds}"` becomes a number, the time since 1970. Within a text,
//! `{seconds-text}`, `{milliseconds-text}`, `{rfc3339}`, `{rfc3339-without-offset}` and `{id}` are replaced.
//! `{signature}` stays: it is where the sender writes its signature into the body.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::samples::Unreadable;

const SAMPLES: &str = include_str!("sender_samples.json");

/// The samples of all senders.
#[derive(Debug)]
pub struct SenderSamples(BTreeMap<String, Entry>);

/// The samples of one scheme.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Entry {
    /// Those of another scheme.
    As(String),
    Own(BTreeMap<String, Sample>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    #[serde(rename = "type")]
    event_type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    form: Option<Map<String, Value>>,
}

/// A request of a sender, not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderRequest {
    /// The type of its event.
    pub event_type: String,
    /// The headers that the sender adds and does not sign, by their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl SenderSamples {
    /// Reads the built-in samples.
    ///
    /// # Errors
    /// [`Unreadable`] never happens in a build whose tests passed.
    pub fn read() -> Result<Self, Unreadable> {
        Ok(Self(serde_json::from_str(SAMPLES)?))
    }

    /// The names of a scheme's samples, in alphabetical order. None for a scheme without samples.
    pub fn names(&self, scheme: &str) -> impl Iterator<Item = &str> {
        self.of(scheme).into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    /// Whether any scheme has a sample with this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.values().any(|entry| matches!(entry, Entry::Own(samples) if samples.contains_key(name)))
    }

    /// The request of a scheme's sample, with this id and time. None for an unknown sample.
    pub fn request(&self, scheme: &str, name: &str, id: &str, at: Timestamp) -> Option<SenderRequest> {
        let sample = self.of(scheme)?.get(name)?;
        let fill = Fill { id, at };
        let (content_type, body) = match (&sample.form, &sample.body) {
            (Some(fields), _) => {
                let fields =
                    fields.iter().map(|(name, value)| (name, fill.text(value.as_str().unwrap_or_default())));
                let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                ("application/x-www-form-urlencoded", form)
            }
            (None, body) => ("application/json", fill.json(&body.as_ref()?.to_string())),
        };
        Some(SenderRequest {
            event_type: sample.event_type.clone().unwrap_or_else(|| name.to_owned()),
            headers: sample.headers.iter().map(|(name, value)| (name.clone(), fill.text(value))).collect(),
            content_type,
            body,
        })
    }

    fn of(&self, scheme: &str) -> Option<&BTreeMap<String, Sample>> {
        match self.0.get(scheme)? {
            Entry::Own(samples) => Some(samples),
            Entry::As(other) => match self.0.get(other)? {
                Entry::Own(samples) => Some(samples),
                Entry::As(_) => None,
            },
        }
    }
}

/// What is filled into a sample.
struct Fill<'a> {
    id: &'a str,
    at: Timestamp,
}

impl Fill<'_> {
    fn json(&self, text: &str) -> String {
        let id = Value::from(self.id).to_string();
        let numbers = text
            .replace("\"{seconds}\"", &self.at.as_second().to_string())
            .replace("\"{milliseconds}\"", &self.at.as_millisecond().to_string());
        self.times(&numbers).replace("{id}", id.trim_matches('"'))
    }

    fn text(&self, text: &str) -> String {
        self.times(text).replace("{id}", self.id)
    }

    fn times(&self, text: &str) -> String {
        text.replace("{seconds-text}", &self.at.as_second().to_string())
            .replace("{milliseconds-text}", &self.at.as_millisecond().to_string())
            .replace("{rfc3339}", &self.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            .replace("{rfc3339-without-offset}", &self.at.strftime("%Y-%m-%dT%H:%M:%S").to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        EventType,
        config::{Scheme, scheme::shipped},
    };

    #[test]
    fn every_sender_that_posthouse_can_sign_as_has_two_samples() {
        let samples = SenderSamples::read().unwrap();
        let at = Timestamp::from_second(1_765_281_881).unwrap();
        let is_own = |scheme: &&Arc<Scheme>| scheme.rows[0].key_source.is_none();
        for scheme in shipped().iter().filter(|scheme| !scheme.has_envelope()).filter(is_own) {
            let names: Vec<_> = samples.names(&scheme.name).collect();
            assert_eq!(names.len(), 2, "{scheme:?}");
            for name in names {
                let request = samples.request(&scheme.name, name, "evt-1", at).unwrap();
                EventType::new(&request.event_type).unwrap();
                assert!(request.body.contains("evt-1") || scheme.rows[0].event.id.is_empty(), "{name}");
                let left = request.body.replace("{signature}", "");
                assert!(!left.contains("{s") && !left.contains("{r") && !left.contains("{m"), "{left}");
                if request.content_type == "application/json" {
                    serde_json::from_str::<Value>(&request.body).unwrap();
                }
            }
        }
        for scheme in samples.0.keys() {
            assert!(shipped().iter().any(|shipped| *shipped.name == **scheme), "{scheme}");
        }
        assert_eq!(samples.names("scalekit").count(), 0);
    }

    #[test]
    fn no_sample_names_a_real_address() {
        for word in SAMPLES.split('"').filter(|word| word.contains('@') || word.contains("://")) {
            let host = word.trim_start_matches('<').trim_end_matches('>').rsplit('@').next().unwrap();
            let host = host.trim_start_matches("https://").split('/').next().unwrap();
            let is_type = word == "@odata.type" || word == "@odata.id" || word.starts_with("<@");
            assert!(is_type || host == "example.com" || host.ends_with(".example.com"), "{word}");
        }
    }

    #[test]
    fn an_id_with_quotes_stays_one_text() {
        let at = Timestamp::from_second(1_765_281_881).unwrap();
        let samples = SenderSamples::read().unwrap();
        let request = samples.request("stripe", "invoice.paid", "a\"b\\", at).unwrap();
        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!((&body["id"], &body["created"]), (&"a\"b\\".into(), &1_765_281_881.into()));
    }
}
