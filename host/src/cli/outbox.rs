//! `posthouse outbox`: mail and requests on their way and given up; `posthouse outbox replay`: the latter
//! again.

use std::process::ExitCode;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{
    CliError,
    client::Client,
    table::{self, clean, time},
};
use crate::{admin, config::Config};

/// List the outbox, newest first, or send again what was given up.
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
    /// Send again what was given up, with the Message-ID or Idempotency-Key it had.
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only those in this state.
    #[arg(long, value_parser = admin::OUTBOX_STATES)]
    state: Option<String>,
    /// The most items.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// Which items; all that were given up where none is named.
    #[arg(value_name = "ITEM")]
    items: Vec<i64>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// An item as the daemon shows it.
#[derive(Deserialize)]
pub(super) struct Item {
    pub(super) id: i64,
    delivery: String,
    pub(super) kind: String,
    pub(super) summary: String,
    state: String,
    attempts: u32,
    due_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    error: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] where the daemon does not answer.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = Client::new(config)?;
    match args.command {
        Some(Command::Replay(asked)) => replay(&client, &asked),
        None => list(&client, args.list),
    }
}

fn list(client: &Client, asked: List) -> Result<ExitCode, CliError> {
    let rows = client.list("outbox", &[("state", asked.state)], "id", asked.limit)?;
    if asked.json {
        return table::print(&table::json_lines(&rows));
    }
    let items: Vec<Item> = rows.iter().map(table::read).collect::<Result<_, _>>()?;
    let cells = items
        .iter()
        .map(|item| vec![item.id.to_string(), item.kind.clone(), item.delivery.clone(), item.standing()]);
    let titles = ["item!", "kind", "delivery!", "state"];
    let notes: Vec<_> = items.iter().map(Item::note).collect();
    table::print(&table::page_with_notes(&titles, cells.collect(), &notes, asked.limit, "items"))
}

fn replay(client: &Client, asked: &Replay) -> Result<ExitCode, CliError> {
    let body = if asked.items.is_empty() { json!({ "dead": true }) } else { json!({ "items": asked.items }) };
    let answer = client.post("/v1/outbox/replay", &body)?;
    if asked.json {
        return table::print(&table::json_lines([&answer]));
    }
    let count: u64 = table::read(&answer["count"])?;
    table::print(&match count {
        0 => "nothing there was given up\n".to_owned(),
        1 => "1 item is sent again\n".to_owned(),
        count => format!("{count} items are sent again\n"),
    })
}

impl Item {
    /// Its state, with how often and when.
    pub(super) fn standing(&self) -> String {
        let mut text = clean(&self.state);
        match self.attempts {
            0 => {}
            1 => text += ", tried once",
            2 => text += ", tried twice",
            attempts => text += &format!(", tried {attempts} times"),
        }
        match (self.finished_at, self.due_at) {
            (Some(at), _) => text += &format!(", {}", time(at)),
            (None, Some(due)) if self.attempts > 0 => text += &format!(", again {}", time(due)),
            _ => {}
        }
        text
    }

    /// What it is, and what went wrong.
    pub(super) fn note(&self) -> String {
        match &self.error {
            Some(error) if self.state != "sent" => format!("{}: {error}", self.summary),
            _ => self.summary.clone(),
        }
    }
}
