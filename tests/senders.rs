//! Requests of many senders, over HTTP and by `posthouse verify`; the schemes that config.toml adds; `posthouse senders`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails a test")]

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use posthouse_harness::{Daemon, Headers, unix_now};
use posthouse_model::config::scheme::is_shipped;
use serde::Deserialize;
use sha2::Sha256;

const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

#[derive(Debug, Clone, Deserialize)]
struct Vector {
    name: String,
    scheme: String,
    kind: Option<String>,
    needs: Option<String>,
    secrets: Vec<String>,
    now: i64,
    method: String,
    url: String,
    query: Option<String>,
    headers: Headers,
    body_b64: String,
    expect: String,
    strict: Option<String>,
}

impl Vector {
    fn is_valid(&self) -> bool {
        self.strict.as_ref().unwrap_or(&self.expect) == "valid"
    }

    fn body(&self) -> Vec<u8> {
        BASE64.decode(&self.body_b64).unwrap()
    }
}

fn vectors() -> Vec<Vector> {
    #[derive(Deserialize)]
    struct File {
        vectors: Vec<Vector>,
    }
    let file: File = serde_json::from_str(include_str!("data/senders.json")).unwrap();
    let is_row =
        |vector: &Vector| vector.kind.is_none() && vector.needs.is_none() && is_shipped(&vector.scheme);
    file.vectors.into_iter().filter(is_row).collect()
}

/// The tables of all sources, and the name of each by scheme and secrets.
fn sources(vectors: &[Vector]) -> (String, BTreeMap<(String, Vec<String>), String>) {
    let mut names = BTreeMap::new();
    let mut text = String::new();
    for vector in vectors {
        let key = (vector.scheme.clone(), vector.secrets.clone());
        let name = format!("case-{}", names.len());
        let Vector { scheme, secrets, url, .. } = vector;
        names.entry(key).or_insert_with(|| {
            text += &format!(
                "[[source]]\nname = {name:?}\npath = \"/in/{name}\"\nscheme = {scheme:?}\nurl = {url:?}\nsecrets = {secrets:?}\n"
            );
            name
        });
    }
    (text, names)
}

#[test]
fn posthouse_verify_judges_each_as_the_senders_library_does() {
    let vectors = vectors();
    let (tables, names) = sources(&vectors);
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(&tables).prepare();
    // One valid and one invalid case of each sender: each is a process. `ingress/vectors.rs` judges all of them.
    let mut seen = BTreeMap::<(String, bool), ()>::new();
    for vector in &vectors {
        if seen.insert((vector.scheme.clone(), vector.is_valid()), ()).is_some() {
            continue;
        }
        let name = &names[&(vector.scheme.clone(), vector.secrets.clone())];
        let headers: Vec<_> = vector.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let now = vector.now.to_string();
        let mut arguments = vec!["verify", "--source", name, "--at", &now, "--method", &vector.method];
        arguments.extend(["--url", &vector.url]);
        if let Some(query) = &vector.query {
            arguments.extend(["--query", query]);
        }
        headers.iter().for_each(|header| arguments.extend(["-H", header]));
        let output = daemon.cli_with_input(&arguments, &vector.body());
        let code = if vector.is_valid() { 0 } else { 1 };
        assert_eq!(output.code, Some(code), "{}: {output:?}", vector.name);
    }
    assert!(seen.len() > 60, "{}", seen.len());
}

