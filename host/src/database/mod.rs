//! Databases of the operator's, where plugins keep rows of their own: SQLite files and PostgreSQL.
//!
//! ```text
//!   begin ──► query, execute, kv ──► commit: what kv staged, the marker, COMMIT      (the commit point)
//!     │              │                  │
//!     └──────────────┴──────────────────┴──► dropped: rolled back
//! ```
//!
//! A transaction is one attempt's. It is serializable: those that commit end as if one had come after the
//! other. It is the host's alone: the guard refuses what would end it, or leave the database.
//!
//! The marker, a row of `posthouse_deliveries`, is written by the same transaction. It says that the
//! delivery has taken effect, and carries what the store has still to record; the store's part comes
//! after it, and then the marker goes. A transaction that has changed nothing leaves none.
//!
//! ```text
//! guard     which statements a guest may run
//! waiting   whose time it is that an attempt waits for others
//! value     what passes between a guest and a database
//! keep      that markers stay while a backup is made
//! kv        a plugin's keys, where it has a database
//! sqlite    one file, one writer at a time
//! postgres  one database of a server
//! error     whose doing a failure is, and what still stands
//! ```

mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
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

pub use error::{CommitError, Committed, Over, SqlError, Unavailable};
pub use sqlite::{Integrity, inspect};
pub use value::{Bounds, Rows, Value};
pub use waiting::Waiting;

use self::{
    keep::Keep,
    kv::{Sizes, Written},
};
use crate::{
    config::{DatabaseSettings, DatabaseTarget},
    model::{DeliveryId, KvWrite, Usage},
};

/// Every database of config.toml, by name; cheap to clone. None is connected to before it is needed.
#[derive(Clone, Default)]
pub struct Databases {
    all: Arc<RwLock<BTreeMap<String, Database>>>,
    keep: Keep,
    min_free: u64,
}

impl Databases {
    /// Those that config.toml describes. Plugins leave `min_free` bytes of a disk free, and some more.
    pub fn new(settings: &BTreeMap<String, DatabaseSettings>, min_free: u64) -> Self {
        let databases = Self { min_free, ..Self::default() };
        databases.extend(settings);
        databases
    }

