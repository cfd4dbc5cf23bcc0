//! What an operator does when something went wrong, with the commands an operator has.

use std::{fs, os::unix::fs::DirBuilderExt as _, process::Stdio};

use posthouse_harness::{Daemon, Event, Output, Signer, Source, eventually, wait_until};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
/// A plugin that may not send mail, and gives up at once.
const WITHOUT_GRANT: &str = "[plugin.counter]\nretry = { attempts = 1 }\n";
const GRANT: &str = "[plugin.counter.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }\n";

#[test]
fn dead_letters_are_counted_and_run_again_once_the_plugin_is_mended() {
    let mut daemon = Daemon::builder(BINARY).guest("counter").plugin_config(WITHOUT_GRANT).start();
    let events: Vec<_> = (0..3)
        .map(|_| Event::new("user.created").data(json!({ "log": "counted it", "mail": "ada@example.com" })))
        .collect();
    for event in &events {
        assert!(daemon.post_event(event).accepted());
    }
    wait_until("three dead letters", || daemon.deliveries_in("dead") == 3);
    assert!(daemon.kv("counter").is_empty(), "what failed took effect");
    let listed = done(&daemon.cli(&["deliveries", "--state", "dead", "--json"]));
    assert_eq!(listed.json_lines().len(), 3, "{listed:?}");

    // Mended: the grant that was missing.
    daemon.edit_config(|config| format!("{config}\n{GRANT}"));
    daemon.restart();

    let counted = done(&daemon.cli(&["replay", "--dead", "--dry-run"]));
    assert_eq!(counted.stdout, "3 dead letters to replay\n");
    let none =
        done(&daemon.cli(&["replay", "--dead", "--since", "2999-01-01T00:00:00Z", "--dry-run", "--json"]));
    assert_eq!(none.json_lines(), [json!({ "count": 0, "dry_run": true })]);
    assert_eq!(daemon.deliveries("").len(), 3, "a dry run made deliveries");

    let replayed = done(&daemon.cli(&["replay", "--dead", "--plugin", "counter"]));
    assert!(replayed.stdout.starts_with("3 dead letters") && replayed.stdout.contains("3 deliveries made"));
    daemon.wait_mail_settled();
    assert_eq!((daemon.deliveries_in("done"), daemon.mails().len()), (3, 3));
    assert_eq!(daemon.kv("counter")["count"], "3");

    // The story of one of them, from the first failure to the mail.
    let told = done(&daemon.cli(&["events", "show", &events[0].id])).stdout;
    for part in [
        events[0].id.as_str(),
        "user.created",
        "scalekit",
        "for counter: dead",
        "for counter: done",
        "a replay of dlv_",
        "attempt 1, ",
        "no grant for mail",
        "[info] counted it",
        "mail ",
        "sent",
        "ada@example.com",
        "--body prints it",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    assert!(!told.contains("spec_version"), "the body was not asked for:\n{told}");
    let told = done(&daemon.cli(&["events", "show", &events[0].id, "--body"])).stdout;
    assert!(told.contains("spec_version"), "{told}");

    // One event by hand takes effect again, on purpose.
    let again = done(&daemon.cli(&["replay", &events[0].id, "--json"]));
    assert_eq!(again.json_lines()[0]["count"], json!(1), "{again:?}");
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter")[&format!("seen/{}", events[0].id)], "2");
    assert_balanced(&daemon);
}

#[test]
fn dead_letters_of_one_cause_are_one_group_whatever_ids_are_in_their_reasons() {
    let daemon = Daemon::builder(BINARY)
        .guest("hostile")
        .guest("http-probe")
        .toml(
            "[plugin.hostile]\nevents = [\"hostile.*\"]\nretry = { attempts = 1 }\n\
             [plugin.http-probe]\nevents = [\"user.*\"]\nretry = { attempts = 1 }\n",
        )
        .start();
    let post = |event: Event| assert!(daemon.post_event(&event).accepted());
    for _ in 0..4 {
        // Panics, and the panic names the event.
        post(Event::new("hostile.asked").data(json!({ "action": "trap" })));
    }
    post(Event::new("hostile.asked").data(json!({ "action": "no-such" })));
    for _ in 0..2 {
        // Another panic.
        post(Event::new("user.created").data(json!({ "trap": 9, "requests": [] })));
    }
    daemon.wait_settled();

    let groups = || daemon.admin("GET", "/v1/dead-letters", None).json()["groups"].clone();
    let group = |groups: &Value, words: &str| {
        let found: Vec<_> = groups
            .as_array()
            .unwrap()
            .iter()
            .filter(|group| group["reason"].as_str().unwrap().contains(words))
            .cloned()
            .collect();
        assert_eq!(found.len(), 1, "{words}: {groups}");
        found[0].clone()
    };
    let told = groups();
    assert_eq!(told.as_array().unwrap().len(), 3, "{told}");
    let wire = group(&told, "stepped on the wire with …");
    assert_eq!((&wire["count"], &wire["plugin"]), (&json!(4), &json!("hostile")));
    assert!(wire["reason"].as_str().unwrap().starts_with("panicked at "), "{wire}");
    assert_eq!(group(&told, "asked to trap")["count"], json!(2));
    // Each delivery keeps its whole reason, the event's id in it.
    let dead =
        done(&daemon.cli(&["deliveries", "--state", "dead", "--plugin", "hostile", "--json"])).json_lines();
    let whole =
        |delivery: &&Value| delivery["error"].as_str().unwrap().contains(delivery["event"].as_str().unwrap());
    assert_eq!(dead.iter().filter(whole).count(), 5, "{dead:?}");

    // A group is listed and run again by its cause, and by any reason in it.
    let example = wire["example"].as_str().unwrap();
    for reason in [example, wire["reason"].as_str().unwrap()] {
        let listed = done(&daemon.cli(&["deliveries", "--state", "dead", "--reason", reason, "--json"]));
        assert_eq!(listed.json_lines().len(), 4, "{listed:?}");
    }
    let counted = done(&daemon.cli(&["replay", "--dead", "--reason", example, "--dry-run"]));
    assert_eq!(counted.stdout, "4 dead letters to replay\n");
    done(&daemon.cli(&["replay", "--dead", "--reason", example]));
    daemon.wait_settled();
    let told = groups();
    assert_eq!(group(&told, "stepped on the wire")["count"], json!(8));
    assert_eq!(group(&told, "asked to trap")["to_replay"], json!(2), "the others were left alone");
    let causes = done(&daemon.cli(&["deliveries", "--causes"])).stdout;
    assert!(causes.contains("stepped on the wire with …") && causes.contains("asked to trap"), "{causes}");
    let page = daemon.admin("GET", "/dead-letters", None).body;
    assert!(page.contains("stepped on the wire with …"), "{page}");
}

#[test]
fn a_paused_plugin_holds_its_deliveries_even_over_a_restart() {
    let mut daemon = Daemon::builder(BINARY).guest("counter").start();
    let said = done(&daemon.cli(&["plugins", "pause", "counter"]));
    assert!(said.stdout.contains("posthouse plugins resume counter"), "{said:?}");
    assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    wait_until("the delivery is held", || daemon.deliveries_in("held") == 1);
    daemon.restart();
    assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    wait_until("both deliveries are held", || daemon.deliveries_in("held") == 2);

    let listed = done(&daemon.cli(&["plugins"])).stdout;
    assert!(listed.contains("held") && listed.contains("paused by an operator"), "{listed}");
    let shown = &done(&daemon.cli(&["plugins", "show", "counter", "--json"])).json_lines()[0];
    assert_eq!((&shown["paused"], &shown["deliveries"]["held"]), (&json!(true), &json!(2)), "{shown}");
    assert!(daemon.kv("counter").is_empty());

    done(&daemon.cli(&["plugins", "resume", "counter"]));
    daemon.wait_settled();
    wait_until("both deliveries are done", || daemon.deliveries_in("done") == 2);
    assert_eq!(daemon.kv("counter")["count"], "2");
    assert_balanced(&daemon);

    let refused = daemon.cli(&["plugins", "forget", "counter"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("counter.wasm"), "{refused:?}");
    fs::remove_file(daemon.plugin_file("counter")).unwrap();
    wait_until("the plugin is gone", || daemon.plugin("counter")["held"]["reason"] == "gone");
    done(&daemon.cli(&["plugins", "forget", "counter"]));
    assert_eq!(daemon.plugin("counter"), Value::Null);
}

#[test]
fn both_ledgers_add_up_whatever_came() {
    let source = Source::new("scalekit").line(r#"events = ["user.*"]"#);
    let daemon = Daemon::builder(BINARY).source(source).guest("counter").start();
    let event = Event::new("user.created").data(json!({}));
    assert!(daemon.post_event(&event).accepted());
    assert!(daemon.post_event(&event).duplicate());
    assert_eq!(daemon.post_event(&Event::new("session.created")).status, 200);
    let stranger =
        daemon.sender().signed_by(Signer::Standard("whsec_c3RyYW5nZXItc3RyYW5nZXItc3RyYW5nZXI=".into()));
    assert_eq!(stranger.post_event(&Event::new("user.created")).status, 401);
    daemon.wait_settled();

    let stats = assert_balanced(&daemon);
    let counts = &stats["requests"]["scalekit"];
    for (what, count) in
        [("received", 4), ("accepted", 1), ("duplicate", 1), ("filtered", 1), ("under_way", 0)]
    {
        assert_eq!(counts[what], json!(count), "{what} in {stats}");
    }
    let rejected: u64 = counts["rejected"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(rejected, 1, "{stats}");
    assert_eq!(
        (&stats["store"]["made"], &stats["store"]["states"]["done"]),
        (&json!(1), &json!(1)),
        "{stats}"
    );
    let said = done(&daemon.cli(&["stats"])).stdout;
    assert!(said.contains("both ledgers add up") && said.contains("user.created"), "{said}");
}

#[test]
fn mail_that_was_given_up_is_sent_again_with_the_id_it_had() {
    let mut daemon = Daemon::builder(BINARY)
        .set("mail", "retry = { attempts = 1 }")
        .guest("counter")
        .plugin_config(GRANT)
        .prepare();
    // A file where the folder of the mail should be.
    let data = daemon.dir().join("data");
    fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    fs::write(data.join("mail"), "").unwrap();
    daemon.start();
    let event = Event::new("user.created").data(json!({ "mail": "ada@example.com" }));
    assert!(daemon.post_event(&event).accepted());
    let dead = eventually("a mail given up", || {
        done(&daemon.cli(&["outbox", "--state", "dead", "--json"])).json_lines().pop()
    });
    assert_eq!(dead["attempts"], json!(1), "{dead}");
    assert!(dead["error"].as_str().unwrap().contains("data/mail"), "{dead}");
    assert_eq!(daemon.deliveries_in("done"), 1, "the delivery itself is done");

    fs::remove_file(data.join("mail")).unwrap();
    let said = done(&daemon.cli(&["outbox", "replay"]));
    assert_eq!(said.stdout, "1 item is sent again\n");
    daemon.wait_mail_settled();
    let mails = daemon.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(mails[0].message_id().starts_with('<'), "{mails:?}");
    let listed = done(&daemon.cli(&["outbox"])).stdout;
    assert!(listed.contains("sent") && listed.contains("ada@example.com"), "{listed}");
}

#[test]
fn without_a_daemon_each_command_says_so_in_one_line() {
    let daemon = Daemon::builder(BINARY).prepare();
    let address = daemon.admin_address().to_string();
    for command in [
        &["stats"][..],
        &["events"],
        &["events", "show", "evt_1"],
        &["deliveries"],
        &["replay", "--dead"],
        &["plugins"],
        &["plugins", "pause", "counter"],
        &["outbox", "replay"],
    ] {
        let output = daemon.cli(command);
        assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{command:?}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{command:?}: {output:?}");
        assert!(output.stderr.contains(&address) && output.stderr.contains("posthouse serve"), "{output:?}");
    }
    for wrong in [&["replay"][..], &["replay", "evt_1", "--dead"], &["events", "--since", "yesterday"]] {
        assert_eq!(daemon.cli(wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let daemon = Daemon::builder(BINARY).start();
    for command in [&["stats"][..], &["events", "--json"], &["plugins"]] {
        let mut child =
            daemon.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{command:?}: {:?} {said}", output.status);
    }
}

/// The output of a command that must have done its work.
#[track_caller]
fn done(output: &Output) -> Output {
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    output.clone()
}

/// The counts, once they add up.
#[track_caller]
fn assert_balanced(daemon: &Daemon) -> Value {
    let stats = done(&daemon.cli(&["stats", "--json"])).json_lines().remove(0);
    assert_eq!((&stats["balanced"], &stats["problems"]), (&json!(true), &json!([])), "{stats}");
    stats
}
