//! Interceptors: a sender asks, waits, and gets ALLOW or DENY. What the plugin staged is on disk before the answer
//! leaves, an id is decided once, and without a decision `on_failure` answers in time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails a test")]

use std::{collections::BTreeSet, thread, time::Duration};

use posthouse_harness::{
    Answer, Builder, Daemon, Headers, Interceptor, WebReply, WebServer, sign_up, wait_until,
};
use rusqlite::Connection as Sqlite;
use rustix::process::Signal;
use serde_json::{Value, json};

/// A daemon with the guest `decider`, which may do everything.
fn deciding(interceptors: &[&Interceptor]) -> Builder {
    let tables: String = interceptors.iter().map(|interceptor| interceptor.toml()).collect();
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("decider").toml(&tables).toml(
        r#"
        [plugin.decider]
        breaker = { failures = 3 }
        [plugin.decider.grants]
        mail = { from = ["team@example.com"], to = ["*"] }
        emit = ["*"]
        "#,
    )
}

fn signup() -> Interceptor {
    Interceptor::new("signup", "decider")
}

#[track_caller]
fn said(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    answer.json()
}

fn allow() -> Value {
    json!({ "decision": "ALLOW" })
}

fn deny() -> Value {
    json!({ "decision": "DENY" })
}

/// The record of the only decision about this request.
#[track_caller]
fn recorded(daemon: &Daemon, id: &str) -> Value {
    let mut decisions = daemon.admin_get(&format!("/v1/decisions/{id}"))["decisions"].take();
    assert_eq!(decisions.as_array().map(Vec::len), Some(1), "{decisions}");
    decisions[0].take()
}

/// Has the daemon read its config.toml again, which is right.
#[track_caller]
fn reload(daemon: &Daemon) {
    let applied = || daemon.log().matches("configuration applied").count();
    let before = applied();
    daemon.signal(Signal::HUP);
    wait_until("the configuration is applied", || applied() > before);
}

/// How often the guest was asked and its effects committed, in all.
fn asked(daemon: &Daemon) -> u64 {
    daemon.kv("decider").get("asked").map_or(0, |count| count.parse().unwrap())
}

#[test]
fn an_answer_leaves_after_its_effects_are_on_disk() {
    let daemon = deciding(&[&signup()]).set("mail", "url = \"file:data/mail\"").start();
    let data = json!({ "mail": "ada@example.com", "emit": "signup.checked", "log": "checked" });
    assert_eq!(said(&signup().ask(&daemon, "req_1", data)), allow());
    let kv = daemon.kv("decider");
    assert_eq!(kv.get("asked/req_1").map(String::as_str), Some("1"), "{kv:?}");
    let refusing = json!({ "decide": "deny", "message": "not today", "mail": "eve@example.com" });
    let refused = json!({ "decision": "DENY", "error": { "message": "not today", "code": "asked" } });
    assert_eq!(said(&signup().ask(&daemon, "req_2", refusing)), refused);
    assert_eq!(asked(&daemon), 2);
    daemon.wait_mail_settled();
    daemon.wait_settled();
    let subjects: BTreeSet<_> = daemon.mails().iter().map(|mail| mail.header("subject").to_owned()).collect();
    assert_eq!(subjects, ["decided req_1", "decided req_2"].map(str::to_owned).into());
    assert_eq!(daemon.kv("decider").get("event/signup.checked").map(String::as_str), Some("1"));

    let record = recorded(&daemon, "req_1");
    for (member, value) in [
        ("state", json!("decided")),
        ("decision", json!("ALLOW")),
        ("answer", json!(allow().to_string())),
        ("interceptor", json!("signup")),
        ("trigger", json!("PRE_SIGNUP")),
        ("plugin", json!("decider")),
        ("late", json!(false)),
        ("error", Value::Null),
    ] {
        assert_eq!(record[member], value, "{member}: {record}");
    }
    assert_eq!(record["logs"][0]["message"], "checked", "{record}");
    assert_eq!(record["outbox"].as_array().map(Vec::len), Some(1), "{record}");
    // The mail address of the person is masked, as that of an interceptor is by default.
    assert!(!record["body"].as_str().unwrap().contains("mira@example.com"), "{record}");

    let listed = daemon.cli(&["decisions", "--json"]).json_lines();
    let ids: Vec<_> = listed.iter().map(|line| line["request"].as_str().unwrap()).collect();
    assert_eq!(ids, ["req_2", "req_1"]);
    let denied = daemon.cli(&["decisions", "--decision", "DENY"]).stdout;
    assert!(denied.contains("req_2") && !denied.contains("req_1"), "{denied}");
    let shown = daemon.cli(&["decisions", "show", "req_2"]).stdout;
    assert!(shown.contains("DENY") && shown.contains("not today"), "{shown}");
    assert_eq!(daemon.stats()["balanced"], true, "{}", daemon.stats());
}

