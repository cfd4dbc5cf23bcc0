//! The admin API: JSON for programs, including the command line. Each handler has its description beside it,
//! and [`describe`] puts them together to an OpenAPI document.
//!
//! | path | what | file |
//! | --- | --- | --- |
//! | `GET /healthz`, `/readyz` | whether the daemon works; whether it accepts events | [`health`] |
//! | `GET /v1/openapi.json` | the description of the API | [`describe`] |
//! | `GET /v1/events`, `/v1/events/{id}` | a search, newest first; everything about one | [`events`] |
//! | `GET /v1/deliveries`, `/v1/deliveries/{id}` | deliveries, newest first; everything about one | [`deliveries`] |
//! | `GET /v1/dead-letters` | dead letters by plugin and cause | [`dead`] |
//! | `GET /v1/decisions`, `/v1/decisions/{id}`, `/v1/interceptors` | what interceptors answered | [`decisions`] |
//! | `POST /v1/replay` | new deliveries of old events | [`replay`] |
//! | `GET /v1/outbox`, `/v1/outbox/{id}`, `POST /v1/outbox/replay` | items of the outbox; sends dead ones again | [`outbox`] |
//! | `GET /v1/plugins`, `/v1/plugins/{name}` | the state of each plugin | [`plugins`] |
//! | `POST /v1/plugins/{name}/pause`, `/resume`, `/forget` | an operator's actions on a plugin | [`plugins`] |
//! | `GET /v1/sources`, `/v1/sources/{name}` | the sources with their ledgers | [`sources`] |
//! | `POST /v1/sources/{name}/test` | a signed test event | [`sources`] |
//! | `POST /v1/sources/{name}/learn`, `/forget` | awaits the key that a sender brings; removes it | [`keys`] |
//! | `POST /v1/sources/{name}/catch-up` | compares the sender's list with the store | [`catch_up`] |
//! | `GET /v1/samples`, `/v1/samples/{type}` | samples for test events | [`sources`] |
//! | `GET /v1/stats`, `/v1/series` | the ledgers; activity over time | [`stats`] |
//! | `GET /admin/webhook-stats` | the last 24 hours by event type | [`stats`] |
//! | `POST /v1/markers/hold` | holds markers while a backup is made | [`markers`] |
//! | `GET /v1/audit` | what operators did | [`audit`] |
//! | `GET /v1/live` | current activity, as server-sent events | [`live`] |
//! | `GET /metrics` | all of that as numbers, for Prometheus | [`metrics`] |

mod audit;
pub(super) mod catch_up;
mod dead;
pub(super) mod decisions;
pub(super) mod deliveries;
mod describe;
pub(super) mod events;
pub(super) mod health;
pub(super) mod ids;
pub(super) mod keys;
pub(super) mod live;
mod markers;
pub(super) mod names;
pub(super) mod outbox;
pub(super) mod plugins;
pub(super) mod query;
mod refusals;
pub(super) mod replay;
mod rows;
mod schemas;
pub(super) mod sources;
pub(super) mod stats;

use axum::{Router, middleware::from_fn, routing::post};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

use super::{Admin, guard, metrics};

/// The routes that need the token. `routes!` takes the path, the method and the description from the handler,
/// so that no route is without one.
fn guarded() -> OpenApiRouter<Admin> {
    let quick = [
        routes!(describe::openapi),
        routes!(events::list),
        routes!(events::show),
        routes!(deliveries::list),
        routes!(deliveries::show),
        routes!(dead::list),
        routes!(decisions::list),
        routes!(decisions::show),
        routes!(decisions::interceptors),
        routes!(outbox::list),
        routes!(outbox::show),
        routes!(plugins::list),
        routes!(plugins::show),
        routes!(plugins::pause),
        routes!(plugins::resume),
        routes!(plugins::forget),
        routes!(sources::list),
        routes!(sources::show),
        routes!(sources::samples),
        routes!(sources::sample),
        routes!(keys::learn),
        routes!(keys::forget),
        routes!(stats::stats),
        routes!(stats::series),
        routes!(stats::webhooks),
        routes!(markers::hold),
        routes!(audit::list),
        routes!(metrics::scrape),
    ];
    // These may take minutes or never end. The work that they begin continues when the client goes away.
    let slow = [
        routes!(replay::replay),
        routes!(outbox::replay),
        routes!(sources::test),
        routes!(catch_up::compare),
        routes!(live::live),
    ];
    slow.into_iter().fold(within_time(quick), OpenApiRouter::routes)
}

/// The routes for monitoring, which need no token.
fn open() -> OpenApiRouter<Admin> {
    within_time([routes!(health::health), routes!(health::readiness)])
}

/// Routes with a time limit.
fn within_time<const N: usize>(routes: [UtoipaMethodRouter<Admin>; N]) -> OpenApiRouter<Admin> {
    let router = routes.into_iter().fold(OpenApiRouter::default(), OpenApiRouter::routes);
    router.layer(from_fn(guard::within_time))
}

/// The routes that need the token.
pub(super) fn router() -> Router<Admin> {
    // The former path of `/v1/markers/hold`, for older commands. The description leaves it out.
    let former = post(markers::hold).layer(from_fn(guard::within_time));
    Router::from(guarded()).route("/v1/markers/keep", former)
}

/// The routes for monitoring, which need no token.
pub(super) fn open_router() -> Router<Admin> {
    open().into()
}
