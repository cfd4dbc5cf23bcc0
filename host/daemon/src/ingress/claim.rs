//! The claim of a request about its sender, and the check of its signatures.
//!
//! Each entry is compared with each key, in constant time. No match ends the comparison early, so the time
//! taken does not reveal which key matched. A value in an ambiguous spelling makes the request invalid; among
//! the entries of a signature header, it is only skipped.

use std::{borrow::Cow, collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use posthouse_model::config::scheme::{
    Algorithm, Encoding, Fetchable, KeySource, Piece, Required, SignatureForm, TimeUnit,
};
use sha2::{Digest as _, Sha256};
use subtle::Choice;

use super::{
    crypto::{PublicSignature, SharedKey, Value, length_of},
    form,
    jwt::Jwt,
    keychain::Wanted,
    keys::Keyring,
    members::{Found, elements},
    plan::{At, Family, Plan, SignatureAt, Step},
    published::PublishedKey,
    refusal::{MAX_ED25519, MAX_ENTRIES, MAX_HEADER, MAX_LISTED, Refusal},
    request::{Address, Head},
    sealed, sns,
};

/// The longest id of a published key, in bytes.
const MAX_KEY_ID: usize = 128;
/// The lengths of RSA signatures, in bytes: keys of 2048 to 8192 bits.
const RSA_BYTES: RangeInclusive<usize> = 256..=1024;
/// Room for a signed text that is about as long as the body, in bytes.
const COMPOSED: usize = 64 << 10;

/// The claim in the head of a request: well-formed, not verified yet.
pub(super) struct Claim<'k, 'r> {
    keyring: &'k Keyring,
    family: &'k Family,
    address: &'k Address,
    head: Head<'r>,
    signatures: &'r str,
    /// The signature as a JWT, if the scheme has one.
    jwt: Option<Jwt<'r>>,
    /// None if the scheme signs no time, or has it in the body.
    time: Option<SignedAt<'r>>,
}

/// The time of signing.
struct SignedAt<'r> {
    /// As sent.
    text: Cow<'r, str>,
    unit: TimeUnit,
    /// In milliseconds since 1970.
    at: i128,
}

impl<'k, 'r> Claim<'k, 'r> {
    /// Reads the headers of one family. Each must be present exactly once.
    ///
    /// # Errors
    /// [`Refusal`] names the part that is missing, repeated or malformed.
    pub(super) fn read(
        keyring: &'k Keyring,
        family: &'k Family,
        address: &'k Address,
        head: Head<'r>,
    ) -> Result<Self, Refusal> {
        let mut claim = Self { keyring, family, address, head, signatures: "", jwt: None, time: None };
        for (index, step) in family.signed.iter().enumerate() {
            match step {
                Step::Place(At::Header(name)) => {
                    let text = only(head.headers, name)?;
                    let blurs = match family.signed.get(index + 1) {
                        Some(Step::Literal(after)) => text.contains(after.as_str()),
                        _ => false,
                    };
                    if text.is_empty() || blurs {
                        return Err(Refusal::BadId(name.as_str().into()));
                    }
                }
                Step::Headers(name) => drop(claim.listed(name)?),
                _ => {}
            }
        }
        if let SignatureAt::Header(name) = &family.signature {
            claim.signatures = only(head.headers, name)?;
            let algorithm = match claim.plan().row.signature.algorithm {
                Algorithm::JwtEs256 => Some("ES256"),
                Algorithm::JwtHs256 => Some("HS256"),
                _ => None,
            };
            if let Some(algorithm) = algorithm {
                let bad = || Refusal::BadToken(name.as_str().into());
                claim.jwt = Some(Jwt::read(claim.signatures, algorithm).ok_or_else(bad)?);
            }
        }
        if let Some(at) = &family.timestamp
            && !matches!(at, At::Json(..) | At::Form(_))
        {
            claim.time = Some(claim.signed_at(claim.place(at, None, b"")?, at)?);
        }
        Ok(claim)
    }

