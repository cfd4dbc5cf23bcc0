//! `sql`: statements on the one database that is granted, in the attempt's transaction.
//!
//! The first call begins the transaction. If the guest returns ok, the commit takes it over. Otherwise it is dropped,
//! which rolls it back.

use posthouse_database::{
    self as database, AttemptHistory, Bounds, Database, Rows, Transaction, Value, Waiting,
};
use posthouse_model::{DeliveryId, config::Limits};
use serde::{Deserialize, Serialize};

use super::{fault::Fault, limits::Stop};

/// An error that the guest can handle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SqlError {
    /// The plugin lacks the grant. The message contains the line for config.toml.
    Denied(String),
    /// The text is not exactly one statement, or the statement is not allowed.
    Refused(String),
    /// The database refused the statement, and rolled it back.
    Statement { sqlstate: String, message: String },
    /// The call exceeds a limit, which the message names.
    Limit(String),
}

/// The parts of the state that one call on the database needs.
pub(super) struct Sql<'a> {
    pub(super) limits: &'a Limits,
    pub(super) transaction: &'a mut Transaction,
}

type Answer<T> = Result<T, Fault<SqlError>>;

impl Sql<'_> {
    pub(super) async fn query(&mut self, statement: &str, parameters: Vec<Value>) -> Answer<Rows> {
        Ok(self.transaction.query(statement, parameters, self.bounds()).await?)
    }

    pub(super) async fn execute(&mut self, statement: &str, parameters: Vec<Value>) -> Answer<u64> {
        Ok(self.transaction.execute(statement, parameters, self.bounds()).await?)
    }

    fn bounds(&self) -> Bounds {
        Bounds { rows: self.limits.sql_rows, bytes: self.limits.sql_bytes }
    }
}

/// The end of the transaction ends the attempt. Every other error is an answer.
impl From<database::SqlError> for Fault<SqlError> {
    fn from(error: database::SqlError) -> Self {
        Self::Answer(match error {
            database::SqlError::Refused(text) => SqlError::Refused(text),
            database::SqlError::Statement { sqlstate, message } => SqlError::Statement { sqlstate, message },
            database::SqlError::Limit(text) => SqlError::Limit(text),
            database::SqlError::TxAborted(aborted) => return Self::Stop(aborted.into()),
        })
    }
}

/// Returns the attempt's transaction, and begins it if there is none.
pub(super) async fn open<'a>(
    transaction: &'a mut Option<Transaction>,
    database: &Database,
    delivery: DeliveryId,
    past: AttemptHistory,
    waiting: &Waiting,
) -> Result<&'a mut Transaction, Stop> {
    match transaction {
        Some(open) => Ok(open),
        None => {
            let begun = database.begin(delivery, past, waiting).await;
            Ok(transaction.insert(begun.map_err(database::TxAborted::from)?))
        }
    }
}
