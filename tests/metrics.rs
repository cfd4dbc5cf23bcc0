//! `GET /metrics`: each number is what happened. The table of docs/operations.md, the alerts and the
//! dashboard of `packaging/` name metrics that are really exported. No sender can add a series.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use posthouse_harness::{
    Answer, Connection, Daemon, Event, Interceptor, Signer, Source, WebReply, WebServer, eventually,
    wait_until, workspace,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
const STRANGER: &str = "whsec_c3RyYW5nZXItc3RyYW5nZXItc3RyYW5nZXI=";
/// The limit of unfinished deliveries beyond which no event is accepted.
const MOST: usize = 8;

#[test]
fn every_number_is_what_happened_and_every_name_that_is_used_is_exported() {
    let asked = AtomicUsize::new(0);
    let server = WebServer::start(move |request| match request.path.as_str() {
        "/no" => WebReply::status(422),
        _ => WebReply::status(if asked.fetch_add(1, Relaxed) == 0 { 503 } else { 204 }),
    });
    let source = Source::new("scalekit").line(r#"events = ["user.*", "made.up"]"#);
    // Its plugin is missing, so its answers are fall-backs.
    let signup = Interceptor::new("signup", "nobody");
    let mut daemon = Daemon::builder(BINARY)
        .source(source)
        .source(Source::new("billing").line(
            // Nobody answers there; the numbers are exported all the same.
            "catch_up = { url = \"http://127.0.0.1:1\", client_id = \"skc_1\", client_secret = \"a-secret-of-catching-up-1\" }",
        ))
        .set("store", &format!("max_backlog = {MOST}"))
        .set("http", r#"retry = { attempts = 4, base = "20ms", factor = 1.0 }"#)
        .set("plugins", r#"retry = { attempts = 2, base = "20ms", factor = 1.0 }"#)
        .toml(&signup.toml())
        .toml("[databases.app]\nurl = \"sqlite:data/app.db\"\npool = 3\n")
        .toml("[plugin.counter]\nevents = [\"user.created\", \"user.updated\", \"made.up\"]\n")
        .toml("[plugin.counter.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }\n")
        .toml("[plugin.http-probe]\nevents = [\"user.deleted\"]\n")
        .toml(&format!("[plugin.http-probe.grants]\nhttp = [{:?}]\n", server.url("")))
        .guest("counter")
        .guest("http-probe")
        .start();
    let send = |daemon: &Daemon, event_type: &str, data: Value| {
        let answer = daemon.post_event(&Event::new(event_type).data(data));
        daemon.wait_settled();
        answer
    };

    // Accepted: handled at once, after one failure, rejected, given up, with a mail, of an unknown type.
    let first = Event::new("user.created").data(json!({}));
    assert!(daemon.post_event(&first).accepted());
    assert!(daemon.post_event(&first).duplicate());
    assert!(send(&daemon, "user.created", json!({ "fail": 1 })).accepted());
    assert!(send(&daemon, "user.updated", json!({ "reject": true })).accepted());
    assert!(send(&daemon, "user.updated", json!({ "fail": 9 })).accepted());
    assert!(send(&daemon, "user.created", json!({ "mail": "ada@example.com" })).accepted());
    assert!(send(&daemon, "made.up", json!({})).accepted());
    let requests = ["/busy", "/no"]
        .map(|path| json!({ "later": true, "method": "POST", "url": server.url(path), "body": "x" }));
    assert!(send(&daemon, "user.deleted", json!({ "requests": requests })).accepted());
    daemon.wait_mail_settled();
    // Not accepted.
    assert_eq!(send(&daemon, "session.created", json!({})).status, 200);
    let stranger = daemon.sender().signed_by(Signer::Standard(STRANGER.into()));
    assert_eq!(stranger.post_event(&Event::new("user.created")).status, 401);
    assert_eq!(get(&daemon, "/webhooks/scalekit").status, 405);
    assert_eq!(signup.ask(&daemon, "req_1", json!({})).json()["decision"], "DENY");

    let told = scrape(&daemon);
    let of = |outcome| told.of("posthouse_requests_total", &[("source", "scalekit"), ("outcome", outcome)]);
    assert_eq!(
        ["accepted", "duplicate", "filtered", "rejected", "failed"].map(of),
        [7.0, 1.0, 1.0, 2.0, 0.0]
    );
    let fallen = [("interceptor", "signup"), ("cause", "no-plugin")];
    assert_eq!(told.of("posthouse_decision_fallbacks_total", &fallen), 1.0);
    let of =
        |reason| told.of("posthouse_requests_rejected_total", &[("source", "scalekit"), ("reason", reason)]);
    assert_eq!(["signature-mismatch", "wrong-method"].map(of), [1.0, 1.0]);
    assert_eq!(told.of("posthouse_requests_total", &[("source", "billing"), ("outcome", "accepted")]), 0.0);
    let of = |event_type, outcome| {
        let labels = [("plugin", "counter"), ("type", event_type), ("outcome", outcome)];
        told.of("posthouse_deliveries_total", &labels)
    };
    assert_eq!([of("user.created", "done"), of("user.created", "dead")], [3.0, 0.0]);
    assert_eq!([of("user.updated", "done"), of("user.updated", "dead")], [0.0, 2.0]);
    assert_eq!([of("other", "done"), of("other", "dead")], [1.0, 0.0]);
    let of = |outcome| told.of("posthouse_attempts_total", &[("plugin", "counter"), ("outcome", outcome)]);
    // One retry of the delivery that succeeded, and two of the one that was given up.
    assert_eq!(["done", "retry", "rejected"].map(of), [4.0, 3.0, 1.0]);
    assert_eq!(told.of("posthouse_attempt_seconds_count", &[("plugin", "counter")]), 8.0);
    assert_eq!(told.of("posthouse_queue_wait_seconds_count", &[("plugin", "counter")]), 8.0);
    assert_eq!(told.of("posthouse_accept_seconds_count", &[]), 7.0);
    assert_eq!(told.of("posthouse_dead_letters", &[("plugin", "counter")]), 2.0);
    assert_eq!(told.of("posthouse_backlog", &[("plugin", "counter")]), 0.0);
    assert_eq!(told.of("posthouse_oldest_delivery_age_seconds", &[("plugin", "counter")]), 0.0);
    let of = |kind, outcome| told.of("posthouse_outbox_total", &[("kind", kind), ("outcome", outcome)]);
    assert_eq!(["sent", "retry", "dead"].map(|outcome| of("mail", outcome)), [1.0, 0.0, 0.0]);
    assert_eq!(["sent", "retry", "dead"].map(|outcome| of("request", outcome)), [1.0, 1.0, 1.0]);
    assert_eq!(told.of("posthouse_ready", &[]) + told.of("posthouse_healthy", &[]), 2.0);
    assert_eq!(told.of("posthouse_store_state", &[("state", "writing")]), 1.0);
    assert_eq!(told.of("posthouse_backlog_limit", &[]), MOST as f64);
    assert_eq!(told.of("posthouse_database_connections_limit", &[("database", "app")]), 3.0);
    assert!(told.of("posthouse_store_bytes", &[]) > 0.0 && told.of("posthouse_disk_free_bytes", &[]) > 0.0);
    assert!(told.of("posthouse_resident_memory_bytes", &[]) > 1e6, "{}", told.text);
    assert!(told.of("posthouse_clock_step_seconds", &[]).abs() < 1.0, "{}", told.text);
    let commits = told.of("posthouse_commit_seconds_count", &[]);
    assert_eq!((commits > 0.0, told.of("posthouse_commit_batch_operations_count", &[])), (true, commits));
    told.agrees_with(&daemon.stats());

    // A paused plugin: its backlog grows and ages until no more events are accepted.
    assert_eq!(daemon.admin_post("/v1/plugins/counter/pause", &json!({})).status, 200);
    for _ in 0..MOST {
        assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    }
    assert_eq!(daemon.post_event(&Event::new("user.created")).status, 503);
    let told = scrape(&daemon);
    let of = |state| told.of("posthouse_plugin_state", &[("plugin", "counter"), ("state", state)]);
    assert_eq!(["paused", "serving", "gone"].map(of), [1.0, 0.0, 0.0]);
    assert_eq!(told.of("posthouse_backlog", &[("plugin", "counter")]), MOST as f64);
    assert_eq!(told.of("posthouse_deliveries", &[("plugin", "counter"), ("state", "held")]), MOST as f64);
    assert!(told.of("posthouse_oldest_delivery_age_seconds", &[("plugin", "counter")]) > 0.0);
    assert_eq!(told.of("posthouse_ready", &[]), 0.0);
    assert_eq!(told.of("posthouse_healthy", &[]), 1.0);
    let failed = [("source", "scalekit"), ("reason", "backlog")];
    assert_eq!(told.of("posthouse_requests_failed_total", &failed), 1.0);
    told.agrees_with(&daemon.stats());
    assert_eq!(daemon.admin_post("/v1/plugins/counter/resume", &json!({})).status, 200);
    daemon.wait_settled();

    // A file that does not load, an invalid configuration, and then a valid one.
    daemon.put_plugin("counter", b"\0asm no more");
    wait_until("the error shows", || !daemon.plugin("counter")["last_error"].is_null());
    daemon.edit_config(|config| format!("{config}\n= 1"));
    daemon.signal(Signal::HUP);
    let told = eventually("a reload was refused", || {
        let told = scrape(&daemon);
        (told.of("posthouse_config_reloads_total", &[("outcome", "refused")]) >= 1.0).then_some(told)
    });
    assert_eq!(told.of("posthouse_config_last_reload_successful", &[]), 0.0);
    assert_eq!(told.of("posthouse_plugin_error", &[("plugin", "counter")]), 1.0);
    let of =
        |outcome| told.of("posthouse_plugin_loads_total", &[("plugin", "counter"), ("outcome", outcome)]);
    assert_eq!(["loaded", "failed"].map(of), [1.0, 1.0]);
    assert_eq!(told.of("posthouse_plugin_state", &[("plugin", "counter"), ("state", "serving")]), 1.0);
    daemon.edit_config(|config| config.replace("\n= 1", ""));
    eventually("a reload was taken", || {
        (scrape(&daemon).of("posthouse_config_last_reload_successful", &[]) == 1.0).then_some(())
    });

    let told = scrape(&daemon);
    told.agrees_with(&daemon.stats());
    told.parses();
    told.is_documented();
    told.has_what_is_used_in("packaging/prometheus/alerts.yml");
    told.has_what_is_used_in("packaging/grafana/dashboard.json");
}

#[test]
fn what_a_sender_makes_up_makes_no_series() {
    let daemon = Daemon::builder(BINARY).guest("counter").start();
    let sender = daemon.sender();
    let mut connection = None;
    let mut post = |number: usize| {
        let event = Event::new(&format!("made.up.{number}"))
            .organization(format!("org_made_up_{number}"))
            .data(json!({}));
        assert!(sender.try_post_event(&mut connection, &event).unwrap().accepted());
    };
    post(0);
    assert_eq!(get(&daemon, "/made/up").status, 404);
    daemon.wait_settled();
    let before = scrape(&daemon);

    (1..=1000).for_each(&mut post);
    (0..100).for_each(|number| assert_eq!(get(&daemon, &format!("/made/up/{number}")).status, 404));
    daemon.wait_settled();
    let after = scrape(&daemon);
    let new: Vec<_> = after.series.keys().filter(|series| !before.series.contains_key(*series)).collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(!after.text.contains("made.up") && !after.text.contains("made_up"), "{}", after.text);
    let done = [("plugin", "counter"), ("type", "other"), ("outcome", "done")];
    assert_eq!(after.of("posthouse_deliveries_total", &done), 1001.0);
}

#[test]
fn a_plugin_that_is_forgotten_and_numbers_without_the_token_are_not_told() {
    let daemon = Daemon::builder(BINARY).guest("counter").start();
    assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    daemon.wait_settled();
    assert!(scrape(&daemon).text.contains("plugin=\"counter\""));
    fs::remove_file(daemon.plugin_file("counter")).unwrap();
    wait_until("the plugin is gone", || daemon.plugin("counter")["held"]["reason"] == "gone");
    let told = scrape(&daemon);
    assert_eq!(told.of("posthouse_plugin_state", &[("plugin", "counter"), ("state", "gone")]), 1.0);
    assert_eq!(daemon.admin_post("/v1/plugins/counter/forget", &json!({})).status, 200);
    let told = scrape(&daemon);
    assert!(!told.text.contains("plugin=\"counter\""), "{}", told.text);

    let mut connection = Connection::open(daemon.admin_address()).unwrap();
    connection.send(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let answer = connection.answer().unwrap();
    assert!(answer.status == 401 && !answer.body.contains("posthouse_"), "{answer}");
    let answer = daemon.admin("GET", "/metrics", None);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[test]
fn prometheus_takes_the_alerts_and_they_fire_when_they_should() {
    let dir = workspace().join("packaging/prometheus");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let output = Command::new(promtool()).args(arguments).current_dir(&dir).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("SUCCESS"), "{said}");
    }
    // Each has a severity, says what happens, and says what to do.
    let rules = fs::read_to_string(dir.join("alerts.yml")).unwrap();
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 15, "{}", alerts.len());
    let tests = fs::read_to_string(dir.join("alerts.test.yml")).unwrap();
    for alert in alerts {
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "no {part}in {alert}");
        }
        let name = alert.lines().next().unwrap();
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "no test of {name}");
    }
}