    /// Reads the part of the claim that is in the body.
    ///
    /// # Errors
    /// [`Refusal`] names the member that is missing, repeated or malformed.
    pub(super) fn with_body<'b>(self, body: &'b Bytes) -> Result<Whole<'k, 'b>, Refusal>
    where
        'r: 'b,
    {
        let mut found = None;
        if !self.family.wanted.is_empty() {
            let unreadable = || Refusal::Unreadable(self.family.body_place().into());
            let text = std::str::from_utf8(body).map_err(|_| unreadable())?;
            let members = self.family.wanted.read(text).map_err(|_| unreadable())?;
            if let Some(name) = &members.repeated {
                return Err(Refusal::Repeated(name.as_str().into()));
            }
            found = Some(members);
        }
        let mut whole = Whole { claim: self, body, found, members: Vec::new() };
        whole.members = whole.signatures_in_body()?;
        let family = whole.claim.family;
        if let (None, Some(at)) = (&whole.claim.time, &family.timestamp) {
            let text = whole.place(at)?;
            whole.claim.time = Some(whole.claim.signed_at(text, at)?);
        }
        Ok(whole)
    }

    /// Checks that the time of signing is at most `tolerance` seconds away from `now`. A time in the body is not
    /// known yet.
    ///
    /// # Errors
    /// [`Refusal::Stale`] or [`Refusal::Future`], with the distance; [`Refusal::Expired`].
    pub(super) fn check_age(&self, tolerance: u64, now: Timestamp) -> Result<(), Refusal> {
        let expires = self.jwt.as_ref().and_then(Jwt::expires);
        if expires.is_some_and(|second| second <= now.as_second() as f64) {
            return Err(Refusal::Expired);
        }
        let Some(time) = &self.time else { return Ok(()) };
        let now = match time.unit {
            // The sender leaves out the fraction, and so does the comparison.
            TimeUnit::Seconds => i128::from(now.as_second()) * 1000,
            TimeUnit::Milliseconds | TimeUnit::Rfc3339 => i128::from(now.as_millisecond()),
        };
        let distance = now.abs_diff(time.at);
        if distance <= u128::from(tolerance) * 1000 {
            return Ok(());
        }
        let seconds = u64::try_from(distance.div_ceil(1000)).unwrap_or(u64::MAX);
        match time.at < now {
            true => Err(Refusal::Stale { age: seconds, tolerance }),
            false => Err(Refusal::Future { ahead: seconds, tolerance }),
        }
    }

    /// Parses the time of signing.
    fn signed_at<'b>(&self, text: Cow<'b, str>, at: &At) -> Result<SignedAt<'b>, Refusal> {
        let unit = self.plan().row.timestamp.as_ref().map_or(TimeUnit::Seconds, |time| time.unit);
        let (parsed, form) = match unit {
            TimeUnit::Seconds => {
                (digits(&text).map(|time| time * 1000), "Unix seconds: digits only, no leading zero")
            }
            TimeUnit::Milliseconds => (digits(&text), "Unix milliseconds: digits only, no leading zero"),
            TimeUnit::Rfc3339 => (rfc3339(&text), "RFC 3339 that ends in `Z`"),
        };
        let at = parsed.ok_or_else(|| Refusal::BadTimestamp(at.name(), form))?;
        Ok(SignedAt { text, unit, at })
    }

    fn plan(&self) -> &'k Plan {
        &self.keyring.plan
    }

    /// The text of a place.
    fn place<'b>(&self, at: &At, found: Option<&Found<'b>>, body: &'b [u8]) -> Result<Cow<'b, str>, Refusal>
    where
        'r: 'b,
    {
        let one = |fields: &[form::Field<'b>], name: &str| {
            let mut values = form::values(fields, name);
            let value = values.next().ok_or_else(|| Refusal::Missing(at.name()))?.clone();
            if values.next().is_some() { Err(Refusal::Repeated(at.name())) } else { Ok(value) }
        };
        let fields = |form: &'b [u8]| form::fields(form).map_err(|_| Refusal::TooManyFields);
        match at {
            At::Header(name) => only(self.head.headers, name).map(Cow::Borrowed),
            At::Entry(label) => self.only_entry(label).map(Cow::Borrowed),
            At::Json(number, _) => {
                found.and_then(|found| found.text(*number)).ok_or_else(|| Refusal::Missing(at.name()))
            }
            At::Query(name) => one(&fields(self.head.query.unwrap_or_default().as_bytes())?, name),
            At::Form(name) if form::is_form(self.head.headers) => one(&fields(body)?, name),
            At::Form(_) => Err(Refusal::Missing(at.name())),
            At::Claim(name) => {
                let claim = self.jwt.as_ref().and_then(|jwt| jwt.claim(name));
                claim.map(Cow::Owned).ok_or_else(|| Refusal::Missing(at.name()))
            }
        }
    }

    /// The entries of the signature header, each as label and value. An entry of another form is `None`.
    fn entries(&self) -> impl Iterator<Item = Option<(&'r str, &'r str)>> {
        let (between, separator, trim) = match &self.plan().row.signature.form {
            SignatureForm::Entries { between, separator, trim, .. } => (*between, *separator, *trim),
            // Such a scheme has no entries, and reads none.
            SignatureForm::One { .. } => (',', '=', false),
        };
        self.signatures.split(between).map(move |entry| {
            let entry = if trim { entry.trim_matches(' ') } else { entry };
            entry.split_once(separator)
        })
    }

    /// The value of the only entry with this label.
    fn only_entry(&self, label: &str) -> Result<&'r str, Refusal> {
        let mut values = self.entries().flatten().filter(|(of, _)| *of == label).map(|(_, value)| value);
        let value = values.next().ok_or_else(|| Refusal::Missing(label.into()))?;
        if values.next().is_some() { Err(Refusal::Repeated(label.into())) } else { Ok(value) }
    }

    /// The headers that this header lists, as names and values. The list contains itself and the time.
    fn listed(&self, list: &HeaderName) -> Result<Vec<(&'r str, &'r str)>, Refusal> {
        let bad = || Refusal::BadList(list.as_str().into());
        let names: Vec<&str> = only(self.head.headers, list)?.split(',').take(MAX_LISTED + 1).collect();
        if names.len() > MAX_LISTED || names.iter().collect::<BTreeSet<_>>().len() != names.len() {
            return Err(bad());
        }
        let time = match &self.family.timestamp {
            Some(At::Header(name)) => Some(name),
            _ => None,
        };
        if ![Some(list), time].into_iter().flatten().all(|name| names.contains(&name.as_str())) {
            return Err(bad());
        }
        let pair = |name: &'r str| {
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            // One way of writing a name: in lower case, without blanks.
            if header.as_str() != name { Err(bad()) } else { Ok((name, only(self.head.headers, &header)?)) }
        };
        names.into_iter().map(pair).collect()
    }
}

