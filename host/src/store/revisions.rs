//! The history of a plugin's file: every content it has had, from when to when it served, and why it ended.
//!
//! Of each plugin the newest are kept. One that serves has no end; one that never did, because it does not load,
//! ends as it begins.

use rusqlite::{OptionalExtension as _, Result, params};

use super::{Store, StoreError, time::timestamp, writer::Writer};
use crate::model::PluginId;
use jiff::Timestamp;

/// Revisions of one plugin that are kept.
const KEPT: i64 = 50;
/// The most bytes of an error.
const LONGEST: usize = 1000;

/// One content that a plugin's file has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRevision {
    /// The SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// What it said of itself; empty where it could not.
    pub description: String,
    /// When it was loaded, or refused.
    pub loaded_at: Timestamp,
    /// When it ended; none while it serves.
    pub ended_at: Option<Timestamp>,
    /// Why it ended: `replaced`, `removed`, or `refused` with the reason.
    pub ending: Option<String>,
}

impl Store {
    /// A revision of the plugin has been loaded and takes the place of the one before, where it is another.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn revision_loaded(
        &self,
        plugin: PluginId,
        sha256: &str,
        description: &str,
    ) -> Result<(), StoreError> {
        let (sha256, description) = (sha256.to_owned(), description.to_owned());
        self.write(move |writer| {
            if writer.serving(plugin)?.as_deref() == Some(&*sha256) {
                return Ok(());
            }
            writer.end_revision(plugin, "replaced")?;
            writer.insert_revision(plugin, &sha256, &description, None)
        })
        .await
    }

    /// The plugin's file left.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn revision_removed(&self, plugin: PluginId) -> Result<(), StoreError> {
        self.write(move |writer| writer.end_revision(plugin, "removed")).await
    }

    /// A content of the plugin's file does not load; told once, however often it is tried.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn revision_refused(
        &self,
        plugin: PluginId,
        sha256: &str,
        error: &str,
    ) -> Result<(), StoreError> {
        let sha256 = sha256.to_owned();
        let ending = format!("refused: {}", &error[..error.floor_char_boundary(LONGEST)]);
        self.write(move |writer| {
            let newest: Option<(String, Option<String>)> = writer
                .connection
                .prepare_cached(
                    "SELECT sha256, ending FROM revision WHERE plugin = ?1 ORDER BY id DESC LIMIT 1",
                )?
                .query_row([plugin.0], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if newest.is_some_and(|(known, known_ending)| {
                known == sha256 && known_ending.as_ref() == Some(&ending)
            }) {
                return Ok(());
            }
            writer.insert_revision(plugin, &sha256, "", Some(&ending))
        })
        .await
    }

    /// The newest revisions of a plugin, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn revisions(&self, plugin: PluginId) -> Result<Vec<PluginRevision>, StoreError> {
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

impl Writer<'_> {
    fn serving(&self, plugin: PluginId) -> Result<Option<String>> {
        self.connection
            .prepare_cached(
                "SELECT sha256 FROM revision WHERE plugin = ?1 AND ended_at IS NULL ORDER BY id DESC LIMIT 1",
            )?
            .query_row([plugin.0], |row| row.get(0))
            .optional()
    }

    fn end_revision(&self, plugin: PluginId, why: &str) -> Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE revision SET ended_at = ?2, ending = ?3 WHERE plugin = ?1 AND ended_at IS NULL",
            )?
            .execute(params![plugin.0, self.now, why])
            .map(drop)
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
        // The one that serves stays, however many came after it and were refused.
        self.connection
            .prepare_cached(
                "DELETE FROM revision WHERE plugin = ?1 AND ended_at IS NOT NULL AND id NOT IN (
                     SELECT id FROM revision WHERE plugin = ?1 ORDER BY id DESC LIMIT ?2)",
            )?
            .execute([plugin.0, KEPT])
            .map(drop)
    }
}
