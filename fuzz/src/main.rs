//! The libFuzzer program. `POSTHOUSE_FUZZ_TARGET` names a target of `host/daemon/src/fuzz.rs`. The arguments are
//! libFuzzer's own: folders of inputs, `-max_total_time=600`, or a file to run once.
//!
//! `cargo xtask soak` builds and runs it. The target `guard` needs PostgreSQL installed and starts its own
//! server.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use posthouse::fuzz::{SERVER, TARGETS};
use posthouse_harness::Postgres;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("POSTHOUSE_FUZZ_TARGET").unwrap_or_default();
    let names = TARGETS.map(|target| target.name).join(", ");
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("POSTHOUSE_FUZZ_TARGET is `{name}`; it may be {names}"));
    if name == "guard" {
        start_server();
    }
    target.run
});

fuzz_target!(|input: &[u8]| RUN(input));

/// Starts the server of the target `guard`, with the tables that its statements name.
fn start_server() {
    let postgres = Postgres::start();
    postgres.execute(posthouse::fuzz::TABLES);
    SERVER.get_or_init(|| postgres.for_this_process().url());
}
