//! What a row needs from elsewhere: the sender's public key, which it publishes at a URL, and what ties a signature by
//! that key to this source.
//!
//! A request may name such a URL. So a row lists the URLs that posthouse may fetch, and no request leads it to any other.

use ipnet::IpNet;
use url::Url;

use super::{
    Algorithm, Piece, Place, Row,
    read::{bounded, place},
};
use crate::config::{
    diagnose::shown,
    table::{Fault, Table, Value},
    value::{list, network, one_line, text},
};

/// The longest URL that is fetched, in bytes.
const LONGEST: usize = 1024;
/// The longest text that a `*` matches, in bytes.
const LONGEST_WILD: usize = 64;
/// The most `*` of a pattern, besides one for its query.
const MAX_WILD: usize = 2;

/// Where the sender publishes its public key.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// In a certificate whose URL the request names.
    Certificate {
        /// The place of the URL.
        at: Place,
        /// The URLs that it may be.
        from: Vec<Fetchable>,
        /// The DNS name for which the certificate is.
        name: String,
    },
    /// At an API of the sender, by the id in the header of a JWT. The first secret of the source is `CLIENT_ID:SECRET`
    /// for it.
    Api(Fetchable),
}

/// URLs that posthouse may fetch.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetchable {
    /// The URLs.
    pub url: UrlPattern,
    /// Private, local or special addresses that their hosts may have.
    pub addresses: Vec<IpNet>,
}

impl Fetchable {
    /// The first of these that allows this URL, and the URL.
    pub fn among<'f>(list: &'f [Self], url: &str) -> Option<(&'f Self, Url)> {
        list.iter().find_map(|one| Some((one, one.url.matched(url)?)))
    }
}

/// URLs with `https`: a text in which each `*` matches 1 to 64 letters, digits, `-` and `_`. A `*` at the end of a
/// query matches the rest of it. So no `*` reaches beyond a label of the host, or a segment of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPattern(String);

impl UrlPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The problem, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let canonical = || {
            let plain = text.replace('*', "x");
            let url = Url::parse(&plain).ok()?;
            let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
            (bare && url.as_str() == plain && url.scheme() == "https").then_some(url)
        };
        if text.len() > LONGEST || canonical().is_none() {
            return Err(
                "is no URL with https:// in its plain form, such as \"https://keys.example.com/CERT-*\""
                    .to_owned(),
            );
        }
        let (before, query) = text.split_once('?').unwrap_or((text, ""));
        if query.strip_suffix('*').unwrap_or(query).contains('*') {
            return Err("has a `*` within its query; it may only be at the end".to_owned());
        }
        if before.matches('*').count() > MAX_WILD {
            return Err(format!("has more than {MAX_WILD} `*` before its query"));
        }
        let host = before["https://".len()..].split(['/', ':']).next().unwrap_or_default();
        if host.rsplit('.').take(2).any(|label| label.contains('*')) {
            return Err(
                "has a `*` for a domain, which anybody may register; write it in front of one".to_owned()
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The only URL that it matches. None if it has a `*`.
    pub fn only(&self) -> Option<Url> {
        if self.0.contains('*') { None } else { Url::parse(&self.0).ok() }
    }

    /// The URL, if the pattern matches it. A URL that is not in its plain form is none: another reader could take it
    /// for another.
    fn matched(&self, url: &str) -> Option<Url> {
        let parsed = Url::parse(url).ok().filter(|parsed| parsed.as_str() == url && url.len() <= LONGEST)?;
        let fits = match self.0.strip_suffix('*') {
            Some(start) if start.contains('?') => {
                let (start, query) = start.split_once('?').unwrap_or((start, ""));
                url.split_once('?').is_some_and(|(before, rest)| {
                    matches(start, before) && rest.starts_with(query) && !rest.contains('#')
                })
            }
            _ => matches(&self.0, url),
        };
        fits.then_some(parsed)
    }
}

/// Whether a pattern matches all of this text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((literal, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(after) = text.strip_prefix(literal) else { return false };
    let is_wild = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let most = after.bytes().take(LONGEST_WILD).take_while(|byte| is_wild(byte)).count();
    (1..=most).any(|length| matches(rest, &after[length..]))
}

/// A place, and the only text that it may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    /// The place.
    pub place: Place,
    /// The text.
    pub is: Required,
}

/// The text that a place must have.
#[derive(Debug, Clone, PartialEq)]
pub enum Required {
    /// This one.
    Text(String),
    /// `{url}`: the public URL of the source, without a query.
    Url,
    /// `{key}`: one of the secrets of the source.
    Key,
}

