//! Records everything that an operator does: who, what, to what, and the result.
//!
//! The entry is on disk before the action begins, so there is no action without an entry. The action runs to
//! its end, even if its client goes away.

use std::sync::Arc;

use axum::http::StatusCode;
use posthouse_model::config::nearest;

use super::{
    Admin,
    error::{ApiError, shown},
};

/// The actions of an operator, as the audit log names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    PausePlugin,
    ResumePlugin,
    ForgetPlugin,
    ReplayEvent,
    ReplayMany,
    ReplayOutbox,
    SendTestEvent,
    LearnKey,
    ForgetKey,
    CatchUp,
    BeginBackup,
    EndBackup,
    LogIn,
    LogOut,
}

impl Action {
    /// Every action.
    pub(super) const ALL: [Self; 14] = [
        Self::PausePlugin,
        Self::ResumePlugin,
        Self::ForgetPlugin,
        Self::ReplayEvent,
        Self::ReplayMany,
        Self::ReplayOutbox,
        Self::SendTestEvent,
        Self::LearnKey,
        Self::ForgetKey,
        Self::CatchUp,
        Self::BeginBackup,
        Self::EndBackup,
        Self::LogIn,
        Self::LogOut,
    ];

    /// The name of the action.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::PausePlugin => "pause plugin",
            Self::ResumePlugin => "resume plugin",
            Self::ForgetPlugin => "forget plugin",
            Self::ReplayEvent => "replay event",
            Self::ReplayMany => "replay many",
            Self::ReplayOutbox => "replay outbox",
            Self::SendTestEvent => "send test event",
            Self::LearnKey => "learn key",
            Self::ForgetKey => "forget key",
            Self::CatchUp => "catch up",
            Self::BeginBackup => "begin backup",
            Self::EndBackup => "end backup",
            Self::LogIn => "log in",
            Self::LogOut => "log out",
        }
    }

    /// The action that a person means with these words: `pause` and `plugin` both mean `pause plugin`.
    /// Returns the form that the store expects.
    ///
    /// # Errors
    /// If no action has these words. The error names the nearest action and lists all.
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
            "there is no action `{}` in the audit log; {guess}Actions are {all}",
            shown(&words)
        )))
    }
}

/// How an operator was authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Actor(Arc<str>);

impl Actor {
    /// By the token.
    pub(super) fn token() -> Self {
        Self("token".into())
    }

    /// Not at all: somebody who tries to log in.
    pub(super) fn stranger() -> Self {
        Self("login".into())
    }

    /// By a session, which began with a login.
    pub(super) fn session(mark: &str) -> Self {
        Self(format!("session {mark}").into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Admin {
    /// Runs an action to its end, with an entry in the audit log before it and its outcome after it.
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
        tracing::info!(actor = actor.as_str(), action, target, "operator action requested");
        let deed = tokio::spawn(async move {
            let result = work.await;
            let outcome = match &result {
                Ok(value) => said(value),
                Err(error) => format!("refused: {}", error.message),
            };
            if let Err(error) = store.audit_end(id, &outcome).await {
                tracing::warn!(%error, "could not record the outcome of an operator's action");
            }
            result
        });
        match deed.await {
            Ok(done) => done,
            Err(_) => Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the action did not finish; see the log",
            )),
        }
    }

    /// Records an action that is over already.
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
