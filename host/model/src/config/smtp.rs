//! Parses the URL of a mail server, once. The outbox connects to what this returns.
//!
//! | URL | connection | port |
//! | --- | --- | --- |
//! | `smtps://host` | TLS from the first byte | 465 |
//! | `smtp://host?tls=required` | STARTTLS, or nothing is sent | 587 |
//! | `smtp://host?tls=opportunistic` | STARTTLS if the server offers it | 587 |
//! | `smtp://host` | without TLS | 25 |
//!
//! `user:password@` before the host is the login, percent-encoded if necessary. A path is the name for EHLO. An
//! error contains nothing of the URL, since the URL may contain a password.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::Secret;
use crate::ascii_domain;

/// A mail server, and how to connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpServer {
    /// Its name or address; an IPv6 address without brackets.
    pub host: String,
    /// The port; that of [`SmtpTls`] if the URL names none.
    pub port: u16,
    /// When the connection is encrypted.
    pub tls: SmtpTls,
    /// The login, if there is one.
    pub login: Option<SmtpLogin>,
    /// The name for EHLO, if the URL contains one; otherwise the machine's host name is used.
    pub hello: Option<String>,
}

/// When a connection to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// Never; port 25.
    None,
    /// By STARTTLS if the server offers it; port 587.
    Opportunistic,
    /// By STARTTLS, or nothing is sent; port 587.
    Required,
    /// From the first byte; port 465.
    Wrapper,
}

/// The login at a mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpLogin {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// Why a text is no URL of a mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SmtpUrlError {
    #[error("is no URL ({0})")]
    NoUrl(#[from] url::ParseError),
    #[error("is no mail target")]
    Scheme,
    #[error("names no host")]
    NoHost,
    #[error("has a `tls` that is neither `required` nor `opportunistic`")]
    Tls,
    #[error("has a login that is not percent-encoded UTF-8")]
    Login,
}

impl SmtpServer {
    pub(super) fn parse(text: &str) -> Result<Self, SmtpUrlError> {
        let secure = text.starts_with("smtps://");
        if !secure && !text.starts_with("smtp://") {
            return Err(SmtpUrlError::Scheme);
        }
        let url = Url::parse(text)?;
        let host = match url.host() {
            Some(Host::Domain("")) | None => return Err(SmtpUrlError::NoHost),
            // `smtp` is no special scheme in the URL standard, so the name is still percent-encoded.
            Some(Host::Domain(name)) => ascii_domain(&decode_host(name)?).ok_or(SmtpUrlError::NoHost)?,
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
        };
        let asked = url.query_pairs().find(|(key, _)| key == "tls").map(|(_, value)| value);
        let tls = match asked.as_deref() {
            _ if secure => SmtpTls::Wrapper,
            None => SmtpTls::None,
            Some("required") => SmtpTls::Required,
            Some("opportunistic") => SmtpTls::Opportunistic,
            Some(_) => return Err(SmtpUrlError::Tls),
        };
        let login = match url.password() {
            Some(password) => {
                Some(SmtpLogin { user: decode(url.username())?, password: Secret::new(decode(password)?) })
            }
            None => None,
        };
        let hello = Some(url.path().trim_matches('/')).filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(Self { port: url.port().unwrap_or(tls.port()), host, tls, login, hello })
    }

    /// Whether others on the network may read the password.
    pub(super) fn shows_password(&self) -> bool {
        let loopback =
            self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.login.is_some() && !loopback && matches!(self.tls, SmtpTls::None | SmtpTls::Opportunistic)
    }
}

impl SmtpTls {
    fn port(self) -> u16 {
        match self {
            Self::None => 25,
            Self::Opportunistic | Self::Required => 587,
            Self::Wrapper => 465,
        }
    }
}

fn decode(text: &str) -> Result<String, SmtpUrlError> {
    percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| SmtpUrlError::Login)
}

fn decode_host(text: &str) -> Result<String, SmtpUrlError> {
    percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| SmtpUrlError::NoHost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        for (text, port, tls) in [
            ("smtp://mail.example.com", 25, SmtpTls::None),
            ("smtp://mail.example.com:1025", 1025, SmtpTls::None),
            ("smtp://mail.example.com?tls=required", 587, SmtpTls::Required),
            ("smtp://mail.example.com/me.example.com?tls=opportunistic", 587, SmtpTls::Opportunistic),
            ("smtps://user:password@mail.example.com", 465, SmtpTls::Wrapper),
            ("smtp://[::1]:2525", 2525, SmtpTls::None),
        ] {
            let server = SmtpServer::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((server.port, server.tls), (port, tls), "{text}");
        }
        assert_eq!(SmtpServer::parse("smtp://[::1]").unwrap().host, "::1");
        for host in ["bücher.example", "B%C3%BCcher.example", "xn--bcher-kva.example"] {
            let server = SmtpServer::parse(&format!("smtp://{host}")).unwrap();
            assert_eq!(server.host, "xn--bcher-kva.example", "{host}");
        }
        let named = SmtpServer::parse("smtp://mail.example.com/me.example.com").unwrap();
        assert_eq!(named.hello.as_deref(), Some("me.example.com"));
        for wrong in ["mail.example.com", "smtp://", "http://a", "smtp://a?tls=maybe", "smtp://u:%ff@a"] {
            assert!(SmtpServer::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_login_is_percent_decoded() {
        let server = SmtpServer::parse("smtps://post%40house:a+b%26%3Ac&d@mail.example.com").unwrap();
        let login = SmtpLogin { user: "post@house".into(), password: Secret::new("a+b&:c&d") };
        assert_eq!(server.login, Some(login));
    }

    #[test]
    fn neither_an_error_nor_debug_names_the_password() {
        for url in ["smtp://user:hunter2@", "smtp://user:hunter2@host?tls=maybe", "ftp://user:hunter2@host"] {
            let error = SmtpServer::parse(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let server = SmtpServer::parse("smtps://user:hunter2@mail.example.com").unwrap();
        assert!(!format!("{server:?}").contains("hunter2"));
    }

    #[test]
    fn a_password_that_goes_in_clear_is_seen() {
        for (text, shows) in [
            ("smtp://u:p@mail.example.com", true),
            ("smtp://u:p@mail.example.com?tls=opportunistic", true),
            ("smtp://u:p@mail.example.com?tls=required", false),
            ("smtps://u:p@mail.example.com", false),
            ("smtp://u:p@127.0.0.1:1025", false),
            ("smtp://mail.example.com", false),
        ] {
            assert_eq!(SmtpServer::parse(text).unwrap().shows_password(), shows, "{text}");
        }
    }
}
