//! The parts that all rows share: the no-op beside them, daemons in their own folders, rounds that alternate.

use std::{
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use posthouse_harness::{Builder, Daemon, Source};

use crate::{
    Arguments,
    load::{self, Seen},
    noop::{self, Noop},
    process::Cpu,
    requests::Batch,
    rows,
    table::{Row, Table, median, per_second},
};

/// The path of webhooks, the same for the no-op and the daemon.
pub(crate) const PATH: &str = "/webhooks/scalekit";
/// More requests a second than any server here answers. This many are signed for each second of a round.
const MOST_A_SECOND: f64 = 250_000.0;

pub(crate) struct Bench {
    pub(crate) arguments: Arguments,
    pub(crate) noop: Noop,
    table: Table,
    folder: PathBuf,
}

/// One round of one side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) rate: f64,
    /// CPU time per request, in µs.
    pub(crate) subject_cpu: f64,
    /// CPU time per request, in µs.
    pub(crate) generator_cpu: f64,
    /// How many of its two threads' cores the generator used, 0 to 2.
    pub(crate) generator_cores: f64,
}

impl Bench {
    pub(crate) fn new(arguments: Arguments) -> Self {
        let beside = std::env::current_exe().expect("this binary").with_file_name("bench-data");
        let folder = arguments.folder.clone().unwrap_or(beside);
        fs::create_dir_all(&folder).expect("a folder for the daemons' data");
        Self { noop: Noop::start(), table: Table::default(), folder, arguments }
    }

    /// The rows to measure, in the order of the table.
    pub(crate) fn rows(&self) -> Vec<rows::Name> {
        let asked = &self.arguments.rows;
        rows::Name::ALL.into_iter().filter(|name| asked.is_empty() || asked.contains(name)).collect()
    }

    pub(crate) fn add(&mut self, row: Row) {
        eprintln!("   {}: {} {}", row.name, row.value, row.note);
        self.table.0.push(row);
    }

    /// The table, with the facts about the machine that are needed to read it.
    pub(crate) fn report(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let Arguments { seconds, rounds, .. } = &self.arguments;
        format!(
            "{}\n{cores} cores ({}), shared by posthouse, the no-op and the generator; one fsync takes {} µs; \
             medians of {rounds} rounds of {seconds} s, 64 connections; CPU is a request's, and more than \
             one core of the generator would show in its note.",
            self.table,
            model.trim_start_matches([' ', '\t', ':']),
            self.fsync_micros(),
        )
    }

    /// The path of the real binary.
    pub(crate) fn binary(&self) -> PathBuf {
        let beside = || std::env::current_exe().expect("this binary").with_file_name("posthouse");
        self.arguments.binary.clone().unwrap_or_else(beside)
    }

    /// A daemon on the measured disk, with the source that all requests are signed for.
    pub(crate) fn daemon(&self) -> Builder {
        self.daemon_with(Source::new("scalekit"))
    }

