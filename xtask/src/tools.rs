//! Finds or installs the programs that tests run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    browser, npm, python,
    shell::{Doing, Result, has, root, run, say, target},
    toolchain::{install, unpack},
};

/// Programs that tests run, and their Debian packages.
const PROGRAMS: [(&str, &str); 3] = [("curl", "curl"), ("systemd-analyze", "systemd"), ("dpkg-deb", "dpkg")];

/// The tool that builds the Debian package.
const CARGO_DEB: &str = "3.8.0";

/// Installs the missing programs.
pub fn install_all() -> Result {
    let missing: Vec<_> =
        PROGRAMS.into_iter().filter_map(|(program, package)| (!has(program)).then_some(package)).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    postgres()?;
    promtool()?;
    cargo_deb()?;
    browser::install_all()?;
    npm::packages("libraries", "the senders' own libraries")?;
    python::programs().map(drop)
}

/// The current cargo, in the workspace, with variables by which tests find the programs.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    let tools = [
        ("POSTHOUSE_TEST_PYTHON", Some(target().join("python/bin/python"))),
        ("POSTHOUSE_TEST_CARGO_DEB", Some(cargo_deb_of_tests()).filter(|path| path.is_file())),
        ("POSTHOUSE_TEST_PROMTOOL", Some(promtool_of_tests()).filter(|path| path.is_file())),
    ];
    for (variable, tool) in tools {
        if let (None, Some(tool)) = (env::var_os(variable), tool) {
            cargo.env(variable, tool);
        }
    }
    cargo
}

/// The tool that builds the Debian package. It is compiled once, without optimization, and kept beside the
/// builds.
fn cargo_deb() -> Result {
    if has("cargo-deb") || cargo_deb_of_tests().is_file() {
        return Ok(());
    }
    say(format_args!("installing cargo-deb {CARGO_DEB}, which takes a minute"));
    let build = target().join("tools/build");
    let mut install = cargo();
    install.args([
        "install",
        "--quiet",
        "--locked",
        "--debug",
        "cargo-deb",
        "--version",
        CARGO_DEB,
        "--root",
    ]);
    install
        .arg(target().join("tools"))
        .env("CARGO_TARGET_DIR", &build)
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    run(&mut install)?;
    fs::remove_dir_all(&build).doing(format_args!("remove {}", build.display()))
}

fn cargo_deb_of_tests() -> PathBuf {
    target().join("tools/bin/cargo-deb")
}

/// Prometheus's tool, which checks our metrics and the alerts. It is not installed as a package, because the
/// package's server would start.
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

/// The PostgreSQL that tests start. Debian's package would start its own server too.
pub fn postgres() -> Result {
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
