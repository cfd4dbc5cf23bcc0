//! A session: its prepared statements, the check of called functions, and the proof of its initial state.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio_postgres::{Client, Error, Row, Statement};

use super::frames::Bound;
use crate::guard::{Checked, Names};

/// The most prepared statements of guests that a session keeps.
const PREPARED: usize = 256;

/// Finds a function that no plugin may call among the names that the guard could not decide.
///
/// - `$1`, called without a schema by the name of a built-in function: is there one that does not belong to an
///   extension?
/// - `$2`, `row.name`: is there a function whose only argument is such a row?
/// - `$3`, `(value).name`: is there a function of such a value?
const FIND_FUNCTION: &str = "
SELECT f.proname::text
FROM pg_catalog.pg_proc f
JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
LEFT JOIN pg_catalog.pg_type a ON a.oid = f.proargtypes[0]
WHERE n.nspname = ANY (pg_catalog.current_schemas(true)) AND (
    f.proname = ANY ($1::text[]) AND n.nspname <> 'pg_catalog' AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = f.oid AND d.deptype = 'e'
    )
    OR f.pronargs >= 1 AND f.pronargs - f.pronargdefaults <= 1 AND (
        f.proname = ANY ($2::text[]) AND n.nspname <> 'pg_catalog'
            AND (a.typtype IN ('c', 'd', 'p') OR f.provariadic <> 0)
        OR f.proname = ANY ($3::text[])
    )
)
LIMIT 1";

/// The two columns of a proof: state that outlives a transaction and changes the meaning of later statements.
/// Changes that the server reports without being asked are not part of it. Session-level locks are released.
/// The isolation level is not part of it either, because each transaction sets its own.
macro_rules! proof {
    () => {
        "pg_catalog.pg_advisory_unlock_all(), pg_catalog.concat_ws(' ', pg_catalog.pg_my_temp_schema(), \
         pg_catalog.current_setting('role'), pg_catalog.current_setting('search_path'), \
         pg_catalog.current_setting('statement_timeout'), \
         pg_catalog.current_setting('default_transaction_read_only'))"
    };
}

const PROOF: &str = concat!("SELECT ", proof!());

/// Writes the marker, and proves the session: a separate statement for the proof would slow a commit
/// measurably.
pub(super) const MARK: &str =
    concat!("INSERT INTO posthouse_deliveries (delivery_id, effects) VALUES ($1, $2) RETURNING ", proof!());

/// The state of a session, as far as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof(String);

impl Proof {
    /// Reads the proof from a row that has its columns.
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        row.try_get(1).map(Self)
    }
}

/// Sends statements through a connection. Answers arrive while [`super::connect::Connection::at_work`] waits for
/// them.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) bound: Bound,
    /// The host's own statements.
    own: Mutex<HashMap<&'static str, Statement>>,
    /// The guests' statements, which were checked.
    guests: Mutex<HashMap<String, Statement>>,
}

impl Session {
    pub(super) fn new(client: Client, bound: Bound) -> Self {
        Self { client, bound, own: Mutex::default(), guests: Mutex::default() }
    }

    /// One of the host's statements, prepared once a session.
    pub(super) async fn prepared(&self, text: &'static str) -> Result<Statement, Error> {
        let known = self.own.lock().get(text).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(text).await?;
        self.own.lock().insert(text, statement.clone());
        Ok(statement)
    }

    /// A guest's statement, prepared once a session, or the name of a function that it may not call.
    pub(super) async fn prepared_for_guest(
        &self,
        checked: &Checked,
    ) -> Result<Result<Statement, String>, Error> {
        let known = self.guests.lock().get(&checked.text).cloned();
        if let Some(statement) = known {
            return Ok(Ok(statement));
        }
        // Both in one round trip: preparing a statement runs nothing.
        let (refused, statement) =
            tokio::join!(self.refused(&checked.names), self.client.prepare(&checked.text));
        let statement = statement?;
        if let Some(function) = refused? {
            return Ok(Err(function));
        }
        let mut guests = self.guests.lock();
        if guests.len() >= PREPARED {
            // Dropping a statement closes it on the server, too.
            guests.clear();
        }
        guests.insert(checked.text.clone(), statement.clone());
        Ok(Ok(statement))
    }

    /// The function among the names that no plugin may call, if there is one.
    async fn refused(&self, names: &Names) -> Result<Option<String>, Error> {
        if names.is_empty() {
            return Ok(None);
        }
        let find = self.prepared(FIND_FUNCTION).await?;
        let found = self.client.query_opt(&find, &[&names.called, &names.of_rows, &names.of_values]).await?;
        found.map(|row| row.try_get(0)).transpose()
    }

    /// Ends the transaction, and reads the proof in the same round trip.
    pub(super) async fn end_and_prove(&self, end: &str) -> Result<Option<Proof>, Error> {
        let (ended, proof) = tokio::join!(self.client.batch_execute(end), self.proof());
        ended.map(|()| proof)
    }

    /// The current proof. None if the server does not answer.
    pub(super) async fn proof(&self) -> Option<Proof> {
        let proof = self.prepared(PROOF).await.ok()?;
        let row = self.client.query_one(&proof, &[]).await.ok()?;
        Proof::read(&row).ok()
    }
}
