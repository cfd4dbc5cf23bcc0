//! One plugin's access to HTTP: a client for each entry of its grant, and the way of a request through them.
//!
//! ```text
//!   request ─► gate: the first entry that matches the URL ─► its headers ─► send ─► response
//!                ▲                                                             │
//!                └──── the redirect's URL, checked like the first ◄─── 3xx ────┘
//! ```
//!
//! The grant's headers and its signature are sent only to the origin of the request's URL, and not to any other that a
//! redirect names. The guest's own login headers are not sent to another origin either.

use std::{error::Error, io::ErrorKind, time::Duration};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use posthouse_model::{Env, HttpGrant, TRACEPARENT, TraceContext, WebRequest, config::Limits, octets};
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    Shared,
    address::Reach,
    refusal::Refusal,
    request::{HEADERS, read_headers, read_method, read_url},
    resolve::{AddressFilter, OutOfReach},
    reuse::{self, Noted, was_dead},
    sign::Signer,
    wait::retry_after,
};

/// The most redirects that are followed.
const REDIRECTS: usize = 10;
/// The timeout of connecting.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(30);
/// The most idle connections kept to one host.
const IDLE_CONNECTIONS: usize = 8;
/// Bytes that one HTTP/2 request may have in flight, and all requests of one connection together. This much may
/// wait in memory for a slow reader.
const WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of the longest head that is read over HTTP/2, as HTTP/2 counts them. It is more than `http_headers`
/// can be.
const HEAD: u32 = 512 << 10;
/// How long an HTTP/2 connection may be silent before a ping, while a request waits, and how long the answer
/// may take. A connection that several requests share must not outlive a network that hangs.
const SILENCE: Duration = Duration::from_secs(10);
const LAST_WORD: Duration = Duration::from_secs(5);
/// The most headers of a response that are read. It is more than a guest may have, since the outbox needs only
/// the status. hyper fills an array of this length for each head, and a server can send 1xx heads without end.
const READ_HEADERS: usize = 512;
/// How many bytes of an unwanted response are read so that its connection can be reused, and for how long.
const UNWANTED: usize = 64 << 10;
const UNWANTED_TIME: Duration = Duration::from_secs(2);
/// Bytes that a header has beside its name and its value.
const PER_HEADER: usize = 4;

/// The limits of a request and its response.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a request's body.
    pub request: usize,
    /// Bytes of a response's body.
    pub response: usize,
    /// Bytes of the headers of either.
    pub headers: usize,
    /// The time from the first connection to the last byte.
    pub time: Duration,
}

impl Bounds {
    /// The limits of one attempt's fetches.
    pub fn of(limits: &Limits) -> Self {
        Self {
            request: limits.http_request,
            response: limits.http_response,
            headers: limits.http_headers,
            time: limits.http_time,
        }
    }
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebResponse {
    /// Its status.
    pub status: u16,
    /// Its headers. Bytes beyond ASCII are read as Latin-1.
    pub headers: Vec<(String, String)>,
    /// Its body.
    #[serde(with = "octets")]
    pub body: Vec<u8>,
}

/// The result of sending a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The status.
    pub status: StatusCode,
    /// The value of `Retry-After`.
    pub retry_after: Option<String>,
}

/// One plugin's access to HTTP, with its connections.
pub struct PluginHttp {
    pub(super) plugin: String,
    gates: Vec<GrantClient>,
    env: Env,
}

/// One entry of the grant.
pub(super) struct GrantClient {
    pub(super) grant: HttpGrant,
    /// The clients, or why they can't be made.
    clients: Result<Clients, String>,
    /// Signs requests. None if the grant has no key.
    signer: Option<Signer>,
}

/// The clients of one entry.
pub(super) struct Clients {
    /// Keeps its connections for the next request.
    pooled: reqwest::Client,
    /// Makes a connection for each request.
    fresh: reqwest::Client,
}

/// The redirects to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    /// All redirects, as browsers follow them: a POST may become a GET.
    All,
    /// Redirects that leave method and body unchanged.
    Unchanged,
}

