//! Requests of many senders, over HTTP and by `posthouse verify`; the schemes that config.toml adds; `posthouse senders`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails a test")]

use std::{collections::BTreeMap, fs, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use posthouse_harness::{Daemon, Headers, unix_now, wait_until};
use posthouse_model::{
    SenderSamples,
    config::scheme::{Algorithm, Scheme, is_shipped, shipped},
};
use serde::Deserialize;
use sha2::Sha256;

const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

#[derive(Debug, Clone, Deserialize)]
struct Vector {
    name: String,
    scheme: String,
    kind: Option<String>,
    needs: Option<String>,
    certificates: Option<BTreeMap<String, String>>,
    jwks: Option<serde_json::Value>,
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
    let is_event = |vector: &Vector| vector.kind.is_none() && is_shipped(&vector.scheme);
    let with_secret = |mut vector: Vector| {
        if vector.secrets.is_empty() {
            vector.secrets.push("client:of-the-client".to_owned());
        }
        vector
    };
    file.vectors.into_iter().filter(is_event).map(with_secret).collect()
}

/// Those whose keys are the secrets.
fn own_vectors() -> Vec<Vector> {
    vectors().into_iter().filter(|vector| vector.needs.is_none()).collect()
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
        let again = seen.insert((vector.scheme.clone(), vector.is_valid()), ()).is_some();
        if again && vector.needs.is_none() {
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
        if vector.needs.is_some() {
            // Without the key, nothing is valid.
            let output = daemon.cli_with_input(&arguments, &vector.body());
            assert_eq!(output.code, Some(1), "{}: {output:?}", vector.name);
        }
        if let Some(certificates) = &vector.certificates {
            let (_, pem) = certificates.iter().find(|(url, _)| !url.contains("evil")).unwrap();
            fs::write(daemon.dir().join("key.pem"), pem).unwrap();
            arguments.extend(["--certificate", "key.pem"]);
        }
        if let Some(jwks) = &vector.jwks {
            fs::write(daemon.dir().join("keys.json"), jwks.to_string()).unwrap();
            arguments.extend(["--jwks", "keys.json"]);
        }
        let output = daemon.cli_with_input(&arguments, &vector.body());
        let code = if vector.is_valid() { 0 } else { 1 };
        assert_eq!(output.code, Some(code), "{}: {output:?}", vector.name);
    }
    assert!(seen.len() > 60, "{}", seen.len());
}

#[test]
fn the_daemon_refuses_each_invalid_request_and_takes_each_valid_one_that_has_no_time() {
    let vectors = own_vectors();
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
            let scheme = Scheme::named(&vector.scheme).unwrap();
            let empty = scheme.rows.iter().any(|row| row.answer.is_some_and(|answer| answer.empty));
            let expected = if empty { "" } else { r#"{"error":"Invalid signature"}"# };
            assert_eq!(answer.body, expected, "{}", vector.name);
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

/// A daemon with one source of this scheme, at `/in`.
fn source(scheme: &str) -> Daemon {
    let table = format!(
        "[[source]]\nname = {scheme:?}\npath = \"/in\"\nscheme = {scheme:?}\nsecrets = [\"{SECRET}\"]\n"
    );
    Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(&table).start()
}

fn hex_hmac(pieces: &[&[u8]]) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    pieces.iter().for_each(|piece| hmac.update(piece));
    hex::encode(hmac.finalize().into_bytes())
}

/// Posts to `/in`. Returns the status and the body of the answer.
fn post(daemon: &Daemon, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let headers: Headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let answer = daemon.connect().post("/in", &headers, body).unwrap();
    (answer.status, answer.body)
}

const RECEIVED: &str = r#"{"received":true}"#;
const DUPLICATE: &str = r#"{"received":true,"duplicate":true}"#;

#[test]
fn a_request_under_another_id_that_nobody_signed_is_a_duplicate() {
    let daemon = source("github");
    let body = br#"{"action":"opened","number":7}"#;
    let signature = format!("sha256={}", hex_hmac(&[body]));
    let as_delivery = |id: &str, event: &str, signature: &str, body: &[u8]| {
        let headers =
            [("X-GitHub-Delivery", id), ("X-GitHub-Event", event), ("X-Hub-Signature-256", signature)];
        post(&daemon, &headers, body)
    };
    assert_eq!(as_delivery("d-1", "issues", &signature, body), (200, RECEIVED.into()));
    assert_eq!(as_delivery("d-1", "issues", &signature, body), (200, DUPLICATE.into()));
    // Whoever has seen the request chooses another id and another type.
    assert_eq!(as_delivery("d-2", "issues", &signature, body), (200, DUPLICATE.into()));
    assert_eq!(as_delivery("d-3", "push", &signature, body), (200, DUPLICATE.into()));
    let other = br#"{"action":"closed","number":7}"#;
    let signature = format!("sha256={}", hex_hmac(&[other]));
    assert_eq!(as_delivery("d-4", "issues", &signature, other), (200, RECEIVED.into()));
    assert_eq!(daemon.cli(&["events", "--json"]).stdout.lines().count(), 2);
}

#[test]
fn one_body_of_several_types_is_several_events_where_the_type_is_all_that_differs() {
    let daemon = source("shopify");
    let body = br#"{"id":820982911946154508,"financial_status":"paid"}"#;
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    hmac.update(body);
    let signature = BASE64.encode(hmac.finalize().into_bytes());
    let as_topic = |topic: &str, id: &str| {
        let headers = [
            ("X-Shopify-Topic", topic),
            ("X-Shopify-Webhook-Id", id),
            ("X-Shopify-Hmac-Sha256", signature.as_str()),
        ];
        post(&daemon, &headers, body)
    };
    // An order that is paid at once is sent twice, with one body.
    assert_eq!(as_topic("orders/create", "w-1"), (200, RECEIVED.into()));
    assert_eq!(as_topic("orders/paid", "w-2"), (200, RECEIVED.into()));
    assert_eq!(as_topic("orders/paid", "w-3"), (200, DUPLICATE.into()), "under another id");
    assert_eq!(daemon.cli(&["events", "--json"]).stdout.lines().count(), 2);
}

#[test]
fn a_token_that_serves_once_carries_no_second_event() {
    let daemon = source("mailgun");
    let now = unix_now().to_string();
    let body = |token: &str, id: &str| {
        let signature = hex_hmac(&[now.as_bytes(), token.as_bytes()]);
        format!(
            r#"{{"signature":{{"timestamp":"{now}","token":"{token}","signature":"{signature}"}},"event-data":{{"id":"{id}","event":"delivered"}}}}"#
        )
    };
    assert_eq!(post(&daemon, &[], body("t-1", "e-1").as_bytes()), (200, RECEIVED.into()));
    // The signature covers no event: another one fits it as well.
    assert_eq!(post(&daemon, &[], body("t-1", "e-2").as_bytes()), (200, DUPLICATE.into()));
    assert_eq!(post(&daemon, &[], body("t-2", "e-2").as_bytes()), (200, RECEIVED.into()));
    // A digit that moves between time and token makes the time stale, and a block that is there twice is refused.
    let moved =
        body("t-3", "e-3").replace(&format!(r#""{now}","token":"t-3"#), &format!(r#""{now}1","token":"-3"#));
    assert_eq!(post(&daemon, &[], moved.as_bytes()).0, 401);
    let twice = body("t-4", "e-4").replacen('{', r#"{"signature":{},"#, 1);
    assert_eq!(post(&daemon, &[], twice.as_bytes()).0, 401);
    assert_eq!(daemon.cli(&["events", "--json"]).stdout.lines().count(), 2);
}

#[test]
fn each_element_of_a_request_is_an_event_and_a_request_without_elements_is_none() {
    let daemon = source("okta");
    let body = |ids: &[&str]| {
        let event = |id: &&str| format!(r#"{{"uuid":"{id}","eventType":"user.session.start"}}"#);
        let events: Vec<_> = ids.iter().map(event).collect();
        format!(r#"{{"data":{{"events":[{}]}}}}"#, events.join(","))
    };
    let as_okta = |body: &str| post(&daemon, &[("Authorization", SECRET)], body.as_bytes());
    assert_eq!(as_okta(&body(&["a", "b"])), (200, RECEIVED.into()));
    assert_eq!(as_okta(&body(&["b", "a"])), (200, DUPLICATE.into()));
    assert_eq!(as_okta(&body(&["b", "c"])), (200, RECEIVED.into()), "one of them is new");
    assert_eq!(as_okta(&body(&[])), (200, r#"{"received":true,"filtered":true}"#.into()));
    assert_eq!(as_okta(r#"{"data":{}}"#).0, 400);
    // One element that is no event is reason to take none of them.
    assert_eq!(as_okta(&body(&["d", "no id: blanks"])).0, 400);
    let many: Vec<_> = (0..1001).map(|number| format!("n-{number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(as_okta(&body(&many)).0, 400);
    let listed = daemon.cli(&["events", "--json"]).stdout;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert_eq!(daemon.event("a")["type"], "user.session.start");
}

#[test]
fn every_element_carries_the_token() {
    let daemon = source("msgraph");
    let body = |states: &[&str]| {
        let element = |(index, state): (usize, &&str)| {
            format!(
                r##"{{"id":"n-{index}","clientState":"{state}","changeType":"created","resourceData":{{"@odata.type":"#Message"}}}}"##
            )
        };
        let elements: Vec<_> = states.iter().enumerate().map(element).collect();
        format!(r#"{{"value":[{}]}}"#, elements.join(","))
    };
    let status = |states: &[&str]| post(&daemon, &[], body(states).as_bytes()).0;
    assert_eq!(status(&[SECRET, "another-state-of-somebody"]), 401);
    assert_eq!(status(&["another-state-of-somebody", SECRET]), 401);
    assert_eq!(status(&[SECRET, ""]), 401);
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[SECRET, SECRET]), 200);
    let listed = daemon.cli(&["events", "--json"]).stdout;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains(r#""-Message.created""#), "{listed}");
}

#[test]
fn an_event_of_scalekit_is_one_event_under_either_signature() {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .source(posthouse_harness::Source::new("scalekit"))
        .start();
    let secret = posthouse_harness::Source::SECRET.to_owned();
    let body = br#"{"id":"evt_1","type":"user.created","data":{}}"#;
    let path = "/webhooks/scalekit";
    let send = |signer: posthouse_harness::Signer, id: &str| {
        daemon.connect().post(path, &signer.sign_now(id, body), body).unwrap().body
    };
    let standard = || posthouse_harness::Signer::Standard(secret.clone());
    let documented = || posthouse_harness::Signer::Documented(secret.clone());
    assert_eq!(send(standard(), "msg_1"), RECEIVED);
    assert_eq!(send(documented(), "ignored"), DUPLICATE);
    assert_eq!(send(standard(), "msg_2"), DUPLICATE, "the same event in another message");
}

/// A request without a body.
fn ask(daemon: &Daemon, method: &str, target: &str) -> posthouse_harness::Answer {
    let mut connection = daemon.connect();
    connection
        .send(format!("{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").as_bytes())
        .unwrap();
    connection.answer().unwrap()
}

#[test]
fn a_test_of_the_url_is_answered_at_once_and_is_no_event() {
    let token = "a-token-that-meta-shows";
    let table = |scheme: &str, more: &str| {
        format!(
            "[[source]]\nname = {scheme:?}\npath = \"/in/{scheme}\"\nscheme = {scheme:?}\nsecrets = [\"{SECRET}\"]\n{more}\n"
        )
    };
    let tables = [
        table("meta", &format!("verify_token = {token:?}")),
        table("lark", ""),
        table("x", ""),
        table("dropbox", ""),
        table("slack", ""),
        table("github", ""),
    ];
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(&tables.concat()).start();

    let subscribe = |token: &str| {
        ask(
            &daemon,
            "GET",
            &format!("/in/meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={token}"),
        )
    };
    let good = subscribe(token);
    assert_eq!((good.status, good.body.as_str()), (200, "1158201444"));
    assert_eq!(good.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(good.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(subscribe("another-token").status, 401);
    assert_eq!(ask(&daemon, "GET", "/in/meta?hub.mode=subscribe").status, 401, "no token at all");

    // Lark shows a token, and the source has none to compare it with.
    let unsigned = |path: &str, body: &[u8]| daemon.connect().post(path, &Headers::new(), body).unwrap();
    let body = br#"{"challenge":"c","token":"","type":"url_verification"}"#;
    assert_eq!(unsigned("/in/lark", body).status, 401);

    // A text that could be the body of an event is not signed for anybody.
    let crc = |text: &str| ask(&daemon, "GET", &format!("/in/x?crc_token={text}"));
    let good = crc("09xMaymfpVqcCfvAtAhMLD6IcNgYESgx");
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    hmac.update(b"09xMaymfpVqcCfvAtAhMLD6IcNgYESgx");
    let expected =
        format!(r#"{{"response_token":"sha256={}"}}"#, BASE64.encode(hmac.finalize().into_bytes()));
    assert_eq!((good.status, good.body), (200, expected));
    for forged in ["%7B%22for_user_id%22%3A%221%22%7D", "a%20b", "", &"a".repeat(257), "a&crc_token=b"] {
        assert_eq!(crc(forged).status, 405, "{forged}");
    }

    // A signed test counts only if it is signed.
    let body = br#"{"type":"url_verification","challenge":"3eZbrw1aB"}"#;
    assert_eq!(unsigned("/in/slack", body).status, 401);
    let now = unix_now().to_string();
    let signature = format!("v0={}", hex_hmac(&[b"v0:", now.as_bytes(), b":", body]));
    let headers =
        vec![("X-Slack-Request-Timestamp".to_owned(), now), ("X-Slack-Signature".to_owned(), signature)];
    let answer = daemon.connect().post("/in/slack", &headers, body).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "3eZbrw1aB"));

    // A source whose sender has no tests answers none, and long texts are not repeated.
    assert_eq!(ask(&daemon, "GET", "/in/github?challenge=a").status, 405);
    assert_eq!(ask(&daemon, "GET", &format!("/in/dropbox?challenge={}", "a".repeat(2000))).status, 405);
    let statuses: Vec<_> =
        (0..30).map(|_| ask(&daemon, "GET", "/in/dropbox?challenge=%3Cb%3E").status).collect();
    assert!(statuses[0] == 200 && statuses.contains(&429), "{statuses:?}");
    assert_eq!(daemon.cli(&["events", "--json"]).stdout, "");
    assert_eq!(daemon.stats()["balanced"], true, "{}", daemon.stats());
}

#[test]
fn a_sender_brings_its_key_only_when_an_operator_awaits_it() {
    let table = |scheme: &str, more: &str| {
        format!("[[source]]\nname = {scheme:?}\npath = \"/in/{scheme}\"\nscheme = {scheme:?}\n{more}\n")
    };
    let tables = [table("asana", ""), table("notion", &format!("secrets = [\"{SECRET}\"]"))].concat();
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(&tables).start();
    let (key, other) = ("a487172713dfa9f0ff51466f8a6aa84a", "b487172713dfa9f0ff51466f8a6aa84b");
    let post = |daemon: &Daemon, headers: &[(&str, &str)], body: &[u8]| {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Headers>();
        daemon.connect().post("/in/asana", &headers, body).unwrap()
    };
    let bring = |daemon: &Daemon, key: &str| post(daemon, &[("X-Hook-Secret", key)], b"{}");
    let event = |daemon: &Daemon, key: &str| {
        let body = br#"{"events":[{"action":"added","resource":{"gid":"1","resource_type":"task"}}]}"#;
        let mut hmac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        hmac.update(body);
        post(daemon, &[("X-Hook-Signature", &hex::encode(hmac.finalize().into_bytes()))], body)
    };

    // Nobody awaits a key: a stranger sets none.
    assert_eq!(bring(&daemon, other).status, 401);
    assert_eq!(event(&daemon, other).status, 401);
    let checked = daemon.cli(&["check"]);
    assert!(checked.stderr.contains("source `asana` has no key yet"), "{checked:?}");
    let unsigned = daemon.cli_with_input(&["sign", "--source", "asana"], b"{}");
    assert!(unsigned.stderr.contains("source `asana` has no key yet"), "{unsigned:?}");

    let learning = daemon.cli(&["senders", "learn", "asana"]);
    let file = daemon.dir().join("data/keys/asana");
    assert!(learning.code == Some(0) && learning.stdout.contains("data/keys/asana"), "{learning:?}");
    assert_eq!(daemon.admin_get("/v1/sources/asana")["key"], "awaited");
    assert_eq!(bring(&daemon, "short").status, 401);
    assert!(!file.exists());
    let answer = bring(&daemon, key);
    assert_eq!((answer.status, answer.header("x-hook-secret")), (200, Some(key)), "{answer}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{key}\n"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(bring(&daemon, other).status, 401, "it has one now");
    assert_eq!(event(&daemon, other).status, 401);
    assert_eq!(event(&daemon, key).body, RECEIVED);

    // It has the key after a reload and a restart, and shows it nowhere.
    daemon.edit_config(|text| format!("{text}\n# a comment\n"));
    wait_until("the reload", || daemon.log().contains("new configuration applied"));
    assert_eq!(event(&daemon, key).body, DUPLICATE);
    daemon.restart();
    assert_eq!(event(&daemon, key).body, DUPLICATE);
    assert_eq!(bring(&daemon, other).status, 401);
    let checked = daemon.cli(&["check"]);
    assert!(!checked.stderr.contains("no key yet"), "{checked:?}");
    assert!(!daemon.log().contains(key) && !daemon.admin_get("/v1/sources").to_string().contains(key));
    let signed = daemon.cli_with_input(&["sign", "--source", "asana"], b"{}");
    assert!(signed.stdout.starts_with("x-hook-signature: "), "{signed:?}");

    let again = daemon.cli(&["senders", "learn", "asana"]);
    assert!(again.code == Some(1) && again.stderr.contains("senders forget asana"), "{again:?}");
    let configured = daemon.cli(&["senders", "learn", "notion"]);
    assert!(configured.code == Some(1) && configured.stderr.contains("config.toml"), "{configured:?}");
    let unknown = daemon.cli(&["senders", "learn", "trello"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("no source `trello`"), "{unknown:?}");
    assert_eq!(daemon.cli(&["senders", "forget", "asana"]).code, Some(0));
    assert!(!file.exists());
    assert_eq!(event(&daemon, key).status, 401);
    assert_eq!(daemon.cli(&["senders", "learn", "asana", "--for", "1m"]).code, Some(0));
    assert_eq!(bring(&daemon, other).status, 200);
    assert_eq!(event(&daemon, other).body, DUPLICATE, "the event of before, signed by the new key");
    let audit = daemon.admin_get("/v1/audit").to_string();
    assert!(audit.contains("learn key") && audit.contains("forget key") && !audit.contains(key), "{audit}");
    assert_eq!(daemon.stats()["balanced"], true, "{}", daemon.stats());
}

#[test]
fn a_key_in_a_body_is_learned_like_one_in_a_header() {
    let table = "[[source]]\nname = \"notion\"\npath = \"/in\"\nscheme = \"notion\"\n";
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(table).start();
    let key = "secret_tEj5TVrNkBWb3cagXhuv5KO0EPpqb4aFvtPC3aSKlLB";
    let bring = format!(r#"{{"verification_token":"{key}"}}"#);
    assert_eq!(post(&daemon, &[], bring.as_bytes()).0, 401);
    assert_eq!(daemon.cli(&["senders", "learn", "notion"]).code, Some(0));
    assert_eq!(post(&daemon, &[], bring.as_bytes()), (200, String::new()));
    let body = br#"{"id":"e-1","type":"page.created"}"#;
    let mut hmac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    hmac.update(body);
    let signature = format!("sha256={}", hex::encode(hmac.finalize().into_bytes()));
    assert_eq!(post(&daemon, &[("X-Notion-Signature", &signature)], body), (200, RECEIVED.into()));
    assert_eq!(post(&daemon, &[], bring.as_bytes()).0, 401);
}

#[test]
fn an_answer_has_the_form_that_the_sender_reads() {
    let daemon = source("xero");
    let body = br#"{"events":[],"entropy":"S0m3r4nd0mt3xt"}"#;
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    hmac.update(body);
    let good = BASE64.encode(hmac.finalize().into_bytes());
    let bad = BASE64.encode([0; 32]);
    assert_eq!(post(&daemon, &[("x-xero-signature", &good)], body), (200, String::new()));
    assert_eq!(post(&daemon, &[("x-xero-signature", &bad)], body), (401, String::new()));
}

#[test]
fn a_sample_of_each_sender_is_taken_by_the_daemon() {
    let samples = SenderSamples::read().unwrap();
    let is_own = |scheme: &&Arc<Scheme>| !scheme.has_envelope() && scheme.rows[0].key_source.is_none();
    let shipped: Vec<_> = shipped().iter().filter(is_own).collect();
    let vectors = own_vectors();
    let table = |scheme: &Scheme| {
        let name = &scheme.name;
        let row = &scheme.rows[0];
        let secret = match row.signature.algorithm {
            Algorithm::Basic => format!("desk:{SECRET}"),
            algorithm if algorithm.is_public() => {
                vectors.iter().find(|vector| *vector.scheme == **name).unwrap().secrets[0].clone()
            }
            _ => SECRET.to_owned(),
        };
        format!(
            "[[source]]\nname = \"{name}\"\npath = \"/in/{name}\"\nscheme = \"{name}\"\nsecrets = [{secret:?}]\nurl = \"https://hooks.example.com/in/{name}\"\n"
        )
    };
    let tables: String = shipped.iter().map(|scheme| table(scheme)).collect();
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(&tables).start();
    let mut sent = 0;
    for scheme in &shipped {
        for sample in samples.names(&scheme.name) {
            let output = daemon.cli(&["send", sample, "--source", &scheme.name]);
            if scheme.rows[0].signature.algorithm.is_public() {
                assert_eq!(output.code, Some(1), "{output:?}");
                let told = format!("source `{}` has public keys only", scheme.name);
                assert!(output.stderr.contains(&told), "{output:?}");
                continue;
            }
            assert_eq!(output.code, Some(0), "{} {sample}: {output:?}", scheme.name);
            sent += 1;
        }
    }
    assert_eq!(daemon.cli(&["events", "--json", "--limit", "1000"]).stdout.lines().count(), sent);

    let listed = daemon.cli(&["send", "--list", "--source", "github"]);
    assert_eq!(listed.stdout, "issues.opened\npush\n");
    let unknown = daemon.cli(&["send", "push", "--source", "stripe"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("--list --source stripe"), "{unknown:?}");
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

    let own = r#"[scheme.bare]
signature = { header = "x-token", algorithm = "token" }
event = { type = "a" }
"#;
    let source = |scheme: &str| {
        format!(
            "[[source]]\nname = {scheme:?}\npath = \"/in/{scheme}\"\nscheme = {scheme:?}\nsecrets = [\"{SECRET}\"]\n"
        )
    };
    let tables = [own.to_owned(), source("bare"), source("github"), source("stripe")].concat();
    let checked = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).toml(&tables).prepare().cli(&["check"]);
    assert!(
        checked.stderr.contains("scheme bare: The secret itself is sent. It covers neither"),
        "{checked:?}"
    );
    assert!(checked.stderr.contains("scheme github: No time is signed."), "{checked:?}");
    assert!(!checked.stderr.contains("scheme stripe"), "{checked:?}");
}

#[test]
fn the_page_of_a_source_says_how_to_set_it_up_and_why_a_signature_was_refused() {
    let daemon = source("stripe");
    let now = unix_now().to_string();
    let body = br#"{"id":"evt_1","type":"invoice.paid"}"#;
    assert_eq!(
        post(&daemon, &[("Stripe-Signature", &format!("t={now},v1={}", "0".repeat(64)))], body).0,
        401
    );
    let page = || {
        let answer = daemon.admin("GET", "/sources/stripe", None);
        assert_eq!(answer.status, 200, "{answer}");
        answer.body
    };
    let shown = page();
    for part in [
        "add an event destination with the URL of this source",
        "https://docs.stripe.com/webhooks",
        "no signature fits: it was made with another secret, or over other bytes",
        "posthouse send invoice.paid --source stripe",
        "<code>/in</code>",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(post(&daemon, &[("Stripe-Signature", "t=17,v1=00")], body).0, 401);
    assert!(page().contains("the timestamp is"), "the newest refusal");
    assert!(!page().contains(SECRET));
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
