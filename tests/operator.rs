//! An operator's steps when something went wrong, with the commands for them.

use std::{fs, os::unix::fs::DirBuilderExt as _, process::Stdio};

use posthouse_harness::{Daemon, Event, Output, Signer, Source, eventually, wait_until};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
/// A plugin that may not send mail, and whose deliveries are given up after one attempt.
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

    // The fix: the missing grant.
    daemon.edit_config(|config| format!("{config}\n{GRANT}"));
    daemon.restart();

    let counted = done(&daemon.cli(&["replay", "--dead", "--dry-run"]));
    assert_eq!(counted.stdout, "3 dead letters to replay\n");
    let none =
        done(&daemon.cli(&["replay", "--dead", "--since", "2999-01-01T00:00:00Z", "--dry-run", "--json"]));
    assert_eq!(none.json_lines(), [json!({ "count": 0, "dry_run": true })]);
    assert_eq!(daemon.deliveries("").len(), 3, "a dry run made deliveries");

    let replayed = done(&daemon.cli(&["replay", "--dead", "--plugin", "counter"]));
    assert!(
        replayed.stdout.starts_with("3 dead letters") && replayed.stdout.contains("3 deliveries created")
    );
    daemon.wait_mail_settled();
    assert_eq!((daemon.deliveries_in("done"), daemon.mails().len()), (3, 3));
    assert_eq!(daemon.kv("counter")["count"], "3");

    // `events show` for one of them lists everything from the first failure to the mail.
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

    // A replay of one event takes effect again, on purpose.
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
        // Panics with a message that names the event.
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
    // Each delivery keeps its whole reason, with the event's id.
    let dead =
        done(&daemon.cli(&["deliveries", "--state", "dead", "--plugin", "hostile", "--json"])).json_lines();
    let whole =
        |delivery: &&Value| delivery["error"].as_str().unwrap().contains(delivery["event"].as_str().unwrap());
    assert_eq!(dead.iter().filter(whole).count(), 5, "{dead:?}");

    // A group is listed and replayed by its cause, and by any reason in it.
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
fn a_cause_without_a_word_is_shown_with_an_example() {
    let daemon = Daemon::builder(BINARY).guest("counter").start();
    for number in 0..3 {
        let reason = format!("{number}9f2c").repeat(1_000);
        let refused = json!({ "reject": true, "reason": reason });
        assert!(daemon.post_event(&Event::new("user.created").data(refused)).accepted());
    }
    daemon.wait_settled();
    let groups = daemon.admin_get("/v1/dead-letters")["groups"].clone();
    assert_eq!((groups.as_array().unwrap().len(), &groups[0]["count"]), (1, &json!(3)), "{groups}");
    assert_eq!(groups[0]["reason"], "…");
    let causes = done(&daemon.cli(&["deliveries", "--causes"])).stdout;
    assert!(causes.contains("…, such as 29f2c29f2c"), "{causes}");
    let page = daemon.admin("GET", "/dead-letters", None).body;
    assert!(page.contains("such as ") && page.contains("29f2c29f2c"), "{page}");
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
    // A file in the place of the mail's folder.
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
    assert_eq!(said.stdout, "1 item will be sent again\n");
    daemon.wait_mail_settled();
    let mails = daemon.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(mails[0].message_id().starts_with('<'), "{mails:?}");
    let listed = done(&daemon.cli(&["outbox"])).stdout;
    assert!(listed.contains("sent") && listed.contains("ada@example.com"), "{listed}");
}

