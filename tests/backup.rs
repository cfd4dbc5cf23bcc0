//! A backup that is made while the daemon works can be restored. It contains every event that was
//! acknowledged before it began. Its content takes effect once, in the store and in databases that are copied
//! a moment later.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use posthouse_harness::{Builder, Daemon, Event, Load, Output, Postgres, seed, timeout, wait_until};
use rusqlite::{Connection as Sqlite, OpenFlags};
use serde_json::json;
use sha2::{Digest as _, Sha256};

const TABLE: &str = "CREATE TABLE entry (event TEXT NOT NULL)";

/// A daemon that counts each event in its store, and with a row in a database.
fn on(url: &str) -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("sql-probe").guest("counter").toml(&format!(
        "[databases.app]\nurl = {url:?}\n\
         [plugin.sql-probe]\nretry = {{ attempts = 50, base = \"50ms\", factor = 1.0 }}\n\
         [plugin.sql-probe.grants]\ndatabase = \"app\"\n"
    ))
}

/// An event that writes a row with its id.
fn event(_: u64) -> Event {
    let mut event = Event::new("user.created");
    event.data = json!({ "steps": [{ "sql": "INSERT INTO entry VALUES ($1)", "with": [event.id] }] });
    event
}

fn failed(output: &Output) -> &str {
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{output:?}");
    output.stderr.trim_end()
}

fn succeeded(output: Output) -> Output {
    assert_eq!(output.code, Some(0), "{output:?}");
    output
}

/// Everything in the store has taken effect once. The effects of later events may be in the database alone.
fn check(daemon: &Daemon, before: &[String], acknowledged: &[String], rows: &BTreeMap<String, u64>) {
    let taken: BTreeSet<String> =
        daemon.events().iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    let lost: Vec<_> = before.iter().filter(|id| !taken.contains(*id)).collect();
    assert!(lost.is_empty(), "acknowledged before the backup and not in it: {lost:?}");
    for id in &taken {
        assert_eq!(rows.get(id), Some(&1), "rows of {id}");
    }
    let acknowledged: BTreeSet<_> = acknowledged.iter().collect();
    assert!(rows.keys().all(|id| taken.contains(id) || acknowledged.contains(id)));
    let mut kv = daemon.kv("counter");
    assert_eq!(kv.remove("count"), Some(taken.len().to_string()));
    assert_eq!(kv.len(), taken.len());
    assert!(kv.values().all(|count| count == "1"), "{kv:?}");
    let stats = daemon.stats();
    assert_eq!(stats["balanced"], json!(true), "{stats}");
    assert_eq!(stats["store"]["states"]["dead"], json!(0), "{stats}");
}

fn counted(rows: Vec<Vec<String>>) -> BTreeMap<String, u64> {
    rows.into_iter().map(|row| (row[0].clone(), row[1].parse().expect("a count"))).collect()
}

const COUNTS: &str = "SELECT event, count(*) FROM entry GROUP BY event";

