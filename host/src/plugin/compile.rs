//! Compiling in a child: `posthouse compile WASM OUT`, a short-lived process of the same binary.
//!
//! A plugin's bytes are a stranger's: the child alone parses them, under limits on memory and CPU that
//! it sets on itself, with low priority, and is killed when it takes too long. What the compiler
//! allocates goes with it.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    sync::Semaphore,
};

use super::{
    cache::{Cache, CacheError},
    componentize::componentize,
    engine::settings,
};
use crate::imports::{cut, size};

/// Bytes of address space that the child may have.
const MEMORY: u64 = 4 << 30;
/// Seconds of CPU that the child may use. A CPython takes some 20.
const CPU: u64 = 120;
/// How long the child may take in all.
const TIME: Duration = Duration::from_secs(300);
/// Children at once: a plugin that takes long to compile keeps no other waiting.
const CHILDREN: usize = 2;
/// Bytes of the child's last words that are kept.
const WORDS: u64 = 4 << 10;

/// Why there is no code of a plugin.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompileError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("the compiler `{path}` can't be started: {error}")]
    Start { path: PathBuf, error: io::Error },
    #[error("it does not compile: {0}")]
    Refused(String),
    #[error("it does not compile: the compiler went over its limit of {0}")]
    Limit(String),
    #[error("it does not compile: the compiler was ended by {0}")]
    Ended(ExitStatus),
}

/// The child's binary.
pub(super) struct Compiler {
    path: PathBuf,
    children: Semaphore,
}

impl Compiler {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, children: Semaphore::new(CHILDREN) }
    }

    /// Compiles `wasm` into the cache.
    pub(super) async fn compile(
        &self,
        cache: &Cache,
        revision: &str,
        wasm: &[u8],
    ) -> Result<(), CompileError> {
        let _turn = self.children.acquire().await;
        let scratch = cache.scratch()?;
        let (input, output) = (scratch.path().join("in.wasm"), scratch.path().join("out.cwasm"));
        tokio::fs::write(&input, wasm)
            .await
            .map_err(|error| CacheError::Io { path: input.clone(), error })?;
        let mut child = Command::new(&self.path)
            .args([OsStr::new("compile"), input.as_os_str(), output.as_os_str()])
            .env_clear()
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| CompileError::Start { path: self.path.clone(), error })?;
        let (status, words) = tokio::time::timeout(TIME, last_words(&mut child))
            .await
            .map_err(|_| CompileError::Limit(format!("{TIME:?}")))?
            .map_err(|error| CompileError::Start { path: self.path.clone(), error })?;
        if !status.success() {
            return Err(failure(status, words));
        }
        Ok(cache.put(revision, &output)?)
    }
}

/// What the child said on standard error, and how it ended.
async fn last_words(child: &mut Child) -> io::Result<(ExitStatus, String)> {
    let mut words = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        (&mut stderr).take(WORDS).read_to_end(&mut words).await?;
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    }
    let mut words = String::from_utf8_lossy(&words).trim().replace('\n', "; ");
    cut(&mut words, WORDS as usize);
    Ok((child.wait().await?, words))
}

fn failure(status: ExitStatus, words: String) -> CompileError {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(signals::XCPU | signals::KILL) => CompileError::Limit(format!("{CPU} s of CPU")),
        // Rust's answer to memory that it can't have.
        Some(signals::ABRT) if words.contains("allocation") => {
            CompileError::Limit(format!("{} of memory", size(MEMORY as usize)))
        }
        None if !words.is_empty() => CompileError::Refused(words),
        _ => CompileError::Ended(status),
    }
}

/// The signals that tell a limit.
mod signals {
    use rustix::process::Signal;

    pub(super) const XCPU: i32 = Signal::XCPU.as_raw();
    pub(super) const KILL: i32 = Signal::KILL.as_raw();
    pub(super) const ABRT: i32 = Signal::ABORT.as_raw();
}

/// The hidden subcommand `posthouse compile`: reads a wasm file, writes AOT code, under limits that it
/// sets on itself. Returns the exit code; what went wrong is on standard error.
pub fn compile_child(wasm: &Path, out: &Path) -> i32 {
    match run_child(wasm, out) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn run_child(wasm: &Path, out: &Path) -> Result<(), String> {
    limit(Resource::As, MEMORY)?;
    limit(Resource::Cpu, CPU)?;
    limit(Resource::Core, 0)?;
    nice(10).map_err(|error| format!("nice: {error}"))?;
    let wasm = fs::read(wasm).map_err(|error| format!("`{}`: {error}", wasm.display()))?;
    let component = componentize(wasm).map_err(|error| error.to_string())?;
    let code = wasmtime::Engine::new(&settings())
        .and_then(|engine| engine.precompile_component(&component))
        .map_err(|error| format!("{error:#}"))?;
    // On disk before it gets its name, so that a crash leaves no half of it there.
    fs::File::create(out)
        .and_then(|mut file| file.write_all(&code).and_then(|()| file.sync_all()))
        .map_err(|error| format!("`{}`: {error}", out.display()))
}

fn limit(resource: Resource, most: u64) -> Result<(), String> {
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
        .map_err(|error| format!("setrlimit: {error}"))
}
