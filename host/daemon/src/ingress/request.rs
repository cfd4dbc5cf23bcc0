//! A request as it was received, and the address to which its sender posted it.

use bytes::Bytes;
use http::{HeaderMap, Method};
use posthouse_model::config;

/// A request as it was received, not verified.
#[derive(Debug, Clone)]
pub struct RawRequest {
    /// Its method.
    pub method: Method,
    /// Its raw query. None if its target has no `?`.
    pub query: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
}

impl RawRequest {
    /// A POST without a query.
    pub fn post(headers: HeaderMap, body: Bytes) -> Self {
        Self { method: Method::POST, query: None, headers, body }
    }

    /// All of it but the body.
    pub(super) fn head(&self) -> Head<'_> {
        Head { method: self.method.as_str(), query: self.query.as_deref(), headers: &self.headers }
    }
}

/// All of a request but its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'r> {
    pub(super) method: &'r str,
    /// The raw query. None if the target has no `?`.
    pub(super) query: Option<&'r str>,
    pub(super) headers: &'r HeaderMap,
}

/// The address of a source, as its sender has it. It is from config.toml, because any client can write any
/// `Host` into a request.
#[derive(Debug)]
pub(super) struct Address {
    /// Without a query. Empty if config.toml has none, and then no row signs it.
    pub(super) url: String,
    /// The path of the URL, or else that of the source.
    pub(super) path: String,
}

impl Address {
    pub(super) fn of(source: &config::Source) -> Self {
        let url = source.url.clone().unwrap_or_default();
        let path = url.split_once("://").map(|(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        let path = path.unwrap_or(&source.path).to_owned();
        Self { url, path }
    }

    /// The URL with some escapes undone, as HubSpot signs it.
    pub(super) fn unescaped(&self, query: Option<&str>) -> String {
        let mut url = self.url.clone();
        if let Some(query) = query {
            url.push('?');
            url.push_str(query);
        }
        const UNDONE: [(&str, char); 13] = [
            ("3A", ':'),
            ("2F", '/'),
            ("3F", '?'),
            ("40", '@'),
            ("21", '!'),
            ("24", '$'),
            ("27", '\''),
            ("28", '('),
            ("29", ')'),
            ("2A", '*'),
            ("2C", ','),
            ("3B", ';'),
            ("7E", '~'),
        ];
        let mut unescaped = String::with_capacity(url.len());
        let mut rest = url.as_str();
        while let Some(at) = rest.find('%') {
            unescaped.push_str(&rest[..at]);
            let digits = rest.get(at + 1..at + 3).unwrap_or_default();
            match UNDONE.iter().find(|(escape, _)| escape.eq_ignore_ascii_case(digits)) {
                Some((_, letter)) => {
                    unescaped.push(*letter);
                    rest = &rest[at + 3..];
                }
                None => {
                    unescaped.push('%');
                    rest = &rest[at + 1..];
                }
            }
        }
        unescaped.push_str(rest);
        unescaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::ingress::fixtures;

    #[test]
    fn the_path_is_that_of_the_url_or_of_the_source() {
        let source = |url: Option<&str>| config::Source {
            url: url.map(str::to_owned),
            ..fixtures::source("standard-webhooks")
        };
        for (url, path) in [
            (None, "/webhooks/crm"),
            (Some("https://a.example/in/crm"), "/in/crm"),
            (Some("https://a.example"), "/"),
        ] {
            assert_eq!(Address::of(&source(url)).path, path);
        }
    }

    #[test]
    fn some_escapes_are_undone_and_others_are_kept() {
        let address = Address { url: "https://a.example/%7ex%2F%20%".into(), path: String::new() };
        assert_eq!(address.unescaped(Some("q=%3a%25%é")), "https://a.example/~x/%20%?q=:%25%é");
    }
}
