//! Fetches the daemon's own small files, such as the certificates with which senders sign.
//!
//! A request may name such a URL. The caller checks it against a list first. Here, it is fetched by HTTPS only, from
//! public addresses unless the list names others, without redirects, within limits of size and time. A certificate
//! counts only if it has the expected name and leads to a root that the requests of plugins trust too.

use std::time::Duration;

use http::{StatusCode, header};
use ipnet::IpNet;
use jiff::Timestamp;
use reqwest::redirect::Policy;
use rustls::{
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use url::Url;

use super::{Egress, address::Reach, plugin_http::chain, resolve::AddressFilter};

/// The limit of one fetch, from the connection to the last byte. Senders wait about as long for their answer.
const TIME: Duration = Duration::from_secs(5);
/// The limit of an answer, in bytes. A chain of certificates has about 6 KiB.
const ANSWER: usize = 64 << 10;
/// The most certificates of a file that are read.
const CHAIN: usize = 8;

impl Egress {
    /// Fetches a URL by GET, or posts JSON to it. Only the answer 200 counts. `addresses` are the special addresses that
    /// its host may have.
    ///
    /// # Errors
    /// The reason why there is no such answer, in words. It names the host and nothing else of the URL.
    pub async fn fetch(
        &self,
        url: &Url,
        addresses: &[IpNet],
        json: Option<String>,
    ) -> Result<Vec<u8>, String> {
        let host = url.origin().ascii_serialization();
        let filter = AddressFilter { names: self.0.names.clone(), reach: Reach::also(addresses) };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.0.tls.clone())
            .dns_resolver(filter)
            .https_only(true)
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .user_agent(concat!("posthouse/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| chain(&error))?;
        let exchange = async {
            let request = match json {
                Some(json) => {
                    client.post(url.clone()).header(header::CONTENT_TYPE, "application/json").body(json)
                }
                None => client.get(url.clone()),
            };
            let failed =
                |error: reqwest::Error| format!("no answer from `{host}`: {}", chain(&error.without_url()));
            let mut response = request.send().await.map_err(failed)?;
            if response.status() != StatusCode::OK {
                return Err(format!("`{host}` answered {}", response.status().as_u16()));
            }
            let mut body = Vec::new();
            while let Some(piece) = response.chunk().await.map_err(failed)? {
                if body.len() + piece.len() > ANSWER {
                    return Err(format!("`{host}` answered with more than {ANSWER} bytes"));
                }
                body.extend_from_slice(&piece);
            }
            Ok(body)
        };
        tokio::time::timeout(TIME, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("`{host}` gave no whole answer within {TIME:?}")))
    }

    /// The certificate that a file of PEM begins with, in DER, if it is for this DNS name and valid now. The others of
    /// the file may lead from it to a root.
    ///
    /// # Errors
    /// The reason why it is not trusted, in words.
    pub fn trusted(&self, pem: &[u8], name: &str, now: Timestamp) -> Result<Vec<u8>, String> {
        let certificates = certificates(pem)?;
        let Some((first, others)) = certificates.split_first() else { return Err(nothing()) };
        let parsed = ParsedCertificate::try_from(first).map_err(|error| error.to_string())?;
        let expected = ServerName::try_from(name).map_err(|_| format!("`{name}` is no DNS name"))?;
        let second = u64::try_from(now.as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(second));
        let algorithms = ring::default_provider().signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.0.roots, others, now, algorithms.all)
            .and_then(|()| verify_server_name(&parsed, &expected))
            .map_err(|error| format!("the certificate for `{name}` is not trusted: {error}"))?;
        Ok(first.to_vec())
    }
}

/// The certificate that a file begins with, in DER. Its issuer is not checked. The file is PEM or DER.
///
/// # Errors
/// There is none.
pub fn first_certificate(file: &[u8]) -> Result<Vec<u8>, String> {
    // DER begins with a SEQUENCE.
    if file.first() == Some(&0x30) {
        return Ok(file.to_vec());
    }
    certificates(file)?.into_iter().next().map(|first| first.to_vec()).ok_or_else(nothing)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .take(CHAIN)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate can't be read: {error}"))
}

fn nothing() -> String {
    "the file contains no certificate".to_owned()
}
