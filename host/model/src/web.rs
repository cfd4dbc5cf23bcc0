//! The HTTP requests that a plugin makes, and the URLs that it may request.
//!
//! A [`WebPattern`] is a scheme, a host or all hosts below a domain, a port and, optionally, the beginning of
//! a path. It is compared with a URL that has been parsed and so normalised: hosts in lower case and
//! punycode, numbers as addresses, `.` and `..` resolved.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};
use url::{Host, Url};

use super::{Secret, octets};

/// The URLs that may be requested: `https://api.example.com`, `https://*.example.com:8443/v1/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebPattern {
    https: bool,
    host: Hosts,
    port: u16,
    /// The segments that a path must begin with. Empty means any path.
    path: Vec<String>,
}

/// The hosts that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    One(Host<String>),
    /// All hosts below this domain, and not the domain itself.
    Below(String),
}

/// Why a text is not a pattern of URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebPattern {
    /// It can't be parsed.
    #[error("is no URL ({0})")]
    NoUrl(#[from] url::ParseError),
    /// It is neither HTTP nor HTTPS.
    #[error("is neither http:// nor https://")]
    Scheme,
    /// It names no host.
    #[error("names no host")]
    NoHost,
    /// It contains a `*` that is not the whole first part of a name.
    #[error("has a `*` that does not replace sub-domains, as in https://*.example.com")]
    Wildcard,
    /// It contains a name or a password.
    #[error("contains a login; put credentials into a header of the grant")]
    Login,
    /// It has a query or a fragment.
    #[error("has a query or a fragment; only scheme, host, port and the beginning of a path are allowed")]
    Query,
    /// Its path can be read in more than one way.
    #[error("has a path with an encoded `/`, `.` or `\\`, which servers read in different ways")]
    Path,
}

impl WebPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`InvalidWebPattern`] says why the text is not a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidWebPattern> {
        let (bare, wildcard) = match text.split_once("://*.") {
            Some((scheme, rest)) => (format!("{scheme}://{rest}"), true),
            None => (text.to_owned(), false),
        };
        let url = Url::parse(&bare)?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(InvalidWebPattern::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidWebPattern::Login);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidWebPattern::Query);
        }
        if url.path().contains('*') {
            return Err(InvalidWebPattern::Wildcard);
        }
        let host = match url.host().ok_or(InvalidWebPattern::NoHost)? {
            Host::Domain(name) if name.contains('*') => return Err(InvalidWebPattern::Wildcard),
            Host::Domain(name) if wildcard => Hosts::Below(name.to_owned()),
            _ if wildcard => return Err(InvalidWebPattern::Wildcard),
            host => Hosts::One(host.to_owned()),
        };
        let port = url.port_or_known_default().ok_or(InvalidWebPattern::NoHost)?;
        let path = segments(&url).ok_or(InvalidWebPattern::Path)?;
        Ok(Self { https, host, port, path })
    }

    /// Whether a request to this URL is allowed.
    pub fn matches(&self, url: &Url) -> bool {
        self.matches_origin(url)
            && (self.path.is_empty() || segments(url).is_some_and(|path| path.starts_with(&self.path)))
    }

    /// Like [`Self::matches`], but for any path.
    pub fn matches_origin(&self, url: &Url) -> bool {
        let host = match (&self.host, url.host()) {
            (Hosts::One(Host::Domain(own)), Some(Host::Domain(name))) => own == name,
            (Hosts::One(Host::Ipv4(own)), Some(Host::Ipv4(ip))) => *own == ip,
            (Hosts::One(Host::Ipv6(own)), Some(Host::Ipv6(ip))) => *own == ip,
            (Hosts::Below(domain), Some(Host::Domain(name))) => name
                .strip_suffix(domain.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|below| !below.is_empty()),
            _ => false,
        };
        host && url.scheme() == self.scheme() && url.port_or_known_default() == Some(self.port)
    }

    /// The host that the pattern names. None if it matches several.
    pub fn host(&self) -> Option<&Host<String>> {
        match &self.host {
            Hosts::One(host) => Some(host),
            Hosts::Below(_) => None,
        }
    }

    /// Whether its URLs are requested in clear text.
    pub fn in_clear(&self) -> bool {
        !self.https
    }

    fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