#[test]
fn prometheus_takes_every_question_of_the_dashboard() {
    let text = fs::read_to_string(workspace().join("packaging/grafana/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, target) in targets.enumerate() {
        assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
        let question = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
        rules += &format!("  - record: question_{number}\n    expr: {}\n", json!(question));
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rules.yml"), rules).unwrap();
    let check = ["check", "rules", "rules.yml"];
    let output = Command::new(promtool()).args(check).current_dir(dir.path()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));

    let (mut seen, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let title = panel["title"].as_str().unwrap();
        assert!(panel["type"] == "row" || !panel["description"].as_str().unwrap().is_empty(), "{title}");
        // No two panels overlap.
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && seen.insert((x, y)), "{title} lies over another");
            }
        }
    }
}

/// The result of one scrape.
struct Told {
    text: String,
    /// The values, by name and labels.
    series: BTreeMap<(String, BTreeMap<String, String>), f64>,
    /// The names, without suffixes such as `_bucket`, with the kind of each.
    kinds: BTreeMap<String, String>,
}

/// Returns the current numbers. A scrape just before may be repeated from a cache, so this does something
/// that must be visible in a new one.
#[track_caller]
fn scrape(daemon: &Daemon) -> Told {
    let stray = [("source", "(none)"), ("reason", "unknown-path")];
    let strays = |told: &Told| told.value("posthouse_requests_rejected_total", &stray).unwrap_or(0.0);
    let before = strays(&Told::read(&daemon.admin("GET", "/metrics", None)));
    assert_eq!(get(daemon, "/nowhere").status, 404);
    eventually("new numbers", || {
        let told = Told::read(&daemon.admin("GET", "/metrics", None));
        (strays(&told) > before).then_some(told)
    })
}

