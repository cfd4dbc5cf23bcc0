//! The resident memory, idle and at its peak under load.

use super::rate::{pid, round_to_last_commit, with_plugins};
use crate::{
    bench::Bench,
    process::{most_resident, resident},
    table::{Row, mebibytes},
};

pub(crate) fn measure(bench: &mut Bench) {
    let daemon = with_plugins(bench.daemon(), 1).start();
    let fresh_noop = crate::noop::Noop::start();
    let idle = (resident(pid(&daemon)), resident(fresh_noop.pid()));
    round_to_last_commit(bench, &daemon, 1);
    bench.noop_round();
    let loaded = (most_resident(pid(&daemon)), most_resident(bench.noop.pid()));
    for (name, (subject, noop)) in [("memory, idle", idle), ("memory, most under load", loaded)] {
        bench.add(Row {
            name: name.into(),
            value: mebibytes(subject),
            noop: mebibytes(noop),
            ratio: Some(subject as f64 / noop as f64),
            note: "resident, with one plugin loaded".into(),
            ..Row::default()
        });
    }
}
