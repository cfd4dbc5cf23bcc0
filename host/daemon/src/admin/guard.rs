//! Decides which requests the admin listener answers, and for how long.
//!
//! The token keeps out clients without an account here. Two other checks protect against a browser that runs
//! beside the daemon and visits a hostile page. By DNS rebinding, that page can reach a loopback address
//! under its own name. So a `Host` that is a name is refused unless `[admin] hosts` contains it. A page's
//! request to another origin names its own origin in `Origin`.
//!
//! A program sends the token and no `Origin`. A browser sends the cookie of a session, which it got for the
//! token ([`super::session`]). It sends the cookie only from our own pages (`SameSite=Strict`), and requests
//! that change something need our own `Origin`. Without token and session there is only the login page with
//! its style, which say nothing about the daemon.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ipnet::IpNet;
use posthouse_model::{Env, config::Secret};
use subtle::ConstantTimeEq;

use super::{
    WayIn,
    audit::Actor,
    dashboard,
    error::ApiError,
    login_throttle::LoginThrottle,
    session::{LIFETIME, Sessions},
};

use crate::{
    listener::{self, Peer},
    log_limiter::LogLimiter,
};

/// The time limit for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The Content-Security-Policy of every page: it loads only what this listener serves, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Everything that a request is checked against.
pub(super) struct AccessCheck {
    token: Secret,
    listen: IpAddr,
    hosts: Vec<String>,
    proxies: Arc<[IpNet]>,
    /// The name of the cookie. It differs by port, because cookies do not tell ports apart.
    cookie: String,
    sessions: Sessions,
    login_throttle: LoginThrottle,
    gate: LogLimiter,
    env: Env,
}

impl AccessCheck {
    pub(super) fn new(listen: SocketAddr, way_in: &WayIn, env: Env) -> Self {
        Self {
            token: way_in.token.clone(),
            listen: listen.ip(),
            hosts: way_in.hosts.clone(),
            proxies: Arc::clone(&way_in.proxies),
            cookie: format!("posthouse-{}", listen.port()),
            sessions: Sessions::default(),
            login_throttle: LoginThrottle::default(),
            gate: LogLimiter::default(),
            env,
        }
    }

    /// Whether this is the token. A wrong one is counted, and its answer is delayed. Meanwhile its connection
    /// can be closed for any other, so a guesser takes no place from anybody.
    pub(super) async fn is_token(&self, given: &str, client: IpAddr) -> bool {
        if given.as_bytes().ct_eq(self.token.expose().as_bytes()).into() {
            return true;
        }
        let wait = self.login_throttle.wrong(Instant::now());
        if !wait.is_zero() {
            if let Some(held_back) = self.gate.admit() {
                tracing::warn!(?wait, peer = %client, held_back, "repeated admin requests with a wrong token");
            }
            tokio::time::sleep(wait).await;
        }
        false
    }

    /// The client's address, behind trusted proxies.
    pub(super) fn client(&self, peer: &Peer, headers: &HeaderMap) -> IpAddr {
        listener::client(peer.address(), headers, &self.proxies)
    }

    /// Begins a session. Returns the header that sets its cookie.
    pub(super) fn log_in(&self) -> String {
        let key = self.sessions.begin(&self.env);
        format!("{}={key}; Path=/; HttpOnly; SameSite=Strict; Max-Age={LIFETIME}", self.cookie)
    }

    /// Ends the session in these headers. Returns the header that removes its cookie.
    pub(super) fn log_out(&self, headers: &HeaderMap) -> String {
        if let Some(key) = self.key(headers) {
            self.sessions.end(key);
        }
        format!("{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0", self.cookie)
    }

