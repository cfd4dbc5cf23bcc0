//! Checks whether the store and the databases are intact and can be used.

use std::path::Path;

use bytesize::ByteSize;
use jiff::SignedDuration;
use posthouse_database as database;
use posthouse_database::Databases;
use posthouse_model::config::DatabaseTarget;
use posthouse_store as store;
use posthouse_store::Integrity;

use super::{Context, Notes, plugins::runtime, table};

use crate::daemon;

/// A log of this size can't be checkpointed, because there is always a reader.
const LONG_LOG: u64 = 512 << 20;
/// An older unfinished delivery gets a note.
const OLD: SignedDuration = SignedDuration::from_hours(1);

pub(super) fn store(context: &Context, notes: &mut Notes) {
    let path = &context.config.store.path;
    let name = format!("`{}`", path.display());
    if store::restore_is_unfinished(path) {
        return notes.problem(
            format!("a restore of {name} began and did not finish"),
            "run `posthouse restore FILE --force` again",
        );
    }
    if !path.exists() {
        return notes.ok(format!("{name} does not exist yet; the daemon creates it"));
    }
    let found = match store::inspect(path, notes.timeout) {
        Ok(found) => found,
        Err(error) => {
            return notes.problem(error, "restore the last backup: posthouse restore FILE --force");
        }
    };
    let (schema, known) = found.schema;
    if schema > known {
        notes.problem(
            format!(
                "{name} was written by a newer posthouse (schema {schema}, this one supports up to {known})"
            ),
            "upgrade posthouse",
        );
    }
    match found.integrity {
        Integrity::Whole => notes.ok(format!(
            "{name} is intact; {}, schema {schema}, {} unfinished",
            ByteSize(found.bytes),
            found.unfinished
        )),
        Integrity::Damaged(said) => notes.problem(
            format!("{name} is damaged: {said}"),
            "stop the daemon, check the disk, and restore the last backup",
        ),
        Integrity::NotTold => notes.warning(
            format!(
                "the check of {name} ({}) did not finish within {:?}",
                ByteSize(found.bytes),
                notes.timeout
            ),
            "allow more time: posthouse doctor --timeout 600",
        ),
    }
    if found.wal_bytes > LONG_LOG {
        notes.warning(
            format!("the write-ahead log of {name} has {}", ByteSize(found.wal_bytes)),
            "close the program that keeps reading the store, such as a SQLite shell",
        );
    }
    if let Some(oldest) = found.oldest
        && daemon::env().now().duration_since(oldest) > OLD
    {
        notes.warning(
            format!("the oldest unfinished delivery was created at {}", table::time(oldest)),
            "`posthouse deliveries --state waiting` and `posthouse plugins` say why",
        );
    }
}

/// Reports an intact database, and warns while there is time to raise its limit.
fn whole(name: &str, path: &Path, max_size: Option<u64>, notes: &mut Notes) {
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    let intact = format!("`{name}`: `{}` is intact", path.display());
    match max_size.filter(|most| size > most / 5 * 4) {
        Some(most) => notes.warning(
            format!("{intact}, and has {} of {} (`max_size`)", ByteSize(size), ByteSize(most)),
            "delete rows, or raise `max_size` of [databases.<name>], before plugins fail to write",
        ),
        None => notes.ok(intact),
    }
}

pub(super) fn databases(context: &Context, notes: &mut Notes) {
    let settings = &context.config.databases;
    if settings.is_empty() {
        return notes.ok("none are configured");
    }
    let all = Databases::new(settings, context.config.store.min_free);
    for (name, own) in settings {
        match &own.target {
            DatabaseTarget::Sqlite(path) if !path.exists() => {
                notes.ok(format!(
                    "`{name}`: `{}` does not exist yet; the first attempt that uses it creates it",
                    path.display()
                ));
            }
            DatabaseTarget::Sqlite(path) => match database::inspect(path, notes.timeout) {
                Ok(database::Integrity::Whole) => whole(name, path, own.max_size, notes),
                Ok(database::Integrity::Damaged(said)) => notes.problem(
                    format!("`{name}`: `{}` is damaged: {said}", path.display()),
                    "stop the daemon, and restore the last backup",
                ),
                Ok(database::Integrity::NotTold) => notes.warning(
                    format!(
                        "`{name}`: the check of `{}` did not finish within {:?}",
                        path.display(),
                        notes.timeout
                    ),
                    "allow more time: posthouse doctor --timeout 600",
                ),
                Err(error) => {
                    notes.problem(format!("`{name}`: {error}"), "repair the file, or restore a backup")
                }
            },
            DatabaseTarget::Postgres(_) => {
                let Some(database) = all.get(name) else { continue };
                let inspected = runtime(notes.timeout, async move { database.inspect().await });
                match inspected {
                    Some(Ok(role)) if role.is_superuser => notes.warning(
                        format!(
                            "`{name}`: its role `{}` is a superuser, so every plugin with this grant is one",
                            role.name
                        ),
                        "use a role that owns nothing but its own tables",
                    ),
                    Some(Ok(role)) if role.unlimited_files => notes.ok(format!(
                        "`{name}`: role `{}` can connect; its queries may write temporary files without a limit \
                         (temp_file_limit of the server)",
                        role.name
                    )),
                    Some(Ok(role)) => notes.ok(format!("`{name}`: role `{}` can connect", role.name)),
                    Some(Err(error)) => notes.problem(
                        format!("`{name}`: {error}"),
                        "fix the connection; until then deliveries that need it wait, and events are still accepted",
                    ),
                    None => notes.problem(
                        format!("`{name}`: no answer within {:?}", notes.timeout),
                        "check that the server runs, and the network between",
                    ),
                }
            }
        }
    }
}
