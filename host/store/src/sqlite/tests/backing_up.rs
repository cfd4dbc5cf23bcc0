//! A backup shows one moment, is restored completely or not at all, and a restored store uses no number
//! twice.

use std::{
    collections::BTreeMap,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::conformance::support::*;
use crate::{
    Allowed, Backup, BackupError, CopyError, PluginDatabases, RestoreError, StoreError, Verdict, restore,
};

/// A backup of the fixture's store, made like another process would.
fn backed_up(fixture: &Fixture) -> std::path::PathBuf {
    let file = fixture.options.path.with_extension("backup");
    let backup = Backup::begin(&fixture.options.path, PluginDatabases::default(), fixture.now()).unwrap();
    backup.write(&file, true).unwrap().put_in_place().unwrap();
    file
}

/// A fixture with the content of the backup.
fn gone_back(fixture: &Fixture, file: &std::path::Path) -> Fixture {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let options = options(&dir.path().join("state/posthouse.db"));
    let env = posthouse_model::Env::new(fixture.clock.clone(), Seeded::new(seed()));
    restore(file, &options.path, &Default::default(), Allowed::default(), &env).unwrap();
    let store = open_at(&options, &fixture.clock).unwrap();
    Fixture { store, clock: fixture.clock.clone(), options, on: On::Sqlite, disk: Disk::Folder(dir) }
}

#[tokio::test]
async fn what_was_leased_runs_again_and_counts_as_one_that_may_have_run() -> Result<(), StoreError> {
    let fixture = Fixture::new(On::Sqlite);
    let plugin = fixture.plugin("a").await;
    let mut lane = fixture.store.open_lane(plugin, 1).await?;
    fixture.accept("one", &[plugin]).await;
    fixture.accept("two", &[plugin]).await;
    let leased = next(&mut lane).await;
    fixture.store.flush().await?;
    let file = backed_up(&fixture);
    fixture.done(leased, effects(&[("k", set("v"))])).await;

    let fixture = gone_back(&fixture, &file);
    let mut lane = fixture.store.open_lane(plugin, 2).await?;
    for event in ["one", "two"] {
        let job = next(&mut lane).await;
        assert_eq!(job.event.content.id.as_str(), event);
        assert!(job.may_have_run, "its marker is to be looked for");
        fixture.finish(job, Verdict::Done(effects(&[]))).await;
    }
    assert!(fixture.store.kv_get(plugin, "k").await.unwrap().is_none(), "that came after the backup");
    fixture.assert_balanced().await;
    Ok(())
}

#[tokio::test]
async fn what_came_after_the_backup_shares_no_number_with_what_comes_after_the_restore() {
    let fixture = Fixture::new(On::Sqlite);
    let plugin = fixture.plugin("a").await;
    fixture.accept("one", &[plugin]).await;
    let file = backed_up(&fixture);
    fixture.accept("two", &[plugin]).await;
    let given = fixture.store.event(None, "two").await.unwrap()[0].history[0].summary.id;
    let mut seen = std::collections::HashSet::from([given]);
    for _ in 0..2 {
        let fixture = gone_back(&fixture, &file);
        fixture.accept("two", &[plugin]).await;
        let id = fixture.store.event(None, "two").await.unwrap()[0].history[0].summary.id;
        assert!(id > given && id.0 < 1 << 53, "{id}");
        assert!(seen.insert(id), "two restores went on with the same numbers");
        fixture.assert_balanced().await;
    }
}

/// Every file below a folder, with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let content = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
        if path.is_dir() {
            files.extend(self::files(&path));
        }
        files.insert(path, content);
    }
    files
}

/// A backup of a fixture with events and a database, beside a folder that already has both.
struct Damaged {
    dir: tempfile::TempDir,
    backup: PathBuf,
    store: PathBuf,
    places: BTreeMap<String, PathBuf>,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Damaged {
    async fn new() -> Self {
        let fixture = Fixture::new(On::Sqlite);
        let plugin = fixture.plugin("a").await;
        for event in ["one", "two", "three"] {
            fixture.accept(event, &[plugin]).await;
        }
        fixture.store.flush().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("app.db");
        let connection = rusqlite::Connection::open(&app).unwrap();
        connection.execute_batch("CREATE TABLE entry (n); INSERT INTO entry VALUES (1)").unwrap();
        drop(connection);
        let backup = dir.path().join("backup.db");
        let beside = PluginDatabases { files: vec![("app".to_owned(), app.clone())], elsewhere: Vec::new() };
        let begun = Backup::begin(&fixture.options.path, beside, fixture.now()).unwrap();
        begun.write(&backup, false).unwrap().put_in_place().unwrap();

        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let (store, place) = (state.join("posthouse.db"), state.join("app.db"));
        std::fs::write(&store, "what is there").unwrap();
        std::fs::write(&place, "and here").unwrap();
        let before = files(&state);
        Self { dir, backup, store, places: [("app".to_owned(), place)].into(), before }
    }

    fn restore(&self, without_checksum: bool) -> Result<(), RestoreError> {
        let env = posthouse_model::Env::new(clock(), Seeded::new(1));
        let allowed = Allowed { force: true, without_checksum };
        restore(&self.backup, &self.store, &self.places, allowed, &env).map(drop)
    }

    /// The backup with these bytes is refused, and nothing has changed.
    fn refuse(&self, bytes: &[u8], how: &str) {
        std::fs::write(&self.backup, bytes).unwrap();
        self.refused(how);
    }

    fn refused(&self, how: &str) {
        let refused = self.restore(false);
        let as_damaged = matches!(
            refused,
            Err(RestoreError::Backup(
                BackupError::Unsealed(_) | BackupError::Copy(CopyError::Damaged { .. })
            ))
        );
        assert!(as_damaged, "{how}: {refused:?}");
        let names: Vec<_> = std::fs::read_dir(self.store.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), self.before.len(), "{how}: {names:?}");
    }

