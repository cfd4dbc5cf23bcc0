//! The admin API: JSON for programs, including the command line. `openapi.json` describes it, and a test
//! compares the two route by route.
//!
//! | path | what | file |
//! | --- | --- | --- |
//! | `GET /healthz`, `/readyz` | whether the daemon works; whether it accepts events | [`health`] |
//! | `GET /v1/openapi.json` | the description of the API | here |
//! | `GET /v1/events`, `/v1/events/{id}` | a search, newest first; everything about one | [`events`] |
//! | `GET /v1/deliveries`, `/v1/deliveries/{id}` | deliveries, newest first; everything about one | [`deliveries`] |
//! | `GET /v1/dead-letters` | dead letters by plugin and cause | [`dead`] |
//! | `POST /v1/replay` | new deliveries of old events | [`replay`] |
//! | `GET /v1/outbox`, `/v1/outbox/{id}`, `POST /v1/outbox/replay` | items of the outbox; tries dead ones again | [`outbox`] |
//! | `GET /v1/plugins`, `/v1/plugins/{name}` | the state of each plugin | [`plugins`] |
//! | `POST /v1/plugins/{name}/pause`, `/resume`, `/forget` | an operator's actions on a plugin | [`plugins`] |
//! | `GET /v1/sources`, `/v1/sources/{name}` | the sources with their ledgers | [`sources`] |
//! | `POST /v1/sources/{name}/test` | a signed test event | [`sources`] |
//! | `GET /v1/samples`, `/v1/samples/{type}` | samples for test events | [`sources`] |
//! | `GET /v1/stats`, `/v1/series` | the ledgers; activity over time | [`stats`] |
//! | `GET /admin/webhook-stats` | the last 24 hours by event type | [`stats`] |
//! | `POST /v1/markers/keep` | keeps markers while a backup is made | [`markers`] |
//! | `GET /v1/audit` | what operators did | [`audit`] |
//! | `GET /v1/live` | current activity, as server-sent events | [`live`] |
//! | `GET /metrics` | all of that as numbers, for Prometheus | [`metrics`] |

mod audit;
mod dead;
pub(super) mod deliveries;
pub(super) mod events;
pub(super) mod health;
pub(super) mod ids;
pub(super) mod live;
mod markers;
pub(super) mod names;
pub(super) mod outbox;
pub(super) mod plugins;
pub(super) mod query;
pub(super) mod replay;
mod rows;
pub(super) mod sources;
pub(super) mod stats;

use axum::{
    Router,
    http::header,
    middleware::from_fn,
    response::IntoResponse,
    routing::{MethodRouter, get, post},
};

use super::{Admin, guard, metrics};

/// The description of the API, as `GET /v1/openapi.json` returns it.
pub const OPENAPI: &str = include_str!("openapi.json");

/// A route of the API.
pub(super) struct Route {
    /// The method's name in the description. The handler knows its method itself.
    #[cfg_attr(not(test), allow(dead_code, reason = "held against the description"))]
    method: &'static str,
    path: &'static str,
    handler: MethodRouter<Admin>,
    /// Whether the answer has no time limit.
    slow: bool,
}

/// Every route that needs the token.
fn routes() -> Vec<Route> {
    let route = |method, path, handler| Route { method, path, handler, slow: false };
    // These may take minutes or never end. The work that they begin continues when the client goes away.
    let slow = |method, path, handler| Route { method, path, handler, slow: true };
    vec![
        route("get", "/v1/openapi.json", get(openapi)),
        route("get", "/v1/events", get(events::list)),
        route("get", "/v1/events/{id}", get(events::show)),
        route("get", "/v1/deliveries", get(deliveries::list)),
        route("get", "/v1/deliveries/{id}", get(deliveries::show)),
        route("get", "/v1/dead-letters", get(dead::list)),
        slow("post", "/v1/replay", post(replay::replay)),
        route("get", "/v1/outbox", get(outbox::list)),
        route("get", "/v1/outbox/{id}", get(outbox::show)),
        slow("post", "/v1/outbox/replay", post(outbox::replay)),
        route("get", "/v1/plugins", get(plugins::list)),
        route("get", "/v1/plugins/{name}", get(plugins::show)),
        route("post", "/v1/plugins/{name}/pause", post(plugins::pause)),
        route("post", "/v1/plugins/{name}/resume", post(plugins::resume)),
        route("post", "/v1/plugins/{name}/forget", post(plugins::forget)),
        route("get", "/v1/sources", get(sources::list)),
        route("get", "/v1/sources/{name}", get(sources::show)),
        slow("post", "/v1/sources/{name}/test", post(sources::test)),
        route("get", "/v1/samples", get(sources::samples)),
        route("get", "/v1/samples/{type}", get(sources::sample)),
        route("get", "/v1/stats", get(stats::stats)),
        route("get", "/v1/series", get(stats::series)),
        route("get", "/admin/webhook-stats", get(stats::webhooks)),
        route("post", "/v1/markers/keep", post(markers::keep)),
        route("get", "/v1/audit", get(audit::list)),
        slow("get", "/v1/live", get(live::live)),
        route("get", "/metrics", get(metrics::scrape)),
    ]
}

/// The routes that need the token.
pub(super) fn router() -> Router<Admin> {
    let add = |router: Router<Admin>, route: Route| router.route(route.path, route.handler);
    let (slow, quick): (Vec<_>, Vec<_>) = routes().into_iter().partition(|route| route.slow);
    let quick = quick.into_iter().fold(Router::new(), add).layer(from_fn(guard::within_time));
    slow.into_iter().fold(quick, add)
}

/// The routes for monitoring, which need no token.
pub(super) fn open_router() -> Router<Admin> {
    health::router()
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Method and path of the routes that need no token.
    const OPEN: [(&str, &str); 2] = [("get", "/healthz"), ("get", "/readyz")];

    fn described() -> Value {
        serde_json::from_str(OPENAPI).unwrap()
    }

    #[test]
    fn every_route_is_described_and_all_that_is_described_is_a_route() {
        let own: BTreeSet<_> =
            routes().iter().map(|route| (route.method, route.path)).chain(OPEN).map(owned).collect();
        let description = described();
        let told: BTreeSet<_> = description["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
            })
            .collect();
        assert_eq!(own, told);
    }

    fn owned((method, path): (&str, &str)) -> (String, String) {
        (method.to_owned(), path.to_owned())
    }

    #[test]
    fn every_operation_says_how_it_refuses() {
        let description = described();
        for (path, methods) in description["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let open = OPEN.contains(&(method.as_str(), path.as_str()));
                let refuses = operation["responses"].get("401").is_some();
                assert_eq!(refuses, !open, "{method} {path}");
                assert_eq!(operation["security"].is_array(), open, "{method} {path}");
                assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{path}");
            }
        }
    }
}
