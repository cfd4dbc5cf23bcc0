//! Checks the machine: its clock, its disks, permissions of files, the limit of open files.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use jiff::{SignedDuration, Timestamp};
use posthouse_model::config::{DatabaseTarget, MailTarget};
use posthouse_store as store;
use rustix::{
    fs::{statfs, statvfs},
    process::{Resource, getrlimit},
};

use super::{Context, Notes};

use crate::{admin, daemon};

/// 2026-01-01: no clock is right that shows a time before posthouse existed.
const EARLIEST: i64 = 1_767_225_600;
/// How far the newest event may be ahead of the clock.
const AHEAD: SignedDuration = SignedDuration::from_secs(5);
/// Less free space than `LITTLE` is a problem, and less than `SCARCE` gets a note.
const LITTLE: u64 = 64 << 20;
const SCARCE: u64 = 1 << 30;
/// A slower sync gets a note.
const SLOW: Duration = Duration::from_millis(500);
/// The number of files that the daemon opens besides connections.
const OWN_FILES: u64 = 256;

/// File systems on which SQLite's log or locks do not work.
const NETWORK: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x7461_636f, "OCFS2"),
];
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

pub(super) fn clock(context: &Context, notes: &mut Notes) {
    let now = daemon::env().now();
    if now.as_second() < EARLIEST {
        return notes.problem(
            format!("the clock shows {}, a time before posthouse existed", shown(now)),
            "set the clock (timedatectl set-ntp true); with this time, signatures are refused",
        );
    }
    let path = &context.config.store.path;
    let newest = path.exists().then(|| store::newest_event(path).ok()).flatten().flatten();
    match newest {
        Some(newest) if newest.duration_since(now) > AHEAD => notes.problem(
            format!(
                "the clock shows {}, but the newest event was received at {}: the clock was set back",
                shown(now),
                shown(newest)
            ),
            "correct the clock (timedatectl set-ntp true); until then, retries wait longer",
        ),
        _ => notes.ok(format!("the clock shows {}", shown(now))),
    }
}

pub(super) fn disk(context: &Context, notes: &mut Notes) {
    for (folder, what) in folders(context) {
        // The nearest existing folder: the daemon creates the missing ones. A relative path begins in the
        // working folder.
        let above = folder.ancestors().find(|folder| folder.is_dir());
        let there = above.unwrap_or(if folder.is_absolute() { Path::new("/") } else { Path::new(".") });
        let name = format!("`{}` ({what})", folder.display());
        match probe(there) {
            Err(error) => notes.problem(
                format!("{name} can't be written: {error}"),
                "make the user that runs posthouse its owner, with write permission, on a disk with free space",
            ),
            Ok(took) if took > SLOW => notes.warning(
                format!("{name} took {took:.1?} to sync one file, and each batch of events waits for a sync"),
                "use a faster disk",
            ),
            Ok(_) => {}
        }
        if let Ok(system) = statfs(there) {
            let kind = system.f_type as u64 & 0xffff_ffff;
            if let Some((_, network)) = NETWORK.iter().find(|(number, _)| *number == kind) {
                notes.problem(
                    format!(
                        "{name} is on a network file system ({network}), where locks and syncs are unreliable"
                    ),
                    "move it to a local disk",
                );
            }
            if MEMORY.contains(&kind) {
                notes.warning(
                    format!("{name} is on a file system in memory, which is lost at a reboot"),
                    "move it to a disk",
                );
            }
        }
        let Ok(system) = statvfs(there) else { continue };
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        let room = format!("{name} has {} free", ByteSize(free));
        if free < LITTLE || (system.f_files > 0 && system.f_favail == 0) {
            notes.problem(
                if free < LITTLE { room } else { format!("{name} is on a disk without free inodes") },
                "free some space; until then events get 503, and afterwards the daemon recovers automatically",
            );
        } else if free < SCARCE {
            notes.warning(room, "free some space soon, or shorten `retention` of [store]");
        } else {
            notes.ok(room);
        }
    }
}

