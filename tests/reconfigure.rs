//! config.toml changes while the daemon runs. The daemon applies what it can without losing a request, and
//! names what it can't apply. An invalid file changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::fs;

use posthouse_harness::{
    Builder, Daemon, Event, Load, NotifySocket, Sender, Signer, Source, eventually, wait_until,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// An edit of config.toml.
type Edit = fn(&str) -> String;

const OLD: &str = Source::SECRET;
const NEW: &str = "whsec_cG9zdGhvdXNlLXRlc3Qtc2VjcmV0LW5ldy1vbmUtMDE=";

#[test]
fn a_secret_is_rotated_under_load_and_no_request_is_refused() {
    let mut daemon = builder().guest("counter").prepare();
    fs::write(daemon.dir().join("first"), OLD).unwrap();
    daemon.edit_config(|config| config.replace(&format!("[{OLD:?}]"), "[{ file = \"first\" }]"));
    daemon.start();
    let old = daemon.sender();
    let new = old.clone().signed_by(Signer::Standard(NEW.into()));
    assert_eq!((status(&old), status(&new)), (200, 401));

    // The second secret is added, with a signal: from then on either is valid.
    let of_old = Load::start(&old, 100, |_| event());
    fs::write(daemon.dir().join("second"), NEW).unwrap();
    reload(&mut daemon, |config| {
        config.replace("{ file = \"first\" }", "{ file = \"first\" }, { file = \"second\" }")
    });
    assert_eq!((status(&old), status(&new)), (200, 200));
    let of_new = Load::start(&new, 100, |_| event());
    for _ in 0..5 {
        let (before, taken) = (of_new.acknowledged(), applied(&daemon));
        daemon.signal(Signal::HUP);
        wait_until("the reload is done", || applied(&daemon) > taken);
        wait_until("events flow on", || of_new.acknowledged() > before + 20);
    }
    let report = of_old.stop();
    assert_eq!(report.failures, Vec::<String>::new(), "signed with the old secret");
    let mut acknowledged = report.acknowledged.len();

    // The first secret is removed, and only the file says so: it is no longer valid.
    let taken = applied(&daemon);
    daemon.edit_config(|config| config.replace("{ file = \"first\" }, ", ""));
    wait_until("the change of the file is noticed", || applied(&daemon) > taken);
    assert_eq!((status(&old), status(&new)), (401, 200));

    // The secret's file is read again, though config.toml has not changed.
    let report = of_new.stop();
    assert_eq!(report.failures, Vec::<String>::new(), "signed with the new secret");
    acknowledged += report.acknowledged.len();
    fs::write(daemon.dir().join("second"), OLD).unwrap();
    reload(&mut daemon, str::to_owned);
    assert_eq!((status(&old), status(&new)), (200, 401));

    daemon.wait_settled();
    let stats = daemon.stats();
    assert_eq!(stats["balanced"], json!(true), "{stats}");
    // The five that `status` sent and saw accepted are events as well.
    assert_eq!(daemon.events().len(), acknowledged + 5, "{stats}");
    assert_eq!(stats["requests"]["scalekit"]["rejected"], json!({ "signature-mismatch": 3 }), "{stats}");
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing_and_says_why() {
    let manager = NotifySocket::new();
    let mut daemon = builder().notify(&manager).start();
    manager.wait_for("READY", |notice| notice.says("READY=1"));
    let wrong: [(&str, Edit, &str); 4] = [
        ("no TOML", |config| format!("{config}\n= 1"), "this is not TOML"),
        ("an unknown key", |config| format!("{config}\ntolerence = \"5m\""), "did you mean `tolerance`?"),
        (
            "a secret that is not there",
            |config| config.replace(&format!("{OLD:?}"), "{ file = \"none\" }"),
            "none",
        ),
        // Known only when its key is made, which happens after the whole file was read.
        (
            "a secret that is no key",
            |config| config.replace(OLD, "whpk_AAAA"),
            "secret 1 of source `scalekit`",
        ),
    ];
    for (what, spoil, told) in wrong {
        let before = daemon.log().len();
        let mut good = String::new();
        daemon.edit_config(|config| {
            good = config.to_owned();
            // The valid changes in it are not applied either.
            spoil(config).replace("/webhooks/scalekit", "/webhooks/elsewhere")
        });
        daemon.signal(Signal::HUP);
        manager.wait_for(what, |notice| notice.says("RELOADING=1"));
        let (_, ready) = manager.wait_for(what, |notice| notice.says("READY=1"));
        let status = ready.get("STATUS").unwrap();
        assert!(status.contains("configuration rejected") && status.contains(told), "{what}: {status}");
        let log = daemon.log().split_off(before);
        assert!(log.contains("configuration rejected") && log.contains(told), "{what}: {log}");
        assert!(!log.contains(OLD) && !status.contains(OLD), "{what}: {log}");
        assert_eq!(self::status(&daemon.sender()), 200, "{what}");

        // Once the file is fixed it is applied, and the complaint is gone.
        reload(&mut daemon, |_| good.clone());
        let (_, ready) = manager.wait_for("the fixed file", |notice| {
            notice.says("READY=1")
                && notice.get("STATUS").is_some_and(|status| !status.contains("configuration rejected"))
        });
        assert!(ready.get("STATUS").unwrap().contains("requests/s"), "{ready:?}");
        // Both the file and the signal may have caused a reload.
        while manager.hear_within(std::time::Duration::from_millis(300)).is_some() {}
    }
}

#[test]
fn what_can_not_change_while_it_runs_is_named() {
    let mut daemon = builder().start();
    let address = daemon.address();
    reload(&mut daemon, |config| {
        config
            .replace("127.0.0.1:{webhooks}", "127.0.0.1:1")
            .replace("[server]", "[store]\nmax_backlog = 7\n\n[plugins]\ndir = \"other\"\n\n[server]")
    });
    let log = daemon.log();
    for key in ["server.listen", "store.max_backlog", "plugins.dir"] {
        let named = format!("`{key}` can't change while the daemon runs");
        assert!(log.contains(&named), "{key} is not named:\n{log}");
    }
    assert!(!log.contains("`admin.listen`") && !log.contains("`server.max_body`"), "{log}");
    assert_eq!(daemon.address(), address);
    assert_eq!(status(&daemon.sender()), 200);
}

#[test]
fn sources_come_and_go_and_their_ledgers_stay() {
    let mut daemon = builder().start();
    assert_eq!(status(&daemon.sender()), 200);
    let crm = Sender { path: "/webhooks/crm".into(), ..daemon.sender() };
    assert_eq!(status(&crm), 404);
    let mut both = String::new();
    reload(&mut daemon, |config| {
        both = format!(
            "{config}\n[[source]]\nname = \"crm\"\npath = \"/webhooks/crm\"\nscheme = \"scalekit\"\n\
             secrets = [{OLD:?}]\nevents = [\"session.*\"]\n"
        );
        both.clone()
    });
    let filtered = crm.post_event(&event());
    assert_eq!(filtered.json()["filtered"], json!(true), "{filtered}");
    reload(&mut daemon, |config| config.replace("events = [\"session.*\"]", "events = [\"user.*\"]"));
    assert_eq!(status(&crm), 200);

    let only_crm = |config: &str| {
        let crm = config.rfind("[[source]]").unwrap();
        config[..config.find("[[source]]").unwrap()].to_owned() + &config[crm..]
    };
    reload(&mut daemon, only_crm);
    assert_eq!((status(&daemon.sender()), status(&crm)), (404, 200));
    let stats = daemon.stats();
    assert_eq!(stats["balanced"], json!(true), "{stats}");
    assert_eq!(stats["requests"]["scalekit"]["accepted"], json!(1), "{stats}");
    reload(&mut daemon, |_| both.clone());
    assert_eq!(status(&daemon.sender()), 200);
    assert_eq!(daemon.stats()["requests"]["scalekit"]["accepted"], json!(2));
}

#[test]
fn a_plugin_held_for_want_of_a_grant_serves_once_it_is_granted() {
    let mut daemon = builder().guest("welcome-email").start();
    let held = |plugin: &Value| plugin["held"]["reason"] == "lacks-grant";
    eventually("it is held", || Some(daemon.plugin("welcome-email")).filter(held));
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    assert_eq!(daemon.deliveries_in("held"), 1);
    reload(&mut daemon, |config| {
        format!(
            "{config}\n[plugin.welcome-email.grants]\n\
             mail = {{ from = [\"The team <team@example.com>\"], to = [\"*\"] }}\n"
        )
    });
    // In force means loaded: only the delivery is left to wait for.
    assert_eq!(daemon.plugin("welcome-email")["held"], Value::Null);
    daemon.wait_settled();
    assert_eq!(daemon.deliveries_in("done"), 1);

    reload(&mut daemon, |config| config.replace("[\"*\"] }", "[\"nobody@example.com\"] }"));
    reload(&mut daemon, |config| {
        config.replace("[plugin.welcome-email.grants]\nmail", "[plugin.other.grants]\nmail")
    });
    assert!(held(&daemon.plugin("welcome-email")), "a grant that is taken away is gone");
}

#[test]
fn a_plugin_has_its_new_settings_from_the_next_attempt_on() {
    let mut daemon = builder()
        .guest("config-probe")
        .plugin_config("[plugin.config-probe]\nevents = [\"user.*\"]\nconcurrency = 2\n[plugin.config-probe.config]\nword = \"one\"")
        .start();
    let tell = |daemon: &Daemon, event_type: &str| {
        let event = Event::new(event_type).data(json!({ "keys": ["word"] }));
        assert!(daemon.post_event(&event).accepted());
        daemon.wait_settled();
        daemon.kv("config-probe").get("config/word").cloned()
    };
    assert_eq!(tell(&daemon, "user.created").as_deref(), Some("= one"));
    let revision = daemon.plugin("config-probe")["revision"].clone();
    fs::write(daemon.dir().join("word"), "two").unwrap();
    reload(&mut daemon, |config| {
        config
            .replace("word = \"one\"", "word = { file = \"word\" }")
            .replace("[\"user.*\"]\nconcurrency = 2", "[\"session.*\"]\nconcurrency = 5")
    });
    assert_eq!(tell(&daemon, "user.created").as_deref(), Some("= one"), "it gets this type no more");
    assert_eq!(tell(&daemon, "session.created").as_deref(), Some("= two"));
    assert_eq!(daemon.plugin("config-probe")["revision"], revision);
    assert_eq!(daemon.events().len(), 3);
}

#[test]
fn the_log_follows_its_level() {
    let mut daemon = builder().start();
    let stray = |daemon: &Daemon| {
        let before = daemon.log().len();
        Sender { path: "/nowhere".into(), ..daemon.sender() }.post_event(&event());
        daemon.log().split_off(before)
    };
    assert!(stray(&daemon).contains("/nowhere"));
    reload(&mut daemon, |config| format!("[log]\nlevel = \"info,posthouse::ingress=warn\"\n\n{config}"));
    assert!(!stray(&daemon).contains("/nowhere"));
}

fn builder() -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
}

fn event() -> Event {
    Event::new("user.created").data(json!({}))
}

/// The status of the answer to this sender's event.
#[track_caller]
fn status(sender: &Sender) -> u16 {
    sender.post_event(&event()).status
}

/// Changes config.toml, and returns once the new one is applied.
#[track_caller]
fn reload(daemon: &mut Daemon, edit: impl FnOnce(&str) -> String) {
    let read = |daemon: &Daemon| daemon.log().matches("SIGHUP").count();
    daemon.edit_config(edit);
    let before = read(daemon);
    daemon.signal(Signal::HUP);
    wait_until("the daemon has logged the signal", || read(daemon) > before);
    let log = daemon.log();
    let at = log.rfind("SIGHUP").unwrap();
    let end = || {
        let log = daemon.log();
        let told = &log[at..];
        ["configuration applied", "configuration rejected"]
            .iter()
            .any(|end| told.contains(end))
            .then(|| told.to_owned())
    };
    let told = eventually("the reload is done", end);
    assert!(!told.contains("configuration rejected"), "{told}");
}

/// The number of configurations that a reload has applied.
fn applied(daemon: &Daemon) -> usize {
    daemon.log().matches("new configuration applied").count()
}
