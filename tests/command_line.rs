//! The commands' promises to a shell: their output, on which stream, and their exit code. 0 is success, 1
//! failure, 2 a command that makes no sense, 78 a config.toml with an error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use posthouse_harness::{Daemon, Source, guest, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
const CONFIG: &str = r#"
[[source]]
name = "standard"
path = "/webhooks/standard"
scheme = "standard-webhooks"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]

[[source]]
name = "documented"
path = "/webhooks/documented"
scheme = "scalekit-documented"
secrets = ["taken as it stands"]

[[source]]
name = "either"
path = "/webhooks/either"
scheme = "scalekit"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]
"#;
const NAMES: [&str; 3] = ["standard", "documented", "either"];
const BODY: &str = "{\"id\":\"evt_1\",\"type\":\"user.created\",\"data\":{}}";

/// A folder with [`CONFIG`], in which commands run.
struct Shell(TempDir);

#[derive(Debug, PartialEq)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Shell {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.toml"), CONFIG).unwrap();
        Self(folder)
    }

    fn run(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command may end without reading its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Verifies the body with these headers, one a line.
    fn verify(&self, source: &str, headers: &str, more: &[&str], body: &str) -> Ended {
        let headers = headers.lines().flat_map(|header| ["-H", header]);
        let arguments: Vec<_> = ["verify", "--source", source].into_iter().chain(headers).collect();
        self.run(&[&arguments, more].concat(), body)
    }
}

impl Ended {
    /// Checks that it ended with this code and one line of error. Returns the line.
    fn error(&self, code: i32) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        let line = self.stderr.strip_suffix('\n').expect(&self.stderr);
        assert!(line.starts_with("posthouse: ") && !line.contains('\n'), "{line}");
        line
    }
}

#[test]
fn what_sign_prints_verify_takes_in_every_scheme() {
    let shell = Shell::new();
    for source in NAMES {
        for body in [BODY, "{\"a\":\"é\"}\r\n\r\n"] {
            let signed = shell.run(&["sign", "--source", source], body);
            assert_eq!(signed.code, Some(0), "{signed:?}");
            let verified = shell.verify(source, &signed.stdout, &[], body);
            assert_eq!((verified.code, verified.stdout.as_str()), (Some(0), "valid\n"), "{verified:?}");

            let tampered = shell.verify(source, &signed.stdout, &[], &format!("{body} "));
            assert_eq!(tampered.code, Some(1), "{tampered:?}");
            assert!(tampered.stdout.starts_with("invalid: "), "{tampered:?}");
            assert_eq!(tampered.stdout.lines().count(), 1, "{tampered:?}");
        }
    }
}

#[test]
fn sign_and_verify_take_id_time_and_file() {
    let shell = Shell::new();
    fs::write(shell.0.path().join("body.json"), BODY).unwrap();
    let at = ["--at", "1765281881", "--body", "body.json"];
    let signed = shell.run(&[&["sign", "--source", "standard", "--id", "msg_1"][..], &at].concat(), "");
    assert_eq!(
        signed.stdout,
        "webhook-id: msg_1\nwebhook-timestamp: 1765281881\n\
         webhook-signature: v1,zzkUhSYmO/ueRnKNLDg79T9Laxhod09z98u5nJfpYZY=\n"
    );
    let headers = signed.stdout;
    assert_eq!(shell.verify("standard", &headers, &at, "").stdout, "valid\n");
    let late = shell.verify("standard", &headers, &["--at", "1765282300", "--body", "body.json"], "");
    assert_eq!(late.code, Some(1));
    assert!(late.stdout.contains("419 s old; the tolerance is 300 s"), "{late:?}");
    assert!(late.stderr.contains("apart from its time the signature holds"), "{late:?}");
    let unsigned = shell.verify("standard", "", &[], BODY);
    assert_eq!(unsigned.code, Some(1));
    assert!(unsigned.stdout.starts_with("invalid: "), "{unsigned:?}");

    let documented = [&["sign", "--source", "documented"][..], &at].concat();
    let documented = shell.run(&documented, "").stdout;
    assert_eq!(
        documented,
        "scalekit-signature: t=1765281881,v1=9be7ff9dc353192db5831526ef092182590a3d843ed3e7c26736f280ec5759fd\n"
    );
}