/// Reads `certificate` or `keys` of a row.
pub(super) fn key_source(table: &mut Table<'_>) -> Option<KeySource> {
    let mut source = None;
    table.table("certificate", |table| {
        let at = table.required("at", "\"header:x-certificate-url\"", place);
        let from = table.required("from", "[\"https://keys.example.com/CERT-*\"]", fetchables);
        let name = table.required("name", "\"signatures.example.com\"", one_line);
        source = at.zip(from).zip(name).map(|((at, from), name)| KeySource::Certificate { at, from, name });
    });
    let keys = table.optional("keys", |value| {
        let keys = fetchable(value)?;
        match keys.url.only() {
            Some(_) => Ok(keys),
            None => Err(value.fault("has a `*`; posthouse posts the key's id to one URL")),
        }
    });
    source.or(keys.map(KeySource::Api))
}

/// Reads a list of URLs that may be fetched.
pub(super) fn fetchables(value: &Value<'_>) -> Result<Vec<Fetchable>, Fault> {
    bounded(value, list(fetchable, "[\"https://keys.example.com/CERT-*\"]")(value)?)
}

/// Reads a URL, or a table with `url` and `addresses`.
fn fetchable(value: &Value<'_>) -> Result<Fetchable, Fault> {
    let pattern = |value: &Value<'_>| {
        let text = text(value)?;
        UrlPattern::parse(text)
            .map_err(|problem| value.fault(format_args!("holds `{}`, which {problem}", shown(text))))
    };
    if value.get().as_str().is_some() {
        return Ok(Fetchable { url: pattern(value)?, addresses: Vec::new() });
    }
    let mut table = value.table()?;
    let url = table.required("url", "\"https://keys.example.com/CERT-*\"", pattern);
    let addresses = table.optional("addresses", list(network, "[\"10.0.0.0/8\"]")).unwrap_or_default();
    table.finish();
    // The problem with the URL is recorded already.
    url.map(|url| Fetchable { url, addresses }).ok_or(Fault::Unread)
}

/// Reads `require` of a row.
pub(super) fn requirements(value: &Value<'_>) -> Result<Vec<Requirement>, Fault> {
    let one = |value: &Value<'_>| {
        let mut table = value.table()?;
        let place = table.required("place", "\"header:x-algorithm\"", place);
        let is = table.required("is", "\"SHA256withRSA\"", one_line);
        table.finish();
        let is = is.map(|is| match is.as_str() {
            "{url}" => Required::Url,
            "{key}" => Required::Key,
            _ => Required::Text(is),
        });
        // The problem is recorded already.
        place.zip(is).map(|(place, is)| Requirement { place, is }).ok_or(Fault::Unread)
    };
    bounded(value, list(one, "[{ place = \"header:x-algorithm\", is = \"SHA256withRSA\" }]")(value)?)
}

