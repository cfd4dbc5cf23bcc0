//! Runs other programs, and prints what it runs.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// An error message for people.
#[derive(Debug)]
pub struct Error(String);

/// The result of a step.
pub type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds to an I/O error what was done, and to which file.
pub trait Doing<T> {
    /// `doing` is a phrase such as `copy target/x.wasm`.
    fn doing(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error(format!("cannot {doing}: {error}")))
    }
}

/// The workspace's folder.
pub fn root() -> PathBuf {
    let own =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The folder for builds.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Prints the next step.
pub fn say(message: impl fmt::Display) {
    eprintln!("── {message}");
}

/// Runs a program to its end. The program uses the terminal itself.
pub fn run(command: &mut Command) -> Result {
    let status = command.status().doing(format_args!("run `{}`", line(command)))?;
    if status.success() { Ok(()) } else { Err(Error(format!("`{}` failed ({status})", line(command)))) }
}

/// Runs a program to its end. Returns its standard output, or none if it fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program with the time limit `limit`. The error is the last line that it wrote to standard error.
pub fn run_within(limit: Duration, command: &mut Command) -> Result {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .doing(format_args!("run `{}`", line(command)))?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || stderr.map(io::read_to_string));
    let started = Instant::now();
    let status = loop {
        match child.try_wait().doing("wait for a child")? {
            Some(status) => break status,
            None if started.elapsed() > limit => {
                child.kill().doing("end a child")?;
                child.wait().doing("wait for a child")?;
                return Err(Error(format!("`{}` took more than {} s", line(command), limit.as_secs())));
            }
            None => sleep(Duration::from_millis(20)),
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = reader.join().ok().flatten().and_then(io::Result::ok).unwrap_or_default();
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(Error(format!("`{}`: {}", line(command), last.trim())))
}

/// Whether the program can be found.
pub fn has(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
