//! `posthouse replay`: delivers old events again, one event or all dead letters.

use std::process::ExitCode;

use posthouse_model::{config::Config, counted};
use serde_json::{Value, json};

use super::{
    CliError,
    client::Client,
    table::{self, clean},
};

use crate::admin::Since;

/// Replay an event, or all dead letters.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The event's id; or the id of a delivery, to replay its event for its plugin only.
    #[arg(required_unless_present = "dead", conflicts_with = "dead")]
    event: Option<String>,
    /// The source, if several have an event with this id.
    #[arg(long, conflicts_with = "dead")]
    source: Option<String>,
    /// Only for this plugin.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Replay all dead letters that have not been replayed yet.
    #[arg(long)]
    dead: bool,
    /// Only dead letters with the same cause as this reason: ids and numbers in it are ignored.
    #[arg(long, value_name = "TEXT", requires = "dead")]
    reason: Option<String>,
    /// Only deliveries that died since this time: `2h`, `7d`, `today`, `2026-11-30`, `"2026-11-30 14:00"` (UTC), RFC 3339 or
    /// seconds since 1970.
    #[arg(long, value_name = "TIME", requires = "dead")]
    since: Option<Since>,
    /// Print how many deliveries a replay would create, and create none.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if the daemon does not answer, or has no such event or plugin.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = Client::new(config)?;
    match &args.event {
        Some(event) => one(&client, event, &args),
        None => dead(&client, &args),
    }
}

fn one(client: &Client, event: &str, args: &Args) -> Result<ExitCode, CliError> {
    let body =
        json!({ "event": event, "source": args.source, "plugin": args.plugin, "dry_run": args.dry_run });
    let answer = client.post("/v1/replay", &body)?;
    if args.json {
        return table::print(&table::json_lines([&answer]));
    }
    let count = deliveries(&answer)?;
    if args.dry_run {
        return table::print(&format!("{count} would be created for event `{}`\n", clean(event)));
    }
    let ids: Vec<String> = table::read(&answer["deliveries"])?;
    table::print(&format!("{count} created for event `{}`: {}\n", clean(event), clean(&ids.join(", "))))
}

fn dead(client: &Client, args: &Args) -> Result<ExitCode, CliError> {
    let body = |dry_run| {
        let since = args.since.map(String::from);
        let mut body = json!({ "dead": true, "plugin": args.plugin, "since": since, "dry_run": dry_run });
        if let Some(reason) = &args.reason {
            body["reason"] = json!(reason);
        }
        body
    };
    if args.json {
        let answer = client.post("/v1/replay", &body(args.dry_run))?;
        return table::print(&table::json_lines([&answer]));
    }
    let of = match &args.plugin {
        Some(plugin) => format!(" of plugin `{}`", clean(plugin)),
        None => String::new(),
    };
    let count: u64 = table::read(&client.post("/v1/replay", &body(true))?["count"])?;
    let done = table::print(&format!("{}{of} to replay\n", counted(count, "dead letter")))?;
    if args.dry_run || count == 0 {
        return Ok(done);
    }
    let answer = client.post("/v1/replay", &body(false))?;
    table::print(&format!("{} created\n", deliveries(&answer)?))
}

/// `1 delivery`, `2 deliveries`.
fn deliveries(answer: &Value) -> Result<String, CliError> {
    Ok(counted(table::read(&answer["count"])?, "delivery"))
}
