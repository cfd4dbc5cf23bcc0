//! One file in the plugins folder serves several plugins: `component` in config.toml. Each has a name, settings, keys,
//! deliveries and counts of its own.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use std::fs;

use posthouse_harness::{Daemon, Event, Source, eventually, wait_until};
use serde_json::json;

const TABLES: &str = r#"
[plugin.one]
component = "config-probe"
[plugin.one.config]
colour = "red"

[plugin.two]
component = "config-probe"
events = ["user.*"]
[plugin.two.config]
colour = "blue"
"#;

#[test]
fn one_file_serves_two_plugins_with_their_own_settings_keys_and_counts() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .set("plugins", "rescan = \"200ms\"")
        .source(Source::new("scalekit"))
        .guest("config-probe")
        .toml(TABLES)
        .start();
    let names: Vec<_> = daemon.admin_get("/v1/plugins")["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(names, ["one", "two"], "the file itself is no plugin");
    let asks = json!({ "keys": ["colour"] });
    for event_type in ["user.created", "session.ended"] {
        daemon.post_event(&Event::new(event_type).data(asks.clone()));
    }
    daemon.wait_settled();
    let (one, two) = (daemon.kv("one"), daemon.kv("two"));
    assert_eq!(one["config/colour"], "= red");
    assert_eq!(two["config/colour"], "= blue");
    assert_eq!((one.len(), two.len()), (3, 2), "`two` gets events of users only");
    assert_eq!(
        (daemon.plugin("one")["made"].clone(), daemon.plugin("two")["made"].clone()),
        (json!(2), json!(1))
    );
    let metrics = daemon.admin("GET", "/metrics", None).body;
    for name in ["one", "two"] {
        assert!(metrics.contains(&format!("plugin=\"{name}\"")), "{metrics}");
    }
    assert!(!metrics.contains("plugin=\"config-probe\""), "{metrics}");
    let told = daemon.cli(&["check"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("of config-probe.wasm"), "{told:?}");

    // A new file replaces both; one that is gone holds both, and is named.
    let before = daemon.plugin("one")["revision"].clone();
    daemon.put_plugin(
        "config-probe",
        &posthouse_harness::new_revision(&posthouse_harness::guest("config-probe"), 1),
    );
    for name in ["one", "two"] {
        wait_until("the new revision serves", || daemon.plugin(name)["revision"] != before);
    }
    fs::remove_file(daemon.plugin_file("config-probe")).unwrap();
    for name in ["one", "two"] {
        let gone = eventually("the file is missed", || {
            Some(daemon.plugin(name))
                .filter(|plugin| plugin["held"]["reason"] == "gone" && plugin["last_error"].is_string())
        });
        let error = gone["last_error"].as_str().unwrap();
        assert_eq!(error, "`config-probe.wasm`, its `component`, is not in the plugins folder");
    }
    let told = daemon.cli(&["check"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(
        told.stderr.contains("plugin `one` does not load: `config-probe.wasm`, its `component`"),
        "{told:?}"
    );
    assert!(daemon.cli(&["plugins"]).stdout.contains("two"));

    // Its deliveries wait for the file.
    daemon.post_event(&Event::new("user.created").data(asks));
    wait_until("both are held", || daemon.deliveries_in("held") == 2);
    daemon.put_plugin("config-probe", &posthouse_harness::guest("config-probe"));
    wait_until("nothing is held any more", || daemon.deliveries_in("held") == 0);
    daemon.wait_settled();
    assert_eq!((daemon.kv("one").len(), daemon.kv("two").len()), (4, 3));
}

#[test]
fn a_plugin_begins_no_more_attempts_than_its_rate() {
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("counter")
        .toml("[plugin.counter]\nrate = { per_second = 0.01, burst = 3 }")
        .start();
    for _ in 0..5 {
        daemon.post_event(&Event::new("user.created").data(json!({})));
    }
    wait_until("the burst is done", || daemon.deliveries_in("done") == 3);
    assert_eq!(daemon.kv("counter")["count"], "3", "the others wait for their turn");
    // A new rate applies from the reload on.
    daemon.edit_config(|config| config.replace("per_second = 0.01, burst = 3", "per_second = 1000"));
    daemon.wait_settled();
    assert_eq!(daemon.kv("counter")["count"], "5");
    let failed =
        daemon.deliveries("").into_iter().filter(|delivery| delivery["attempts"] != json!(1)).count();
    assert_eq!(failed, 0, "waiting uses up no attempt");
}
