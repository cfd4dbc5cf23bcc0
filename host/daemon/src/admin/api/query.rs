//! The parts that the queries of all lists share.

use std::time::Duration;

use crate::admin::{Admin, Since, error::ApiError};

/// The number of rows in a list if the query has no `limit`.
const USUAL: u32 = 100;
/// The most rows in one answer. `before` asks for the rows after them.
pub(super) const MOST: u32 = 1000;
/// The time limit of one search. The answer says where it stopped.
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
    /// The start of a range.
    pub(in crate::admin) fn since(&self, since: Option<Since>) -> Option<jiff::Timestamp> {
        since.map(|since| since.start(self.0.env.now()))
    }

    /// The end of a range.
    pub(in crate::admin) fn until(&self, until: Option<Since>) -> Option<jiff::Timestamp> {
        until.map(|until| until.end(self.0.env.now()))
    }
}