    /// Adds those that are not among them; one that is stays as it is.
    pub fn extend(&self, settings: &BTreeMap<String, DatabaseSettings>) {
        let mut databases = self.all.write();
        for (name, settings) in settings {
            databases.entry(name.clone()).or_insert_with(|| Database::new(name, settings, self.min_free));
        }
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<Database> {
        self.all.read().get(name).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Database> {
        self.all.read().values().cloned().collect()
    }

    /// Has markers stay for `time` from now, in all databases, or go again at once where that is zero: for
    /// who copies the store and then a database, which must not lack the marker of what the store's copy
    /// does not know. Returns whether they have stayed for this `holder` until now; none where too many
    /// want them to.
    pub fn keep_markers(&self, holder: &str, time: Duration) -> Option<bool> {
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

    /// Transactions of attempts that are under way, and the most that may be.
    pub fn usage(&self) -> Usage {
        match &self.0.engine {
            Engine::Sqlite(pool) => pool.usage(),
            Engine::Postgres(pool) => pool.usage(),
        }
    }

    /// Begins an attempt's transaction; waits while as many as `pool` allows are under way. `waiting` tells
    /// how long it waits for others, now and for its turn later.
    ///
    /// # Errors
    /// When the database can't be used, or may not hold the host's own tables.
    pub async fn begin(
        &self,
        delivery: DeliveryId,
        past: Past,
        waiting: &Waiting,
    ) -> Result<Transaction, Unavailable> {
        let open = match &self.0.engine {
            Engine::Sqlite(pool) => Open::Sqlite(pool.begin(past.conflicts > 0, waiting).await?),
            Engine::Postgres(pool) => Open::Postgres(Box::new(pool.begin(delivery, past, waiting).await?)),
        };
        let written = Written { sizes: self.0.sizes.clone(), ..Written::default() };
        Ok(Transaction { database: self.clone(), delivery, open, written })
    }

    /// What the marker of a delivery carries, where there is one: it has taken effect then, on disk, and must
    /// not run again.
    ///
    /// # Errors
    /// When the database can't be used.
    pub async fn find_marker(&self, delivery: DeliveryId) -> Result<Option<Vec<u8>>, Unavailable> {
        match &self.0.engine {
            Engine::Sqlite(pool) => pool.find_marker(delivery).await,
            Engine::Postgres(pool) => pool.find_marker(delivery).await,
        }
    }

    /// Returns when all is on disk that an attempt may have seen. Who reads of a commit before the disk has
    /// it could otherwise leave something behind that tells of what a power cut took back.
    ///
    /// # Errors
    /// When that is in doubt.
    pub async fn settle(&self) -> Result<(), Unavailable> {
        match &self.0.engine {
            Engine::Sqlite(pool) => pool.settle().await,
            // The server shows nothing before.
            Engine::Postgres(_) => Ok(()),
        }
    }

    /// Deliveries that have a marker, in the order of their numbers, after the one of `after`.
    ///
    /// # Errors
    /// When the database can't be used.
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

    /// Connects, makes the host's own tables where they are missing, and says by which role; a file has none,
    /// and is not opened.
    ///
    /// # Errors
    /// When the database can't be used.
    pub async fn examine(&self) -> Result<Role, Unavailable> {
        match &self.0.engine {
            Engine::Sqlite(_) => Ok(Role::default()),
            Engine::Postgres(pool) => pool.role().await,
        }
    }

    /// Takes markers away; one that is not there is no error.
    ///
    /// # Errors
    /// When the database can't be used; none of them is gone then.
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

/// As whom a database knows us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether nothing is refused to it.
    pub is_superuser: bool,
    /// Whether the server lets its queries write temporary files of any size.
    pub unlimited_files: bool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.0.name)
    }
}

/// What is known of earlier attempts of the same delivery.
#[derive(Debug, Clone, Copy, Default)]
pub struct Past {
    /// How many conflicts this attempt has met: the more, the more it has the database to itself.
    pub conflicts: u32,
    /// Whether an earlier attempt may have committed, or its commit may still be on its way.
    pub may_have_run: bool,
}

/// One attempt's transaction. Dropped, it is rolled back, whatever it is doing.
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
    /// The database that it is in.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Runs a guest's statement and returns its rows. After any error but [`SqlError::Over`] the
    /// transaction stands as before the statement.
    ///
    /// # Errors
    /// [`SqlError`] says whose doing it is.
    pub async fn query(
        &mut self,
        statement: &str,
        parameters: Vec<Value>,
        bounds: Bounds,
    ) -> Result<Rows, SqlError> {
        Ok(self.statement(statement, parameters, bounds).await?.0)
    }

    /// Runs a guest's statement and returns the number of rows it changed.
    ///
    /// # Errors
    /// As [`Transaction::query`].
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

    /// The value of a plugin's key, as the transaction sees it without what is staged.
    ///
    /// # Errors
    /// When the transaction is no more.
    pub async fn kv_get(&mut self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, Over> {
        match &mut self.open {
            Open::Sqlite(open) => open.kv_get(plugin, key).await,
            Open::Postgres(open) => open.kv_get(plugin, key).await,
        }
    }

    /// A plugin's keys that start with `prefix`, in the order of their bytes, after the key `after`, at most
    /// `limit`, with their values.
    ///
    /// # Errors
    /// When the transaction is no more.
    pub async fn kv_list(
        &mut self,
        plugin: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, Over> {
        match &mut self.open {
            Open::Sqlite(open) => open.kv_list(plugin, prefix, after.unwrap_or_default(), limit).await,
            Open::Postgres(open) => open.kv_list(plugin, prefix, after.unwrap_or_default(), limit).await,
        }
    }

    /// Bytes of all the plugin's keys and values, as committed.
    ///
    /// # Errors
    /// When the database can't be used.
    pub async fn kv_bytes(&mut self, plugin: &str) -> Result<u64, Over> {
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

    /// Takes in what the plugin wrote to its keys; the commit writes it. `most` is the limit of all the
    /// plugin's keys and values.
    pub fn stage_kv(&mut self, plugin: &str, writes: BTreeMap<String, KvWrite>, most: u64) {
        self.written =
            Written { plugin: plugin.to_owned(), writes, most, sizes: self.database.0.sizes.clone() };
    }

    /// Writes what is staged, with the marker that carries `carried`, and commits; returns when that is on
    /// disk. `holding` is dropped as soon as others may go on, which may be before.
    ///
    /// # Errors
    /// [`CommitError`]; nothing remains but where it says that nobody knows.
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