#[test]
fn a_backup_under_load_holds_what_was_acknowledged_and_a_fresh_folder_goes_on_from_it() {
    let mut daemon = on("sqlite:data/app.db").prepare();
    fs::create_dir(daemon.dir().join("data")).expect("a folder");
    Sqlite::open(daemon.dir().join("data/app.db")).and_then(|app| app.execute_batch(TABLE)).expect("a table");
    daemon.start();
    let load = Load::start(&daemon.sender(), 150, event);
    wait_until("events are taken in", || load.acknowledged() > 150);
    let before = load.acknowledged_ids();
    let made = succeeded(daemon.cli(&["backup", "backup.db", "--json"])).json_lines().remove(0);
    assert!(made["events"].as_u64() >= Some(before.len() as u64), "{made}");
    assert_eq!(made["databases"][0][0], "app", "{made}");
    let during = load.acknowledged();
    wait_until("events are taken in after it", || load.acknowledged() > during + 100);
    let report = load.stop();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    daemon.wait_settled();
    let largest = daemon.deliveries("")[0]["id"].clone();

    let file = daemon.dir().join("backup.db");
    assert_eq!(fs::metadata(&file).expect("the backup").permissions().mode() & 0o777, 0o600);
    let beside = fs::read_dir(daemon.dir()).expect("a folder").flatten().map(|entry| entry.file_name());
    let scraps: Vec<_> = beside.filter(|name| name.to_string_lossy().starts_with("backup.db.")).collect();
    assert!(scraps.is_empty(), "{scraps:?}");
    let audit = succeeded(daemon.cli(&["audit", "--since", "1h", "--json"])).json_lines();
    let deeds: Vec<_> = audit.iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(deeds, ["end backup", "begin backup"], "{audit:?}");
    let table = succeeded(daemon.cli(&["audit", "--limit", "1"])).stdout;
    assert!(table.contains("end backup") && table.contains("markers released"), "{table}");
    // The former path of `/v1/markers/hold` works for commands of an older version.
    let former = daemon.admin_post("/v1/markers/keep", &json!({ "holder": "older", "seconds": 0 }));
    assert_eq!((former.status, &former.json()["kept"]), (200, &json!(false)), "{former}");

    daemon.stop();
    fs::rename(daemon.dir().join("data"), daemon.dir().join("lost")).expect("the folder goes");
    let said = succeeded(daemon.cli(&["restore", "backup.db"])).stdout;
    assert!(said.contains("app (") && said.contains(&format!("events      {}", made["events"])), "{said}");
    daemon.start();
    daemon.wait_settled();
    check(&daemon, &before, &report.acknowledged, &counted(daemon.app_rows(COUNTS)));

    let fresh = event(0);
    assert!(daemon.post_event(&fresh).accepted());
    daemon.wait_settled();
    let delivery = daemon.event(&fresh.id)["history"][0]["id"].clone();
    let number = |id: &serde_json::Value| {
        id.as_str().and_then(|id| id.strip_prefix("dlv_")?.parse::<u64>().ok()).expect("a number")
    };
    assert!(number(&delivery) > number(&largest), "{delivery} was given before, as {largest} was");
}

#[test]
fn a_database_that_is_copied_later_by_its_own_tools_has_every_effect_once() {
    let postgres = Postgres::start();
    postgres.execute(TABLE);
    let mut daemon = on(&postgres.url()).start();
    let load = Load::start(&daemon.sender(), 80, event);
    wait_until("events are taken in", || load.acknowledged() > 80);
    let before = load.acknowledged_ids();
    // Long enough to commit much after the store's part of the backup, and to remove its markers.
    let command = format!("sleep 2; pg_dump --file app.sql '{}'", postgres.url());
    let made = succeeded(daemon.cli(&["backup", "backup.db", "--", "sh", "-c", &command]));
    assert!(made.stdout.contains("is complete and checked"), "{made:?}");
    assert!(!made.stdout.contains("not in the backup"), "{made:?}");
    let report = load.stop();
    daemon.wait_settled();
    wait_until("no marker stays when the backup is made", || {
        postgres.query("SELECT count(*) FROM posthouse_deliveries") == [["0"]]
    });

    daemon.stop();
    fs::remove_dir_all(daemon.dir().join("data")).expect("the folder goes");
    postgres.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    postgres.execute(&format!("\\i {}", daemon.dir().join("app.sql").display()));
    let markers = postgres.query("SELECT count(*) FROM posthouse_deliveries")[0][0].clone();
    assert_ne!(markers, "0", "this test proves nothing: no marker was kept");
    let said = succeeded(daemon.cli(&["restore", "backup.db"])).stdout;
    assert!(said.contains("restore database `app` with its own tools"), "{said}");
    daemon.start();
    daemon.wait_settled();
    eprintln!("{markers} markers were in the database's copy");
    check(&daemon, &before, &report.acknowledged, &counted(postgres.query(COUNTS)));

    let missing = succeeded(daemon.cli(&["backup", "second.db"])).stdout;
    assert!(missing.contains("database `app` is not in the backup; copy it with its own tools"), "{missing}");
    let failure = daemon.cli(&["backup", "third.db", "--", "false"]);
    assert!(failed(&failure).contains("`false` failed"), "{failure:?}");
    assert!(!daemon.dir().join("third.db").exists());
}