#[test]
fn a_filter_with_an_unknown_name_says_so_and_a_known_one_without_events_is_empty() {
    let daemon = Daemon::builder(BINARY)
        .source(Source::new("quiet"))
        .source(Source::new("busy"))
        .guest("counter")
        .start();
    assert!(daemon.sender_of("busy").post_event(&Event::new("user.created").data(json!({}))).accepted());
    daemon.wait_settled();
    for (command, said) in [
        (&["events", "--source", "quiett"][..], "no source `quiett`; did you mean `quiet`?"),
        (&["events", "--type", "user.creatd"], "did you mean `user.created`?"),
        (&["events", "--type", "usr.*"], "did you mean `user.*`?"),
        (&["events", "--json", "--source", "x"], "no source `x`"),
        (&["deliveries", "--plugin", "countr"], "no plugin `countr`; did you mean `counter`?"),
        (&["deliveries", "--source", "bussy"], "did you mean `busy`?"),
        (&["deliveries", "--type", "user.creatd"], "did you mean `user.created`?"),
        (&["replay", "--dead", "--plugin", "countr"], "did you mean `counter`?"),
        (&["plugins", "show", "countr"], "did you mean `counter`?"),
        (&["plugins", "pause", "countr"], "did you mean `counter`?"),
        (&["audit", "--action", "puase"], "did you mean `pause`?"),
    ] {
        let refused = daemon.cli(command);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{command:?}: {refused:?}");
        assert!(
            refused.stderr.contains(said) && refused.stderr.lines().count() == 1,
            "{command:?}: {refused:?}"
        );
    }
    for (command, none) in [
        (&["events", "--source", "quiet"][..], "no events\n"),
        (&["events", "--source", "plugin:counter"], "no events\n"),
        (&["events", "--type", "user.deleted"], "no events\n"),
        (&["deliveries", "--plugin", "counter", "--state", "dead"], "no deliveries\n"),
        (&["events", "--organization", "nobody"], "no events\n"),
    ] {
        assert_eq!(done(&daemon.cli(command)).stdout, none, "{command:?}");
    }
}

#[test]
fn any_id_leads_to_what_it_is_of() {
    let daemon = Daemon::builder(BINARY).guest("counter").plugin_config(GRANT).start();
    let event = Event::new("user.created").data(json!({ "mail": "ada@example.com" }));
    assert!(daemon.post_event(&event).accepted());
    daemon.wait_mail_settled();
    let delivery = daemon.deliveries("")[0]["id"].as_str().unwrap().to_owned();
    let message = daemon.mails()[0].message_id().to_owned();

    for id in [&event.id, &delivery, &message, &message.trim_matches(['<', '>']).to_owned()] {
        let shown = done(&daemon.cli(&["events", "show", id])).stdout;
        assert!(shown.starts_with(&format!("event         {}\n", event.id)), "{id}: {shown}");
    }
    for id in [&delivery, &message] {
        let shown = done(&daemon.cli(&["deliveries", "show", id])).stdout;
        for part in [&delivery, &event.id, "counter", "attempt 1", "mail 1"] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
    }
    assert_eq!(
        done(&daemon.cli(&["deliveries", "show", &delivery, "--json"])).json_lines()[0]["id"],
        json!(delivery)
    );
    for id in ["1", &message, &delivery] {
        let shown = done(&daemon.cli(&["outbox", "show", id])).stdout;
        for part in [&delivery, &event.id, &message, "staged", "finished", "ada@example.com"] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
    }
    for (command, said) in [
        (&["deliveries", "show", &event.id][..], "is an event"),
        (&["deliveries", "show", "counter"], "is a plugin"),
        (&["deliveries", "show", "dlv_5"], "no delivery `dlv_5`"),
        (&["events", "show", "counter"], "is a plugin"),
        (&["events", "show", "scalekit"], "is a source"),
        (&["events", "show", "dlv_5"], "no delivery `dlv_5`"),
        (&["plugins", "show", &delivery], "is a delivery"),
        (&["outbox", "show", "99"], "no item `99`"),
        (&["outbox", "show", &event.id], "is an event"),
        (&["outbox", "replay", "99"], "no item `99`"),
        (&["outbox", "replay", "1"], "item 1 of the outbox is `sent`"),
        (&["outbox", "replay", &delivery], "item 1 is sent"),
        (&["replay", "dlv_5"], "no delivery `dlv_5`"),
    ] {
        let refused = daemon.cli(command);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{command:?}: {refused:?}");
        assert!(
            refused.stderr.contains(said) && refused.stderr.lines().count() == 1,
            "{command:?}: {refused:?}"
        );
    }

    // A delivery is replayed for its own plugin.
    let again = done(&daemon.cli(&["replay", &delivery])).stdout;
    assert!(again.starts_with("1 delivery created"), "{again}");
    wait_until("it ran again", || daemon.deliveries_in("done") == 2);
    assert_eq!(daemon.kv("counter")[&format!("seen/{}", event.id)], "2");
}

