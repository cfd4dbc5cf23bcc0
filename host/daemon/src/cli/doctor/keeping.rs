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

/// A log beyond this size can't be checkpointed: there is always a reader.
const LONG_LOG: u64 = 512 << 20;
/// An older unfinished delivery gets a note.
const OLD: SignedDuration = SignedDuration::from_hours(1);

pub(super) fn store(patient: &Context, notes: &mut Notes) {
    let path = &patient.config.store.path;
    let name = format!("`{}`", path.display());
    if store::restore_is_unfinished(path) {
        return notes.problem(
            format!("a restore of {name} was begun and not ended"),
            "run `posthouse restore FILE --force` again",
        );
    }
    if !path.exists() {
        return notes.ok(format!("{name} is not there yet; the daemon makes it"));
    }
    let found = match store::inspect(path, notes.patience) {
        Ok(found) => found,
        Err(error) => {
            return notes.problem(error, "restore the last backup: posthouse restore FILE --force");
        }
    };
    let (schema, known) = found.schema;
    if schema > known {
        notes.problem(
            format!(
                "{name} was written by a newer posthouse (schema {schema}, this one knows up to {known})"
            ),
            "upgrade posthouse",
        );
    }
    match found.integrity {
        Integrity::Whole => notes.ok(format!(
            "{name} holds together; {}, schema {schema}, {} unfinished",
            ByteSize(found.bytes),
            found.unfinished
        )),
        Integrity::Damaged(said) => notes.problem(
            format!("{name} is damaged: {said}"),
            "stop the daemon, look at the disk, and restore the last backup",
        ),
        Integrity::NotTold => notes.warning(
            format!("{name} ({}) was not read to its end within {:?}", ByteSize(found.bytes), notes.patience),
            "give it longer: posthouse doctor --patience 600",
        ),
    }
    if found.wal_bytes > LONG_LOG {
        notes.warning(
            format!("its write-ahead log has {}", ByteSize(found.wal_bytes)),
            "end what reads the store all the while, such as an SQLite shell",
        );
    }
    if let Some(oldest) = found.oldest
        && daemon::env().now().duration_since(oldest) > OLD
    {
        notes.warning(
            format!("the oldest unfinished delivery is of {}", table::time(oldest)),
            "`posthouse deliveries --state waiting` and `posthouse plugins` say why",
        );
    }
}

/// Reports an intact database, and warns while there is time to raise its limit.
fn whole(name: &str, path: &Path, max_size: Option<u64>, notes: &mut Notes) {
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    let told = format!("`{name}`: `{}` holds together", path.display());
    match max_size.filter(|most| size > most / 5 * 4) {
        Some(most) => notes.warning(
            format!("{told}, and has {} of {} (`max_size`)", ByteSize(size), ByteSize(most)),
            "delete rows, or raise `max_size` of [databases.<name>], before plugins fail to write",
        ),
        None => notes.ok(told),
    }
}

pub(super) fn databases(patient: &Context, notes: &mut Notes) {
    let settings = &patient.config.databases;
    if settings.is_empty() {
        return notes.ok("there are none");
    }
    let all = Databases::new(settings, patient.config.store.min_free);
    for (name, own) in settings {
        match &own.target {
            DatabaseTarget::Sqlite(path) if !path.exists() => {
                notes.ok(format!(
                    "`{name}`: `{}` is not there yet; it is made when it is used",
                    path.display()
                ));
            }
            DatabaseTarget::Sqlite(path) => match database::inspect(path, notes.patience) {
                Ok(database::Integrity::Whole) => whole(name, path, own.max_size, notes),
                Ok(database::Integrity::Damaged(said)) => notes.problem(
                    format!("`{name}`: `{}` is damaged: {said}", path.display()),
                    "stop the daemon, and restore the last backup",
                ),
                Ok(database::Integrity::NotTold) => notes.warning(
                    format!("`{name}`: `{}` was not read to its end", path.display()),
                    "give it longer: posthouse doctor --patience 600",
                ),
                Err(error) => notes.problem(format!("`{name}`: {error}"), "mend the file, or restore it"),
            },
            DatabaseTarget::Postgres(_) => {
                let Some(database) = all.get(name) else { continue };
                let examined = runtime(notes.patience, async move { database.inspect().await });
                match examined {
                    Some(Ok(role)) if role.is_superuser => notes.warning(
                        format!("`{name}`: its role `{}` is a superuser, and so is every plugin that is granted it", role.name),
                        "let it use a role of its own that owns nothing but its tables",
                    ),
                    Some(Ok(role)) if role.unlimited_files => notes.ok(format!(
                        "`{name}`: it answers role `{}`, whose queries may write temporary files without a limit \
                         (temp_file_limit of the server)",
                        role.name
                    )),
                    Some(Ok(role)) => notes.ok(format!("`{name}`: it answers role `{}`", role.name)),
                    Some(Err(error)) => notes.problem(
                        format!("`{name}`: {error}"),
                        "its deliveries rest until it can be used; events are taken in meanwhile",
                    ),
                    None => notes.problem(
                        format!("`{name}`: no answer within {:?}", notes.patience),
                        "see whether the server runs, and what is between",
                    ),
                }
            }
        }
    }
}