    /// The value of the session's cookie.
    fn key<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        cookies
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(name, key)| (name == self.cookie).then_some(key))
    }

    async fn admit(&self, request: &Parts, peer: &Peer) -> Result<Actor, ApiError> {
        let headers = &request.headers;
        let host = single(headers, &header::HOST);
        let named = host.and_then(|host| host.parse::<Authority>().ok());
        let in_target = request.uri.authority();
        if !named.is_some_and(|host| self.is_here(host.host()))
            || in_target.is_some_and(|host| !self.is_here(host.host()))
        {
            return Err(ApiError::new(
                StatusCode::MISDIRECTED_REQUEST,
                "the Host header names another host; use `localhost` or the address of [admin], or put the \
                 name into `hosts` of [admin]",
            ));
        }
        let foreign =
            || ApiError::new(StatusCode::FORBIDDEN, "the admin listener answers only its own pages");
        let asked = headers.contains_key(header::ORIGIN);
        let own =
            single(headers, &header::ORIGIN).zip(host).is_some_and(|(origin, host)| is_own(origin, host));
        if asked && (!own || headers.contains_key(header::AUTHORIZATION)) {
            return Err(foreign());
        }
        if let Some(token) = single(headers, &header::AUTHORIZATION).and_then(bearer) {
            if self.is_token(token, self.client(peer, headers)).await {
                return admitted(peer, Actor::token());
            }
        } else if !headers.contains_key(header::AUTHORIZATION)
            && let Some(mark) = self.key(headers).and_then(|key| self.sessions.mark(key, self.env.now()))
        {
            if request.method.is_safe() || own {
                return admitted(peer, Actor::session(&mark));
            }
            return Err(foreign());
        }
        if dashboard::is_open(&request.method, request.uri.path()) {
            return Ok(Actor::stranger());
        }
        Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "the admin API needs `Authorization: Bearer` with the token of [admin]",
        ))
    }

    /// Whether the host in a request can only mean this listener. An address can't be rebound. A name could
    /// belong to anybody, unless the operator has listed it.
    fn is_here(&self, host: &str) -> bool {
        let named = |known: &str| host.eq_ignore_ascii_case(known);
        if named("localhost") || self.hosts.iter().any(|known| named(known)) {
            return true;
        }
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.listen || self.listen.is_unspecified(),
            Err(_) => false,
        }
    }
}

/// Passes a request on or refuses it. A browser without a session gets the login page.
pub(super) async fn check(State(guard): State<Arc<AccessCheck>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(peer) = parts.extensions.get::<Arc<Peer>>().cloned() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    match guard.admit(&parts, &peer).await {
        Ok(actor) => {
            parts.extensions.insert(actor);
            parts.extensions.insert(Arc::clone(&guard));
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) if error.status == StatusCode::UNAUTHORIZED && wants_page(&parts) => {
            dashboard::login_page(&parts.uri)
        }
        Err(error) => error.into_response(),
    }
}

/// Adds the headers that protect a browser to every answer.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: with it, a browser would send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Stops an answer that takes too long.
pub(super) async fn within_time(request: Request, next: Next) -> Result<Response, ApiError> {
    tokio::time::timeout(ANSWER, next.run(request)).await.map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("no answer within {} s", ANSWER.as_secs()))
    })
}

/// Admits an authenticated request if a place is free.
fn admitted(peer: &Peer, actor: Actor) -> Result<Actor, ApiError> {
    peer.admit().map(|()| actor).map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many operator requests are active; close a page or a live feed, and try again",
        )
    })
}

/// Whether the answer is for a person.
fn wants_page(request: &Parts) -> bool {
    request.method == Method::GET
        && single(&request.headers, &header::ACCEPT).is_some_and(|accept| accept.contains("text/html"))
}

/// Whether this is the origin of the listener's own pages, according to the request's host.
fn is_own(origin: &str, host: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .filter_map(|scheme| origin.strip_prefix(scheme))
        .any(|rest| rest.eq_ignore_ascii_case(host))
}

