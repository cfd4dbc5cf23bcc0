//! `posthouse outbox`: mails and requests that were sent, are on their way or were given up.
//! `posthouse outbox show ID`: everything about one. `posthouse outbox replay`: sends those again that were
//! given up.

use std::process::ExitCode;

use jiff::Timestamp;
use posthouse_model::{OutboxState, config::Config, counted};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CliError,
    client::{Client, segment},
    table::{self, clean, maybe_time, time},
};

/// List the mails and requests in the outbox, newest first; show one; send dead ones again.
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
    /// Show one item, or all items of one delivery.
    Show(Show),
    /// Send dead items again, with the same Message-ID or Idempotency-Key.
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only items in this state.
    #[arg(long, value_parser = state())]
    state: Option<String>,
    /// The maximum number of items to list.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

fn state() -> clap::builder::PossibleValuesParser {
    OutboxState::ALL.map(OutboxState::as_str).into()
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The number of the item, its Message-ID or Idempotency-Key, or the id of a delivery.
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// The items: numbers, Message-IDs, Idempotency-Keys or ids of deliveries. Without any, all dead items.
    #[arg(value_name = "ID")]
    items: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// An item as the daemon returns it.
#[derive(Deserialize)]
pub(super) struct Item {
    pub(super) id: i64,
    delivery: String,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    plugin: Option<String>,
    pub(super) kind: String,
    pub(super) summary: String,
    #[serde(default)]
    key: Option<String>,
    state: String,
    attempts: u32,
    #[serde(default)]
    staged_at: Option<Timestamp>,
    due_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    error: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if the daemon does not answer.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = Client::new(config)?;
    match args.command {
        Some(Command::Show(asked)) => show(&client, &asked),
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
    let cells = items.iter().map(|item| {
        vec![
            item.id.to_string(),
            item.kind.clone(),
            item.state.clone(),
            item.attempts.to_string(),
            maybe_time(item.staged_at),
            item.next_attempt().map_or_else(|| maybe_time(item.finished_at), time),
            item.event.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let titles = ["item!", "kind!", "state!", "attempts!", "staged!", "finished or due!", "event"];
    let notes: Vec<_> = items.iter().map(Item::note).collect();
    table::print(&table::page_with_notes(&titles, cells.collect(), &notes, asked.limit, "item"))
}

/// The items that an id selects, as the daemon returns them.
fn named(client: &Client, id: &str) -> Result<Vec<Value>, CliError> {
    let mut answer = client.get(&format!("/v1/outbox/{}", segment(id)), &[])?;
    Ok(answer["outbox"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

fn show(client: &Client, asked: &Show) -> Result<ExitCode, CliError> {
    let rows = named(client, &asked.id)?;
    if asked.json {
        return table::print(&table::json_lines(&rows));
    }
    let items: Vec<Item> = rows.iter().map(table::read).collect::<Result<_, _>>()?;
    table::print(&items.iter().map(Item::facts).collect::<Vec<_>>().join("\n"))
}

fn replay(client: &Client, asked: &Replay) -> Result<ExitCode, CliError> {
    let mut items = Vec::new();
    for id in &asked.items {
        match id.parse::<i64>() {
            Ok(number) => items.push(number),
            Err(_) => items.extend(given_up(client, id)?),
        }
    }
    let body = if items.is_empty() { json!({ "dead": true }) } else { json!({ "items": items }) };
    let answer = client.post("/v1/outbox/replay", &body)?;
    if asked.json {
        return table::print(&table::json_lines([&answer]));
    }
    let count: u64 = table::read(&answer["count"])?;
    table::print(&match count {
        0 => "there are no dead items to send again\n".to_owned(),
        count => format!("{} will be sent again\n", counted(count, "item")),
    })
}

/// Of the items that an id selects, those that were given up.
fn given_up(client: &Client, id: &str) -> Result<Vec<i64>, CliError> {
    let items: Vec<Item> = named(client, id)?.iter().map(table::read).collect::<Result<_, _>>()?;
    let dead: Vec<_> =
        items.iter().filter(|item| item.state == OutboxState::Dead.as_str()).map(|item| item.id).collect();
    if dead.is_empty() {
        let states: Vec<_> =
            items.iter().map(|item| format!("item {} is {}", item.id, clean(&item.state))).collect();
        return Err(CliError::Failure(format!("`{}` has no dead item: {}", clean(id), states.join(", "))));
    }
    Ok(dead)
}

impl Item {
    /// The time of its next attempt. None for an item that is finished, or had no attempt yet.
    fn next_attempt(&self) -> Option<Timestamp> {
        self.due_at.filter(|_| self.finished_at.is_none() && self.attempts > 0)
    }

    fn facts(&self) -> String {
        let dead = self.state == OutboxState::Dead.as_str();
        let again = if dead { format!("posthouse outbox replay {}", self.id) } else { String::new() };
        table::facts(&[
            ("item", self.id.to_string()),
            ("kind", self.kind.clone()),
            ("summary", self.summary.clone()),
            ("key", self.key.clone().unwrap_or_default()),
            ("state", self.state.clone()),
            ("attempts", self.attempts.to_string()),
            ("reason", self.error.clone().unwrap_or_default()),
            ("staged", self.staged_at.map(time).unwrap_or_default()),
            ("next attempt", self.next_attempt().map(time).unwrap_or_default()),
            ("finished", self.finished_at.map(time).unwrap_or_default()),
            ("plugin", self.plugin.clone().unwrap_or_default()),
            ("delivery", self.delivery.clone()),
            ("event", self.event.clone().unwrap_or_default()),
            ("source", self.source.clone().unwrap_or_default()),
            ("send again", again),
        ])
    }

    /// Its state, with the number of attempts and the time.
    pub(super) fn status(&self) -> String {
        let mut text = clean(&self.state);
        if self.attempts > 0 {
            text += &format!(", {}", counted(self.attempts.into(), "attempt"));
        }
        match (self.finished_at, self.due_at) {
            (Some(at), _) => text += &format!(", {}", time(at)),
            (None, Some(due)) if self.attempts > 0 => text += &format!(", retry at {}", time(due)),
            _ => {}
        }
        text
    }

    /// Its summary and its error.
    pub(super) fn note(&self) -> String {
        match &self.error {
            Some(error) if self.state != OutboxState::Sent.as_str() => format!("{}: {error}", self.summary),
            _ => self.summary.clone(),
        }
    }
}
