//! A row of a scheme, compiled once when config.toml is read, so that a request costs no parsing of rows.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use posthouse_model::config::scheme::{Algorithm, EventForm, Part, Piece, Place, Row, SignatureForm, Text};

use super::members::Wanted;

/// A compiled row.
pub(super) struct Plan {
    pub(super) row: Arc<Row>,
    /// The families of headers. A request has exactly one of them, and each header once.
    pub(super) families: Vec<Family>,
}

/// The headers of one signature, and the places to read in a request that has them.
pub(super) struct Family {
    /// The header with the signatures.
    pub(super) signature: HeaderName,
    /// The place of the signed time.
    pub(super) timestamp: Option<At>,
    /// The signed text.
    pub(super) signed: Vec<Step>,
    /// The place of the body's hash.
    pub(super) digest: Option<At>,
    /// The places in the body that decide whether a signature is valid.
    pub(super) wanted: Wanted,
    /// Its headers, in the order in which a sender writes them. A request with one of them is of this family.
    pub(super) headers: Vec<HeaderName>,
    /// The places of the event's members.
    pub(super) event: EventPlan,
}

/// A place in a request.
pub(super) enum At {
    Header(HeaderName),
    Entry(String),
    /// In the body, by its number in a [`Wanted`], and its name in messages.
    Json(usize, String),
    Query(String),
    Form(String),
}

/// A piece of the signed text.
pub(super) enum Step {
    Literal(String),
    Body,
    Timestamp,
    Url,
    UrlUnescaped,
    Path,
    Method,
    Key,
    Form,
    Headers(HeaderName),
    Place(At),
}

/// The members of an event.
pub(super) struct EventPlan {
    pub(super) envelope: bool,
    /// The members of the body that the texts name, and `data`.
    pub(super) wanted: Wanted,
    /// The number of `data` in `wanted`.
    pub(super) data: usize,
    pub(super) id: Vec<Vec<Bit>>,
    pub(super) event_type: Vec<Vec<Bit>>,
    pub(super) time: Vec<Vec<Bit>>,
    pub(super) organization: Vec<Vec<Bit>>,
}

/// A part of a text.
pub(super) enum Bit {
    Literal(String),
    Place(At),
}

impl Plan {
    /// Compiles a row. The reader of config.toml has checked it, so a name that is no header leaves its family out.
    pub(super) fn new(row: &Arc<Row>) -> Self {
        let whole = [String::new()];
        let prefixes = if row.families.is_empty() { &whole[..] } else { &row.families[..] };
        let families = prefixes.iter().filter_map(|prefix| Family::new(row, prefix)).collect();
        Self { row: Arc::clone(row), families }
    }

    /// The name for messages.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.row.name
    }

    /// The algorithm of a secret that begins with this text: that of one of the further kinds, or the row's.
    pub(super) fn algorithm_of(&self, secret: &str) -> (Algorithm, Option<&str>) {
        let also = self.row.signature.also.iter().find(|also| secret.starts_with(&also.key));
        match also {
            Some(also) => (also.algorithm, Some(&also.key)),
            None => (self.row.signature.algorithm, None),
        }
    }

    /// The algorithm of entries with this label.
    pub(super) fn algorithm_labelled(&self, wanted: &str) -> Option<Algorithm> {
        let signature = &self.row.signature;
        match &signature.form {
            SignatureForm::Entries { label, .. } if label == wanted => Some(signature.algorithm),
            _ => signature.also.iter().find(|also| also.label == wanted).map(|also| also.algorithm),
        }
    }
}

impl Family {
    fn new(row: &Row, prefix: &str) -> Option<Self> {
        let mut compiler = Compiler { prefix, wanted: Wanted::default() };
        let signature = compiler.header(&row.signature.header)?;
        let timestamp = match &row.timestamp {
            Some(time) => Some(compiler.place(&time.at)?),
            None => None,
        };
        let signed = row.signed.iter().map(|piece| compiler.step(piece)).collect::<Option<Vec<_>>>()?;
        let digest = match &row.digest {
            Some(place) => Some(compiler.place(place)?),
            None => None,
        };
        let of_step = |step: &Step| match step {
            Step::Headers(name) | Step::Place(At::Header(name)) => Some(name.clone()),
            _ => None,
        };
        let of_time = timestamp.iter().filter_map(|at| match at {
            At::Header(name) => Some(name.clone()),
            _ => None,
        });
        let headers = signed.iter().filter_map(of_step).chain(of_time).chain([signature.clone()]).collect();
        let event = EventPlan::new(&row.event, prefix)?;
        Some(Self { signature, timestamp, signed, digest, wanted: compiler.wanted, headers, event })
    }

