//! `cargo xtask bench`: builds daemon, guests and benches for release, and runs the benches.

use std::process::Command;

use crate::{
    guests,
    shell::{Result, root, run, say, target},
};

/// `cargo xtask bench [ROW]... [--seconds S] …`: passes its arguments to the benches; `--help` lists them.
pub fn run_command(arguments: &[String]) -> Result {
    say("building the guests");
    guests::build(&[])?;
    say("building posthouse and the benches for release (the first time this takes ten minutes)");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    run(cargo.current_dir(root()).args([
        "build",
        "--release",
        "--package",
        "posthouse",
        "--package",
        "posthouse-bench",
    ]))?;
    run(Command::new(target().join("release/posthouse-bench")).current_dir(root()).args(arguments))
}
