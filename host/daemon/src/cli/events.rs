//! `posthouse events`: a list of events. `posthouse events show ID`: everything about one event.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use jiff::Timestamp;
use posthouse_model::{HeldReason, LogLine, Pattern, config::Config, counted};
use serde::Deserialize;
use serde_json::Value;

use super::{
    CliError,
    client::{Client, segment},
    outbox,
    table::{self, clean, clean_lines, counts, maybe_time, time},
};

use crate::admin::Since;

/// List events, newest first, or show the history of one.
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
    /// Show the history of one event: its deliveries, their attempts and outbox items.
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only events of these types, such as `user.created`, `membership.*`.
    #[arg(long = "type", value_name = "PATTERN", value_parser = Pattern::new)]
    event_type: Option<Pattern>,
    /// Only events of this source.
    #[arg(long)]
    source: Option<String>,
    /// Only events of this organization.
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// Only events received since this time: `2h`, `7d`, `today`, `yesterday`, `2026-11-30`, `"2026-11-30 14:00"`
    /// (UTC), RFC 3339 or seconds since 1970.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Only events received until this time; a day counts to its end.
    #[arg(long, value_name = "TIME")]
    until: Option<Since>,
    /// Only events with this text in the body; case is ignored.
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// The maximum number of events to list.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The event's id; or the id of one of its deliveries, or of a mail or request that one of them sent.
    id: String,
    /// The source, if several have an event with this id.
    #[arg(long)]
    source: Option<String>,
    /// Print the body as well.
    #[arg(long)]
    body: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if the daemon does not answer, or has no such event.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = Client::new(config)?;
    match args.command {
        Some(Command::Show(show)) => tell(&client, &show),
        None => list(&client, args.list),
    }
}

#[derive(Deserialize)]
struct Summary {
    id: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    organization: Option<String>,
    occurred_at: Option<Timestamp>,
    received_at: Timestamp,
    #[serde(default)]
    origin: Option<String>,
    bytes: u64,
    deliveries: BTreeMap<String, u64>,
}

fn list(client: &Client, asked: List) -> Result<ExitCode, CliError> {
    let query = [
        ("type", asked.event_type.map(String::from)),
        ("source", asked.source),
        ("organization", asked.organization),
        ("since", asked.since.map(String::from)),
        ("until", asked.until.map(String::from)),
        ("text", asked.text),
    ];
    let rows = client.list("events", &query, "seq", asked.limit)?;
    if asked.json {
        return table::print(&table::json_lines(&rows));
    }
    let events: Vec<Summary> = rows.iter().map(table::read).collect::<Result<_, _>>()?;
    let cells = events.iter().map(|event| {
        vec![
            event.id.clone(),
            event.event_type.clone(),
            event.source.clone(),
            time(event.received_at),
            counts(&event.deliveries),
        ]
    });
    let titles = ["event!", "type", "source", "received!", "deliveries"];
    table::print(&table::page(&titles, cells.collect(), asked.limit, "event"))
}

#[derive(Deserialize)]
struct Detail {
    #[serde(flatten)]
    summary: Summary,
    #[serde(default)]
    trace: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    headers: Vec<Header>,
    body: String,
    #[serde(default)]
    masked: bool,
    history: Vec<Delivery>,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Deserialize)]
pub(super) struct Delivery {
    id: String,
    event: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    plugin: String,
    state: String,
    held: Option<HeldReason>,
    attempts: u32,
    due_at: Option<Timestamp>,
    #[serde(default)]
    behind: Option<String>,
    made_at: Timestamp,
    finished_at: Option<Timestamp>,
    error: Option<String>,
    replay_of: Option<String>,
    attempt_log: Vec<Attempt>,
    outbox: Vec<outbox::Item>,
}

#[derive(Deserialize)]
struct Attempt {
    number: u32,
    revision: Option<String>,
    started_at: Timestamp,
    duration_us: u64,
    outcome: String,
    error: Option<String>,
    trace: Option<String>,
    logs: Vec<LogLine>,
    #[serde(rename = "did", default)]
    actions: Vec<String>,
}