/// The claim of a whole request: well-formed, not verified yet.
pub(super) struct Whole<'k, 'r> {
    claim: Claim<'k, 'r>,
    body: &'r Bytes,
    /// The members of the body that decide. None if none does.
    found: Option<Found<'r>>,
    /// The signatures in the body. Each has to fit.
    members: Vec<Cow<'r, str>>,
}

impl<'k, 'r> Whole<'k, 'r> {
    /// Checks that the time of signing is at most `tolerance` seconds away from `now`.
    ///
    /// # Errors
    /// [`Refusal::Stale`] or [`Refusal::Future`], with the distance.
    pub(super) fn check_age(&self, tolerance: u64, now: Timestamp) -> Result<(), Refusal> {
        self.claim.check_age(tolerance, now)
    }

    /// The body, decrypted if it is encrypted. The caller has checked the signatures.
    ///
    /// # Errors
    /// [`Refusal::Sealed`] if no key of the source decrypts it.
    pub(super) fn opened(&self) -> Result<Bytes, Refusal> {
        let Some(sealed) = self.claim.family.sealed_member(self.body) else { return Ok(self.body.clone()) };
        let mut keys = self.claim.keyring.shared.iter().filter_map(SharedKey::text);
        keys.find_map(|key| sealed::open(key, &sealed)).ok_or(Refusal::Sealed)
    }

