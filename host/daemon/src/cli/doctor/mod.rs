//! `posthouse doctor`: checks everything that posthouse needs, and says what to do.
//!
//! Each check has its own thread and time limit, so that one that hangs (a mail server, a network file
//! system) delays no other. Checks change nothing. They only create and remove a file, to see whether a
//! folder is writable. The command works without a daemon, and beside one: it reads the store as any reader
//! does.
//!
//! ```text
//! machine    the clock, the disk, permissions, limits
//! secrets    default secrets, missing ones, short ones
//! keeping    the store and the databases
//! reaching   the mail server, certificates, the daemon
//! plugins    which do not run, and why
//! ```

mod keeping;
mod machine;
mod plugins;
mod reaching;
mod secrets;

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use posthouse_model::config::{Config, ConfigError, Loaded, Secrets};
use serde::Serialize;
use serde_json::json;

use super::{CliError, load, table};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The time limit of each check, in seconds; reading a large store completely takes longer.
    #[arg(
        long,
        alias = "patience",
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    timeout: u64,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// A finding of a check.
#[derive(Debug, Clone, Serialize)]
struct Found {
    check: &'static str,
    level: Level,
    what: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

/// Collects the findings of one check.
struct Notes {
    check: &'static str,
    /// The time limit of the check.
    timeout: Duration,
    found: Vec<Found>,
}

impl Notes {
    fn ok(&mut self, what: impl Into<String>) {
        self.note(Level::Ok, what.into(), None);
    }

    fn warning(&mut self, what: impl Into<String>, todo: impl Into<String>) {
        self.note(Level::Warning, what.into(), Some(todo.into()));
    }

    fn problem(&mut self, what: impl Into<String>, todo: impl Into<String>) {
        self.note(Level::Problem, what.into(), Some(todo.into()));
    }

    fn note(&mut self, level: Level, what: String, todo: Option<String>) {
        self.found.push(Found { check: self.check, level, what, todo });
    }
}

/// The input of the checks.
struct Context {
    config: Config,
    /// What config.toml refers to and this machine lacks, such as a variable that is not set.
    lacks: Vec<String>,
    /// Warnings about config.toml.
    warnings: Vec<String>,
}

type Check = (&'static str, fn(&Context, &mut Notes));

/// Every check, in the order of the output.
const CHECKS: [Check; 12] = [
    ("config", secrets::config),
    ("secrets", secrets::secrets),
    ("clock", machine::clock),
    ("disk", machine::disk),
    ("permissions", machine::permissions),
    ("limits", machine::limits),
    ("store", keeping::store),
    ("databases", keeping::databases),
    ("mail", reaching::mail),
    ("http", reaching::http),
    ("daemon", reaching::daemon),
    ("plugins", plugins::plugins),
];

/// Returns exit code 0 if there is no problem, 1 if there is one, 78 if config.toml can't be read.
///
/// # Errors
/// [`CliError`] if config.toml can't be read.
pub fn run(args: Args, path: &Path) -> Result<ExitCode, CliError> {
    let context = Arc::new(context(path)?);
    let timeout = Duration::from_secs(args.timeout);
    let mut running = Vec::new();
    for (name, check) in CHECKS {
        let (sender, receiver) = mpsc::channel();
        let context = Arc::clone(&context);
        // If the thread hangs, the process ends without it.
        std::thread::spawn(move || {
            let mut notes = Notes { check: name, timeout, found: Vec::new() };
            check(&context, &mut notes);
            let _ = sender.send(notes.found);
        });
        running.push((name, receiver));
    }
    // A little more than a check's own limit, so that the check itself can report what took too long.
    let until = Instant::now() + timeout + Duration::from_secs(2);
    let mut problems = 0;
    for (check, receiver) in running {
        let found =
            receiver.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or_else(|_| {
                vec![Found {
                    check,
                    level: Level::Problem,
                    what: format!("the check did not finish within {timeout:?}"),
                    todo: Some("find what it waits for, or allow more time with --timeout".to_owned()),
                }]
            });
        for found in found {
            problems += usize::from(found.level == Level::Problem);
            table::print(&if args.json { table::json_lines([&json!(found)]) } else { found.line() })?;
        }
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Loads config.toml with all its secrets, or without them if that fails.
fn context(path: &Path) -> Result<Context, CliError> {
    let (loaded, lacks) = match load(path, Secrets::All) {
        Ok(loaded) => (loaded, Vec::new()),
        Err(ConfigError::Wrong(findings)) => match load(path, Secrets::OfAdmin) {
            Ok(loaded) => (loaded, findings.iter().map(ToString::to_string).collect()),
            Err(error) => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    };
    let Loaded { config, warnings, .. } = loaded;
    Ok(Context { config, lacks, warnings: warnings.iter().map(ToString::to_string).collect() })
}

impl Found {
    fn line(&self) -> String {
        let level = match self.level {
            Level::Ok => "ok     ",
            Level::Warning => "warning",
            Level::Problem => "problem",
        };
        let todo = self.todo.as_ref().map(|todo| format!("; {todo}")).unwrap_or_default();
        format!("{level}  {}: {}\n", self.check, table::clean(&format!("{}{todo}", self.what)))
    }
}
