//! Everything an operator does is written down: who, what, to what, and what came of it.
//!
//! The entry is on disk before the deed begins, so that there is no deed without one, and the deed runs to
//! its end though its client goes away.

use std::sync::Arc;

use axum::http::StatusCode;

use super::{Admin, error::ApiError};

/// How an operator came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Actor(Arc<str>);

impl Actor {
    /// With the token.
    pub(super) fn token() -> Self {
        Self("token".into())
    }

    /// Nobody yet: who tries to log in.
    pub(super) fn stranger() -> Self {
        Self("login".into())
    }

    /// By a session that began with a login.
    pub(super) fn session(mark: &str) -> Self {
        Self(format!("session {mark}").into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Admin {
    /// Does something to its end, with an entry in the audit log before it and its outcome after it.
    pub(super) async fn audited<T: Send + 'static>(
        &self,
        actor: &Actor,
        action: &str,
        target: &str,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
        said: impl FnOnce(&T) -> String + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = self.0.store.clone();
        let id = store.audit_begin(actor.as_str(), action, target).await?;
        tracing::info!(actor = actor.as_str(), action, target, "an operator's word");
        let deed = tokio::spawn(async move {
            let result = work.await;
            let outcome = match &result {
                Ok(value) => said(value),
                Err(error) => format!("refused: {}", error.message),
            };
            if let Err(error) = store.audit_end(id, &outcome).await {
                tracing::warn!(%error, "what came of an operator's word could not be written down");
            }
            result
        });
        match deed.await {
            Ok(done) => done,
            Err(_) => {
                Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the work did not end; see the log"))
            }
        }
    }

    /// Writes down what is over already.
    pub(super) async fn noted(
        &self,
        actor: &Actor,
        action: &str,
        target: &str,
        outcome: &'static str,
    ) -> Result<(), ApiError> {
        self.audited(actor, action, target, async { Ok(()) }, move |()| outcome.to_owned()).await
    }
}