    /// Like [`Self::daemon`], with another source at the same path.
    pub(crate) fn daemon_with(&self, source: Source) -> Builder {
        Daemon::builder(self.binary())
            .below(&self.folder)
            .source(source)
            .set("log", r#"level = "warn""#)
            .set("store", "max_backlog = 100000000")
    }

    /// A daemon on the measured disk, with these tables in its config.toml.
    pub(crate) fn daemon_of(&self, tables: &str) -> Builder {
        Daemon::builder(self.binary())
            .below(&self.folder)
            .set("log", r#"level = "warn""#)
            .set("store", "max_backlog = 100000000")
            .toml(tables)
    }

    /// A round in a closed loop.
    pub(crate) fn round(&self, address: SocketAddr, pid: u32, expected: &'static str) -> Round {
        self.round_until(address, pid, expected, |_| {})
    }

    /// A round in a closed loop that ends when `ended` returns. `ended` gets the number of answers.
    pub(crate) fn round_until(
        &self,
        address: SocketAddr,
        pid: u32,
        expected: &'static str,
        ended: impl FnOnce(u64),
    ) -> Round {
        self.round_with(|count| Batch::sign(PATH, count), address, pid, expected, ended)
    }

    /// A round in a closed loop with the requests of `batch`, which gets their number.
    pub(crate) fn round_of(
        &self,
        batch: impl FnOnce(usize) -> Batch,
        address: SocketAddr,
        pid: u32,
        expected: &'static str,
    ) -> Round {
        self.round_with(batch, address, pid, expected, |_| {})
    }

    fn round_with(
        &self,
        batch: impl FnOnce(usize) -> Batch,
        address: SocketAddr,
        pid: u32,
        expected: &'static str,
        ended: impl FnOnce(u64),
    ) -> Round {
        let lasting = Duration::from_secs_f64(self.arguments.seconds);
        let batch = Arc::new(batch((MOST_A_SECOND * lasting.as_secs_f64()) as usize));
        let own = std::process::id();
        let (subject, generator, began) = (Cpu::of(pid), Cpu::of(own), Instant::now());
        let seen = all_good(load::closed(address, &batch, lasting, expected));
        let generator = Cpu::of(own) - generator;
        ended(seen.good);
        let took = began.elapsed();
        Round {
            rate: seen.good as f64 / took.as_secs_f64(),
            subject_cpu: (Cpu::of(pid) - subject).micros_each(seen.good),
            generator_cpu: generator.micros_each(seen.good),
            generator_cores: generator.of_one_core(seen.took),
        }
    }

    /// A round of the no-op.
    pub(crate) fn noop_round(&self) -> Round {
        self.round(self.noop.address, self.noop.pid(), noop::ANSWER)
    }

    /// Alternating rounds of the no-op and of another subject, after one of each that does not count.
    pub(crate) fn in_turns(&self, mut subject: impl FnMut() -> Round) -> (Round, Round) {
        let (mut noops, mut subjects) = (Vec::new(), Vec::new());
        for round in 0..=self.arguments.rounds {
            let (noop, other) = (self.noop_round(), subject());
            eprintln!(
                "   round {round}: no-op {}, posthouse {}",
                per_second(noop.rate),
                per_second(other.rate)
            );
            if round > 0 {
                noops.push(noop);
                subjects.push(other);
            }
        }
        (median(&noops, |round| round.rate), median(&subjects, |round| round.rate))
    }

    /// The row of a rate.
    pub(crate) fn rate_row(name: &str, (noop, subject): (Round, Round), note: &str) -> Row {
        Row {
            name: name.into(),
            value: per_second(subject.rate),
            noop: per_second(noop.rate),
            ratio: Some(subject.rate / noop.rate),
            subject_cpu: Some(subject.subject_cpu),
            generator_cpu: Some(subject.generator_cpu),
            note: format!(
                "{note}; no-op's own CPU {:.1} µs; generator at {:.2} cores, {:.2} with the no-op",
                noop.subject_cpu, subject.generator_cores, noop.generator_cores
            ),
        }
    }

    fn fsync_micros(&self) -> u128 {
        let path = self.folder.join("fsync");
        let mut file = File::create(&path).expect("a file on the measured disk");
        let mut times: Vec<_> = (0..100)
            .map(|_| {
                file.write_all(&[0; 4096]).expect("a write");
                let began = Instant::now();
                file.sync_data().expect("an fsync");
                began.elapsed().as_micros()
            })
            .collect();
        drop(fs::remove_file(path));
        times.sort_unstable();
        times[times.len() / 2]
    }
}

/// Fails if any answer of the run was wrong: then its rate means nothing.
pub(crate) fn all_good(seen: Seen) -> Seen {
    assert_eq!(seen.odd, 0, "an answer was not as expected: {:?}", seen.example);
    assert!(seen.good > 0, "no answer at all");
    seen
}
