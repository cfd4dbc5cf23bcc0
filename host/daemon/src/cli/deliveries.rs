//! `posthouse deliveries`: a list of deliveries, newest first, or of dead letters by cause.
//! `posthouse deliveries show ID`: everything about one delivery.

use std::process::ExitCode;

use jiff::Timestamp;
use posthouse_model::{DeliveryState, HeldReason, Pattern, config::Config, says_nothing};
use serde::Deserialize;

use super::{
    CliError,
    client::{Client, segment},
    events::Delivery,
    table::{self, time},
};

use crate::admin::Since;

/// List deliveries, newest first, or show one.
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
    /// Show one delivery: its attempts, and the outbox items that they staged.
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The delivery, such as `dlv_123`; or the id of a mail or request that it sent.
    id: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only deliveries in this state.
    #[arg(long, value_parser = state())]
    state: Option<String>,
    /// Only deliveries to this plugin.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Only deliveries of events of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only deliveries of events of these types, such as `user.created`, `membership.*`.
    #[arg(long = "type", value_name = "PATTERN", value_parser = Pattern::new)]
    event_type: Option<Pattern>,
    /// Only deliveries with the same cause as this reason: ids and numbers in it are ignored.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// List dead letters by plugin and cause instead of deliveries.
    #[arg(long, conflicts_with_all = ["state", "plugin", "source", "event_type", "reason", "since", "until"])]
    causes: bool,
    /// Only deliveries that finished (or, if unfinished, were created) since this time: `2h`, `7d`, `today`,
    /// `2026-11-30`, `"2026-11-30 14:00"` (UTC), RFC 3339 or seconds since 1970.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only deliveries that finished (or, if unfinished, were created) until this time; a day counts to its end.
    #[arg(long, value_name = "TIME")]
    until: Option<Since>,
    /// The maximum number of deliveries to list.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

fn state() -> clap::builder::PossibleValuesParser {
    DeliveryState::ALL.map(DeliveryState::as_str).into()
}

#[derive(Deserialize)]
struct Summary {
    id: String,
    event: String,
    #[serde(rename = "type")]
    event_type: String,
    plugin: String,
    state: String,
    held: Option<HeldReason>,
    attempts: u32,
    due_at: Option<Timestamp>,
    behind: Option<String>,
    made_at: Timestamp,
    finished_at: Option<Timestamp>,
    error: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if the daemon does not answer, or has no such delivery.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = Client::new(config)?;
    match args.command {
        Some(Command::Show(asked)) => show(&client, &asked),
        None if args.list.causes => causes(&client, args.list.limit, args.list.json),
        None => list(&client, args.list),
    }
}

fn show(client: &Client, asked: &Show) -> Result<ExitCode, CliError> {
    let answer = client.get(&format!("/v1/deliveries/{}", segment(&asked.id)), &[])?;
    if asked.json {
        return table::print(&table::json_lines([&answer]));
    }
    let delivery: Delivery = table::read(&answer)?;
    table::print(&format!("{}\n{}", delivery.facts(), delivery.story()))
}

fn list(client: &Client, args: List) -> Result<ExitCode, CliError> {
    let query = [
        ("state", args.state),
        ("plugin", args.plugin),
        ("source", args.source),
        ("type", args.event_type.map(String::from)),
        ("reason", args.reason),
        ("since", args.since.map(String::from)),
        ("until", args.until.map(String::from)),
    ];
    let rows = client.list("deliveries", &query, "id", args.limit)?;
    if args.json {
        return table::print(&table::json_lines(&rows));
    }
    let deliveries: Vec<Summary> = rows.iter().map(table::read).collect::<Result<_, _>>()?;
    let cells = deliveries.iter().map(|delivery| {
        vec![
            delivery.id.clone(),
            delivery.state.clone(),
            delivery.plugin.clone(),
            delivery.event_type.clone(),
            delivery.attempts.to_string(),
            time(delivery.finished_at.unwrap_or(delivery.made_at)),
        ]
    });
    let titles = ["delivery!", "state!", "plugin", "type", "attempts!", "finished or created!"];
    let notes: Vec<_> = deliveries.iter().map(Summary::note).collect();
    table::print(&table::page_with_notes(&titles, cells.collect(), &notes, args.limit, "delivery"))
}

/// Dead letters with one cause.
#[derive(Deserialize)]
struct Group {
    plugin: String,
    reason: String,
    example: String,
    count: u64,
    to_replay: u64,
    last_at: Option<Timestamp>,
}

/// Lists dead letters by plugin and cause, those with the most to replay first.
fn causes(client: &Client, limit: usize, json: bool) -> Result<ExitCode, CliError> {
    let answer = client.get("/v1/dead-letters", &[])?;
    let rows = answer["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = &rows[..rows.len().min(limit)];
    if json {
        return table::print(&table::json_lines(rows));
    }
    let groups: Vec<Group> = rows.iter().map(table::read).collect::<Result<_, _>>()?;
    let cells = groups.iter().map(|group| {
        let (count, left) = (group.count.to_string(), group.to_replay.to_string());
        vec![group.plugin.clone(), count, left, group.last_at.map(time).unwrap_or_default()]
    });
    let titles = ["plugin!", "dead letters!", "not replayed!", "last!"];
    let said = |group: &Group| match group.reason.as_str() {
        "" => "no reason given".to_owned(),
        reason if says_nothing(reason) => format!("{reason}, such as {}", group.example),
        reason => reason.to_owned(),
    };
    let notes: Vec<_> = groups.iter().map(said).collect();
    table::print(&table::page_with_notes(&titles, cells.collect(), &notes, limit, "cause"))
}

impl Summary {
    /// Its event, and the reason why it is not done.
    fn note(&self) -> String {
        let error = self.error.as_deref().filter(|_| self.state != "done").unwrap_or_default();
        let why = match (&self.held, self.due_at, &self.behind) {
            (Some(held), _, _) => held.to_string(),
            (None, _, Some(first)) => format!("blocked by {first}"),
            (None, Some(due), None) if self.state == "waiting" => format!("retry at {}: {error}", time(due)),
            _ => error.to_owned(),
        };
        if why.is_empty() { self.event.clone() } else { format!("{}: {why}", self.event) }
    }
}
