//! Everything an operator does is written down: who, what, to what, and what came of it.
//!
//! The entry is on disk before the deed begins, so that there is no deed without one, and the deed runs to
//! its end though its client goes away.

use std::sync::Arc;

use axum::http::StatusCode;

use super::{
    Admin,
    error::{ApiError, shown},
};
use crate::config::nearest;

/// What an operator can do, as the audit log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    PausePlugin,
    ResumePlugin,
    ForgetPlugin,
    ReplayEvent,
    ReplayMany,
    ReplayOutbox,
    SendTestEvent,
    BeginBackup,
    EndBackup,
    LogIn,
    LogOut,
}

impl Action {
    /// Every action.
    pub(super) const ALL: [Self; 11] = [
        Self::PausePlugin,
        Self::ResumePlugin,
        Self::ForgetPlugin,
        Self::ReplayEvent,
        Self::ReplayMany,
        Self::ReplayOutbox,
        Self::SendTestEvent,
        Self::BeginBackup,
        Self::EndBackup,
        Self::LogIn,
        Self::LogOut,
    ];

    /// The words for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::PausePlugin => "pause plugin",
            Self::ResumePlugin => "resume plugin",
            Self::ForgetPlugin => "forget plugin",
            Self::ReplayEvent => "replay event",
            Self::ReplayMany => "replay many",
            Self::ReplayOutbox => "replay outbox",
            Self::SendTestEvent => "send test event",
            Self::BeginBackup => "begin backup",
            Self::EndBackup => "end backup",
            Self::LogIn => "log in",
            Self::LogOut => "log out",
        }
    }

    /// What a person means who asks for these words: `pause` and `plugin` both mean `pause plugin`. In the
    /// form that the store takes.
    ///
    /// # Errors
    /// If no action has these words: with the nearest, and all there are.
    pub(super) fn filter(asked: &str) -> Result<Option<String>, ApiError> {
        let words = asked.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let holds = |action: &str| format!(" {action}").contains(&format!(" {words}"));
        if words.is_empty() {
            return Ok(None);
        }
        if Self::ALL.into_iter().any(|action| holds(action.as_str())) {
            return Ok(Some(words));
        }
        let all = || Self::ALL.into_iter().map(Self::as_str);
        let parts = all().flat_map(|action| action.split(' ').chain([action]));
        let guess =
            nearest(&words, parts).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
        let all = all().map(|action| format!("`{action}`")).collect::<Vec<_>>().join(", ");
        Err(ApiError::not_found(format!(
            "no action `{}` in the audit log; {guess}Actions are {all}",
            shown(&words)
        )))
    }
}

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
        action: Action,
        target: &str,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
        said: impl FnOnce(&T) -> String + Send + 'static,
    ) -> Result<T, ApiError> {
        let (store, action) = (self.0.store.clone(), action.as_str());
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
        action: Action,
        target: &str,
        outcome: &'static str,
    ) -> Result<(), ApiError> {
        self.audited(actor, action, target, async { Ok(()) }, move |()| outcome.to_owned()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_an_action_is_enough_and_an_unknown_one_is_refused() {
        for (asked, words) in
            [("pause", "pause"), ("Pause  Plugin", "pause plugin"), ("log", "log"), ("test", "test")]
        {
            assert_eq!(Action::filter(asked).unwrap().as_deref(), Some(words), "{asked}");
        }
        assert_eq!(Action::filter(" ").unwrap(), None);
        let said = Action::filter("puase").unwrap_err().message;
        assert!(said.contains("did you mean `pause`?") && said.contains("`log out`"), "{said}");
        assert!(Action::filter("ause").is_err(), "the middle of a word is no word");
    }
}
