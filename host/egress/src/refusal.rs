//! Why a request got no response, for the guest's author and the operator.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Why a request got no response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The grant does not allow it. The message names the line that would.
    #[error("{0}")]
    Denied(String),
    /// The request is invalid. The message names the field.
    #[error("{0}")]
    Invalid(String),
    /// The request or response exceeds a limit. The message names the limit.
    #[error("{0}")]
    Limit(String),
    /// The head of the response exceeds a limit. The message names the limit.
    #[error("{0}")]
    Unreadable(String),
    /// No complete response arrived in time.
    #[error("{0}")]
    Timeout(String),
    /// No response arrived.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// The kind of refusal in a word, without anything of the request.
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

    /// `what` has `has` bytes; the limit of this name is `bound` bytes.
    pub(super) fn too_large(what: &str, has: impl std::fmt::Display, limit: &str, bound: usize) -> Self {
        let bound = ByteSize(bound as u64).display().iec();
        Self::Limit(format!("{what} has {has} bytes; limit `{limit}` is {bound}"))
    }
}
