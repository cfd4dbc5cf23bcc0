//! Why an attempt did not do its work, and which errors mean what.
//!
//! The rule: what another attempt would run into again is refused for good (a dead letter, which the
//! operator sees and may replay after mending the cause); what may pass by itself is tried again.

use crate::{Delay, Failure, kv, outbox};

impl Failure {
    /// Try again after the plugin's own back-off.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry(reason.into())
    }

    /// Try again, but not before so many seconds.
    pub fn retry_after(reason: impl Into<String>, seconds: u32) -> Self {
        Self::RetryAfter(Delay { reason: reason.into(), seconds })
    }

    /// Never try again.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }

    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            Self::Retry(reason) | Self::Reject(reason) => reason,
            Self::RetryAfter(delay) => &delay.reason,
        }
    }
}

impl From<kv::Error> for Failure {
    fn from(error: kv::Error) -> Self {
        match error {
            // Others may make room, or the operator more of it.
            kv::Error::Quota(_) => Self::retry(error.to_string()),
            _ => Self::reject(error.to_string()),
        }
    }
}

impl From<outbox::Error> for Failure {
    fn from(error: outbox::Error) -> Self {
        Self::reject(error.to_string())
    }
}
