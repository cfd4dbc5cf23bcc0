//! The rate of `forward`: from the sender's first request to the last commit, with each event posted to an application
//! and signed. The no-op is the application.

use super::rate::round_to_last_commit;
use crate::{
    bench::{Bench, PATH},
    table::per_second,
};

/// Events a second that one plugin should reach.
const GOAL: f64 = 2_000.0;

pub(crate) fn measure(bench: &mut Bench) {
    let origin = format!("http://{}", bench.noop.address);
    let tables = format!(
        "[plugin.app]\ncomponent = \"forward\"\nevents = [\"*\"]\n[plugin.app.grants]\n\
         http = [{{ url = {origin:?}, sign = \"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\" }}]\n\
         [plugin.app.config]\nurl = \"{origin}{PATH}\""
    );
    let daemon = bench.daemon().guest("forward").toml(&tables).start();
    let both = bench.in_turns(|| round_to_last_commit(bench, &daemon, 1));
    let note = format!(
        "events to the last commit, each posted to the no-op and signed; the goal is {}, the no-op serves both",
        per_second(GOAL)
    );
    bench.add(Bench::rate_row("forward", both, &note));
}
