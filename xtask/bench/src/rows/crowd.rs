//! The delay that strangers cause for senders and operators. The strangers open as many connections as there
//! are open files, on both listeners. They hold them by all means, and reconnect when they are cut off.

use std::time::{Duration, Instant};

use posthouse_harness::{Connection, Crowd, Daemon, Event};

use crate::{bench::Bench, table::Row};

/// The usual limit of open files.
const FILES: u32 = 1024;
/// Strangers at each listener: more than it accepts at once.
const PEERS: usize = 1100;

/// The requests, with the time of each answer.
type Times = Vec<(&'static str, Vec<Duration>)>;

pub(crate) fn measure(bench: &mut Bench) {
    let daemon = bench.daemon().open_files(FILES).start();
    let lasting = Duration::from_secs_f64(bench.arguments.seconds * bench.arguments.rounds as f64);
    let quiet = ask(&daemon, lasting);
    let crowds = [Crowd::of_senders(&daemon, PEERS), Crowd::of_operators(&daemon, PEERS)];
    let crowded = ask(&daemon, lasting);
    let came = crowds.iter().map(Crowd::opened).sum::<usize>();
    drop(crowds);
    for ((what, mut crowded), (_, mut quiet)) in crowded.into_iter().zip(quiet) {
        let (with, without) = (percentiles(&mut crowded), percentiles(&mut quiet));
        bench.add(Row {
            name: format!("{what}, among strangers"),
            value: with,
            noop: String::new(),
            note: format!(
                "p99 and the longest of {}; without strangers {without}; {came} connections of strangers, {FILES} \
                 open files, none refused that may ask",
                crowded.len()
            ),
            ..Row::default()
        });
    }
}

/// Sends one request after another for this time.
///
/// # Panics
/// If any request is refused.
fn ask(daemon: &Daemon, lasting: Duration) -> Times {
    let (sender, mut kept) = (daemon.sender(), None);
    let mut times: Times = Vec::new();
    let mut timed = |what: &'static str, asked: &mut dyn FnMut() -> u16| {
        let began = Instant::now();
        let status = asked();
        let took = began.elapsed();
        assert_eq!(status, 200, "{what} is refused");
        match times.iter_mut().find(|(known, _)| *known == what) {
            Some((_, times)) => times.push(took),
            None => times.push((what, vec![took])),
        }
    };
    let began = Instant::now();
    while began.elapsed() < lasting {
        timed("signed request, connecting", &mut || {
            sender.try_post_event(&mut None, &Event::new("user.created")).expect("an answer").status
        });
        timed("signed request, kept connection", &mut || {
            sender.try_post_event(&mut kept, &Event::new("user.created")).expect("an answer").status
        });
        timed("`/readyz`", &mut || probe(daemon));
        timed("`/metrics` with the token", &mut || daemon.admin("GET", "/metrics", None).status);
        timed("`/v1/stats` with the token", &mut || daemon.admin("GET", "/v1/stats", None).status);
    }
    times
}

fn probe(daemon: &Daemon) -> u16 {
    let mut connection = Connection::open(daemon.admin_address()).expect("a connection");
    let request = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    connection.send(request).expect("a request");
    connection.answer().expect("an answer").status
}

/// p99 and the maximum.
fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    format!("{:.1} ms ({:.1})", at(0.99).as_secs_f64() * 1000.0, at(1.0).as_secs_f64() * 1000.0)
}
