//! The compiler child from inside: sets limits on itself, then reads a wasm file and writes AOT code.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

use rustix::process::{Resource, Rlimit, nice, setrlimit};

use crate::plugin::{cache::LARGEST, componentize::componentize, engine::settings};

/// Seconds of CPU from the signal that tells of the limit to the one that ends the process.
const GRACE: u64 = 5;

/// What the child is given.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// Bytes of memory.
    pub memory: u64,
    /// Seconds of CPU.
    pub seconds: u64,
    /// Whether it ends when its standard input does, and with that the daemon that holds the other end.
    pub attached: bool,
}

/// The hidden subcommand `posthouse compile`: reads a wasm file, writes AOT code, under limits that it
/// sets on itself. Returns the exit code; what went wrong is on standard error.
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
    // Where memory runs out the kernel is to end this process and not the daemon. Without /proc it goes on.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    // What the process writes to, and neither the address space that an allocator reserves nor files.
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
    // Nothing is ever written there; an error ends it as well as the end does.
    while matches!(io::stdin().read(&mut byte), Ok(1..)) {}
    std::process::exit(1);
}

fn limit(resource: Resource, soft: u64, hard: u64) -> Result<(), String> {
    setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
        .map_err(|error| format!("setrlimit: {error}"))
}