fn tell(client: &Client, asked: &Show) -> Result<ExitCode, CliError> {
    let path = format!("/v1/events/{}", segment(&asked.id));
    let mut answer = client.get(&path, &[("source", asked.source.clone())])?;
    let events = answer["events"].as_array_mut().map(std::mem::take).unwrap_or_default();
    if asked.json {
        let without_body = |mut event: Value| {
            if let (false, Some(event)) = (asked.body, event.as_object_mut()) {
                event.remove("body");
            }
            event
        };
        let events: Vec<_> = events.into_iter().map(without_body).collect();
        return table::print(&table::json_lines(&events));
    }
    let stories: Vec<_> = events
        .iter()
        .map(|event| table::read::<Detail>(event).map(|event| story(&event, asked.body)))
        .collect::<Result<_, _>>()?;
    table::print(&stories.join("\n"))
}

fn story(event: &Detail, with_body: bool) -> String {
    let Summary { id, source, event_type, organization, occurred_at, received_at, origin, bytes, .. } =
        &event.summary;
    let hint = match (with_body, event.masked) {
        (false, _) => " (--body prints it)",
        (true, false) => ", as received",
        (true, true) => ", as received except for `[redacted]`",
    };
    let mut text = table::facts(&[
        ("event", id.clone()),
        ("type", event_type.clone()),
        ("source", source.clone()),
        ("organization", organization.clone().unwrap_or_default()),
        ("occurred", occurred_at.map(time).unwrap_or_default()),
        ("received", time(*received_at)),
        ("origin", origin.clone().unwrap_or_default()),
        ("content type", event.content_type.clone().unwrap_or_default()),
        ("body", format!("{}{hint}", counted(*bytes, "byte"))),
        ("trace", event.trace.clone().unwrap_or_default()),
        ("deliveries", counts(&event.summary.deliveries)),
    ]);
    for Header { name, value } in &event.headers {
        let _ = writeln!(text, "  {}: {}", clean(name), clean(value));
    }
    if with_body {
        text += "\n";
        text += &clean_lines(&event.body, 2);
    }
    for delivery in &event.history {
        text += "\n";
        text += &delivery.story();
    }
    text
}

impl Delivery {
    /// Facts about the delivery's event, for a delivery that is shown alone.
    pub(super) fn facts(&self) -> String {
        table::facts(&[
            ("delivery", self.id.clone()),
            ("event", self.event.clone()),
            ("type", self.event_type.clone()),
            ("source", self.source.clone()),
            ("plugin", self.plugin.clone()),
        ])
    }

    /// The state of the delivery, its attempts, and what they sent. Each reason is printed once.
    pub(super) fn story(&self) -> String {
        let mut text = format!("{} for {}: {}", clean(&self.id), clean(&self.plugin), clean(&self.state));
        if let Some(reason) = &self.held {
            let _ = write!(text, ", {}", clean(&reason.to_string()));
        }
        let _ = write!(text, "\n  created {}", time(self.made_at));
        match (self.finished_at, self.due_at) {
            (Some(at), _) => _ = write!(text, ", finished {}", time(at)),
            (None, due @ Some(_)) => _ = write!(text, ", due {}", maybe_time(due)),
            (None, None) => {}
        }
        if let Some(first) = &self.behind {
            let _ = write!(text, ", blocked by {}", clean(first));
        }
        let _ = write!(text, ", {}", counted(self.attempts.into(), "attempt"));
        if let Some(first) = &self.replay_of {
            let _ = write!(text, ", a replay of {}", clean(first));
        }
        text.push('\n');
        let mut told: Vec<(u32, &str)> = Vec::new();
        for attempt in &self.attempt_log {
            let reason = attempt.error.as_deref().unwrap_or_default();
            let before = told.iter().find(|(_, earlier)| *earlier == reason && !reason.is_empty());
            text += &attempt.story(before.map(|(number, _)| *number));
            if before.is_none() {
                told.push((attempt.number, reason));
            }
        }
        // A delivery that was given up without an attempt shows its reason itself.
        if let Some(error) = self
            .error
            .as_deref()
            .filter(|error| self.state == "dead" && told.iter().all(|(_, told)| told != error))
        {
            text += &clean_lines(error, 2);
        }
        for item in &self.outbox {
            let _ = writeln!(text, "  {} {}: {}", clean(&item.kind), item.id, item.status());
            text += &clean_lines(&item.note(), 4);
        }
        text
    }
}

