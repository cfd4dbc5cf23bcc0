//! What can go wrong with a database, sorted by whose doing it is and by what still stands.

use std::time::Duration;

/// SQLSTATE of a disk or a database that is full.
pub(super) const FULL: &str = "53100";

/// Why a database could not be used; nothing was done. Not the guest's doing: the job runs again, and
/// that is not counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("database `{name}`: {reason}")]
pub struct Unavailable {
    /// Its name in config.toml.
    pub name: String,
    /// What happened, and the way out where there is one.
    pub reason: String,
}

/// Why a call brought nothing. The first three are answers for the guest, which may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlError {
    /// It is not one statement, or one that is the host's alone.
    Refused(String),
    /// The database says no; what the statement had begun is undone.
    Statement {
        /// Five characters, as in SQL:2016.
        sqlstate: String,
        /// In the database's words.
        message: String,
    },
    /// More than one call may pass; the message names the limit. The statement is undone.
    Limit(String),
    /// The transaction is no more, and the attempt with it.
    Over(Over),
}

/// Why a transaction is no more. Nothing of it remains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// Another one was in the way: the attempt runs again at once, from the start.
    #[error("another transaction was in the way")]
    Conflict,
    /// Not the guest's doing.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The session ended under the guest's statement: it may be the guest's doing, or somebody else's.
    #[error("{0}")]
    Broken(Unavailable),
    /// A statement that was stopped by the time-out, and could only be undone with all before it.
    #[error("limit `statement_timeout` ({0:?}) reached")]
    TimedOut(Duration),
    /// A row or value beyond what any call may pass, which could be refused only with the connection.
    #[error("limit `sql_bytes` reached: the database sent a value of {0} bytes")]
    TooLarge(usize),
    /// What it wrote has no room: a limit, which the message names, or the disk. The guest's doing.
    #[error("{0}")]
    Full(String),
    /// The statement itself ended the transaction.
    #[error("the statement rolled the attempt's transaction back: {0}")]
    RolledBack(String),
}

impl From<Over> for SqlError {
    fn from(over: Over) -> Self {
        Self::Over(over)
    }
}

/// What a commit did, where it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The effects are there, and the marker with them.
    Marked,
    /// The transaction had changed nothing, so that there was nothing to mark.
    NothingWritten,
}

/// Why a commit is not known to have happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Another transaction was in the way; nothing remains. Run the attempt again at once.
    #[error("another transaction was in the way")]
    Conflict,
    /// The delivery's marker was there already: an earlier attempt has committed, and nothing of this one
    /// remains. Finish from the marker.
    #[error("an earlier attempt of the delivery has committed")]
    AlreadyCommitted,
    /// The connection broke while the commit was under way: only the marker tells.
    #[error("nobody knows whether the commit took place: {0}")]
    Unknown(Unavailable),
    /// As [`CommitError::Unknown`], and the session ended under the commit, which may be the guest's doing, such
    /// as by what is checked at the end.
    #[error("nobody knows whether the commit took place: {0}")]
    Broken(Unavailable),
    /// The database refused it, such as by a constraint that is checked at the end; nothing remains. The
    /// guest's doing.
    #[error("{message} (SQLSTATE {sqlstate})")]
    Failed {
        /// Five characters, as in SQL:2016.
        sqlstate: String,
        /// In the database's words.
        message: String,
    },
    /// The database could not be used before the commit began; nothing remains. Not the guest's doing.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<Over> for CommitError {
    fn from(over: Over) -> Self {
        match over {
            Over::Conflict => Self::Conflict,
            Over::Unavailable(unavailable) | Over::Broken(unavailable) => Self::Unavailable(unavailable),
            Over::Full(message) => Self::Failed { sqlstate: FULL.to_owned(), message },
            over @ (Over::TimedOut(_) | Over::TooLarge(_) | Over::RolledBack(_)) => {
                Self::Failed { sqlstate: "40000".to_owned(), message: over.to_string() }
            }
        }
    }
}
