//! Installs the npm packages that tests need: those that `tests/<name>/package-lock.json` pins, in `target/<name>`.

use std::{fs, process::Command};

use crate::{
    languages::{find, path_with},
    python,
    shell::{Doing, Error, Result, root, run, say, target},
    stamp::Stamp,
};

/// Installs the packages of `tests/<name>`, unless they are there. `what` is their name for people.
pub fn packages(name: &str, what: &str) -> Result {
    let source = root().join("tests").join(name);
    let folder = target().join(name);
    let mut stamp = Stamp::new(target().join(format!("{name}.stamp")));
    stamp.file(&source.join("package-lock.json"))?;
    if stamp.holds() && folder.join("node_modules").exists() {
        return Ok(());
    }
    say(format_args!("installing {what} (target/{name})"));
    fs::create_dir_all(&folder).doing(format_args!("make {}", folder.display()))?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), folder.join(file)).doing(format_args!("copy {file}"))?;
    }
    let path = path_with(python::node(&python::programs()?)?)?;
    let mut npm = Command::new(find("npm", &path));
    npm.current_dir(&folder).env("PATH", &path);
    run(npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]))
        .map_err(|error| Error::new(format!("{error}; is there a network?")))?;
    stamp.keep()
}
