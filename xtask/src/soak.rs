//! `cargo xtask soak`: the tests that take hours. 10,000 kills on each engine, then each fuzz target for some
//! minutes.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    guests, python,
    report::Report,
    shell::{Doing, Error, Result, root, run, say, target},
    test::{FAULT_POINTS, nextest_is_there},
    tools::{self, cargo},
};

/// How often each loop kills the daemon.
const KILLS: u32 = 10_000;
/// Events that a sender lists while the daemon that catches up is killed.
const CATCH_UP: u32 = 10_000;
/// How long each target is fuzzed.
const MINUTES: u32 = 10;

const USAGE: &str = "usage: cargo xtask soak [--kills N] [--minutes N] [--only TARGET]...

  --kills N      kills of the daemon on each engine (10,000); 0: no kills
  --minutes N    minutes for each fuzz target (10); 0: no fuzzing
  --only TARGET  fuzzes this target alone; the folders of fuzz/corpus are their names";

struct Options {
    kills: u32,
    minutes: u32,
    only: Vec<String>,
}

/// `cargo xtask soak [--kills N] [--minutes N] [--only TARGET]...`
pub fn run_command(arguments: &[String]) -> Result {
    let options = parse(arguments).ok_or_else(|| Error::new(USAGE))?;
    let mut report = Report::default();
    report.step("tools", || tools::postgres().and_then(|()| python::programs().map(drop)))?;
    if options.kills > 0 {
        report.step("guests in Rust", || guests::build(&[]))?;
        report.check("kills", || kills(options.kills));
    }
    if options.minutes > 0 {
        report.check("fuzz targets", || fuzz(&options));
    }
    report.end()
}

fn parse(arguments: &[String]) -> Option<Options> {
    let mut options = Options { kills: KILLS, minutes: MINUTES, only: Vec::new() };
    for pair in arguments.chunks(2) {
        let [option, value] = pair else { return None };
        match option.as_str() {
            "--kills" => options.kills = value.parse().ok()?,
            "--minutes" => options.minutes = value.parse().ok()?,
            "--only" => options.only.push(value.clone()),
            _ => return None,
        }
    }
    Some(options)
}

/// The loops of kills: without a database, on SQLite, on PostgreSQL, while the daemon catches up, and while it decides,
/// side by side.
fn kills(kills: u32) -> Result {
    nextest_is_there()?;
    let mut nextest = cargo();
    nextest.args(["nextest", "run", "--package", "posthouse", "--profile", "soak", FAULT_POINTS]);
    nextest.env("POSTHOUSE_CATCH_UP", CATCH_UP.to_string());
    run(nextest.env("POSTHOUSE_KILLS", kills.to_string()))
}

/// Fuzzes one target after another. `target/fuzz/corpus` keeps the inputs that libFuzzer discovers. If an
/// input breaks a promise, `target/fuzz/findings` keeps it, and the error names it.
fn fuzz(options: &Options) -> Result {
    let program = fuzzer()?;
    let mut failed = Vec::new();
    for name in targets()? {
        if !options.only.is_empty() && !options.only.contains(&name) {
            continue;
        }
        let learned = target().join("fuzz/corpus").join(&name);
        let findings = target().join("fuzz/findings");
        for folder in [&learned, &findings] {
            fs::create_dir_all(folder).doing(format_args!("make {}", folder.display()))?;
        }
        say(format_args!("fuzzing {name} for {} min", options.minutes));
        let mut fuzzer = Command::new(&program);
        fuzzer.env("POSTHOUSE_FUZZ_TARGET", &name).env("RUST_BACKTRACE", "1");
        fuzzer.arg(&learned).arg(root().join("fuzz/corpus").join(&name));
        fuzzer.arg(format!("-max_total_time={}", 60 * options.minutes));
        fuzzer.arg(format!("-artifact_prefix={}/{name}-", findings.display()));
        // The most seconds for one input, and the most MiB for the process.
        fuzzer.args(["-timeout=10", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"]);
        if let Err(error) = run(&mut fuzzer) {
            say(format_args!("{name}: {error}"));
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: fix each finding of target/fuzz/findings and put its input into fuzz/corpus",
        failed.join(", ")
    )))
}

/// Builds the program of `fuzz/`. It shares the dependencies of the other builds.
fn fuzzer() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--locked", "--manifest-path", "fuzz/Cargo.toml"]);
    build.env("CARGO_TARGET_DIR", target()).env("RUSTC_WRAPPER", root().join("fuzz/rustc.sh"));
    run(&mut build)?;
    Ok(target().join("debug/posthouse-fuzz"))
}

/// The names of the targets: the folders of the corpus.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/corpus");
    let entries = fs::read_dir(&folder).doing(format_args!("read {}", folder.display()))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}
