//! `posthouse backup`: one file with the store and the databases of plugins, with or without a running
//! daemon.
//!
//! It reads the files itself, beside the daemon, so it can write the backup where the daemon may not write.
//! It asks the daemon only to keep markers meanwhile. The command after `--` starts once the store's part of
//! the backup is fixed. It copies databases that need their own tools, such as a PostgreSQL.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use posthouse_model::config::{Config, DatabaseTarget};
use posthouse_store as store;
use posthouse_store::{Backup, Contents, KeptOut, PluginDatabases};
use serde_json::{Value, json};

use super::{
    CliError,
    client::Client,
    table::{self, time},
};

use crate::daemon;

/// The time, in seconds, for which the daemon is asked to keep markers.
const HOLD: u64 = 300;
/// The interval between two such requests.
const AGAIN: Duration = Duration::from_secs(60);
/// The interval between two checks of the command.
const LOOK: Duration = Duration::from_millis(50);

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write; it must not exist yet. `-` is standard output.
    file: PathBuf,
    /// Read an existing backup completely, and print its contents, or what is wrong with it.
    #[arg(long, conflicts_with_all = ["force", "command"])]
    check: bool,
    /// Replace an existing file, once the new one is complete.
    #[arg(long)]
    force: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// A command that copies databases with their own tools, such as `pg_dump --file app.sql app`; if it fails,
    /// there is no backup.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if there is no backup.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    if args.check || args.file != Path::new("-") {
        let told = write(&args, config)?;
        return table::print(&told);
    }
    if io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "a backup is binary and standard output is a terminal; use `posthouse backup FILE` or \
             `posthouse backup - > FILE`"
                .to_owned(),
        ));
    }
    // The backup is checked as a file before it is sent.
    let failed = |error: io::Error| {
        CliError::Failure(format!("the backup can't be written to standard output: {error}"))
    };
    let folder = tempfile::tempdir().map_err(failed)?;
    let args = Args { file: folder.path().join("backup.db"), ..args };
    let told = write(&args, config)?;
    let mut out = io::stdout().lock();
    File::open(&args.file)
        .and_then(|mut file| io::copy(&mut file, &mut out))
        .and_then(|_| out.flush())
        .map_err(failed)?;
    eprint(&told.replace(&args.file.display().to_string(), "-"));
    Ok(ExitCode::SUCCESS)
}

