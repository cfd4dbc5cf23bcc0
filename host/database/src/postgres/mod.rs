//! PostgreSQL: a pool of connections, and a serializable transaction on one of them.
//!
//! Each statement of a guest runs after a savepoint, so that a failing statement rolls back nothing else.
//! Savepoint and statement are sent together: a call is one round trip, and so is the commit with its marker.
//! The first statement of a transaction has nothing before it to protect, so it runs without a savepoint. If it
//! fails, it runs once more after a savepoint, because the answer that the guest uses must be true within the
//! transaction that commits.
//!
//! The server reports when transactions conflict (SQLSTATE 40001 and 40P01); then the attempt runs again. After
//! three conflicts an attempt waits for all other attempts of this pool to end. Then it has the database to
//! itself, as far as posthouse is concerned.
//!
//! Two transactions of one delivery never run at once. The first one may even belong to a killed daemon, with
//! its commit still running. The second one waits for an advisory lock of the delivery until the server knows
//! the result of the first. If there was certainly no earlier transaction, it takes no lock.

mod connect;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod hidden;
mod session;
mod size;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt as _;
use parking_lot::Mutex;
use posthouse_model::{
    DeliveryId, KvChange, Usage,
    config::DatabaseSettings,
    fault::{self, FaultPoint},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::error::SqlState;

use self::{
    connect::{Connection, Server, said},
    frames::OWN,
    hidden::Hides,
    session::{MARK, Proof, Session},
    size::{Size, only_frees},
    values::{Column, Parameter},
};
use super::{
    AttemptHistory, Bounds, CommitError, Committed, Role, Rows, SqlError, TxAborted, Unavailable, Value,
    Waiting,
    error::FULL,
    guard::{self, Checked, Dialect, Does, Grants},
    kv::Written,
    value::Gather,
    waiting::MAX_WAIT,
};

/// After this many conflicts an attempt has the pool to itself.
const CONFLICTS_BEFORE_ALONE: u32 = 3;
/// How long after the server's own timeout an unanswered connection is given up.
const LAG: Duration = Duration::from_secs(2);
/// Connections for markers and sizes, besides those of the attempts.
const APART: usize = 2;
/// Bytes of a message besides its values.
const SLACK: usize = 64 << 10;

const KV_GET: &str = "SELECT value FROM posthouse_kv WHERE plugin = $1 AND key = $2";
const KV_MANY: &str = "SELECT key, value FROM posthouse_kv WHERE plugin = $1 AND key = ANY($2)";
const KV_LIST: &str = "
SELECT key, value FROM posthouse_kv
WHERE plugin = $1 AND key >= $2 AND key > $3 AND ($4::bytea IS NULL OR key < $4) ORDER BY key LIMIT $5";
const KV_BYTES: &str = "
SELECT coalesce(sum(octet_length(key) + octet_length(value)), 0)::bigint FROM posthouse_kv WHERE plugin = $1";
const KV_PUT: &str = "
INSERT INTO posthouse_kv (plugin, key, value)
SELECT $1, new.key, new.value FROM unnest($2::bytea[], $3::bytea[]) AS new (key, value)
ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value";
const KV_DELETE: &str = "DELETE FROM posthouse_kv WHERE plugin = $1 AND key = ANY($2)";
/// The statements of a commit.
const BY_COMMITS: [&str; 3] = [KV_PUT, KV_DELETE, MARK];
const FIND_MARK: &str = "SELECT effects FROM posthouse_deliveries WHERE delivery_id = $1";
const MARKS: &str =
    "SELECT delivery_id FROM posthouse_deliveries WHERE delivery_id > $1 ORDER BY delivery_id LIMIT $2";
const UNMARK: &str = "DELETE FROM posthouse_deliveries WHERE delivery_id = ANY($1)";
const HAS_WRITTEN: &str = "SELECT txid_current_if_assigned() IS NOT NULL";

/// One database of a server.
pub(super) struct Pool {
    name: String,
    server: Server,
    grants: Grants,
    statement_timeout: Duration,
    size: Size,
    places: Arc<Semaphore>,
    all: u32,
    apart: Semaphore,
    idle: Mutex<Vec<Connection>>,
    /// Whether the log has reported a changed session.
    told: AtomicBool,
}

type Failure = tokio_postgres::Error;

impl Pool {
    pub(super) fn new(name: &str, url: &str, settings: &DatabaseSettings) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            server: Server::new(name, url, settings.ca.clone(), settings.statement_timeout),
            grants: Grants::new(name, &settings.functions),
            statement_timeout: settings.statement_timeout,
            size: Size::new(settings.max_size),
            places: Arc::new(Semaphore::new(settings.pool)),
            all: u32::try_from(settings.pool).unwrap_or(u32::MAX),
            apart: Semaphore::new(APART),
            idle: Mutex::default(),
            told: AtomicBool::new(false),
        })
    }

    /// The active transactions.
    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.all as usize, self.places.available_permits())
    }

    pub(super) async fn begin(
        self: &Arc<Self>,
        delivery: DeliveryId,
        past: AttemptHistory,
        waiting: &Waiting,
    ) -> Result<Transaction, Unavailable> {
        let places = if past.conflicts >= CONFLICTS_BEFORE_ALONE { self.all } else { 1 };
        let place = waiting.wait_for(Arc::clone(&self.places).acquire_many_owned(places)).await;
        let place = place
            .ok_or_else(|| self.unavailable(&format!("no connection became free within {MAX_WAIT:?}")))?
            .map_err(|_| self.unavailable("it is closing"))?;
        Ok(Transaction {
            link: Some(self.link().await?),
            pool: Arc::clone(self),
            place: Some(place),
            delivery,
            first: past.conflicts == 0 && !past.may_have_run,
            state: State::Fresh,
            wrote: false,
            busy: false,
        })
    }

    pub(super) async fn find_marker(&self, delivery: DeliveryId) -> Result<Option<Vec<u8>>, Unavailable> {
        let found = self.apart(async |session| {
            session.client.query_opt(&session.prepared(FIND_MARK).await?, &[&delivery.0]).await
        });
        match found.await? {
            Some(row) => row.try_get(0).map(Some).map_err(|error| self.unavailable(&said(&error))),
            None => Ok(None),
        }
    }

    pub(super) async fn role(&self) -> Result<Role, Unavailable> {
        let asked = "SELECT rolname::text, rolsuper, current_setting('temp_file_limit') = '-1'
                     FROM pg_roles WHERE rolname = current_user";
        let row = self.apart(async |session| session.client.query_one(asked, &[]).await).await?;
        let read = || {
            Ok(Role {
                name: row.try_get(0)?,
                is_superuser: row.try_get(1)?,
                unlimited_files: row.try_get(2)?,
            })
        };
        read().map_err(|error: tokio_postgres::Error| self.unavailable(&said(&error)))
    }

    pub(super) async fn markers(&self, after: i64, limit: usize) -> Result<Vec<DeliveryId>, Unavailable> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.apart(async |session| {
            session.client.query(&session.prepared(MARKS).await?, &[&after, &limit]).await
        });
        let number = |row: &tokio_postgres::Row| row.try_get(0).map(DeliveryId);
        rows.await?
            .iter()
            .map(number)
            .collect::<Result<_, _>>()
            .map_err(|error| self.unavailable(&said(&error)))
    }

    pub(super) async fn remove_markers(&self, deliveries: &[DeliveryId]) -> Result<(), Unavailable> {
        let numbers: Vec<_> = deliveries.iter().map(|delivery| delivery.0).collect();
        // Each marker is independent, and the attempt that wrote it is done, so nothing depends on it any more.
        let removed = self.apart(async |session| {
            let begin = session.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED");
            let remove =
                async { session.client.execute(&session.prepared(UNMARK).await?, &[&numbers]).await };
            let (begun, removed) = tokio::join!(begin, remove);
            fault::reached(FaultPoint::MarkerDeleted);
            let ended =
                session.client.batch_execute(if removed.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
            begun.and(removed).and(ended)
        });
        removed.await
    }

    pub(super) async fn kv_bytes(&self, plugin: &str) -> Result<i64, Unavailable> {
        let counted = self.apart(async |session| {
            let row = session.client.query_one(&session.prepared(KV_BYTES).await?, &[&plugin]).await?;
            row.try_get(0)
        });
        counted.await
    }

    /// Does `work` on a connection outside of any attempt, within the timeout.
    async fn apart<T>(
        &self,
        work: impl AsyncFnOnce(&Session) -> Result<T, Failure>,
    ) -> Result<T, Unavailable> {
        let _permit = self.apart.acquire().await.map_err(|_| self.unavailable("it is closing"))?;
        let mut link = self.link().await?;
        match tokio::time::timeout(self.statement_timeout + LAG, link.at_work(OWN, work)).await {
            Ok(Ok(answer)) => {
                self.keep(link);
                Ok(answer)
            }
            Ok(Err(error)) => {
                let why = said(&error);
                if error.as_db_error().is_some() {
                    self.keep(link);
                }
                Err(self.unavailable(&why))
            }
            Err(_) => Err(self.silent()),
        }
    }

    /// A working connection, preferably an idle one.
    async fn link(&self) -> Result<Connection, Unavailable> {
        loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(mut link) => {
                    if link.is_open().await {
                        return Ok(link);
                    }
                }
                None => return self.server.connect().await.map_err(|why| self.unavailable(&why)),
            }
        }
    }

    /// Returns a connection to the pool if its session is in its initial state. Closes any other, and logs that
    /// once.
    fn keep_if(&self, link: Connection, proof: Option<Proof>) {
        if link.is_as_at_first(proof.as_ref()) {
            self.keep(link);
        } else if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                database = self.name,
                "connection closed because its session had changed; a function in `functions`, a trigger or a default \
                 changes it, and each time costs a connection"
            );
        }
    }

    fn keep(&self, mut link: Connection) {
        link.rest();
        self.idle.lock().push(link);
    }

    fn unavailable(&self, reason: &str) -> Unavailable {
        Unavailable { name: self.name.clone(), reason: reason.to_owned() }
    }

    /// Decides who caused a guest's statement to get no answer. If the server answers others, the statement
    /// did: it is in a function of the server that checks no timeout, and the attempt has failed. Otherwise the
    /// server did, and no attempt counts.
    async fn blame(&self, silent: Unavailable) -> TxAborted {
        let asked = self.apart(async |session| session.client.batch_execute("SELECT 1").await);
        match tokio::time::timeout(LAG, asked).await {
            Ok(Ok(())) => TxAborted::TimedOut(self.statement_timeout),
            _ => silent.into(),
        }
    }

    fn silent(&self) -> Unavailable {
        self.unavailable(&format!("no answer within {:?}", self.statement_timeout + LAG))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent.
    Fresh,
    /// The transaction has begun.
    Begun,
    /// The transaction has begun, and has a savepoint.
    Saved,
}

