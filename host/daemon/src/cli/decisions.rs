//! `posthouse decisions`: what interceptors answered, newest first. `posthouse decisions show ID`: everything about one.

use std::process::ExitCode;

use jiff::Timestamp;
use posthouse_model::{DecisionState, config::Config};
use serde::Deserialize;
use serde_json::Value;

use super::{
    CliError,
    client::{Client, segment},
    table::{self, time},
};

use crate::admin::Since;

/// List what interceptors answered, newest first; show one decision.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show one decision: the request, the answer, what the plugin did.
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only decisions of this interceptor.
    #[arg(long, value_name = "NAME")]
    interceptor: Option<String>,
    /// Only decisions in this state.
    #[arg(long, value_parser = state())]
    state: Option<String>,
    /// Only what the plugin decided so.
    #[arg(long, value_parser = ["ALLOW", "DENY"], ignore_case = true)]
    decision: Option<String>,
    /// Only requests since this time: `2h`, `7d`, `today`, `2026-11-30`, `"2026-11-30 14:00"` (UTC), RFC 3339 or seconds
    /// since 1970.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// The maximum number of decisions to list.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

fn state() -> clap::builder::PossibleValuesParser {
    DecisionState::ALL.map(DecisionState::as_str).into()
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The sender's id of the request, or the id of the decision.
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// A decision as the daemon returns it.
#[derive(Deserialize)]
struct Decision {
    id: String,
    interceptor: String,
    request: String,
    trigger: String,
    plugin: Option<String>,
    organization: Option<String>,
    state: String,
    decision: Option<String>,
    answer: Option<String>,
    cause: Option<String>,
    late: bool,
    received_at: Timestamp,
    took_us: Option<u64>,
    error: Option<String>,
    #[serde(default)]
    revision: Option<String>,
    #[serde(default)]
    trace: Option<String>,
    #[serde(default)]
    logs: Vec<Line>,
    #[serde(default)]
    actions: Vec<String>,
    #[serde(default)]
    body: String,
}

#[derive(Deserialize)]
struct Line {
    level: String,
    message: String,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if the daemon does not answer.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = Client::new(config)?;
    match args.command {
        Some(Command::Show(asked)) => show(&client, &asked),
        None => list(&client, args.list),
    }
}

fn list(client: &Client, asked: List) -> Result<ExitCode, CliError> {
    let query = [
        ("interceptor", asked.interceptor),
        ("state", asked.state),
        ("decision", asked.decision.map(|word| word.to_ascii_uppercase())),
        ("since", asked.since.map(String::from)),
    ];
    let rows = client.list("decisions", &query, "id", asked.limit)?;
    if asked.json {
        return table::print(&table::json_lines(&rows));
    }
    let decisions: Vec<Decision> = rows.iter().map(table::read).collect::<Result<_, _>>()?;
    let cells = decisions.iter().map(|one| {
        vec![
            time(one.received_at),
            one.interceptor.clone(),
            one.trigger.clone(),
            one.word(),
            one.took(),
            one.request.clone(),
        ]
    });
    let titles = ["received!", "interceptor", "trigger", "decision!", "took!", "request!"];
    let notes: Vec<_> = decisions.iter().map(|one| one.error.clone().unwrap_or_default()).collect();
    table::print(&table::page_with_notes(&titles, cells.collect(), &notes, asked.limit, "decision"))
}

fn show(client: &Client, asked: &Show) -> Result<ExitCode, CliError> {
    let mut answer = client.get(&format!("/v1/decisions/{}", segment(&asked.id)), &[])?;
    let rows: Vec<Value> = answer["decisions"].as_array_mut().map(std::mem::take).unwrap_or_default();
    if asked.json {
        return table::print(&table::json_lines(&rows));
    }
    let decisions: Vec<Decision> = rows.iter().map(table::read).collect::<Result<_, _>>()?;
    table::print(&decisions.iter().map(Decision::facts).collect::<Vec<_>>().join("\n"))
}

impl Decision {
    /// What the plugin decided, or why it did not.
    fn word(&self) -> String {
        let word = self.decision.as_deref().or(self.cause.as_deref()).unwrap_or(&self.state);
        if self.late { format!("{word}, late") } else { word.to_owned() }
    }

    fn took(&self) -> String {
        self.took_us.map_or_else(|| "-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1000.0))
    }

    fn facts(&self) -> String {
        let logs: Vec<_> = self.logs.iter().map(|line| format!("{}: {}", line.level, line.message)).collect();
        table::facts(&[
            ("request", self.request.clone()),
            ("decision", self.id.clone()),
            ("interceptor", self.interceptor.clone()),
            ("trigger", self.trigger.clone()),
            ("organization", self.organization.clone().unwrap_or_default()),
            ("plugin", self.plugin.clone().unwrap_or_default()),
            ("revision", self.revision.clone().unwrap_or_default()),
            ("received", time(self.received_at)),
            ("state", self.state.clone()),
            ("decided", self.word()),
            ("took", self.took()),
            ("answer", self.answer.clone().unwrap_or_default()),
            ("reason", self.error.clone().unwrap_or_default()),
            ("actions", self.actions.join("; ")),
            ("log", logs.join("; ")),
            ("trace", self.trace.clone().unwrap_or_default()),
            ("body", self.body.clone()),
        ])
    }
}