impl PluginHttp {
    pub(super) fn new(plugin: &str, grants: &[HttpGrant], shared: &Shared) -> Self {
        let Shared { tls, names, env, .. } = shared;
        let gate = |grant: &HttpGrant| {
            let filter = AddressFilter { names: names.clone(), reach: Reach::of(grant) };
            let client = |idle| {
                reqwest::Client::builder()
                    .tls_backend_preconfigured(tls.clone())
                    .dns_resolver(filter.clone())
                    .connector_layer(Noted)
                    .no_proxy()
                    .redirect(Policy::none())
                    .referer(false)
                    .user_agent(concat!("posthouse/", env!("CARGO_PKG_VERSION")))
                    .connect_timeout(CONNECT)
                    .pool_idle_timeout(IDLE)
                    .pool_max_idle_per_host(idle)
                    .http1_max_headers(READ_HEADERS)
                    .http2_initial_stream_window_size(WINDOW)
                    .http2_initial_connection_window_size(CONNECTION_WINDOW)
                    .http2_max_header_list_size(HEAD)
                    .http2_keep_alive_interval(SILENCE)
                    .http2_keep_alive_timeout(LAST_WORD)
                    .build()
                    .map_err(|error| chain(&error))
            };
            let clients =
                client(IDLE_CONNECTIONS).and_then(|pooled| Ok(Clients { pooled, fresh: client(0)? }));
            GrantClient { grant: grant.clone(), clients, signer: Signer::new(&grant.sign) }
        };
        let gates = grants.iter().map(gate).collect();
        Self { plugin: plugin.to_owned(), gates, env: env.clone() }
    }

    /// Whether it was made for this grant.
    pub(super) fn has(&self, grants: &[HttpGrant]) -> bool {
        self.gates.iter().map(|gate| &gate.grant).eq(grants)
    }

    /// Makes a request and reads the response, whatever its status. If there is a trace, the request carries
    /// `traceparent`, unless the guest or the grant sets one.
    ///
    /// # Errors
    /// [`Refusal`] says why there is no response.
    pub async fn fetch(
        &self,
        request: &WebRequest,
        bounds: &Bounds,
        trace: Option<&TraceContext>,
    ) -> Result<WebResponse, Refusal> {
        within(bounds.time, async {
            let mut response = self.exchange(request, trace, Follow::All).await?;
            check_head(response.headers(), bounds)?;
            let headers = read_head(response.headers());
            let body = self.body(&mut response, bounds.response).await?;
            Ok(WebResponse { status: response.status().as_u16(), headers, body })
        })
        .await
    }

    /// Makes a request and returns the response without its body. The other side has the request once there is a status,
    /// so nothing that follows is an error: a head beyond the bounds is left out. It does not follow a redirect that
    /// would change the method or the body.
    ///
    /// # Errors
    /// [`Refusal`] says why there is no response.
    pub async fn deliver(
        &self,
        request: &WebRequest,
        bounds: &Bounds,
        trace: Option<&TraceContext>,
    ) -> Result<WebResponse, Refusal> {
        let mut response = within(bounds.time, self.exchange(request, trace, Follow::Unchanged)).await?;
        let mut headers = match check_head(response.headers(), bounds) {
            Ok(()) => read_head(response.headers()),
            Err(_) => Vec::new(),
        };
        // A guest may have no clock to compare a date with.
        for (_, value) in headers.iter_mut().filter(|(name, _)| name == header::RETRY_AFTER.as_str()) {
            if let Some(wait) = retry_after(value, self.env.now()) {
                *value = wait.as_secs().to_string();
            }
        }
        let status = response.status().as_u16();
        self.drop_body(&mut response).await;
        Ok(WebResponse { status, headers, body: Vec::new() })
    }

    /// Makes a request and returns only the status and `Retry-After`. The rest of the response does not matter.
    /// It does not follow a redirect that would change the method or the body.
    ///
    /// # Errors
    /// [`Refusal`] says why there is no response.
    pub async fn send(
        &self,
        request: &WebRequest,
        bounds: &Bounds,
        trace: Option<&TraceContext>,
    ) -> Result<Sent, Refusal> {
        let mut response = within(bounds.time, self.exchange(request, trace, Follow::Unchanged)).await?;
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let sent = Sent { status: response.status(), retry_after };
        self.drop_body(&mut response).await;
        Ok(sent)
    }

    /// Reads some of a body that nobody wants. The status is known, so a failure changes nothing.
    async fn drop_body(&self, response: &mut reqwest::Response) {
        drop(tokio::time::timeout(UNWANTED_TIME, self.body(response, UNWANTED)).await);
    }

