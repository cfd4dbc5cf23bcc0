//! The admin API: what an operator can find, replay and change with it, and the record of these actions.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use posthouse_harness::{Daemon, Event, Source, eventually, seed, test_python, wait_until};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
/// A delivery is given up after one attempt.
const ONCE: &str = "[plugin.counter]\nretry = { attempts = 1 }\n";

#[test]
fn events_are_searched_by_all_that_is_known_of_them_page_by_page() {
    let daemon = Daemon::builder(BINARY).source(Source::new("one")).source(Source::new("two")).start();
    let mut ids = Vec::new();
    for n in 0..12 {
        let event = Event::new(if n % 3 == 0 { "user.deleted" } else { "user.created" })
            .data(json!({ "email": format!("Ada{n}@example.com") }));
        let source = if n % 4 == 0 { "two" } else { "one" };
        assert!(daemon.sender_of(source).post_event(&event).accepted());
        ids.push(event.id);
    }
    let found = |query: &str| -> Vec<usize> {
        let answer = daemon.admin_get(&format!("/v1/events?{query}"));
        let events = answer["events"].as_array().unwrap();
        events.iter().map(|e| ids.iter().position(|id| e["id"] == *id).unwrap()).collect()
    };
    assert_eq!(found("text=ada1@"), [1]);
    assert_eq!(found("text=ADA1"), [11, 10, 1]);
    assert_eq!(found("type=user.deleted&source=two"), [0]);
    assert_eq!(found(&format!("id={}", ids[5])), [5]);
    assert_eq!(found("since=1h&until=2999-01-01T00:00:00Z&limit=2"), [11, 10]);
    assert!(found("until=1h").is_empty());

    let (mut next, mut seen) = (String::new(), Vec::new());
    loop {
        let answer = daemon.admin_get(&format!("/v1/events?type=user.created&limit=3{next}"));
        seen.extend(answer["events"].as_array().unwrap().iter().map(|event| event["id"].clone()));
        match &answer["next"] {
            Value::Null => break,
            seq => next = format!("&before={seq}"),
        }
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
    let listed = daemon.cli(&["events", "--text", "ada1@", "--json"]);
    assert_eq!(listed.json_lines().len(), 1, "{listed:?}");
}

#[test]
fn dead_letters_are_grouped_and_a_group_is_counted_and_then_replayed() {
    let daemon = Daemon::builder(BINARY).guest("counter").plugin_config(ONCE).start();
    for data in [json!({ "reject": true }), json!({ "reject": true }), json!({ "fail": 1 })] {
        assert!(daemon.post_event(&Event::new("user.created").data(data)).accepted());
    }
    wait_until("three dead letters", || daemon.deliveries_in("dead") == 3);
    let groups = daemon.admin_get("/v1/dead-letters")["groups"].clone();
    assert_eq!(groups.as_array().unwrap().len(), 2, "{groups}");
    assert_eq!((&groups[0]["to_replay"], &groups[0]["plugin"]), (&json!(2), &json!("counter")));
    let reason = groups[0]["reason"].clone();
    let filter = json!({ "dead": true, "plugin": "counter", "reason": reason });

    let mut dry = filter.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(daemon.admin_post("/v1/replay", &dry).json(), json!({ "count": 2, "dry_run": true }));
    assert_eq!(daemon.deliveries("").len(), 3);
    assert_eq!(daemon.admin_post("/v1/replay", &filter).json()["count"], json!(2));
    wait_until("they die again", || daemon.deliveries_in("dead") == 5);
    let other = json!({ "dead": true, "type": "user.deleted" });
    assert_eq!(daemon.admin_post("/v1/replay", &other).json()["count"], json!(0));
    let audited = daemon.admin_get("/v1/audit?action=replay%20many")["audit"].clone();
    assert_eq!(audited.as_array().unwrap().len(), 2, "a dry run is nothing that was done: {audited}");
    assert_eq!(audited[1]["outcome"], json!("2 deliveries created"), "{audited}");
    assert!(audited[1]["target"].as_str().unwrap().contains("plugin counter"), "{audited}");
}

#[test]
fn all_that_an_operator_does_is_written_down_and_stays() {
    let mut daemon = Daemon::builder(BINARY).guest("counter").start();
    for path in ["/v1/plugins/counter/pause", "/v1/plugins/counter/resume"] {
        assert_eq!(daemon.admin_post(path, &json!({})).status, 200, "{path}");
    }
    assert_eq!(daemon.admin_post("/v1/plugins/nobody/pause", &json!({})).status, 404);
    assert_eq!(daemon.admin_post("/v1/outbox/replay", &json!({ "dead": true })).status, 200);
    daemon.restart();
    let audit = daemon.admin_get("/v1/audit")["audit"].clone();
    let told: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|e| ["actor", "action", "target", "outcome"].map(|key| e[key].as_str().unwrap()))
        .collect();
    assert_eq!(told[0], ["token", "replay outbox", "all dead items", "0 to be sent again"]);
    assert_eq!(told[1][..3], ["token", "pause plugin", "nobody"]);
    assert!(told[1][3].starts_with("refused: no plugin `nobody`"), "{told:?}");
    assert_eq!(told[2], ["token", "resume plugin", "counter", "done"]);
    assert_eq!(told[3], ["token", "pause plugin", "counter", "done"]);
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn a_test_event_goes_the_way_of_any_other() {
    let source = Source::new("scalekit").line(r#"events = ["user.*"]"#);
    let daemon = Daemon::builder(BINARY).source(source).guest("counter").start();
    let types = daemon.admin_get("/v1/samples")["types"].clone();
    assert!(types.as_array().unwrap().contains(&json!("user.created")), "{types}");
    let body = json!({ "type": "user.created", "id": "evt_by_hand", "data": { "log": "by hand" } });
    let sent = daemon.admin_post("/v1/sources/scalekit/test", &body).json();
    assert_eq!((&sent["status"], &sent["id"]), (&json!(200), &json!("evt_by_hand")), "{sent}");
    daemon.wait_settled();
    assert_eq!(daemon.event("evt_by_hand")["history"][0]["attempt_log"][0]["logs"][0]["message"], "by hand");
    let again = daemon.admin_post("/v1/sources/scalekit/test", &body).json();
    assert!(again["answer"].as_str().unwrap().contains("duplicate"), "{again}");
    let other = daemon.admin_post("/v1/sources/scalekit/test", &json!({ "type": "session.created" })).json();
    assert!(other["answer"].as_str().unwrap().contains("filtered"), "{other}");
    assert_eq!(daemon.admin_post("/v1/sources/nobody/test", &body).status, 404);

    let shown = daemon.admin_get("/v1/sources/scalekit");
    assert_eq!((&shown["requests"]["received"], &shown["secrets"]), (&json!(3), &json!(1)), "{shown}");
    assert_eq!(shown["last_event"]["id"], "evt_by_hand", "{shown}");
    assert!(!shown.to_string().contains(Source::SECRET), "{shown}");
}

#[test]
fn the_statistics_of_the_page_are_there_with_percentiles_and_a_series() {
    let daemon = Daemon::builder(BINARY).guest("counter").plugin_config(ONCE).start();
    for data in [json!({}), json!({}), json!({ "reject": true })] {
        assert!(daemon.post_event(&Event::new("user.created").data(data)).accepted());
    }
    daemon.wait_settled();
    let stats = daemon.admin_get("/admin/webhook-stats");
    let row = &stats[0];
    for (key, value) in [
        ("event_type", json!("user.created")),
        ("total_events", json!(3)),
        ("successful", json!(2)),
        ("failed", json!(1)),
    ] {
        assert_eq!(row[key], value, "{key} in {stats}");
    }
    let times = ["p50", "p95", "p99"].map(|of| row[format!("{of}_processing_time")].as_f64().unwrap());
    assert!(times[0] > 0.0 && times.is_sorted(), "{stats}");
    assert!(row["avg_processing_time"].as_f64().unwrap() > 0.0, "{stats}");

    let points = daemon.admin_get("/v1/series?window=10m&points=10")["points"].clone();
    let sum = |key: &str| points.as_array().unwrap().iter().filter_map(|p| p[key].as_u64()).sum::<u64>();
    assert_eq!((sum("events"), sum("completed"), sum("failed")), (3, 2, 1), "{points}");
    for odd in ["window=2d", "window=1s", "points=0", "points=241"] {
        assert_eq!(daemon.admin("GET", &format!("/v1/series?{odd}"), None).status, 400, "{odd}");
    }
}

#[test]
fn what_happens_is_told_as_it_happens_and_the_feed_ends_with_the_daemon() {
    let mut daemon = Daemon::builder(BINARY).guest("counter").start();
    assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    let mut stream = TcpStream::connect(daemon.admin_address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let token = daemon.admin_token();
    write!(stream, "GET /v1/live HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut told = |name: &str| -> Value {
        let line = format!("event: {name}");
        assert!(lines.any(|found| found == line), "no {name} came");
        let data = lines.next().unwrap();
        serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()
    };
    assert_eq!(told("counts")["made"], json!(1));
    let event = Event::new("user.deleted").data(json!({}));
    assert!(daemon.post_event(&event).accepted());
    let first = told("event");
    assert_eq!((&first["id"], &first["type"]), (&json!(event.id), &json!("user.deleted")), "{first}");
    eventually("both are counted", || (told("counts")["states"]["done"] == json!(2)).then_some(()));
    assert!(daemon.stop().success());
    assert!(!daemon.log().contains("failed during shutdown"), "{}", daemon.log());
}

#[test]
fn what_a_source_redacts_is_masked_wherever_people_look() {
    let source = Source::new("scalekit").line(r#"redact = ["/data/mail", "/data/log"]"#);
    let daemon = Daemon::builder(BINARY)
        .source(source)
        .guest("counter")
        .plugin_config("[plugin.counter.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }\n")
        .start();
    let data =
        json!({ "mail": "Ada.Lovelace@example.com", "log": "a word to hide", "fail": 1, "open": "yes" });
    let event = Event::new("user.created").data(data);
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();
    assert_eq!(daemon.mails().len(), 1, "the plugin itself gets the payload unchanged");
    let shown = daemon.admin_get(&format!("/v1/events/{}", event.id)).to_string();
    let told = daemon.cli(&["events", "show", &event.id, "--body"]).stdout;
    let listed = daemon.admin_get("/v1/outbox").to_string() + &daemon.cli(&["outbox"]).stdout;
    for (what, text) in [("the API", &shown), ("the command line", &told), ("the outbox", &listed)] {
        for hidden in ["lovelace", "a word to hide"] {
            assert!(!text.to_lowercase().contains(hidden), "{what} shows {hidden}: {text}");
        }
        assert!(text.contains("[redacted]"), "{what}: {text}");
    }
    assert!(shown.contains("yes"), "{shown}");
    assert!(!daemon.log().contains("a word to hide") && !daemon.log().to_lowercase().contains("lovelace"));
}

/// A body that no program would write in the same way again.
const ODD: &str = r#"{"z":1, "a" : 0.10,"n":123456789012345678901234567890,"big":1E400,"type":"user.created","data":{"x":-0,"x":[ ],"\ud800":"\udfff \u00e9","mail":"ada@example.com", "mail" :"ada@example.com"},"b":1.0e+2}"#;

#[test]
fn the_body_that_is_shown_is_the_body_that_came_but_for_its_masks() {
    for redact in [None, Some("/data/mail")] {
        let mut source = Source::new("scalekit");
        if let Some(pointer) = redact {
            source = source.line(&format!("redact = [{pointer:?}]"));
        }
        let daemon = Daemon::builder(BINARY).source(source).start();
        let sender = daemon.sender();
        let answer = sender.post(&sender.signer.sign_now("msg_odd", ODD.as_bytes()), ODD.as_bytes());
        assert!(answer.accepted(), "{answer}");
        let expected = match redact {
            Some(_) => ODD.replace("ada@example.com", "[redacted]"),
            None => ODD.to_owned(),
        };
        let shown = daemon.event("msg_odd");
        assert_eq!(shown["body"], json!(expected));
        assert_eq!(shown["masked"], json!(redact.is_some()));
        let told = daemon.cli(&["events", "show", "msg_odd", "--body"]).stdout;
        assert!(told.contains(&expected), "{told}");
        let told = daemon.cli(&["events", "show", "msg_odd", "--body", "--json"]).stdout;
        assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["body"], json!(expected));

        let page = daemon.admin("GET", "/events/scalekit/msg_odd", None).body;
        let escaped = |text: &str| text.replace('"', "&quot;");
        assert!(page.contains(&escaped(&expected)), "the page has no view of the bytes:\n{page}");
        // The layout has the same tokens in the same order.
        let (_, laid_out) = page.split_once("Formatted").unwrap();
        let (_, laid_out) = laid_out.split_once("<pre tabindex=\"0\">").unwrap();
        let (laid_out, _) = laid_out.split_once("</pre>").unwrap();
        let bare = |text: &str| text.replace([' ', '\n'], "");
        assert_eq!(bare(laid_out), bare(&escaped(&expected)));
        assert_eq!(page.contains("replaced by"), redact.is_some(), "{page}");
    }
}

#[test]
fn a_test_event_is_signed_and_sent_as_it_was_written() {
    let daemon = Daemon::builder(BINARY).start();
    let data = r#"{"n":0.10,"id":123456789012345678901234567890,"x":"\ud800","n":1e400}"#;
    let sent =
        daemon.cli_with_input(&["send", "own.type", "--data", "-", "--id", "evt_sent"], data.as_bytes());
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(daemon.event("evt_sent")["body"].as_str().unwrap().contains(data));
}

#[test]
fn whatever_is_asked_the_answer_is_one_that_the_description_has() {
    let daemon = Daemon::builder(BINARY).guest("counter").plugin_config(ONCE).start();
    for data in [json!({}), json!({ "reject": true }), json!({ "log": "a line" })] {
        assert!(daemon.post_event(&Event::new("user.created").data(data)).accepted());
    }
    daemon.wait_settled();
    let base = format!("http://{}", daemon.admin_address());
    // schemathesis accepts only 32 bits of a seed.
    let seed = seed() % (1 << 32);
    println!("schemathesis --seed {seed}");
    let output = Command::new(test_python().with_file_name("schemathesis"))
        .current_dir(daemon.dir())
        .args(["run", &format!("{base}/v1/openapi.json"), "--url", &base])
        .args(["--header", &format!("Authorization: Bearer {}", daemon.admin_token())])
        .args(["--seed", &seed.to_string(), "--max-examples", "15", "--no-color"])
        .args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "60"])
        // A live feed has no end.
        .args(["--exclude-path", "/v1/live", "--suppress-health-check", "all"])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,\
             response_headers_conformance,response_schema_conformance",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains(" passed"), "{said}");
    assert!(daemon.healthy(), "{}", daemon.log());
}

#[test]
fn what_a_sender_writes_is_text_on_every_page() {
    let daemon = Daemon::builder(BINARY).guest("counter").plugin_config(ONCE).start();
    let script = "<script>alert(1)</script><b a='\"'>";
    let data = json!({ "log": script, "mail": script, "reject": true, "text": script });
    let mut event = Event::new("user.created").data(data);
    event.id = "evt_<script>alert(1)</script>".to_owned();
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_settled();
    let path = "/events/scalekit/evt_%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    for path in [
        "/",
        "/events",
        path,
        "/deliveries",
        "/dead-letters",
        "/plugins/counter",
        "/events?text=%3Cscript%3E",
    ] {
        let answer = daemon.admin("GET", path, None);
        assert_eq!(answer.status, 200, "{path}: {answer}");
        assert!(!answer.body.contains("<script>") && !answer.body.contains("<b a="), "{path}: {answer}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    }
    assert!(daemon.admin("GET", path, None).body.contains("&lt;script&gt;"), "it is not shown at all");
}
