//! `cargo xtask guests`: builds every guest in Rust, and puts the module where the daemon or the tests look
//! for it.
//!
//! `plugins/<name>/` becomes `plugins/<name>.wasm`, and `tests/guests/<name>/` becomes
//! `tests/guests/built/<name>.wasm`. A file is replaced whole, and only if it changes, because the daemon
//! watches it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    languages,
    shell::{Doing, Error, Result, root, run, say, target},
    toolchain::{TARGET, Toolchain},
};

/// The workspaces of guests, and the folders for their modules.
const WORKSPACES: [(&str, &str); 2] = [("plugins", "plugins"), ("tests/guests", "tests/guests/built")];

/// `cargo xtask guests [--only NAME]... [--languages]`
pub fn run_command(arguments: &[String]) -> Result {
    let mut only = Vec::new();
    let mut languages = false;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--languages" => languages = true,
            "--only" if arguments.len() > 0 => only.extend(arguments.next().map(String::as_str)),
            _ => return Err(Error::new("usage: cargo xtask guests [--only NAME]... [--languages]")),
        }
    }
    build(&only)?;
    if languages { languages::build() } else { Ok(()) }
}

/// Builds the guests with these names, or all.
pub fn build(only: &[&str]) -> Result {
    let toolchain = Toolchain::find()?;
    let target_dir = target().join("guests");
    let mut left: Vec<&str> = only.to_vec();
    for (workspace, goal) in WORKSPACES {
        let dir = root().join(workspace);
        let mut guests = guests_in(&dir)?;
        guests.retain(|guest| only.is_empty() || only.contains(&guest.as_str()));
        left.retain(|name| !guests.iter().any(|guest| guest == name));
        if guests.is_empty() {
            continue;
        }
        let mut cargo = toolchain.build(&dir, &target_dir);
        cargo.arg("--quiet").args(guests.iter().flat_map(|guest| ["-p", guest]));
        run(&mut cargo)?;
        for guest in &guests {
            let module = format!("{}.wasm", guest.replace('-', "_"));
            let built = target_dir.join(TARGET).join("release").join(module);
            place(&built, &root().join(goal).join(format!("{guest}.wasm")))?;
        }
    }
    match left.first() {
        Some(name) => Err(Error::new(format!("no guest `{name}` in plugins/ or tests/guests/"))),
        None => Ok(()),
    }
}

/// The guests in a workspace: the folders with a crate that becomes a module.
fn guests_in(workspace: &Path) -> Result<Vec<String>> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(workspace).doing(format_args!("read {}", workspace.display()))? {
        let entry = entry.doing(format_args!("read {}", workspace.display()))?;
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap_or_default();
        if manifest.contains("cdylib") {
            guests.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    guests.sort();
    Ok(guests)
}

/// Copies a built module to its place, unless it is the same.
pub fn place(built: &Path, goal: &Path) -> Result {
    let bytes = fs::read(built).doing(format_args!("read {}", built.display()))?;
    let shown = goal.strip_prefix(root()).unwrap_or(goal).display();
    if fs::read(goal).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let folder = goal.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&folder).doing(format_args!("make {}", folder.display()))?;
    let half = goal.with_extension("wasm.half");
    fs::write(&half, &bytes).doing(format_args!("write {}", half.display()))?;
    fs::rename(&half, goal).doing(format_args!("move {} to {shown}", half.display()))?;
    say(format_args!("{shown}: {} KiB", bytes.len().div_ceil(1024)));
    Ok(())
}