/// The value of a header that occurs exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware::from_fn_with_state, routing::get};
    use http_body_util::BodyExt;
    use posthouse_model::testing::still;
    use tower::ServiceExt;

    use super::*;

    const TOKEN: &str = "5f0c6b1a";

    fn guard(listen: &str) -> AccessCheck {
        let listen = SocketAddr::new(listen.parse().unwrap(), 8401);
        let way_in = WayIn {
            token: Secret::new(TOKEN),
            hosts: vec!["posthouse".into(), "hooks.example.com".into()],
            idle_timeout: Duration::from_secs(1),
            proxies: Arc::new([]),
        };
        AccessCheck::new(listen, &way_in, still())
    }

    async fn answer(listen: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        answer_to("/", listen, headers).await
    }

    async fn answer_to(target: &str, listen: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let guard = Arc::new(guard(listen));
        let router = Router::new().route("/", get(|| async { "inside" }));
        let router = router.layer(from_fn_with_state(guard, check));
        let mut request = Request::builder().uri(target).extension(Arc::new(Peer::alone()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    const AUTH: (&str, &str) = ("authorization", "Bearer 5f0c6b1a");
    const HOST: (&str, &str) = ("host", "127.0.0.1:8401");

    #[tokio::test]
    async fn the_token_opens_and_nothing_else_does() {
        for (headers, status) in [
            (vec![HOST, AUTH], StatusCode::OK),
            (vec![HOST, ("authorization", "bearer 5f0c6b1a")], StatusCode::OK),
            (vec![HOST], StatusCode::UNAUTHORIZED),
            (vec![HOST, ("authorization", "Bearer ")], StatusCode::UNAUTHORIZED),
            (vec![HOST, ("authorization", "Bearer 5f0c6b1b")], StatusCode::UNAUTHORIZED),
            (vec![HOST, ("authorization", "Bearer 5f0c6b1a0")], StatusCode::UNAUTHORIZED),
            (vec![HOST, ("authorization", "5f0c6b1a")], StatusCode::UNAUTHORIZED),
            (vec![HOST, ("authorization", "Basic 5f0c6b1a")], StatusCode::UNAUTHORIZED),
            (vec![HOST, AUTH, ("authorization", "Bearer no")], StatusCode::UNAUTHORIZED),
        ] {
            let (answered, body) = answer("127.0.0.1", &headers).await;
            assert_eq!(answered, status, "{headers:?}");
            assert!(!body.contains(TOKEN), "{body}");
            assert_eq!(body == "inside", status == StatusCode::OK, "{headers:?}: {body}");
        }
    }

    #[tokio::test]
    async fn a_foreign_host_is_refused_whatever_the_token() {
        for (listen, host, let_in) in [
            ("127.0.0.1", "localhost:8401", true),
            ("127.0.0.1", "LOCALHOST", true),
            ("127.0.0.1", "127.0.0.1:9", true),
            ("127.0.0.1", "[::1]:8401", true),
            ("127.0.0.1", "10.0.0.5:8401", false),
            ("127.0.0.1", "evil.example:8401", false),
            ("127.0.0.1", "localhost.evil.example", false),
            ("127.0.0.1", "127.0.0.1.evil.example", false),
            ("127.0.0.1", "", false),
            ("10.0.0.5", "10.0.0.5:8401", true),
            ("10.0.0.5", "10.0.0.6:8401", false),
            ("0.0.0.0", "192.0.2.7:8401", true),
            ("0.0.0.0", "evil.example", false),
            ("127.0.0.1", "posthouse:8401", true),
            ("127.0.0.1", "POSTHOUSE", true),
            ("127.0.0.1", "hooks.example.com", true),
            ("127.0.0.1", "posthouse.evil.example", false),
            ("127.0.0.1", "evil.hooks.example.com", false),
        ] {
            let (status, _) = answer(listen, &[("host", host), AUTH]).await;
            let expected = if let_in { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST };
            assert_eq!(status, expected, "{host} at {listen}");
        }
        let (status, _) = answer("127.0.0.1", &[AUTH]).await;
        assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "no Host");
        let (status, _) = answer("127.0.0.1", &[HOST, ("host", "localhost"), AUTH]).await;
        assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "two Hosts");
        let (status, _) = answer_to("http://evil.example/", "127.0.0.1", &[HOST, AUTH]).await;
        assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "another host in the target");
    }

    #[tokio::test]
    async fn web_pages_are_refused() {
        for origin in ["http://evil.example", "http://127.0.0.1:8401", "null"] {
            let (status, body) = answer("127.0.0.1", &[HOST, AUTH, ("origin", origin)]).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{origin}: {body}");
        }
    }

    #[tokio::test]
    async fn a_session_is_for_our_own_pages() {
        let guard = Arc::new(guard("127.0.0.1"));
        let set = guard.log_in();
        assert!(
            set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Max-Age"),
            "{set}"
        );
        let cookie = set.split(';').next().unwrap().to_owned();
        let router = Router::new().route("/", get(|| async { "inside" }).post(|| async { "inside" }));
        let router = router.layer(from_fn_with_state(Arc::clone(&guard), check));
        let status = async |method: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri("/").header("host", "127.0.0.1:8401");
            request = request.extension(Arc::new(Peer::alone()));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
        };
        let own = ("origin", "http://127.0.0.1:8401");
        let cookie = ("cookie", cookie.as_str());
        assert_eq!(status("GET", &[cookie]).await, 200);
        assert_eq!(status("GET", &[cookie, own]).await, 200);
        assert_eq!(status("POST", &[cookie, own]).await, 200);
        assert_eq!(status("POST", &[cookie]).await, 403, "no Origin");
        for foreign in ["http://evil.example", "null", "http://127.0.0.1:9", "http://127.0.0.1:8401.evil"] {
            assert_eq!(status("GET", &[cookie, ("origin", foreign)]).await, 403, "{foreign}");
            assert_eq!(status("POST", &[cookie, ("origin", foreign)]).await, 403, "{foreign}");
        }
        assert_eq!(status("GET", &[("cookie", "posthouse-8401=00")]).await, 401);
        assert_eq!(status("GET", &[cookie, ("authorization", "Bearer wrong")]).await, 401);
        let mut headers = HeaderMap::new();
        headers.insert("cookie", cookie.1.parse().unwrap());
        assert!(guard.log_out(&headers).contains("Max-Age=0"));
        assert_eq!(status("GET", &[cookie]).await, 401, "after the logout");
    }
}
