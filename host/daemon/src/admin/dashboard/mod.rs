//! The dashboard: pages for people, rendered here and complete without a script.
//!
//! A small script ([`assets`]) loads a page again when the live feed reports a change, and replaces the parts
//! that changed. Without it, a page stays as it was loaded. Everything that changes something is a form,
//! which the guard accepts only from our own pages.
//!
//! | path | what | file |
//! | --- | --- | --- |
//! | `/` | what needs attention, charts, the two ledgers | [`overview`], [`charts`] |
//! | `/events` | search, its filters in the URL | [`events`] |
//! | `/events/{source}/{id}` | one event, from socket to commit | [`event`] |
//! | `/deliveries` | the deliveries that the numbers count | [`deliveries`] |
//! | `/decisions`, `/decisions/{id}` | interceptors, and what they answered | [`decisions`] |
//! | `/outbox` | mail and requests of plugins; send again | [`outbox`] |
//! | `/dead-letters`, `/replay` | by plugin and cause; a count, then the replay | [`dead`] |
//! | `/plugins`, `/plugins/{name}` | the state of each; pause, resume | [`plugins`] |
//! | `/sources`, `/sources/{name}` | the sources, and a test event | [`sources`] |
//! | `/audit` | what operators did | [`audit`] |
//! | `/login`, `/logout` | login and logout | [`login`] |

mod assets;
mod audit;
mod charts;
mod dead;
mod decisions;
mod deliveries;
mod event;
mod events;
mod layout;
mod login;
mod outbox;
mod overview;
mod plugins;
mod sources;

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::html;
use posthouse_model::counted;
use posthouse_store::StoreError;

use super::{
    Admin,
    error::{ApiError, Refusal, shown},
    guard,
};

/// The routes that need a session, and the login.
pub(super) fn router() -> Router<Admin> {
    let quick = Router::new()
        .route("/", get(overview::page))
        .route("/events", get(events::page))
        .route("/events/{source}/{id}", get(event::page))
        .route("/deliveries", get(deliveries::page))
        .route("/dead-letters", get(dead::page))
        .route("/decisions", get(decisions::list))
        .route("/decisions/{id}", get(decisions::page))
        .route("/outbox", get(outbox::page))
        .route("/plugins", get(plugins::list))
        .route("/plugins/{name}", get(plugins::page))
        .route("/plugins/{name}/{deed}", post(plugins::act))
        .route("/sources", get(sources::list))
        .route("/sources/{name}", get(sources::page))
        .route("/audit", get(audit::page))
        .route("/login", get(login::page).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route(assets::STYLE, get(assets::style))
        .route(assets::SCRIPT, get(assets::script))
        .route(assets::ICON, get(assets::icon))
        .layer(from_fn(guard::within_time));
    // These have no time limit.
    Router::new()
        .route("/replay", get(dead::confirm).post(dead::replay))
        .route("/events/{source}/{id}/replay", post(event::replay))
        .route("/outbox/replay", post(outbox::replay))
        .route("/sources/{name}/test", post(sources::test))
        .merge(quick)
}

/// Whether a path needs no login: the login itself with its style, script and icon.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    match path {
        "/login" => method == Method::GET || method == Method::POST,
        assets::STYLE | assets::SCRIPT | assets::ICON => method == Method::GET,
        _ => false,
    }
}

/// The login page, for a browser that requested this.
pub(super) fn login_page(asked: &Uri) -> Response {
    login::refused(asked.path_and_query().map_or("/", |asked| asked.as_str()), "")
}

/// A page that can't be shown, with the reason.
struct PageError(ApiError);

type Page = Result<Response, PageError>;

impl<E: Into<ApiError>> From<E> for PageError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl PageError {
    fn store(error: StoreError) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let said = html! {
            p.error { (error.message) }
            p { a href="/" { "Overview" } " · " a href="/events" { "Events" } }
        };
        let title = if error.status == StatusCode::NOT_FOUND { "Not found" } else { "Not possible" };
        (error.status, layout::page(title, "", &said)).into_response()
    }
}

/// Shows a refusal as a page to a browser that asked for one, and as JSON to all other clients.
pub(super) async fn refusals_as_pages(request: Request, next: Next) -> Response {
    let accepts = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let page = accepts.is_some_and(|accept| accept.contains("text/html")) && !is_api(request.uri().path());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Refusal>() {
        Some(Refusal(message)) if page => {
            PageError(ApiError::new(response.status(), message)).into_response()
        }
        _ => response,
    }
}

/// Whether a path belongs to the API.
fn is_api(path: &str) -> bool {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ["/v1", "/admin", "/metrics", "/healthz", "/readyz"].into_iter().any(below)
}

/// Redirects after a form to a page that reports its success and that can be reloaded.
fn done(path: &str, said: Said, count: u64) -> Response {
    let mark = if path.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{path}{mark}said={}&n={count}", said.word())).into_response()
}

/// The successes that a page can report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Paused,
    Resumed,
    Forgotten,
    Replayed,
    Resent,
}

impl Said {
    fn word(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Forgotten => "forgotten",
            Self::Replayed => "replayed",
            Self::Resent => "resent",
        }
    }
}

/// The part of a query that says what was done.
#[derive(Debug, Default, serde::Deserialize)]
struct Done {
    said: Option<Said>,
    n: Option<u64>,
}

impl Done {
    fn show(&self) -> maud::Markup {
        let n = self.n.unwrap_or(0);
        let text = match self.said {
            None => return html! {},
            Some(Said::Paused) => "Paused: its deliveries are held. Nothing is lost.".to_owned(),
            Some(Said::Resumed) => "Resumed: held deliveries run now.".to_owned(),
            Some(Said::Forgotten) => "The plugin is forgotten.".to_owned(),
            Some(Said::Replayed) => format!("{} created.", counted(n, "new delivery")),
            Some(Said::Resent) => format!("{} will be sent again.", counted(n, "item")),
        };
        html! { p.said role="status" { (text) } }
    }
}

impl From<axum::extract::rejection::FormRejection> for ApiError {
    fn from(rejection: axum::extract::rejection::FormRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// The error for a form that names something that does not exist.
fn unknown(what: &str) -> PageError {
    PageError(ApiError::new(StatusCode::NOT_FOUND, format!("there is no `{}`", shown(what))))
}
