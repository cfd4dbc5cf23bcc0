//! `sql`: statements on the one database that is granted, in the attempt's transaction.
//!
//! The transaction begins with the first call, and goes to the commit when the guest has returned ok.
//! Whatever else becomes of the attempt drops it, and so rolls it back.

use posthouse_database::{AttemptHistory, Bounds, Database, Rows, SqlError, Transaction, Value, Waiting};
use posthouse_model::config::Limits;

use super::{Invocation, kv::Fault, limits::Stop};

/// The database as one call sees it.
pub(super) struct Sql<'a> {
    pub(super) limits: &'a Limits,
    pub(super) transaction: &'a mut Transaction,
}

type Answer<T> = Result<T, Fault<SqlError>>;

impl Sql<'_> {
    pub(super) async fn query(&mut self, statement: &str, parameters: Vec<Value>) -> Answer<Rows> {
        self.transaction.query(statement, parameters, self.bounds()).await.map_err(sorted)
    }

    pub(super) async fn execute(&mut self, statement: &str, parameters: Vec<Value>) -> Answer<u64> {
        self.transaction.execute(statement, parameters, self.bounds()).await.map_err(sorted)
    }

    fn bounds(&self) -> Bounds {
        Bounds { rows: self.limits.sql_rows, bytes: self.limits.sql_bytes }
    }
}

fn sorted(error: SqlError) -> Fault<SqlError> {
    match error {
        SqlError::TxAborted(over) => Fault::Stop(over.into()),
        answer => Fault::Answer(answer),
    }
}

/// The attempt's transaction, which begins where it has not yet.
pub(super) async fn open<'a>(
    transaction: &'a mut Option<Transaction>,
    database: &Database,
    invocation: Invocation,
    past: AttemptHistory,
    waiting: &Waiting,
) -> Result<&'a mut Transaction, Stop> {
    let Invocation::Handle(delivery) = invocation else {
        return Err(Stop::Describing(super::Call::SqlQuery));
    };
    match transaction {
        Some(open) => Ok(open),
        None => {
            let begun = database.begin(delivery, past, waiting).await;
            Ok(transaction.insert(begun.map_err(posthouse_database::TxAborted::from)?))
        }
    }
}
