//! `cargo xtask demo [--once]`: builds everything, starts the daemon as shipped, and shows what it does.
//!
//! Everything happens in `data/demo`, which is created again each time: a copy of config.toml and of the
//! built plugins, the store, the plugins' database and the mail. The plugins' requests go to a listener of
//! the demo. Each scene checks its result; a scene that fails ends the demo with an error. `--once` stops the
//! daemon afterwards and exits with 0 only if every scene succeeded. Without it, the daemon keeps running to
//! be played with, until Ctrl-C.

mod daemon;
mod folder;
mod listener;
mod scenes;
mod sender;

use std::{
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::consts::{SIGINT, SIGTERM};

use self::daemon::Demo;
use crate::{
    guests,
    shell::{Doing as _, Error, Result, root, run, say},
};

/// `cargo xtask demo [--once]`
pub fn run_command(arguments: &[String]) -> Result {
    let once = match arguments {
        [] => false,
        [flag] if flag == "--once" => true,
        _ => return Err(Error::new("usage: cargo xtask demo [--once]")),
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).doing("handle Ctrl-C")?;
    }

    say("building the plugins for WebAssembly (the first time this takes a minute or two)");
    guests::build(&[])?;
    say("building posthouse (the first time this takes some minutes: wasmtime is large)");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    run(cargo.current_dir(root()).args([
        "build",
        "--quiet",
        "--package",
        "posthouse",
        "--package",
        "posthouse-rows",
        "--bins",
    ]))?;

    let mut demo = Demo::start(stop)?;
    demo.play()?;
    if once {
        demo.stop()?;
        say("every scene succeeded");
        return Ok(());
    }
    demo.tell_what_to_try();
    demo.stay()
}