/// A transaction. If it is dropped, it is rolled back.
pub(super) struct Transaction {
    pool: Arc<Pool>,
    link: Option<Connection>,
    place: Option<OwnedSemaphorePermit>,
    delivery: DeliveryId,
    /// Whether there was no earlier transaction of the delivery.
    first: bool,
    state: State,
    /// Whether a statement has changed rows.
    wrote: bool,
    /// Whether something was sent whose answer is incomplete.
    busy: bool,
}

/// Why a guest's statement has no rows.
enum Ended {
    Server(Failure),
    Answer(SqlError),
}

impl From<Failure> for Ended {
    fn from(error: Failure) -> Self {
        Self::Server(error)
    }
}

impl Transaction {
    pub(super) async fn statement(
        &mut self,
        text: &str,
        parameters: Vec<Value>,
        bounds: Bounds,
    ) -> Result<(Rows, u64), SqlError> {
        let checked = guard::check(Dialect::Postgres(&self.pool.grants), text).map_err(SqlError::Refused)?;
        bounds.check_parameters(&parameters).map_err(SqlError::Limit)?;
        if !checked.reads
            && !only_frees(&checked.text)
            && let Some(message) = self.pool.full().await.map_err(TxAborted::from)?
        {
            return Err(SqlError::Statement { sqlstate: FULL.to_owned(), message });
        }
        let parameters: Vec<_> = parameters.into_iter().map(Parameter).collect();
        let hidden = if checked.does != Does::Rows { Some(self.hidden().await?) } else { None };
        if self.state == State::Fresh {
            let before = self.begin();
            match self.answer(&before, State::Begun, &checked, &parameters, bounds).await? {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.host(async |session| session.client.batch_execute("ROLLBACK").await).await?;
                    self.state = State::Fresh;
                    if let SqlError::Statement { sqlstate, .. } = &error
                        && sqlstate == TIMED_OUT
                    {
                        // The timeout says nothing about the rows.
                        return Err(error);
                    }
                }
            }
        }
        let before = match self.state {
            State::Fresh => format!("{} SAVEPOINT posthouse;", self.begin()),
            State::Begun => "SAVEPOINT posthouse".to_owned(),
            State::Saved => "RELEASE SAVEPOINT posthouse; SAVEPOINT posthouse".to_owned(),
        };
        let mut answer = self.answer(&before, State::Saved, &checked, &parameters, bounds).await?;
        if let (Some(hidden), true) = (hidden, answer.is_ok())
            && let Some(hides) = self.hidden().await?.difference(&hidden).next()
        {
            answer = Err(SqlError::Refused(hides.to_string()));
        }
        if answer.is_err() {
            self.host(async |session| session.client.batch_execute("ROLLBACK TO SAVEPOINT posthouse").await)
                .await?;
        }
        answer
    }

    /// Runs `before` and a guest's statement in one round trip. The outer error ends the transaction. After an
    /// inner error the transaction exists, but can only be rolled back.
    async fn answer(
        &mut self,
        before: &str,
        after: State,
        checked: &Checked,
        parameters: &[Parameter],
        bounds: Bounds,
    ) -> Result<Result<(Rows, u64), SqlError>, TxAborted> {
        let pool = Arc::clone(&self.pool);
        let both = self.at_work(bounds.bytes.saturating_add(SLACK), async |session| {
            let run = run(session, &pool.grants, checked, parameters, bounds);
            tokio::join!(session.client.batch_execute(before), run)
        });
        let (begun, answer) = match both.await {
            Ok(both) => both,
            Err(silent) => return Err(self.pool.blame(silent).await),
        };
        begun.map_err(|error| self.over(&error))?;
        self.state = after;
        self.busy = false;
        match answer {
            Ok((rows, changed)) => {
                self.wrote |= changed > 0;
                Ok(Ok((rows, changed)))
            }
            Err(Ended::Server(error)) => match self.failed(&error) {
                Err(TxAborted::Unavailable(unavailable)) if ends_the_session(&error) => {
                    Err(TxAborted::Broken(unavailable))
                }
                failed => failed.map(Err),
            },
            Err(Ended::Answer(error)) => Ok(Err(error)),
        }
    }

    /// The objects that are hidden on the search path now.
    async fn hidden(&mut self) -> Result<BTreeSet<Hides>, TxAborted> {
        let rows = self.host(async |session| {
            let rows = session.client.query(&session.prepared(hidden::FIND).await?, &[]).await?;
            rows.iter().map(Hides::read).collect()
        });
        rows.await
    }

    pub(super) async fn kv_get(&mut self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, TxAborted> {
        self.host(async |session| {
            let row = session
                .client
                .query_opt(&session.prepared(KV_GET).await?, &[&plugin, &key.as_bytes()])
                .await?;
            row.map(|row| row.try_get(0)).transpose()
        })
        .await
    }

    pub(super) async fn kv_list(
        &mut self,
        plugin: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, TxAborted> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let end = end_of(prefix.as_bytes());
        let rows = self
            .host(async |session| {
                let list = session.prepared(KV_LIST).await?;
                let (prefix, after) = (prefix.as_bytes(), after.as_bytes());
                session.client.query(&list, &[&plugin, &prefix, &after, &end, &limit]).await
            })
            .await?;
        let entry = |row: &tokio_postgres::Row| {
            let key: Vec<u8> = row.try_get(0)?;
            Ok((String::from_utf8_lossy(&key).into_owned(), row.try_get(1)?))
        };
        rows.iter().map(entry).collect::<Result<_, _>>().map_err(|error: Failure| self.over(&error))
    }

    /// Makes the staged writes, writes the marker, and commits. Then `holding` is dropped.
    pub(super) async fn commit(
        mut self,
        carried: Vec<u8>,
        written: Written,
        holding: impl Send,
    ) -> Result<Committed, CommitError> {
        if written.is_empty() && !self.has_written().await? {
            if self.state != State::Fresh {
                // The rows that it has read may turn out to be wrong.
                self.end(async |session| session.end_and_prove("COMMIT").await).await?;
            }
            return Ok(Committed::NothingWritten);
        }
        let (changes, delta) = self.changes(&written).await?;
        let (mut gone, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for KvChange { key, value, .. } in &changes {
            match value {
                Some(value) => {
                    keys.push(key.as_bytes());
                    values.push(value.as_slice());
                }
                None => gone.push(key.as_bytes()),
            }
        }
        if !keys.is_empty()
            && let Some(message) = self.pool.full().await?
        {
            return Err(CommitError::Failed { sqlstate: FULL.to_owned(), message });
        }
        let delivery = self.delivery.0;
        let plugin = &written.plugin;
        self.end(async |session| {
            // All are sent at once. If one fails, the server turns the COMMIT into a rollback.
            let client = &session.client;
            let (put, delete, mark) = if changes.is_empty() {
                (None, None, session.prepared(MARK).await?)
            } else {
                let (put, delete) = (session.prepared(KV_PUT).await?, session.prepared(KV_DELETE).await?);
                (Some(put), Some(delete), session.prepared(MARK).await?)
            };
            let put = async {
                match put.filter(|_| !keys.is_empty()) {
                    Some(put) => client.execute(&put, &[&plugin, &keys, &values]).await.map(drop),
                    None => Ok(()),
                }
            };
            let delete = async {
                match delete.filter(|_| !gone.is_empty()) {
                    Some(delete) => client.execute(&delete, &[&plugin, &gone]).await.map(drop),
                    None => Ok(()),
                }
            };
            let mark = async { Proof::read(&client.query_one(&mark, &[&delivery, &carried]).await?) };
            if fault::is_awaited(FaultPoint::MarkerWritten) {
                let (put, delete, mark) = tokio::join!(put, delete, mark);
                let proof = put.and(delete).and(mark)?;
                fault::reached(FaultPoint::MarkerWritten);
                return client.batch_execute("COMMIT").await.map(|()| Some(proof));
            }
            let (put, delete, mark, commit) = tokio::join!(put, delete, mark, client.batch_execute("COMMIT"));
            let proof = put.and(delete).and(mark)?;
            commit.map(|()| Some(proof))
        })
        .await?;
        fault::reached(FaultPoint::DatabaseCommitted);
        drop(holding);
        written.sizes.changed(&written.plugin, delta);
        Ok(Committed::Marked)
    }

    /// Whether there is anything to mark. A function may have written, too. So the server is asked unless a
    /// statement has reported changed rows.
    async fn has_written(&mut self) -> Result<bool, TxAborted> {
        if self.wrote || self.state == State::Fresh {
            return Ok(self.wrote);
        }
        self.host(async |session| {
            session.client.query_one(&session.prepared(HAS_WRITTEN).await?, &[]).await?.try_get(0)
        })
        .await
    }

    /// The changes that the staged writes amount to.
    async fn changes(&mut self, written: &Written) -> Result<(Vec<KvChange>, i64), CommitError> {
        let mut before = std::collections::HashMap::new();
        if !written.is_empty() {
            let keys: Vec<_> = written.writes.keys().map(String::as_bytes).collect();
            let rows = self
                .host(async |session| {
                    session.client.query(&session.prepared(KV_MANY).await?, &[&written.plugin, &keys]).await
                })
                .await?;
            for row in rows {
                let entry = (|| Ok::<_, Failure>((row.try_get::<_, Vec<u8>>(0)?, row.try_get(1)?)))();
                let (key, value) = entry.map_err(|error| self.over(&error))?;
                before.insert(key, value);
            }
        }
        written
            .changes(|key| Ok::<_, CommitError>(before.remove(key.as_bytes())))?
            .ok_or(CommitError::Conflict)
    }

    /// The text that begins the transaction. The lock belongs to the delivery.
    fn begin(&self) -> String {
        let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE;";
        if self.first {
            return begin.to_owned();
        }
        let lock = self.delivery.0 ^ LOCKS;
        format!("{begin} SELECT pg_advisory_xact_lock({lock});")
    }

    /// Does `work` on the connection, within the timeout. A message from the server may have `most` bytes. The
    /// connection is busy from then on.
    async fn at_work<T>(
        &mut self,
        most: usize,
        work: impl AsyncFnOnce(&Session) -> T,
    ) -> Result<T, Unavailable> {
        let Some(link) = &mut self.link else {
            return Err(self.pool.unavailable("its transaction has ended"));
        };
        self.busy = true;
        let answered =
            tokio::time::timeout(self.pool.statement_timeout + LAG, link.at_work(most, work)).await;
        answered.map_err(|_| self.pool.silent())
    }

    /// Does the host's own work within the transaction, and begins the transaction if necessary.
    async fn host<T>(
        &mut self,
        work: impl AsyncFnOnce(&Session) -> Result<T, Failure>,
    ) -> Result<T, TxAborted> {
        let begin = (self.state == State::Fresh).then(|| self.begin());
        let both = self.at_work(OWN, async |session| {
            let begun = async {
                match begin {
                    Some(begin) => session.client.batch_execute(&begin).await,
                    None => Ok(()),
                }
            };
            tokio::join!(begun, work(session))
        });
        let (begun, answer) = both.await?;
        let answer = begun.and(answer).map_err(|error| self.over(&error))?;
        if self.state == State::Fresh {
            self.state = State::Begun;
        }
        self.busy = false;
        Ok(answer)
    }

    /// Does the work that commits. The connection returns to the pool if the work proves that its session is in
    /// its initial state.
    async fn end(
        &mut self,
        work: impl AsyncFnOnce(&Session) -> Result<Option<Proof>, Failure>,
    ) -> Result<(), CommitError> {
        if self.state == State::Fresh {
            self.host(async |_| Ok(())).await?;
        }
        let error = match self.at_work(OWN, work).await {
            Err(silent) => return Err(CommitError::Unknown(silent)),
            Ok(Ok(proof)) => {
                self.busy = false;
                if let Some(link) = self.link.take() {
                    self.pool.keep_if(link, proof);
                }
                return Ok(());
            }
            Ok(Err(error)) => error,
        };
        let Some(refusal) = error.as_db_error().filter(|_| !ends_the_session(&error)) else {
            return Err(CommitError::Broken(self.pool.unavailable(&said(&error))));
        };
        let state = refusal.code().code().to_owned();
        if state.starts_with("57P") {
            // The server is shutting down, and does not say when the commit ended.
            return Err(CommitError::Unknown(self.pool.unavailable(&said(&error))));
        }
        self.busy = false;
        if refusal.table() == Some("posthouse_deliveries") && *refusal.code() == SqlState::UNIQUE_VIOLATION {
            return Err(CommitError::AlreadyCommitted);
        }
        Err(match self.failed(&error) {
            Err(over) => over.into(),
            Ok(_) => CommitError::Failed { sqlstate: state, message: refusal.message().to_owned() },
        })
    }

    /// Whether the failure of a guest's statement is an answer, or ends the transaction.
    fn failed(&self, error: &Failure) -> Result<SqlError, TxAborted> {
        let Some(refusal) = error.as_db_error() else {
            // A parameter that does not fit its type was never sent.
            if let Some(why) = std::error::Error::source(error)
                && error.to_string().starts_with("error serializing parameter")
            {
                return Ok(SqlError::Statement { sqlstate: "42804".to_owned(), message: why.to_string() });
            }
            return Err(self.over(error));
        };
        let state = refusal.code().code();
        match state {
            "40001" | "40P01" => Err(TxAborted::Conflict),
            TIMED_OUT => Ok(SqlError::Statement {
                sqlstate: state.to_owned(),
                message: format!("limit `statement_timeout` ({:?}) reached", self.pool.statement_timeout),
            }),
            // The connection, the server's resources, its shutdown, its disk. Only "53400" is the statement's
            // fault: it needs more temporary files than its role may have.
            "53400" => {
                Ok(SqlError::Statement { sqlstate: state.to_owned(), message: refusal.message().to_owned() })
            }
            _ if ["08", "53", "57", "58"].iter().any(|class| state.starts_with(class)) => {
                Err(self.pool.unavailable(&said(error)).into())
            }
            _ => Ok(SqlError::Statement {
                sqlstate: state.to_owned(),
                message: match refusal.detail() {
                    Some(detail) => format!("{} ({detail})", refusal.message()),
                    None => refusal.message().to_owned(),
                },
            }),
        }
    }

    /// The meaning of a failure of the host's own work.
    fn over(&self, error: &Failure) -> TxAborted {
        if let Some(bytes) = self.link.as_ref().and_then(Connection::over) {
            return TxAborted::TooLarge(bytes);
        }
        match error.code() {
            Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED) => {
                TxAborted::Conflict
            }
            _ => self.pool.unavailable(&said(error)).into(),
        }
    }
}

