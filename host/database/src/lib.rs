//! Databases of the operator in which plugins keep their own rows: SQLite files and PostgreSQL.
//!
//! ```text
//!   begin ──► query, execute, kv ──► commit: staged kv writes, marker, COMMIT        (the commit point)
//!     │              │                  │
//!     └──────────────┴──────────────────┴──► dropped: rolled back
//! ```
//!
//! A transaction belongs to one attempt. It is serializable: the committed transactions have the same result as
//! if they had run one after the other. The host controls it: the guard refuses statements that would end it or
//! leave the database.
//!
//! The transaction also writes the marker, a row of `posthouse_deliveries`. The marker shows that the delivery
//! has taken effect, and contains what the store still has to record. The store records that afterwards, and
//! then the marker is removed. A transaction that has changed nothing writes no marker.
//!
//! ```text
//! guard     decides which statements a guest may run
//! waiting   how long an attempt waits for others
//! value     the values between a guest and a database
//! keep      keeps markers while a backup is made
//! kv        a plugin's keys, if it has a database
//! sqlite    one file, one writer at a time
//! postgres  one database of a server
//! error     who caused a failure, and what remains
//! ```

mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod guard;
mod keep;
mod kv;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;
mod value;
mod waiting;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::RwLock;

pub use error::{CommitError, Committed, SqlError, TxAborted, Unavailable};
pub use sqlite::{Integrity, inspect};
pub use value::{Bounds, Rows, Value};
pub use waiting::Waiting;

use posthouse_model::{
    DeliveryId, KvWrite, Usage,
    config::{DatabaseSettings, DatabaseTarget},
};

use self::{
    keep::Keep,
    kv::{Sizes, Written},
};

/// Every database of config.toml, by name; cheap to clone. Each is connected to when it is first needed.
#[derive(Clone, Default)]
pub struct Databases {
    all: Arc<RwLock<BTreeMap<String, Database>>>,
    keep: Keep,
    min_free: u64,
}

impl Databases {
    /// The databases of config.toml. Plugins leave `min_free` bytes and a quarter more free on a disk.
    pub fn new(settings: &BTreeMap<String, DatabaseSettings>, min_free: u64) -> Self {
        let databases = Self { min_free, ..Self::default() };
        databases.extend(settings);
        databases
    }

    /// Adds new databases. Those that exist stay unchanged.
    pub fn extend(&self, settings: &BTreeMap<String, DatabaseSettings>) {
        let mut databases = self.all.write();
        for (name, settings) in settings {
            databases.entry(name.clone()).or_insert_with(|| Database::new(name, settings, self.min_free));
        }
    }

    /// The database of this name.
    pub fn get(&self, name: &str) -> Option<Database> {
        self.all.read().get(name).cloned()
    }

    /// All databases.
    pub fn all(&self) -> Vec<Database> {
        self.all.read().values().cloned().collect()
    }

    /// Keeps markers for `time` from now, in all databases, or releases them at once if it is zero. A program
    /// needs this if it copies the store and then a database. The database's copy must contain the markers of
    /// commits that the store's copy does not know. Returns whether this `holder` has held them without a break
    /// until now; none if there are too many holders.
    pub fn hold_markers(&self, holder: &str, time: Duration) -> Option<bool> {
        self.keep.hold(holder, time)
    }

    /// Whether no marker may be removed now.
    pub fn markers_stay(&self) -> bool {
        self.keep.is_held()
    }
}

/// One database; cheap to clone.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    name: String,
    engine: Engine,
    sizes: Sizes,
}

enum Engine {
    Sqlite(Arc<sqlite::Pool>),
    Postgres(Arc<postgres::Pool>),
}

impl Database {
    fn new(name: &str, settings: &DatabaseSettings, min_free: u64) -> Self {
        let engine = match &settings.target {
            DatabaseTarget::Sqlite(path) => Engine::Sqlite(sqlite::Pool::new(name, path, settings, min_free)),
            DatabaseTarget::Postgres(url) => {
                Engine::Postgres(postgres::Pool::new(name, url.expose(), settings))
            }
        };
        Self(Arc::new(Inner { name: name.to_owned(), engine, sizes: Sizes::default() }))
    }