/// The segments of a path. Empty segments at its end do not count. None if a segment contains, encoded,
/// something that some servers read as a separator or as `..`.
fn segments(url: &Url) -> Option<Vec<String>> {
    let mut segments: Vec<String> = url.path_segments()?.map(str::to_owned).collect();
    while segments.last().is_some_and(String::is_empty) {
        segments.pop();
    }
    let plain = |segment: &String| {
        let decoded: Vec<u8> = percent_decode_str(segment).collect();
        // Some servers take what follows a `;` as a parameter and not as part of the name.
        let name = decoded.split(|byte| *byte == b';').next().unwrap_or_default();
        !decoded.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0)) && name != b"." && name != b".."
    };
    segments.iter().all(plain).then_some(segments)
}

impl fmt::Display for WebPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        match &self.host {
            Hosts::One(host) => write!(f, "{host}")?,
            Hosts::Below(domain) => write!(f, "*.{domain}")?,
        }
        if self.port != if self.https { 443 } else { 80 } {
            write!(f, ":{}", self.port)?;
        }
        self.path.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

/// One place that a plugin may send requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    /// The URLs.
    pub url: WebPattern,
    /// Private, local or special addresses that its names may resolve to.
    pub addresses: Vec<IpNet>,
    /// Headers that the host adds to each request, with names in lower case. The guest never sees their
    /// values.
    pub header: BTreeMap<String, Secret>,
    /// The keys with which the host signs each request, by Standard Webhooks. The guest never sees them.
    pub sign: Vec<Secret>,
}

/// The key in a secret of Standard Webhooks: base64, after `whsec_` or not. None if it is no base64, or empty.
pub fn webhook_key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?;
    (!key.is_empty()).then_some(key)
}

/// The form that operators see: names of headers, and no values.
impl Serialize for HttpGrant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("HttpGrant", 4)?;
        fields.serialize_field("url", &self.url.to_string())?;
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        fields.serialize_field("addresses", &addresses)?;
        fields.serialize_field("header", &self.header.keys().collect::<Vec<_>>())?;
        fields.serialize_field("signed", &!self.sign.is_empty())?;
        fields.end()
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)?;
        let signature = (!self.sign.is_empty()).then_some("a signature");
        let names: Vec<_> = self.header.keys().map(String::as_str).chain(signature).collect();
        let nets: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        match (names.join(", "), nets.join(", ")) {
            (names, nets) if names.is_empty() && nets.is_empty() => Ok(()),
            (names, nets) if nets.is_empty() => write!(f, " (with {names})"),
            (names, nets) if names.is_empty() => write!(f, " (also at {nets})"),
            (names, nets) => write!(f, " (with {names}; also at {nets})"),
        }
    }
}

/// Whether only the host sets this header, so that neither a guest nor a grant can. The name must be in lower
/// case.
pub fn is_reserved_header(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "host"
            | "http2-settings"
            | "idempotency-key"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// A request that is complete and checked, except for what the grant adds when it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebRequest {
    /// Its `Idempotency-Key`, the same in every attempt and every sending.
    pub key: String,
    /// The method.
    pub method: String,
    /// The URL, parsed and written out again.
    pub url: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(with = "octets")]
    pub body: Vec<u8>,
}

impl WebRequest {
    /// The origin of its URL, and the rest.
    pub fn parts(&self) -> (&str, &str) {
        url_parts(&self.url)
    }

    /// The request's size in bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + self.method.len() + self.url.len() + headers + self.body.len()
    }
}

