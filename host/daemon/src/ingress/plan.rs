//! A row of a scheme, compiled once when config.toml is read, so that a request costs no parsing of rows.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use posthouse_model::config::scheme::{
    Algorithm, EventForm, KeySource, Part, Piece, Place, Required, Requirement, Row, SignatureForm, Text,
};

use super::{handshake::Shake, members::Wanted, sns};

/// A compiled row.
pub(super) struct Plan {
    pub(super) row: Arc<Row>,
    /// The families of headers. A request has exactly one of them, and each header once.
    pub(super) families: Vec<Family>,
    /// The requests with which the sender tests the URL.
    pub(super) shakes: Vec<Shake>,
}

/// The headers of one signature, and the places to read in a request that has them.
pub(super) struct Family {
    /// The place of the signatures.
    pub(super) signature: SignatureAt,
    /// The place of the signed time.
    pub(super) timestamp: Option<At>,
    /// The signed text.
    pub(super) signed: Vec<Step>,
    /// The place of the body's hash.
    pub(super) digest: Option<At>,
    /// The place of a value that serves once.
    pub(super) once: Option<At>,
    /// The place of the URL of a certificate.
    pub(super) certificate: Option<At>,
    /// Places, each with the only text that it may have.
    pub(super) require: Vec<(At, Required)>,
    /// The member with an encrypted body.
    pub(super) sealed: Option<Wanted>,
    /// Whether the event may have an id that the signature does not cover.
    pub(super) unsigned_id: bool,
    /// Whether the signature covers nothing of the event's type.
    pub(super) unsigned_type: bool,
    /// The places in the body that decide whether a signature is valid.
    pub(super) wanted: Wanted,
    /// Its headers, in the order in which a sender writes them. A request with one of them is of this family.
    pub(super) headers: Vec<HeaderName>,
    /// The places of the event's members.
    pub(super) event: EventPlan,
}

/// The place of the signatures.
pub(super) enum SignatureAt {
    Header(HeaderName),
    /// A member of the body, by its number in [`Family::wanted`].
    Member(usize, Arc<str>),
    /// A member of each element of an array, by the number of the array.
    Members(usize, Wanted, Arc<str>),
}

impl SignatureAt {
    /// The name in messages.
    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Self::Header(name) => name.as_str().into(),
            Self::Member(_, name) | Self::Members(_, _, name) => Arc::clone(name),
        }
    }

    /// Its header, if it is in one.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Member(..) | Self::Members(..) => None,
        }
    }
}

/// A place in a request.
pub(super) enum At {
    Header(HeaderName),
    Entry(String),
    /// In the body, by its number in a [`Wanted`], and its name in messages.
    Json(usize, String),
    Query(String),
    Form(String),
    /// A claim of a JWT.
    Claim(String),
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
    Crc32,
    /// The members that SNS signs, by their numbers in [`Family::wanted`].
    Sns([usize; sns::MEMBERS.len()]),
    Place(At),
}

/// The members of an event.
pub(super) struct EventPlan {
    pub(super) envelope: bool,
    pub(super) each: Option<Each>,
    /// The members of the body that the texts name, and `data`.
    pub(super) wanted: Wanted,
    /// The number of `data` in `wanted`.
    pub(super) data: usize,
    pub(super) id: Vec<Vec<Bit>>,
    pub(super) event_type: Vec<Vec<Bit>>,
    pub(super) time: Vec<Vec<Bit>>,
    pub(super) organization: Vec<Vec<Bit>>,
}

