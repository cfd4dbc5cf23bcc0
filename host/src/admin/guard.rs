//! Who may come in, and for how long.
//!
//! The token keeps out who has no account here. The two other checks are against a browser that runs
//! beside the daemon and visits a hostile page: by DNS rebinding that page can reach a loopback
//! address under its own name, so a `Host` that is a name is refused; and a page's request to another
//! origin says so in `Origin`, which no command-line client sends.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::config::Secret;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// What a request is checked against.
pub(super) struct Guard {
    token: Secret,
    listen: IpAddr,
}

impl Guard {
    pub(super) fn new(token: Secret, listen: IpAddr) -> Self {
        Self { token, listen }
    }

    fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let named = single(headers, &header::HOST).and_then(|host| host.parse::<Authority>().ok());
        let in_target = request.uri().authority();
        if !named.is_some_and(|host| self.is_here(host.host()))
            || in_target.is_some_and(|host| !self.is_here(host.host()))
        {
            return Err(ApiError::new(
                StatusCode::MISDIRECTED_REQUEST,
                "the Host header names another host; use `localhost` or the address of [admin]",
            ));
        }
        if headers.contains_key(header::ORIGIN) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "the admin API does not answer web pages"));
        }
        let token = single(headers, &header::AUTHORIZATION).and_then(bearer);
        if !token.is_some_and(|token| token.as_bytes().ct_eq(self.token.expose().as_bytes()).into()) {
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "the admin API needs `Authorization: Bearer` with the token of [admin]",
            ));
        }
        Ok(())
    }

    /// Whether the name in a request can only mean this listener: a name could be anybody's, an address
    /// can't be rebound.
    fn is_here(&self, host: &str) -> bool {
        if host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.listen || self.listen.is_unspecified(),
            Err(_) => false,
        }
    }
}

/// Lets a request through, or says why not.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    guard.admit(&request)?;
    Ok(next.run(request).await)
}

/// Gives up on an answer that takes too long.
pub(super) async fn within_time(request: Request, next: Next) -> Result<Response, ApiError> {
    tokio::time::timeout(ANSWER, next.run(request)).await.map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("no answer within {} s", ANSWER.as_secs()))
    })
}

/// The value of a header that stands there once.
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
    use tower::ServiceExt;

    use super::*;

    const TOKEN: &str = "5f0c6b1a";

    async fn answer(listen: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        answer_to("/", listen, headers).await
    }

    async fn answer_to(target: &str, listen: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let guard = Arc::new(Guard::new(Secret::new(TOKEN), listen.parse().unwrap()));
        let router = Router::new().route("/", get(|| async { "inside" }));
        let router = router.layer(from_fn_with_state(guard, check));
        let mut request = Request::builder().uri(target);
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
}
