//! Posts the daemon's own data to one URL in config.toml, such as the traces.
//!
//! It trusts the same certificates and asks the same name servers as requests of plugins. It follows no
//! redirect, and reads only the beginning of an answer. Its errors contain no header.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use posthouse_model::{Env, Secret};
use reqwest::redirect::Policy;
use url::Url;

use super::{Egress, EgressError, address::Reach, plugin_http::chain, resolve::AddressFilter, wait};

/// The timeout for connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// The maximum number of bytes read of an answer.
const ANSWER: usize = 64 << 10;

/// Posts to one URL, with headers that may be secret.
pub struct HttpPoster {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    env: Env,
}

/// An answer.
#[derive(Debug)]
pub struct Received {
    /// Its status.
    pub status: StatusCode,
    /// The wait that `Retry-After` requests.
    pub retry_after: Option<Duration>,
    /// The body, up to 64 KiB of it.
    pub body: Vec<u8>,
}

impl Egress {
    /// A poster for this URL. It does not connect yet.
    ///
    /// # Errors
    /// [`EgressError`] if the client can't be created.
    pub fn http_poster(
        &self,
        url: Url,
        header: &BTreeMap<String, Secret>,
    ) -> Result<HttpPoster, EgressError> {
        let filter = AddressFilter { names: self.0.names.clone(), reach: Reach::everywhere() };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.0.tls.clone())
            .dns_resolver(filter)
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .user_agent(concat!("posthouse/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .build()
            .map_err(|error| EgressError::Client(chain(&error)))?;
        let mut headers = HeaderMap::new();
        for (name, secret) in header {
            // config.toml's reader has checked both.
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(secret.expose()))
            {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        Ok(HttpPoster { client, url, headers, env: self.0.env.clone() })
    }
}

impl HttpPoster {
    /// Posts a body and reads the answer, within `time`.
    ///
    /// # Errors
    /// The reason why there is no answer, in words.
    pub async fn post(
        &self,
        content_type: &'static str,
        body: Vec<u8>,
        time: Duration,
    ) -> Result<Received, String> {
        let host = self.url.origin().ascii_serialization();
        let exchange = async {
            let request = self.client.post(self.url.clone()).headers(self.headers.clone());
            let request = request.header(header::CONTENT_TYPE, content_type).body(body);
            let mut response = request
                .send()
                .await
                .map_err(|error| format!("no answer from `{host}`: {}", chain(&error.without_url())))?;
            let retry_after = response.headers().get(header::RETRY_AFTER);
            let now = self.env.now();
            let retry_after = retry_after.and_then(|value| wait::retry_after(value.to_str().ok()?, now));
            let mut received = Received { status: response.status(), retry_after, body: Vec::new() };
            // The answer is there, so an error in its body changes nothing.
            while let Ok(Some(chunk)) = response.chunk().await {
                let room = ANSWER - received.body.len();
                received.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if received.body.len() == ANSWER {
                    break;
                }
            }
            Ok(received)
        };
        tokio::time::timeout(time, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer from `{host}` within {time:?}")))
    }
}
