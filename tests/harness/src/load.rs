//! A steady stream of events, each posted until it is acknowledged, like a good sender.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Event, Sender, timeout};

const CONNECTIONS: usize = 8;

/// Posts events in the background until it is stopped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The results of a [`Load`].
#[derive(Debug, Default, Clone)]
pub struct LoadReport {
    /// The ids that were acknowledged with 200, as accepted or as a duplicate.
    pub acknowledged: Vec<String>,
    /// Each try with another answer, or none.
    pub failures: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    per_second: u32,
    tickets: AtomicU64,
    stopping: AtomicBool,
    report: Mutex<LoadReport>,
}

impl Load {
    /// Starts to post `per_second` events a second; the n-th is `event(n)`. A slow daemon slows it down: at
    /// most 8 requests are active.
    pub fn start(
        sender: &Sender,
        per_second: u32,
        event: impl Fn(u64) -> Event + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            per_second,
            tickets: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            report: Mutex::default(),
        });
        let event = Arc::new(event);
        let threads = (0..CONNECTIONS)
            .map(|_| {
                let (shared, sender, event) = (Arc::clone(&shared), sender.clone(), Arc::clone(&event));
                thread::spawn(move || shared.post_on_one_connection(&sender, &*event))
            })
            .collect();
        Self { shared, threads }
    }

    /// The number of acknowledged events so far.
    pub fn acknowledged(&self) -> usize {
        self.shared.report.lock().unwrap().acknowledged.len()
    }

    /// The ids of the acknowledged events so far.
    pub fn acknowledged_ids(&self) -> Vec<String> {
        self.shared.report.lock().unwrap().acknowledged.clone()
    }

    /// Posts no further event, posts active ones until they are acknowledged, and reports.
    ///
    /// # Panics
    /// If one is not acknowledged within [`timeout`].
    pub fn stop(mut self) -> LoadReport {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread that posts");
        }
        self.shared.report.lock().unwrap().clone()
    }
}

/// A test that fails needs no further events.
impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn post_on_one_connection(&self, sender: &Sender, event: &dyn Fn(u64) -> Event) {
        let mut connection = None;
        while !self.stopping.load(Ordering::Relaxed) {
            let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs(1).mul_f64(ticket as f64 / f64::from(self.per_second));
            thread::sleep(due.saturating_sub(self.began.elapsed()));
            self.post_until_acknowledged(sender, &mut connection, &event(ticket));
        }
    }

    fn post_until_acknowledged(
        &self,
        sender: &Sender,
        connection: &mut Option<crate::Connection>,
        event: &Event,
    ) {
        let began = Instant::now();
        loop {
            let failure = match sender.try_post_event(connection, event) {
                Ok(answer) if answer.status == 200 => break,
                Ok(answer) => answer.to_string(),
                Err(error) => error.to_string(),
            };
            self.report.lock().unwrap().failures.push(format!("{}: {failure}", event.id));
            assert!(began.elapsed() < timeout(), "{} was never acknowledged: {failure}", event.id);
            thread::sleep(Duration::from_millis(10));
        }
        self.report.lock().unwrap().acknowledged.push(event.id.clone());
    }
}
