//! `posthouse catch-up`: asks a sender for its events, and compares them with the store.

use std::{fmt::Write as _, process::ExitCode};

use jiff::Timestamp;
use posthouse_model::{config::Config, counted};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CliError,
    client::{Client, segment},
    table::{self, clean},
};

use crate::admin::Since;

/// Ask a sender for its events, and compare them with the store.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source. It can be left out if only one has `catch_up` in config.toml.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Compare events that happened since this time: `2h`, `7d`, `today`, `2026-11-30`, `"2026-11-30 14:00"` (UTC), RFC 3339
    /// or seconds since 1970. Without it, the comparison begins where the last one ended.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Take nothing in, whatever the mode of the source.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Report {
    summary: String,
    takes_in: bool,
    from: Timestamp,
    compared_to: Timestamp,
    complete: bool,
    requests: u64,
    listed: u64,
    here: u64,
    missing: u64,
    taken_in: u64,
    filtered: u64,
    unreadable: u64,
    outside: u64,
    unlisted: Option<u64>,
    unordered: bool,
    first_missing: Vec<Listed>,
    first_unlisted: Vec<String>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    occurred_at: Timestamp,
}

/// Returns exit code 0 if nothing is missing, or all of it was taken in; 1 if something is, or if the comparison ended
/// early.
///
/// # Errors
/// [`CliError::Failure`] if the daemon does not answer, or the source can't be asked.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = Client::new(config)?;
    let source = match args.source {
        Some(source) => source,
        None => only(&client)?,
    };
    let body = json!({ "since": args.since.map(String::from), "dry_run": args.dry_run });
    let body = without_null(body);
    let answer = client.post(&format!("/v1/sources/{}/catch-up", segment(&source)), &body)?;
    let report: Report = table::read(&answer)?;
    if args.json {
        table::print(&table::json_lines([&answer]))?;
    } else {
        table::print(&told(&source, &report))?;
    }
    let whole = report.complete && report.missing == report.taken_in;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The only source that can be asked.
fn only(client: &Client) -> Result<String, CliError> {
    let answer = client.get("/v1/sources", &[])?;
    let sources = answer["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let asked: Vec<_> = sources
        .iter()
        .filter(|source| !source["catch_up"].is_null())
        .filter_map(|source| source["name"].as_str())
        .collect();
    match asked.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(CliError::Failure(
            "no source has [source.catch_up] in config.toml; `posthouse senders` marks the senders that can be asked"
                .to_owned(),
        )),
        several => {
            Err(CliError::Usage(format!("several sources; choose one with --source: {}", several.join(", "))))
        }
    }
}

fn without_null(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    body
}

fn told(source: &str, report: &Report) -> String {
    let mut text = format!("{}: {}\n\n", clean(source), clean(&report.summary));
    let time = |at: Timestamp| table::time(at);
    let unlisted = report.unlisted.map_or("not known".to_owned(), |count| count.to_string());
    let taken_in =
        if report.takes_in { report.taken_in.to_string() } else { "none; nothing was to be".to_owned() };
    text += &table::facts(&[
        ("from", time(report.from)),
        ("to", time(report.compared_to)),
        ("requests", report.requests.to_string()),
        ("listed", report.listed.to_string()),
        ("here", report.here.to_string()),
        ("missing", report.missing.to_string()),
        ("taken in", taken_in),
        ("unlisted", unlisted),
    ]);
    for (count, what) in [
        (report.filtered, "of types that the source does not accept"),
        (report.unreadable, "that can't be read"),
        (report.outside, "outside of the time that was asked for"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "also listed: {} {what}", counted(count, "event"));
        }
    }
    if report.unordered {
        text += "too many events happened within one second to put them in order\n";
    }
    if !report.first_missing.is_empty() {
        text += "\nmissing:\n";
        for event in &report.first_missing {
            let _ = writeln!(
                text,
                "  {}  {}  {}",
                time(event.occurred_at),
                clean(&event.id),
                clean(&event.event_type)
            );
        }
    }
    if !report.first_unlisted.is_empty() {
        text += "\nhere, and not listed:\n";
        for id in &report.first_unlisted {
            let _ = writeln!(text, "  {}", clean(id));
        }
    }
    text
}
