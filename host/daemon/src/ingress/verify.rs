//! Verification: the only place where a [`RawRequest`] becomes [`Verified`].
//!
//! All checks use the bytes as they were sent. The sender learns only that a check failed; [`Refusal`] gives
//! the operator the reason.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use posthouse_model::{EventType, SecondKey, config};

use super::{
    KeyError, RawRequest, Refusal,
    claim::{Claim, Whole},
    crypto::{SharedKey, Value},
    handshake::{Shaken, Test},
    keychain::Wanted,
    keys::Keyring,
    plan::{Family, Plan},
    published::PublishedKey,
    request::{Address, Head},
    sealed,
};

/// A request whose sender is verified. Only [`Verifier`] makes one.
#[derive(Clone)]
pub struct Verified<'r> {
    body: Bytes,
    head: Head<'r>,
    plan: &'r Plan,
    family: &'r Family,
    second: Option<(&'static str, [u8; 32])>,
    body_id: bool,
}

/// Shows the row and nothing of the request.
impl fmt::Debug for Verified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verified").field(self.plan.name()).finish()
    }
}

impl<'r> Verified<'r> {
    /// The signed bytes, decrypted if the sender encrypts them.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// All of the request but its body. A signature rarely covers all of it.
    pub(super) fn head(&self) -> Head<'r> {
        self.head
    }

    /// The row by which it is signed.
    pub(super) fn plan(&self) -> &'r Plan {
        self.plan
    }

    /// Its family of headers.
    pub(super) fn family(&self) -> &'r Family {
        self.family
    }

    /// The second key of its event with this index and type.
    pub(super) fn second(&self, index: usize, event_type: &EventType) -> Option<SecondKey> {
        let (kind, hash) = self.second?;
        let index = (index as u64).to_be_bytes();
        // Shopify sends one and the same body as several events, whose types only an unsigned header tells apart.
        let of_its_own = if self.family.unsigned_type { event_type.as_str() } else { "" };
        Some(SecondKey::of(kind, &[&hash, &index, of_its_own.as_bytes()]))
    }

    /// Whether the member `id` of the body is a second key.
    pub(super) fn body_id(&self) -> bool {
        self.body_id
    }
}

/// Verifies the requests of one source. Its keys and rows are prepared once.
pub struct Verifier {
    keyrings: Vec<Keyring>,
    address: Address,
    /// In seconds.
    tolerance: u64,
    body_id: bool,
    /// The hash of the source's `verify_token`.
    token: Option<Value>,
    /// Whether its sender has yet to bring its key.
    keyless: bool,
}

impl Verifier {
    /// Prepares the keys of a source.
    ///
    /// # Errors
    /// [`KeyError`] names the secret that cannot be used.
    pub fn new(source: &config::Source) -> Result<Self, KeyError> {
        Ok(Self {
            keyrings: Keyring::all(source)?,
            address: Address::of(source),
            tolerance: source.tolerance.as_secs(),
            body_id: source.scheme.body_id,
            token: source.verify_token.as_ref().map(|token| Value::of_token(token.expose().as_bytes())),
            keyless: source.brings_key && source.secrets.is_empty(),
        })
    }

    /// Verifies a request at this time.
    ///
    /// # Errors
    /// [`Refusal`] gives the first reason.
    pub fn verify<'r>(&'r self, request: &'r RawRequest, now: Timestamp) -> Result<Verified<'r>, Refusal> {
        self.verify_with(request, now, &|_| None)
    }

