//! A browser: Debian's Chromium, headless, driven by the stories of `tests/browser/run.mjs`.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{Daemon, quick::refuse_in_quick_loop, smtp::test_python, workspace};

/// Runs a story in a separate browser against this daemon. `data` is the story's input.
///
/// # Panics
/// If the story fails, or there is no browser: `cargo xtask test` installs what it needs.
#[track_caller]
pub fn browse(daemon: &Daemon, story: &str, data: &Value) {
    refuse_in_quick_loop("a browser");
    let mut node = Command::new(test_node());
    node.arg(workspace().join("tests/browser/run.mjs"))
        .arg(story)
        .env("URL", format!("http://{}", daemon.admin_address()))
        .env("TOKEN", daemon.admin_token())
        .env("DATA", data.to_string())
        .env("MODULES", target().join("browser"))
        .env("SHOTS", screenshots())
        .stdin(Stdio::null());
    let output = node.output().unwrap_or_else(|error| panic!("{node:?} does not run: {error}"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{story}: {}\n{}", output.status, said.join("\n"));
}

/// The folder for the stories' screenshots: `POSTHOUSE_SCREENSHOTS`, such as `docs/screenshots`, or else a
/// folder that git ignores.
pub fn screenshots() -> PathBuf {
    std::env::var_os("POSTHOUSE_SCREENSHOTS")
        .map_or_else(|| target().join("screenshots"), |folder| workspace().join(folder))
}

/// The Node.js that `cargo xtask test` uses: its own if it had to install one, or else the system's.
pub(crate) fn test_node() -> PathBuf {
    let own = test_python().with_file_name("node");
    if own.is_file() { own } else { "node".into() }
}

pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
