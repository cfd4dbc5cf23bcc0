//! `types` of the package: what guests return.

use std::time::Duration;

use posthouse_model::Capability;

use super::bindings::posthouse::plugin::types;
use crate::imports::{guest::Failure, state::HostState};

impl types::Host for HostState {}

/// Nanoseconds since 1970. A time before 1970 becomes 0.
pub(super) fn nanoseconds(time: jiff::Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or_default()
}

impl From<types::Failure> for Failure {
    fn from(failure: types::Failure) -> Self {
        match failure {
            types::Failure::Retry(reason) => Self::Retry { reason, after: None },
            types::Failure::RetryAfter(delay) => {
                Self::Retry { reason: delay.reason, after: Some(Duration::from_secs(delay.seconds.into())) }
            }
            types::Failure::Reject(reason) => Self::Reject { reason },
        }
    }
}

impl From<types::Capability> for Capability {
    fn from(capability: types::Capability) -> Self {
        match capability {
            types::Capability::Mail => Self::Mail,
            types::Capability::Sql => Self::Sql,
            types::Capability::Http => Self::Http,
            types::Capability::Emit => Self::Emit,
        }
    }
}