#[test]
fn a_time_is_what_people_write_and_a_day_counts_to_its_end() {
    let daemon = Daemon::builder(BINARY).start();
    assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    let event = daemon.events().remove(0);
    let day = &event["received_at"].as_str().unwrap()[..10];
    for (arguments, found) in [
        (&["--since", "yesterday"][..], 1),
        (&["--since", "2h"], 1),
        (&["--since", day], 1),
        (&["--since", day, "--until", day], 1),
        (&["--since", "2999-11-30 14:00"], 0),
        (&["--until", "2000-01-01"], 0),
        (&["--since", "1000000000"], 1),
    ] {
        let listed = done(&daemon.cli(&[&["events", "--json"], arguments].concat()));
        assert_eq!(listed.json_lines().len(), found, "{arguments:?}");
    }
    for path in ["since=yesterday", "since=2h", "since=2000-01-01%2014:00"] {
        let found = daemon.admin_get(&format!("/v1/events?{path}"));
        assert_eq!(found["events"].as_array().unwrap().len(), 1, "{path}");
    }
    let refused = daemon.cli(&["events", "--since", "tomorrow"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("`yesterday`"), "{refused:?}");
}

#[test]
fn a_file_that_is_ignored_shows_wherever_plugins_are_listed() {
    let daemon = Daemon::builder(BINARY).guest("counter").start();
    fs::write(daemon.dir().join("plugins/Upper.wasm"), "").unwrap();
    fs::write(daemon.dir().join("plugins/code.cwasm"), "").unwrap();
    wait_until("both are seen", || {
        daemon.admin_get("/v1/plugins")["ignored"].as_array().is_some_and(|ignored| ignored.len() == 2)
    });
    let listed = done(&daemon.cli(&["plugins"])).stdout;
    assert!(
        listed.contains("`Upper.wasm`: a plugin's name is") && listed.contains("`code.cwasm`"),
        "{listed}"
    );
    let json = daemon.cli(&["plugins", "--json"]);
    assert_eq!((json.json_lines().len(), json.stderr.lines().count()), (1, 2), "{json:?}");
    for path in ["/plugins", "/"] {
        let page = daemon.admin("GET", path, None).body;
        assert!(
            page.contains(if path == "/" { "in the plugins folder are ignored" } else { "Upper.wasm" }),
            "{page}"
        );
    }
    fs::remove_file(daemon.dir().join("plugins/Upper.wasm")).unwrap();
    wait_until("it is forgotten", || {
        daemon.admin_get("/v1/plugins")["ignored"].as_array().unwrap().len() == 1
    });
}

#[test]
fn one_word_of_an_action_finds_it_in_the_audit_log() {
    let daemon = Daemon::builder(BINARY).guest("counter").start();
    done(&daemon.cli(&["plugins", "pause", "counter"]));
    done(&daemon.cli(&["plugins", "resume", "counter"]));
    for (action, found) in [("pause", 1), ("pause plugin", 1), ("plugin", 2), ("Resume", 1), ("replay", 0)] {
        let listed = done(&daemon.cli(&["audit", "--action", action, "--json"]));
        assert_eq!(listed.json_lines().len(), found, "{action}");
    }
}

#[test]
fn what_never_ran_has_no_duration() {
    let daemon = Daemon::builder(BINARY).guest("counter").start();
    done(&daemon.cli(&["plugins", "pause", "counter"]));
    assert!(daemon.post_event(&Event::new("user.created").data(json!({}))).accepted());
    wait_until("the delivery is held", || daemon.deliveries_in("held") == 1);
    let row = &daemon.stats()["store"]["by_type"][0];
    assert_eq!((&row["total"], &row["average_ms"], &row["p99_ms"]), (&json!(1), &Value::Null, &Value::Null));
    let said = done(&daemon.cli(&["stats"])).stdout;
    let row = said.lines().find(|line| line.starts_with("user.created")).unwrap();
    assert!(row.contains('–') && !row.contains("0.0 ms"), "{said}");
    let page = daemon.admin("GET", "/", None).body;
    assert!(page.contains('–') && !page.contains("0.00 ms"), "{page}");
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
    for wrong in [&["replay"][..], &["replay", "evt_1", "--dead"], &["events", "--since", "tomorrow"]] {
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

/// The counts, after a check that they add up.
#[track_caller]
fn assert_balanced(daemon: &Daemon) -> Value {
    let stats = done(&daemon.cli(&["stats", "--json"])).json_lines().remove(0);
    assert_eq!((&stats["balanced"], &stats["problems"]), (&json!(true), &json!([])), "{stats}");
    stats
}