/// The folders that the daemon writes to, each once, with all its purposes.
fn folders(context: &Context) -> BTreeMap<PathBuf, String> {
    let config = &context.config;
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut all = vec![(parent(&config.store.path), "store".to_owned())];
    if let Some(folder) = &config.store.state {
        all.push((folder.clone(), "state".to_owned()));
    }
    if let MailTarget::Folder(folder) = &config.mail.target {
        all.push((folder.clone(), "mail".to_owned()));
    }
    for (name, database) in &config.databases {
        if let DatabaseTarget::Sqlite(path) = &database.target {
            all.push((parent(path), format!("database {name}")));
        }
    }
    let mut folders: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (folder, what) in all {
        folders.entry(folder).and_modify(|known| *known += &format!(", {what}")).or_insert(what);
    }
    folders
}

/// Creates a file, syncs it and removes it. Returns the time that this took.
fn probe(folder: &Path) -> std::io::Result<Duration> {
    let began = Instant::now();
    let mut file = tempfile::Builder::new().prefix(".posthouse-doctor-").tempfile_in(folder)?;
    file.write_all(&[0; 4096])?;
    file.as_file().sync_all()?;
    file.close()?;
    Ok(began.elapsed())
}

pub(super) fn permissions(context: &Context, notes: &mut Notes) {
    let config = &context.config;
    let store = &config.store.path;
    let folder = store.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let token = admin::token::file(config);
    let mut private = vec![store.clone(), with(store, "-wal"), token];
    for database in config.databases.values() {
        if let DatabaseTarget::Sqlite(path) = &database.target {
            private.push(path.clone());
        }
    }
    let owner = fs::metadata(folder).map(|folder| folder.uid()).ok();
    for path in private {
        let Ok(file) = fs::metadata(&path) else { continue };
        if file.mode() & 0o077 != 0 {
            notes.problem(
                format!("other users can read `{}` (mode {:03o})", path.display(), file.mode() & 0o777),
                format!("chmod 600 {}", path.display()),
            );
        }
        if path.parent() == Some(folder) && owner.is_some_and(|owner| owner != file.uid()) {
            notes.problem(
                format!("`{}` belongs to another user than its folder", path.display()),
                format!("chown --reference={} {}", folder.display(), path.display()),
            );
        }
    }
    if let Ok(metadata) = fs::metadata(folder)
        && metadata.mode() & 0o022 != 0
    {
        notes.problem(
            format!("other users can write to `{}` (mode {:03o})", folder.display(), metadata.mode() & 0o777),
            format!("chmod 700 {}", folder.display()),
        );
    }
    let plugins = &config.plugins.dir;
    match fs::read_dir(plugins) {
        Err(error) => notes.problem(
            format!("the plugins folder `{}` can't be read: {error}", plugins.display()),
            "create it, or set another in `[plugins] dir`",
        ),
        Ok(files) => {
            let files = files
                .flatten()
                .map(|file| file.path())
                .filter(|file| file.extension() == Some("wasm".as_ref()));
            for path in files.chain([plugins.clone()]) {
                let Ok(file) = fs::metadata(&path) else { continue };
                if file.mode() & 0o002 != 0 {
                    notes.problem(
                        format!("any user can change `{}`, and so the code that runs", path.display()),
                        format!("chmod o-w {}", path.display()),
                    );
                }
            }
        }
    }
    if notes.found.is_empty() {
        notes.ok("other users cannot read private files or change plugins");
    }
}

pub(super) fn limits(context: &Context, notes: &mut Notes) {
    let wanted = context.config.server.max_requests as u64 + OWN_FILES;
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < wanted => notes.warning(
            format!("the limit of open files is {most}, and `max_requests` of [server] needs {wanted}"),
            format!("set LimitNOFILE={wanted} in the unit, or lower `max_requests`"),
        ),
        _ => notes.ok("the limit of open files is high enough"),
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn shown(moment: Timestamp) -> String {
    super::table::time(moment)
}