    /// The head.
    pub(super) fn head(&self) -> Head<'r> {
        self.claim.head
    }

    /// The row that it claims to be signed by.
    pub(super) fn plan(&self) -> &'k Plan {
        self.claim.plan()
    }

    /// Its family of headers.
    pub(super) fn family(&self) -> &'k Family {
        self.claim.family
    }

    /// Checks all of the request that needs no key, and names the published key that made the signature. None if the
    /// secrets of the source are the keys.
    ///
    /// # Errors
    /// [`Refusal`] if no key can make the request valid. Then none is fetched for it.
    pub(super) fn wanted(&self) -> Result<Option<Wanted>, Refusal> {
        let row = &self.plan().row;
        self.check_requirements()?;
        self.check_digest()?;
        let id = match (&row.key_source, &self.claim.family.certificate) {
            (Some(KeySource::Certificate { from, .. }), Some(at)) => {
                self.texts().try_for_each(|text| self.candidates(text).map(drop))?;
                let url = self.place(at)?;
                if Fetchable::among(from, &url).is_none() {
                    return Err(Refusal::BadUrl(at.name()));
                }
                url.into_owned()
            }
            (Some(KeySource::Api(_)), _) => {
                let id = self.claim.jwt.as_ref().and_then(|jwt| jwt.key_id.as_deref());
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                let fits = |id: &&str| (1..=MAX_KEY_ID).contains(&id.len()) && id.bytes().all(plain);
                id.filter(fits).ok_or_else(|| Refusal::Missing("kid".into()))?.to_owned()
            }
            _ => return Ok(None),
        };
        Ok(Some(Wanted { row: Arc::clone(&row.name), id }))
    }

    /// Checks the places that must have one text.
    fn check_requirements(&self) -> Result<(), Refusal> {
        for (at, required) in &self.claim.family.require {
            let text = self.place(at)?;
            let fits = match required {
                Required::Text(only) => *text == *only,
                Required::Url => *text == *self.claim.address.url,
                Required::Key => {
                    let mut names = self.claim.keyring.shared.iter().filter_map(SharedKey::text);
                    names.any(|name| name == text.as_bytes())
                }
            };
            if !fits {
                return Err(Refusal::Unmet(at.name()));
            }
        }
        Ok(())
    }

    /// Checks that one of the keys made a signature over this request: a secret of the source, or a published key.
    ///
    /// # Errors
    /// [`Refusal::Mismatch`] if none did; another [`Refusal`] if no signature can be compared.
    pub(super) fn check_signatures(&self, published: Option<&PublishedKey>) -> Result<(), Refusal> {
        if let Some(Wanted { row, .. }) = self.wanted()? {
            let published = published.ok_or(Refusal::Unfetched(row))?;
            return match self.is_published(published)? {
                true => Ok(()),
                false => Err(Refusal::Mismatch),
            };
        }
        // Anybody can extend a hash of key and text without the key. The padding in between is not UTF-8, so a
        // body that is not UTF-8 is refused.
        let extendable = self.plan().row.signature.algorithm == Algorithm::Sha256;
        if extendable && std::str::from_utf8(self.body).is_err() {
            return Err(Refusal::Mismatch);
        }
        let fits = match &self.claim.family.signature {
            SignatureAt::Header(_) => self.fits(self.claim.signatures)?,
            SignatureAt::Member(..) | SignatureAt::Members(..) => {
                let mut all = Choice::from(u8::from(!self.members.is_empty()));
                for text in &self.members {
                    all &= self.fits(text)?;
                }
                all
            }
        };
        if bool::from(fits) { Ok(()) } else { Err(Refusal::Mismatch) }
    }

    /// The texts with signatures.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let header = self.claim.family.signature.header().map(|_| self.claim.signatures);
        header.into_iter().chain(self.members.iter().map(|text| &**text))
    }

    /// Whether this key made the signature.
    fn is_published(&self, key: &PublishedKey) -> Result<bool, Refusal> {
        let row = &self.plan().row;
        let algorithm = row.signature.algorithm;
        if let Some(jwt) = &self.claim.jwt {
            return Ok(key.fits(algorithm, jwt.signed.as_bytes(), &jwt.signature));
        }
        // Where the text names the source, each of its names may be the one.
        let by_name = row.signed.contains(&Piece::Key);
        let none: &[u8] = b"";
        let names = self.claim.keyring.shared.iter().filter_map(SharedKey::text).filter(|_| by_name);
        let names = names.chain((!by_name).then_some(none));
        for name in names {
            let mut message = Vec::with_capacity(self.body.len().min(COMPOSED));
            self.compose(name, &mut |piece| message.extend_from_slice(piece))?;
            for text in self.texts() {
                for candidate in self.candidates(text)? {
                    if matches!(&candidate, Candidate::Rsa(bytes) if key.fits(algorithm, &message, bytes)) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Whether one of the keys made a signature in this text.
    fn fits(&self, text: &str) -> Result<Choice, Refusal> {
        let Keyring { shared, public, .. } = self.claim.keyring;
        let mut fits = Choice::from(0);
        if let Some(jwt) = &self.claim.jwt {
            let given = Value::of(&jwt.signature);
            for key in shared {
                let value = key.value(|_, sink| {
                    sink(jwt.signed.as_bytes());
                    Ok::<(), Refusal>(())
                })?;
                fits |= value.fits(&given);
            }
            return Ok(fits);
        }
        let candidates = self.candidates(text)?;
        for key in shared {
            let expected = self.value(key)?;
            for candidate in &candidates {
                if let Candidate::Value(value) = candidate {
                    fits |= expected.fits(value);
                }
            }
        }
        if !public.is_empty() && candidates.iter().any(|candidate| matches!(candidate, Candidate::Public(_)))
        {
            let mut message = Vec::with_capacity(self.body.len() + 256);
            self.compose(b"", &mut |piece| message.extend_from_slice(piece))?;
            for key in public {
                for candidate in &candidates {
                    if let Candidate::Public(signature) = candidate {
                        fits |= key.fits(&message, signature);
                    }
                }
            }
        }
        Ok(fits)
    }

    /// The signatures that the body has. Each element of an array must have one.
    fn signatures_in_body(&self) -> Result<Vec<Cow<'r, str>>, Refusal> {
        let missing = |name: &Arc<str>| Refusal::Missing(Arc::clone(name));
        let json = |number: &usize| self.found.as_ref().and_then(|found| found.json(*number));
        match &self.claim.family.signature {
            SignatureAt::Header(_) => Ok(Vec::new()),
            SignatureAt::Member(number, name) => {
                let text = self.found.as_ref().and_then(|found| found.text(*number));
                Ok(vec![text.ok_or_else(|| missing(name))?])
            }
            SignatureAt::Members(number, within, name) => {
                let array = json(number).ok_or_else(|| missing(name))?;
                let elements = elements(array).ok_or_else(|| missing(name))?;
                let text = |element: &'r str| {
                    let found = within.read(element).map_err(|_| missing(name))?;
                    match &found.repeated {
                        Some(repeated) => Err(Refusal::Repeated(repeated.as_str().into())),
                        None => found.text(0).ok_or_else(|| missing(name)),
                    }
                };
                elements.into_iter().map(text).collect()
            }
        }
    }

    /// Another name of the request's events: what the signature covers, if their ids may be chosen by anybody, or the
    /// value that serves once.
    ///
    /// # Errors
    /// [`Refusal`] names the part that is missing or repeated.
    pub(super) fn second(&self) -> Result<Option<(&'static str, [u8; 32])>, Refusal> {
        let mut hash = Sha256::new();
        if let Some(at) = &self.claim.family.once {
            hash.update(self.place(at)?.as_bytes());
            return Ok(Some(("once", hash.finalize().into())));
        }
        if !self.claim.family.unsigned_id {
            return Ok(None);
        }
        // The signed text and not the signature: a signature may have several spellings, or more than one key.
        self.compose(b"", &mut |piece| hash.update(piece))?;
        Ok(Some(("signed", hash.finalize().into())))
    }

    /// The value with which a sender that has this key signs this request.
    ///
    /// # Errors
    /// [`Refusal`] names the part that is missing or repeated.
    pub(super) fn value(&self, key: &SharedKey) -> Result<Value, Refusal> {
        key.value(|key, sink| self.compose(key, sink))
    }

    /// Hands out the signed text in pieces, so that the body need not be copied.
    fn compose(&self, key: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), Refusal> {
        let Claim { head, address, .. } = self.claim;
        let query = |sink: &mut dyn FnMut(&[u8])| {
            if let Some(query) = head.query {
                sink(b"?");
                sink(query.as_bytes());
            }
        };
        for step in &self.claim.family.signed {
            match step {
                Step::Literal(text) => sink(text.as_bytes()),
                Step::Body => sink(self.body),
                Step::Timestamp => {
                    sink(self.claim.time.as_ref().map_or(&b""[..], |time| time.text.as_bytes()));
                }
                Step::Url => {
                    sink(address.url.as_bytes());
                    query(sink);
                }
                Step::UrlUnescaped => sink(address.unescaped(head.query).as_bytes()),
                Step::Path => {
                    sink(address.path.as_bytes());
                    query(sink);
                }
                Step::Method => sink(head.method.as_bytes()),
                Step::Key => sink(key),
                Step::Form if form::is_form(head.headers) => {
                    let mut fields = form::fields(self.body).map_err(|_| Refusal::TooManyFields)?;
                    fields.sort_unstable();
                    fields.dedup();
                    for (name, value) in fields {
                        sink(name.as_bytes());
                        sink(value.as_bytes());
                    }
                }
                Step::Form => {}
                Step::Headers(list) => {
                    for (index, (name, value)) in self.claim.listed(list)?.into_iter().enumerate() {
                        sink(if index == 0 { b"" } else { b";" });
                        sink(name.as_bytes());
                        sink(b":");
                        sink(value.as_bytes());
                    }
                }
                Step::Crc32 => sink(crc32fast::hash(self.body).to_string().as_bytes()),
                Step::Sns(members) => sns::compose(self.found.as_ref(), members, sink)?,
                Step::Place(at) => sink(self.place(at)?.as_bytes()),
            }
        }
        Ok(())
    }

    fn place(&self, at: &At) -> Result<Cow<'r, str>, Refusal> {
        self.claim.place(at, self.found.as_ref(), self.body)
    }

    /// Checks the hash of the body, where the signed text covers only that.
    fn check_digest(&self) -> Result<(), Refusal> {
        let Some(at) = &self.claim.family.digest else { return Ok(()) };
        match self.place(at) {
            Ok(digest) if *digest == hex::encode(Sha256::digest(self.body)) => Ok(()),
            Ok(_) => Err(Refusal::OtherBody(at.name())),
            // The fields of a form are signed themselves.
            Err(Refusal::Missing(_)) if form::is_form(self.claim.head.headers) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// The signatures that can be compared. Entries with an unknown label or malformed entries are skipped.
    fn candidates(&self, text: &str) -> Result<Vec<Candidate>, Refusal> {
        let signature = &self.plan().row.signature;
        let mut candidates = Vec::new();
        match &signature.form {
            SignatureForm::One { prefix } => {
                let value = text.strip_prefix(prefix.as_str());
                let read = |value| Candidate::read(signature.algorithm, signature.encoding, value);
                candidates.extend(value.and_then(read));
            }
            SignatureForm::Entries { .. } => {
                let mut of_public_keys = 0;
                for (index, entry) in self.claim.entries().enumerate() {
                    if index >= MAX_ENTRIES {
                        return Err(Refusal::TooMany);
                    }
                    let read = |(label, value)| {
                        let algorithm = self.plan().algorithm_labelled(label)?;
                        Candidate::read(algorithm, signature.encoding, value)
                    };
                    let Some(candidate) = entry.and_then(read) else { continue };
                    of_public_keys += usize::from(matches!(candidate, Candidate::Public(_)));
                    if of_public_keys > MAX_ED25519 {
                        return Err(Refusal::TooMany);
                    }
                    candidates.push(candidate);
                }
            }
        }
        if candidates.is_empty() {
            return Err(Refusal::NoneUsable(self.claim.family.signature.name()));
        }
        Ok(candidates)
    }
}

/// A well-formed signature, ready for comparison.
enum Candidate {
    Value(Value),
    Public(PublicSignature),
    Rsa(Vec<u8>),
}

impl Candidate {
    fn read(algorithm: Algorithm, encoding: Encoding, text: &str) -> Option<Self> {
        if let Some(length) = length_of(algorithm) {
            let mut bytes = [0; 64];
            let bytes = &mut bytes[..length];
            return decode(encoding, text, bytes).map(|()| Self::Value(Value::of(bytes)));
        }
        match algorithm {
            Algorithm::Ed25519 => {
                let mut bytes = [0; 64];
                decode(encoding, text, &mut bytes)?;
                let signature = ed25519_dalek::Signature::from_bytes(&bytes);
                Some(Self::Public(PublicSignature::Ed25519(signature)))
            }
            Algorithm::EcdsaP256 => {
                let der = match encoding {
                    Encoding::Base64 => BASE64.decode(text).ok()?,
                    Encoding::Hex | Encoding::HexAnyCase => hex::decode(text).ok()?,
                };
                let signature = p256::ecdsa::Signature::from_der(&der).ok()?;
                Some(Self::Public(PublicSignature::EcdsaP256(signature)))
            }
            Algorithm::RsaSha1 | Algorithm::RsaSha256 => {
                let bytes = match encoding {
                    Encoding::Base64 => BASE64.decode(text).ok()?,
                    Encoding::Hex | Encoding::HexAnyCase => hex::decode(text).ok()?,
                };
                RSA_BYTES.contains(&bytes.len()).then_some(Self::Rsa(bytes))
            }
            Algorithm::JwtEs256 | Algorithm::JwtHs256 => None,
            Algorithm::Basic => {
                let (scheme, credentials) = text.split_once(' ')?;
                let credentials = BASE64.decode(credentials).ok()?;
                scheme.eq_ignore_ascii_case("basic").then(|| Self::Value(Value::of_token(&credentials)))
            }
            _ => Some(Self::Value(Value::of_token(text.as_bytes()))),
        }
    }
}

impl At {
    /// The name in messages.
    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Self::Header(name) => name.as_str().into(),
            Self::Entry(name) | Self::Json(_, name) => name.as_str().into(),
            Self::Query(name) => format!("query:{name}").into(),
            Self::Form(name) => format!("form:{name}").into(),
            Self::Claim(name) => format!("claim:{name}").into(),
        }
    }
}