/// A GET at the webhook listener.
#[track_caller]
fn get(daemon: &Daemon, path: &str) -> Answer {
    let mut connection = daemon.connect();
    connection
        .send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    connection.answer().unwrap()
}

impl Told {
    #[track_caller]
    fn read(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{answer}");
        let text = answer.body.clone();
        let (mut series, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                kinds.insert(name.to_owned(), kind.to_owned());
            }
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let (series_of, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series_of.split_once('{').unwrap_or((series_of, "}"));
            let labels = labels.strip_suffix('}').unwrap();
            let label = |pair: &str| {
                let (label, value) = pair.split_once("=\"").unwrap();
                (label.to_owned(), value.strip_suffix('"').unwrap().to_owned())
            };
            let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(label).collect();
            let twice = series.insert((name.to_owned(), labels), value.parse().unwrap());
            assert!(twice.is_none(), "the page contains {line} twice");
        }
        Self { text, series, kinds }
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        self.series.get(&(name.to_owned(), labels)).copied()
    }

    #[track_caller]
    fn of(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.value(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?} in\n{}", self.text))
    }

    /// The labels of a metric, including `le` of a histogram.
    fn labels(&self, name: &str) -> BTreeSet<&str> {
        let of_it = self.series.keys().filter(|(series, _)| self.family(series) == name);
        of_it.flat_map(|(_, labels)| labels.keys().map(String::as_str)).collect()
    }