#[test]
fn a_backup_may_go_to_standard_output_and_makes_no_file_named_like_it() {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).start();
    let event = Event::new("user.created");
    assert!(daemon.post_event(&event).accepted());
    let made = daemon.command(&["backup", "-"]).output().expect("the command runs");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && said.contains("`-` is complete and checked"), "{said}");
    assert!(!daemon.dir().join("-").exists());
    fs::write(daemon.dir().join("piped.db"), &made.stdout).expect("the backup");
    daemon.stop();
    fs::remove_dir_all(daemon.dir().join("data")).expect("the folder goes");
    succeeded(daemon.cli(&["restore", "piped.db"]));
    daemon.start();
    assert_eq!(daemon.events()[0]["id"], event.id.as_str());
}

#[test]
fn nothing_is_overwritten_and_nothing_wrong_is_restored() {
    let mut daemon = on("sqlite:data/app.db").prepare();
    let early = daemon.cli(&["backup", "backup.db"]);
    assert!(failed(&early).contains("there is no store"), "{early:?}");
    daemon.start();
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.wait_settled();
    succeeded(daemon.cli(&["backup", "backup.db"]));
    let again = daemon.cli(&["backup", "backup.db"]);
    assert!(failed(&again).contains("exists already") && again.stderr.contains("--force"), "{again:?}");
    succeeded(daemon.cli(&["backup", "backup.db", "--force"]));
    let nowhere = daemon.cli(&["backup", "nowhere/backup.db"]);
    assert!(failed(&nowhere).contains("can't be written"), "{nowhere:?}");

    let busy = daemon.cli(&["restore", "backup.db", "--force"]);
    assert!(failed(&busy).contains("locked by another posthouse"), "{busy:?}");
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.wait_settled();
    daemon.stop();
    succeeded(daemon.cli(&["backup", "stopped.db"]));

    let there = daemon.cli(&["restore", "backup.db"]);
    assert!(failed(&there).contains("--force"), "{there:?}");
    // Without a checksum, like a backup of an older posthouse: SQLite and the backup's own tables find the
    // damage.
    type Spoil<'a> = &'a dyn Fn(&Path);
    let wrong: [(&str, Spoil<'_>); 7] = [
        ("it does not exist", &|file| fs::remove_file(file).expect("a file")),
        ("it is not a file", &|file| {
            fs::remove_file(file).and_then(|()| fs::create_dir(file)).expect("a folder");
        }),
        ("not a backup of a store", &|file| {
            let _ = fs::remove_dir(file);
            fs::write(file, "not a database ".repeat(1000)).expect("a file");
        }),
        ("newer posthouse", &|file| pragma(file, "user_version = 99")),
        ("another program's", &|file| pragma(file, "application_id = 7")),
        ("malformed", &damage),
        ("is damaged: of database `app`", &|file| {
            execute(file, "UPDATE backup_part SET bytes = zeroblob(length(bytes))");
        }),
    ];
    for (reason, spoil) in wrong {
        let spoilt = daemon.dir().join("spoilt.db");
        if !spoilt.is_dir() {
            let whole = fs::read(daemon.dir().join("backup.db")).expect("the backup");
            fs::write(&spoilt, &whole[..whole.len() - SEAL]).expect("a copy");
        }
        spoil(&spoilt);
        let refused = daemon.cli(&["restore", "spoilt.db", "--force", "--without-checksum"]);
        assert!(failed(&refused).contains(reason), "{reason}: {refused:?}");
        assert_eq!(failed(&refused).lines().count(), 1, "{refused:?}");
    }
    daemon.start();
    assert_eq!(daemon.events().len(), 2, "nothing was restored so far");
    daemon.stop();

    let said = succeeded(daemon.cli(&["restore", "backup.db", "--force"])).stdout;
    let kept: Vec<_> = said.lines().filter(|line| line.contains("is kept as")).collect();
    assert_eq!(kept.len(), 2, "the store's and the database's: {said}");
    daemon.start();
    assert_eq!(daemon.events().len(), 1);
    daemon.stop();

    // The state that a power cut in the middle of a restore leaves.
    let restoring = daemon.dir().join("data/posthouse.db.restoring");
    fs::write(&restoring, "").expect("a file");
    let refused = daemon.refused();
    assert!(refused.stderr.contains("restore") && refused.stderr.contains("--force"), "{refused:?}");
    succeeded(daemon.cli(&["restore", "stopped.db", "--force"]));
    daemon.start();
    assert_eq!(daemon.events().len(), 2);
    daemon.stop();

    daemon.edit_config(|config| {
        config.replace("databases.app", "databases.other").replace("\"app\"", "\"other\"")
    });
    let homeless = daemon.cli(&["restore", "backup.db", "--force"]);
    assert!(failed(&homeless).contains("[databases.app]"), "{homeless:?}");
}

/// Bytes of the checksum at a backup's end, with the bytes around it.
const SEAL: usize = 56;

/// Every file in a folder, by its name and SHA-256.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().filter(|entry| entry.path().is_file());
    entries
        .map(|entry| {
            let content = fs::read(entry.path()).expect("a file");
            (entry.file_name().to_string_lossy().into_owned(), Sha256::digest(&content).to_vec())
        })
        .collect()
}

