//! The toolchain for WebAssembly: rustup's if it has the target or can get it, otherwise Debian's, with which
//! the standard library is built from its sources.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::shell::{Doing as _, Error, Result, has, output, run, run_within, say};

/// The target of guests. The host makes components of the modules.
pub const TARGET: &str = "wasm32-unknown-unknown";

const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
const LINKERS: [&str; 3] = ["/usr/bin/wasm-ld-19", "/usr/bin/wasm-ld", "/usr/bin/wasm-ld-14"];
const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];

/// A toolchain that can compile guests.
pub enum Toolchain {
    /// The current cargo has the target.
    Installed,
    /// Debian's compiler, with this linker.
    Debian(PathBuf),
}

impl Toolchain {
    /// Finds a toolchain, or installs one. `POSTHOUSE_WASM_TOOLCHAIN=debian` selects Debian's.
    pub fn find() -> Result<Self> {
        let wants_debian = env::var_os("POSTHOUSE_WASM_TOOLCHAIN").is_some_and(|name| name == "debian");
        if !wants_debian && installed() {
            return Ok(Self::Installed);
        }
        if let Some(linker) = debian() {
            return Ok(Self::Debian(linker));
        }
        if !wants_debian && has("rustup") {
            match run_within(Duration::from_secs(120), Command::new("rustup").args(["target", "add", TARGET]))
            {
                Ok(()) if installed() => {
                    say(format_args!("rustup installed the target {TARGET}"));
                    return Ok(Self::Installed);
                }
                Ok(()) => say(format_args!(
                    "rustup's {TARGET} is not of the cargo in use; trying Debian's packages"
                )),
                Err(error) => {
                    say(format_args!("rustup cannot add {TARGET} here ({error}); trying Debian's packages"))
                }
            }
        }
        install(&PACKAGES)?;
        debian().map(Self::Debian).ok_or_else(|| {
            Error::new(format!(
                "no toolchain for {TARGET}: {} are installed, but not whole",
                PACKAGES.join(", ")
            ))
        })
    }

    /// A `cargo build --release` for the guests in the workspace `dir`.
    pub fn build(&self, dir: &Path, target_dir: &Path) -> Command {
        let mut cargo = match self {
            Self::Installed => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Self::Debian(_) => Command::new(CARGO),
        };
        cargo.current_dir(dir).args(["build", "--release", "--target", TARGET]);
        clear(&mut cargo);
        cargo.env("CARGO_TARGET_DIR", target_dir);
        if let Self::Debian(linker) = self {
            // Compiles its standard library here, which is unstable. Debian's compiler belongs to these
            // sources.
            cargo.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1").env("RUSTC", RUSTC);
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "LD_LIBRARY_PATH"] {
                cargo.env_remove(variable);
            }
        }
        cargo
    }
}

/// Removes the variables that xtask's cargo has set, and those that would compile guests with flags for the
/// host.
fn clear(cargo: &mut Command) {
    let of_this_run = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_PROFILE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC"].contains(&name)
    };
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(of_this_run) {
            cargo.env_remove(name);
        }
    }
}

/// Whether the current rustc has a standard library for the target.
fn installed() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
        .and_then(|dir| fs::read_dir(dir).ok())
        .is_some_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-")))
        })
}

/// The linker of Debian's toolchain, if the toolchain is complete.
fn debian() -> Option<PathBuf> {
    let sysroot = output(Command::new(RUSTC).args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH"))?;
    let library = Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml");
    let linker = LINKERS.iter().map(Path::new).find(|linker| linker.is_file())?;
    (library.is_file() && Path::new(CARGO).is_file()).then(|| linker.to_path_buf())
}

/// Unpacks a Debian package into `dir` without installing it, so that none of its servers starts.
pub fn unpack(package: &str, dir: &Path) -> Result {
    if !has("apt-get") {
        return Err(Error::new(format!(
            "this is no Debian; what is needed is what its package `{package}` holds"
        )));
    }
    say(format_args!("fetching {package} (apt-get download)"));
    fs::create_dir_all(dir).doing(format_args!("make {}", dir.display()))?;
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        run(apt.arg("-qq").args(arguments).current_dir(dir).stdout(std::process::Stdio::null()))
    };
    apt(&["download", package]).or_else(|_| apt(&["update"]).and_then(|()| apt(&["download", package])))?;
    let files = fs::read_dir(dir).doing(format_args!("read {}", dir.display()))?;
    let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let package = files
        .flatten()
        .map(|file| file.path())
        .find(is_package)
        .ok_or_else(|| Error::new(format!("apt-get left no package in {}", dir.display())))?;
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(dir))
}

/// Installs Debian packages if it may. Otherwise the error says how.
pub fn install(packages: &[&str]) -> Result {
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !has("apt-get") {
        return Err(Error::new(format!(
            "this is no Debian; what is needed is what there comes with `{by_hand}`"
        )));
    }
    if output(Command::new("id").arg("-u")).as_deref() != Some("0") {
        return Err(Error::new(format!("run this, and then again: sudo {by_hand}")));
    }
    say(format_args!("installing {} (apt-get)", packages.join(" ")));
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        run(apt.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::process::Stdio::null()))
    };
    let wanted = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    apt(&wanted).or_else(|_| apt(&["update"]).and_then(|()| apt(&wanted)))
}