/// The origin of a URL, and the rest.
pub fn url_parts(url: &str) -> (&str, &str) {
    let host = url.find("://").map_or(0, |at| at + 3);
    url.split_at(url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> WebPattern {
        WebPattern::parse(text).unwrap_or_else(|error| panic!("{text} {error}"))
    }

    #[test]
    fn a_pattern_means_its_origin_and_all_below_its_path() {
        let cases = [
            ("https://api.example.com", "https://api.example.com/", true),
            ("https://api.example.com", "https://API.example.com:443/a?b#c", true),
            ("https://api.example.com", "http://api.example.com/", false),
            ("https://api.example.com", "https://api.example.com:8443/", false),
            ("https://api.example.com", "https://api.example.com.evil.test/", false),
            ("https://api.example.com", "https://evil.test/api.example.com", false),
            ("https://api.example.com", "https://api.example.com@evil.test/", false),
            ("https://api.example.com", "https://evil.test\\@api.example.com/", false),
            ("https://bücher.example", "https://xn--bcher-kva.example/", true),
            ("https://*.example.com", "https://a.example.com/", true),
            ("https://*.example.com", "https://a.b.example.com/", true),
            ("https://*.example.com", "https://example.com/", false),
            ("https://*.example.com", "https://.example.com/", false),
            ("https://*.example.com", "https://evilexample.com/", false),
            ("http://127.0.0.1:8080", "http://2130706433:8080/", true),
            ("http://127.0.0.1:8080", "http://0x7f.1:8080/", true),
            ("http://127.0.0.1:8080", "http://localhost:8080/", false),
            ("http://[::1]", "http://[0:0::1]/", true),
            ("https://a.example/v1", "https://a.example/v1", true),
            ("https://a.example/v1", "https://a.example/v1/", true),
            ("https://a.example/v1/", "https://a.example/v1/users", true),
            ("https://a.example/v1/", "https://a.example/v10/users", false),
            ("https://a.example/v1/", "https://a.example/", false),
            ("https://a.example/v1/", "https://a.example/v1/../admin", false),
            ("https://a.example/v1/", "https://a.example/v1/%2e%2e/admin", false),
            ("https://a.example/v1/", "https://a.example/v1\\..\\admin", false),
            ("https://a.example/v1/", "https://a.example/v1/..%2fadmin", false),
            ("https://a.example/v1/", "https://a.example/v1/..%5cadmin", false),
            ("https://a.example/v1/", "https://a.example/v1/..;/admin", false),
            ("https://a.example/v1/", "https://a.example/v1/a%20b/c.d", true),
            ("https://a.example", "https://a.example/x/..%2fy", true),
        ];
        for (text, url, matches) in cases {
            let Ok(url) = Url::parse(url) else { panic!("{url} is no URL") };
            assert_eq!(pattern(text).matches(&url), matches, "{text} and {url}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, says) in [
            ("api.example.com", "is no URL"),
            ("ftp://a.example", "neither http"),
            ("https://", "is no URL"),
            ("https://*", "`*`"),
            ("https://a.*.example", "`*`"),
            ("https://*.1.2.3.4", "`*`"),
            ("https://a.example/*", "`*`"),
            ("https://user@a.example", "login"),
            ("https://a.example/?q", "query"),
            ("https://a.example/a%2fb", "encoded"),
        ] {
            let error = WebPattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_pattern_is_shown_as_it_could_be_written() {
        for text in ["https://a.example", "http://*.a.example:8080/v1/x", "https://[::1]:8443"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn a_request_is_kept_whole() {
        let request = WebRequest {
            key: "dlv_7-1".into(),
            method: "POST".into(),
            url: "https://a.example/v1?token=hunter2".into(),
            headers: vec![("x-a".into(), "b".into())],
            body: vec![0, 255],
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<WebRequest>(&text).unwrap(), request);
    }

    #[test]
    fn a_grant_never_shows_its_secrets() {
        let grant = HttpGrant {
            url: pattern("https://a.example"),
            addresses: vec!["10.0.0.0/8".parse().unwrap()],
            header: [("authorization".to_owned(), Secret::new("hunter2"))].into(),
            sign: vec![Secret::new("whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==")],
        };
        let shown = [format!("{grant:?}"), grant.to_string(), serde_json::to_string(&grant).unwrap()];
        assert!(shown.iter().all(|text| !text.contains("hunter2") && !text.contains("aHVu")), "{shown:?}");
        assert_eq!(shown[1], "https://a.example (with authorization, a signature; also at 10.0.0.0/8)");
    }
}