#[test]
fn a_damaged_backup_is_refused_by_name_and_changes_nothing() {
    let mut daemon = on("sqlite:data/app.db").start();
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.wait_settled();
    succeeded(daemon.cli(&["backup", "backup.db"]));
    let checked = succeeded(daemon.cli(&["backup", "--check", "backup.db", "--json"])).json_lines().remove(0);
    assert_eq!((&checked["events"], &checked["databases"][0][0]), (&json!(1), &json!("app")), "{checked}");
    // Any tool for SQLite can read it.
    let rows = Sqlite::open_with_flags(daemon.dir().join("backup.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|file| {
            assert_eq!(file.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))?, "ok");
            file.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0))
        });
    assert_eq!(rows, Ok(1));
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.wait_settled();
    daemon.stop();

    let whole = fs::read(daemon.dir().join("backup.db")).expect("the backup");
    let state = files(&daemon.dir().join("data"));
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let end = whole.len();
    let seed = seed();
    let somewhere = |number: u64| (seed.rotate_left(7 * number as u32) % end as u64) as usize;
    let mut damaged: Vec<(String, Vec<u8>)> =
        [0, 30, 100, 5000, end / 2, end - 57, end - 56, end - 36, end - 1]
            .into_iter()
            .chain((0..5).map(somewhere))
            .map(|at| (format!("byte {at} of {end}, seed {seed}"), flipped(at)))
            .collect();
    damaged.push(("cut".into(), whole[..end - 1].to_vec()));
    damaged.push(("without its checksum".into(), whole[..end - SEAL].to_vec()));
    damaged.push(("lengthened".into(), [&whole[..], b"\n"].concat()));
    damaged.push(("twice".into(), [&whole[..], &whole[..]].concat()));
    for (how, bytes) in damaged {
        fs::write(daemon.dir().join("damaged.db"), bytes).expect("a file");
        for asked in [&["restore", "damaged.db", "--force"][..], &["backup", "--check", "damaged.db"]] {
            let refused = daemon.cli(asked);
            let said = failed(&refused);
            assert!(said.contains("damaged.db` ") && said.lines().count() == 1, "{how}: {refused:?}");
            assert!(said.contains("is damaged: ") || said.contains("has no checksum"), "{how}: {said}");
        }
        assert_eq!(files(&daemon.dir().join("data")), state, "{how}");
    }
    // Nothing is written to an empty folder either.
    fs::rename(daemon.dir().join("data"), daemon.dir().join("before")).expect("the folder goes");
    assert_eq!(daemon.cli(&["restore", "damaged.db"]).code, Some(1));
    assert!(!daemon.dir().join("data").exists());
    fs::rename(daemon.dir().join("before"), daemon.dir().join("data")).expect("the folder is back");
    daemon.start();
    assert_eq!(daemon.events().len(), 2);
}

