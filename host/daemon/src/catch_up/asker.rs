//! Asks a sender's API for one page: no faster than the rate allows, again after a failure that may pass, and with a
//! token that is renewed in time.
//!
//! Each request passes the rules for outgoing requests, as if the source's URL were a plugin's only grant: no other
//! origin, no private address that the operator does not name, bounded answers. Errors contain no credentials and
//! nothing of an answer but its status.

use std::{sync::Arc, time::Duration};

use posthouse_egress::{Bounds, Draft, Egress, PluginHttp, Refusal, WebResponse, retry_after};
use posthouse_model::{
    Env, Secret,
    config::{CatchUp, CatchUpLogin},
};
use serde::Deserialize;
use serde_json::error::Category;
use tokio::time::Instant;

use super::{List, NoPage, Page, Window, scalekit, stripe};

/// The limits of one request.
const BOUNDS: Bounds =
    Bounds { request: 64 << 10, response: 16 << 20, headers: 64 << 10, time: Duration::from_secs(30) };

/// Attempts of one request.
const ATTEMPTS: u32 = 4;

/// The wait before the second attempt. Each further one is twice as long.
const WAIT: Duration = Duration::from_millis(500);

/// The longest wait that the sender may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A token is renewed when this share of its lifetime has passed.
const RENEWAL: f64 = 0.8;

/// Asks the sender of one source.
pub(super) struct Asker {
    http: Arc<PluginHttp>,
    settings: CatchUp,
    env: Env,
    token: Option<Token>,
    /// When the next request may begin.
    next_at: Instant,
    requests: u64,
}

struct Token {
    text: Secret,
    until: Instant,
}

/// An answer that is no page.
enum NoAnswer {
    /// It may be there another time, but not before this has passed.
    Later(String, Option<Duration>),
    /// The credentials are refused.
    Unauthorized(String),
    TooLarge,
    Failed(String),
}

impl Asker {
    pub(super) fn new(source: &str, settings: &CatchUp, egress: &Egress, env: Env) -> Self {
        let grants: Vec<_> = settings.grant().into_iter().collect();
        // No plugin has a colon in its name.
        let http = egress.plugin_http(&format!("catch-up:{source}"), &grants);
        let settings = settings.clone();
        Self { http, settings, env, token: None, next_at: Instant::now(), requests: 0 }
    }

    async fn ask(&mut self, window: Window, cursor: Option<&str>, size: usize) -> Result<Page, NoAnswer> {
        let url = self.settings.url.clone();
        match self.settings.login.clone() {
            CatchUpLogin::Stripe { api_key } => {
                let draft = stripe::page_request(&url, &api_key, window, cursor, size);
                let answer = self.exchange(draft).await?;
                stripe::page(&answer.body).map_err(NoAnswer::Failed)
            }
            CatchUpLogin::Scalekit { client_id, client_secret } => {
                let token = self.token(&client_id, &client_secret).await?;
                let draft = scalekit::page_request(&url, &token, window, cursor, size);
                let answer = self.exchange(draft).await?;
                scalekit::page(&answer.body).map_err(NoAnswer::Failed)
            }
        }
    }

