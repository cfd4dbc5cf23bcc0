//! The admin listener: where the operator comes in.
//!
//! It speaks JSON over HTTP, on an address of its own (loopback by default), and every request but
//! `GET /healthz` brings the bearer token. It refuses what a browser could be tricked into sending
//! (a foreign `Host`, any `Origin`), and it never answers with a secret: what `[plugin.<name>.config]`
//! holds does not leave the daemon, nor does the text of a mail.
//!
//! | path | what | file |
//! | --- | --- | --- |
//! | `GET /healthz` | whether the store takes events | [`health`] |
//! | `GET /v1/events`, `/v1/events/{id}` | events, newest first; all of one | [`events`] |
//! | `GET /v1/deliveries` | deliveries, newest first | [`deliveries`] |
//! | `POST /v1/replay` | new deliveries of old events | [`replay`] |
//! | `GET /v1/outbox`, `POST /v1/outbox/replay` | mail on its way, and mail given up | [`outbox`] |
//! | `GET /v1/plugins`, `/v1/plugins/{name}` | how each plugin stands | [`plugins`] |
//! | `POST /v1/plugins/{name}/pause`, `/resume`, `/forget` | what an operator can do to one | [`plugins`] |
//! | `GET /v1/stats` | the ledgers, and whether they add up | [`stats`] |
//!
//! Around all of them stand [`guard`] (who may), [`error`] (how a refusal looks), [`serve`] (bounds on
//! connections), [`token`] (the secret) and [`since`] (times that people write).

mod deliveries;
mod error;
mod events;
mod guard;
mod health;
mod outbox;
mod plugins;
mod query;
mod replay;
mod serve;
pub mod since;
mod stats;
pub mod token;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use jiff::Timestamp;
use tokio::net::TcpListener;

pub use self::{
    outbox::STATES as OUTBOX_STATES,
    since::Since,
    token::{TokenError, token},
};
use crate::{
    config::Secret,
    model::{Ambient, RequestLedger},
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
    token: Secret,
    started_at: Timestamp,
    ambient: Ambient,
}

impl Admin {
    /// An admin of these parts; `started_at` is when the daemon started.
    pub fn new(
        store: Store,
        registry: Registry,
        ledgers: Ledgers,
        token: Secret,
        started_at: Timestamp,
        ambient: Ambient,
    ) -> Self {
        Self(Arc::new(Office { store, registry, ledgers, token, started_at, ambient }))
    }

    /// Answers requests until `shutdown` ends, and those under way after that.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let listen = match listener.local_addr() {
            Ok(address) => address.ip(),
            Err(error) => return tracing::error!(%error, "the admin listener has no address"),
        };
        let guard = guard::Guard::new(self.0.token.clone(), listen);
        serve::serve(listener, self.router(guard), shutdown).await;
    }

    fn router(self, guard: guard::Guard) -> Router {
        let quick = Router::new()
            .route("/v1/events", get(events::list))
            .route("/v1/events/{id}", get(events::show))
            .route("/v1/deliveries", get(deliveries::list))
            .route("/v1/outbox", get(outbox::list))
            .route("/v1/plugins", get(plugins::list))
            .route("/v1/plugins/{name}", get(plugins::show))
            .route("/v1/plugins/{name}/{action}", post(plugins::act))
            .route("/v1/stats", get(stats::stats))
            .layer(from_fn(guard::within_time));
        // These may take minutes, and go on when nobody waits for them any more.
        let slow = Router::new()
            .route("/v1/replay", post(replay::replay))
            .route("/v1/outbox/replay", post(outbox::replay));
        quick
            .merge(slow)
            .fallback(error::no_such_path)
            .method_not_allowed_fallback(error::wrong_method)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(from_fn_with_state(Arc::new(guard), guard::check))
            // Asked by what watches over the daemon, which has no token.
            .route("/healthz", get(health::health).layer(from_fn(guard::within_time)))
            .with_state(self)
    }
}