#[test]
fn what_root_restores_the_daemons_user_can_open() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can restore for another user");
        return;
    }
    let mut daemon = on("sqlite:data/databases/app.db").prepare();
    fs::create_dir_all(daemon.dir().join("data/databases")).expect("a folder");
    let app = daemon.dir().join("data/databases/app.db");
    Sqlite::open(app).and_then(|app| app.execute_batch(TABLE)).expect("a table");
    daemon.start();
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    daemon.wait_settled();
    succeeded(daemon.cli(&["backup", "backup.db"]));
    daemon.stop();

    // In an empty place, in an existing folder, and over a store of the daemon's, with and without a lock.
    let data = daemon.dir().join("data");
    let (user, group) = (12_345, 12_346);
    let owners = |dir: &Path| {
        let mut owners = BTreeMap::new();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()) {
                let file = fs::symlink_metadata(&path).expect("a file");
                owners.insert(path.clone(), (file.uid(), file.gid()));
                folders.extend(file.is_dir().then_some(path));
            }
        }
        owners
    };
    fs::remove_dir_all(&data).expect("the folder goes");
    fs::create_dir(&data).and_then(|()| chown(&data, Some(user), Some(group))).expect("a folder");
    for step in ["into an empty folder", "over a store of the daemon's", "where the lock is gone"] {
        succeeded(daemon.cli(&["restore", "backup.db", "--force"]));
        let strangers: Vec<_> =
            owners(&data).into_iter().filter(|(_, owner)| *owner != (user, group)).collect();
        assert!(strangers.is_empty(), "{step}: {strangers:?}");
        assert!(data.join("posthouse.db").is_file() && data.join("databases/app.db").is_file());
        fs::set_permissions(data.join("posthouse.db"), fs::Permissions::from_mode(0o640)).expect("a mode");
        if step.starts_with("over") {
            fs::remove_file(data.join("posthouse.db.lock")).expect("the lock goes");
        }
    }
    let mode = fs::metadata(data.join("posthouse.db")).expect("the store").permissions().mode() & 0o777;
    assert_eq!(mode, 0o640, "as that which it replaced");

    // The daemon's user can start the daemon on it.
    for path in owners(daemon.dir()).into_keys().chain([daemon.dir().to_owned()]) {
        if !path.starts_with(&data) {
            chown(&path, Some(user), Some(group)).expect("the daemon's folder");
        }
    }
    let binary = daemon.dir().join("posthouse");
    fs::copy(env!("CARGO_BIN_EXE_posthouse"), &binary).expect("a binary that any user reaches");
    let mut command = Command::new(&binary);
    command.arg("serve").current_dir(daemon.dir()).uid(user).gid(group).stdin(Stdio::null());
    let log = fs::File::create(daemon.dir().join("user.log")).expect("a file");
    let mut child = command.stderr(log).spawn().expect("the daemon runs");
    let began = Instant::now();
    while !daemon.healthy() && began.elapsed() < timeout() && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(50));
    }
    let started = daemon.healthy();
    child.kill().and_then(|()| child.wait()).expect("the daemon ends");
    let log = fs::read_to_string(daemon.dir().join("user.log")).expect("its log");
    assert!(started, "{log}");
}

fn pragma(file: &Path, pragma: &str) {
    execute(file, &format!("PRAGMA {pragma}"));
}

fn execute(file: &Path, statement: &str) {
    Sqlite::open(file).and_then(|file| file.execute_batch(statement)).expect("a database");
}

/// Damages each page except the first.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).expect("the file");
    for page in bytes.chunks_mut(4096).skip(1) {
        page[..64].fill(0xff);
    }
    fs::write(file, bytes).expect("the file");
}
