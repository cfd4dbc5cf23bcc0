//! Builds the guests in JavaScript and Python, if their inputs have changed. The language's own tool makes
//! `tests/guests/built/<language>.wasm` from `tests/guests/<language>/`.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    guests::place,
    python,
    shell::{Doing, Error, Result, root, run, say, target},
    stamp::Stamp,
};

/// Builds both.
pub fn build() -> Result {
    let programs = python::programs()?;
    once("javascript", |source, wit, goal| javascript(&programs, source, wit, goal))?;
    once("python", |source, wit, goal| {
        let mut tool = Command::new(programs.join("componentize-py"));
        tool.env("PYTHONDONTWRITEBYTECODE", "1").arg("-d").arg(wit).args(["-w", "plugin"]);
        run(tool.args(["componentize", "guest", "-p"]).arg(source).arg("-o").arg(goal))
    })
}

/// Builds a guest with `make(source folder, wit folder, file to write)`, unless it exists and its inputs have
/// not changed.
fn once(language: &str, make: impl FnOnce(&Path, &Path, &Path) -> Result) -> Result {
    let source = root().join("tests/guests").join(language);
    let wit = root().join("wit/0.2");
    let built = target().join("languages").join(format!("{language}.wasm"));
    let folder = target().join("languages");
    fs::create_dir_all(&folder).doing(format_args!("make {}", folder.display()))?;
    let mut stamp = Stamp::new(built.with_extension("stamp"));
    for folder in [&source, &wit] {
        stamp.folder(folder)?;
    }
    stamp.file(&root().join("tests/requirements.txt"))?;
    if !stamp.holds() || !built.exists() {
        say(format_args!("building the guest in {language} (up to a minute)"));
        make(&source, &wit, &built)?;
        stamp.keep()?;
    }
    place(&built, &root().join("tests/guests/built").join(format!("{language}.wasm")))
}

/// Builds in a copy of the source folder, so that node_modules is not among the sources.
fn javascript(programs: &Path, source: &Path, wit: &Path, goal: &Path) -> Result {
    let copy = target().join("languages/javascript");
    fs::create_dir_all(&copy).doing(format_args!("make {}", copy.display()))?;
    for file in ["package.json", "package-lock.json", "build.mjs", "guest.js"] {
        fs::copy(source.join(file), copy.join(file)).doing(format_args!("copy {file}"))?;
    }
    let path = path_with(python::node(programs)?)?;
    let with_node = |program: &str| {
        let mut command = Command::new(find(program, &path));
        command.current_dir(&copy).env("PATH", &path);
        command
    };
    run(with_node("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]))?;
    run(with_node("node").arg("build.mjs").arg(wit).arg(goal))
}

/// This process's path, with another folder first.
pub fn path_with(folder: Option<PathBuf>) -> Result<OsString> {
    let others = env::var_os("PATH").unwrap_or_default();
    let Some(folder) = folder else { return Ok(others) };
    let folders = std::iter::once(folder).chain(env::split_paths(&others));
    env::join_paths(folders).map_err(|error| Error::new(error.to_string()))
}

/// The location of a program on a path other than this process's own.
pub fn find(program: &str, path: &std::ffi::OsStr) -> PathBuf {
    let found = env::split_paths(path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| program.into())
}