impl Attempt {
    /// The result of the attempt. `same_as` is the attempt before it that failed for the same reason.
    fn story(&self, same_as: Option<u32>) -> String {
        let mut text = format!(
            "  attempt {}, {}, {:.1} ms",
            self.number,
            time(self.started_at),
            self.duration_us as f64 / 1000.0,
        );
        if let Some(revision) = &self.revision {
            let _ = write!(text, ", revision {}", clean(revision));
        }
        let _ = write!(text, ": {}", clean(&self.outcome));
        match (&self.error, same_as) {
            (Some(_), Some(number)) => _ = write!(text, ": the same reason as attempt {number}"),
            (Some(error), None) => _ = write!(text, ": {}", clean(error)),
            (None, _) => {}
        }
        text.push('\n');
        for line in &self.actions {
            text += &clean_lines(line, 4);
        }
        for line in &self.logs {
            let level = format!("{:?}", line.level).to_lowercase();
            text += &clean_lines(&format!("[{level}] {}", line.message), 4);
        }
        if let Some(trace) = &self.trace {
            text += &clean_lines(trace, 4);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({
            "seq": 7, "id": "evt_1", "source": "scalekit", "type": "user.created", "organization": "org_1",
            "occurred_at": null, "received_at": "2026-03-01T12:00:00Z", "bytes": 14,
            "deliveries": {"dead": 1, "done": 1}, "body": "{\"a\":\"\u{9b}\"}",
            "history": [{
                "id": "dlv_1", "event": "evt_1", "source": "scalekit", "type": "user.created",
                "plugin": "welcome", "state": "dead", "held": null, "attempts": 1, "due_at": null,
                "made_at": "2026-03-01T12:00:00Z", "finished_at": "2026-03-01T12:00:01.5Z",
                "error": "trap", "replay_of": null,
                "attempt_log": [{
                    "number": 1, "started_at": "2026-03-01T12:00:01Z", "duration_us": 1234,
                    "revision": "73ab047627c9", "outcome": "retry", "error": "trap\u{1b}[2J", "trace": "0: handle\n1: main",
                    "logs": [{"level": "warn", "message": "no seat left"}],
                }],
                "outbox": [],
            }, {
                "id": "dlv_2", "event": "evt_1", "source": "scalekit", "type": "user.created",
                "plugin": "welcome", "state": "done", "held": null, "attempts": 1, "due_at": null,
                "made_at": "2026-03-01T12:00:00Z", "finished_at": null, "error": null, "replay_of": "dlv_1",
                "attempt_log": [],
                "outbox": [{
                    "id": 3, "delivery": "dlv_2", "kind": "mail", "summary": "ada@example.com: Welcome: 451 later",
                    "state": "waiting", "attempts": 2, "due_at": "2026-03-01T12:10:00Z",
                    "finished_at": null, "error": "451 later",
                }],
            }],
        })
    }

    #[test]
    fn a_reason_is_told_once_however_many_attempts_had_it() {
        let reason = "x".repeat(4096);
        let mut event = event();
        let attempt = event["history"][0]["attempt_log"][0].clone();
        let attempts = (1..=4).map(|number| {
            let mut attempt = attempt.clone();
            attempt["number"] = json!(number);
            attempt["error"] = json!(if number == 3 { "another" } else { &reason });
            attempt
        });
        event["history"][0]["attempt_log"] = attempts.collect();
        event["history"][0]["error"] = json!(reason);
        let told = story(&table::read(&event).unwrap(), false);
        assert_eq!(told.matches(&reason).count(), 1, "{told}");
        assert_eq!(told.matches("the same reason as attempt 1").count(), 2, "{told}");
        assert!(told.contains(": another"), "{told}");
    }

    #[test]
    fn a_story_leaves_nothing_out_but_the_body() {
        let told = story(&table::read(&event()).unwrap(), false);
        for part in [
            "evt_1",
            "scalekit",
            "user.created",
            "org_1",
            "2026-03-01 12:00:00Z",
            "14 bytes (--body",
            "dlv_1 for welcome: dead",
            "attempt 1, 2026-03-01 12:00:01Z, 1.2 ms, revision 73ab047627c9: retry: trap\\u{1b}[2J",
            "[warn] no seat left",
            "    0: handle\n    1: main\n",
            "a replay of dlv_1",
            "mail 3: waiting, 2 attempts, retry at 2026-03-01 12:10:00Z",
            "ada@example.com: Welcome: 451 later",
        ] {
            assert!(told.contains(part), "{part} in\n{told}");
        }
        assert!(!told.contains("\"a\""), "{told}");
        assert!(story(&table::read(&event()).unwrap(), true).contains("{\"a\":\"\\u{9b}\"}"));
    }
}