impl Family {
    /// The text of the member with the encrypted body, if the body has it.
    pub(super) fn sealed_member(&self, body: &[u8]) -> Option<String> {
        let wanted = self.sealed.as_ref()?;
        let members = wanted.read(std::str::from_utf8(body).ok()?).ok()?;
        members.text(0).map(Cow::into_owned)
    }

    /// The name of a place in the body that decides.
    fn body_place(&self) -> String {
        let of_step = |step: &Step| match step {
            Step::Place(At::Json(_, name)) => Some(name.clone()),
            _ => None,
        };
        if self.signature.header().is_none() {
            return self.signature.name().to_string();
        }
        let of_time = self.timestamp.iter().find_map(|at| match at {
            At::Json(_, name) => Some(name.clone()),
            _ => None,
        });
        of_time.or_else(|| self.signed.iter().find_map(of_step)).unwrap_or_default()
    }
}

/// The value of a header that must be present exactly once.
fn only<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<&'r str, Refusal> {
    let named = || Arc::from(name.as_str());
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or_else(|| Refusal::Missing(named()))?;
    if values.next().is_some() {
        return Err(Refusal::Repeated(named()));
    }
    if value.len() > MAX_HEADER {
        return Err(Refusal::TooLong(named()));
    }
    std::str::from_utf8(value.as_bytes()).map_err(|_| Refusal::NotText(named()))
}

