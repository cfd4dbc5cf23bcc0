//! An invalid config.toml is refused before anything starts, with exit code 78. Each error has one line with
//! file, line, column, key and the fix. A secret is never shown.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use posthouse_model::config::{Config, ConfigError, Environment, Loaded, Secrets};
use proptest::prelude::*;

const SOURCE: &str = r#"[[source]]
name = "crm"
path = "/webhooks/crm"
scheme = "scalekit"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]
"#;

/// A source that is valid except for this line.
fn source(line: &str) -> String {
    format!("{SOURCE}{line}\n")
}

/// Runs `posthouse check` on a config.toml in a new folder, with only these variables.
fn check(config: &str, prepare: impl FnOnce(&Path), variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, config).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    prepare(folder.path());
    Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .arg("check")
        .current_dir(folder.path())
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// The lines on standard error, without the program's name.
fn said(output: &Output) -> Vec<String> {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    stderr.lines().map(|line| line.strip_prefix("posthouse: ").expect(line).to_owned()).collect()
}

/// Checks that the output has exactly these lines, and that the exit code is 78.
fn refused(config: &str, lines: &[&str]) {
    let output = check(config, |_| {}, &[]);
    assert_eq!(said(&output), lines, "on this config.toml:\n{config}");
    assert_eq!(output.status.code(), Some(78), "on this config.toml:\n{config}");
}

