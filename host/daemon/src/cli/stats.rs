//! `posthouse stats`: both ledgers, whether they add up, and the last 24 hours by event type.

use std::{collections::BTreeMap, process::ExitCode};

use bytesize::ByteSize;
use jiff::Timestamp;
use posthouse_model::{DeliveryState, config::Config, counted, turn};
use serde::Deserialize;

use super::{
    CliError,
    client::Client,
    table::{self, clean, counts, time},
};

use crate::daemon;

/// Print the counts of requests and deliveries; exit with 1 if they do not add up.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Stats {
    version: String,
    started_at: Timestamp,
    requests: BTreeMap<String, Requests>,
    requests_total: Requests,
    store: Store,
    balanced: bool,
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct Requests {
    received: u64,
    accepted: u64,
    duplicate: u64,
    filtered: u64,
    rejected: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
    under_way: i64,
}

#[derive(Deserialize)]
struct Store {
    made: u64,
    states: BTreeMap<String, u64>,
    by_type: Vec<Type>,
    outbox: BTreeMap<String, u64>,
    plugins: Vec<Plugin>,
    conflicts: u64,
    store_bytes: Option<u64>,
    wal_bytes: Option<u64>,
    disk_free_bytes: Option<u64>,
    #[serde(default)]
    replays_waiting: u64,
}

#[derive(Deserialize)]
struct Type {
    #[serde(rename = "type")]
    event_type: String,
    total: u64,
    completed: u64,
    failed: u64,
    average_ms: Option<f64>,
    p99_ms: Option<f64>,
}

#[derive(Deserialize)]
struct Plugin {
    plugin: String,
    made: u64,
    states: BTreeMap<String, u64>,
    oldest_open: Option<Timestamp>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if the daemon does not answer.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let answer = Client::new(config)?.get("/v1/stats", &[])?;
    let stats: Stats = table::read(&answer)?;
    let text = if args.json { table::json_lines([&answer]) } else { stats.text(daemon::env().now()) };
    let printed = table::print(&text)?;
    Ok(if stats.balanced { printed } else { ExitCode::FAILURE })
}

impl Stats {
    fn text(&self, now: Timestamp) -> String {
        let blocks = [
            format!("posthouse {}, up since {}\n", clean(&self.version), time(self.started_at)),
            format!("requests since then\n{}", self.requests()),
            format!("deliveries, total\n{}", self.store.deliveries(now)),
            format!("deliveries of the last 24 hours, by event type\n{}", self.store.types()),
            table::facts(&[
                ("outbox", counts(&self.store.outbox)),
                (
                    "conflicts",
                    format!(
                        "{} retried after a transaction conflict",
                        counted(self.store.conflicts, "attempt")
                    ),
                ),
                ("replays", self.store.replays()),
                ("store", self.store.size()),
            ]),
            self.verdict(),
        ];
        blocks.join("\n")
    }

    fn requests(&self) -> String {
        let named = self.requests.iter().map(|(source, counts)| (source.as_str(), counts));
        let all = (self.requests.len() != 1).then_some(("all", &self.requests_total));
        let rows = named.chain(all).map(|(source, counts)| {
            vec![
                source.to_owned(),
                counts.received.to_string(),
                counts.accepted.to_string(),
                counts.duplicate.to_string(),
                counts.filtered.to_string(),
                counts.rejected.values().sum::<u64>().to_string(),
                counts.failed.values().sum::<u64>().to_string(),
                counts.under_way.to_string(),
            ]
        });
        let titles = [
            "source",
            "received!",
            "accepted!",
            "duplicate!",
            "filtered!",
            "rejected!",
            "failed!",
            "active!",
        ];
        table::table(&titles, rows.collect()) + &self.refused()
    }

    /// The reasons why requests were rejected or failed, one a line. Empty if there are none.
    fn refused(&self) -> String {
        let mut text = String::new();
        for (source, counts) in &self.requests {
            for (what, reasons) in [("rejected", &counts.rejected), ("failed", &counts.failed)] {
                for (reason, count) in reasons.iter().filter(|(_, count)| **count > 0) {
                    text += &format!("  {what}, {}: {count} {}\n", clean(source), clean(reason));
                }
            }
        }
        text
    }

    fn verdict(&self) -> String {
        if self.balanced {
            return "both ledgers add up\n".to_owned();
        }
        let mut text = "the ledgers do NOT add up; please report this as a defect:\n".to_owned();
        for problem in &self.problems {
            text += &format!("  {}\n", clean(problem));
        }
        text
    }
}

impl Store {
    /// The number of replays that wait. Empty if none waits.
    fn replays(&self) -> String {
        match self.replays_waiting {
            0 => String::new(),
            waiting => format!("{waiting} {}; new events run first", turn(waiting)),
        }
    }