    /// The metric that a name in a query belongs to. A histogram has three names.
    fn family<'a>(&self, name: &'a str) -> &'a str {
        let parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(|part| name.strip_suffix(part));
        parts
            .into_iter()
            .find(|family| self.kinds.get(*family).is_some_and(|kind| kind == "histogram"))
            .unwrap_or(name)
    }

    /// Checks that the ledgers agree.
    #[track_caller]
    fn agrees_with(&self, stats: &Value) {
        assert_eq!(stats["balanced"], json!(true), "{stats}");
        let number = |value: &Value| value.as_f64().unwrap();
        for (source, counts) in stats["requests"].as_object().unwrap() {
            // The stray requests that a scrape itself makes.
            if source == "(none)" {
                continue;
            }
            let received = self.of("posthouse_requests_received_total", &[("source", source)]);
            assert_eq!(received, number(&counts["received"]), "{source}");
            for outcome in ["accepted", "duplicate", "filtered"] {
                let told = self.of("posthouse_requests_total", &[("source", source), ("outcome", outcome)]);
                assert_eq!(told, number(&counts[outcome]), "{source} {outcome}");
            }
            for outcome in ["rejected", "failed"] {
                let name = format!("posthouse_requests_{outcome}_total");
                for (reason, count) in counts[outcome].as_object().unwrap() {
                    let told = self.of(&name, &[("source", source), ("reason", reason)]);
                    assert_eq!(told, number(count), "{source} {reason}");
                }
            }
        }
        let store = &stats["store"];
        for plugin in store["plugins"].as_array().unwrap() {
            let name = plugin["plugin"].as_str().unwrap();
            let made = self.of("posthouse_deliveries_made_total", &[("plugin", name)]);
            assert_eq!(made, number(&plugin["made"]), "{name}");
            for (state, count) in plugin["states"].as_object().unwrap() {
                let told = self.of("posthouse_deliveries", &[("plugin", name), ("state", state)]);
                assert_eq!(told, number(count), "{name} {state}");
            }
            // This daemon has run since the store was created: its attempts finished all that is finished.
            for (outcome, state) in [("done", "done"), ("dead", "dead")] {
                let finished = self.series.iter().filter(|((series, labels), _)| {
                    series == "posthouse_deliveries_total"
                        && labels["plugin"] == name
                        && labels["outcome"] == outcome
                });
                let sum: f64 = finished.map(|(_, count)| count).sum();
                assert_eq!(sum, number(&plugin["states"][state]), "{name} {outcome}");
            }
        }
        for (state, count) in store["outbox"].as_object().unwrap() {
            assert_eq!(self.of("posthouse_outbox_items", &[("state", state)]), number(count), "{state}");
        }
        assert_eq!(self.of("posthouse_conflicts_total", &[]), number(&store["conflicts"]));
        assert_eq!(self.of("posthouse_lost_leases_total", &[]), number(&store["lost_leases"]));
    }

    /// Checks that Prometheus's own tool parses it without complaints.
    #[track_caller]
    fn parses(&self) {
        let mut tool = Command::new(promtool())
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        tool.stdin.take().unwrap().write_all(self.text.as_bytes()).unwrap();
        let output = tool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.trim().is_empty(), "{said}");
    }

    /// Checks that the table of docs/operations.md has what is exported: name, kind, labels.
    #[track_caller]
    fn is_documented(&self) {
        let page = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
        let rows = page.lines().filter(|line| line.starts_with("| `posthouse_"));
        let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let words = |text: &str| {
            text.split([',', ' ', '`']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let documented: BTreeMap<String, (String, BTreeSet<String>)> = rows
            .map(cells)
            .map(|cells| (cells[1].trim_matches('`').to_owned(), (cells[2].clone(), words(&cells[3]))))
            .collect();
        let exported: BTreeMap<_, _> = self
            .kinds
            .iter()
            .map(|(name, kind)| {
                let labels = self.labels(name).into_iter().filter(|label| *label != "le").map(str::to_owned);
                (name.clone(), (kind.clone(), labels.collect()))
            })
            .collect();
        assert_eq!(documented, exported);
    }

    /// Checks that everything that a file of ours asks Prometheus for is exported, with the labels that it
    /// uses.
    #[track_caller]
    fn has_what_is_used_in(&self, file: &str) {
        let text = fs::read_to_string(workspace().join(file)).unwrap().replace("\\\"", "\"");
        let mut used = BTreeSet::new();
        for (at, _) in text.match_indices("posthouse_") {
            let name = word(&text[at..]);
            used.insert(name);
            let family = self.family(name);
            assert!(self.kinds.contains_key(family), "{file} asks for {name}, which is not exported");
            let labels = self.labels(family);
            if let Some(selector) = text[at + name.len()..].strip_prefix('{') {
                let selector = selector.split('}').next().unwrap();
                for matcher in selector.split(',').filter(|matcher| !matcher.trim().is_empty()) {
                    let label = word(matcher.trim());
                    let known = labels.contains(label) || ["job", "instance"].contains(&label);
                    assert!(known, "{file} asks for {name} by `{label}`, which it does not have");
                    let value = matcher.split_once('"').unwrap().1.trim_end_matches('"');
                    // The operator chooses the values of these labels. The others have a fixed set of values.
                    if ["source", "plugin", "database", "job", "instance"].contains(&label) {
                        continue;
                    }
                    for value in value.split('|') {
                        let has = |(series, labels): &(String, BTreeMap<String, String>)| {
                            self.family(series) == family
                                && labels.get(label).is_some_and(|told| told == value)
                        };
                        let told = self.series.keys().any(has);
                        assert!(told, "{file} asks for {name} with {label} {value}, which it never has");
                    }
                }
            }
        }
        assert!(used.len() > 15, "{used:?}");
        // Labels for grouping and in legends are labels of some metric.
        let all: BTreeSet<_> =
            self.series.keys().flat_map(|(_, labels)| labels.keys().map(String::as_str)).collect();
        let groups = [" by (", " on (", " without ("].into_iter().flat_map(|word| text.split(word).skip(1));
        let grouped = groups.flat_map(|rest| rest.split(')').next().unwrap().split(',')).map(str::trim);
        let shown = text.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().trim());
        let shown = shown.filter_map(|shown| {
            let label = shown.strip_prefix("$labels.").unwrap_or(shown);
            (!label.starts_with('$')).then_some(label)
        });
        for label in grouped.chain(shown) {
            let known = all.contains(label) || ["job", "instance"].contains(&label);
            assert!(known, "{file} groups by or shows `{label}`, which nothing has");
        }
    }
}

/// The name at the beginning of a text.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// Prometheus's tool, which `cargo xtask test` installs.
fn promtool() -> PathBuf {
    let put = workspace().join("target/tools/bin/promtool");
    let told = std::env::var_os("POSTHOUSE_TEST_PROMTOOL").map(PathBuf::from);
    told.or_else(|| Some(put).filter(|program| program.is_file())).unwrap_or_else(|| "promtool".into())
}
