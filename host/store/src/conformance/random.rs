//! Random operations against a reference model. The model says what the store may hand out and what it must
//! contain; the store decides the rest. `POSTHOUSE_SEED` repeats a run.

use std::{collections::BTreeMap, time::Duration};

use posthouse_model::{
    DeliveryState, Effects, Job, KvRead, KvVersion, KvWrite, LeaseToken, OrderKey, OutboxState, PluginId,
    Subscriber,
};

use super::{InjectedFailure, support::*};

use crate::{Accepted, Completed, DeliveryFilter, Lane, StoreError, Verdict};

/// Plugins of a run.
const PLUGINS: usize = 2;
/// Operations of a run.
const STEPS: usize = 1_200;

/// A delivery as it must be.
#[derive(Debug)]
struct Row {
    /// The order in which it was made.
    made: usize,
    attempts: u32,
    key: Option<u64>,
    due: jiff::Timestamp,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Leased(LeaseToken),
    Done,
    Dead,
}

/// The rows that the store must contain.
#[derive(Debug, Default)]
struct Model {
    /// By event and plugin.
    rows: BTreeMap<(String, usize), Row>,
    /// By plugin and key.
    kv: BTreeMap<(usize, String), i64>,
    mails: u64,
    conflicts: u64,
    lost: u64,
}

impl Model {
    fn accept(&mut self, id: &str, to: &[(usize, Option<u64>)], due: jiff::Timestamp) {
        for (plugin, key) in to {
            let row = Row { made: self.rows.len(), attempts: 0, key: *key, due, state: State::Open };
            self.rows.insert((id.to_owned(), *plugin), row);
        }
    }

    /// Checks that a job may be handed out, and notes its lease.
    fn lease(&mut self, job: &Job, plugin: usize, now: jiff::Timestamp) {
        let at = (job.event.content.id.as_str().to_owned(), plugin);
        let row = &self.rows[&at];
        assert_eq!(row.state, State::Open, "{at:?} was handed out");
        assert_eq!(job.attempt, row.attempts + 1, "{at:?}");
        assert!(row.due <= now, "{at:?} is due at {} and came at {now}", row.due);
        if row.key.is_some() {
            let older = |other: &&Row| {
                other.key == row.key
                    && other.made < row.made
                    && !matches!(other.state, State::Done | State::Dead)
            };
            let own = self.rows.iter().filter(|((_, of), _)| *of == plugin).map(|(_, other)| other);
            let mut older = own.filter(older);
            assert!(older.next().is_none(), "{at:?} came before an older one of its key");
        }
        self.set(job, plugin, State::Leased(job.token));
    }

    fn set(&mut self, job: &Job, plugin: usize, state: State) {
        let at = (job.event.content.id.as_str().to_owned(), plugin);
        self.rows.get_mut(&at).unwrap().state = state;
    }

    fn row(&mut self, job: &Job, plugin: usize) -> &mut Row {
        self.rows.get_mut(&(job.event.content.id.as_str().to_owned(), plugin)).unwrap()
    }

    fn crash(&mut self) {
        for row in self.rows.values_mut().filter(|row| matches!(row.state, State::Leased(_))) {
            row.state = State::Open;
        }
    }
}

/// A run: the store, the model, and the jobs in hand.
struct Run {
    fixture: Fixture,
    random: Seeded,
    model: Model,
    plugins: [PluginId; PLUGINS],
    lanes: Vec<Lane>,
    held: Vec<(usize, Job)>,
    /// Jobs whose leases have ended.
    spent: Vec<Job>,
    events: u64,
    /// Whether a failure was injected since everything was last durable.
    failing: bool,
}

pub(super) async fn any_run_agrees_with_the_model(on: On) {
    let random = Seeded::new(seed());
    let fixture = Fixture::new(on);
    let plugins = [fixture.plugin("a").await, fixture.plugin("b").await];
    let mut run = Run {
        fixture,
        random,
        model: Model::default(),
        plugins,
        lanes: Vec::new(),
        held: Vec::new(),
        spent: Vec::new(),
        events: 0,
        failing: false,
    };
    run.open_lanes().await;
    for step in 0..STEPS {
        match run.random.below(40) {
            0..12 => run.accept().await,
            12..24 => run.take().await,
            24..34 => run.complete().await,
            34..36 => {
                let by = run.random.below(20);
                run.fixture.clock.advance(Duration::from_secs(by));
            }
            36 => run.complete_late().await,
            37 => run.stop_in_doubt().await,
            38 => run.crash().await,
            _ => run.reopen_lanes().await,
        }
        if step % 50 == 0 {
            run.compare().await;
        }
    }
    run.compare().await;
}

