//! The files for installation: systemd loads the units unchanged and finds little exposure. The Debian
//! package installs, works and can be removed.
//!
//! dpkg installs the package for real, with its scripts, but into the test's own folder. The machine's
//! packages stay unchanged.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use posthouse_harness::{guest, put_in_place, workspace};

/// The most exposure that `systemd-analyze security` may find, in tenths.
const MOST_EXPOSURE: &str = "15";

/// The first systemd that has `Type=notify-reload`.
const KNOWS_NOTIFY_RELOAD: u32 = 253;

const UNITS: [&str; 3] = ["posthouse.service", "posthouse.socket", "posthouse-admin.socket"];

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let text = fs::read_to_string(workspace().join("packaging").join(unit)).unwrap();
        // The binary under test replaces the installed one.
        let text = text.replace("/usr/bin/posthouse ", &format!("{} ", env!("CARGO_BIN_EXE_posthouse")));
        fs::write(dir.path().join(unit), text).unwrap();
    }
    let output = analyze(dir.path(), &["verify", "--man=no", UNITS[0], UNITS[1], UNITS[2]]);
    assert!(output.status.success(), "{}", complaints(&output));
    assert_eq!(complaints(&output), "");
}

#[test]
fn little_is_left_open() {
    let dir = workspace().join("packaging");
    let threshold = format!("--threshold={MOST_EXPOSURE}");
    let output =
        analyze(&dir, &["security", "--offline=true", "--no-pager", &threshold, "./posthouse.service"]);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", complaints(&output));
    assert_eq!(complaints(&output), "");
    assert!(report.contains("Overall exposure level for posthouse.service"), "{report}");
}

#[test]
fn the_package_installs_checks_and_purges_clean() {
    let dir = tempfile::tempdir().unwrap();
    let package = packaged(dir.path());
    let root = Root::new(&dir.path().join("root"));

    root.dpkg(&["--install", package.to_str().unwrap()]);
    for unit in UNITS {
        let installed = fs::read(root.at("usr/lib/systemd/system").join(unit)).unwrap();
        assert_eq!(installed, fs::read(workspace().join("packaging").join(unit)).unwrap(), "{unit}");
    }
    // Enabled, so that it runs after the next boot.
    for wanted in ["multi-user.target.wants/posthouse.service", "sockets.target.wants/posthouse.socket"] {
        assert!(root.at("etc/systemd/system").join(wanted).is_symlink(), "{wanted}");
    }
    for page in ["operations.md", "prometheus/alerts.yml", "grafana/dashboard.json"] {
        assert!(root.at("usr/share/doc/posthouse").join(page).is_file(), "{page}");
    }
    let secrets = fs::metadata(root.at("etc/posthouse/secrets")).unwrap();
    assert_eq!(secrets.permissions().mode() & 0o777, 0o700);

    // As installed it accepts nothing yet, and says so.
    let (code, said) = root.check();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("config.toml: ok") && said.contains("config.toml has no [[source]]"), "{said}");

    // With the example enabled, a secret and a plugin, it is ready to serve.
    let config = fs::read_to_string(root.at(CONFIG)).unwrap();
    let (head, example) = config.split_once("#\n# [[source]]").unwrap();
    let live = format!("{head}[[source]]{}", example.replace("\n# ", "\n"));
    fs::write(root.at(CONFIG), &live).unwrap();
    fs::write(root.at("etc/posthouse/secrets/scalekit"), "whsec_cG9zdGhvdXNlLXRlc3Q=").unwrap();
    put_in_place(&root.at("etc/posthouse/plugins/counter.wasm"), &guest("counter"));
    let (code, said) = root.check();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("source scalekit") && said.contains("plugin counter"), "{said}");

    // The next version keeps what the operator changed.
    root.dpkg(&["--install", package.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(root.at(CONFIG)).unwrap(), live);

    root.dpkg(&["--remove", "posthouse"]);
    assert!(!root.at("usr/bin/posthouse").exists());
    assert_eq!(fs::read_to_string(root.at(CONFIG)).unwrap(), live, "removed is not purged");
    root.dpkg(&["--purge", "posthouse"]);
    let left: Vec<_> = files(&root.0)
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("posthouse"))
        .map(|path| path.strip_prefix(&root.0).unwrap().to_owned())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

/// The package's path of config.toml.
const CONFIG: &str = "etc/posthouse/config.toml";

/// The package with the binary under test, built by cargo-deb.
fn packaged(dir: &Path) -> PathBuf {
    // cargo-deb packs the binary of a release build. This one takes its place.
    let target = dir.join("target");
    fs::create_dir_all(target.join("release")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_posthouse"), target.join("release/posthouse")).unwrap();
    let package = dir.join("posthouse.deb");
    let installed = workspace().join("target/tools/bin/cargo-deb");
    let cargo_deb = std::env::var_os("POSTHOUSE_TEST_CARGO_DEB").map(PathBuf::from);
    let cargo_deb = cargo_deb.or_else(|| Some(installed).filter(|program| program.is_file()));
    let output = Command::new(cargo_deb.unwrap_or_else(|| "cargo-deb".into()))
        .args(["deb", "--package", "posthouse", "--no-build", "--no-strip", "--fast", "--quiet", "--output"])
        .arg(&package)
        .current_dir(workspace())
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .expect("cargo-deb, which `cargo xtask test` installs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    package
}

/// A folder that dpkg treats as a system.
struct Root(PathBuf);

impl Root {
    fn new(dir: &Path) -> Self {
        let database = dir.join("var/lib/dpkg");
        for folder in ["info", "updates", "triggers"] {
            fs::create_dir_all(database.join(folder)).unwrap();
        }
        fs::write(database.join("status"), "").unwrap();
        Self(dir.to_owned())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// The package's scripts run with `DPKG_ROOT`. Its dependencies are not in this folder.
    fn dpkg(&self, arguments: &[&str]) {
        let output = Command::new("dpkg")
            .arg(format!("--root={}", self.0.display()))
            .args(["--force-script-chrootless", "--force-not-root", "--force-depends", "--force-confold"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .expect("dpkg, which `cargo xtask test` installs");
        assert!(output.status.success(), "dpkg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs the installed `posthouse check`, with the credentials that systemd would pass. Returns its exit
    /// code and its whole output.
    fn check(&self) -> (Option<i32>, String) {
        let credentials = self.0.join("run/credentials");
        fs::create_dir_all(&credentials).unwrap();
        for secret in fs::read_dir(self.at("etc/posthouse/secrets")).unwrap() {
            let secret = secret.unwrap();
            let name = format!("secret_{}", secret.file_name().to_string_lossy());
            fs::copy(secret.path(), credentials.join(name)).unwrap();
        }
        let output = Command::new(self.at("usr/bin/posthouse"))
            .arg("--config")
            .arg(self.at(CONFIG))
            .arg("check")
            .env("CREDENTIALS_DIRECTORY", credentials)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            let below = if path.is_dir() && !path.is_symlink() { files(&path) } else { Vec::new() };
            std::iter::once(path).chain(below)
        })
        .collect()
}

fn analyze(dir: &Path, arguments: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("systemd-analyze, which `cargo xtask test` installs")
}

/// Its standard error, without the one expected complaint of an older systemd. The unit is written so that an
/// older systemd can load it.
fn complaints(output: &Output) -> String {
    let version = Command::new("systemd-analyze").arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let version: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
    let expected = |line: &&str| {
        version < KNOWS_NOTIFY_RELOAD
            && line.ends_with("Failed to parse service type, ignoring: notify-reload")
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    stderr.lines().filter(|line| !expected(line)).collect::<Vec<_>>().join("\n")
}