/// Parses a number that matches `[1-9][0-9]*`.
fn digits(text: &str) -> Option<i128> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits_only && !text.starts_with('0') { text.parse::<i64>().ok() } else { None };
    number.map(i128::from)
}

/// Parses `2026-01-24T03:27:29Z`, with or without a fraction. The text ends at its only `Z`, so the text
/// that follows it in a signed text can't be taken for a part of it.
fn rfc3339(text: &str) -> Option<i128> {
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b':' | b'.' | b'T');
    let before = text.strip_suffix('Z').filter(|before| before.len() <= 32)?;
    if !before.bytes().all(plain) || before.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    text.parse::<Timestamp>().ok().map(|time| i128::from(time.as_millisecond()))
}

/// Decodes exactly as many bytes as there is room for. Accepts only their canonical spelling; hexadecimal digits
/// may have either case if the scheme says so.
fn decode(encoding: Encoding, text: &str, bytes: &mut [u8]) -> Option<()> {
    let many = bytes.len();
    match encoding {
        Encoding::Base64 => (BASE64.decode_slice(text, bytes) == Ok(many)).then_some(()),
        Encoding::HexAnyCase => hex::decode_to_slice(text, bytes).ok(),
        Encoding::Hex if text.bytes().any(|byte| byte.is_ascii_uppercase()) => None,
        Encoding::Hex => hex::decode_to_slice(text, bytes).ok(),
    }
}

