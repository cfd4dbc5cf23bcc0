//! `posthouse replay`: old events once more, one or all dead letters.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    CliError,
    client::Client,
    table::{self, clean},
};
use crate::{admin::Since, config::Config};

/// Deliver an old event once more, or all dead letters.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sender's id of the event.
    #[arg(required_unless_present = "dead", conflicts_with = "dead")]
    event: Option<String>,
    /// The source, where several have an event of this id.
    #[arg(long, conflicts_with = "dead")]
    source: Option<String>,
    /// Only for this plugin.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// All dead letters.
    #[arg(long)]
    dead: bool,
    /// Only dead letters of the cause of this reason: ids and numbers in it make no difference.
    #[arg(long, value_name = "TEXT", requires = "dead")]
    reason: Option<String>,
    /// Only dead letters given up since then: `24h`, `7d`, `2026-03-01T12:00:00Z`.
    #[arg(long, value_name = "TIME", requires = "dead")]
    since: Option<Since>,
    /// Only say how many deliveries it would make.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] where the daemon does not answer, or has no such event or plugin.
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
        return table::print(&format!("{count} would be made of event `{}`\n", clean(event)));
    }
    let ids: Vec<String> = table::read(&answer["deliveries"])?;
    table::print(&format!("{count} made of event `{}`: {}\n", clean(event), clean(&ids.join(", "))))
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
    let letters = if count == 1 { "letter" } else { "letters" };
    let done = table::print(&format!("{count} dead {letters}{of} to replay\n"))?;
    if args.dry_run || count == 0 {
        return Ok(done);
    }
    let answer = client.post("/v1/replay", &body(false))?;
    table::print(&format!("{} made\n", deliveries(&answer)?))
}

/// `1 delivery`, `2 deliveries`.
fn deliveries(answer: &Value) -> Result<String, CliError> {
    Ok(match table::read(&answer["count"])? {
        1_u64 => "1 delivery".to_owned(),
        count => format!("{count} deliveries"),
    })
}
