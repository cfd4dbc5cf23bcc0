//! The rows of the table, one file for each kind of measurement.

mod attempt;
mod crowd;
mod decide;
mod fetch;
mod forward;
mod held;
mod latency;
mod memory;
mod order;
mod pages;
mod rate;
mod refused;
mod reload;
mod size;
mod sql;

use crate::bench::Bench;

/// The measurements, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    Verify,
    Refused,
    Accept,
    Plugin,
    Plugins,
    Sql,
    Held,
    Fetch,
    Forward,
    Attempt,
    Decide,
    Order,
    Reload,
    Size,
    Pages,
    Latency,
    Crowd,
    Memory,
}

impl Name {
    pub(crate) const ALL: [Self; 18] = [
        Self::Verify,
        Self::Refused,
        Self::Accept,
        Self::Plugin,
        Self::Plugins,
        Self::Sql,
        Self::Held,
        Self::Fetch,
        Self::Forward,
        Self::Attempt,
        Self::Decide,
        Self::Order,
        Self::Reload,
        Self::Size,
        Self::Pages,
        Self::Latency,
        Self::Crowd,
        Self::Memory,
    ];
}

/// Measures one row and adds it to the table.
pub(crate) fn measure(name: Name, bench: &mut Bench) {
    match name {
        Name::Verify => rate::verify(bench),
        Name::Refused => refused::measure(bench),
        Name::Accept => rate::accept(bench),
        Name::Plugin => rate::plugins(bench, 1),
        Name::Plugins => rate::plugins(bench, 10),
        Name::Sql => sql::measure(bench),
        Name::Held => held::measure(bench),
        Name::Fetch => fetch::measure(bench),
        Name::Forward => forward::measure(bench),
        Name::Attempt => attempt::measure(bench),
        Name::Decide => decide::measure(bench),
        Name::Order => order::measure(bench),
        Name::Reload => reload::measure(bench),
        Name::Size => size::measure(bench),
        Name::Pages => pages::measure(bench),
        Name::Latency => latency::measure(bench),
        Name::Crowd => crowd::measure(bench),
        Name::Memory => memory::measure(bench),
    }
}
