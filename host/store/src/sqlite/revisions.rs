//! The history of a plugin's file: each revision, when it served, and why it ended.
//!
//! The newest revisions of each plugin are kept. The serving one has no end. One that does not load ends when
//! it begins.

use posthouse_model::PluginId;
use rusqlite::{OptionalExtension as _, Result, params};

use super::{reads::Reads, session::Session};

use crate::{Answer, PluginRevision, op::Outcome, time::timestamp};

/// The number of revisions kept for each plugin.
const KEPT: i64 = 50;

impl Reads {
    pub(crate) async fn revisions(&self, plugin: PluginId) -> Answer<Vec<PluginRevision>> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT sha256, description, loaded_at, ended_at, ending FROM revision
                     WHERE plugin = ?1 ORDER BY id DESC LIMIT ?2",
                )?
                .query_map([plugin.0, KEPT], |row| {
                    Ok(PluginRevision {
                        sha256: row.get(0)?,
                        description: row.get(1)?,
                        loaded_at: timestamp(row.get(2)?),
                        ended_at: row.get::<_, Option<i64>>(3)?.map(timestamp),
                        ending: row.get(4)?,
                    })
                })?
                .collect()
        })
        .await
    }
}

impl Session<'_> {
    /// A revision serves from now on, and replaces the previous one if it differs.
    pub(super) fn load_revision(
        &mut self,
        plugin: PluginId,
        sha256: &str,
        description: &str,
    ) -> Result<Outcome> {
        if self.serving(plugin)?.as_deref() == Some(sha256) {
            return Ok(Outcome::Done);
        }
        self.end_revision(plugin, "replaced")?;
        self.insert_revision(plugin, sha256, description, None)?;
        Ok(Outcome::Done)
    }

    /// A revision does not load; recorded once, however often loading is tried.
    pub(super) fn refuse_revision(
        &mut self,
        plugin: PluginId,
        sha256: &str,
        ending: &str,
    ) -> Result<Outcome> {
        let newest: Option<(String, Option<String>)> = self
            .connection
            .prepare_cached("SELECT sha256, ending FROM revision WHERE plugin = ?1 ORDER BY id DESC LIMIT 1")?
            .query_row([plugin.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if newest.is_none_or(|(known, how)| known != sha256 || how.as_deref() != Some(ending)) {
            self.insert_revision(plugin, sha256, "", Some(ending))?;
        }
        Ok(Outcome::Done)
    }

    fn serving(&self, plugin: PluginId) -> Result<Option<String>> {
        self.connection
            .prepare_cached(
                "SELECT sha256 FROM revision WHERE plugin = ?1 AND ended_at IS NULL ORDER BY id DESC LIMIT 1",
            )?
            .query_row([plugin.0], |row| row.get(0))
            .optional()
    }

    /// Ends the serving revision.
    pub(super) fn end_revision(&self, plugin: PluginId, why: &str) -> Result<Outcome> {
        self.connection
            .prepare_cached(
                "UPDATE revision SET ended_at = ?2, ending = ?3 WHERE plugin = ?1 AND ended_at IS NULL",
            )?
            .execute(params![plugin.0, self.now, why])
            .map(|_| Outcome::Done)
    }

    fn insert_revision(
        &self,
        plugin: PluginId,
        sha256: &str,
        description: &str,
        refused: Option<&str>,
    ) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO revision (plugin, sha256, description, loaded_at, ended_at, ending)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![plugin.0, sha256, description, self.now, refused.map(|_| self.now), refused])?;
        // The serving revision is kept, however many refused ones followed it.
        self.connection
            .prepare_cached(
                "DELETE FROM revision WHERE plugin = ?1 AND ended_at IS NOT NULL AND id NOT IN (
                     SELECT id FROM revision WHERE plugin = ?1 ORDER BY id DESC LIMIT ?2)",
            )?
            .execute([plugin.0, KEPT])
            .map(drop)
    }
}
