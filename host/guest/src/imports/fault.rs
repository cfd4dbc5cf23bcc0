//! Why a call failed: an error for the guest, or the end of the attempt.

use posthouse_egress::Refusal;
use posthouse_store::StoreError;

use super::{kv::KvError, limits::Stop, outbox::OutboxError, sql::SqlError};

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Fault<E> {
    /// An error that the guest can handle.
    Answer(E),
    /// The attempt ends.
    Stop(Stop),
}

impl<E> Fault<E> {
    /// Separates the answer for the guest from the end of the attempt.
    pub(super) fn settle<T>(result: Result<T, Self>) -> Result<Result<T, E>, Stop> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(Self::Answer(error)) => Ok(Err(error)),
            Err(Self::Stop(stop)) => Err(stop),
        }
    }
}

impl<E> From<Stop> for Fault<E> {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl<E> From<StoreError> for Fault<E> {
    fn from(error: StoreError) -> Self {
        Self::Stop(error.into())
    }
}

/// Errors of these types are answers.
macro_rules! answers {
    ($($error:ty)*) => {
        $(impl From<$error> for Fault<$error> {
            fn from(error: $error) -> Self {
                Self::Answer(error)
            }
        })*
    };
}

answers!(KvError OutboxError Refusal SqlError);
