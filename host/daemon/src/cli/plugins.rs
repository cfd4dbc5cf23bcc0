//! `posthouse plugins`: the state of each plugin, and an operator's actions on one.

use std::{collections::BTreeMap, process::ExitCode};

use bytesize::ByteSize;
use jiff::Timestamp;
use posthouse_model::{config::Config, counted, turn};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CliError,
    client::{Client, segment},
    complain,
    table::{self, clean, clean_lines, counts, time},
};

/// The number of digits of a revision's SHA-256 that a list shows.
const SHORT: usize = 12;

/// List plugins; show, pause, resume or forget one.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show everything about one plugin.
    Show(Named),
    /// Pause a plugin: its deliveries are held, and events are still accepted.
    Pause(Named),
    /// Resume a plugin: its held deliveries run.
    Resume(Named),
    /// Remove a plugin whose file is gone, with its keys and values; its unfinished deliveries become dead letters.
    Forget(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// The plugin: the name of its file without `.wasm`.
    name: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Plugin {
    name: String,
    state: String,
    reason: Option<String>,
    revision: Option<String>,
    description: String,
    events: Vec<String>,
    requires: Vec<String>,
    lacks: Vec<String>,
    grants: Value,
    last_error: Option<String>,
    loaded_at: Option<Timestamp>,
    made: u64,
    deliveries: Option<BTreeMap<String, u64>>,
    oldest_open: Option<Timestamp>,
    #[serde(default)]
    replays_waiting: u64,
    settings: Settings,
    #[serde(default)]
    revisions: Vec<Revision>,
    breaker: Breaker,
}

/// A file in the plugins folder that is not a plugin.
#[derive(Deserialize)]
struct Ignored {
    file: String,
    reason: String,
}

impl Ignored {
    fn text(&self) -> String {
        format!("ignored in the plugins folder: `{}`: {}", clean(&self.file), clean(&self.reason))
    }
}

#[derive(Deserialize)]
struct Revision {
    sha256: String,
    loaded_at: Timestamp,
    ended_at: Option<Timestamp>,
    ending: Option<String>,
}

#[derive(Deserialize)]
struct Breaker {
    state: String,
    failures_in_a_row: u64,
    failures: u64,
    pause: String,
    max_pause: String,
}

#[derive(Deserialize)]
struct Rate {
    per_second: f64,
    burst: u32,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    component: Option<String>,
    #[serde(default)]
    rate: Option<Rate>,
    concurrency: u64,
    reuse: u64,
    #[serde(default)]
    order_by: Option<String>,
    attempts: u64,
    time: String,
    memory: u64,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if the daemon does not answer, or has no such plugin.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = Client::new(config)?;
    match args.command {
        None => list(&client, args.json),
        Some(Command::Show(asked)) => show(&client, &asked),
        Some(Command::Pause(asked)) => act(&client, &asked, "pause", |name| {
            format!("`{name}` is paused; `posthouse plugins resume {name}` resumes it\n")
        }),
        Some(Command::Resume(asked)) => {
            act(&client, &asked, "resume", |name| format!("`{name}` is resumed\n"))
        }
        Some(Command::Forget(asked)) => act(&client, &asked, "forget", |name| {
            format!("`{name}` is forgotten; its unfinished deliveries are dead letters\n")
        }),
    }
}

fn list(client: &Client, json: bool) -> Result<ExitCode, CliError> {
    let answer = client.get("/v1/plugins", &[])?;
    let rows = answer["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ignored: Vec<Ignored> = answer.get("ignored").map(table::read).transpose()?.unwrap_or_default();
    if json {
        // Each line of JSON is a plugin, and these are not plugins.
        ignored.iter().for_each(|file| complain(&format!("warning: {}", file.text())));
        return table::print(&table::json_lines(rows));
    }
    let plugins: Vec<Plugin> = rows.iter().map(table::read).collect::<Result<_, _>>()?;
    let cells = plugins.iter().map(|plugin| {
        let revision = plugin.revision.as_deref().unwrap_or("-");
        vec![
            plugin.name.clone(),
            plugin.state.clone(),
            revision.chars().take(SHORT).collect(),
            plugin.events.join(" "),
            plugin.deliveries(),
        ]
    });
    let titles = ["plugin!", "state!", "revision!", "events", "deliveries"];
    let why = |plugin: &Plugin| plugin.reason.clone().or_else(|| plugin.last_error.clone());
    let notes: Vec<_> = plugins.iter().map(|plugin| why(plugin).unwrap_or_default()).collect();
    let mut text = table::page_with_notes(&titles, cells.collect(), &notes, usize::MAX, "plugin");
    for file in &ignored {
        text += &clean_lines(&file.text(), 0);
    }
    table::print(&text)
}

fn show(client: &Client, asked: &Named) -> Result<ExitCode, CliError> {
    let answer = client.get(&format!("/v1/plugins/{}", segment(&asked.name)), &[])?;
    if asked.json {
        return table::print(&table::json_lines([&answer]));
    }
    let plugin = table::read::<Plugin>(&answer)?;
    table::print(&(plugin.facts() + &plugin.history()))
}

fn act(
    client: &Client,
    asked: &Named,
    action: &str,
    said: impl Fn(&str) -> String,
) -> Result<ExitCode, CliError> {
    let answer = client.post(&format!("/v1/plugins/{}/{action}", segment(&asked.name)), &json!({}))?;
    if asked.json {
        return table::print(&table::json_lines([&answer]));
    }
    let mut text = said(&clean(&asked.name));
    // After `resume`, the plugin may still be held for another reason.
    if let Some(reason) = answer["reason"].as_str().filter(|_| action == "resume") {
        text += &format!("it is still held: {}\n", clean(reason));
    }
    table::print(&text)
}

impl Breaker {
    fn text(&self) -> String {
        let Self { state, failures_in_a_row, failures, pause, max_pause } = self;
        match failures {
            0 => "off".to_owned(),
            _ => format!(
                "{state}; {failures_in_a_row} of {failures} deliveries failed in a row, pauses of {pause} to \
                 {max_pause}"
            ),
        }
    }
}

impl Plugin {
    fn deliveries(&self) -> String {
        self.deliveries.as_ref().map_or_else(|| "none".to_owned(), counts)
    }

    /// Its revisions, one a line, if it has had more than one.
    fn history(&self) -> String {
        let mut text = String::new();
        for revision in self.revisions.iter().filter(|_| self.revisions.len() > 1) {
            let sha256: String = revision.sha256.chars().take(SHORT).collect();
            let until = revision.ended_at.map_or_else(|| "now".to_owned(), time);
            let ending = revision.ending.as_deref().unwrap_or("serving");
            text += &format!(
                "  {}  {} to {until}: {}\n",
                clean(&sha256),
                time(revision.loaded_at),
                clean(ending)
            );
        }
        if text.is_empty() { text } else { format!("revisions\n{text}") }
    }

    fn replays(&self) -> String {
        match self.replays_waiting {
            0 => String::new(),
            waiting => format!("{waiting} of these {}", turn(waiting)),
        }
    }

    fn facts(&self) -> String {
        let Settings { component, rate, concurrency, reuse, order_by, attempts, time: limit, memory } =
            &self.settings;
        let grants = self.grants.as_object().filter(|grants| !grants.is_empty());
        let state = match &self.reason {
            Some(reason) => format!("{}: {reason}", self.state),
            None => self.state.clone(),
        };
        table::facts(&[
            ("plugin", self.name.clone()),
            ("description", self.description.clone()),
            ("state", state),
            ("last error", self.last_error.clone().unwrap_or_default()),
            ("component", component.as_ref().map(|name| format!("{name}.wasm")).unwrap_or_default()),
            ("revision", self.revision.clone().unwrap_or_else(|| "none".to_owned())),
            ("loaded", self.loaded_at.map(time).unwrap_or_default()),
            ("events", self.events.join(" ")),
            ("requires", self.requires.join(" ")),
            ("lacks", self.lacks.join(" ")),
            ("grants", grants.map_or_else(|| "none".to_owned(), |_| self.grants.to_string())),
            (
                "concurrency",
                format!(
                    "{} at once, {} per instance",
                    counted(*concurrency, "attempt"),
                    counted(*reuse, "attempt")
                ),
            ),
            ("order by", order_by.clone().unwrap_or_default()),
            (
                "rate",
                rate.as_ref()
                    .map(|Rate { per_second, burst }| {
                        format!("{per_second} attempts a second, {burst} at once after a rest")
                    })
                    .unwrap_or_default(),
            ),
            ("attempts", format!("{attempts}, of {limit} and {} each", ByteSize(*memory))),
            ("breaker", self.breaker.text()),
            ("deliveries", format!("{} created: {}", self.made, self.deliveries())),
            ("replays", self.replays()),
            ("unfinished", self.oldest_open.map(|at| format!("since {}", time(at))).unwrap_or_default()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_plugin_says_why_and_what_it_lacks() {
        let plugin: Plugin = table::read(&json!({
            "name": "welcome", "state": "held", "held": {"reason": "lacks-grant", "detail": "mail = …"},
            "reason": "lacks a grant: mail = …", "paused": false, "revision": "ab".repeat(32),
            "description": "sends mail", "events": ["user.*"], "requires": ["mail"], "lacks": ["mail"],
            "grants": {}, "last_error": null, "loaded_at": "2026-03-01T12:00:00Z", "made": 3,
            "deliveries": {"held": 3, "done": 0}, "oldest_open": "2026-03-01T12:00:00Z",
            "settings": {"concurrency": 8, "reuse": 1, "attempts": 4, "time": "8s", "memory": 67_108_864},
            "breaker": {"state": "closed", "failures_in_a_row": 3, "failures": 20, "pause": "30s", "max_pause": "10m"},
        }))
        .unwrap();
        let text = plugin.facts();
        for part in [
            "held: lacks a grant: mail",
            "3 created: 3 held",
            "4, of 8s and 64.0 MiB each",
            "grants       none",
            "closed; 3 of 20 deliveries failed in a row",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("last error"), "{text}");
    }
}