    /// The token in use, or a new one.
    async fn token(&mut self, client_id: &str, client_secret: &Secret) -> Result<Secret, NoAnswer> {
        if let Some(token) = self.token.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.text.clone());
        }
        let draft = scalekit::token_request(&self.settings.url, client_id, client_secret);
        let answer = self.exchange(draft).await?;
        let no_token = || NoAnswer::Failed("the answer to the request for a token has none".to_owned());
        let (text, lifetime) = scalekit::token(&answer.body).ok_or_else(no_token)?;
        let until = Instant::now() + lifetime.min(Duration::from_secs(24 * 3600)).mul_f64(RENEWAL);
        self.token = Some(Token { text: text.clone(), until });
        Ok(text)
    }

    /// Makes a request when the rate allows it. Only 2xx is an answer.
    async fn exchange(&mut self, draft: Draft) -> Result<WebResponse, NoAnswer> {
        tokio::time::sleep_until(self.next_at).await;
        self.next_at = Instant::now() + Duration::from_secs_f64(1.0 / self.settings.rate);
        self.requests += 1;
        let key = format!("{:016x}{:016x}", self.env.random_u64(), self.env.random_u64());
        let request = self.http.check(draft, key, &BOUNDS).map_err(|refusal| self.refused(refusal))?;
        let answer =
            self.http.fetch(&request, &BOUNDS, None).await.map_err(|refusal| self.refused(refusal))?;
        let error = format!("`{}` answered with status {}", self.host(), answer.status);
        match answer.status {
            200..=299 => Ok(answer),
            401 | 403 => {
                Err(NoAnswer::Unauthorized(format!("{error}; check the credentials of [source.catch_up]")))
            }
            408 | 425 | 429 | 500..=599 => {
                let wanted = answer.headers.iter().find(|(name, _)| name == "retry-after");
                let after = wanted.and_then(|(_, value)| retry_after(value, self.env.now()));
                Err(NoAnswer::Later(error, after))
            }
            _ => Err(NoAnswer::Failed(error)),
        }
    }

    fn host(&self) -> String {
        self.settings.url.origin().ascii_serialization()
    }

    fn refused(&self, refusal: Refusal) -> NoAnswer {
        match refusal {
            // The words of these are for plugins.
            Refusal::Denied(_) => NoAnswer::Failed(format!(
                "`{}` redirects to another host, or has a private address that `addresses` of [source.catch_up] \
                 does not name",
                self.host()
            )),
            Refusal::Limit(_) | Refusal::Unreadable(_) => NoAnswer::TooLarge,
            Refusal::Invalid(error) => NoAnswer::Failed(error),
            Refusal::Timeout(error) | Refusal::Failed(error) => NoAnswer::Later(error, None),
        }
    }
}

impl List for Asker {
    async fn page(&mut self, window: Window, cursor: Option<&str>, size: usize) -> Result<Page, NoPage> {
        let mut wait = WAIT;
        let mut renewed = false;
        for attempt in 1.. {
            let (error, after) = match self.ask(window, cursor, size).await {
                Ok(page) => return Ok(page),
                Err(NoAnswer::TooLarge) => return Err(NoPage::TooLarge),
                Err(NoAnswer::Failed(error)) => return Err(NoPage::Failed(error)),
                // A token may be withdrawn before its time.
                Err(NoAnswer::Unauthorized(_)) if self.token.take().is_some() && !renewed => {
                    renewed = true;
                    continue;
                }
                Err(NoAnswer::Unauthorized(error)) => return Err(NoPage::Failed(error)),
                Err(NoAnswer::Later(error, after)) => (error, after),
            };
            if attempt >= ATTEMPTS {
                return Err(NoPage::Failed(error));
            }
            tokio::time::sleep(after.unwrap_or(wait).min(LONGEST_WAIT)).await;
            wait *= 2;
        }
        Err(NoPage::Failed("it was not asked".to_owned()))
    }

    fn requests(&self) -> u64 {
        self.requests
    }
}

/// Reads an object with these members.
///
/// # Errors
/// Why it is none, in words that contain nothing of the answer. Those of serde may.
pub(super) fn read<'a, T: Deserialize<'a>>(answer: &'a [u8], members: &str) -> Result<T, String> {
    let no_list = || format!("the answer has not the form of a list ({members})");
    let read = serde_json::from_slice(answer).map_err(|error| match error.classify() {
        Category::Data => no_list(),
        _ => format!("the answer is not JSON: line {}, column {}", error.line(), error.column()),
    })?;
    // serde takes an array for an object too.
    if answer.trim_ascii_start().starts_with(b"{") { Ok(read) } else { Err(no_list()) }
}
