//! A request as a guest describes it, and the checks before anything is sent.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use posthouse_model::{WebRequest, is_reserved_header, octets};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    plugin_http::{Bounds, PluginHttp},
    refusal::Refusal,
};

/// The most headers of a request or a response.
pub(super) const HEADERS: usize = 100;

/// A request as a guest describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(with = "octets")]
    pub body: Vec<u8>,
    /// Whether only the delivery of the request matters: the response has no body, and a redirect that would change the
    /// request is the response.
    #[serde(default)]
    pub deliver: bool,
}

impl PluginHttp {
    /// Checks a draft. `key` becomes its `Idempotency-Key`.
    ///
    /// # Errors
    /// [`Refusal`] names the field, the limit or the grant.
    pub fn check(&self, draft: Draft, key: String, bounds: &Bounds) -> Result<WebRequest, Refusal> {
        let Draft { method, url, headers, body, deliver: _ } = draft;
        let head = url.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if head > bounds.headers {
            return Err(Refusal::too_large("the request's head", head, "http_headers", bounds.headers));
        }
        if body.len() > bounds.request {
            return Err(Refusal::too_large("the request's body", body.len(), "http_request", bounds.request));
        }
        let method = read_method(&method)?;
        let url = read_url(&url)?;
        if !body.is_empty() && matches!(method, Method::GET | Method::HEAD) {
            return Err(Refusal::invalid("body", format_args!("is not empty; {method} has none")));
        }
        let read = read_headers(&headers)?;
        let (_, gate) = self.gate(&url, None)?;
        if let Some(name) = gate.grant.header.keys().find(|name| read.contains_key(name.as_str())) {
            return Err(Refusal::Denied(format!(
                "`headers` holds `{name}`, which the grant of `{}` sets for plugin `{}`; leave it out",
                gate.grant.url, self.plugin
            )));
        }
        Ok(WebRequest { key, method: method.to_string(), url: url.into(), headers, body })
    }
}

pub(super) fn read_method(method: &str) -> Result<Method, Refusal> {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    known.into_iter().find(|known| known.as_str() == method).ok_or_else(|| {
        Refusal::invalid("method", "is none of GET, POST, PUT, PATCH, DELETE, HEAD and OPTIONS")
    })
}

pub(super) fn read_url(url: &str) -> Result<Url, Refusal> {
    let mut url =
        Url::parse(url).map_err(|error| Refusal::invalid("url", format_args!("is none: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(Refusal::invalid("url", "is neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::invalid("url", "holds a login; a header is where credentials stand"));
    }
    url.set_fragment(None);
    Ok(url)
}

pub(super) fn read_headers(headers: &[(String, String)]) -> Result<HeaderMap, Refusal> {
    if headers.len() > HEADERS {
        let problem = format!("the request has {} headers; {HEADERS} is the limit", headers.len());
        return Err(Refusal::Limit(problem));
    }
    let mut read = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Refusal::invalid("headers", format_args!("holds {name:?}, which is no name")))?;
        if is_reserved_header(name.as_str()) {
            return Err(Refusal::invalid("headers", format_args!("holds `{name}`, which the host sets")));
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            Refusal::invalid(
                "headers",
                format_args!("holds `{name}` with a value of more than one line of ASCII"),
            )
        })?;
        value.set_sensitive(true);
        read.append(name, value);
    }
    Ok(read)
}