    async fn exchange(
        &self,
        request: &WebRequest,
        trace: Option<&TraceContext>,
        follow: Follow,
    ) -> Result<reqwest::Response, Refusal> {
        let mut method = read_method(&request.method)?;
        let mut url = read_url(&request.url)?;
        let mut headers = read_headers(&request.headers)?;
        let mut body = Bytes::from(request.body.clone());
        let key = HeaderValue::from_str(&request.key)
            .map_err(|_| Refusal::invalid("key", "is not allowed in a header"))?;
        headers.insert(HeaderName::from_static("idempotency-key"), key.clone());
        // A guest that sets its own `traceparent` has precedence.
        let traceparent = HeaderName::from_static(TRACEPARENT);
        if let Some(value) = trace.and_then(|trace| HeaderValue::from_str(&trace.to_string()).ok())
            && !headers.contains_key(&traceparent)
        {
            headers.insert(traceparent, value);
        }
        let origin = url.origin();
        let mut from: Option<Url> = None;
        for _ in 0..=REDIRECTS {
            let (clients, gate) = self.gate(&url, from.as_ref())?;
            let mut sent = headers.clone();
            gate.grant.header.keys().for_each(|name| drop(sent.remove(name)));
            if let Some(signer) = &gate.signer {
                Signer::clear(&mut sent);
                if url.origin() == origin {
                    signer.sign(&mut sent, &key, self.env.now(), &body);
                }
            }
            if url.origin() == origin {
                gate.add_headers(&mut sent);
            }
            // Some servers answer 411 to a request that may have a body and has no Content-Length.
            if body.is_empty() && matches!(method, Method::POST | Method::PUT | Method::PATCH) {
                sent.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            let sending = |client: &reqwest::Client| {
                client.request(method.clone(), url.clone()).headers(sent.clone()).body(body.clone()).send()
            };
            let response = match reuse::sent(sending(&clients.pooled)).await {
                // The request has an Idempotency-Key, so it may be sent again even if it has arrived.
                (Err(error), true) if was_dead(&error) => sending(&clients.fresh).await,
                (response, _) => response,
            };
            let response = response.map_err(|error| self.failure(&url, gate, error))?;
            let Some(next) = redirect(&response, &url) else { return Ok(response) };
            if !keeps(response.status(), &method) {
                if follow == Follow::Unchanged {
                    return Ok(response);
                }
                method = Method::GET;
                body = Bytes::new();
                for name in [
                    header::CONTENT_TYPE,
                    header::CONTENT_ENCODING,
                    header::CONTENT_LANGUAGE,
                    header::CONTENT_LOCATION,
                ] {
                    headers.remove(name);
                }
            }
            if next.origin() != origin {
                for name in [header::AUTHORIZATION, header::COOKIE, header::WWW_AUTHENTICATE] {
                    headers.remove(name);
                }
            }
            from = Some(std::mem::replace(&mut url, next));
        }
        Err(Refusal::Failed(format!("`{}` led through more than {REDIRECTS} redirects", shown(&url))))
    }

    /// Returns the first entry that matches this URL, with its clients.
    pub(super) fn gate(&self, url: &Url, from: Option<&Url>) -> Result<(&Clients, &GrantClient), Refusal> {
        let Some(gate) = self.gates.iter().find(|gate| gate.grant.url.matches(url)) else {
            return Err(self.denied(url, from));
        };
        match &gate.clients {
            Ok(clients) => Ok((clients, gate)),
            Err(error) => Err(Refusal::Failed(format!("the client can't be created: {error}"))),
        }
    }

    fn denied(&self, url: &Url, from: Option<&Url>) -> Refusal {
        let plugin = &self.plugin;
        let led = match from {
            Some(from) => format!(", to which `{}` redirects", shown(from)),
            None => String::new(),
        };
        // If the origin is granted, only the path is not.
        let near = self.gates.iter().any(|gate| gate.grant.url.matches_origin(url));
        let asked = match url.origin() {
            _ if near => shown(url),
            origin if origin.is_tuple() => origin.ascii_serialization(),
            _ => format!("{}:", url.scheme()),
        };
        Refusal::Denied(format!(
            "plugin `{plugin}` has no grant for `{asked}`{led}; add it to `http` below \
             [plugin.{plugin}.grants] in config.toml"
        ))
    }

    fn failure(&self, url: &Url, gate: &GrantClient, error: reqwest::Error) -> Refusal {
        let error = error.without_url();
        if let Some(OutOfReach { name, ip, word }) = source(&error) {
            let (plugin, grant) = (&self.plugin, &gate.grant.url);
            return Refusal::Denied(format!(
                "plugin `{plugin}` has no grant for {ip}, to which `{name}` resolves and which is {word}; write \
                 {{ url = \"{grant}\", addresses = [\"{ip}\"] }} in `http` below [plugin.{plugin}.grants] in \
                 config.toml"
            ));
        }
        if source::<hyper::Error>(&error).is_some_and(hyper::Error::is_parse_too_large) {
            return Refusal::Unreadable(format!(
                "the response has more than {READ_HEADERS} headers, or more bytes of them than limit \
                 `http_headers` can be"
            ));
        }
        if source::<h2::Error>(&error).is_some_and(may_be_too_large) {
            return Refusal::Unreadable(
                "the response's head has more bytes than limit `http_headers` can be, or is none of HTTP/2"
                    .to_owned(),
            );
        }
        let host = url.origin().ascii_serialization();
        // An established HTTP/2 connection that fell silent does not count as a connect timeout.
        match error.is_timeout() && error.is_connect() {
            true => Refusal::Timeout(format!("no connection to `{host}` within {CONNECT:?}")),
            false => Refusal::Failed(format!("no response from `{host}`: {}", said(&error))),
        }
    }

    /// Reads a body within its limit.
    async fn body(&self, response: &mut reqwest::Response, most: usize) -> Result<Vec<u8>, Refusal> {
        let over = |has: String| Refusal::too_large("the response's body", has, "http_response", most);
        if let Some(length) = response.content_length().filter(|length| *length > most as u64) {
            return Err(over(length.to_string()));
        }
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await;
            match chunk.map_err(|error| {
                Refusal::Failed(format!("the response was interrupted: {}", said(&error.without_url())))
            })? {
                Some(chunk) if body.len() + chunk.len() > most => return Err(over("more".to_owned())),
                Some(chunk) => body.extend_from_slice(&chunk),
                None => return Ok(body),
            }
        }
    }
}

