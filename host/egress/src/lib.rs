//! Requests that leave: whether they may, and how they are made.
//!
//! ```text
//!   a guest's draft ─► request    method, URL, headers, sizes; within the grant?  ─► WebRequest
//!   a WebRequest    ─► plugin_http     the grant again, its headers, redirects, bounds ─► response
//!                        └► resolve   every name, at the moment of connecting
//!                             └► address   private, local and special ones only where the grant names them
//! ```
//!
//! A plugin has an [`PluginHttp`] of its own and in it a client an entry of its grant, so that no connection
//! that one entry allows serves another. Over HTTP/2, which is spoken where the other side offers it, many
//! requests share a connection, but only those to one origin: a certificate that is good for another name
//! too opens no way there. Names are resolved once a connection, and what comes out is
//! judged before anything connects to it: an address that changes meanwhile changes nothing. Proxies
//! that the environment names are not used, since they would do the resolving.
//!
//! What the daemon itself sends to a place that config.toml names goes by a [`HttpPoster`]: no grant is asked,
//! since no guest can name that place.

mod address;
mod http_poster;
mod nameserver;
mod plugin_http;
mod refusal;
mod request;
mod resolve;
mod reuse;
mod tls;
mod wait;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

pub use http_poster::{HttpPoster, Received};
pub use plugin_http::{Bounds, PluginHttp, Sent, WebResponse};
pub use refusal::Refusal;
pub use request::Draft;
pub use wait::retry_after;

use posthouse_model::{Env, HttpGrant, config::Http};

use self::{nameserver::Nameservers, resolve::Names};

/// Why no requests can leave at all.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The file of `http.ca` is no good.
    #[error("`http.ca` in config.toml, `{path}`: {reason}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The client for nameservers refuses its settings.
    #[error("`http.nameservers` in config.toml can't be used: {0}")]
    Nameservers(String),
    /// No client can be made.
    #[error("a client for requests can't be made: {0}")]
    Client(String),
    /// TLS can't be set up.
    #[error("TLS for requests can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// What all outlets share. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Shared>);

struct Shared {
    tls: rustls::ClientConfig,
    names: Names,
    env: Env,
    outlets: Mutex<HashMap<String, Arc<PluginHttp>>>,
}

impl Egress {
    /// Reads certificates and makes ready to look up names; connects to nothing.
    ///
    /// # Errors
    /// [`EgressError`] where `[http]` can't be used.
    pub fn new(http: &Http, env: Env) -> Result<Self, EgressError> {
        let names = match http.nameservers.as_slice() {
            [] => Names::System,
            servers => Names::Servers(
                Nameservers::new(servers).map_err(|error| EgressError::Nameservers(error.to_string()))?,
            ),
        };
        let tls = tls::config(http.ca.as_deref())?;
        Ok(Self(Arc::new(Shared { tls, names, env, outlets: Mutex::default() })))
    }

    /// The plugin_http of a plugin with this grant: the one it had, with its connections, where the grant is
    /// the same.
    pub fn plugin_http(&self, plugin: &str, grants: &[HttpGrant]) -> Arc<PluginHttp> {
        let mut outlets = self.0.outlets.lock();
        match outlets.get(plugin) {
            Some(plugin_http) if plugin_http.has(grants) => Arc::clone(plugin_http),
            _ => {
                let plugin_http = Arc::new(PluginHttp::new(plugin, grants, &self.0.tls, &self.0.names));
                outlets.insert(plugin.to_owned(), Arc::clone(&plugin_http));
                plugin_http
            }
        }
    }
}