#[cfg(test)]
mod tests {
    use posthouse_model::config::{Scheme, Secret, Source};

    use super::*;

    use crate::ingress::{
        RawRequest, Verifier,
        fixtures::{self, NOW},
        sign::{Draft, sign_request},
    };

    const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    const BODY: &[u8] = br#"{"type":"a","header":{"event_type":"a"}}"#;

    fn source(scheme: &str) -> Source {
        Source {
            url: Some("https://hooks.example.com/in".to_owned()),
            secrets: vec![Secret::new(SECRET)],
            scheme: Scheme::named(scheme).unwrap(),
            ..fixtures::source("standard-webhooks")
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    /// A request that the source's sender signs.
    fn signed(source: &Source, body: &[u8]) -> RawRequest {
        let draft = Draft {
            method: &http::Method::POST,
            query: None,
            id: "id-1",
            at: now(),
            content_type: "application/json",
            body,
        };
        let signed = sign_request(source, &draft).unwrap();
        let headers: Vec<_> =
            signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        RawRequest { query: signed.query, ..fixtures::request(&headers, body) }
    }

    fn verdict(source: &Source, request: &RawRequest) -> &'static str {
        match Verifier::new(source).unwrap().verify(request, now()) {
            Ok(_) => "valid",
            Err(refusal) => refusal.label(),
        }
    }

    #[test]
    fn a_time_has_one_spelling_and_ends_where_it_ends() {
        for good in ["2026-01-24T03:27:29Z", "2026-01-24T03:27:29.123Z"] {
            assert!(rfc3339(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "Z",
            "2026-01-24T03:27:29",
            "2026-01-24T03:27:29+00:00",
            "2026-01-24t03:27:29Z",
            "2026-01-24 03:27:29Z",
            "2026-01-24T03:27:29z",
            "2026-01-24T03:27:29ZZ",
            " 2026-01-24T03:27:29Z",
            "2026-01-24T03:27:29.1234567890123456789Z",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
        for bad in ["", "0", "01", "+1", "-1", "1.0", "1e3", " 1", "9223372036854775808"] {
            assert_eq!(digits(bad), None, "{bad}");
        }
        // Zendesk signs time and body without a separator.
        let source = source("zendesk");
        let request = signed(&source, b"17{}");
        let name = "x-zendesk-webhook-signature-timestamp";
        let time = request.headers[name].to_str().unwrap().to_owned();
        let mut moved = RawRequest { body: Bytes::from_static(b"7{}"), ..request.clone() };
        moved.headers.insert(name, format!("{time}1").parse().unwrap());
        assert_eq!(verdict(&source, &request), "valid");
        assert_eq!(verdict(&source, &moved), "bad-timestamp");
    }

    #[test]
    fn the_signed_url_is_that_of_the_configuration() {
        let here = source("square");
        let mut request = signed(&here, BODY);
        request.headers.insert("host", "evil.example".parse().unwrap());
        request.headers.insert("x-forwarded-host", "evil.example".parse().unwrap());
        request.headers.insert("x-forwarded-proto", "http".parse().unwrap());
        assert_eq!(verdict(&here, &request), "valid");
        let there = Source { url: Some("https://evil.example/in".to_owned()), ..here.clone() };
        let mut request = signed(&there, BODY);
        request.headers.insert("host", "evil.example".parse().unwrap());
        assert_eq!(verdict(&here, &request), "signature-mismatch");
        let with_query = RawRequest { query: Some("a=1".to_owned()), ..signed(&here, BODY) };
        assert_eq!(verdict(&here, &with_query), "signature-mismatch");
    }

    #[test]
    fn a_list_of_headers_is_whole() {
        let source = source("contentful");
        let good = signed(&source, BODY);
        assert_eq!(verdict(&source, &good), "valid");
        let list = "x-contentful-signed-headers";
        let (own, time) = (list, "x-contentful-timestamp");
        for (value, label) in [
            (own.to_owned(), "bad-header-list"),
            (time.to_owned(), "bad-header-list"),
            (String::new(), "bad-header-list"),
            (format!("{own},{time},{time}"), "bad-header-list"),
            (format!("{own}, {time}"), "bad-header-list"),
            (format!("{own},X-Contentful-Timestamp"), "bad-header-list"),
            (format!("{own},{time},X-Topic"), "bad-header-list"),
            (format!("{own},{time},x-none"), "missing-header"),
            (format!("{own},{time}{}", ",x".repeat(70)), "bad-header-list"),
        ] {
            let mut request = good.clone();
            request.headers.insert(list, value.parse().unwrap());
            assert_eq!(verdict(&source, &request), label, "{value}");
        }
    }

    #[test]
    fn a_hash_with_the_key_in_the_text_can_not_be_extended() {
        let source = source("lark");
        assert_eq!(verdict(&source, &signed(&source, BODY)), "valid");
        // An extended body contains the padding of SHA-256: 0x80, zeroes and a length. The test gives it the
        // right hash, as an attacker would.
        let extended = [BODY, b"\x80\0\0\0\0\0\0\x01", b",\"more\":1}"].concat();
        assert_eq!(verdict(&source, &signed(&source, &extended)), "signature-mismatch");
    }

    #[test]
    fn a_token_is_compared_whole_and_credentials_in_their_one_spelling() {
        let token = source("gitlab-token");
        let with = |source: &Source, name: &str, value: &str| {
            verdict(source, &fixtures::request(&[(name, value)], BODY))
        };
        assert_eq!(with(&token, "x-gitlab-token", SECRET), "valid");
        for other in ["", &SECRET[1..], &SECRET.to_uppercase(), &format!("{SECRET}0")] {
            assert_eq!(with(&token, "x-gitlab-token", other), "signature-mismatch", "{other}");
        }
        let basic = Source { secrets: vec![Secret::new("hook:a:b-0123456789")], ..source("postmark") };
        let encoded = BASE64.encode("hook:a:b-0123456789");
        assert_eq!(with(&basic, "authorization", &format!("Basic {encoded}")), "valid");
        assert_eq!(with(&basic, "authorization", &format!("basic {encoded}")), "valid");
        for other in [format!("Basic  {encoded}"), encoded.clone(), format!("Bearer {encoded}")] {
            assert_eq!(with(&basic, "authorization", &other), "no-usable-signature", "{other}");
        }
    }
}
