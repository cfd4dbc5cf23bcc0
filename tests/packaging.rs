//! What is shipped to be installed: systemd takes the units as they are, and finds little that they leave
//! open.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use posthouse_harness::workspace;

/// The most exposure that `systemd-analyze security` may find, in tenths.
const MOST_EXPOSURE: &str = "15";

/// The first systemd that has `Type=notify-reload`.
const KNOWS_NOTIFY_RELOAD: u32 = 253;

const UNITS: [&str; 3] = ["posthouse.service", "posthouse.socket", "posthouse-admin.socket"];

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let text = fs::read_to_string(workspace().join("packaging").join(unit)).unwrap();
        // The binary under test stands where the installed one would be.
        let text = text.replace("/usr/bin/posthouse ", &format!("{} ", env!("CARGO_BIN_EXE_posthouse")));
        fs::write(dir.path().join(unit), text).unwrap();
    }
    let output = analyze(dir.path(), &["verify", "--man=no", UNITS[0], UNITS[1], UNITS[2]]);
    assert!(output.status.success(), "{}", complaints(&output));
    assert_eq!(complaints(&output), "");
}

#[test]
fn little_is_left_open() {
    let dir = workspace().join("packaging");
    let threshold = format!("--threshold={MOST_EXPOSURE}");
    let output =
        analyze(&dir, &["security", "--offline=true", "--no-pager", &threshold, "./posthouse.service"]);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", complaints(&output));
    assert_eq!(complaints(&output), "");
    assert!(report.contains("Overall exposure level for posthouse.service"), "{report}");
}

fn analyze(dir: &Path, arguments: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("systemd-analyze, which `cargo xtask test` installs")
}

/// What it said on standard error, without the one line that an older systemd has to say: the unit is
/// written so that it can be.
fn complaints(output: &Output) -> String {
    let version = Command::new("systemd-analyze").arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let version: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
    let expected = |line: &&str| {
        version < KNOWS_NOTIFY_RELOAD
            && line.ends_with("Failed to parse service type, ignoring: notify-reload")
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    stderr.lines().filter(|line| !expected(line)).collect::<Vec<_>>().join("\n")
}
