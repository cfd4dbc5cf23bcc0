//! `posthouse audit`: what operators did, newest first.

use std::process::ExitCode;

use jiff::Timestamp;
use posthouse_model::config::Config;
use serde::Deserialize;

use super::{
    CliError,
    client::Client,
    table::{self, time},
};

use crate::admin::Since;

/// List operators' actions, newest first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this action, such as `pause plugin`; one word, such as `plugin` or `replay`, selects several.
    #[arg(long)]
    action: Option<String>,
    /// Only actions since this time: `2h`, `7d`, `today`, `2026-11-30`, `"2026-11-30 14:00"` (UTC), RFC 3339 or seconds
    /// since 1970.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// The maximum number of entries to list.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Entry {
    at: Timestamp,
    actor: String,
    action: String,
    target: String,
    outcome: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if the daemon does not answer.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = Client::new(config)?;
    let query = [("action", args.action), ("since", args.since.map(String::from))];
    let rows = client.list("audit", &query, "id", args.limit)?;
    if args.json {
        return table::print(&table::json_lines(&rows));
    }
    let entries: Vec<Entry> = rows.iter().map(table::read).collect::<Result<_, _>>()?;
    let cells = entries.iter().map(|entry| {
        let outcome = entry
            .outcome
            .clone()
            .unwrap_or_else(|| "unknown: the daemon stopped before it recorded the outcome".to_owned());
        vec![time(entry.at), entry.actor.clone(), entry.action.clone(), entry.target.clone(), outcome]
    });
    let titles = ["time!", "actor", "action!", "target", "outcome"];
    table::print(&table::page(&titles, cells.collect(), args.limit, "entry"))
}
