//! What the queries of the lists have in common.

use std::time::Duration;

use crate::admin::{Admin, Since, error::ApiError};

/// How many rows a list has where nobody says it.
const USUAL: u32 = 100;
/// The most rows of one answer; what comes after them is asked for with `before`.
pub(super) const MOST: u32 = 1000;
/// How long one search may look; it says where it stopped.
pub(in crate::admin) const SEARCH: Duration = Duration::from_millis(600);

/// Checks the `limit` of a list.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked {
        None => Ok(USUAL),
        Some(limit @ 1..=MOST) => Ok(limit),
        Some(odd) => Err(ApiError::bad_request(format!("`limit` is {odd}; 1 to {MOST} is allowed"))),
    }
}

impl Admin {
    /// The moment where a range begins.
    pub(in crate::admin) fn since(&self, since: Option<Since>) -> Option<jiff::Timestamp> {
        since.map(|since| since.start(self.0.ambient.now()))
    }

    /// The last moment of a range.
    pub(in crate::admin) fn until(&self, until: Option<Since>) -> Option<jiff::Timestamp> {
        until.map(|until| until.end(self.0.ambient.now()))
    }
}