/// Reports what does not fit together: a key that would come from nowhere, or a signature that is not for this source
/// alone.
pub(super) fn check(row: &Row, has_signed: bool, table: &Table<'_>) {
    let wrong = |key: &str, message: &str| {
        table.document.problem(table.at(key), format!("`{}` {message}", table.path(key)));
    };
    let algorithm = row.signature.algorithm;
    let has = |piece: &Piece| row.signed.contains(piece);
    for (key, needed) in [("certificate", algorithm.is_rsa()), ("keys", algorithm == Algorithm::JwtEs256)] {
        match (needed, table.has(key)) {
            (true, false) => wrong(key, "is missing, and the algorithm's key is there"),
            (false, true) => wrong(key, "has no use: the algorithm has no such key"),
            _ => {}
        }
    }
    let names_key = row.require.iter().any(|required| required.is == Required::Key);
    if names_key && !algorithm.is_rsa() {
        wrong("require", "compares a text with {key}, which is secret unless the algorithm is RSA");
    }
    if algorithm.is_rsa() && !has(&Piece::Key) && !names_key {
        wrong(
            "signed",
            "would fit what the sender signs for anybody: write {key} into it, or a `require` with is = \"{key}\"",
        );
    }
    if has(&Piece::Crc32) && (row.once.is_none() || row.timestamp.is_none()) {
        wrong(
            "signed",
            "contains {crc32}, and anybody can write another body with the same one; a `timestamp` and `once` have \
             to guard it",
        );
    }
    if has(&Piece::Sns) && row.signed.len() > 1 {
        wrong("signed", "contains more than {sns}, which is the whole text");
    }
    if algorithm.is_jwt() && has_signed {
        wrong("signed", "has no use: a JWT signs its claims; write `digest` or `require` for them");
    }
    let read = row.timestamp.iter().map(|time| &time.at).chain(&row.digest);
    let mut read = read.chain(row.require.iter().map(|required| &required.place));
    if !algorithm.is_jwt() && read.any(|place| matches!(place, Place::Claim(_))) {
        wrong("signature", "is no JWT, and a place names a claim of one");
    }
    let of_claim = |piece: &Piece| matches!(piece, Piece::Place(Place::Claim(_)));
    if row.signed.iter().any(of_claim) || matches!(row.once, Some(Place::Claim(_))) {
        wrong("signed", "names a claim, which is signed by itself");
    }
    if row.encrypted.is_some() && algorithm != Algorithm::Sha256 {
        wrong("encrypted", "is for the algorithm \"sha256\", whose key also encrypts");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_reaches_no_further_than_it_says() {
        let sns = "https://sns.*.amazonaws.com/SimpleNotificationService-*.pem";
        let confirm = "https://sns.*.amazonaws.com/?Action=ConfirmSubscription&*";
        let long = format!("https://sns.{}.amazonaws.com/SimpleNotificationService-1.pem", "a".repeat(65));
        for (pattern, url, expected) in [
            (sns, "https://sns.eu-north-1.amazonaws.com/SimpleNotificationService-0f.pem", true),
            (sns, "https://sns.eu-north-1.amazonaws.com:443/SimpleNotificationService-0f.pem", false),
            (sns, "http://sns.eu-north-1.amazonaws.com/SimpleNotificationService-0f.pem", false),
            (sns, "https://sns.eu-north-1.amazonaws.com.evil.example/SimpleNotificationService-1.pem", false),
            (sns, "https://sns.evil.example/.amazonaws.com/SimpleNotificationService-1.pem", false),
            (sns, "https://sns.a@evil.amazonaws.com/SimpleNotificationService-1.pem", false),
            (sns, "https://sns.a.b.amazonaws.com/SimpleNotificationService-1.pem", false),
            (sns, "https://sns..amazonaws.com/SimpleNotificationService-1.pem", false),
            (sns, "https://SNS.eu-north-1.amazonaws.com/SimpleNotificationService-1.pem", false),
            (sns, "https://sns.a.amazonaws.com/SimpleNotificationService-1.pem?x=.pem", false),
            (sns, "https://sns.a.amazonaws.com/SimpleNotificationService-1.pem#.pem", false),
            (sns, "https://sns.a.amazonaws.com/SimpleNotificationService-../x.pem", false),
            (sns, "https://sns.a.amazonaws.com/SimpleNotificationService-%2e.pem", false),
            (sns, "https://sns.a.amazonaws.com/a/SimpleNotificationService-1.pem", false),
            (sns, "https://sns.a.amazonaws.com/SimpleNotificationService-.pem", false),
            (sns, " https://sns.a.amazonaws.com/SimpleNotificationService-1.pem", false),
            (sns, &long, false),
            (confirm, "https://sns.a.amazonaws.com/?Action=ConfirmSubscription&Token=1&x=arn:aws", true),
            (confirm, "https://sns.a.amazonaws.com/?Action=ConfirmSubscription", false),
            (confirm, "https://sns.a.amazonaws.com/?Action=Publish&Action=ConfirmSubscription&", false),
            (confirm, "https://sns.a.amazonaws.com/x?Action=ConfirmSubscription&Token=1", false),
            (confirm, "https://sns.a.amazonaws.com/?Action=ConfirmSubscription&Token=1#x", false),
            ("https://a.example:8443/k", "https://a.example:8443/k", true),
            ("https://a.example:8443/k", "https://a.example/k", false),
        ] {
            let pattern = UrlPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matched(url).is_some(), expected, "{url}");
        }
    }

    #[test]
    fn a_pattern_that_is_too_wide_or_no_url_is_refused() {
        for (text, told) in [
            ("http://a.example/", "https://"),
            ("https://a.example", "plain form"),
            ("https://user@a.example/", "plain form"),
            ("https://a.example/#x", "plain form"),
            ("https://A.example/", "plain form"),
            ("https://*.example/", "anybody may register"),
            ("https://a.*/", "anybody may register"),
            ("https://a*.example/", "anybody may register"),
            ("https://*.*.*.a.example/", "more than 2"),
            ("https://a.example/?*=1", "within its query"),
        ] {
            let error = UrlPattern::parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        let only = |text: &str| UrlPattern::parse(text).unwrap().only().is_some();
        assert!(only("https://a.example/k") && !only("https://a.example/*"));
    }
}
