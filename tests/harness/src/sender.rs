//! A source in config.toml, and a sender that posts to it with valid signatures.

use std::{io, net::SocketAddr, time::Duration};

use crate::{Answer, Connection, Event, Headers, Signer};

/// A source's signature scheme, by its name in config.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `standard-webhooks`.
    StandardWebhooks,
    /// `scalekit-documented`.
    ScalekitDocumented,
    /// `scalekit`: either of the two.
    Scalekit,
}

impl Scheme {
    /// The name in config.toml.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StandardWebhooks => "standard-webhooks",
            Self::ScalekitDocumented => "scalekit-documented",
            Self::Scalekit => "scalekit",
        }
    }
}

/// A `[[source]]`.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Its scheme.
    pub scheme: Scheme,
    /// Its secret.
    pub secret: String,
    /// Further lines of its table, as TOML.
    pub more: String,
}

impl Source {
    /// The secret of a source without its own.
    pub const SECRET: &str = "whsec_cG9zdGhvdXNlLXRlc3Qtc2VjcmV0LTAxMjM0NTY3ODk=";

    /// A source with this name at `/webhooks/<name>`, with the scheme `scalekit`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            path: format!("/webhooks/{name}"),
            scheme: Scheme::Scalekit,
            secret: Self::SECRET.into(),
            more: String::new(),
        }
    }

    /// Sets the scheme.
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// Sets the secret.
    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = secret.into();
        self
    }

    /// Adds a line, such as `events = ["user.*"]`.
    pub fn line(mut self, line: &str) -> Self {
        self.more += line;
        self.more.push('\n');
        self
    }

    /// The signer for it: by Standard Webhooks if its scheme accepts that.
    pub fn signer(&self) -> Signer {
        match self.scheme {
            Scheme::StandardWebhooks | Scheme::Scalekit => Signer::Standard(self.secret.clone()),
            Scheme::ScalekitDocumented => Signer::Documented(self.secret.clone()),
        }
    }

    pub(crate) fn toml(&self) -> String {
        let Self { name, path, scheme, secret, more } = self;
        let scheme = scheme.as_str();
        format!(
            "[[source]]\nname = {name:?}\npath = {path:?}\nscheme = {scheme:?}\nsecrets = [{secret:?}]\n{more}\n"
        )
    }
}

/// Posts to one source of one daemon. It outlives a killed daemon, like real senders.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The address of the daemon.
    pub address: SocketAddr,
    /// The path of the source.
    pub path: String,
    /// The signer.
    pub signer: Signer,
}

impl Sender {
    /// Sets the signer.
    pub fn signed_by(mut self, signer: Signer) -> Self {
        self.signer = signer;
        self
    }

    /// Posts an event, signed now, on a new connection.
    ///
    /// # Panics
    /// If no answer arrives.
    #[track_caller]
    pub fn post_event(&self, event: &Event) -> Answer {
        let body = event.body();
        self.post(&self.signer.sign_now(&event.id, &body), &body)
    }

    /// Posts any body with any headers.
    ///
    /// # Panics
    /// If no answer arrives.
    #[track_caller]
    pub fn post(&self, headers: &Headers, body: &[u8]) -> Answer {
        request("POST", &format!("http://{}{}", self.address, self.path), headers, Some(body))
            .unwrap_or_else(|error| panic!("POST {}: {error}", self.path))
    }

    /// Posts an event on `connection`, which is opened if it is none, and dropped on an error.
    ///
    /// # Errors
    /// If no answer arrives: the event may be in the store or not.
    pub fn try_post_event(&self, connection: &mut Option<Connection>, event: &Event) -> io::Result<Answer> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(self.address)?,
        };
        let body = event.body();
        let answer = open.post(&self.path, &self.signer.sign_now(&event.id, &body), &body)?;
        *connection = Some(open);
        Ok(answer)
    }
}

/// Sends one request on a new connection, so that a stale connection never causes a second try.
pub(crate) fn request(
    method: &str,
    url: &str,
    headers: &Headers,
    body: Option<&[u8]>,
) -> Result<Answer, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(0)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut response = match body {
        Some(body) => agent.run(request.body(body)?)?,
        None => agent.run(request.body(())?)?,
    };
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    Ok(Answer { status: response.status().as_u16(), headers, body: response.body_mut().read_to_string()? })
}
