//! The admin listener: API, dashboard and metrics for the operator.
//!
//! It has its own address (loopback by default). Every request except `GET /healthz`, `/readyz` and the login
//! needs the token, or a session that began with the token. It refuses requests that a browser could be
//! tricked into sending (a foreign `Host` or `Origin`). It never returns a secret: neither
//! `[plugin.<name>.config]`, nor the secrets of a source, nor the text of a mail.
//!
//! ```text
//! api/         JSON over HTTP, described at /v1/openapi.json: /v1/…, /admin/webhook-stats, /healthz, /readyz
//! dashboard/   pages, rendered here, that work without a script: /, /events, /plugins, …
//! metrics/     numbers for Prometheus: /metrics
//!
//! guard        access checks: Host, Origin, token, session      login_throttle    delays wrong tokens
//! session      browser sessions                                 token             the secret
//! audit        the record of operators' actions               error             the form of refusals
//! serve        the limits of connections                        since             times as operators write them
//! ```

mod api;
mod audit;
mod dashboard;
mod error;
mod guard;
mod login_throttle;
mod metrics;
mod serve;
mod session;
pub mod since;
pub mod token;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
};
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use self::audit::{Action, Actor};
pub(crate) use self::serve::CONNECTIONS;
pub use self::{
    api::{
        catch_up::{CatchUps, Compare},
        keys::{Forget, HasKey, KeyState, Keys, Learn},
        sources::{Post, Posted, Senders},
    },
    since::Since,
    token::{TokenError, token},
};
use posthouse_guest::plugin::Registry;
use posthouse_model::{
    DecisionLedger, Env, ReloadLedger, RequestLedger,
    config::{Config, Secret},
};
use posthouse_store::Store;

/// The most bytes of a request's body.
const MAX_BODY: usize = 64 * 1024;

/// The current ledger of each source, by its name. A reload adds and removes sources.
pub type Ledgers = Arc<dyn Fn() -> BTreeMap<String, Arc<RequestLedger>> + Send + Sync>;

/// The listener's settings in config.toml.
#[derive(Debug, Clone)]
pub struct WayIn {
    /// The bearer token.
    pub token: Secret,
    /// Host names that it accepts besides `localhost` and its addresses, in lower case.
    pub hosts: Vec<String>,
    /// How long a connection may be idle between two requests.
    pub idle_timeout: Duration,
    /// Proxies whose `X-Forwarded-For` the log uses.
    pub proxies: Arc<[IpNet]>,
}

impl WayIn {
    /// The settings of this configuration, with this token.
    pub fn new(config: &Config, token: Secret) -> Self {
        let server = &config.server;
        Self {
            token,
            hosts: config.admin.hosts.clone(),
            idle_timeout: server.idle_timeout,
            proxies: server.trusted_proxies.clone().into(),
        }
    }
}

/// Everything that the operator can see and do. Cheap to clone.
#[derive(Clone)]
pub struct Admin(Arc<AdminState>);

struct AdminState {
    store: Store,
    registry: Registry,
    ledgers: Ledgers,
    /// What interceptors answered.
    decided: Arc<DecisionLedger>,
    senders: Senders,
    way_in: WayIn,
    started_at: Timestamp,
    env: Env,
    /// A permit for each live feed.
    feeds: Arc<Semaphore>,
    stopping: CancellationToken,
    /// The results of reloads, counted by the reloader.
    reloads: Arc<ReloadLedger>,
    metrics: metrics::ScrapeCache,
}

impl Admin {
    /// Creates the state from these parts; `started_at` is when the daemon started.
    #[allow(clippy::too_many_arguments, reason = "each is a part that the composition root makes")]
    pub fn new(
        store: Store,
        registry: Registry,
        ledgers: Ledgers,
        decided: Arc<DecisionLedger>,
        senders: Senders,
        way_in: WayIn,
        started_at: Timestamp,
        env: Env,
    ) -> Self {
        let (feeds, stopping) = (Arc::new(Semaphore::new(api::live::FEEDS)), CancellationToken::new());
        let (reloads, metrics) = (Arc::default(), metrics::ScrapeCache::new(&env));
        Self(Arc::new(AdminState {
            store,
            registry,
            ledgers,
            decided,
            senders,
            way_in,
            started_at,
            env,
            feeds,
            stopping,
            reloads,
            metrics,
        }))
    }

    /// The ledger in which reloads of config.toml are counted.
    pub fn reloads(&self) -> Arc<ReloadLedger> {
        Arc::clone(&self.0.reloads)
    }

    /// Answers requests on up to `connections` connections until `shutdown` completes, then finishes the
    /// active ones.
    pub async fn serve(self, listener: TcpListener, connections: usize, shutdown: impl Future<Output = ()>) {
        let listen = match listener.local_addr() {
            Ok(address) => address,
            Err(error) => return tracing::error!(%error, "could not read the address of the admin listener"),
        };
        let way_in = &self.0.way_in;
        let guard = guard::AccessCheck::new(listen, way_in, self.0.env.clone());
        let (idle_timeout, proxies) = (way_in.idle_timeout, Arc::clone(&way_in.proxies));
        let admin = self.clone();
        let shutdown = async move {
            shutdown.await;
            // Live feeds never end on their own.
            admin.0.stopping.cancel();
        };
        let router = self.router(guard);
        serve::serve(listener, router, connections, idle_timeout, proxies, shutdown).await;
    }

    fn router(self, guard: guard::AccessCheck) -> Router {
        Router::new()
            .merge(api::router())
            .merge(dashboard::router())
            .fallback(error::no_such_path)
            .method_not_allowed_fallback(error::wrong_method)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(from_fn_with_state(Arc::new(guard), guard::check))
            // For probes, which have no token.
            .merge(api::open_router())
            .layer(from_fn(dashboard::refusals_as_pages))
            .layer(from_fn(guard::headers))
            .with_state(self)
    }
}
