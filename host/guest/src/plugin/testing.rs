//! Guests in the text format, and a separate engine, for tests.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use posthouse_model::{config::Compile, testing::still};
use tempfile::TempDir;

use super::{Engine, EngineOptions, Given, compile_child};

/// A guest whose `handle` runs `body` and then returns ok. It imports a few host calls and contains two texts:
/// `line` at 256 and `n` at 272.
pub fn guest(body: &str) -> Vec<u8> {
    module(body, "(i32.const 16)")
}

/// A guest that traps until its clock reaches this second, and then works.
pub fn sick_until(second: i64) -> Vec<u8> {
    until(second, "unreachable")
}

/// A guest that asks for a retry after `after` seconds until its clock reaches this second, and then works.
pub fn busy_until(second: i64, after: u32) -> Vec<u8> {
    until(
        second,
        &format!(
            "(i32.store8 (i32.const 4096) (i32.const 1)) (i32.store8 (i32.const 4100) (i32.const 1))
             (i32.store (i32.const 4104) (i32.const 256)) (i32.store (i32.const 4108) (i32.const 4))
             (i32.store (i32.const 4112) (i32.const {after}))"
        ),
    )
}

/// A guest that traps at events whose type has the length of this one, and works for all others.
pub fn chokes_on(event_type: &str) -> Vec<u8> {
    let length = event_type.len();
    guest(&format!(
        "(if (i32.eq (i32.load offset=20 (local.get 0)) (i32.const {length})) (then unreachable))"
    ))
}

/// A guest that runs `body` until its clock reaches this second.
fn until(second: i64, body: &str) -> Vec<u8> {
    const WORLD: &str = "
package test:sick;

world sick {
    include posthouse:plugin/plugin@0.1.0;
    import wasi:clocks/wall-clock@0.2.0;
}

package wasi:clocks@0.2.0 {
    interface wall-clock {
        record datetime { seconds: u64, nanoseconds: u32 }
        now: func() -> datetime;
    }
}
";
    let handle = format!(
        "(call $now (i32.const 3072))
         (if (i64.lt_u (i64.load (i32.const 3072)) (i64.const {second})) (then {body}))"
    );
    let clock = r#"(import "wasi:clocks/wall-clock@0.2.0" "now" (func $now (param i32)))"#;
    let text = text(&handle, "(i32.const 16)").replacen("(memory", &format!("{clock} (memory"), 1);
    in_world(&text, Some(WORLD))
}

pub(super) fn module(handle: &str, describe: &str) -> Vec<u8> {
    in_world(&text(handle, describe), None)
}

pub(super) fn text(handle: &str, describe: &str) -> String {
    format!(
        r#"(module $guest
            (import "posthouse:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))
            (import "posthouse:plugin/kv@0.1.0" "increment" (func $increment (param i32 i32 i64 i32)))
            (import "posthouse:plugin/kv@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
            (memory (export "memory") 4)
            (global $top (mut i32) (i32.const 8192))
            (global $count (mut i32) (i32.const 0))
            ;; The manifest: description, events, requires. An event's text lies at 64, its list at 80.
            (data (i32.const 16) "\00\01\00\00\04\00\00\00" "\50\00\00\00\01\00\00\00" "\00\00\00\00\00\00\00\00")
            (data (i32.const 64) "user.*")
            (data (i32.const 80) "\40\00\00\00\06\00\00\00")
            (data (i32.const 256) "line")
            (data (i32.const 272) "n")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (global.get $top)
                (global.set $top (i32.add (global.get $top) (local.get 3))))
            (func $say (call $log (i32.const 2) (i32.const 256) (i32.const 4)))
            (func $recurse (call $recurse) (call $say))
            (func $spin (loop (br 0)))
            (global $stack (mut i32) (i32.const 8192))
            (func $nest
                (global.set $stack (i32.sub (global.get $stack) (i32.const 1024)))
                (i32.store (global.get $stack) (i32.const 1))
                (call $nest)
                (global.set $stack (i32.add (global.get $stack) (i32.const 1024))))
            (func (export "posthouse:plugin/guest@0.1.0#describe") (result i32) {describe})
            (func $greets_users (export "posthouse:plugin/guest@0.1.0#handle") (param i32) (result i32)
                (global.set $top (i32.const 8192))
                {handle}
                (i32.const 4096)))"#
    )
}

/// A module in the text format with its world: `plugin`, or `other`, which is WIT.
pub(super) fn in_world(text: &str, other: Option<&str>) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/0.1");
    let (mut package, _) = resolve.push_dir(wit).unwrap();
    if let Some(wit) = other {
        package = resolve.push_str("other.wit", wit).unwrap();
    }
    let name = other.is_none().then_some("plugin");
    let world = resolve.select_world(&[package], name).unwrap();
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
    module
}

/// A separate engine whose compiler child is this test binary.
pub struct Bench {
    pub dir: TempDir,
    pub engine: Engine,
}

impl Bench {
    pub fn new(instances: u32) -> Self {
        Self::compiling(instances, Compile::default())
    }

    pub fn compiling(instances: u32, compile: Compile) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let compiler = dir.path().join("compiler");
        let this = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\nIN=\"$2\" OUT=\"$3\" MEMORY=\"$5\" SECONDS=\"$7\" exec {} plays_the_compiler --ignored --nocapture\n",
            this.display()
        );
        fs::write(&compiler, script).unwrap();
        fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
        let cache_dir = dir.path().join("aot");
        let options = EngineOptions { cache_dir, instances, compiler, compile };
        let engine = Engine::new(options, still()).unwrap();
        Self { dir, engine }
    }

    /// Prepends these shell commands to the compiler. `$2` is the wasm file.
    pub fn compiler_begins_with(&self, words: &str) {
        let compiler = self.dir.path().join("compiler");
        let script = fs::read_to_string(&compiler).unwrap();
        let begun = script.replacen("#!/bin/sh\n", &format!("#!/bin/sh\n{words}\n"), 1);
        // Renamed into place, because a running file can't be written to.
        let beside = self.dir.path().join("compiler.new");
        fs::write(&beside, begun).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(beside, compiler).unwrap();
    }

    /// Writes a guest to a file.
    pub fn file(&self, wasm: &[u8]) -> PathBuf {
        let path = self.dir.path().join("guest.wasm");
        fs::write(&path, wasm).unwrap();
        path
    }
}

/// Plays the compiler child, if [`Bench`] started this process as one. Each test binary that uses a `Bench` has an
/// ignored test `plays_the_compiler` that calls it.
pub fn play_the_compiler() {
    if let (Some(wasm), Some(out)) = (std::env::var_os("IN"), std::env::var_os("OUT")) {
        let number = |name: &str| std::env::var(name).unwrap().parse().unwrap();
        let given = Given { memory: number("MEMORY"), seconds: number("SECONDS"), attached: true };
        std::process::exit(compile_child(Path::new(&wasm), Path::new(&out), given));
    }
}
