//! `posthouse deliveries`: a list of deliveries, newest first, or of dead letters by cause.

use std::process::ExitCode;

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    CliError,
    client::Client,
    table::{self, time},
};
use crate::{
    admin::Since,
    config::Config,
    model::{DeliveryState, HeldReason, Pattern},
};

/// List deliveries, newest first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those in this state.
    #[arg(long, value_parser = state())]
    state: Option<String>,
    /// Only those for this plugin.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Only those of events of these types, such as `user.created`, `membership.*`.
    #[arg(long = "type", value_name = "PATTERN", value_parser = Pattern::new)]
    event_type: Option<Pattern>,
    /// Only those that failed for the cause of this reason: ids and numbers in it make no difference.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// List dead letters by plugin and cause in place of deliveries.
    #[arg(long, conflicts_with_all = ["state", "plugin", "event_type", "reason", "since"])]
    causes: bool,
    /// Only those finished, or else made, since then: `24h`, `7d`, `2026-03-01T12:00:00Z`.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// The most deliveries.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object a line.
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
/// [`CliError::Failure`] where the daemon does not answer.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    if args.causes {
        return causes(&Client::new(config)?, args.limit, args.json);
    }
    let query = [
        ("state", args.state),
        ("plugin", args.plugin),
        ("type", args.event_type.map(String::from)),
        ("reason", args.reason),
        ("since", args.since.map(String::from)),
    ];
    let rows = Client::new(config)?.list("deliveries", &query, "id", args.limit)?;
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
    let titles = ["delivery!", "state!", "plugin", "type", "tries", "finished or made!"];
    let notes: Vec<_> = deliveries.iter().map(Summary::note).collect();
    table::print(&table::page_with_notes(&titles, cells.collect(), &notes, args.limit, "deliveries"))
}

/// Dead letters that have one cause.
#[derive(Deserialize)]
struct Group {
    plugin: String,
    reason: String,
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
    let titles = ["plugin!", "dead letters", "not replayed", "last!"];
    let said = |group: &Group| {
        if group.reason.is_empty() { "nothing was said".to_owned() } else { group.reason.clone() }
    };
    let notes: Vec<_> = groups.iter().map(said).collect();
    table::print(&table::page_with_notes(&titles, cells.collect(), &notes, limit, "causes"))
}

impl Summary {
    /// Its event, and what keeps it from being done.
    fn note(&self) -> String {
        let error = self.error.as_deref().filter(|_| self.state != "done").unwrap_or_default();
        let why = match (&self.held, self.due_at, &self.behind) {
            (Some(held), _, _) => held.to_string(),
            (None, _, Some(first)) => format!("behind {first}, in order"),
            (None, Some(due), None) if self.state == "waiting" => format!("again {}: {error}", time(due)),
            _ => error.to_owned(),
        };
        if why.is_empty() { self.event.clone() } else { format!("{}: {why}", self.event) }
    }
}
