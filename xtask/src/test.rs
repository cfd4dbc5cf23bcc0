//! `cargo xtask test`: everything that CI runs. Installs what is missing, builds what the tests need, and
//! then runs every check to its end, so that one failure does not hide another.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    browser, guests, languages, python,
    shell::{Doing, Error, Result, has, output, root, run, say, target},
    toolchain::{install, unpack},
};

/// The workspaces that guests are in: they have lock files of their own, and one folder to build in.
const GUESTS: [&str; 2] = ["plugins", "tests/guests"];

/// Programs that tests run, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 3] = [("curl", "curl"), ("systemd-analyze", "systemd"), ("dpkg-deb", "dpkg")];

/// What makes the Debian package.
const CARGO_DEB: &str = "3.8.0";

/// With it the daemon dies where a crash test wants it to. Nothing but tests is built so.
const FAULT_POINTS: &str = "--features=posthouse/fault-points";

/// `cargo xtask test`
pub fn run_command(arguments: &[String]) -> Result {
    if !arguments.is_empty() {
        return Err(Error::new("usage: cargo xtask test"));
    }
    let mut report = Report::default();
    report.step("tools", tools)?;
    report.step("guests in Rust", || guests::build(&[]))?;
    report.step("guests in JavaScript and Python", languages::build)?;
    report.check("format", format);
    report.check("lints", lints);
    report.check("tests of the guests", || run(in_guests("plugins").arg("test")));
    report.check("tests", tests);
    report.end()
}

