//! The compiler child's own side: it limits itself, then reads a wasm file and writes AOT code.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

use rustix::process::{Resource, Rlimit, nice, setrlimit};

use crate::plugin::{cache::LARGEST, componentize::componentize, engine::settings};

/// Seconds of CPU time between the signal at the soft limit and the kill at the hard limit.
const GRACE: u64 = 5;

/// The limits that the child gets.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// Bytes of memory.
    pub memory: u64,
    /// Seconds of CPU time.
    pub seconds: u64,
    /// Whether the child exits when its standard input closes. The daemon holds the other end, so the child
    /// ends with it.
    pub attached: bool,
}

/// Runs the hidden subcommand `posthouse compile`, which reads a wasm file and writes AOT code under limits
/// that it sets on itself. Returns the exit code. Errors go to standard error.
pub fn compile_child(wasm: &Path, out: &Path, given: Given) -> i32 {
    match run(wasm, out, given) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn run(wasm: &Path, out: &Path, given: Given) -> Result<(), String> {
    if given.attached {
        std::thread::spawn(end_with_the_daemon);
    }
    // If memory runs out, the kernel should kill this process and not the daemon. Without /proc this does
    // nothing.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    // Limits the memory that the process writes to. Reserved address space and files do not count.
    limit(Resource::Data, given.memory, given.memory)?;
    limit(Resource::Cpu, given.seconds, given.seconds.saturating_add(GRACE))?;
    limit(Resource::Fsize, LARGEST, LARGEST)?;
    limit(Resource::Core, 0, 0)?;
    nice(10).map_err(|error| format!("nice: {error}"))?;
    let wasm = fs::read(wasm).map_err(|error| format!("`{}`: {error}", wasm.display()))?;
    let component = componentize(wasm).map_err(|error| error.to_string())?;
    let code = wasmtime::Engine::new(&settings())
        .and_then(|engine| engine.precompile_component(&component))
        .map_err(|error| format!("{error:#}"))?;
    fs::File::create(out)
        .and_then(|mut file| file.write_all(&code))
        .map_err(|error| format!("`{}`: {error}", out.display()))
}

fn end_with_the_daemon() {
    let mut byte = [0];
    // The daemon never writes to it. Both an error and the end of input end the child.
    while matches!(io::stdin().read(&mut byte), Ok(1..)) {}
    std::process::exit(1);
}

fn limit(resource: Resource, soft: u64, hard: u64) -> Result<(), String> {
    setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
        .map_err(|error| format!("setrlimit: {error}"))
}