impl Run {
    async fn open_lanes(&mut self) {
        self.lanes.clear();
        for plugin in self.plugins {
            let capacity = 1 + self.random.below(6) as usize;
            self.lanes.push(self.fixture.store.open_lane(plugin, capacity).await.unwrap());
        }
    }

    async fn accept(&mut self) {
        let again = self.events > 0 && self.random.below(8) == 0;
        let n = if again { self.random.below(self.events) } else { self.events };
        let id = format!("e{n}");
        let mut to = Vec::new();
        for plugin in 0..PLUGINS {
            if self.random.below(4) > 0 {
                to.push((plugin, (self.random.below(2) == 0).then(|| self.random.below(3))));
            }
        }
        let fails = self.random.below(10) == 0;
        if fails {
            self.inject();
        }
        let subscribers = to.iter().map(|(plugin, key)| Subscriber {
            order_key: key.and_then(|key| OrderKey::new(&key.to_string())),
            ..self.plugins[*plugin].into()
        });
        let accepted =
            self.fixture.store.accept(self.fixture.event(&id), subscribers.collect::<Vec<_>>()).await;
        match accepted {
            Ok(Accepted::Stored(_)) => {
                assert!(!again, "{id} was stored twice");
                self.events += 1;
                self.model.accept(&id, &to, self.fixture.now());
            }
            Ok(Accepted::Duplicate) => assert!(again, "{id} is new"),
            // Another batch may have met the failure.
            Err(StoreError::Io(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn take(&mut self) {
        let at = self.random.below(PLUGINS as u64) as usize;
        if let Ok(job) = tokio::time::timeout(Duration::from_millis(3), self.lanes[at].next()).await {
            let job = job.expect("the lane is open");
            self.model.lease(&job, at, self.fixture.now());
            self.held.push((at, job));
        }
    }

    async fn complete(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (plugin, job) = self.held.swap_remove(self.random.below(self.held.len() as u64) as usize);
        if self.random.below(10) == 0 {
            // Carried over to a later batch.
            self.inject();
        }
        match self.random.below(10) {
            0 => {
                self.fixture.store.release(job.clone()).await.unwrap();
                self.settled().await;
                self.model.set(&job, plugin, State::Open);
            }
            1 => self.end(plugin, &job, Verdict::Dead, Completed::Written, State::Dead).await,
            2 | 3 => {
                let due = self.fixture.now() + Duration::from_secs(self.random.below(30));
                self.end(plugin, &job, Verdict::Retry(due), Completed::Written, State::Open).await;
                self.model.row(&job, plugin).due = due;
            }
            4 => {
                let stale = saw(effects(&[("sum", KvWrite::Add(1_000_000))]), "sum", Some(KvVersion(-1)));
                let verdict = Verdict::Done(Effects { outbox: vec![mail("never")], ..stale });
                let attempt = self.fixture.attempt(&job, &verdict);
                let became = self.fixture.store.complete_durably(job.clone(), attempt, verdict).await;
                assert_eq!(became, Ok(Completed::Conflict));
                self.model.conflicts += 1;
                self.model.set(&job, plugin, State::Open);
                // Its lease holds; a forged one does not.
                return self.spent.push(Job { token: LeaseToken(-1), ..job });
            }
            _ => self.commit(plugin, &job).await,
        }
        self.spent.push(job);
    }

    /// Ends an attempt with effects.
    async fn commit(&mut self, plugin: usize, job: &Job) {
        let name = format!("k{}", self.random.below(4));
        let (by, value) = (self.random.below(100) as i64, self.random.below(1_000) as i64);
        let found = self.fixture.store.kv_get(self.plugins[plugin], &name).await.unwrap();
        let text = value.to_string();
        let mut all = effects(&[("sum", KvWrite::Add(by)), (&name, set(&text))]);
        all.reads.push(KvRead::Key { key: name.clone(), version: found.map(|(_, version)| version) });
        let mails = self.random.below(3);
        all.outbox.extend((0..mails).map(|n| mail(&n.to_string())));
        self.end(plugin, job, Verdict::Done(all), Completed::Written, State::Done).await;
        *self.model.kv.entry((plugin, "sum".to_owned())).or_default() += by;
        self.model.kv.insert((plugin, name), value);
        self.model.mails += mails;
    }

    async fn end(&mut self, plugin: usize, job: &Job, verdict: Verdict, expected: Completed, state: State) {
        let attempt = self.fixture.attempt(job, &verdict);
        let became = self.fixture.store.complete_durably(job.clone(), attempt, verdict).await;
        assert_eq!(became, Ok(expected), "{job:?}");
        self.model.row(job, plugin).attempts += 1;
        self.model.set(job, plugin, state);
    }

    /// A job whose lease has ended changes nothing any more.
    async fn complete_late(&mut self) {
        let Some(job) = self.spent.pop() else { return };
        let verdict = Verdict::Done(effects(&[("sum", KvWrite::Add(1_000_000))]));
        let attempt = self.fixture.attempt(&job, &verdict);
        let became = self.fixture.store.complete_durably(job, attempt, verdict).await;
        assert_eq!(became, Ok(Completed::LostLease));
        self.model.lost += 1;
    }

    fn inject(&mut self) {
        self.fixture.store.inject(InjectedFailure::DiskFull);
        self.failing = true;
    }

    /// Returns once everything submitted is durable.
    async fn settled(&mut self) {
        while self.fixture.store.flush().await.is_err() {}
        if std::mem::take(&mut self.failing) {
            // The committer retries the completions of a failed batch after a moment.
            tokio::time::sleep(MOMENT * 3).await;
            self.fixture.store.flush().await.unwrap();
        }
    }

    async fn stop_in_doubt(&mut self) {
        if self.random.below(3) > 0 {
            return;
        }
        self.settled().await;
        self.fixture.store.inject(InjectedFailure::InDoubt);
        let failed = self.fixture.store.accept(self.fixture.event("doubtful"), Vec::<PluginId>::new()).await;
        if failed.is_err() {
            assert!(matches!(failed, Err(StoreError::Poisoned(_))), "{failed:?}");
            assert!(self.fixture.store.flush().await.is_err(), "a store in doubt takes nothing");
        }
        self.begin_again().await;
    }

    async fn crash(&mut self) {
        if self.random.below(3) == 0 {
            self.settled().await;
            self.begin_again().await;
        }
    }

    async fn begin_again(&mut self) {
        self.fixture = self.fixture.crashed();
        self.model.crash();
        self.spent.extend(self.held.drain(..).map(|(_, job)| job));
        self.open_lanes().await;
    }

    async fn reopen_lanes(&mut self) {
        for lane in self.lanes.drain(..) {
            lane.close().await;
        }
        self.settled().await;
        self.open_lanes().await;
    }

    async fn compare(&mut self) {
        self.settled().await;
        self.fixture.assert_balanced().await;
        let filter = DeliveryFilter { limit: 1000, ..DeliveryFilter::default() };
        let listed = self.fixture.store.deliveries(filter).await.unwrap();
        let finished = |state: DeliveryState| match state {
            DeliveryState::Done => Some(true),
            DeliveryState::Dead => Some(false),
            _ => None,
        };
        let mut rows: Vec<_> = listed
            .iter()
            .map(|one| (one.event.clone(), one.plugin.clone(), finished(one.state), one.attempts))
            .collect();
        rows.sort();
        let mut expected: Vec<_> = self
            .model
            .rows
            .iter()
            .map(|((event, plugin), row)| {
                let finished = match row.state {
                    State::Done => Some(true),
                    State::Dead => Some(false),
                    _ => None,
                };
                (event.clone(), ["a", "b"][*plugin].to_owned(), finished, row.attempts)
            })
            .collect();
        expected.sort();
        assert_eq!(rows, expected);
        for ((plugin, key), value) in &self.model.kv {
            let found = self.fixture.store.kv_get(self.plugins[*plugin], key).await.unwrap();
            assert_eq!(found.map(|(found, _)| found), Some(value.to_string().into_bytes()), "{plugin} {key}");
        }
        let stats = self.fixture.store.stats().await.unwrap();
        assert_eq!(stats.outbox[&OutboxState::Ready], self.model.mails);
        assert_eq!((stats.conflicts, stats.lost_leases), (self.model.conflicts, self.model.lost));
    }
}