/// What came of each step.
#[derive(Default)]
struct Report(Vec<(&'static str, Duration, bool)>);

impl Report {
    /// Does something that the rest needs.
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result) -> Result {
        say(format_args!("{name} …"));
        let started = Instant::now();
        let result = work();
        self.0.push((name, started.elapsed(), result.is_ok()));
        result
    }

    /// Does something that nothing else needs.
    fn check(&mut self, name: &'static str, work: impl FnOnce() -> Result) {
        if let Err(error) = self.step(name, work) {
            say(format_args!("{name}: {error}"));
        }
    }

    /// Says how long each step took and how it ended.
    fn end(&self) -> Result {
        eprintln!();
        for (name, took, passed) in &self.0 {
            let outcome = if *passed { "ok" } else { "FAILED" };
            say(format_args!("{name:<32} {:>6.1} s  {outcome}", took.as_secs_f64()));
        }
        let total: Duration = self.0.iter().map(|(_, took, _)| took).sum();
        let failed: Vec<_> = self.0.iter().filter(|(_, _, passed)| !passed).map(|(name, ..)| *name).collect();
        if failed.is_empty() {
            say(format_args!("all passed, in {:.0} s", total.as_secs_f64()));
            return Ok(());
        }
        Err(Error::new(format!("failed, after {:.0} s: {}", total.as_secs_f64(), failed.join(", "))))
    }
}

/// Programs that tests run, and the Python environment.
fn tools() -> Result {
    let missing: Vec<_> =
        PROGRAMS.into_iter().filter_map(|(program, package)| (!has(program)).then_some(package)).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    postgres()?;
    promtool()?;
    cargo_deb()?;
    browser::install_all()?;
    python::programs().map(drop)
}

/// What makes the Debian package; it is compiled once, and kept beside what is built here.
fn cargo_deb() -> Result {
    if has("cargo-deb") || cargo_deb_of_tests().is_file() {
        return Ok(());
    }
    say(format_args!("installing cargo-deb {CARGO_DEB}, which takes some minutes"));
    let mut install = cargo();
    install.args(["install", "--quiet", "--locked", "cargo-deb", "--version", CARGO_DEB, "--root"]);
    run(install.arg(target().join("tools")))
}

fn cargo_deb_of_tests() -> PathBuf {
    target().join("tools/bin/cargo-deb")
}

/// Prometheus's tool, which checks what we export and the alerts. Its package brings a server that would
/// start, so that it is not installed.
fn promtool() -> Result {
    let tool = promtool_of_tests();
    if has("promtool") || tool.is_file() {
        return Ok(());
    }
    let dir = target().join("tools/prometheus");
    unpack("prometheus", &dir)?;
    let folder = tool.with_file_name("");
    fs::create_dir_all(&folder).doing(format_args!("make {}", folder.display()))?;
    fs::rename(dir.join("usr/bin/promtool"), &tool)
        .doing(format_args!("move promtool to {}", tool.display()))?;
    fs::remove_dir_all(&dir).doing(format_args!("remove {}", dir.display()))
}

fn promtool_of_tests() -> PathBuf {
    target().join("tools/bin/promtool")
}

/// The PostgreSQL that tests start themselves. Debian's package would start one of its own beside it.
fn postgres() -> Result {
    let programs = ["initdb", "postgres"];
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders = versions.map(|version| version.path().join("bin"));
    let there = programs.iter().all(|program| has(program))
        || folders.any(|folder| programs.iter().all(|program| folder.join(program).is_file()));
    if there && has("psql") {
        return Ok(());
    }
    install(&["postgresql-common"])?;
    let setting = Path::new("/etc/postgresql-common/createcluster.d/posthouse-tests.conf");
    let written = fs::create_dir_all("/etc/postgresql-common/createcluster.d")
        .and_then(|()| fs::write(setting, "create_main_cluster = false\n"));
    written.doing(format_args!("write {}", setting.display()))?;
    install(&["postgresql"])
}

fn format() -> Result {
    if output(cargo().args(["fmt", "--version"])).is_none() {
        say("no rustfmt here (rustup component add rustfmt); skipped");
        return Ok(());
    }
    run(cargo().args(["fmt", "--all", "--check"]))?;
    GUESTS.iter().try_for_each(|workspace| run(in_guests(workspace).args(["fmt", "--all", "--check"])))
}

fn lints() -> Result {
    if output(cargo().args(["clippy", "--version"])).is_none() {
        say("no clippy here (rustup component add clippy); skipped");
        return Ok(());
    }
    let all = ["clippy", "--quiet", "--workspace", "--all-targets", FAULT_POINTS, "--", "-D", "warnings"];
    run(cargo().args(all))?;
    GUESTS.iter().try_for_each(|workspace| {
        run(in_guests(workspace).args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]))
    })
}

/// The workspace's own tests; nextest runs them side by side, and doctests by themselves.
fn tests() -> Result {
    if output(cargo().args(["nextest", "--version"])).is_none() {
        return run(cargo().args(["test", "--workspace", "--no-fail-fast", FAULT_POINTS]));
    }
    let tests = run(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast", FAULT_POINTS]));
    run(cargo().args(["test", "--quiet", "--workspace", "--doc", FAULT_POINTS])).and(tests)
}

/// The cargo in use, in the workspace.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    if env::var_os("POSTHOUSE_TEST_PYTHON").is_none() {
        cargo.env("POSTHOUSE_TEST_PYTHON", python_of_tests());
    }
    if env::var_os("POSTHOUSE_TEST_CARGO_DEB").is_none() && cargo_deb_of_tests().is_file() {
        cargo.env("POSTHOUSE_TEST_CARGO_DEB", cargo_deb_of_tests());
    }
    if env::var_os("POSTHOUSE_TEST_PROMTOOL").is_none() && promtool_of_tests().is_file() {
        cargo.env("POSTHOUSE_TEST_PROMTOOL", promtool_of_tests());
    }
    cargo
}

/// The cargo in use, in a workspace of guests, for this machine and not for WebAssembly.
fn in_guests(workspace: &str) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(root().join(workspace)).env("CARGO_TARGET_DIR", target().join("guests"));
    cargo
}

fn python_of_tests() -> PathBuf {
    target().join("python/bin/python")
}
