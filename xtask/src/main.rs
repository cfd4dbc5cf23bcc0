//! `cargo xtask <command>`: builds, tests and measures the project. Each command is a module. Nothing here is
//! part of the daemon.

mod bench;
mod browser;
mod demo;
mod guests;
mod languages;
mod npm;
mod python;
mod report;
mod shell;
mod soak;
mod stamp;
mod test;
mod toolchain;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command>

  bench [ROW]...           measures, beside an axum no-op; `--help` says more
  demo [--once]            shows posthouse at work, and keeps running unless `--once`
  guests [--only NAME]...  builds the plugins, and the guests of the tests in Rust;
         [--languages]     those in JavaScript and Python too
  soak [--kills N]         10,000 kills on each engine, then ten minutes for each fuzz
       [--minutes N]       target, which takes hours; `--help` says more
  test [--quick]           everything that CI runs, and installs what it lacks;
                           with --quick the tests of a few minutes";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match command.as_str() {
        "bench" => bench::run_command(&rest),
        "demo" => demo::run_command(&rest),
        "guests" => guests::run_command(&rest),
        "soak" => soak::run_command(&rest),
        "test" => test::run_command(&rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {command}: {error}");
            ExitCode::FAILURE
        }
    }
}
