//! An `[[interceptor]]` in config.toml, and a sender that asks it and waits for the answer. The requests have the
//! form of Scalekit's page.

use std::{io, net::SocketAddr};

use serde_json::{Value, json};

use crate::{Answer, Connection, Daemon, Headers, Signer, sender::request};

/// An `[[interceptor]]`.
#[derive(Debug, Clone)]
pub struct Interceptor {
    /// Its name. Its path is `/interceptors/<name>`.
    pub name: String,
    /// The plugin that decides.
    pub plugin: String,
    /// Further lines of its table, as TOML.
    pub more: String,
}

impl Interceptor {
    /// The secret of every interceptor of the tests.
    pub const SECRET: &str = "whsec_cG9zdGhvdXNlLXRlc3Qtc2VjcmV0LTAxMjM0NTY3ODk=";

    /// An interceptor for all triggers, whose plugin decides.
    pub fn new(name: &str, plugin: &str) -> Self {
        Self { name: name.into(), plugin: plugin.into(), more: String::new() }
    }

    /// Adds a line, such as `on_failure = "allow"`.
    pub fn line(mut self, line: &str) -> Self {
        self.more += line;
        self.more.push('\n');
        self
    }

    /// Its path.
    pub fn path(&self) -> String {
        format!("/interceptors/{}", self.name)
    }

    /// Its table.
    pub fn toml(&self) -> String {
        let Self { name, plugin, more } = self;
        let (path, secret) = (self.path(), Self::SECRET);
        format!(
            "[[interceptor]]\nname = {name:?}\npath = {path:?}\nsecrets = [{secret:?}]\ntriggers = [\"*\"]\n\
             plugin = {plugin:?}\n{more}\n"
        )
    }

    /// The headers of a request, signed now.
    pub fn headers(id: &str, body: &[u8]) -> Headers {
        let signed = Signer::Standard(Self::SECRET.into()).sign_now(id, body);
        signed.into_iter().map(|(name, value)| (name.replace("webhook-", "interceptor-"), value)).collect()
    }

    /// Asks about a sign-up with this `data`.
    ///
    /// # Panics
    /// If no answer arrives.
    #[track_caller]
    pub fn ask(&self, daemon: &Daemon, id: &str, data: Value) -> Answer {
        let body = sign_up("mira@example.com", data);
        self.post(daemon, &Self::headers(id, &body), &body)
    }

    /// Posts any body with any headers.
    ///
    /// # Panics
    /// If no answer arrives.
    #[track_caller]
    pub fn post(&self, daemon: &Daemon, headers: &Headers, body: &[u8]) -> Answer {
        request("POST", &daemon.url(&self.path()), headers, Some(body))
            .unwrap_or_else(|error| panic!("POST {}: {error}", self.path()))
    }

    /// Asks on `connection`, which is opened if it is none, and dropped on an error.
    ///
    /// # Errors
    /// If no answer arrives: it may be decided or not.
    pub fn try_ask(
        &self,
        address: SocketAddr,
        connection: &mut Option<Connection>,
        id: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(address)?,
        };
        let answer = open.post(&self.path(), &Self::headers(id, body), body)?;
        *connection = Some(open);
        Ok(answer)
    }
}

/// The body of a request about a person who signs up.
pub fn sign_up(email: &str, data: Value) -> Vec<u8> {
    let context = json!({
        "environment_id": "env_1", "user_email": email, "ip_address": "203.0.113.24", "region": "NO",
        "device_type": "Desktop", "triggered_at": "2026-11-30T21:19:58Z",
    });
    let body = json!({
        "display_name": "Sign-up", "trigger_point": "PRE_SIGNUP", "interceptor_context": context, "data": data,
    });
    body.to_string().into_bytes()
}
