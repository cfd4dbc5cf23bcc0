//! Order: among a plugin's unfinished deliveries with the same key, only the first may run.
//!
//! ```text
//!   accept, emit, replay ──one of its key is unfinished──► blocked ──┐
//!         └──────────otherwise──► as any other                       │
//!                                   │ done or dead                   ▼
//!                                   └────in that transaction──► the next of its key is ready
//! ```
//!
//! A blocked delivery is not in the index of due deliveries. So however many deliveries a stuck one blocks,
//! other keys and other plugins are not affected. A delivery with a key costs one lookup in a separate index
//! when it is created, and another when it is finished. Nothing of this is kept in memory, so a restart
//! changes nothing. The transaction that finishes the first delivery makes the next one ready, so one
//! delivery of a key may always run, if there are any.

use posthouse_model::{OrderKey, PluginId};
use rusqlite::{Result, params};

use super::{schema::code, session::Session};

/// Whether a delivery of this plugin and key is unfinished.
pub(super) const IS_BUSY: &str = "
SELECT 1 FROM delivery INDEXED BY delivery_order WHERE plugin = ?1 AND order_key = ?2 AND state < 3 LIMIT 1";

/// Whether an unfinished delivery of this plugin and key precedes ?3.
const IS_BLOCKED: &str = "
SELECT 1 FROM delivery INDEXED BY delivery_order
WHERE plugin = ?1 AND order_key = ?2 AND state < 3 AND id < ?3 LIMIT 1";

/// Makes the first delivery of this plugin and key ready, if it is blocked.
const UNBLOCK: &str = "
UPDATE delivery SET state = 0
WHERE state = -1 AND id = (
    SELECT id FROM delivery INDEXED BY delivery_order
    WHERE plugin = ?1 AND order_key = ?2 AND state < 3 ORDER BY id LIMIT 1)";

impl Session<'_> {
    /// Whether a new delivery has to wait for another one of its key.
    pub(super) fn is_blocked(&mut self, plugin: PluginId, key: Option<&OrderKey>) -> Result<bool> {
        match key {
            Some(key) => self.sql.is_busy.exists(params![plugin.0, key.as_str()]),
            None => Ok(false),
        }
    }

    /// Whether a stored delivery has to wait for another one of its key.
    pub(super) fn has_one_ahead(&self, plugin: PluginId, key: &str, delivery: i64) -> Result<bool> {
        self.connection.prepare_cached(IS_BLOCKED)?.exists(params![plugin.0, key, delivery])
    }

    /// Makes the next delivery of a key ready after one has finished. It keeps its age, so it precedes later
    /// ones.
    pub(super) fn unblock_next(&mut self, plugin: PluginId, key: &OrderKey) -> Result<()> {
        let gone = self.connection.prepare_cached(UNBLOCK)?.execute(params![plugin.0, key.as_str()])?;
        if gone > 0 {
            self.counters.moved(plugin, code::BLOCKED, code::READY);
        }
        Ok(())
    }
}