    /// Its name in config.toml.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The active transactions of attempts, and the most that may be active.
    pub fn usage(&self) -> Usage {
        match &self.0.engine {
            Engine::Sqlite(pool) => pool.usage(),
            Engine::Postgres(pool) => pool.usage(),
        }
    }

    /// Begins an attempt's transaction. Waits while `pool` transactions are active. `waiting` records how long
    /// it waits for others, now and for its turn later.
    ///
    /// # Errors
    /// The database cannot be used, or cannot contain the host's own tables.
    pub async fn begin(
        &self,
        delivery: DeliveryId,
        past: AttemptHistory,
        waiting: &Waiting,
    ) -> Result<Transaction, Unavailable> {
        let open = match &self.0.engine {
            Engine::Sqlite(pool) => Open::Sqlite(pool.begin(past.conflicts > 0, waiting).await?),
            Engine::Postgres(pool) => Open::Postgres(Box::new(pool.begin(delivery, past, waiting).await?)),
        };
        let written = Written { sizes: self.0.sizes.clone(), ..Written::default() };
        Ok(Transaction { database: self.clone(), delivery, open, written })
    }

    /// The content of a delivery's marker, if there is one. Then the delivery has taken effect, on disk, and
    /// must not run again.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn find_marker(&self, delivery: DeliveryId) -> Result<Option<Vec<u8>>, Unavailable> {
        match &self.0.engine {
            Engine::Sqlite(pool) => pool.find_marker(delivery).await,
            Engine::Postgres(pool) => pool.find_marker(delivery).await,
        }
    }

    /// Returns when everything is on disk that an attempt may have read. Otherwise an attempt could read a
    /// commit that is not on disk yet, and leave an effect of rows that a power cut reverts.
    ///
    /// # Errors
    /// It is unknown what is on disk.
    pub async fn settle(&self) -> Result<(), Unavailable> {
        match &self.0.engine {
            Engine::Sqlite(pool) => pool.settle().await,
            // The server shows no commit before it is on disk.
            Engine::Postgres(_) => Ok(()),
        }
    }

    /// The deliveries with a marker, by number, after the delivery `after`.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn markers(
        &self,
        limit: usize,
        after: Option<DeliveryId>,
    ) -> Result<Vec<DeliveryId>, Unavailable> {
        let after = after.map_or(i64::MIN, |delivery| delivery.0);
        match &self.0.engine {
            Engine::Sqlite(pool) => pool.markers(after, limit).await,
            Engine::Postgres(pool) => pool.markers(after, limit).await,
        }
    }

    /// Connects, creates the host's own tables if they are missing, and returns the role. A file has no role,
    /// and is not opened.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn inspect(&self) -> Result<Role, Unavailable> {
        match &self.0.engine {
            Engine::Sqlite(_) => Ok(Role::default()),
            Engine::Postgres(pool) => pool.role().await,
        }
    }

    /// Removes markers. A missing marker is no error.
    ///
    /// # Errors
    /// The database cannot be used. Then none of the markers is removed.
    pub async fn remove_markers(&self, deliveries: &[DeliveryId]) -> Result<(), Unavailable> {
        if deliveries.is_empty() {
            return Ok(());
        }
        match &self.0.engine {
            Engine::Sqlite(pool) => pool.remove_markers(deliveries.to_vec()).await,
            Engine::Postgres(pool) => pool.remove_markers(deliveries).await,
        }
    }
}

/// The role that we have in a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it is a superuser.
    pub is_superuser: bool,
    /// Whether its queries may write temporary files of any size on the server.
    pub unlimited_files: bool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.0.name)
    }
}

/// Facts about earlier attempts of the same delivery.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttemptHistory {
    /// How many conflicts this attempt has had. With more of them it gets the database to itself.
    pub conflicts: u32,
    /// Whether an earlier attempt may have committed, or its commit may still be running.
    pub may_have_run: bool,
}

/// One attempt's transaction. If it is dropped, it is rolled back, even during a statement.
pub struct Transaction {
    database: Database,
    delivery: DeliveryId,
    open: Open,
    written: Written,
}