/// Whether the guest may have caused a failure during its statement or the commit: the session ended, was
/// ended, or was out of memory. If the whole server went down, it reports that (57P02, 57P03).
fn ends_the_session(error: &Failure) -> bool {
    match error.code().map(SqlState::code) {
        None => true,
        Some(state) => matches!(state, "53200" | "57P01"),
    }
}

/// The server stopped a statement at its timeout.
const TIMED_OUT: &str = "57014";

/// Separates the locks of deliveries from those of applications.
const LOCKS: i64 = 0x706F_7374_0000_0000;

/// Runs a guest's statement.
async fn run(
    session: &Session,
    grants: &Grants,
    checked: &Checked,
    parameters: &[Parameter],
    bounds: Bounds,
) -> Result<(Rows, u64), Ended> {
    let answer = |sqlstate: &str, message: String| {
        Ended::Answer(SqlError::Statement { sqlstate: sqlstate.to_owned(), message })
    };
    let statement = match session.prepared_for_guest(checked).await? {
        Ok(statement) => statement,
        Err(function) => return Err(Ended::Answer(SqlError::Refused(grants.refusal(&function)))),
    };
    if statement.params().len() != parameters.len() {
        let (wants, given) = (statement.params().len(), parameters.len());
        return Err(answer("08P01", format!("the statement has {wants} parameters, and {given} are given")));
    }
    if let Some(column) = statement.columns().iter().find(|column| !values::is_known(column.type_())) {
        let (name, ty) = (column.name(), column.type_());
        return Err(answer(
            "0A000",
            format!(
                "column `{name}` has type {ty}, which is not supported; cast it, for example to text or json"
            ),
        ));
    }
    let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut gather = Gather::new(bounds, columns);
    let mut rows = pin!(session.client.query_raw(&statement, parameters).await?);
    while let Some(row) = rows.try_next().await? {
        let values = (0..row.len()).map(|at| row.try_get::<_, Column>(at).map(|column| column.0));
        let row = values.collect::<Result<_, _>>()?;
        gather.push(row).map_err(|limit| Ended::Answer(SqlError::Limit(limit)))?;
    }
    let changed = if checked.reads { 0 } else { rows.rows_affected().unwrap_or(0) };
    Ok((gather.finish(), changed))
}

/// The first key after all keys with the prefix; none if there is no such key.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

impl Drop for Transaction {
    /// Rolls back, and releases the place after that.
    fn drop(&mut self) {
        let (Some(link), place) = (self.link.take(), self.place.take()) else { return };
        // Without a runtime the connection is closed, which rolls back, too.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (pool, busy, fresh) = (Arc::clone(&self.pool), self.busy, self.state == State::Fresh);
        runtime.spawn(end(pool, link, place, busy, fresh));
    }
}

/// Ends a transaction that was dropped.
async fn end(
    pool: Arc<Pool>,
    mut link: Connection,
    _place: Option<OwnedSemaphorePermit>,
    busy: bool,
    fresh: bool,
) {
    if busy {
        // Closing the connection rolls back its work.
        let cancel = pool.server.cancel(link.cancel_token());
        drop(tokio::time::timeout(LAG, cancel).await);
    } else if fresh {
        pool.keep(link);
    } else {
        let rollback = link.at_work(OWN, async |session| session.end_and_prove("ROLLBACK").await);
        if let Ok(Ok(proof)) = tokio::time::timeout(LAG, rollback).await {
            pool.keep_if(link, proof);
        }
    }
}
