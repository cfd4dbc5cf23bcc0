//! Pages for people.

use axum::{
    Router,
    http::{Method, Uri},
    response::{IntoResponse, Response},
};

use super::Admin;

/// What needs the token.
pub(super) fn router() -> Router<Admin> {
    Router::new()
}

/// Whether a path is there for who is not logged in.
pub(super) fn is_open(_method: &Method, _path: &str) -> bool {
    false
}

/// The way in, for a browser that asked for this.
pub(super) fn login_page(_asked: &Uri) -> Response {
    axum::http::StatusCode::UNAUTHORIZED.into_response()
}
