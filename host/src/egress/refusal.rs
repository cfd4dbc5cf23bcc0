//! Why a request brought no response, in words for the guest's author and the operator.

use bytesize::ByteSize;

/// Why a request brought no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The grant does not reach so far; the message names the line that would allow it.
    #[error("{0}")]
    Denied(String),
    /// It is no request; the message names the field.
    #[error("{0}")]
    Invalid(String),
    /// Request or response is larger than may be; the message names the limit.
    #[error("{0}")]
    Limit(String),
    /// A response came, with a head that is too large to be read; the message names the limit.
    #[error("{0}")]
    Unreadable(String),
    /// No whole response came in time.
    #[error("{0}")]
    Timeout(String),
    /// No response came.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// Its kind in a word, which shows nothing of the request.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Invalid(_) => "invalid",
            Self::Limit(_) | Self::Unreadable(_) => "limit",
            Self::Timeout(_) => "timeout",
            Self::Failed(_) => "failed",
        }
    }

    pub(super) fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::Invalid(format!("`{field}` {problem}"))
    }

    /// `what` has so many bytes; the limit by this name allows so many.
    pub(super) fn too_large(what: &str, has: impl std::fmt::Display, limit: &str, bound: usize) -> Self {
        let bound = ByteSize(bound as u64).display().iec();
        Self::Limit(format!("{what} has {has} bytes; limit `{limit}` is {bound}"))
    }
}