#[test]
fn one_id_is_decided_once_even_over_a_restart() {
    let mut daemon = deciding(&[&signup()]).start();
    let refused = json!({ "decision": "DENY", "error": { "message": "asked to refuse" } });
    assert_eq!(said(&signup().ask(&daemon, "req_1", json!({ "decide": "deny" }))), refused);
    assert_eq!(said(&signup().ask(&daemon, "req_1", json!({}))), refused, "the recorded answer");
    daemon.restart();
    assert_eq!(said(&signup().ask(&daemon, "req_1", json!({}))), refused, "after a restart");
    daemon.kill();
    daemon.start();
    assert_eq!(said(&signup().ask(&daemon, "req_1", json!({}))), refused, "after a kill");
    assert_eq!(asked(&daemon), 1);
}

#[test]
fn requests_of_one_id_at_one_time_are_decided_once() {
    let server = WebServer::start(|_| {
        thread::sleep(Duration::from_millis(200));
        WebReply::status(200)
    });
    let daemon = deciding(&[&signup()]).toml(&format!("http = [{:?}]", server.url(""))).start();
    let data = json!({ "fetch": server.url("/"), "decide": "deny" });
    let answers: Vec<Value> = thread::scope(|scope| {
        let asking: Vec<_> =
            (0..8).map(|_| scope.spawn(|| said(&signup().ask(&daemon, "req_1", data.clone())))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let refused = json!({ "decision": "DENY", "error": { "message": "asked to refuse" } });
    assert_eq!(answers, vec![refused; 8]);
    assert_eq!((asked(&daemon), server.requests().len()), (1, 1));
    let view = &daemon.admin_get("/v1/interceptors")["interceptors"][0];
    assert_eq!((&view["denied"], &view["repeated"]), (&json!(1), &json!(7)), "{view}");
}

#[test]
fn a_wrong_signature_is_denied_whatever_the_settings_say() {
    let lenient = Interceptor::new("lenient", "decider").line("on_failure = \"allow\"\nenforce = false");
    let daemon = deciding(&[&signup(), &lenient]).start();
    let body = sign_up("eve@example.com", json!({}));
    for interceptor in [&signup(), &lenient] {
        let mut forged = Interceptor::headers("req_1", &body);
        forged[2].1 = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
        let none: Headers = Vec::new();
        let other = Interceptor::headers("req_1", b"{}");
        for headers in [&forged, &none, &other] {
            assert_eq!(said(&interceptor.post(&daemon, headers, &body)), deny(), "{headers:?}");
        }
    }
    assert_eq!(asked(&daemon), 0);
    let metrics = daemon.admin("GET", "/metrics", None).body;
    for name in ["signup", "lenient"] {
        let series = format!("source=\"interceptor:{name}\"");
        let refused: u64 = metrics
            .lines()
            .filter(|line| line.contains(&series) && line.contains("outcome=\"rejected\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(refused, 3, "{name}: {metrics}");
    }
}

#[test]
fn two_families_of_headers_must_agree() {
    let daemon = deciding(&[&signup()]).start();
    let body = sign_up("mira@example.com", json!({}));
    let own = Interceptor::headers("req_1", &body);
    let webhook: Headers =
        own.iter().map(|(name, value)| (name.replace("interceptor-", "webhook-"), value.clone())).collect();
    let both = [own.clone(), webhook.clone()].concat();
    assert_eq!(said(&signup().post(&daemon, &both, &body)), allow());
    let other = Interceptor::headers("req_2", &body);
    assert_eq!(said(&signup().post(&daemon, &[other, webhook.clone()].concat(), &body)), deny());
    assert_eq!(said(&signup().post(&daemon, &webhook, &body)), allow(), "the recorded answer");
    assert_eq!(asked(&daemon), 1);
}

#[test]
fn without_a_decision_on_failure_answers_and_nothing_remains() {
    let open = Interceptor::new("open", "decider").line("on_failure = \"allow\"\ndeadline = \"700ms\"");
    let shut = Interceptor::new("shut", "decider").line("deadline = \"700ms\"");
    let missing = Interceptor::new("missing", "nobody").line("on_failure = \"allow\"");
    let mut daemon = deciding(&[&open, &shut, &missing]).prepare();
    daemon.edit_config(|config| config.replace("failures = 3", "failures = 100"));
    daemon.start();
    for (decide, cause) in
        [("unsure", "unsure"), ("trap", "stopped"), ("spin", "timeout"), ("big", "invalid")]
    {
        for (interceptor, expected) in [(&open, allow()), (&shut, deny())] {
            let id = format!("{decide}_{}", interceptor.name);
            let data = json!({ "decide": decide, "mail": "ada@example.com", "emit": "signup.checked" });
            assert_eq!(said(&interceptor.ask(&daemon, &id, data)), expected, "{id}");
            // After a time-out the answer leaves first.
            wait_until("it is recorded", || recorded(&daemon, &id)["state"] != "running");
            let record = recorded(&daemon, &id);
            assert_eq!((&record["state"], &record["cause"]), (&json!("fallback"), &json!(cause)), "{record}");
            assert_eq!(record["decision"], Value::Null, "{record}");
            // The same id again, which would now be decided otherwise.
            assert_eq!(said(&interceptor.ask(&daemon, &id, json!({}))), expected, "{id} again");
        }
    }
    assert_eq!(said(&missing.ask(&daemon, "req_1", json!({}))), allow());
    assert_eq!(recorded(&daemon, "req_1")["cause"], "no-plugin");
    daemon.wait_settled();
    assert_eq!(daemon.kv("decider").into_iter().collect::<Vec<_>>(), [], "no effect of a fall-back");
    assert_eq!(daemon.mails().len(), 0);

    assert_eq!(daemon.cli(&["plugins", "pause", "decider"]).code, Some(0));
    assert_eq!(said(&open.ask(&daemon, "paused_open", json!({}))), allow());
    assert_eq!(said(&shut.ask(&daemon, "paused_shut", json!({}))), deny());
    assert_eq!(recorded(&daemon, "paused_shut")["cause"], "held");
    assert_eq!(daemon.cli(&["plugins", "resume", "decider"]).code, Some(0));
    assert_eq!(said(&shut.ask(&daemon, "resumed", json!({}))), allow());
    let view = &daemon.admin_get("/v1/interceptors")["interceptors"][0];
    assert_eq!(
        view["fallbacks"],
        json!({ "unsure": 1, "stopped": 1, "timeout": 1, "invalid": 1, "held": 1 }),
        "{view}"
    );
}

#[test]
fn a_plugin_that_keeps_trapping_is_held_and_the_answers_go_on() {
    let daemon = deciding(&[&signup()]).start();
    let trapped = |n: u32| {
        let id = format!("trap_{n}");
        assert_eq!(said(&signup().ask(&daemon, &id, json!({ "decide": "trap" }))), deny());
        recorded(&daemon, &id)["cause"].clone()
    };
    // Once it is held, a decision now and then tries it.
    let causes: Vec<_> = (0..40).map(trapped).collect();
    assert!(causes[..3].iter().all(|cause| cause == "stopped"), "{causes:?}");
    assert!(causes.iter().any(|cause| cause == "held"), "{causes:?}");
    assert!(causes.iter().all(|cause| cause == "stopped" || cause == "held"), "{causes:?}");
}

#[test]
fn with_enforce_false_everything_is_allowed_and_the_decision_recorded() {
    let watching = signup().line("enforce = false");
    let daemon = deciding(&[&watching]).start();
    assert_eq!(said(&watching.ask(&daemon, "req_1", json!({ "decide": "deny" }))), allow());
    assert_eq!(said(&watching.ask(&daemon, "req_2", json!({ "decide": "trap" }))), allow());
    let record = recorded(&daemon, "req_1");
    assert_eq!((&record["decision"], &record["state"]), (&json!("DENY"), &json!("decided")), "{record}");
    assert_eq!(record["answer"], json!(allow().to_string()));
    assert_eq!(recorded(&daemon, "req_2")["cause"], "stopped");
    let view = &daemon.admin_get("/v1/interceptors")["interceptors"][0];
    assert_eq!((&view["denied"], &view["overruled"]), (&json!(1), &json!(1)), "{view}");
}

#[test]
fn a_commit_that_ends_after_the_deadline_is_marked_late() {
    let slow = signup().line("deadline = \"800ms\"");
    let daemon = deciding(&[&slow])
        .toml("database = \"app\"\n[databases.app]\nurl = \"sqlite:data/app.db\"")
        .env("POSTHOUSE_PAUSE", "database-synced:2000")
        .start();
    let answer = slow.ask(&daemon, "req_1", json!({}));
    assert_eq!(said(&answer), deny(), "the fall-back, because the commit took too long");
    wait_until("the late decision is recorded", || recorded(&daemon, "req_1")["late"] == json!(true));
    let record = recorded(&daemon, "req_1");
    assert_eq!((&record["decision"], &record["state"]), (&json!("ALLOW"), &json!("decided")), "{record}");
    // Plugins learn of it, so that they can take the effect back.
    let kept = |key: &str| {
        let app = Sqlite::open(daemon.dir().join("data/app.db")).unwrap();
        app.busy_timeout(Duration::from_secs(10)).unwrap();
        let sql = "SELECT CAST(value AS TEXT) FROM posthouse_kv WHERE plugin = 'decider' AND key = ?";
        app.query_row(sql, [key], |row| row.get::<_, String>(0)).ok()
    };
    wait_until("the event about it", || kept("event/interceptor.late").as_deref() == Some("1"));
    assert_eq!(kept("asked").as_deref(), Some("1"));
    let view = &daemon.admin_get("/v1/interceptors")["interceptors"][0];
    assert_eq!((&view["late"], &view["fallbacks"]["timeout"]), (&json!(1), &json!(1)), "{view}");
}

#[test]
fn a_reload_adds_changes_and_removes_interceptors() {
    let mut daemon = deciding(&[&signup()]).start();
    let body = sign_up("mira@example.com", json!({}));
    let session = Interceptor::new("session", "decider");
    assert_eq!(session.ask(&daemon, "req_1", json!({})).status, 404);
    daemon.edit_config(|config| {
        config.replace("plugin = \"decider\"", "plugin = \"decider\"\nenforce = false")
            + "\n"
            + &session.toml()
    });
    reload(&daemon);
    assert_eq!(said(&session.ask(&daemon, "req_1", json!({ "decide": "deny" })))["decision"], "DENY");
    assert_eq!(said(&signup().ask(&daemon, "req_1", json!({ "decide": "deny" }))), allow());
    daemon.edit_config(|config| config.replace(&session.toml(), ""));
    reload(&daemon);
    assert_eq!(session.post(&daemon, &Interceptor::headers("req_2", &body), &body).status, 404);
}

#[test]
fn a_trigger_that_is_not_asked_for_gets_the_fall_back() {
    let session = Interceptor::new("session", "decider");
    let toml = session.toml().replace("[\"*\"]", "[\"PRE_SESSION_CREATION\"]");
    let daemon = deciding(&[]).toml(&toml).start();
    assert_eq!(said(&session.ask(&daemon, "req_1", json!({}))), deny());
    assert_eq!(asked(&daemon), 0);
}

#[test]
fn send_asks_with_a_sample_of_each_trigger() {
    let daemon = deciding(&[&signup()]).start();
    for trigger in ["PRE_SIGNUP", "PRE_SESSION_CREATION", "PRE_USER_INVITATION", "PRE_M2M_TOKEN_CREATION"] {
        let sent = daemon.cli(&["send", trigger, "--interceptor", "signup"]);
        assert_eq!(sent.code, Some(0), "{sent:?}");
        assert!(sent.stdout.contains("ALLOW"), "{sent:?}");
    }
    assert_eq!(asked(&daemon), 4);
    let odd = daemon.cli(&["send", "PRE_SIGNUP", "--interceptor", "signups"]);
    assert!(odd.code != Some(0) && odd.stderr.contains("did you mean `signup`?"), "{odd:?}");
}

#[test]
fn check_names_an_interceptor_whose_plugin_cannot_decide() {
    let sleepy = Interceptor::new("signup", "counter");
    let daemon =
        Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("counter").toml(&sleepy.toml()).prepare();
    let checked = daemon.cli(&["check"]);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(checked.code != Some(0) && said.contains("plugin `counter` does not decide"), "{checked:?}");
}

#[test]
fn claims_and_memberships_come_from_the_tables_of_shipped_plugins() {
    let signup = Interceptor::new("signup", "signup-policy");
    let session = Interceptor::new("session", "session-claims").line("on_failure = \"allow\"");
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("signup-policy")
        .guest("session-claims")
        .toml(&(signup.toml().replace("[\"*\"]", "[\"PRE_SIGNUP\", \"PRE_USER_INVITATION\"]")))
        .toml(&session.toml().replace("[\"*\"]", "[\"PRE_SESSION_CREATION\"]"))
        .toml(
            r#"
            [databases.app]
            url = "sqlite:data/app.db"
            [plugin.signup-policy.grants]
            database = "app"
            [plugin.session-claims.grants]
            database = "app"
            "#,
        )
        .start();
    let ask = |interceptor: &Interceptor, id: &str, body: &[u8]| {
        said(&interceptor.post(&daemon, &Interceptor::headers(id, body), body))
    };
    let stranger = sign_up("eve@nowhere.example", json!({}));
    assert_eq!(ask(&signup, "req_1", &stranger)["error"]["code"], "domain");
    let login = |organization: &str, user: &str| {
        let context = json!({ "organization_id": organization, "user_id": user });
        let body =
            json!({ "trigger_point": "PRE_SESSION_CREATION", "interceptor_context": context, "data": {} });
        body.to_string().into_bytes()
    };
    assert_eq!(ask(&session, "req_1", &login("org_1", "usr_1")), allow());
    // Both plugins have made their tables.
    let tables = Sqlite::open(daemon.dir().join("data/app.db")).unwrap();
    tables.busy_timeout(Duration::from_secs(10)).unwrap();
    tables
        .execute_batch(
            "INSERT INTO signup_domains VALUES ('example.com', 'org_1', 0, '[\"member\"]');
             INSERT INTO signup_seats (organization_id, seats) VALUES ('org_1', 1);
             INSERT INTO organization_claims VALUES ('org_1', '{\"tier\":\"pro\",\"region\":\"eu\"}');
             INSERT INTO user_claims VALUES ('usr_1', '{\"tier\":\"owner\"}');",
        )
        .unwrap();
    drop(tables);
    let membership = json!({ "organization_id": "org_1", "roles": ["member"] });
    let admitted = json!({
        "decision": "ALLOW", "response": { "create_organization_membership": membership },
    });
    assert_eq!(ask(&signup, "req_2", &sign_up("ada@example.com", json!({}))), admitted);
    let taken = daemon.app_rows("SELECT email, request FROM signup_reservations");
    assert_eq!(taken, [["ada@example.com", "req_2"]]);
    assert_eq!(ask(&signup, "req_3", &sign_up("bob@example.com", json!({})))["error"]["code"], "no_seat");
    assert_eq!(daemon.app_rows("SELECT taken FROM signup_seats"), [["1"]]);
    let claims =
        json!({ "decision": "ALLOW", "response": { "claims": { "tier": "owner", "region": "eu" } } });
    assert_eq!(ask(&session, "req_2", &login("org_1", "usr_1")), claims);
}
