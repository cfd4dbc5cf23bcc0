//! Compiles plugins in a child: `posthouse compile WASM OUT`, a short-lived process of the same binary.
//!
//! A plugin's bytes are untrusted. Only the child parses them, under limits that it sets on itself, and the
//! compiler's memory is freed with the child. These files protect the daemon from a compilation:
//!
//! | file | what |
//! | --- | --- |
//! | [`bounds`] | what a child may use, and what this machine has |
//! | [`inside`] | the child's own side: its limits, then the work |
//! | [`process`] | the daemon's side: starts a child, ends it, and reports how it ended |
//! | [`turns`] | runs two children at once, and decides which file is next |
//! | [`trial`] | remembers during which file's compilation the daemon died |

mod bounds;
mod inside;
mod process;
mod trial;
mod turns;

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use tempfile::TempDir;

pub use self::inside::{Given, compile_child};
use posthouse_model::config::Compile;

use self::{
    bounds::Bounds,
    process::{Ending, Process},
    trial::Trial,
    turns::Turns,
};
use super::cache::{Cache, CacheError};

use crate::imports::size;

/// A fast compilation takes less than this. A longer one yields to others that wait.
const SLICE: Duration = Duration::from_secs(10);

/// Why there is no code of a plugin.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompileError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("the compiler `{path}` can't be started: {error}")]
    Start { path: PathBuf, error: io::Error },
    #[error("it does not compile: {0}")]
    Refused(String),
    #[error("it does not compile: the compiler reached its limit of {limit}; {todo}")]
    Limit { limit: String, todo: &'static str },
    #[error("it does not compile: {0}")]
    Killed(String),
    #[error("it does not compile: the compiler ended with {status}, {used}")]
    Ended { status: ExitStatus, used: String },
    #[error(
        "it is not compiled: the daemon ended {times} times while it compiled this file, for lack of memory \
         perhaps; it tries again when the file or `plugins.compile.memory` changes, or `{marker}` is removed"
    )]
    Deadly { times: u32, marker: PathBuf },
}

/// Code that a child wrote, in a folder that is removed when this is dropped.
pub(super) struct Compiled {
    folder: TempDir,
}

impl Compiled {
    /// The path of the code.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("out.cwasm")
    }
}

/// The child's binary, the limits of each child, and the queue of compilations.
pub(super) struct Compiler {
    path: PathBuf,
    bounds: Bounds,
    turns: Turns,
}

impl Compiler {
    pub(super) fn new(path: PathBuf, limits: Compile) -> Self {
        Self { path, bounds: Bounds::on_this_machine(&limits), turns: Turns::default() }
    }

    /// Compiles `wasm`. Dropping the future ends the child.
    ///
    /// # Errors
    /// [`CompileError`] says what is wrong with the file, or which limit the child reached.
    pub(super) async fn compile(
        &self,
        cache: &Cache,
        revision: &str,
        wasm: &[u8],
    ) -> Result<Compiled, CompileError> {
        let trial = Trial::of(cache.marker(revision), self.bounds.memory);
        if trial.is_deadly() {
            return Err(CompileError::Deadly { times: trial.deaths(), marker: trial.marker().to_owned() });
        }
        let folder = cache.scratch()?;
        let input = folder.path().join("in.wasm");
        tokio::fs::write(&input, wasm)
            .await
            .map_err(|error| CacheError::Io { path: input.clone(), error })?;
        let compiled = Compiled { folder };
        let mut turn = if trial.deaths() > 0 { self.turns.alone().await } else { self.turns.first().await };
        loop {
            let ended = {
                let _trial = trial.begin();
                let mut child = self.start(&input, &compiled.file())?;
                tokio::select! {
                    ended = tokio::time::timeout(self.bounds.wall(), child.ended()) => Some(ended),
                    () = turn.ends(SLICE) => None,
                }
            };
            match ended {
                // The child was killed. The compilation starts again when it gets a place without a time slice.
                None => {
                    drop(turn);
                    turn = self.turns.again().await;
                }
                Some(Ok(ended)) => {
                    let ended =
                        ended.map_err(|error| CompileError::Start { path: self.path.clone(), error })?;
                    return if ended.status.success() { Ok(compiled) } else { Err(self.failure(&ended)) };
                }
                Some(Err(_)) => {
                    let limit = format!("{:?}", self.bounds.wall());
                    return Err(CompileError::Limit { limit, todo: "raise `plugins.compile.time`" });
                }
            }
        }
    }

    fn start(&self, input: &Path, output: &Path) -> Result<Process, CompileError> {
        let mut command = Command::new(&self.path);
        command.arg("compile").arg(input).arg(output).args(["--memory", &self.bounds.memory.to_string()]);
        command.args(["--seconds", &self.bounds.cpu.as_secs().to_string(), "--attached"]);
        // Otherwise the allocator commits 1 GiB at the start, which counts against the limit.
        command.env_clear().env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
        command.current_dir(input.parent().unwrap_or(Path::new("/")));
        Process::start(&mut command).map_err(|error| CompileError::Start { path: self.path.clone(), error })
    }

    /// Returns the error for the way in which a child ended.
    fn failure(&self, ended: &Ending) -> CompileError {
        use std::os::unix::process::ExitStatusExt as _;
        let limit = |limit, todo| CompileError::Limit { limit, todo };
        let cpu = || {
            limit(
                format!("{} s of CPU", self.bounds.cpu.as_secs()),
                "raise `plugins.compile.time`, or make the plugin smaller",
            )
        };
        let memory = || {
            limit(
                format!("{} of memory", size(usize::try_from(self.bounds.memory).unwrap_or(usize::MAX))),
                "raise `plugins.compile.memory`, or make the plugin smaller",
            )
        };
        match ended.status.signal() {
            Some(signals::XCPU) => cpu(),
            // The child did not react to the soft limit, so the hard limit killed it.
            Some(signals::KILL) if ended.cpu >= self.bounds.cpu => cpu(),
            Some(signals::KILL) => CompileError::Killed(ended.killed()),
            // Rust aborts when an allocation fails.
            Some(signals::ABRT) if ended.words.contains("allocation") => memory(),
            // Rayon fails when there is no memory for its threads' stacks.
            None if ended.words.contains("ThreadPoolBuildError") => memory(),
            Some(signals::XFSZ) => limit(
                format!("{} of machine code", size(super::cache::LARGEST as usize)),
                "make the plugin smaller",
            ),
            None if !ended.words.is_empty() => CompileError::Refused(ended.words.clone()),
            _ => CompileError::Ended { status: ended.status, used: ended.used() },
        }
    }
}

/// The signals that mean that a limit was reached.
mod signals {
    use rustix::process::Signal;

    pub(super) const XCPU: i32 = Signal::XCPU.as_raw();
    pub(super) const XFSZ: i32 = Signal::XFSZ.as_raw();
    pub(super) const KILL: i32 = Signal::KILL.as_raw();
    pub(super) const ABRT: i32 = Signal::ABORT.as_raw();
}