    fn assert_untouched(&self) {
        assert_eq!(files(self.store.parent().unwrap()), self.before);
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 3, "no half file is left");
    }
}

#[tokio::test]
async fn a_backup_with_any_single_bit_changed_is_refused_and_nothing_is_replaced() {
    let damaged = Damaged::new().await;
    let bytes = std::fs::read(&damaged.backup).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&damaged.backup).unwrap();
    let (seed, bits) = (seed(), bytes.len() as u64 * 8);
    let random = Seeded::new(seed);
    eprintln!("{bits} bits, seed {seed}");
    // Every bit of SQLite's header and of the seal, and a sample of the rest.
    let ends = (0..100 * 8).chain(bits - 8 * posthouse_model::seal::BYTES as u64..bits);
    for bit in ends.chain((0..10_000).map(|_| random.below(bits))) {
        let byte = bytes[(bit / 8) as usize];
        file.write_all_at(&[byte ^ 1 << (bit % 8)], bit / 8).unwrap();
        damaged.refused(&format!("bit {bit}, seed {seed}"));
        file.write_all_at(&[byte], bit / 8).unwrap();
    }
    damaged.assert_untouched();
    damaged.restore(false).expect("as it was made it is restored");
}

#[tokio::test]
async fn a_backup_that_was_cut_lengthened_or_doubled_is_refused_and_nothing_is_replaced() {
    let damaged = Damaged::new().await;
    let whole = std::fs::read(&damaged.backup).unwrap();
    let seal = posthouse_model::seal::BYTES;
    for cut in [0, 1, seal, 100, 4096, whole.len() / 2, whole.len() - seal, whole.len() - 1] {
        damaged.refuse(&whole[..cut], &format!("the first {cut} bytes"));
        damaged.refuse(&whole[whole.len() - cut..], &format!("the last {cut} bytes"));
    }
    let mut hole = whole.clone();
    hole.drain(4096..8192);
    for (bytes, how) in [
        ([&whole[..], b"\n"].concat(), "with a line break after it"),
        ([&whole[..], &[0; 4096]].concat(), "with zeros after it"),
        ([&whole[..], &whole].concat(), "twice"),
        ([&whole[..], &whole[whole.len() - seal..]].concat(), "with two seals"),
        ([b"x", &whole[..]].concat(), "with something before it"),
        (hole, "without a page"),
        (vec![0; whole.len()], "all zeros"),
    ] {
        damaged.refuse(&bytes, how);
    }
    damaged.assert_untouched();
}

#[tokio::test]
async fn a_backup_without_a_checksum_is_restored_only_where_the_operator_says_so() {
    let damaged = Damaged::new().await;
    let whole = std::fs::read(&damaged.backup).unwrap();
    let old = &whole[..whole.len() - posthouse_model::seal::BYTES];
    damaged.refuse(old, "as an older posthouse made it");
    damaged.assert_untouched();
    damaged.restore(true).unwrap();

    // An existing checksum is still checked.
    let damaged = Damaged::new().await;
    let mut altered = std::fs::read(&damaged.backup).unwrap();
    altered[5000] ^= 1;
    std::fs::write(&damaged.backup, &altered).unwrap();
    assert!(matches!(damaged.restore(true), Err(RestoreError::Backup(_))));
    damaged.assert_untouched();
}

#[tokio::test]
async fn a_log_or_journal_beside_a_backup_is_no_part_of_it() {
    let damaged = Damaged::new().await;
    for suffix in ["-wal", "-journal"] {
        let mut name = damaged.backup.clone().into_os_string();
        name.push(suffix);
        std::fs::write(name, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7 of another file").unwrap();
    }
    damaged.restore(false).unwrap();
}

#[tokio::test]
async fn a_backup_never_takes_the_place_of_what_it_is_a_backup_of() {
    let damaged = Damaged::new().await;
    damaged.restore(false).unwrap();
    let state = files(damaged.store.parent().unwrap());
    let link = damaged.dir.path().join("link");
    std::os::unix::fs::symlink(&damaged.store, &link).unwrap();
    let beside =
        PluginDatabases { files: damaged.places.clone().into_iter().collect(), elsewhere: Vec::new() };
    for target in [&damaged.store, &damaged.places["app"], &link] {
        let begun = Backup::begin(&damaged.store, beside.clone(), jiff::Timestamp::UNIX_EPOCH).unwrap();
        let refused = begun.write(target, true).map(drop);
        assert!(matches!(refused, Err(BackupError::Itself { .. })), "{refused:?}");
    }
    assert_eq!(files(damaged.store.parent().unwrap()), state);
}
