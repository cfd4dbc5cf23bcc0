//! The benches: one table, with each row beside an axum no-op of the same run.
//!
//! `cargo xtask bench` builds this and the daemon for release and runs it. Each measured server is a separate
//! process on the same machine, and the same load generator posts to it. Rounds of the no-op and of posthouse
//! alternate, and the table has the medians. Numbers of two machines, or of two runs, can't be compared;
//! ratios can.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that fails stops")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to people")]

mod bench;
mod load;
mod noop;
mod process;
mod requests;
mod rows;
mod table;

use std::path::PathBuf;

use clap::Parser;

/// The daemon's allocator, so that both sides allocate in the same way.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures posthouse and prints a table in markdown.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Rows to measure, of: verify, refused, accept, plugin, plugins, sql, fetch, attempt, decide, order, reload, size, pages,
    /// latency, crowd, memory
    #[arg(value_name = "ROW")]
    rows: Vec<rows::Name>,
    /// Seconds of a round
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Rounds of each, taking turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Finished deliveries in the stores of the rows `size` and `pages`
    #[arg(long, default_value_t = 1_000_000)]
    finished: u64,
    /// Dead letters in the store of the row `pages`, which has the finished ones too
    #[arg(long, default_value_t = 20_000)]
    dead: u64,
    /// Waiting deliveries in the store of the row `size`
    #[arg(long, default_value_t = 100_000)]
    waiting: u64,
    /// The daemon [default: `posthouse` beside this program]
    #[arg(long)]
    binary: Option<PathBuf>,
    /// A folder on the disk that is to be measured [default: beside the builds]
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(noop::SUBCOMMAND) {
        return noop::serve(|address| println!("{address}"));
    }
    let mut bench = bench::Bench::new(Arguments::parse());
    for name in bench.rows() {
        eprintln!("-- {name:?}");
        rows::measure(name, &mut bench);
    }
    println!("{}", bench.report());
}