    /// Whether a request has any of its headers.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        self.headers.iter().any(|name| headers.contains_key(name))
    }
}

impl EventPlan {
    fn new(form: &EventForm, prefix: &str) -> Option<Self> {
        let mut compiler = Compiler { prefix, wanted: Wanted::default() };
        let data = compiler.wanted.add(&["data".to_owned()]);
        let mut texts =
            |texts: &[Text]| texts.iter().map(|text| compiler.text(text)).collect::<Option<Vec<_>>>();
        let (id, event_type) = (texts(&form.id)?, texts(&form.event_type)?);
        let (time, organization) = (texts(&form.time)?, texts(&form.organization)?);
        Some(Self {
            envelope: form.envelope,
            wanted: compiler.wanted,
            data,
            id,
            event_type,
            time,
            organization,
        })
    }
}

struct Compiler<'a> {
    prefix: &'a str,
    wanted: Wanted,
}

impl Compiler<'_> {
    fn header(&self, name: &str) -> Option<HeaderName> {
        match name.strip_prefix('*') {
            Some(rest) => HeaderName::from_bytes(format!("{}{rest}", self.prefix).as_bytes()).ok(),
            None => HeaderName::from_bytes(name.as_bytes()).ok(),
        }
    }

    fn place(&mut self, place: &Place) -> Option<At> {
        Some(match place {
            Place::Header(name) => At::Header(self.header(name)?),
            Place::Entry(label) => At::Entry(label.clone()),
            Place::Json(steps) => At::Json(self.wanted.add(steps), place.to_string()),
            Place::Query(name) => At::Query(name.clone()),
            Place::Form(name) => At::Form(name.clone()),
        })
    }

    fn step(&mut self, piece: &Piece) -> Option<Step> {
        Some(match piece {
            Piece::Literal(text) => Step::Literal(text.clone()),
            Piece::Body => Step::Body,
            Piece::Timestamp => Step::Timestamp,
            Piece::Url => Step::Url,
            Piece::UrlUnescaped => Step::UrlUnescaped,
            Piece::Path => Step::Path,
            Piece::Method => Step::Method,
            Piece::Key => Step::Key,
            Piece::Form => Step::Form,
            Piece::Headers(name) => Step::Headers(self.header(name)?),
            Piece::Place(place) => Step::Place(self.place(place)?),
        })
    }

    fn text(&mut self, text: &[Part]) -> Option<Vec<Bit>> {
        let bit = |part: &Part| match part {
            Part::Literal(text) => Some(Bit::Literal(text.clone())),
            Part::Place(place) => self.place(place).map(Bit::Place),
        };
        text.iter().map(bit).collect()
    }
}

#[cfg(test)]
mod tests {
    use posthouse_model::config::scheme::shipped;

    use super::*;

    #[test]
    fn every_shipped_row_compiles_whole() {
        for scheme in shipped() {
            for row in &scheme.rows {
                let plan = Plan::new(row);
                assert_eq!(plan.families.len(), row.families.len().max(1), "{}", row.name);
            }
        }
    }

    #[test]
    fn a_family_has_the_headers_of_its_prefix() {
        let scheme = posthouse_model::config::Scheme::named("standard-webhooks").unwrap();
        let plan = Plan::new(&scheme.rows[0]);
        let names: Vec<Vec<_>> = plan
            .families
            .iter()
            .map(|family| family.headers.iter().map(|name| name.as_str()).collect())
            .collect();
        assert_eq!(
            names,
            [
                ["webhook-id", "webhook-timestamp", "webhook-signature"],
                ["svix-id", "svix-timestamp", "svix-signature"]
            ]
        );
    }
}
