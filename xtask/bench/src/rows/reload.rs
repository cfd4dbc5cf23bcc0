//! The time from a plugin's new file to the first delivery that the new revision has done.

use std::{
    thread,
    time::{Duration, Instant},
};

use posthouse_harness::{Daemon, Event, guest, new_revision};

use super::rate::{KV_GUEST, with_plugins};
use crate::{
    bench::Bench,
    table::{Row, median},
};

const RELOADS: u32 = 10;

pub(crate) fn measure(bench: &mut Bench) {
    let daemon = with_plugins(bench.daemon(), 1).start();
    let original = guest(KV_GUEST);
    let times: Vec<f64> = (1..=RELOADS)
        .map(|number| {
            let before = daemon.plugin(KV_GUEST)["revision"].clone();
            let done = daemon.deliveries_in("done");
            let bytes = new_revision(&original, number);
            let began = Instant::now();
            daemon.put_plugin(KV_GUEST, &bytes);
            poll(|| daemon.plugin(KV_GUEST)["revision"] != before);
            deliver_one(&daemon, done);
            began.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    let longest = times.iter().copied().fold(0.0, f64::max);
    bench.add(Row {
        name: "reload".into(),
        value: format!("{:.0} ms", median(&times, |time| *time)),
        note: format!("file in place to first delivery done on it, compiled again; the longest of {RELOADS}: {longest:.0} ms"),
        ..Row::default()
    });
}

fn deliver_one(daemon: &Daemon, done: u64) {
    assert!(daemon.post_event(&Event::new("user.created")).accepted());
    poll(|| daemon.deliveries_in("done") > done);
}

fn poll(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "the new revision never served");
        thread::sleep(Duration::from_millis(1));
    }
}