/// The array whose elements are events.
pub(super) enum Each {
    /// The body, if it is an array.
    Body,
    /// The only member of this.
    Member(Wanted, String),
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
        Self { row: Arc::clone(row), families, shakes: Shake::all(row) }
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
        let mut compiler = Compiler::new(prefix);
        let signature = compiler.signature(&row.signature.at)?;
        let timestamp = match &row.timestamp {
            Some(time) => Some(compiler.place(&time.at)?),
            None => None,
        };
        let signed = row.signed.iter().map(|piece| compiler.step(piece)).collect::<Option<Vec<_>>>()?;
        let digest = match &row.digest {
            Some(place) => Some(compiler.place(place)?),
            None => None,
        };
        let once = match &row.once {
            Some(place) => Some(compiler.place(place)?),
            None => None,
        };
        let certificate = match &row.key_source {
            Some(KeySource::Certificate { at, .. }) => Some(compiler.place(at)?),
            _ => None,
        };
        let required = |required: &Requirement| Some((compiler.place(&required.place)?, required.is.clone()));
        let require = row.require.iter().map(required).collect::<Option<Vec<_>>>()?;
        let sealed = row.encrypted.as_ref().and_then(|place| match place {
            Place::Json(steps) => {
                let mut wanted = Wanted::default();
                wanted.add(steps);
                Some(wanted)
            }
            _ => None,
        });
        let of_step = |step: &Step| match step {
            Step::Headers(name) | Step::Place(At::Header(name)) => Some(name.clone()),
            _ => None,
        };
        let of_time = timestamp.iter().filter_map(|at| match at {
            At::Header(name) => Some(name.clone()),
            _ => None,
        });
        let own = signature.header().cloned();
        let headers: Vec<_> = signed.iter().filter_map(of_step).chain(of_time).chain(own).collect();
        let event = EventPlan::new(&row.event, prefix)?;
        let is_unsigned = |bit: &Bit| match bit {
            Bit::Place(At::Header(name)) => !headers.contains(name),
            Bit::Place(At::Query(_)) => !signed.iter().any(|step| matches!(step, Step::Url | Step::Path)),
            _ => false,
        };
        let unsigned_id = !row.signature.algorithm.is_bearer() && event.id.iter().flatten().any(is_unsigned);
        let is_place = |bit: &&Bit| matches!(bit, Bit::Place(_));
        let unsigned_type = event.event_type.iter().flatten().filter(is_place).all(is_unsigned);
        let wanted = compiler.wanted;
        Some(Self {
            signature,
            timestamp,
            signed,
            digest,
            once,
            certificate,
            require,
            sealed,
            unsigned_id,
            unsigned_type,
            wanted,
            headers,
            event,
        })
    }

    /// Whether a request has any of its headers. If it has none, its signature is in the body.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        self.headers.is_empty() || self.headers.iter().any(|name| headers.contains_key(name))
    }
}

impl EventPlan {
    fn new(form: &EventForm, prefix: &str) -> Option<Self> {
        let mut compiler = Compiler::new(prefix);
        let data = compiler.wanted.add(&["data".to_owned()]);
        let mut texts =
            |texts: &[Text]| texts.iter().map(|text| compiler.text(text)).collect::<Option<Vec<_>>>();
        let (id, event_type) = (texts(&form.id)?, texts(&form.event_type)?);
        let (time, organization) = (texts(&form.time)?, texts(&form.organization)?);
        let each = form.each.as_ref().map(|steps| match steps.as_slice() {
            [] => Each::Body,
            steps => {
                let mut wanted = Wanted::default();
                wanted.add(steps);
                Each::Member(wanted, Place::Json(steps.to_vec()).to_string())
            }
        });
        Some(Self {
            envelope: form.envelope,
            each,
            wanted: compiler.wanted,
            data,
            id,
            event_type,
            time,
            organization,
        })
    }
}

/// Compiles places, and gathers those in the body.
pub(super) struct Compiler<'a> {
    prefix: &'a str,
    wanted: Wanted,
}

impl<'a> Compiler<'a> {
    /// A compiler for the family with this prefix.
    pub(super) fn new(prefix: &'a str) -> Self {
        Self { prefix, wanted: Wanted::default() }
    }

    /// The members of the body that the places name.
    pub(super) fn wanted(self) -> Wanted {
        self.wanted
    }

    fn header(&self, name: &str) -> Option<HeaderName> {
        match name.strip_prefix('*') {
            Some(rest) => HeaderName::from_bytes(format!("{}{rest}", self.prefix).as_bytes()).ok(),
            None => HeaderName::from_bytes(name.as_bytes()).ok(),
        }
    }

    fn signature(&mut self, place: &Place) -> Option<SignatureAt> {
        match place {
            Place::Header(name) => self.header(name).map(SignatureAt::Header),
            Place::Json(steps) => {
                let name = place.to_string().into();
                match steps.iter().position(|step| step == "*") {
                    None => Some(SignatureAt::Member(self.wanted.add(steps), name)),
                    Some(star) => {
                        let mut within = Wanted::default();
                        within.add(&steps[star + 1..]);
                        Some(SignatureAt::Members(self.wanted.add(&steps[..star]), within, name))
                    }
                }
            }
            Place::Entry(_) | Place::Query(_) | Place::Form(_) | Place::Claim(_) => None,
        }
    }

    /// A place. None if it is a header with an impossible name.
    pub(super) fn place(&mut self, place: &Place) -> Option<At> {
        Some(match place {
            Place::Header(name) => At::Header(self.header(name)?),
            Place::Entry(label) => At::Entry(label.clone()),
            Place::Json(steps) => At::Json(self.wanted.add(steps), place.to_string()),
            Place::Query(name) => At::Query(name.clone()),
            Place::Form(name) => At::Form(name.clone()),
            Place::Claim(name) => At::Claim(name.clone()),
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
            Piece::Crc32 => Step::Crc32,
            Piece::Sns => Step::Sns(sns::MEMBERS.map(|name| self.wanted.add(&[name.to_owned()]))),
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
