//! Installs the programs for the browser tests: Debian's Chromium, a Node.js, and the packages that
//! tests/browser/package-lock.json pins, in `target/browser`.

use std::{env, fs, process::Command};

use crate::{
    languages::{find, path_with},
    python,
    shell::{Doing, Error, Result, has, root, run, say, target},
    stamp::Stamp,
    toolchain::install,
};

/// Installs what is missing.
pub fn install_all() -> Result {
    if !has("chromium") && env::var_os("CHROMIUM").is_none() {
        install(&["chromium"])?;
    }
    let source = root().join("tests/browser");
    let folder = target().join("browser");
    let mut stamp = Stamp::new(target().join("browser.stamp"));
    stamp.file(&source.join("package-lock.json"))?;
    if stamp.holds() && folder.join("node_modules").exists() {
        return Ok(());
    }
    say("installing the driver for the browser (target/browser)");
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
