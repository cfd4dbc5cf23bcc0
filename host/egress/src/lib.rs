//! Outgoing requests: whether they are allowed, and how they are sent.
//!
//! ```text
//!   a guest's draft ─► request    method, URL, headers, sizes; within the grant?  ─► WebRequest
//!   a WebRequest    ─► plugin_http     the grant again, its headers, redirects, bounds ─► response
//!                        ├► sign      a signature, where the grant has a key for it
//!                        └► resolve   every name, at the moment of connecting
//!                             └► address   private, local and special ones only where the grant names them
//! ```
//!
//! Each plugin has its own [`PluginHttp`], with a client for each entry of its grant, so that a connection
//! for one entry never serves another. With HTTP/2, which is used if the other side offers it, many requests
//! share a connection, but only requests to one origin, even if the certificate is valid for more names. Each
//! new connection resolves the name, and the addresses are checked before it connects, so an address that
//! changes meanwhile makes no difference. Proxies of the environment are not used, because they would resolve
//! the names.
//!
//! The daemon sends its own requests to URLs of config.toml with a [`HttpPoster`]. They need no grant,
//! because no guest can choose such a URL. It fetches the public keys of senders with [`Egress::fetch`].

mod address;
mod fetched;
mod http_poster;
mod nameserver;
mod plugin_http;
mod refusal;
mod request;
mod resolve;
mod reuse;
mod sign;
mod tls;
mod wait;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

pub use fetched::first_certificate;
pub use http_poster::{HttpPoster, Received};
pub use plugin_http::{Bounds, PluginHttp, Sent, WebResponse};
pub use refusal::Refusal;
pub use request::Draft;
pub use wait::retry_after;

use posthouse_model::{Env, HttpGrant, config::Http};

use self::{nameserver::Nameservers, resolve::Names};

/// Why no requests can be sent.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The file of `http.ca` is not usable.
    #[error("`http.ca` in config.toml, `{path}`: {reason}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The resolver for nameservers rejects its settings.
    #[error("`http.nameservers` in config.toml can't be used: {0}")]
    Nameservers(String),
    /// The client cannot be created.
    #[error("the client for requests can't be created: {0}")]
    Client(String),
    /// TLS can't be set up.
    #[error("TLS for requests can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The state that the clients of all plugins share. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Shared>);

struct Shared {
    tls: rustls::ClientConfig,
    roots: Arc<rustls::RootCertStore>,
    names: Names,
    env: Env,
    outlets: Mutex<HashMap<String, Arc<PluginHttp>>>,
}

impl Egress {
    /// Reads certificates and prepares name resolution; connects to nothing.
    ///
    /// # Errors
    /// [`EgressError`] if `[http]` can't be used.
    pub fn new(http: &Http, env: Env) -> Result<Self, EgressError> {
        let names = match http.nameservers.as_slice() {
            [] => Names::System,
            servers => Names::Servers(
                Nameservers::new(servers).map_err(|error| EgressError::Nameservers(error.to_string()))?,
            ),
        };
        let (tls, roots) = tls::config(http.ca.as_deref())?;
        Ok(Self(Arc::new(Shared { tls, roots, names, env, outlets: Mutex::default() })))
    }

    /// The client of a plugin with this grant. If the grant is unchanged, it is the previous client, with its
    /// connections.
    pub fn plugin_http(&self, plugin: &str, grants: &[HttpGrant]) -> Arc<PluginHttp> {
        let mut outlets = self.0.outlets.lock();
        match outlets.get(plugin) {
            Some(plugin_http) if plugin_http.has(grants) => Arc::clone(plugin_http),
            _ => {
                let plugin_http = Arc::new(PluginHttp::new(plugin, grants, &self.0));
                outlets.insert(plugin.to_owned(), Arc::clone(&plugin_http));
                plugin_http
            }
        }
    }
}
