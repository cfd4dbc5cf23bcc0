//! Requests that the senders' own libraries sign or accept: `tests/libraries`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek as _, Write as _},
    process::{Command, Stdio},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    browser::{target, test_node},
    quick::refuse_in_quick_loop,
    smtp::test_python,
    workspace,
};

/// A request of a sender, made now.
#[derive(Debug, Clone, Deserialize)]
pub struct LibraryRequest {
    /// The scheme.
    pub scheme: String,
    /// The signed address, if the scheme signs it.
    pub url: Option<String>,
    /// The secret or the public key.
    pub secret: String,
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
    /// The event's `id` and `type`, its `time` in seconds since 1970, and its `organization`.
    pub event: BTreeMap<String, Value>,
}

/// A request of each sender whose library is installed.
///
/// # Panics
/// If a library refuses its request, or is missing: `cargo xtask test` installs what it needs.
#[track_caller]
pub fn library_requests() -> Vec<LibraryRequest> {
    refuse_in_quick_loop("packages of npm");
    let script = |name: &str| {
        let file = workspace().join("tests/libraries").join(name);
        Stdio::from(File::open(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
    };
    let mut node = Command::new(test_node());
    node.args(["--input-type=module", "-"]).current_dir(target().join("libraries")).stdin(script("sign.mjs"));
    let mut python = Command::new(test_python());
    python.arg("-").stdin(script("sign_slack.py"));
    let mut requests: Vec<LibraryRequest> =
        serde_json::from_slice(&run(node)).expect("the requests of sign.mjs");
    requests.push(serde_json::from_slice(&run(python)).expect("the request of sign_slack.py"));
    requests
}

/// Whether the npm package `sns-validator` accepts each of these messages of Amazon SNS. It looks for certificates at
/// hosts that this regular expression matches, and gets this certificate for every URL.
///
/// # Panics
/// If the package is missing: `cargo xtask test` installs what it needs.
#[track_caller]
pub fn validated_by_sns_validator(hosts: &str, certificate: &str, messages: &[String]) -> Vec<bool> {
    refuse_in_quick_loop("packages of npm");
    let asked = json!({ "hosts": hosts, "certificate": certificate, "messages": messages });
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(asked.to_string().as_bytes()).and_then(|()| file.rewind()).expect("a file");
    let mut node = Command::new(test_node());
    node.arg(workspace().join("tests/libraries/sns.mjs")).arg(target().join("libraries/node_modules"));
    node.stdin(Stdio::from(file));
    serde_json::from_slice(&run(node)).expect("the verdicts of sns.mjs")
}

#[track_caller]
fn run(mut command: Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    output.stdout
}