    fn size(&self) -> String {
        let free = self.disk_free_bytes.map(|free| format!(", {} free on the disk", ByteSize(free)));
        let (file, log) = (self.store_bytes.unwrap_or(0), self.wal_bytes.unwrap_or(0));
        let all = ByteSize(file + log);
        let (file, log) = (ByteSize(file), ByteSize(log));
        format!("{all} (file {file}, write-ahead log {log}){}", free.unwrap_or_default())
    }

    fn deliveries(&self, now: Timestamp) -> String {
        let row = |name: &str, made: u64, states: &BTreeMap<String, u64>, oldest: Option<Timestamp>| {
            let in_state =
                |state: DeliveryState| states.get(state.as_str()).copied().unwrap_or(0).to_string();
            [name.to_owned(), made.to_string()]
                .into_iter()
                .chain(DeliveryState::ALL.map(in_state))
                .chain([age(oldest, now)])
                .collect()
        };
        let mut rows: Vec<_> = self
            .plugins
            .iter()
            .map(|plugin| row(&plugin.plugin, plugin.made, &plugin.states, plugin.oldest_open))
            .collect();
        if rows.len() != 1 {
            let oldest = self.plugins.iter().filter_map(|plugin| plugin.oldest_open).min();
            rows.push(row("all", self.made, &self.states, oldest));
        }
        let states = DeliveryState::ALL.map(|state| format!("{}!", state.as_str()));
        let titles: Vec<_> = ["plugin", "created!"]
            .into_iter()
            .chain(states.iter().map(String::as_str))
            .chain(["oldest unfinished!"])
            .collect();
        table::table(&titles, rows)
    }

    fn types(&self) -> String {
        let rows = self.by_type.iter().map(|counts| {
            vec![
                counts.event_type.clone(),
                counts.total.to_string(),
                counts.completed.to_string(),
                counts.failed.to_string(),
                millis(counts.average_ms),
                millis(counts.p99_ms),
            ]
        });
        let titles = ["type", "total!", "done!", "dead!", "average!", "p99!"];
        table::page(&titles, rows.collect(), usize::MAX, "delivery")
    }
}

/// A duration in milliseconds; `–` if there is none, because nothing ran.
fn millis(ms: Option<f64>) -> String {
    ms.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1} ms"))
}

/// The time since then, in the largest unit: `12 min`, `3 h`.
fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    let Some(since) = since else { return "-".to_owned() };
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T13:00:00Z".parse().unwrap()
    }

    fn stats(balanced: bool) -> Stats {
        let requests = json!({
            "received": 4, "accepted": 1, "duplicate": 0, "filtered": 0,
            "rejected": {"signature": 2, "stale": 1}, "failed": {}, "under_way": 0,
        });
        table::read(&json!({
            "version": "0.1.0", "started_at": "2026-03-01T12:00:00Z",
            "requests": {"scalekit": requests, "other": requests}, "requests_total": requests,
            "store": {
                "made": 2, "states": {"done": 1, "dead": 1}, "outbox": {"sent": 3}, "conflicts": 1,
                "lost_leases": 0, "store_bytes": 4096, "wal_bytes": 8192, "disk_free_bytes": 1_073_741_824,
                "by_type": [{
                    "type": "user.created", "total": 2, "completed": 1, "failed": 1,
                    "average_ms": 1.25, "p99_ms": 2.0,
                }],
                "plugins": [{
                    "plugin": "counter", "made": 2, "states": {"done": 1, "dead": 1}, "oldest_open": null,
                }],
            },
            "balanced": balanced, "problems": if balanced { vec![] } else { vec!["plugin `counter`: 3"] },
        }))
        .unwrap()
    }

    #[test]
    fn both_ledgers_are_there_and_the_verdict() {
        let text = stats(true).text(now());
        for part in [
            "rejected, scalekit: 2 signature\n",
            "1.0 GiB free on the disk",
            "counter",
            "user.created",
            "3 sent",
            "1 attempt retried",
            "both ledgers add up",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let text = stats(false).text(now());
        assert!(text.contains("do NOT add up") && text.contains("plugin `counter`: 3"), "{text}");
    }

    #[test]
    fn the_store_is_as_large_as_its_file_and_its_log_together() {
        let text = stats(true).text(now());
        assert!(text.contains("12.0 KiB (file 4.0 KiB, write-ahead log 8.0 KiB)"), "{text}");
    }

    #[test]
    fn what_never_ran_has_no_duration() {
        let mut stats = stats(true);
        stats.store.by_type[0].average_ms = None;
        stats.store.by_type[0].p99_ms = None;
        let text = stats.text(now());
        let row = text.lines().find(|line| line.starts_with("user.created")).unwrap();
        assert!(row.contains('–') && !row.contains("ms"), "{text}");
    }

    #[test]
    fn an_age_has_one_unit() {
        let ages = [5, 600, 10_000, 200_000]
            .map(|seconds| age(now().checked_sub(jiff::SignedDuration::from_secs(seconds)).ok(), now()));
        assert_eq!(ages, ["5 s", "10 min", "2 h", "2 days"]);
        assert_eq!(age(None, now()), "-");
    }
}