enum Open {
    Sqlite(sqlite::Transaction),
    Postgres(Box<postgres::Transaction>),
}

impl Transaction {
    /// The database of the transaction.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Runs a guest's statement and returns its rows. After any error but [`SqlError::TxAborted`] the transaction is
    /// as before the statement.
    ///
    /// # Errors
    /// [`SqlError`] shows who caused it.
    pub async fn query(
        &mut self,
        statement: &str,
        parameters: Vec<Value>,
        bounds: Bounds,
    ) -> Result<Rows, SqlError> {
        Ok(self.statement(statement, parameters, bounds).await?.0)
    }

    /// Runs a guest's statement and returns the number of changed rows.
    ///
    /// # Errors
    /// See [`Transaction::query`].
    pub async fn execute(
        &mut self,
        statement: &str,
        parameters: Vec<Value>,
        bounds: Bounds,
    ) -> Result<u64, SqlError> {
        Ok(self.statement(statement, parameters, bounds).await?.1)
    }

    async fn statement(
        &mut self,
        statement: &str,
        parameters: Vec<Value>,
        bounds: Bounds,
    ) -> Result<(Rows, u64), SqlError> {
        match &mut self.open {
            Open::Sqlite(open) => open.statement(statement, parameters, bounds).await,
            Open::Postgres(open) => open.statement(statement, parameters, bounds).await,
        }
    }

    /// The value of a plugin's key, as the transaction reads it, without staged writes.
    ///
    /// # Errors
    /// The transaction has ended.
    pub async fn kv_get(&mut self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, TxAborted> {
        match &mut self.open {
            Open::Sqlite(open) => open.kv_get(plugin, key).await,
            Open::Postgres(open) => open.kv_get(plugin, key).await,
        }
    }

    /// A plugin's keys that start with `prefix`, with their values. They are in the order of their bytes, begin
    /// after the key `after`, and are at most `limit`.
    ///
    /// # Errors
    /// The transaction has ended.
    pub async fn kv_list(
        &mut self,
        plugin: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, TxAborted> {
        match &mut self.open {
            Open::Sqlite(open) => open.kv_list(plugin, prefix, after.unwrap_or_default(), limit).await,
            Open::Postgres(open) => open.kv_list(plugin, prefix, after.unwrap_or_default(), limit).await,
        }
    }

    /// The bytes of all the plugin's keys and values, as committed.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn kv_bytes(&mut self, plugin: &str) -> Result<u64, TxAborted> {
        let sizes = &self.database.0.sizes;
        let bytes = match sizes.get(plugin) {
            Some(bytes) => bytes,
            None => {
                let counted = match &self.database.0.engine {
                    Engine::Sqlite(pool) => pool.kv_bytes(plugin).await?,
                    Engine::Postgres(pool) => pool.kv_bytes(plugin).await?,
                };
                sizes.counted(plugin, counted)
            }
        };
        Ok(u64::try_from(bytes).unwrap_or_default())
    }

    /// Stages the plugin's writes to its keys; the commit makes them. `most` is the limit of all the plugin's
    /// keys and values, in bytes.
    pub fn stage_kv(&mut self, plugin: &str, writes: BTreeMap<String, KvWrite>, most: u64) {
        self.written =
            Written { plugin: plugin.to_owned(), writes, most, sizes: self.database.0.sizes.clone() };
    }

    /// Makes the staged writes, writes the marker with `carried`, and commits. Returns when that is on disk.
    /// `holding` is dropped as soon as others may continue, which may be earlier.
    ///
    /// # Errors
    /// [`CommitError`]. Nothing remains, unless the error says that the result is unknown.
    pub async fn commit(
        self,
        carried: Vec<u8>,
        holding: impl Send + 'static,
    ) -> Result<Committed, CommitError> {
        let Self { delivery, open, written, .. } = self;
        match open {
            Open::Sqlite(open) => open.commit(delivery, carried, written, holding).await,
            Open::Postgres(open) => open.commit(carried, written, holding).await,
        }
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transaction({} in {:?})", self.delivery, self.database)
    }
}
