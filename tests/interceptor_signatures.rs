//! Requests that the functions of Scalekit's own libraries signed, at the interceptors of the real daemon. The
//! daemon's clock is set to the time at which they were signed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails a test")]

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use posthouse_harness::{Daemon, Headers, Interceptor, unix_now};
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, Deserialize)]
struct File {
    secret: String,
    vectors: Vec<Vector>,
}

#[derive(Debug, Deserialize)]
struct Vector {
    name: String,
    now: i64,
    headers: Headers,
    body_b64: String,
    expect: String,
}

#[test]
fn requests_that_scalekits_libraries_signed_are_judged_as_by_them() {
    let file: File = serde_json::from_str(include_str!("data/interceptor-signatures.json")).unwrap();
    assert_eq!(file.secret, Interceptor::SECRET);
    let interceptor = Interceptor::new("signup", "decider").line("on_failure = \"allow\"");
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_posthouse"))
        .guest("decider")
        .env("POSTHOUSE_CLOCK", "clock")
        .toml(&interceptor.toml())
        .prepare();
    let now = file.vectors[0].now;
    fs::write(daemon.dir().join("clock"), (now - unix_now()).to_string()).expect("the clock");
    daemon.start();
    let mut valid = 0;
    for vector in &file.vectors {
        assert_eq!(vector.now, now, "{vector:?}");
        let body = BASE64.decode(&vector.body_b64).unwrap();
        let answer = interceptor.post(&daemon, &vector.headers, &body);
        let expected = match &*vector.expect {
            "valid" => "ALLOW",
            _ => "DENY",
        };
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({ "decision": expected })),
            "{}: {answer}",
            vector.name
        );
        valid += u64::from(expected == "ALLOW");
    }
    // Only those that are valid reached the guest.
    assert_eq!(daemon.kv("decider").get("asked"), Some(&valid.to_string()));
    assert!(valid > 8 && valid < file.vectors.len() as u64);
}
