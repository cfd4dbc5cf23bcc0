//! Requests that the senders' own libraries sign or accept, through the running daemon to a plugin.

#![allow(clippy::unwrap_used, reason = "what fails fails the test")]

use posthouse_harness::{Daemon, Headers, LibraryRequest, library_requests};
use serde_json::{Value, json};

#[test]
fn a_request_of_the_senders_own_library_reaches_a_plugin_once_and_whole() {
    let requests = library_requests();
    let mut schemes: Vec<_> = requests.iter().map(|request| request.scheme.as_str()).collect();
    schemes.sort_unstable();
    assert_eq!(schemes, ["discord", "github", "sendgrid", "shopify", "slack", "stripe", "twilio"]);
    let tables: String = requests.iter().map(table).collect();
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse")).guest("witness").toml(&tables).start();
    for request in &requests {
        let post = |body: &[u8]| {
            let headers: Headers = request.headers.clone().into_iter().collect();
            daemon.connect().post(&format!("/in/{}", request.scheme), &headers, body).unwrap().status
        };
        let body = request.body.as_bytes();
        assert!([200, 204].contains(&post(body)), "{request:?}");
        assert!([200, 204].contains(&post(body)), "{request:?}");
        for at in [0, body.len() / 2, body.len() - 1] {
            let mut changed = body.to_vec();
            changed[at] ^= 1;
            assert_eq!(post(&changed), 401, "byte {at} of {request:?}");
        }
        let counts = daemon.stats()["requests"][&request.scheme].clone();
        assert_eq!((&counts["accepted"], &counts["duplicate"]), (&json!(1), &json!(1)), "{counts}");
    }
    daemon.wait_settled();
    let seen = daemon.kv("witness");
    assert_eq!(seen.len(), requests.len(), "{seen:?}");
    for request in &requests {
        let event = &request.event;
        let key = format!("{}/{}", request.scheme, event["id"].as_str().unwrap());
        let found: Value = serde_json::from_str(&seen[&key]).unwrap();
        let at = event["time"].as_u64().map(|seconds| seconds * 1_000_000_000);
        let expected = json!({ "type": event["type"], "at": at, "organization": event["organization"] });
        assert_eq!(found, expected, "{key}");
    }
}

fn table(LibraryRequest { scheme, url, secret, .. }: &LibraryRequest) -> String {
    let url = url.as_ref().map(|url| format!("url = {url:?}\n")).unwrap_or_default();
    format!(
        "[[source]]\nname = {scheme:?}\npath = \"/in/{scheme}\"\nscheme = {scheme:?}\nsecrets = [{secret:?}]\n{url}\n"
    )
}
