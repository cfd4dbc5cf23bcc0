//! `cargo xtask test`: everything that CI runs, in order; each step says what it does and how long it took.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{
    guests,
    shell::{Error, Result, has, output, root, run, say, target},
    toolchain::install,
};

/// What the test servers and the tools for guests in Python are made of.
const PYTHON_PACKAGES: &str = "tests/servers/requirements.txt";

/// `cargo xtask test`
pub fn run_command(arguments: &[String]) -> Result {
    if !arguments.is_empty() {
        return Err(Error::new("usage: cargo xtask test"));
    }
    let began = Instant::now();
    step("programs that the tests use", programs)?;
    let python = step("a Python of the tests' own", python)?;
    step("guests, to wasm", || guests::build(&[]))?;
    step("format", || with_component("fmt", &["fmt", "--all", "--check"]))?;
    step("lints", || {
        with_component("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    step("guests' own tests", || {
        let native = target().join("guests-native");
        run(cargo()
            .args(["test", "--quiet", "--workspace"])
            .arg("--target-dir")
            .arg(native)
            .current_dir(root().join("plugins")))
    })?;
    step("tests", || run(suite().env("POSTHOUSE_TEST_PYTHON", &python).current_dir(root())))?;
    say(format_args!("all passed, in {} s", began.elapsed().as_secs()));
    Ok(())
}

fn step<T>(what: &str, doing: impl FnOnce() -> Result<T>) -> Result<T> {
    say(what);
    let began = Instant::now();
    let done = doing()?;
    say(format_args!("{what}: {} s", began.elapsed().as_secs()));
    Ok(done)
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn programs() -> Result {
    let missing: Vec<&str> = ["curl", "python3"].into_iter().filter(|program| !has(program)).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Makes `target/python`, or brings it up to date, and returns its interpreter.
fn python() -> Result<PathBuf> {
    let home = target().join("python");
    let python = home.join("bin/python");
    if !python.is_file() {
        let make = |home: &Path| run(Command::new("python3").args(["-m", "venv"]).arg(home));
        make(&home).or_else(|_| install(&["python3-venv"]).and_then(|()| make(&home)))?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(pip).arg(root().join(PYTHON_PACKAGES)))?;
    Ok(python)
}

/// Runs a component of the toolchain, or says that it is not there.
fn with_component(component: &str, arguments: &[&str]) -> Result {
    if output(cargo().args([component, "--version"])).is_none() {
        say(format_args!("skipped: `cargo {component}` is not there; rustup component add {component}"));
        return Ok(());
    }
    run(cargo().args(arguments).current_dir(root()))
}

/// The workspace's tests, by nextest where it is there.
fn suite() -> Command {
    let mut cargo = cargo();
    match output(Command::new("cargo-nextest").args(["nextest", "--version"])) {
        Some(_) => cargo.args(["nextest", "run", "--workspace", "--no-fail-fast"]),
        None => cargo.args(["test", "--workspace", "--no-fail-fast"]),
    };
    cargo
}
