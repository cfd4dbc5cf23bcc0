//! `posthouse doctor`: looks at everything that posthouse needs, and says what to do.
//!
//! Each check has a thread and a time of its own, so that one that hangs (a mail server, a network file
//! system) holds up no other. Nothing is changed but a file that is made and removed to see whether a folder
//! takes one. It works beside a daemon, whose store it reads as any reader does, and without one.
//!
//! ```text
//! machine    the clock, the disk, permissions, limits
//! secrets    what everybody knows, what is missing, what is too short
//! keeping    the store and the databases
//! reaching   the mail server, certificates, the daemon
//! plugins    what does not run, and why
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

use serde::Serialize;
use serde_json::json;

use super::{CliError, load, table};
use crate::config::{Config, ConfigError, Loaded, Secrets};

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long each check may take, in seconds; a large store needs more to be read whole.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
struct Found {
    check: &'static str,
    level: Level,
    what: String,
    /// The way out.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

/// Collects what one check finds.
struct Notes {
    check: &'static str,
    patience: Duration,
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

/// What the checks look at.
struct Patient {
    config: Config,
    /// What config.toml lacks on this machine, such as a variable that is not set.
    lacks: Vec<String>,
    /// What deserves a look in config.toml.
    warnings: Vec<String>,
}

type Check = (&'static str, fn(&Patient, &mut Notes));

/// Every check, in the order in which they are told.
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

/// Exit code 0 where there is no problem, 1 where there is, 78 where config.toml can't be read.
///
/// # Errors
/// [`CliError`] where config.toml can't be read.
pub fn run(args: Args, path: &Path) -> Result<ExitCode, CliError> {
    let patient = Arc::new(patient(path)?);
    let patience = Duration::from_secs(args.patience);
    let mut waiting = Vec::new();
    for (name, check) in CHECKS {
        let (told, hears) = mpsc::channel();
        let patient = Arc::clone(&patient);
        // A thread that hangs is left behind; the process ends without it.
        std::thread::spawn(move || {
            let mut notes = Notes { check: name, patience, found: Vec::new() };
            check(&patient, &mut notes);
            let _ = told.send(notes.found);
        });
        waiting.push((name, hears));
    }
    // A little more than a check has for itself, in which it tells by itself what took so long.
    let until = Instant::now() + patience + Duration::from_secs(2);
    let mut problems = 0;
    for (check, hears) in waiting {
        let found =
            hears.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or_else(|_| {
                vec![Found {
                    check,
                    level: Level::Problem,
                    what: format!("did not end within {patience:?}"),
                    todo: Some("see what it waits for, or give it longer with --patience".to_owned()),
                }]
            });
        for found in found {
            problems += usize::from(found.level == Level::Problem);
            table::print(&if args.json { table::json_lines([&json!(found)]) } else { found.line() })?;
        }
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// config.toml with all its secrets; where those can't be had, without them.
fn patient(path: &Path) -> Result<Patient, CliError> {
    let (loaded, lacks) = match load(path, Secrets::All) {
        Ok(loaded) => (loaded, Vec::new()),
        Err(ConfigError::Wrong(findings)) => match load(path, Secrets::OfAdmin) {
            Ok(loaded) => (loaded, findings.iter().map(ToString::to_string).collect()),
            Err(error) => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    };
    let Loaded { config, warnings, .. } = loaded;
    Ok(Patient { config, lacks, warnings: warnings.iter().map(ToString::to_string).collect() })
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