impl GrantClient {
    fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, secret) in &self.grant.header {
            // Both were checked when config.toml was read.
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(secret.expose()))
            {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
    }
}

fn read_head(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), latin1(value.as_bytes()))).collect()
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    tokio::time::timeout(time, work)
        .await
        .unwrap_or_else(|_| Err(Refusal::Timeout(format!("no whole response within {time:?}"))))
}

fn check_head(headers: &HeaderMap, bounds: &Bounds) -> Result<(), Refusal> {
    let bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + PER_HEADER).sum();
    if bytes > bounds.headers {
        return Err(Refusal::too_large("the response's head", bytes, "http_headers", bounds.headers));
    }
    if headers.len() > HEADERS {
        let problem = format!("the response has {} headers; {HEADERS} is the limit", headers.len());
        return Err(Refusal::Limit(problem));
    }
    Ok(())
}

/// Returns the URL to which a response redirects, if it does.
fn redirect(response: &reqwest::Response, url: &Url) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = std::str::from_utf8(response.headers().get(header::LOCATION)?.as_bytes()).ok()?;
    let mut next = url.join(location).ok()?;
    next.set_fragment(None);
    // The other side would have chosen such a login. Removing it can't fail, since the URL has a host.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Some(next)
}

/// Whether the request that follows a redirect keeps its method and body.
fn keeps(status: StatusCode, method: &Method) -> bool {
    match status.as_u16() {
        301 | 302 => *method != Method::POST,
        303 => matches!(*method, Method::GET | Method::HEAD),
        _ => true,
    }
}

/// Returns a URL without its query, which may contain a secret, and without its login.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Finds an error of this type among the causes of another.
fn source<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Whether the HTTP/2 library refused the response, because its head is too large or malformed. The library has
/// no separate error for a head that is too large.
fn may_be_too_large(error: &h2::Error) -> bool {
    let refused = error.is_library() && error.is_reset() && error.reason() == Some(Reason::PROTOCOL_ERROR);
    let far_beyond =
        error.is_library() && error.is_go_away() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    refused || far_beyond
}

/// Describes the error, in the terms of HTTP/2 if it ended the request.
fn said(error: &reqwest::Error) -> String {
    // Requests end with this error when an HTTP/2 connection closes without a message.
    if source::<std::io::Error>(error).is_some_and(|failed| failed.kind() == ErrorKind::BrokenPipe) {
        return "the connection was interrupted".to_owned();
    }
    match source::<h2::Error>(error) {
        Some(ended) if ended.is_remote() => {
            let what = if ended.is_go_away() { "the connection" } else { "the request" };
            match ended.reason() {
                Some(reason) => format!("the other side ended {what} ({reason:?})"),
                None => format!("the other side ended {what}"),
            }
        }
        _ => chain(error),
    }
}

/// Returns an error with its causes.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = error.source();
    }
    text
}