#[test]
fn a_command_that_makes_no_sense_is_told_so_in_one_line() {
    let shell = Shell::new();
    for (arguments, part) in [
        (&[][..], "posthouse --help"),
        (&["serv"], "'serve'"),
        (&["serve", "--fast"], "'--fast'"),
        (&["verify"], "--source"),
        (&["verify", "--source", "standrd"], "did you mean `standard`?"),
        (&["verify", "--source", "x"], "`standard`, `documented`, `either`"),
        (&["verify", "--source", "standard", "-H", "no colon"], "NAME: VALUE"),
        (&["verify", "--source", "standard", "--at", "noon"], "whole seconds since 1970"),
        (&["sign", "--source", "standard", "--at", "999999999999999"], "whole seconds since 1970"),
        (&["send"], "<TYPE>"),
        (&["send", "user.creatd"], "did you mean `user.created`?"),
        (&["send", "user.created"], "choose one with --source"),
        (&["send", "user.created", "--source", "standard", "--count", "0"], "--count"),
        (&["send", "odd type", "--source", "standard", "--data", "-"], "event type"),
    ] {
        let ended = shell.run(arguments, "{}");
        assert!(ended.error(2).contains(part), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn what_can_not_be_done_names_the_thing() {
    let shell = Shell::new();
    for (arguments, part) in [
        (&["verify", "--source", "standard", "--body", "nowhere.json"][..], "`nowhere.json`"),
        (&["sign", "--source", "standard", "--id", "a.b"], "`a.b`"),
        (&["send", "user.created", "--source", "either", "--data", "nowhere.json"], "`nowhere.json`"),
        (&["send", "user.created", "--source", "either", "--data", "-"], "not JSON"),
        (&["send", "user.created", "--source", "either", "--url", "http://127.0.0.1:9/w"], "posthouse serve"),
        (
            &["send", "user.created", "--source", "either", "--url", "nonsense"],
            "did you mean `http://nonsense`?",
        ),
    ] {
        let ended = shell.run(arguments, "{");
        assert!(ended.error(1).contains(part), "{arguments:?}: {}", ended.stderr);
    }
    fs::write(shell.0.path().join("config.toml"), "[server]\nlisen = 1\n").unwrap();
    for command in [&["serve"][..], &["check"], &["stats"], &["sign", "--source", "x"]] {
        let ended = shell.run(command, "");
        assert!(ended.error(78).contains("config.toml:2:1"), "{command:?}: {}", ended.stderr);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let shell = Shell::new();
    let help = shell.run(&["--help"], "");
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for command in [
        "init",
        "serve",
        "check",
        "verify",
        "sign",
        "send",
        "events",
        "deliveries",
        "replay",
        "catch-up",
        "plugins",
        "stats",
        "audit",
        "backup",
        "restore",
        "doctor",
        "completions",
    ] {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command} is not in:\n{}", help.stdout);
        assert_eq!(shell.run(&[command, "--help"], "").code, Some(0), "{command}");
    }
    assert!(!help.stdout.contains("compile"), "{}", help.stdout);
    assert_eq!(shell.run(&["--version"], "").stdout, concat!("posthouse ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn nobody_is_offered_the_command_that_only_the_daemon_runs() {
    let shell = Shell::new();
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = shell.run(&["completions", name], "");
        assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""), "{name}");
        assert!(script.stdout.contains("deliveries") && !script.stdout.contains("compile"), "{name}");
    }
    for wrong in ["compil", "compile", "compiles"] {
        let refused = shell.run(&[wrong], "");
        assert!(!refused.error(2).contains("'compile'") || wrong == "compile", "{refused:?}");
    }
    assert!(shell.run(&["completions", "basch"], "").error(2).contains("'bash'"));
}

#[test]
fn an_address_without_its_scheme_and_a_file_in_another_encoding_are_told_apart_from_the_rest() {
    let daemon = Daemon::builder(BINARY).start();
    let host = daemon.address().to_string();
    for url in [format!("{host}/webhooks/scalekit"), format!("localhost:{}/hook", daemon.address().port())] {
        let refused = daemon.cli(&["send", "user.created", "--url", &url]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(&format!("did you mean `http://{url}`?")), "{refused:?}");
    }
    let text = "{\"name\":\"Zoë\"}";
    let wide: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [format!("\u{feff}{text}").into_bytes(), wide] {
        fs::write(daemon.dir().join("data.json"), bytes).unwrap();
        let sent = daemon.cli(&["send", "user.created", "--id", "evt_wide", "--data", "data.json"]);
        assert_eq!(sent.code, Some(0), "{sent:?}");
    }
    let event = daemon.admin_get("/v1/events/evt_wide");
    assert!(event["events"][0]["body"].as_str().unwrap().contains("Zoë"), "{event}");
    fs::write(daemon.dir().join("data.json"), b"{\0\"\0a").unwrap();
    let refused = daemon.cli(&["send", "user.created", "--data", "data.json"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("save it as UTF-8"), "{refused:?}");
}

/// From an empty folder to an event, with only the binary.
#[test]
fn init_writes_a_configuration_that_check_passes_and_the_daemon_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    let shell = Shell(folder);
    let ports: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [webhooks, admin] = [0, 1].map(|at| ports[at].local_addr().unwrap().to_string());
    drop(ports);
    let listen = ["--listen", &webhooks, "--admin-listen", &admin];
    let written = shell.run(&[&["init", "my hooks", "--name", "acme"], &listen[..]].concat(), "");
    assert_eq!((written.code, written.stderr.as_str()), (Some(0), ""), "{written:?}");
    for step in [
        "https://YOUR-HOST/webhooks/acme",
        "my hooks/secrets/acme",
        "posthouse --config 'my hooks/config.toml' check",
        "posthouse --config 'my hooks/config.toml' serve",
        "posthouse --config 'my hooks/config.toml' send user.created",
    ] {
        assert!(written.stdout.contains(step), "{step} in\n{}", written.stdout);
    }
    let secret = shell.0.path().join("my hooks/secrets/acme");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&secret).unwrap();

    let again = shell.run(&["init", "my hooks"], "");
    assert!(again.error(1).contains("`my hooks/config.toml` exists already"), "{again:?}");
    assert_eq!(fs::read(&secret).unwrap(), before);

    let config = ["--config", "my hooks/config.toml"];
    let run = |arguments: &[&str]| shell.run(&[&config, arguments].concat(), "");
    let checked = run(&["check"]);
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{checked:?}");
    assert!(checked.stdout.contains("source acme: /webhooks/acme, scheme scalekit"), "{checked:?}");
    let mut served = Command::new(BINARY)
        .args([&config[..], &["serve"]].concat())
        .current_dir(shell.0.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the daemon answers", || run(&["events"]).code == Some(0));
    let sent = run(&["send", "user.created", "--id", "evt_first"]);
    let shown = run(&["events", "show", "evt_first"]);
    rustix::process::kill_process(rustix::process::Pid::from_child(&served), rustix::process::Signal::TERM)
        .unwrap();
    assert!(served.wait().unwrap().success());
    assert!(sent.stdout.starts_with("200 {\"received\":true}"), "{sent:?}");
    assert!(shown.stdout.contains("source    acme") || shown.stdout.contains("acme"), "{shown:?}");
}

#[test]
fn init_takes_every_scheme_and_writes_nothing_for_an_argument_that_can_not_stand() {
    for scheme in ["scalekit", "scalekit-documented", "standard-webhooks"] {
        let shell = Shell(tempfile::tempdir().unwrap());
        let written = shell.run(&["init", "--scheme", scheme], "");
        assert_eq!(written.code, Some(0), "{written:?}");
        let checked = shell.run(&["check"], "");
        assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{checked:?}");
        assert!(checked.stdout.contains(&format!("scheme {scheme}\n")), "{checked:?}");
        let doctor = shell.run(&["doctor"], "");
        assert!(
            !doctor.stdout.lines().any(|line| line.starts_with("problem") && !line.contains("daemon")),
            "{doctor:?}"
        );
    }
    let shell = Shell(tempfile::tempdir().unwrap());
    for wrong in
        [&["init", "--name", "a/b"][..], &["init", "--path", "no slash"], &["init", "--scheme", "other"]]
    {
        let refused = shell.run(wrong, "");
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{wrong:?}: {refused:?}");
        assert_eq!(fs::read_dir(shell.0.path()).unwrap().count(), 0, "{wrong:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let shell = Shell::new();
    let mut child = Command::new(BINARY)
        .args(["send", "--list"])
        .current_dir(shell.0.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

/// `check` lists what a plugin gets and lacks before it runs. If one would not run, the exit code is 1.
#[test]
fn check_loads_every_plugin_and_names_what_it_lacks() {
    let shell = Shell::new();
    let plugins = shell.0.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    fs::write(plugins.join("counter.wasm"), guest("counter")).unwrap();
    fs::write(plugins.join("welcome-email.wasm"), guest("welcome-email")).unwrap();
    let config = |tables: &str| {
        let config = format!("{CONFIG}\n[plugin.counter]\nevents = [\"user.*\"]\n{tables}");
        fs::write(shell.0.path().join("config.toml"), config).unwrap();
        // This file contains the tests' secrets, which this test is not about.
        let _ = Command::new("chmod").args(["o-r", "config.toml"]).current_dir(&shell.0).status().unwrap();
    };

    let grant = "[plugin.welcome-email.grants]\nmail = { from = [\"team@example.com\"], to = [\"*\"] }\n";
    config(grant);
    let well = shell.run(&["check"], "");
    assert_eq!((well.code, well.stderr.as_str()), (Some(0), ""), "{well:?}");
    for line in [
        "plugin counter: revision ",
        "\n  events: user.*\n  granted: nothing beyond log, config and kv\n",
        "plugin welcome-email: revision ",
        "\n  granted: mail from team@example.com to *\n",
    ] {
        assert!(well.stdout.contains(line), "{line:?} is not in:\n{}", well.stdout);
    }

    config("[plugin.counte]\nreuse = 2\n");
    fs::write(plugins.join("junk.wasm"), "not WebAssembly").unwrap();
    let bad = shell.run(&["check"], "");
    assert_eq!(bad.code, Some(1), "{bad:?}");
    let said: Vec<_> = bad.stderr.lines().map(|line| line.strip_prefix("posthouse: ").unwrap()).collect();
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!(said[0], "warning: [plugin.counte] has no effect: `plugins/counte.wasm` does not exist");
    assert!(said[1].starts_with("plugin `junk` does not load: "), "{said:?}");
    assert!(
        said[2].starts_with("plugin `welcome-email` lacks the grant `mail` and would be held; "),
        "{said:?}"
    );
    assert!(said[2].contains("[plugin.welcome-email.grants]: mail = {"), "{said:?}");
    assert_eq!(said[3], "2 of 3 plugins would not run; see above");
    let left: BTreeSet<_> = fs::read_dir(&shell.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, BTreeSet::from(["config.toml".to_owned(), "plugins".to_owned()]));
}

/// Every type of the page and of the sender's list is a separate event.
#[test]
fn a_sample_of_every_type_is_taken_by_the_daemon() {
    let daemon = Daemon::builder(BINARY).start();
    let listed = daemon.cli(&["send", "--list"]).stdout;
    let types: BTreeSet<_> = listed.lines().collect();
    assert_eq!(types.len(), 49);
    for event_type in &types {
        let sent = daemon.cli(&["send", event_type]);
        assert_eq!(sent.code, Some(0), "{sent:?}");
        let expected = format!("200 {{\"received\":true}} {event_type} evt_");
        assert!(sent.stdout.starts_with(&expected), "{sent:?}");
    }
    let events = daemon.admin_get("/v1/events?limit=1000");
    let events = events["events"].as_array().unwrap();
    let stored: BTreeSet<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!((stored, events.len()), (types, 49));
    let organizations = events.iter().filter(|event| event["organization"].is_string()).count();
    assert!(organizations > 20, "{organizations} of the samples name their organization");
}

#[test]
fn many_are_sent_with_a_summary_and_an_id_only_once() {
    let daemon = Daemon::builder(BINARY).start();
    let many = daemon.cli(&["send", "user.login", "--count", "20"]);
    assert_eq!(many.code, Some(0), "{many:?}");
    assert!(many.stdout.starts_with("user.login: 20 × 200 in "), "{many:?}");
    assert_eq!(daemon.admin_get("/v1/events?limit=100")["events"].as_array().unwrap().len(), 20);

    let first = daemon.cli(&["send", "user.login", "--id", "evt_mine"]).stdout;
    let again = daemon.cli(&["send", "user.login", "--id", "evt_mine"]).stdout;
    assert_eq!(first, "200 {\"received\":true} user.login evt_mine\n");
    assert_eq!(again, "200 {\"received\":true,\"duplicate\":true} user.login evt_mine\n");
}

#[test]
fn an_event_of_ones_own_brings_its_data_and_a_wrong_secret_is_refused() {
    let daemon = Daemon::builder(BINARY).source(Source::new("scalekit")).start();
    let data = json!({ "invoice": { "id": "inv_1", "total": 120 } });
    fs::write(daemon.dir().join("data.json"), data.to_string()).unwrap();
    let file = daemon.dir().join("data.json");
    let sent = daemon.cli(&["send", "invoice.paid", "--id", "evt_own", "--data", file.to_str().unwrap()]);
    assert_eq!(sent.stdout, "200 {\"received\":true} invoice.paid evt_own\n", "{sent:?}");
    let event = daemon.admin_get("/v1/events/evt_own");
    let body: Value = serde_json::from_str(event["events"][0]["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["data"], &body["type"]), (&data, &json!("invoice.paid")));

    let shell = Shell::new();
    let url = daemon.url("/webhooks/scalekit");
    let refused = shell.run(&["send", "user.created", "--source", "documented", "--url", &url], "");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stdout.starts_with("401 {\"error\":\"Invalid signature\"} user.created evt_"),
        "{refused:?}"
    );
}