    /// The same, with published keys.
    ///
    /// # Errors
    /// [`Refusal`] gives the first reason.
    pub(super) fn verify_with<'r>(
        &'r self,
        request: &'r RawRequest,
        now: Timestamp,
        published: &dyn Fn(&Wanted) -> Option<PublishedKey>,
    ) -> Result<Verified<'r>, Refusal> {
        let claim = self.claim(request.head())?;
        claim.check_age(self.tolerance, now)?;
        let whole = claim.with_body(&request.body)?;
        whole.check_age(self.tolerance, now)?;
        let key = whole.wanted()?.and_then(|wanted| published(&wanted));
        self.verify_claim(&whole, key.as_ref())
    }

    /// Whether its sender has yet to bring its key.
    pub(super) fn is_keyless(&self) -> bool {
        self.keyless
    }

    /// How far a signed time may be off, in seconds.
    pub(super) fn tolerance(&self) -> u64 {
        self.tolerance
    }

    /// Verifies that the sender has signed this request. The caller checks the age of the claim.
    ///
    /// # Errors
    /// [`Refusal`] if no signature matches.
    pub(super) fn verify_claim<'r>(
        &self,
        whole: &Whole<'r, 'r>,
        published: Option<&PublishedKey>,
    ) -> Result<Verified<'r>, Refusal> {
        if self.keyless {
            return Err(Refusal::NoKey);
        }
        whole.check_signatures(published)?;
        Ok(Verified {
            body: whole.opened()?,
            head: whole.head(),
            plan: whole.plan(),
            family: whole.family(),
            second: whole.second()?,
            body_id: self.body_id,
        })
    }

    /// A verifier that reads every secret as its scheme does not. It accepts signatures by the wrong key, so it
    /// may only produce hints.
    pub(super) fn misreading(source: &config::Source) -> Self {
        Self {
            keyrings: Keyring::all_misread(source),
            address: Address::of(source),
            tolerance: 0,
            body_id: false,
            token: None,
            keyless: false,
        }
    }

    /// Checks the signatures whatever their age. The request may be a replay, so this may only produce hints.
    ///
    /// # Errors
    /// [`Refusal`] gives the first reason.
    pub(super) fn check_signatures(&self, request: &RawRequest) -> Result<(), Refusal> {
        self.claim(request.head())?.with_body(&request.body)?.check_signatures(None)
    }

    /// Decrypts a body that nobody has signed, if it is encrypted: it may be a test of the URL. Returns none if it is not
    /// encrypted, and no bytes if it can't be decrypted.
    pub(super) fn open_unsigned(&self, body: &Bytes) -> Option<Bytes> {
        let mut families = self
            .keyrings
            .iter()
            .flat_map(|keyring| keyring.plan.families.iter().map(move |of| (keyring, of)));
        families.find_map(|(keyring, family)| {
            let sealed = family.sealed_member(body)?;
            let mut keys = keyring.shared.iter().filter_map(SharedKey::text);
            Some(keys.find_map(|key| sealed::open(key, &sealed)).unwrap_or_default())
        })
    }

    /// What a request is, as a handshake. A signed one is of the row that signed it; `by` is that row.
    pub(super) fn handshake(&self, test: &Test<'_>, by: Option<&Plan>) -> Shaken {
        let of_row = |keyring: &&Keyring| by.is_none_or(|plan| std::ptr::eq(plan, &keyring.plan));
        for keyring in self.keyrings.iter().filter(of_row) {
            for shake in &keyring.plan.shakes {
                match shake.read(test, self.token.as_ref(), keyring.shared.first()) {
                    Shaken::No => {}
                    shaken => return shaken,
                }
            }
        }
        Shaken::No
    }

    /// Whether the head may be that of a handshake that is signed, or that only its body shows.
    pub(super) fn may_shake(&self, head: Head<'_>, verified: bool) -> bool {
        self.keyrings.iter().flat_map(|keyring| &keyring.plan.shakes).any(|shake| {
            shake.is_verified() == verified && shake.may_be(head) && (verified || shake.reads_body())
        })
    }

    /// The families of headers that a request may have.
    pub(super) fn families(&self) -> impl Iterator<Item = &Family> {
        self.keyrings.iter().flat_map(|keyring| &keyring.plan.families)
    }

    /// Finds the only family of headers in the request, and reads it. This checks everything that the head
    /// alone can show, except the age.
    pub(super) fn claim<'r>(&'r self, head: Head<'r>) -> Result<Claim<'r, 'r>, Refusal> {
        let mut found: Option<(&Keyring, &Family)> = None;
        for keyring in &self.keyrings {
            for family in &keyring.plan.families {
                if family.is_in(head.headers) {
                    if let Some((_, other)) = found {
                        let named = |family: &Family| family.signature.name();
                        return Err(Refusal::Ambiguous(named(other), named(family)));
                    }
                    found = Some((keyring, family));
                }
            }
        }
        let (keyring, family) = found.ok_or(Refusal::Unsigned)?;
        Claim::read(keyring, family, &self.address, head)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
    use posthouse_model::config::{Scheme, Secret, Source};
    use proptest::prelude::*;

    use super::*;

    use crate::ingress::{
        fixtures::{self, NOW},
        refusal::{MAX_ED25519, MAX_ENTRIES, MAX_HEADER},
        sign,
    };

    const STANDARD: &str = "standard-webhooks";
    const DOCUMENTED: &str = "scalekit-documented";
    const SCALEKIT: &str = "scalekit";
    const BODY: &[u8] = br#"{"id":"evt_1","type":"user.created"}"#;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The label of the refusal, or `valid`.
    fn verdict(source: &Source, headers: &[(&str, &str)], body: &[u8]) -> &'static str {
        let request = fixtures::request(headers, body);
        match Verifier::new(source).unwrap().verify(&request, at(NOW)) {
            Ok(_) => "valid",
            Err(refusal) => refusal.label(),
        }
    }

    /// The headers of `sign` at this time, as a list that a test can change.
    fn signed(source: &Source, second: i64) -> Vec<(String, String)> {
        sign(source, "msg_1", at(second), BODY).unwrap()
    }

    fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn the_tolerance_holds_both_ways_and_to_the_second() {
        for scheme in [STANDARD, DOCUMENTED] {
            let source = fixtures::source(scheme);
            for (offset, expected) in [
                (-301, "stale-timestamp"),
                (-300, "valid"),
                (0, "valid"),
                (300, "valid"),
                (301, "future-timestamp"),
            ] {
                let headers = signed(&source, NOW + offset);
                assert_eq!(verdict(&source, &borrowed(&headers), BODY), expected, "{scheme:?} {offset}");
            }
        }
    }

    #[test]
    fn timestamps_have_one_way_of_being_written() {
        let source = fixtures::source(STANDARD);
        for text in [
            "",
            "0",
            "01765281881",
            "+1765281881",
            "-1",
            "1765281881.0",
            " 1",
            "1e9",
            "١٧٦",
            "99999999999999999999",
        ] {
            // The signature covers the odd text, so only its form is wrong.
            let headers = fixtures::standard_headers(&source, "msg_1", text, BODY);
            assert_eq!(verdict(&source, &borrowed(&headers), BODY), "bad-timestamp", "{text:?}");
        }
    }

    #[test]
    fn an_id_that_blurs_the_signed_text_is_refused() {
        let source = fixtures::source(STANDARD);
        for id in ["", "a.b", "."] {
            let headers = fixtures::standard_headers(&source, id, &NOW.to_string(), BODY);
            assert_eq!(verdict(&source, &borrowed(&headers), BODY), "bad-id", "{id:?}");
        }
    }

    #[test]
    fn a_request_carries_one_family_whole_and_once() {
        let source = fixtures::source(STANDARD);
        let headers = signed(&source, NOW);
        let svix: Vec<_> =
            headers.iter().map(|(name, value)| (name.replace("webhook-", "svix-"), value.clone())).collect();
        let svix: Vec<_> = svix.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(verdict(&source, &svix, BODY), "valid");
        assert_eq!(verdict(&source, &[], BODY), "unsigned");
        for left_out in 0..3 {
            let mut fewer = borrowed(&headers);
            fewer.remove(left_out);
            assert_eq!(verdict(&source, &fewer, BODY), "missing-header");
            let mut twice = borrowed(&headers);
            twice.push(twice[left_out]);
            assert_eq!(verdict(&source, &twice, BODY), "repeated-header");
            let mut both = borrowed(&headers);
            both.push(svix[left_out]);
            assert_eq!(verdict(&source, &both, BODY), "ambiguous-headers");
        }
    }

    #[test]
    fn either_scheme_by_the_headers_present_and_never_both() {
        let source = fixtures::source(SCALEKIT);
        let of = |scheme| signed(&Source { scheme: Scheme::named(scheme).unwrap(), ..source.clone() }, NOW);
        let (standard, documented) = (of(STANDARD), of(DOCUMENTED));
        assert_eq!(verdict(&source, &borrowed(&standard), BODY), "valid");
        assert_eq!(verdict(&source, &borrowed(&documented), BODY), "valid");
        let both = [borrowed(&standard), borrowed(&documented)].concat();
        assert_eq!(verdict(&source, &both, BODY), "ambiguous-headers");
    }

    #[test]
    fn malformed_entries_are_skipped_and_never_match() {
        let source = fixtures::source(STANDARD);
        let headers = signed(&source, NOW);
        let good = headers[2].1.clone();
        let bare = good.strip_prefix("v1,").unwrap();
        let unpadded = good.trim_end_matches('=');
        let with = |signature: &str| {
            let mut headers = borrowed(&headers);
            headers[2].1 = signature;
            verdict(&source, &headers, BODY)
        };
        for junk in ["v1", "v1,", ",", "", "v1,a", "v1,a,b", "v9,AAAA", "v1a,AAAA", "é"] {
            assert_eq!(with(&format!("{junk} {good}")), "valid", "{junk:?}");
            assert_eq!(with(&format!("{good} {junk}")), "valid", "{junk:?}");
            assert_eq!(with(junk), "no-usable-signature", "{junk:?}");
        }
        let odd = [
            bare,
            unpadded,
            &format!("V1,{bare}"),
            &format!("v1, {bare}"),
            &format!("{good},v2"),
            &format!("{good},{good}"),
            &format!("v1a,{bare}"),
            &format!("v1,{bare}="),
            &format!("\t{good}"),
        ];
        for odd in odd {
            assert_eq!(with(odd), "no-usable-signature", "{odd:?}");
        }
    }

    #[test]
    fn a_signature_is_written_in_one_way_only() {
        let source = fixtures::source(STANDARD);
        let mut headers = signed(&source, NOW);
        // The last symbol before the padding has two spare bits. Set, they still mean the same bytes.
        const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let last = headers[2].1.len() - 2;
        let symbol = ALPHABET.find(&headers[2].1[last..=last]).unwrap();
        headers[2].1.replace_range(last..=last, &ALPHABET[symbol + 1..symbol + 2]);
        assert_eq!(verdict(&source, &borrowed(&headers), BODY), "no-usable-signature");
    }

    #[test]
    fn the_documented_header_has_one_time_and_any_number_of_signatures() {
        let source = fixtures::source(DOCUMENTED);
        let headers = signed(&source, NOW);
        let good = headers[0].1.clone();
        let (time, signature) = good.split_once(',').unwrap();
        let zeros = format!("v1={}", "0".repeat(64));
        let with = |header: &str| verdict(&source, &[("scalekit-signature", header)], BODY);
        for header in [
            format!("{signature},{time}"),
            format!("{time},{zeros},{signature}"),
            format!("{good},v0=ff,extra"),
            good.to_uppercase().replace("T=", "t=").replace("V1=", "v1="),
        ] {
            assert_eq!(with(&header), "valid", "{header}");
        }
        for (header, label) in [
            (signature.to_owned(), "missing-header"),
            (time.to_owned(), "no-usable-signature"),
            (format!("{time},{good}"), "repeated-header"),
            (format!("{time}, {signature}"), "no-usable-signature"),
            (format!("{time},{zeros}"), "signature-mismatch"),
            (format!("{time},{signature}00"), "no-usable-signature"),
        ] {
            assert_eq!(with(&header), label, "{header}");
        }
    }

    #[test]
    fn headers_and_entries_are_bounded() {
        let source = fixtures::source(STANDARD);
        let headers = signed(&source, NOW);
        let with = |signature: &str| {
            let mut headers = borrowed(&headers);
            headers[2].1 = signature;
            verdict(&source, &headers, BODY)
        };
        assert_eq!(with(&format!("{}{}", "v1,a ".repeat(MAX_ENTRIES - 1), headers[2].1)), "valid");
        assert_eq!(with(&format!("{}{}", "v1,a ".repeat(MAX_ENTRIES), headers[2].1)), "too-many-signatures");
        assert_eq!(with(&"a".repeat(MAX_HEADER + 1)), "header-too-long");
        let public = format!("v1a,{} ", BASE64.encode([0; 64]));
        assert_eq!(with(&format!("{}{}", public.repeat(MAX_ED25519), headers[2].1)), "valid");
        assert_eq!(
            with(&format!("{}{}", public.repeat(MAX_ED25519 + 1), headers[2].1)),
            "too-many-signatures"
        );
    }

    #[test]
    fn public_keys_verify_v1a_and_nothing_else() {
        use ed25519_dalek::{Signer, SigningKey};
        let pair = SigningKey::from_bytes(&[7; 32]);
        let public = BASE64.encode(pair.verifying_key().as_bytes());
        let source = Source {
            secrets: vec![Secret::new("whsec_AAEC"), Secret::new(format!("whpk_{public}"))],
            ..fixtures::source(STANDARD)
        };
        let text = [format!("msg_1.{NOW}.").as_bytes(), BODY].concat();
        let signature = BASE64.encode(pair.sign(&text).to_bytes());
        let confused = Source { secrets: vec![Secret::new(format!("whsec_{public}"))], ..source.clone() };
        let by_public_key = signed(&confused, NOW)[2].1.clone();
        let now = NOW.to_string();
        let with = |entry: &str, body: &[u8]| {
            verdict(
                &source,
                &[("webhook-id", "msg_1"), ("webhook-timestamp", &now), ("webhook-signature", entry)],
                body,
            )
        };
        assert_eq!(with(&format!("v1a,{signature}"), BODY), "valid");
        assert_eq!(with(&format!("v1,AAAA v1a,{signature}"), BODY), "valid");
        assert_eq!(with(&format!("v1a,{signature}"), b"{}"), "signature-mismatch");
        assert_eq!(with(&format!("v1,{signature}"), BODY), "no-usable-signature");
        assert_eq!(with(&by_public_key, BODY), "signature-mismatch");
        assert_eq!(with(&by_public_key.replace("v1,", "v1a,"), BODY), "no-usable-signature");
    }

    #[test]
    fn odd_bytes_in_headers_are_refused() {
        let source = fixtures::source(STANDARD);
        let mut request = fixtures::request(&borrowed(&signed(&source, NOW)), BODY);
        request.headers.insert("webhook-id", http::HeaderValue::from_bytes(b"\xff").unwrap());
        let refusal = Verifier::new(&source).unwrap().verify(&request, at(NOW)).unwrap_err();
        assert_eq!(refusal.label(), "header-not-text");
    }

    fn schemes() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just(STANDARD), Just(DOCUMENTED), Just(SCALEKIT)]
    }

    proptest! {
        #[test]
        fn what_was_signed_is_verified(
            scheme in schemes(),
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 1..4),
            id in "[!-~&&[^.]]{1,60}",
            body: Vec<u8>,
            second in 1i64..200_000_000_000,
            offset in -300i64..=300,
        ) {
            let secret = |key: &Vec<u8>| Secret::new(format!("whsec_{}", BASE64.encode(key)));
            let sender = Source { secrets: vec![secret(&keys[keys.len() - 1])], ..fixtures::source(scheme) };
            let receiver = Source { secrets: keys.iter().map(secret).collect(), ..sender.clone() };
            let mut headers = sign(&sender, &id, at(second), &body).unwrap();
            headers.reverse();
            let request = fixtures::request(&borrowed(&headers), &body);
            let verifier = Verifier::new(&receiver).unwrap();
            prop_assert!(verifier.verify(&request, at(second + offset)).is_ok());
        }

        #[test]
        fn a_changed_byte_is_noticed(
            scheme in schemes(),
            body in prop::collection::vec(any::<u8>(), 1..200),
            place: prop::sample::Index,
            header: prop::sample::Index,
            flip in 1u8..=255,
        ) {
            let source = fixtures::source(scheme);
            let verifier = Verifier::new(&source).unwrap();
            let headers = sign(&source, "msg_1", at(NOW), &body).unwrap();

            let mut changed = body.clone();
            changed[place.index(body.len())] ^= flip;
            let request = fixtures::request(&borrowed(&headers), &changed);
            prop_assert!(verifier.verify(&request, at(NOW)).is_err());

            let (name, value) = &headers[header.index(headers.len())];
            let mut changed = value.clone().into_bytes();
            let place = place.index(changed.len());
            changed[place] ^= flip;
            // Hexadecimal digits mean the same in either case.
            if let Ok(new) = http::HeaderValue::from_bytes(&changed)
                && !changed.eq_ignore_ascii_case(value.as_bytes())
            {
                let mut request = fixtures::request(&borrowed(&headers), &body);
                request.headers.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), new);
                prop_assert!(verifier.verify(&request, at(NOW)).is_err(), "{name} byte {place}");
            }
        }

        #[test]
        fn no_header_makes_it_panic(
            scheme in schemes(),
            headers in prop::collection::vec((0..7usize, prop::collection::vec(any::<u8>(), 0..60)), 0..6),
        ) {
            const NAMES: [&str; 7] = [
                "webhook-id", "webhook-timestamp", "webhook-signature", "svix-id", "svix-timestamp",
                "svix-signature", "scalekit-signature",
            ];
            let mut request = fixtures::request(&[], BODY);
            for (name, value) in headers {
                if let Ok(value) = http::HeaderValue::from_bytes(&value) {
                    request.headers.append(NAMES[name], value);
                }
            }
            let verifier = Verifier::new(&fixtures::source(scheme)).unwrap();
            prop_assert!(verifier.verify(&request, at(NOW)).is_err());
        }
    }
}
