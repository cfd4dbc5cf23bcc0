//! The errors of a database, sorted by who caused them and by what remains.

use std::time::Duration;

/// SQLSTATE of a full disk or database.
pub(super) const FULL: &str = "53100";

/// A database could not be used, and nothing was done. The guest did not cause this: the job runs again, and
/// the attempt does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("database `{name}`: {reason}")]
pub struct Unavailable {
    /// The database's name in config.toml.
    pub name: String,
    /// The cause, and how to fix it if that is known.
    pub reason: String,
}

/// Why a call failed. The first three are answers for the guest, which may continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlError {
    /// The text is not exactly one statement, or the statement is not allowed.
    Refused(String),
    /// The database refused the statement, and rolled back any part of it that had run.
    Statement {
        /// Five characters, as in SQL:2016.
        sqlstate: String,
        /// The database's own message.
        message: String,
    },
    /// The call exceeds a limit, which the message names. The statement is rolled back.
    Limit(String),
    /// The transaction has ended, and the attempt with it.
    TxAborted(TxAborted),
}

/// Why a transaction has ended. It is rolled back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxAborted {
    /// Another transaction was in the way. The attempt runs again at once, from the start.
    #[error("conflict with another transaction")]
    Conflict,
    /// The guest did not cause this.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The session ended during the guest's statement. The guest or something else may be the cause.
    #[error("{0}")]
    Broken(Unavailable),
    /// The timeout stopped a statement, and rolling it back required rolling back the transaction.
    #[error("limit `statement_timeout` ({0:?}) reached")]
    TimedOut(Duration),
    /// A row or value exceeded the limit of a call, and refusing it required closing the connection.
    #[error("limit `sql_bytes` reached: the database sent a value of {0} bytes")]
    TooLarge(usize),
    /// The transaction has no room for its writes: it reached a limit, which the message names, or the disk is
    /// full. The guest caused this.
    #[error("{0}")]
    Full(String),
    /// The statement itself ended the transaction.
    #[error("the statement rolled the attempt's transaction back: {0}")]
    RolledBack(String),
}

impl From<TxAborted> for SqlError {
    fn from(over: TxAborted) -> Self {
        Self::TxAborted(over)
    }
}

/// The result of a successful commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The effects and the marker are committed.
    Marked,
    /// The transaction changed nothing, so there is no marker.
    NothingWritten,
}

/// Why a commit is not known to have succeeded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Another transaction was in the way, and nothing remains. Run the attempt again at once.
    #[error("conflict with another transaction")]
    Conflict,
    /// The delivery has a marker already: an earlier attempt has committed, and nothing of this one remains.
    /// Finish from the marker.
    #[error("an earlier attempt of the delivery has committed")]
    AlreadyCommitted,
    /// The connection broke during the commit. Only the marker shows whether it succeeded.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(Unavailable),
    /// Like [`CommitError::Unknown`], but the session ended during the commit. The guest may have caused that,
    /// for example by a constraint that is checked at the end.
    #[error("the outcome of the commit is unknown: {0}")]
    Broken(Unavailable),
    /// The database refused the commit, for example by a constraint that is checked at the end. Nothing
    /// remains. The guest caused this.
    #[error("{message} (SQLSTATE {sqlstate})")]
    Failed {
        /// Five characters, as in SQL:2016.
        sqlstate: String,
        /// The database's own message.
        message: String,
    },
    /// The database could not be used before the commit began, and nothing remains. The guest did not cause
    /// this.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<TxAborted> for CommitError {
    fn from(over: TxAborted) -> Self {
        match over {
            TxAborted::Conflict => Self::Conflict,
            TxAborted::Unavailable(unavailable) | TxAborted::Broken(unavailable) => {
                Self::Unavailable(unavailable)
            }
            TxAborted::Full(message) => Self::Failed { sqlstate: FULL.to_owned(), message },
            over @ (TxAborted::TimedOut(_) | TxAborted::TooLarge(_) | TxAborted::RolledBack(_)) => {
                Self::Failed { sqlstate: "40000".to_owned(), message: over.to_string() }
            }
        }
    }
}