#[test]
fn unknown_keys_come_with_the_nearest_that_is_known() {
    refused("[servr]", &["config.toml:1:2: unknown key `servr` here; did you mean `server`?"]);
    refused(
        r#"[server]
lisen = "127.0.0.1:1""#,
        &["config.toml:2:1: unknown key `lisen` in `server`; did you mean `listen`?"],
    );
    refused(
        "[server]
# a comment with an ä
colour = 1",
        &[
            "config.toml:3:1: unknown key `colour` in `server`; the keys in `server` are `listen`, `max_body`, `max_requests`, `header_timeout`, `body_timeout`, `idle_timeout`, `trusted_proxies` and `shutdown_timeout`",
        ],
    );
    refused(
        "[plugins]
retry = { atempts = 4 }",
        &["config.toml:2:11: unknown key `atempts` in `plugins.retry`; did you mean `attempts`?"],
    );
    refused(
        r#"[plugins.limits]
memroy = "1MiB""#,
        &["config.toml:2:1: unknown key `memroy` in `plugins.limits`; did you mean `memory`?"],
    );
    refused(
        &source(r#"secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=""#),
        &["config.toml:6:1: unknown key `secret` in `source`; did you mean `secrets`?"],
    );
    refused(
        &source(r#"answer = "handled""#),
        &[
            "config.toml:6:1: unknown key `answer` in `source`; the keys in `source` are `name`, `path`, `scheme`, `secrets`, `verify_token`, `url`, `tolerance`, `events`, `respond`, `respond_timeout`, `rate`, `catch_up`, `redact` and `headers`",
        ],
    );
    refused(
        "[plugin.mailer]
concurency = 2",
        &["config.toml:2:1: unknown key `concurency` in `plugin.mailer`; did you mean `concurrency`?"],
    );
    refused(
        r#"[plugin.mailer.grants]
storage = "app""#,
        &[
            "config.toml:2:1: unknown key `storage` in `plugin.mailer.grants`; the keys in `plugin.mailer.grants` are `mail`, `http`, `database`, `emit` and `signatures`",
        ],
    );
    refused(
        r#"[plugin.mailer.grants]
emit = ["seat.*", "seat*"]"#,
        &[
            "config.toml:2:19: `plugin.mailer.grants.emit` holds `seat*`, which is no pattern of event types; `user.created`, `membership.*` and `*` are",
        ],
    );
    refused(
        r#"[plugin.mailer]
order_by = "organisation""#,
        &[
            r#"config.toml:2:12: `plugin.mailer.order_by` is `organisation`, which is no order; write "organization", "user", or a JSON pointer into the body such as "/data/user/id""#,
        ],
    );
    refused(
        r#"[plugin.mailer.grants]
mail = { from = ["a@example.com"], too = ["*"] }"#,
        &[
            r#"config.toml:2:8: `plugin.mailer.grants.mail.to` is missing; write to = ["*"]"#,
            "config.toml:2:36: unknown key `too` in `plugin.mailer.grants.mail`; did you mean `to`?",
        ],
    );
    refused(
        r#"[database.app]
url = "sqlite:app.db""#,
        &["config.toml:1:2: unknown key `database` here; did you mean `databases`?"],
    );
}

#[test]
fn headers_that_are_credentials_or_none_are_refused() {
    let listed = |name: &str| source(&format!("headers = [\"x-request-id\", {name:?}]"));
    for (name, problem) in [
        (
            "Webhook-Signature",
            "`webhook-signature`, the sender's signature, which plugins do not get; a plugin for an app that verifies \
             requests itself gets it by `signatures` in its grants",
        ),
        (
            "Authorization",
            "`authorization`, which may carry a credential, and plugins get none; leave it out",
        ),
        ("cookie", "`cookie`, which may carry a credential, and plugins get none; leave it out"),
        ("x-api-key", "`x-api-key`, which may carry a credential, and plugins get none; leave it out"),
        (
            "x-gitlab-token",
            "`x-gitlab-token`, which may carry a credential, and plugins get none; leave it out",
        ),
        ("content-type", "`content-type`, which plugins get anyway; leave it out"),
        ("host", "`host`, which is about the connection and not about the event; leave it out"),
        ("x y", "`x y`, which is no header's name; one is 1 to 64 letters, digits and `-`"),
    ] {
        refused(&listed(name), &[&format!("config.toml:6:28: `source.headers` holds {problem}")]);
    }
    refused(
        &source("headers = []"),
        &["config.toml:6:11: `source.headers` is empty; write at least one, such as [\"x-github-event\"]"],
    );
    let many: Vec<_> = (0..33).map(|n| format!("x-{n}")).collect();
    refused(
        &source(&format!("headers = {many:?}")),
        &["config.toml:6:11: `source.headers` has 33 names; the limit is 32"],
    );
    // What the sender's row reads events from is harmless, whatever its name says.
    let bitbucket = listed("x-event-key").replace("\"scalekit\"", "\"bitbucket\"");
    assert_eq!(check(&bitbucket, |_| {}, &[]).status.code(), Some(0));
}

#[test]
fn signatures_are_granted_of_sources_that_sign() {
    let granted = |name: &str| format!("{SOURCE}[plugin.app.grants]\nsignatures = [{name:?}]\n");
    let at = "config.toml:7:15: `plugin.app.grants.signatures` holds";
    refused(&granted("cmr"), &[&format!("{at} `cmr`, which names no [[source]]; did you mean `crm`?")]);
    refused(&granted("other"), &[&format!("{at} `other`, which names no [[source]]; the sources are `crm`")]);
    let token = granted("crm").replace("\"scalekit\"", "\"gitlab-token\"");
    refused(
        &token,
        &[&format!(
            "{at} `crm`, whose scheme `gitlab-token` does not sign the body: who has its header can send anything, so plugins \
             do not get it; use `sign` of the `http` grant"
        )],
    );
}

#[test]
fn a_component_is_the_name_of_a_file() {
    let of = |name: &str| format!("[plugin.shop]\ncomponent = {name:?}\n");
    let at = "config.toml:2:13: `plugin.shop.component` is";
    refused(
        &of("forward.wasm"),
        &[&format!("{at} `forward.wasm`, which is no name of a plugin; write \"forward\"")],
    );
    refused(
        &of("../forward"),
        &[&format!(
            "{at} `../forward`, which is no name of a plugin; write the name of a file in the plugins folder, such as \
             \"forward\" for forward.wasm"
        )],
    );
    refused(
        "[plugin.shop]\nrate = { burst = 5 }",
        &["config.toml:2:8: `plugin.shop.rate.per_second` is missing; write per_second = 50"],
    );
    let missing = check(&of("forward"), |_| {}, &[]);
    assert_eq!(missing.status.code(), Some(1));
    let told = said(&missing).join("\n");
    assert!(told.contains("plugin `shop` does not load: `forward.wasm`, its `component`"), "{told}");
}

#[test]
fn a_key_that_signs_requests_is_one_of_standard_webhooks() {
    let signed = |key: &str| {
        format!(
            "[plugin.shop.grants]\nhttp = [{{ url = \"https://a.example\", sign = {{ env = \"K\" }} }}]\n# {key}"
        )
    };
    let told = |key: &str| {
        let output = check(&signed(key), |_| {}, &[("K", key)]);
        assert_eq!(output.status.code(), Some(78), "{key}");
        said(&output).join("\n")
    };
    let at = "config.toml:2:45: `plugin.shop.grants.http.sign`";
    for (key, problem) in [
        ("k*9fQ2.7Lw-Zp0x_T4vB8nM1", "is no key of Standard Webhooks"),
        ("whsec_c2hvcnQga2V5", "has a key of 9 bytes, which can be guessed; make one of 24 or more"),
        ("whsec_ ", ""),
        ("${SHOP_SECRET}", ""),
    ] {
        let told = told(key);
        assert!(told.starts_with(&format!("{at} {problem}")), "{told}");
        assert!(!told.contains(key), "it shows no secret: {told}");
    }
    let good = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    assert_eq!(check(&signed(""), |_| {}, &[("K", good)]).status.code(), Some(0));
    let two = signed("").replace("{ env = \"K\" }", "[{ env = \"K\" }, { env = \"K\" }]");
    assert_eq!(check(&two, |_| {}, &[("K", good)]).status.code(), Some(0));
}

#[test]
fn a_database_that_cant_be_is_named_with_the_way_out() {
    let with = |url: &str| format!("[databases.app]\nurl = {url}");
    let way_out = r#"write "sqlite:data/app.db" or "postgres://USER:PASSWORD@HOST/NAME""#;
    for (url, problem) in [
        (r#""mysql://user:hidden@host/app""#, format!("is no database; {way_out}")),
        (r#""sqlite:""#, format!("names no file; {way_out}")),
        (r#""sqlite::memory:""#, format!("names no file; {way_out}")),
        (r#""sqlite:data/""#, format!("names a folder; {way_out}")),
        (r#""postgres:///app""#, format!("names no host; {way_out}")),
        (
            r#""postgres://user:hidden@host/app?sslmode=loose""#,
            format!(
                "is no URL of a PostgreSQL; {way_out}, where `?sslmode=` may be `verify-full`, which is the default, or `disable`"
            ),
        ),
    ] {
        refused(&with(url), &[&format!("config.toml:2:7: `databases.app.url` {problem}")]);
    }
    refused(
        &with(r#""sqlite:data/posthouse.db""#),
        &["config.toml:2:7: `databases.app.url` is the file of the store; name another"],
    );
    refused(
        "[databases.app]\nurl = \"sqlite:a\"\n[databases.other]\nurl = \"sqlite:a\"",
        &["config.toml:4:7: `databases.other.url` is the file of [databases.app] too; name another"],
    );
    refused(
        "[databases.app]",
        &[r#"config.toml:1:1: `databases.app.url` is missing; write url = "sqlite:data/app.db""#],
    );
    let postgres = r#""postgres://host/app""#;
    for name in ["", "a.b.c", "a.", "run(text)", "1st", "\\\"run\\\"", "drop table"] {
        // An error escapes text from the file, as the file does.
        refused(
            &format!("{}\nfunctions = [\"{name}\"]", with(postgres)),
            &[&format!(
                "config.toml:3:14: `databases.app.functions` holds `{name}`, which names no function; write its \
                 name, or schema and name, such as \"similarity\" or \"app.next_invoice\""
            )],
        );
    }
    refused(
        "[databases.App]\nurl = \"sqlite:a\"",
        &[
            "config.toml:1:1: `App` is no name of a database; one is 1 to 64 of `a-z 0-9 - _` and begins with a letter or digit",
        ],
    );
    let grant =
        |name: &str| format!("[databases.app]\nurl = \"sqlite:a\"\n[plugin.p.grants]\ndatabase = \"{name}\"");
    refused(
        &grant("ap"),
        &[
            "config.toml:4:12: `plugin.p.grants.database` is `ap`, which no [databases.<name>] describes; did you mean `app`?",
        ],
    );
    refused(
        &grant("users"),
        &[
            "config.toml:4:12: `plugin.p.grants.database` is `users`, which no [databases.<name>] describes; the databases are `app`",
        ],
    );
    refused(
        "[plugin.p.grants]\ndatabase = \"app\"",
        &[
            "config.toml:2:12: `plugin.p.grants.database` is `app`, which no [databases.<name>] describes; add [databases.app] with a `url`",
        ],
    );
}

#[test]
fn values_of_the_wrong_type_say_which_is_wanted() {
    refused("server = 1", &["config.toml:1:10: `server` is an integer; write a table"]);
    refused(
        "[server]
listen = 8400",
        &["config.toml:2:10: `server.listen` is an integer; write a text in quotes"],
    );
    refused(
        "[server]
max_body = true",
        &[
            r#"config.toml:2:12: `server.max_body` is a boolean; write a size such as "1MiB" or a number of bytes"#,
        ],
    );
    refused(
        r#"[server]
max_requests = "many""#,
        &["config.toml:2:16: `server.max_requests` is a string; write a whole number"],
    );
    refused(
        "[server]
header_timeout = 10",
        &[
            r#"config.toml:2:18: `server.header_timeout` is an integer; write a duration with its unit, such as "8s", "5m" or "30d""#,
        ],
    );
    refused(
        r#"[plugins]
retry = { factor = "2" }"#,
        &["config.toml:2:20: `plugins.retry.factor` is a string; write a number"],
    );
    refused(
        r#"[log]
format = ["json"]"#,
        &["config.toml:2:10: `log.format` is an array; write a text in quotes"],
    );
    refused(
        r#"[source]
name = "crm""#,
        &["config.toml:1:1: `source` is a table; write [[source]] for each sender"],
    );
    refused(
        "[plugin]
mailer = 3",
        &["config.toml:2:10: `plugin.mailer` is an integer; write a table"],
    );
    refused(
        r#"[plugin.mailer]
events = "user.*""#,
        &[r#"config.toml:2:10: `plugin.mailer.events` is a string; write an array such as ["user.*"]"#],
    );
    refused(
        "[plugin.mailer.config]
ratio = inf",
        &[
            "config.toml:2:9: `plugin.mailer.config.ratio` holds a number that JSON can't hold; write it as a text",
        ],
    );
    refused(
        "[plugins]
dir = 2026-01-01",
        &["config.toml:2:7: `plugins.dir` is a datetime; write a text in quotes"],
    );
    refused(
        "[store]
max_backlog = 1.5",
        &["config.toml:2:15: `store.max_backlog` is a float; write a whole number"],
    );
}

#[test]
fn addresses_and_names_of_hosts_are_read_or_said_to_be_none() {
    refused(
        "[server]
trusted_proxies = [\"10.0.0.0/8\", \"proxy\"]

[admin]
hosts = [\"posthouse\", \"posthouse:8401\"]",
        &[
            r#"config.toml:2:34: `server.trusted_proxies` holds `proxy`, which is no network; write one such as "10.0.0.0/8" or "127.0.0.1""#,
            r#"config.toml:5:23: `admin.hosts` holds `posthouse:8401`, which is no host name; write one such as "posthouse", without a port"#,
        ],
    );
}

#[test]
fn numbers_out_of_range_say_the_range() {
    refused(
        "[server]
max_requests = 0",
        &["config.toml:2:16: `server.max_requests` is 0; it may be 1 to 65536"],
    );
    refused(
        r#"[server]
max_body = "1GiB""#,
        &["config.toml:2:12: `server.max_body` is 1.0 GiB; it may be 1.0 KiB to 32.0 MiB"],
    );
    refused(
        "[server]
max_body = -1",
        &[
            r#"config.toml:2:12: `server.max_body` is no number of bytes; write one, or a size such as "1MiB""#,
        ],
    );
    refused(
        r#"[server]
body_timeout = "1h""#,
        &["config.toml:2:16: `server.body_timeout` is 1h; it may be 100ms to 10m"],
    );
    refused(
        r#"[store]
retention = "0s""#,
        &["config.toml:2:13: `store.retention` is 0s; it may be 1s to 10years"],
    );
    refused(
        "[plugins]
concurrency = 1025",
        &["config.toml:2:15: `plugins.concurrency` is 1025; it may be 1 to 1024"],
    );
    refused(
        "[plugins]
reuse = 99999999999",
        &["config.toml:2:9: `plugins.reuse` is 99999999999; it may be 1 to 1000000"],
    );
    refused(
        r#"[plugins.limits]
memory = "513MiB""#,
        &["config.toml:2:10: `plugins.limits.memory` is 513.0 MiB; it may be 64.0 KiB to 512.0 MiB"],
    );
    refused(
        "[plugins.retry]
attempts = 0",
        &["config.toml:2:12: `plugins.retry.attempts` is 0; it may be 1 to 1000"],
    );
    refused(
        "[plugins.retry]
factor = 0.5",
        &["config.toml:2:10: `plugins.retry.factor` is 0.5; it may be 1 to 100"],
    );
    refused(
        "[plugins.retry]
jitter = nan",
        &["config.toml:2:10: `plugins.retry.jitter` is NaN; it may be 0 to 1"],
    );
    refused(
        r#"[plugins.retry]
base = "5m"
max = "1m""#,
        &["config.toml:3:7: `plugins.retry.max` is shorter than `base`, the first wait; write a longer one"],
    );
    refused(
        r#"[plugins.breaker]
pause = "5m"
max_pause = "1m""#,
        &[
            "config.toml:3:13: `plugins.breaker.max_pause` is shorter than `pause`, the first one; write a longer one",
        ],
    );
    refused(
        "[plugin.mailer.breaker]
failures = -1",
        &["config.toml:2:12: `plugin.mailer.breaker.failures` is -1; it may be 0 to 1000000"],
    );
    refused(
        r#"[store]
max_size = "1KiB""#,
        &["config.toml:2:12: `store.max_size` is 1.0 KiB; it may be 1.0 MiB to 1.0 PiB"],
    );
    refused(
        r#"[store]
min_free = "2TiB""#,
        &["config.toml:2:12: `store.min_free` is 2.0 TiB; it may be 0 B to 1.0 TiB"],
    );
    refused(
        &source("rate = { per_second = 0 }"),
        &["config.toml:6:23: `source.rate.per_second` is 0; it may be 0.01 to 1000000"],
    );
    refused(
        &source("rate = { burst = 5 }"),
        &["config.toml:6:8: `source.rate.per_second` is missing; write per_second = 50"],
    );
    refused(
        &source("rate = { per_second = 5, bursts = 5 }"),
        &["config.toml:6:26: unknown key `bursts` in `source.rate`; did you mean `burst`?"],
    );
    refused(
        r#"[plugin.mailer.limits]
time = "1ms""#,
        &["config.toml:2:8: `plugin.mailer.limits.time` is 1ms; it may be 10ms to 10m"],
    );
    refused(
        &source(r#"tolerance = "8d""#),
        &["config.toml:6:13: `source.tolerance` is 8days; it may be 1s to 7days"],
    );
    refused(
        &source(r#"respond_timeout = "2m""#),
        &["config.toml:6:19: `source.respond_timeout` is 2m; it may be 100ms to 1m"],
    );
    refused(
        &source(r#"respond = "handeld""#),
        &[
            "config.toml:6:11: `source.respond` is `handeld`, which is none of `accepted` and `handled`; did you mean `handled`?",
        ],
    );
    refused(
        "[store]
max_backlog = 99999999999999999999999999999999999999999",
        &["config.toml:2:15: `store.max_backlog` is a number out of all range"],
    );
}

#[test]
fn texts_that_mean_nothing_say_what_would() {
    refused(
        r#"[server]
listen = "localhost""#,
        &[
            r#"config.toml:2:10: `server.listen` is `localhost`, which is no IP address with a port; write one such as "127.0.0.1:8400" or "[::1]:8400""#,
        ],
    );
    refused(
        r#"[server]
listen = "0.0.0.0:99999""#,
        &[
            r#"config.toml:2:10: `server.listen` is `0.0.0.0:99999`, which is no IP address with a port; write one such as "127.0.0.1:8400" or "[::1]:8400""#,
        ],
    );
    refused(
        r#"[server]
max_body = "big""#,
        &[
            r#"config.toml:2:12: `server.max_body` is `big`, which is no size; write one such as "1MiB" or a number of bytes"#,
        ],
    );
    refused(
        r#"[server]
header_timeout = "soon""#,
        &[
            r#"config.toml:2:18: `server.header_timeout` is `soon`, which is no duration; write one such as "8s""#,
        ],
    );
    refused(
        r#"[store]
url = "postgres://db/app""#,
        &[
            r#"config.toml:2:7: `store.url` is no file of an SQLite store; write "sqlite:" and a path, such as "sqlite:data/posthouse.db""#,
        ],
    );
    refused(
        r#"[store]
url = "sqlite::memory:""#,
        &[
            r#"config.toml:2:7: `store.url` names no file; write "sqlite:" and a path, such as "sqlite:data/posthouse.db""#,
        ],
    );
    refused(
        r#"[mail]
url = "carrier-pigeon:roof""#,
        &[
            r#"config.toml:2:7: `mail.url` is no mail target; write "file:FOLDER", "smtps://USER:PASSWORD@HOST" or "smtp://USER:PASSWORD@HOST:587?tls=required""#,
        ],
    );
    for (url, problem) in [
        ("smtp://", "names no host"),
        ("smtps:///mail", "names no host"),
        ("smtp://mail.example.com:no", "is no URL (invalid port number)"),
        ("smtp://mail.example.com?tls=maybe", "has a `tls` that is neither `required` nor `opportunistic`"),
        ("smtp://ada:%ff@mail.example.com", "has a login that is not percent-encoded UTF-8"),
    ] {
        refused(
            &format!("[mail]\nurl = {url:?}"),
            &[&format!(
                r#"config.toml:2:7: `mail.url` {problem}; write "file:FOLDER", "smtps://USER:PASSWORD@HOST" or "smtp://USER:PASSWORD@HOST:587?tls=required""#,
            )],
        );
    }
    refused(
        r#"[mail]
url = "file:""#,
        &[r#"config.toml:2:7: `mail.url` names no folder; write one such as "file:data/mail""#],
    );
    refused(
        r#"[log]
level = "posthouse=loud""#,
        &[
            r#"config.toml:2:9: `log.level` is `posthouse=loud`, which is no filter; write "error", "warn", "info", "debug", "trace" or one such as "info,posthouse::ingress=debug""#,
        ],
    );
    refused(
        r#"[log]
format = "jsn""#,
        &[
            "config.toml:2:10: `log.format` is `jsn`, which is none of `human` and `json`; did you mean `json`?",
        ],
    );
    refused(
        r#"[plugins]
dir = """#,
        &["config.toml:2:7: `plugins.dir` is empty; write a path"],
    );
    refused(
        r#"[admin]
token = "two words""#,
        &["config.toml:2:9: `admin.token` holds what is not visible ASCII, which a bearer token must be"],
    );
    refused(
        r#"[admin]
token = """#,
        &[r#"config.toml:2:9: `admin.token` is empty; write the secret, or where it is: { env = "NAME" }"#],
    );
    refused(
        r#"[server]
listen = "127.0.0.1:9000"
[admin]
listen = "127.0.0.1:9000""#,
        &["config.toml:4:10: `admin.listen` is 127.0.0.1:9000, as is `server.listen`; take another port"],
    );
    refused(
        r#"[plugin."Über mailer"]
reuse = 2"#,
        &[
            "config.toml:1:1: `Über mailer` is no name of a plugin; one is 1 to 64 of `a-z 0-9 - _` and begins with a letter or digit",
        ],
    );
    refused(
        r#"[plugin.mailer]
events = ["user.created", "user*"]"#,
        &[
            "config.toml:2:27: `plugin.mailer.events` holds `user*`, which is no pattern of event types; `user.created`, `membership.*` and `*` are",
        ],
    );
    refused(
        "[plugin.mailer]
events = []",
        &[r#"config.toml:2:10: `plugin.mailer.events` is empty; write at least one, such as ["user.*"]"#],
    );
    refused(
        r#"[plugin.mailer.grants]
mail = { from = ["not an address"], to = ["*"] }"#,
        &[
            r#"config.toml:2:18: `plugin.mailer.grants.mail.from` holds `not an address`, which is no mail address; write one such as "team@example.com" or "The team <team@example.com>""#,
        ],
    );
    refused(
        r#"[plugin.mailer.grants]
mail = { from = ["a@example.com"], to = ["everybody"] }"#,
        &[
            r#"config.toml:2:42: `plugin.mailer.grants.mail.to` holds `everybody`, which is nobody; write an address, "*@example.com" for a domain or "*" for everybody"#,
        ],
    );
    refused(
        r#"[plugin.mailer.grants]
mail = { from = ["a@example.com"] }"#,
        &[r#"config.toml:2:8: `plugin.mailer.grants.mail.to` is missing; write to = ["*"]"#],
    );
}

#[test]
fn telemetry_that_cant_be_says_why() {
    for (line, says) in [
        (
            r#"otlp = "collector:4318""#,
            "`telemetry.otlp` is `collector:4318`, which is neither http:// nor https://",
        ),
        (r#"otlp = "4318""#, "`telemetry.otlp` is `4318`, which is no URL"),
        (r#"otlp = "http://a.example?key=1""#, "`telemetry.otlp` has a query or a fragment"),
        (
            r#"otlp = "http://user:hunter2@a.example""#,
            "`telemetry.otlp` holds a login; `header` is where credentials stand",
        ),
    ] {
        let expected = format!("config.toml:2:8: {says}; write one such as \"http://127.0.0.1:4318\"");
        refused(&format!("[telemetry]\n{line}"), &[&expected]);
    }
    refused("[telemetry]\nsample = 2", &["config.toml:2:10: `telemetry.sample` is 2; it may be 0 to 1"]);
    refused(
        "[telemetry]\nservice_name = \"\"",
        &["config.toml:2:16: `telemetry.service_name` is empty; write a name"],
    );
    refused(
        "[telemetry]\nheaders = { a = \"b\" }",
        &["config.toml:2:1: unknown key `headers` in `telemetry`; did you mean `header`?"],
    );
    refused(
        "[telemetry]\nheader = { Host = \"a\" }",
        &["config.toml:2:19: `telemetry.header.Host` is a header that posthouse sets itself; leave it out"],
    );
}

#[test]
fn a_grant_of_requests_says_what_is_wrong_with_it() {
    let write = r#"; write one such as "https://api.example.com" or "https://*.example.com:8443/v1/""#;
    let grant = |entry: &str| format!("[plugin.seats.grants]\nhttp = [{entry}]\n");
    let at = "config.toml:2:9: `plugin.seats.grants.http`";
    for (entry, says) in [
        (r#""api.example.com""#, "holds `api.example.com`, which is no URL (relative URL without a base)"),
        (r#""ftp://a.example""#, "holds `ftp://a.example`, which is neither http:// nor https://"),
        (
            r#""https://*""#,
            "holds `https://*`, which has a `*` that does not replace sub-domains, as in https://*.example.com",
        ),
        (
            r#""https://user:hunter2@a.example""#,
            "contains a login; put credentials into a header of the grant",
        ),
        (
            r#""https://a.example/?key=1""#,
            "holds `https://a.example/?key=1`, which has a query or a fragment; only scheme, host, port and the beginning of a path are allowed",
        ),
        (
            r#""https://a.example/..%2fb""#,
            "holds `https://a.example/..%2fb`, which has a path with an encoded `/`, `.` or `\\`, which servers read in different ways",
        ),
    ] {
        refused(&grant(entry), &[&format!("{at} {says}{write}")]);
    }
    let place = "config.toml:2:9: `plugin.seats.grants.http";
    refused(
        &grant("7"),
        &[&format!(
            "{place}` is an integer; write a URL in quotes, or {{ url = \"https://api.example.com\", header.Authorization = {{ env = \"API_TOKEN\" }} }}"
        )],
    );
    refused(
        &grant("{ header.a = \"b\" }"),
        &[&format!("{place}.url` is missing; write url = \"https://api.example.com\"")],
    );
    refused(
        &grant(r#"{ url = "https://a.example", addresses = ["10.0.0.0/33"] }"#),
        &[
            r#"config.toml:2:51: `plugin.seats.grants.http.addresses` holds `10.0.0.0/33`, which is no network; write one such as "10.0.0.0/8" or "127.0.0.1""#,
        ],
    );
    refused(
        &grant(r#"{ url = "https://a.example", header.Host = "b" }"#),
        &[
            "config.toml:2:52: `plugin.seats.grants.http.header.Host` is a header that posthouse sets itself; leave it out",
        ],
    );
    refused(
        &grant(r#"{ url = "https://a.example", header.X-Key = { env = "NO_SUCH_KEY" } }"#),
        &[
            r#"config.toml:2:53: `plugin.seats.grants.http.header.X-Key` wants the environment variable `NO_SUCH_KEY`, which is not set; set it, or say { file = "PATH" }"#,
        ],
    );
    refused(
        &grant(r#"{ url = "https://a.example", port = 7 }"#),
        &[
            "config.toml:2:38: unknown key `port` in `plugin.seats.grants.http`; the keys in `plugin.seats.grants.http` are `url`, `addresses`, `header` and `sign`",
        ],
    );
    refused(
        "[http]\nnameservers = [\"dns.example\"]",
        &[
            r#"config.toml:2:16: `http.nameservers` holds `dns.example`, which is no IP address; write one such as "127.0.0.1" or "127.0.0.1:5353""#,
        ],
    );
}

#[test]
fn a_scheme_is_checked_whole() {
    refused(
        r#"[scheme.acme]
signature = { header = "X-Acme", algorithm = "md5", entries = "," }
timestamp = { at = "header:x-time" }
signed = "{timestap}.{body}"
event = { type = "{json:type}" }

[scheme.stripe]
signature = { header = "x-acme" }

[scheme.several]
any = ["acme", "strype"]"#,
        &[
            "config.toml:2:24: `scheme.acme.signature.header` names the header `X-Acme`; write it in lower case",
            "config.toml:2:46: `scheme.acme.signature.algorithm` is `md5`, which is none of `hmac-sha1`, `hmac-sha256`, `hmac-sha512`, `sha256`, `ed25519`, `ecdsa-p256`, `rsa-sha1`, `rsa-sha256`, `jwt-es256`, `jwt-hs256`, `token` and `basic`",
            r#"config.toml:2:63: `scheme.acme.signature.label` is missing; write label = "v1""#,
            "config.toml:4:10: `scheme.acme.signed` names `timestap`, which is no place; `header:NAME`, `entry:LABEL`, `json:/POINTER`, `query:NAME`, `form:NAME` and `claim:NAME` are",
            "config.toml:5:18: `scheme.acme.event.type` names `type`, which is no JSON pointer; one looks like `/data/id`",
            "config.toml:7:1: posthouse ships a scheme `stripe`; take another name",
            "config.toml:11:16: `any` names `strype`, which is no row; did you mean `stripe`?",
        ],
    );
    for (table, problem) in [
        (
            r#"signature = { header = "x-acme" }
signed = "{timestamp}"
timestamp = { at = "header:x-time" }
event = { type = "a" }"#,
            "config.toml:3:10: `scheme.acme.signed` does not contain {body}, so anybody could change it; write {body}, or {form} and a `digest`, or a place that is `once`",
        ),
        (
            r#"signature = { header = "x-acme" }
timestamp = { at = "header:x-time" }
event = { type = "a" }"#,
            "config.toml:3:13: `scheme.acme.timestamp` is not signed, so it guards against nothing; write {timestamp} into `signed`",
        ),
        (
            r#"signature = { header = "x-acme", algorithm = "token" }
timestamp = { at = "header:x-time" }
event = { type = "a" }"#,
            "config.toml:2:13: `scheme.acme.signature` is a secret and signs nothing; take `signed`, `timestamp` and `digest` away",
        ),
        (
            r#"signature = { header = "x-acme", algorithm = "ed25519" }
event = { type = "a" }"#,
            "config.toml:1:1: `scheme.acme.key.encoding` does not fit the algorithm: ed25519 has a key in \"hex\" or \"base64\", ecdsa-p256 one in \"spki\", and others no \"spki\"",
        ),
        (
            r#"signature = { header = "x-acme" }
signed = "{key}{body}"
event = {}"#,
            "config.toml:3:10: `scheme.acme.signed` contains {key} exactly if the algorithm is \"sha256\", and may if it is RSA; any other has its key beside the text\nconfig.toml:4:9: `scheme.acme.event.type` is missing; write type = \"{json:/type}\"",
        ),
        (
            r#"signature = { json = "/a/b", entries = ",", label = "v1" }
once = "header:x-token"
event = { each = "", type = "a" }"#,
            "config.toml:2:13: `scheme.acme.signature` has `entries`, which only a header has\nconfig.toml:3:8: `scheme.acme.once` is not signed, so anybody could choose it\nconfig.toml:3:8: `scheme.acme.once` guards one event a request; take `each` away, or sign the body instead",
        ),
        (
            r#"signature = { header = "x-acme" }
body = "form"
event = { type = "a" }
handshake = [{ method = "GET", place = "query:a", answer = { text = "{hmac-sha256-hex:query:a}" } }]"#,
            "config.toml:5:13: `scheme.acme.handshake` answers anybody with an HMAC. That is safe only if the signed text contains {body}, bodies are JSON and no other handshake is `verified`",
        ),
        (
            r#"signature = { header = "x-acme" }
event = { type = "a" }
handshake = [{ place = "form:a" }, { method = "GET", answer = { text = "{entry:t}" } }]"#,
            "config.toml:4:24: `scheme.acme.handshake.place` names a field of a form, and a test of the URL is none\nconfig.toml:4:36: a handshake names the `place` that shows it, unless its method is \"HEAD\"\nconfig.toml:4:72: `scheme.acme.handshake.answer.text` names a part of the signature, which a test of the URL has not",
        ),
        (
            r#"signature = { header = "x-acme", algorithm = "rsa-sha256", encoding = "base64" }
signed = "{body}"
certificate = { at = "header:x-url", from = ["https://*.example/"], name = "a.example" }
event = { type = "a" }"#,
            "config.toml:3:10: `scheme.acme.signed` would fit what the sender signs for anybody: write {key} into it, or a `require` with is = \"{key}\"\nconfig.toml:4:46: `scheme.acme.certificate.from` holds `https://*.example/`, which has a `*` for a domain, which anybody may register; write it in front of one",
        ),
        (
            r#"signature = { header = "x-acme", algorithm = "rsa-sha256", encoding = "base64" }
signed = "{key}{crc32}"
event = { type = "a" }"#,
            "config.toml:1:1: `scheme.acme.certificate` is missing, and the algorithm's key is there\nconfig.toml:3:10: `scheme.acme.signed` contains {crc32}, and anybody can write another body with the same one; a `timestamp` and `once` have to guard it\nconfig.toml:3:10: `scheme.acme.signed` does not contain {body}, so anybody could change it; write {body}, or {form} and a `digest`, or a place that is `once`",
        ),
        (
            r#"signature = { header = "x-acme", algorithm = "jwt-es256" }
signed = "{body}"
keys = "https://a.b.example/*"
event = { type = "a" }"#,
            "config.toml:3:10: `scheme.acme.signed` has no use: a JWT signs its claims; write `digest` or `require` for them\nconfig.toml:4:8: `scheme.acme.keys` has a `*`; posthouse posts the key's id to one URL",
        ),
        (
            r#"signature = { header = "x-acme" }
timestamp = { at = "claim:iat" }
encrypted = "json:/a"
keys = "https://a.example/k"
require = [{ place = "header:x-a", is = "{key}" }]
event = { type = "{claim:a}" }"#,
            "config.toml:2:13: `scheme.acme.signature` is no JWT, and a place names a claim of one\nconfig.toml:3:13: `scheme.acme.timestamp` is not signed, so it guards against nothing; write {timestamp} into `signed`\nconfig.toml:4:13: `scheme.acme.encrypted` is for the algorithm \"sha256\", whose key also encrypts\nconfig.toml:5:8: `scheme.acme.keys` has no use: the algorithm has no such key\nconfig.toml:6:11: `scheme.acme.require` compares a text with {key}, which is secret unless the algorithm is RSA\nconfig.toml:7:9: `scheme.acme.event.type` is missing; write type = \"{json:/type}\"\nconfig.toml:7:18: `scheme.acme.event.type` names a part of the signature, which is no part of an event",
        ),
        (
            r#"signature = { header = "x-acme" }
event = { type = "a" }
handshake = [{ place = "json:/a", confirm = { at = "json:/u", from = ["https://a.example/?*"] } }]"#,
            "config.toml:4:45: `confirm` fetches a URL of the request, so that the request has to be `verified`",
        ),
    ] {
        let findings: Vec<_> = problem.split('\n').collect();
        refused(&format!("[scheme.acme]\n{table}"), &findings);
    }
}

#[test]
fn a_source_says_its_url_where_the_scheme_signs_it() {
    let square = |more: &str| {
        format!(
            "[[source]]\nname = \"square\"\npath = \"/in\"\nscheme = \"square\"\nsecrets = [\"iRK9WwldJM8abrLorj1Ktc\"]\n{more}"
        )
    };
    refused(
        &square(""),
        &[
            "config.toml:4:10: `source.url` is missing; scheme `square` signs it: write the address that the sender has, such as url = \"https://hooks.example.com/webhooks/square\"",
        ],
    );
    refused(
        &square(r#"url = "https://hooks.example.com/in?a=1""#),
        &[
            r#"config.toml:6:7: `source.url` has a query, a fragment or a login; write the address that the sender has, such as "https://hooks.example.com/webhooks/acme""#,
        ],
    );
    refused(
        &square(r#"url = "hooks.example.com/in""#),
        &[
            r#"config.toml:6:7: `source.url` is `hooks.example.com/in`, which is no web address; write the address that the sender has, such as "https://hooks.example.com/webhooks/acme""#,
        ],
    );
}

#[test]
fn sources_are_complete_and_differ() {
    refused(
        "[[source]]",
        &[
            r#"config.toml:1:1: `source.path` is missing; write path = "/webhooks/scalekit""#,
            r#"config.toml:1:1: `source.scheme` is missing; write scheme = "scalekit""#,
            r#"config.toml:1:1: `source.secrets` is missing; write secrets = [{ env = "WEBHOOK_SECRET" }]"#,
        ],
    );
    refused(
        r#"[[source]]
name = "plugin:crm"
path = "webhooks"
scheme = "strype"
secrets = []"#,
        &[
            "config.toml:2:8: `source.name` holds ':'; letters, digits, `-` and `_` are allowed",
            "config.toml:3:8: `source.path` is `webhooks`, which does not begin with `/`",
            "config.toml:4:10: `source.scheme` is `strype`, which is no scheme; did you mean `stripe`? `posthouse senders` lists them, and [scheme.NAME] adds one",
            r#"config.toml:5:11: `source.secrets` is empty; write at least one, such as [{ env = "WEBHOOK_SECRET" }]"#,
        ],
    );
    refused(
        r#"[[source]]
name = "crm"
path = "/webhooks?x=1"
scheme = "scalekit"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]"#,
        &["config.toml:3:8: `source.path` holds '?'; a path may have letters, digits and `/ - . _ ~`"],
    );
    refused(
        r#"[[source]]
name = "crm"
path = "/web hooks"
scheme = "scalekit"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]"#,
        &["config.toml:3:8: `source.path` holds ' '; a path may have letters, digits and `/ - . _ ~`"],
    );
    refused(
        r#"[[source]]
name = "a b"
path = "/webhooks/crm"
scheme = "scalekit"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]"#,
        &[
            "config.toml:2:8: `source.name` is wrong: source name holds ' '; letters, digits, `-` and `_` are allowed",
        ],
    );
    refused(
        r#"[[source]]
name = "crm"
path = "/webhooks/crm"
scheme = "scalkit"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]"#,
        &[
            "config.toml:4:10: `source.scheme` is `scalkit`, which is no scheme; did you mean `scalekit`? `posthouse senders` lists them, and [scheme.NAME] adds one",
        ],
    );
    refused(
        r#"[[source]]
name = "crm"
path = "/webhooks/crm"
scheme = "scalekit"
secrets = []"#,
        &[
            r#"config.toml:5:11: `source.secrets` is empty; write at least one, such as [{ env = "WEBHOOK_SECRET" }]"#,
        ],
    );
    refused(
        r#"[[source]]
name = "crm"
path = "/webhooks/crm"
scheme = "scalekit"
secrets = [""]"#,
        &[
            r#"config.toml:5:12: `source.secrets` is empty; write the secret, or where it is: { env = "NAME" }"#,
        ],
    );
    refused(
        &source(r#"events = ["created*"]"#),
        &[
            "config.toml:6:11: `source.events` holds `created*`, which is no pattern of event types; `user.created`, `membership.*` and `*` are",
        ],
    );
    refused(
        &format!("{SOURCE}{SOURCE}"),
        &[
            "config.toml:7:8: `source.name` is `crm`, as on line 2; take another",
            "config.toml:8:8: `source.path` is `/webhooks/crm`, as on line 3; take another",
        ],
    );
    let github = |path: &str| SOURCE.replace("name = \"crm\"\n", "").replace("/webhooks/crm", path);
    refused(
        &format!("{}{}", github("/a"), github("/b")),
        &["config.toml:5:1: `source.name` is `scalekit`, as on line 1; take another"],
    );
    refused(
        &format!("{SOURCE}{}", SOURCE.replace("\"crm\"", "\"erp\"")),
        &["config.toml:8:8: `source.path` is `/webhooks/crm`, as on line 3; take another"],
    );
}

#[test]
fn what_is_no_toml_says_where() {
    refused("[server", &["config.toml:1:8: this is not TOML: unclosed table, expected `]`"]);
    refused(
        "[server]
listen = ",
        &["config.toml:2:10: this is not TOML: string values must be quoted, expected literal string"],
    );
    refused(
        "a = 1
a = 2",
        &["config.toml:2:1: this is not TOML: duplicate key"],
    );
    refused(
        r#"[server]
listen = "127.0.0.1:1"#,
        &[r#"config.toml:2:22: this is not TOML: invalid basic string, expected `"`"#],
    );
    refused(
        "[log]
[log]",
        &["config.toml:2:2: this is not TOML: duplicate key"],
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    refused(
        r#"[server]
max_requests = 0
lisen = "x"

[[source]]
name = "crm"
path = "/webhooks/crm"
scheme = "scalekit"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]

[plugins]
reuse = 0"#,
        &[
            "config.toml:2:16: `server.max_requests` is 0; it may be 1 to 65536",
            "config.toml:3:1: unknown key `lisen` in `server`; did you mean `listen`?",
            "config.toml:12:9: `plugins.reuse` is 0; it may be 1 to 1000000",
        ],
    );
}

/// Every source of a secret, with every error that it can have.
#[test]
fn a_missing_secret_names_the_key_and_the_place() {
    let secrets =
        |reference: &str| SOURCE.replace("\"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"", reference);
    let prepare = |folder: &Path| {
        fs::write(folder.join("empty"), "\n").unwrap();
        fs::write(folder.join("binary"), [0xff, 0xfe]).unwrap();
        fs::write(folder.join("huge"), vec![b'x'; 100_000]).unwrap();
    };
    for (reference, variables, message) in [
        (
            r#"{ env = "CRM" }"#,
            &[][..],
            "wants the environment variable `CRM`, which is not set; set it, or say { file = \"PATH\" }",
        ),
        (r#"{ env = "CRM" }"#, &[("CRM", "")], "wants the environment variable `CRM`, which is empty"),
        (
            r#"{ file = "nowhere" }"#,
            &[],
            "wants the file `nowhere`, which can't be read: No such file or directory (os error 2)",
        ),
        (r#"{ file = "empty" }"#, &[], "wants the file `empty`, which is empty"),
        (r#"{ file = "binary" }"#, &[], "wants the file `binary`, which is not UTF-8"),
        (r#"{ file = "huge" }"#, &[], "wants the file `huge`, which is longer than 65536 bytes"),
        (
            r#"{ credential = "crm" }"#,
            &[],
            "wants the credential `crm`, but $CREDENTIALS_DIRECTORY is not set; run posthouse as a systemd \
             service with LoadCredential=crm",
        ),
        (
            r#"{ credential = "crm" }"#,
            &[("CREDENTIALS_DIRECTORY", "creds")],
            "wants the credential `creds/crm`, which can't be read: No such file or directory (os error 2)",
        ),
        (
            r#"{ credential = "../crm" }"#,
            &[("CREDENTIALS_DIRECTORY", "creds")],
            "wants the credential `../crm`, which is no name; it may not hold `/`",
        ),
        (
            r#"{ environment = "CRM" }"#,
            &[],
            "is a table; write { env = \"NAME\" }, { file = \"PATH\" }, { credential = \"NAME\" } or the text \
             in quotes",
        ),
    ] {
        let output = check(&secrets(reference), prepare, variables);
        assert_eq!(said(&output), [format!("config.toml:5:12: `source.secrets` {message}")], "{reference}");
        assert_eq!(output.status.code(), Some(78), "{reference}");
    }
}

#[test]
fn a_secret_that_nobody_can_have_meant_is_refused_wherever_it_stands_and_is_from() {
    let prepare = |folder: &Path| {
        fs::write(folder.join("marked"), "\u{feff}whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
            .unwrap();
        fs::write(folder.join("lines"), "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\r\n\r\n")
            .unwrap();
        fs::write(folder.join("named"), "named\n").unwrap();
    };
    let variables = [
        ("CRM", "${CRM}"),
        ("OWN", "OWN"),
        ("QUOTED", "\"x7f3a9c\""),
        ("URL", "postgres://a:$DB_PASSWORD@h/b"),
    ];
    let source =
        |secrets: &str| SOURCE.replace("\"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"", secrets);
    let template = "(`${…}`) that nothing has filled in";
    for (config, at, says) in [
        (source(r#""${CRM}""#), "config.toml:5:12: `source.secrets` ", template),
        (source(r#"{ env = "CRM" }"#), "config.toml:5:12: `source.secrets` ", "(from `CRM`)"),
        (source(r#"{ env = "OWN" }"#), "config.toml:5:12: `source.secrets` ", "is the name of a variable or file"),
        (source(r#"{ file = "named" }"#), "config.toml:5:12: `source.secrets` ", "is the name of a variable or file"),
        (source(r#"{ file = "marked" }"#), "config.toml:5:12: `source.secrets` ", "begins with a byte order mark"),
        (source(r#"{ file = "lines" }"#), "config.toml:5:12: `source.secrets` ", "begins or ends with white space"),
        ("[admin]\ntoken = { env = \"QUOTED\" }\n".to_owned(), "config.toml:2:9: `admin.token` ", "is in quotes"),
        ("[admin]\ntoken = \"changeme\"\n".to_owned(), "config.toml:2:9: `admin.token` ", "anybody can guess"),
        ("[mail]\nurl = \"smtps://post:${PASSWORD}@mail.example.com\"\n".to_owned(), "config.toml:2:7: `mail.url` ", template),
        ("[databases.app]\nurl = { env = \"URL\" }\n".to_owned(), "config.toml:2:7: `databases.app.url` ", "(`$…`)"),
        (
            "[telemetry]\notlp = \"https://otlp.example.com\"\nheader = { Authorization = \"Bearer ${TOKEN}\" }\n".to_owned(),
            "config.toml:3:28: `telemetry.header.Authorization` ",
            template,
        ),
        (
            "[plugin.x.grants]\nhttp = [{ url = \"https://a.example\", header.Authorization = \"Bearer <token>\" }]\n".to_owned(),
            "config.toml:2:61: `plugin.x.grants.http.header.Authorization` ",
            "(`<…>`)",
        ),
    ] {
        let output = check(&config, prepare, &variables);
        let said = said(&output);
        assert!(said.len() == 1 && said[0].starts_with(at) && said[0].contains(says), "{config}\n{said:?}");
        assert_eq!(output.status.code(), Some(78), "{config}");
    }
}

#[test]
fn a_secret_that_may_be_meant_is_warned_of_and_no_more() {
    let warned = |config: &str, says: &str| {
        let output = check(config, |_| {}, &[("KEY", "${API_KEY}")]);
        assert_eq!(output.status.code(), Some(0), "{:?}", said(&output));
        let warning = said(&output)
            .into_iter()
            .find(|line| line.contains(says))
            .unwrap_or_else(|| panic!("{:?}", said(&output)));
        assert!(warning.starts_with("warning: config.toml:"), "{warning}");
    };
    warned(
        "[mail]\nurl = \"smtps://post:changeme@mail.example.com\"\n",
        "`mail.url` has a password that is a placeholder",
    );
    warned("[plugin.x.config]\nkey = { env = \"KEY\" }\n", "`plugin.x.config.key` holds a placeholder");
    let short = SOURCE.replace("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whsec_AAEC");
    warned(&short, "has a key of 3 bytes, which can be guessed");
}

#[test]
fn a_secret_that_is_there_is_taken_from_each_place() {
    let config = format!(
        "{}\n[plugin.mailer.config]\nkey = {{ credential = \"api\" }}\nplain = {{ file = \"a\", mode = 1 }}\n",
        SOURCE.replace(
            "\"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"",
            r#"{ env = "CRM" }, { file = "secret" }"#
        )
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, config).unwrap();
    fs::write(folder.path().join("secret"), "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo=\r\n").unwrap();
    fs::write(folder.path().join("api"), "s3cret\n\n").unwrap();
    let credentials = folder.path().to_str().unwrap();
    let config = Config::load(
        &file,
        &Variables::of(&[
            ("CRM", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            ("CREDENTIALS_DIRECTORY", credentials),
        ]),
    )
    .unwrap();
    let secrets: Vec<_> = config.sources[0].secrets.iter().map(|secret| secret.expose()).collect();
    assert_eq!(
        secrets,
        ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo="]
    );
    let own = &config.settings("mailer").config;
    assert_eq!(own["key"].expose(), "s3cret\n", "one newline is trimmed, and no more");
    assert_eq!(own["plain"].expose(), r#"{"file":"a","mode":1}"#, "this is a table, not a secret");
}

#[test]
fn a_mail_password_that_would_go_in_clear_is_warned_of_and_no_more() {
    let config = "[mail]\nurl = \"smtp://ada:tell-nobody@mail.example.com\"\n";
    let output = check(config, |_| {}, &[]);
    assert_eq!(output.status.code(), Some(0), "{:?}", said(&output));
    let warning = "warning: config.toml:2:7: the mail server's password may go in clear; add `?tls=required`, \
                   or say smtps://";
    assert_eq!(said(&output)[0], warning);
    assert!(said(&output).iter().all(|line| !line.contains("nobody")), "{:?}", said(&output));
}

/// Commands that only talk to the daemon run in a shell without its variables.
#[test]
fn a_command_that_needs_no_secret_does_not_ask_for_it() {
    let config = format!(
        "[admin]\ntoken = {{ env = \"TOKEN\" }}\n[mail]\nurl = {{ env = \"MAIL\" }}\n{}",
        SOURCE.replace("\"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"", r#"{ env = "CRM" }"#)
    );
    let loaded = |variables: &[(&str, &str)], secrets| {
        Loaded::parse(&config, Path::new("config.toml"), &Variables::of(variables), secrets)
    };
    let online = loaded(&[("TOKEN", "t")], Secrets::OfAdmin).unwrap().config;
    assert_eq!(online.admin.token.unwrap().expose(), "t");
    assert!(online.sources[0].secrets.is_empty());
    let offline =
        loaded(&[("CRM", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")], Secrets::OfSources)
            .unwrap()
            .config;
    assert_eq!(offline.sources[0].secrets[0].expose(), "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    assert!(offline.admin.token.is_none());
    assert_eq!(wrong(loaded(&[], Secrets::All)).len(), 3);
    assert_eq!(wrong(loaded(&[], Secrets::OfAdmin)).len(), 1);
}

#[test]
fn a_secret_shows_neither_in_errors_nor_in_debug() {
    let config = format!(
        "[admin]\ntoken = \"tell nobody\"\n[mail]\nurl = \"smpt://ada:tell-nobody@mail.example.com\"\n\
         [plugin.mailer.config]\nkey = \"tell nobody\"\nratio = nan\n{}",
        SOURCE.replace("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whsec_tell_nobody!")
    );
    let output = check(&config, |_| {}, &[]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(said(&output).len(), 3, "{:?}", said(&output));
    assert!(said(&output).iter().all(|line| !line.contains("nobody")), "{:?}", said(&output));

    let output = check(
        &SOURCE.replace("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whsec_tell_nobody!"),
        |_| {},
        &[],
    );
    assert_eq!(output.status.code(), Some(78), "a secret that makes no key is config.toml's fault");
    assert_eq!(said(&output).len(), 1);
    assert!(!said(&output)[0].contains("nobody"), "{:?}", said(&output));

    let text =
        "[mail]\nurl = \"smtps://ada:nobody@mail.example.com\"\n[plugin.mailer.config]\nkey = \"nobody\"\n";
    let loaded = Loaded::parse(text, Path::new("c"), &Variables::of(&[]), Secrets::All).unwrap();
    assert!(!format!("{loaded:?}").contains("nobody"), "{loaded:?}");
}

#[test]
fn a_secret_in_a_file_that_everybody_may_read_is_warned_of_and_no_more() {
    let mode = |mode| {
        let change = move |folder: &Path| {
            fs::set_permissions(folder.join("config.toml"), fs::Permissions::from_mode(mode)).unwrap();
        };
        check(SOURCE, change, &[])
    };
    let open = mode(0o644);
    assert!(open.status.success());
    assert_eq!(said(&open).len(), 1);
    assert!(said(&open)[0].starts_with("warning: config.toml:5:12: this file contains a secret"));
    let closed = mode(0o640);
    assert!(closed.status.success());
    assert_eq!(said(&closed), [""; 0]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    for arguments in
        [&["check", "--config", "nowhere/config.toml"][..], &["--config", "nowhere/config.toml", "serve"]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_posthouse")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        assert_eq!(
            said(&output),
            ["`nowhere/config.toml` can't be read: No such file or directory (os error 2); name the \
              configuration with --config FILE"]
        );
    }
}

#[test]
fn paths_begin_at_the_folder_of_the_file_and_plugins_inherit() {
    let text = "[store]\nurl = \"sqlite:s/p.db\"\n[mail]\nurl = \"file:/var/mail/out\"\n\
                [plugins]\nreuse = 7\nretry = { attempts = 9 }\nlimits = { time = \"1s\" }\n\
                [plugin.a]\nretry = { base = \"5s\" }\n";
    let loaded = Loaded::parse(text, Path::new("/etc/posthouse/c.toml"), &Variables::of(&[]), Secrets::All);
    let config = loaded.unwrap().config;
    assert_eq!(config.store.path, Path::new("/etc/posthouse/s/p.db"));
    assert_eq!(config.plugins.dir, Path::new("/etc/posthouse/plugins"));
    assert!(format!("{:?}", config.mail.target).contains("\"/var/mail/out\""));
    let (a, b) = (config.settings("a"), config.settings("b"));
    assert_eq!((a.reuse, a.retry.attempts, a.retry.base.as_secs(), a.limits.time.as_secs()), (7, 9, 5, 1));
    assert_eq!((b.reuse, b.retry.attempts, b.retry.base.as_secs(), b.limits.time.as_secs()), (7, 9, 2, 1));
}

proptest! {
    /// The reader accepts or refuses any file. Each error is one line with a place in the file.
    #[test]
    fn nothing_in_a_file_makes_the_reader_fall_over(text in arbitrary_file()) {
        let environment = Variables::of(&[("A", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]);
        let loaded = Loaded::parse(&text, Path::new("config.toml"), &environment, Secrets::All);
        if let Err(error) = loaded {
            for line in error.to_string().lines() {
                prop_assert!(line.starts_with("config.toml:"), "{line}");
            }
            let ConfigError::Wrong(findings) = error else { return Ok(()) };
            prop_assert!(!findings.is_empty());
            for finding in findings {
                prop_assert!(!finding.message.contains('\n'));
                let line = text.split('\n').nth(finding.line - 1);
                prop_assert!(line.is_some_and(|line| finding.column <= line.chars().count() + 1), "{finding}");
            }
        }
    }
}

/// Any text, and lines that are similar enough to a config.toml to pass its grammar.
fn arbitrary_file() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "listen",
        "max_body",
        "max_requests",
        "url",
        "state",
        "retention",
        "min_free",
        "max_size",
        "rate",
        "breaker",
        "failures",
        "pause",
        "level",
        "dir",
        "reuse",
        "retry",
        "limits",
        "memory",
        "time",
        "attempts",
        "max",
        "base",
        "jitter",
        "name",
        "path",
        "scheme",
        "secrets",
        "tolerance",
        "events",
        "token",
        "grants",
        "mail",
        "from",
        "to",
        "config",
        "server",
        "plugin",
        "source",
        "é",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "-1",
        "0x7fffffffffffffffffff",
        "1e400",
        "nan",
        "true",
        "2026-01-01",
        "\"\"",
        "\"8s\"",
        "\"1MiB\"",
        "\"99999999999999999999GiB\"",
        "\"99999999999999999999y\"",
        "[]",
        "[[]]",
        "{}",
        "\"*\"",
        "[\"a@example.com\", 1]",
        "{ env = \"A\" }",
        "{ file = \"\" }",
        "{ credential = \"x\" }",
        "{ mail = { from = [], to = [\"*@\"] } }",
        "\"smtp://\"",
        "\"file:x\"",
        "'''\n\n'''",
        "\"/\\u0000\"",
    ]);
    let table = prop::sample::select(vec![
        "[server]",
        "[admin]",
        "[store]",
        "[mail]",
        "[log]",
        "[plugins]",
        "[plugins.retry]",
        "[plugins.breaker]",
        "[plugin.a]",
        "[plugin.a.limits]",
        "[plugin.a.grants]",
        "[plugin.a.config]",
        "[plugin.\"\"]",
        "[[source]]",
        "[source]",
        "[a.b.c]",
    ]);
    let line = prop_oneof![
        4 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        2 => table.prop_map(str::to_owned),
        1 => ".*",
    ];
    prop_oneof![
        1 => "(?s).{0,200}",
        8 => prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n")),
    ]
}

fn wrong(loaded: Result<Loaded, ConfigError>) -> Vec<String> {
    match loaded {
        Err(ConfigError::Wrong(findings)) => findings.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

/// The environment variables of one test.
struct Variables(BTreeMap<String, OsString>);

impl Variables {
    fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect())
    }
}

impl Environment for Variables {
    fn variable(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }
}