#[test]
fn the_daemon_refuses_each_invalid_request_and_takes_each_valid_one_that_has_no_time() {
    let vectors = vectors();
    let (tables, names) = sources(&vectors);
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(&tables).start();
    // Whether a valid case is valid at any time; none if that depends on the row that it is of.
    let timeless = |vector: &Vector| {
        let scheme = posthouse_model::config::Scheme::named(&vector.scheme).unwrap();
        let timed = scheme.rows.iter().filter(|row| row.timestamp.is_some()).count();
        (timed == 0 || timed == scheme.rows.len()).then_some(timed == 0)
    };
    let (mut taken, mut refused) = (0, 0);
    for vector in &vectors {
        let name = &names[&(vector.scheme.clone(), vector.secrets.clone())];
        let path = match &vector.query {
            Some(query) => format!("/in/{name}?{query}"),
            None => format!("/in/{name}"),
        };
        let Some(timeless) = timeless(vector) else { continue };
        let answer = daemon.connect().post(&path, &vector.headers, &vector.body()).expect("an answer");
        // The clock of the daemon can't be set, so that the others are stale.
        if vector.is_valid() && timeless {
            assert_eq!(answer.status, 200, "{}: {answer}", vector.name);
            taken += 1;
        } else {
            assert_eq!(answer.status, 401, "{}: {answer}", vector.name);
            assert_eq!(answer.body, r#"{"error":"Invalid signature"}"#, "{}", vector.name);
            refused += 1;
        }
    }
    assert!(taken > 40 && refused > 200, "{taken} {refused}");
    assert_eq!(daemon.stats()["balanced"], true, "{}", daemon.stats());
}

#[test]
fn a_scheme_of_config_toml_works_like_a_shipped_one() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .toml(&format!(
            r#"[scheme.acme]
signature = {{ header = "x-acme-signature", entries = ",", label = "v2", encoding = "base64" }}
timestamp = {{ at = "entry:ts", tolerance = "30s" }}
signed = "{{timestamp}}:{{body}}"
event = {{ id = "{{json:/meta/uid}}", type = "acme.{{json:/kind}}", organization = "{{header:x-acme-tenant}}" }}

[[source]]
name = "acme"
path = "/in/acme"
scheme = "acme"
secrets = ["{SECRET}"]
"#
        ))
        .start();
    let body = br#"{"meta":{"uid":4711},"kind":"Order Paid"}"#;
    let post = |second: i64, key: &str| {
        let mut hmac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        hmac.update(format!("{second}:").as_bytes());
        hmac.update(body);
        let value = BASE64.encode(hmac.finalize().into_bytes());
        let headers = [
            ("X-Acme-Signature".to_owned(), format!("ts={second},v1=old,v2={value}")),
            ("X-Acme-Tenant".to_owned(), "t-9".to_owned()),
        ];
        daemon.connect().post("/in/acme", &headers.to_vec(), body).unwrap().status
    };
    assert_eq!(post(unix_now(), SECRET), 200);
    assert_eq!(post(unix_now(), "another-secret-of-somebody"), 401);
    assert_eq!(post(unix_now() - 60, SECRET), 401);
    let events = daemon.cli(&["events", "--json"]).stdout;
    let event: serde_json::Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&event["id"], &event["type"], &event["organization"]),
        (&"4711".into(), &"acme.Order-Paid".into(), &"t-9".into()),
        "{event}"
    );
    let listed = daemon.cli(&["senders"]).stdout;
    assert!(listed.contains("acme") && listed.contains("Stripe"), "{listed}");
}

#[test]
fn a_scheme_that_signs_nothing_is_warned_of() {
    let table = format!(
        "[[source]]\nname = \"gitlab\"\npath = \"/in\"\nscheme = \"gitlab-token\"\nsecrets = [\"{SECRET}\"]\n"
    );
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(&table).prepare();
    let checked = daemon.cli(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(
        checked.stderr.contains("scheme gitlab-token: The token covers neither the body nor a time"),
        "{checked:?}"
    );
    let shown = daemon.cli(&["senders", "show", "gitlab-token"]);
    assert!(shown.stdout.contains("caution: The token covers neither"), "{shown:?}");
}

#[test]
fn each_sender_is_listed_and_shown_with_what_to_do() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).prepare();
    let listed = daemon.cli(&["senders"]);
    for scheme in posthouse_model::config::scheme::shipped() {
        assert!(listed.stdout.lines().any(|line| line.starts_with(&*scheme.name)), "{}", scheme.name);
    }
    let shown = daemon.cli(&["senders", "show", "square"]);
    for part in ["HMAC-SHA256", "{url}{body}", "setup: ", "[[source]]", "url = ", "scheme = \"square\""] {
        assert!(shown.stdout.contains(part), "{part}: {shown:?}");
    }
    assert!(shown.stdout.lines().any(|line| line == "[[source]]"), "it can be pasted: {shown:?}");
    let unknown = daemon.cli(&["senders", "show", "strype"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("did you mean `stripe`?"), "{unknown:?}");
}
