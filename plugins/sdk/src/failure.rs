//! Failures of an attempt, and the conversion of errors to failures.
//!
//! The rule: an error that another attempt would repeat is a rejection. The delivery becomes a dead letter,
//! which the operator sees and may replay after fixing the cause. An error that may disappear is retried.

use crate::{Delay, Failure, http, kv, outbox, sql};

impl Failure {
    /// Retry after the plugin's usual back-off.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry(reason.into())
    }

    /// Retry after at least this many seconds.
    pub fn retry_after(reason: impl Into<String>, seconds: u32) -> Self {
        Self::RetryAfter(Delay { reason: reason.into(), seconds })
    }

    /// Never retry: the delivery becomes a dead letter.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }

    /// The reason.
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
            // Other attempts may free room, or the operator may raise the limit.
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

impl From<sql::Error> for Failure {
    fn from(error: sql::Error) -> Self {
        if error.is_lasting() { Self::reject(error.to_string()) } else { Self::retry(error.to_string()) }
    }
}

impl From<http::Error> for Failure {
    fn from(error: http::Error) -> Self {
        let reason = error.to_string();
        match error {
            http::Error::Timeout(_) | http::Error::Failed(_) => Self::retry(reason),
            // The statuses that the outbox retries as well.
            http::Error::Status { status: 408 | 425 | 429 | 500..=599, retry_after, .. } => match retry_after
            {
                Some(seconds) => Self::retry_after(reason, seconds),
                None => Self::retry(reason),
            },
            http::Error::Denied(_)
            | http::Error::Invalid(_)
            | http::Error::Limit(_)
            | http::Error::Status { .. } => Self::reject(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_the_rest_is_refused() {
        let statement = |state: &str| {
            Failure::from(sql::Error::Statement { sqlstate: state.to_owned(), message: String::new() })
        };
        for state in ["40001", "23503", "23505", "08006", "53300", "55P03", "57014", "HY000"] {
            assert!(matches!(statement(state), Failure::Retry(_)), "{state}");
        }
        for state in ["42601", "42P01", "42501", "22P02", "0A000", "21000"] {
            assert!(matches!(statement(state), Failure::Reject(_)), "{state}");
        }
        let status = |status, retry_after| {
            Failure::from(http::Error::Status { status, request: "GET http://a/".to_owned(), retry_after })
        };
        for code in [408, 425, 429, 500, 503, 599] {
            assert!(matches!(status(code, None), Failure::Retry(_)), "{code}");
            assert!(matches!(status(code, Some(7)), Failure::RetryAfter(delay) if delay.seconds == 7));
        }
        for code in [302, 400, 401, 404, 409, 422] {
            assert!(matches!(status(code, Some(7)), Failure::Reject(_)), "{code}");
        }
    }
}