/// Prints to standard error, if standard output gets the backup.
fn eprint(text: &str) {
    // An error is ignored: if standard error is closed, it can't be reported.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes the backup, and returns the text about it.
fn write(args: &Args, config: &Config) -> Result<String, CliError> {
    let began = Instant::now();
    let failed = |error: &dyn std::fmt::Display| CliError::Failure(error.to_string());
    if args.check {
        let contents = Contents::read(&args.file, false).map_err(|error| failed(&error))?;
        return Ok(tell(args, &contents, began, &[]));
    }
    if !args.force && args.file.exists() {
        return Err(failed(&store::BackupError::Exists(args.file.clone())));
    }
    let beside = beside(config);
    let elsewhere = beside.elsewhere.clone();
    // The order matters: nothing after the store's part of the backup may lose its marker.
    let hold = Hold::begin(config)?;
    let backup = Backup::begin(&config.store.path, beside, daemon::env().now());
    let backup = backup.map_err(|error| failed(&error))?;
    let hold = hold.unless_idle(&args.command);
    let command = Copying::begin(&args.command)?;
    let written = std::thread::scope(|scope| {
        let writing = scope.spawn(|| backup.write(&args.file, args.force));
        let copied = command.wait(hold);
        let written = writing
            .join()
            .map_err(|_| failed(&"the backup failed because of a defect in posthouse; please report it"))?;
        copied.and(written.map_err(|error| failed(&error)))
    })?;
    let contents = written.put_in_place().map_err(|error| failed(&error))?;
    let missing = if args.command.is_empty() { elsewhere } else { Vec::new() };
    Ok(tell(args, &contents, began, &missing))
}

/// The contents of a backup, as JSON.
pub(super) fn shape(contents: &Contents) -> Value {
    let Contents { made_at, program, schema, events, newest, unfinished, databases, elsewhere } = contents;
    json!({
        "made_at": made_at,
        "program": program,
        "schema": schema,
        "events": events,
        "newest": newest,
        "unfinished": unfinished,
        "databases": databases,
        "elsewhere": elsewhere,
    })
}

/// The text that says that a backup is complete, and lists its contents. `missing` are databases that it does
/// not contain and that should be copied.
fn tell(args: &Args, contents: &Contents, began: Instant, missing: &[String]) -> String {
    let bytes = std::fs::metadata(&args.file).map(|file| file.len()).unwrap_or_default();
    if args.json {
        let mut told = shape(contents);
        told["file"] = json!(args.file);
        told["bytes"] = json!(bytes);
        told["seconds"] = json!(began.elapsed().as_secs_f64());
        return table::json_lines([&told]);
    }
    let mut text = format!("`{}` is complete and checked\n", shown(&args.file));
    text += &facts(contents, &format!("{}, in {:.1} s", ByteSize(bytes), began.elapsed().as_secs_f64()));
    for name in missing {
        text += &format!(
            "database `{}` is not in the backup; copy it with its own tools in the same run: posthouse backup FILE -- COMMAND\n",
            table::clean(name)
        );
    }
    text
}

/// The contents of a backup, one fact a line.
pub(super) fn facts(contents: &Contents, size: &str) -> String {
    let events = match contents.newest {
        Some(newest) => format!("{}, the newest from {}", contents.events, time(newest)),
        None => contents.events.to_string(),
    };
    let databases = contents.databases.iter().map(|(name, bytes)| format!("{name} ({})", ByteSize(*bytes)));
    table::facts(&[
        ("made", contents.made_at.map(time).unwrap_or_default()),
        ("by", contents.program.as_ref().map(|version| format!("posthouse {version}")).unwrap_or_default()),
        ("events", events),
        ("deliveries", format!("{} unfinished", contents.unfinished)),
        ("databases", databases.collect::<Vec<_>>().join(", ")),
        ("size", size.to_owned()),
    ])
}

/// The databases in config.toml.
fn beside(config: &Config) -> PluginDatabases {
    let mut beside = PluginDatabases::default();
    for (name, settings) in &config.databases {
        match &settings.target {
            DatabaseTarget::Sqlite(path) => beside.files.push((name.clone(), path.clone())),
            DatabaseTarget::Postgres(_) => beside.elsewhere.push(name.clone()),
        }
    }
    beside
}

/// While this exists, no marker is removed. Either the daemon was asked to keep them, or no daemon runs and
/// none can start.
enum Hold {
    Idle { _out: Option<KeptOut> },
    Daemon { client: Box<Client>, holder: String, asked: Instant },
}

impl Hold {
    fn begin(config: &Config) -> Result<Self, CliError> {
        let path = &config.store.path;
        let locked = store::keep_out(path).map_err(|error| {
            CliError::Failure(format!("the lock of the store `{}` can't be read: {error}", path.display()))
        })?;
        if locked.is_some() {
            return Ok(Self::Idle { _out: locked });
        }
        let holder = format!("backup-{:016x}", daemon::env().random_u64());
        match Client::new(config).and_then(|client| hold(&client, &holder, HOLD).map(|_| client)) {
            Ok(client) => Ok(Self::Daemon { client: Box::new(client), holder, asked: Instant::now() }),
            // Without databases there are no markers.
            Err(_) if config.databases.is_empty() => Ok(Self::Idle { _out: None }),
            Err(error) => Err(CliError::Failure(format!(
                "the daemon must keep markers while its databases are copied, but the request to it failed: {error}"
            ))),
        }
    }

    /// Without a command everything is copied from files, so the store may be opened as soon as the files are
    /// open.
    fn unless_idle(self, command: &[String]) -> Self {
        match self {
            Self::Idle { .. } if command.is_empty() => Self::Idle { _out: None },
            hold => hold,
        }
    }

    /// Repeats the request after this time.
    fn again(&mut self, time: Duration) -> Result<(), CliError> {
        match self {
            Self::Daemon { client, holder, asked } if asked.elapsed() >= time => {
                *asked = Instant::now();
                held(hold(client, holder, HOLD)?)
            }
            _ => Ok(()),
        }
    }

    fn end(self) -> Result<(), CliError> {
        match self {
            Self::Daemon { client, holder, .. } => {
                // Without this request, the daemon releases them automatically.
                let _ = hold(&client, &holder, 0);
                Ok(())
            }
            Self::Idle { .. } => Ok(()),
        }
    }
}

fn hold(client: &Client, holder: &str, seconds: u64) -> Result<bool, CliError> {
    let answer = client.post("/v1/markers/hold", &json!({ "holder": holder, "seconds": seconds }))?;
    table::read(&answer["kept"])
}

fn held(kept: bool) -> Result<(), CliError> {
    if kept {
        return Ok(());
    }
    let reason = "the daemon restarted during the backup, so the copies may lack markers; there is no backup; \
                  run the command again";
    Err(CliError::Failure(reason.to_owned()))
}

/// The command that copies databases with their own tools.
struct Copying(Option<(String, Child)>);

impl Copying {
    fn begin(command: &[String]) -> Result<Self, CliError> {
        let Some((program, arguments)) = command.split_first() else { return Ok(Self(None)) };
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .spawn()
            .map_err(|error| CliError::Failure(format!("`{program}` can't be run: {error}")))?;
        Ok(Self(Some((program.clone(), child))))
    }

    /// Waits for the command, and keeps markers until it ends.
    fn wait(self, mut hold: Hold) -> Result<(), CliError> {
        let Some((program, mut child)) = self.0 else {
            // The files are open already.
            return hold.end();
        };
        let failed =
            |said: String| CliError::Failure(format!("`{program}` failed ({said}); there is no backup"));
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => hold.again(AGAIN)?,
                Err(error) => return Err(failed(error.to_string())),
            }
            std::thread::sleep(LOOK);
        };
        if !status.success() {
            return Err(failed(status.to_string()));
        }
        hold.again(Duration::ZERO)?;
        hold.end()
    }
}

/// The destinations of the databases' files.
pub(super) fn places(config: &Config) -> std::collections::BTreeMap<String, PathBuf> {
    beside(config).files.into_iter().collect()
}

/// A path, escaped for a terminal.
pub(super) fn shown(path: &Path) -> String {
    table::clean(&path.display().to_string())
}
