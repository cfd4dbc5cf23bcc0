//! The form of a refusal: `{"error":"…"}` with a status, for each cause.

use axum::{
    Json,
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use posthouse_guest::plugin::PluginError;
use posthouse_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

/// A refusal: its status, and a message for a person.
#[derive(Debug)]
pub(super) struct ApiError {
    pub status: StatusCode,
    pub message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn internal(error: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<tokio::task::JoinError> for ApiError {
    /// A task outside the runtime's threads did not finish.
    fn from(error: tokio::task::JoinError) -> Self {
        tracing::error!(%error, "could not answer an admin request");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error; see the daemon's log")
    }
}

/// Why the daemon refused the request.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorBody {
    /// The error, for a person.
    error: String,
}

/// Marks an answer as a refusal, with its message. The dashboard makes a page of it for a browser.
#[derive(Debug, Clone)]
pub(super) struct Refusal(pub String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(ErrorBody { error: self.message.clone() });
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Refusal(self.message));
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<PluginError> for ApiError {
    fn from(error: PluginError) -> Self {
        match error {
            PluginError::Unknown(_) => Self::not_found(error.to_string()),
            PluginError::StillThere(..) => Self::conflict(error.to_string()),
            PluginError::Store(error) => error.into(),
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// A text from a request, made safe for an error: escaped, and cut if it is long.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let cut: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() { cut + "…" } else { cut }
}

pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at `{}`", shown(uri.path())))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("`{}` does not accept {method}", shown(uri.path())))
}
