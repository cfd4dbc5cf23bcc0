//! The admin listener: where the operator comes in.
//!
//! On an address of its own (loopback by default) it has an API for programs and pages for people, and
//! every request but `GET /healthz`, `/readyz` and the login brings the token or a session that the token began. It
//! refuses what a browser could be tricked into sending (a foreign `Host`, a foreign `Origin`), and it
//! never answers with a secret: what `[plugin.<name>.config]` holds does not leave the daemon, nor do the
//! secrets of a source or the text of a mail.
//!
//! ```text
//! api/         JSON over HTTP, described by openapi.json: /v1/…, /admin/webhook-stats, /healthz, /readyz
//! dashboard/   pages, rendered here, that work without a script: /, /events, /plugins, …
//! metrics/     numbers for Prometheus: /metrics
//!
//! guard        who may: Host, Origin, token, session      brake    slows down who guesses
//! session      what a login gives a browser               token    the secret
//! audit        what an operator did, written down         error    how a refusal looks
//! serve        bounds on connections                      since    times that people write
//! ```

mod api;
mod audit;
mod brake;
mod dashboard;
mod error;
mod guard;
mod metrics;
mod serve;
mod session;
pub mod since;
pub mod token;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
};
use jiff::Timestamp;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use self::audit::Actor;
pub use self::{
    api::{
        OPENAPI,
        outbox::STATES as OUTBOX_STATES,
        sources::{Post, Posted, Senders},
    },
    since::Since,
    token::{TokenError, token},
};
use crate::{
    config::Secret,
    model::{Ambient, ReloadLedger, RequestLedger},
    plugin::Registry,
    store::Store,
};

/// The most bytes of a request's body.
const MAX_BODY: usize = 64 * 1024;

/// The ledger of each source, by its name, as they are now: a reload brings new sources.
pub type Ledgers = Arc<dyn Fn() -> BTreeMap<String, Arc<RequestLedger>> + Send + Sync>;

/// What the operator can see and do. Cheap to clone.
#[derive(Clone)]
pub struct Admin(Arc<Office>);

struct Office {
    store: Store,
    registry: Registry,
    ledgers: Ledgers,
    senders: Senders,
    token: Secret,
    started_at: Timestamp,
    ambient: Ambient,
    /// A seat for each live feed.
    feeds: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    /// What became of changes of config.toml, as who makes them counts.
    reloads: Arc<ReloadLedger>,
    metrics: metrics::Desk,
}

impl Admin {
    /// An admin of these parts; `started_at` is when the daemon started.
    pub fn new(
        store: Store,
        registry: Registry,
        ledgers: Ledgers,
        senders: Senders,
        token: Secret,
        started_at: Timestamp,
        ambient: Ambient,
    ) -> Self {
        let (feeds, stopping) = (Arc::new(Semaphore::new(api::live::FEEDS)), watch::Sender::new(false));
        let (reloads, metrics) = (Arc::default(), metrics::Desk::new(&ambient));
        Self(Arc::new(Office {
            store,
            registry,
            ledgers,
            senders,
            token,
            started_at,
            ambient,
            feeds,
            stopping,
            reloads,
            metrics,
        }))
    }

    /// Where reloads of config.toml are to be counted.
    pub fn reloads(&self) -> Arc<ReloadLedger> {
        Arc::clone(&self.0.reloads)
    }

    /// Answers requests until `shutdown` ends, and those under way after that.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let listen = match listener.local_addr() {
            Ok(address) => address,
            Err(error) => return tracing::error!(%error, "the admin listener has no address"),
        };
        let guard = guard::Guard::new(self.0.token.clone(), listen, self.0.ambient.clone());
        let admin = self.clone();
        let shutdown = async move {
            shutdown.await;
            // Live feeds would never end by themselves.
            admin.0.stopping.send_replace(true);
        };
        serve::serve(listener, self.router(guard), shutdown).await;
    }

    fn router(self, guard: guard::Guard) -> Router {
        Router::new()
            .merge(api::router())
            .merge(dashboard::router())
            .fallback(error::no_such_path)
            .method_not_allowed_fallback(error::wrong_method)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(from_fn_with_state(Arc::new(guard), guard::check))
            // Asked by what watches over the daemon, which has no token.
            .merge(api::open_router())
            .layer(from_fn(guard::headers))
            .with_state(self)
    }
}
