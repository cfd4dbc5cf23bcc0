//! One comparison of a sender's list with the store.
//!
//! It begins where the last one ended, less an overlap, and ends a little before now, so that webhooks under way are
//! not called missing. It never looks at a time whose events may have been removed from the store: there, an event
//! that is not in the store may have been handled long ago.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use posthouse_model::{
    CatchUpReason, CatchUpReport, Env, EventId, EventOrigin, ListedEvent, SecondKey,
    config::{CatchUp, CatchUpMode, Source},
};
use posthouse_store::{Accepted, CatchUpState, CatchUpStep, MissingEvent, Offer, Store, StoreError};
use tokio::time::Instant;

use super::{
    List, Window,
    walk::{Limits, Listed, Part, Walk},
};

use crate::ingress::{ListedReader, Subscribers};

/// How long one comparison may take. The next one goes on where it ended.
const LONGEST: Duration = Duration::from_secs(600);

/// Events that are taken in in one transaction.
const CHUNK: usize = 50;

/// The events of one window, and the bytes of their bodies.
const WINDOW: (usize, usize) = (2_000, 32 << 20);

/// The most events of the store that are compared in both directions.
const MOST_HERE: usize = 100_000;

/// The most missing events, and unlisted ones, that a report names.
const FIRST: usize = 100;

/// The pause before the backlog is looked at again.
const PAUSE: Duration = Duration::from_millis(200);

/// What a comparison needs to know of its source.
pub(super) struct Subject {
    pub(super) source: Source,
    pub(super) settings: CatchUp,
    pub(super) reader: ListedReader,
    pub(super) store: Store,
    pub(super) subscribers: Subscribers,
    pub(super) env: Env,
    pub(super) limits: Limits,
}

impl Limits {
    /// The usual limits, with bodies of at most so many bytes.
    pub(super) fn usual(body: usize) -> Self {
        Self { events: WINDOW.0, bytes: WINDOW.1, body }
    }
}

/// What an operator, or the clock, wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) reason: CatchUpReason,
    /// Where to begin. None: where the last comparison ended.
    pub(super) since: Option<Timestamp>,
    /// Take nothing in, and remember nothing.
    pub(super) dry_run: bool,
}

/// Why a comparison ended early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// It came further, and took too long.
    OutOfTime,
    /// The reason in words.
    Failed(String),
}

impl From<String> for Stopped {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Compares, and takes in what is missing if that is wanted. Returns the report, and whether only time ran out.
pub(super) async fn run(subject: &Subject, list: &mut impl List, order: Order) -> (CatchUpReport, bool) {
    let takes_in = subject.settings.mode == CatchUpMode::Apply && !order.dry_run;
    let now = subject.env.now();
    let to = whole(now.saturating_sub(subject.settings.delay).unwrap_or(now));
    let mut report = CatchUpReport::new(order.reason, takes_in, now, to, to);
    let before = list.requests();
    let mut run = Run {
        subject,
        report: &mut report,
        records: !order.dry_run,
        deadline: Instant::now() + LONGEST,
        here: Here::default(),
        old: HashSet::new(),
        recorded: HashSet::new(),
        previous: HashSet::new(),
    };
    let stopped = run.compare(list, order.since).await.err();
    let out_of_time = stopped == Some(Stopped::OutOfTime);
    report.error = stopped.map(|stopped| match stopped {
        Stopped::OutOfTime => {
            format!("it took longer than {LONGEST:?}; the next comparison goes on from there")
        }
        Stopped::Failed(reason) => reason,
    });
    report.requests = list.requests() - before;
    report.ended_at = subject.env.now();
    (report, out_of_time)
}

/// A comparison under way.
struct Run<'a> {
    subject: &'a Subject,
    report: &'a mut CatchUpReport,
    /// Whether the store remembers the result.
    records: bool,
    deadline: Instant,
    here: Here,
    /// Events of the store that it does not know by their second key.
    old: HashSet<SecondKey>,
    /// Events that an earlier comparison found missing.
    recorded: HashSet<EventId>,
    /// The events of the window before. Windows may overlap by an event.
    previous: HashSet<SecondKey>,
}

/// Events of the store that the list has not named yet.
#[derive(Default)]
struct Here {
    ids: HashMap<SecondKey, String>,
    /// Whether there are more than are compared.
    too_many: bool,
}

impl Run<'_> {
    async fn compare(&mut self, list: &mut impl List, since: Option<Timestamp>) -> Result<(), Stopped> {
        let Subject { source, store, reader, env, limits, .. } = self.subject;
        let state = store.catch_up_state(&source.name).await?;
        let state = self.recheck(state).await?;
        let begin = self.begin(&state, since);
        let floor = self.look_around(begin).await?;
        let (from, to) = (begin.max(floor).min(self.report.to), self.report.to);
        (self.report.from, self.report.compared_to) = (from, from);
        // A comparison that begins later leaves a gap that the next one has to close.
        let extends = state.compared_to.is_none_or(|compared_to| from <= compared_to);
        let read = |body: &bytes::Bytes| reader.read(body, env.now());
        if state.compared_to.is_none() {
            // From now on, nothing is missed.
            self.record(CatchUpStep { compared_to: Some(from), ..CatchUpStep::default() }).await?;
        }
        let (mut at, end) = (from.as_second(), to.as_second());
        let mut length = (end - at).max(1);
        while at < end {
            if Instant::now() >= self.deadline {
                return Err(Stopped::OutOfTime);
            }
            let until = at.saturating_add(length).min(end);
            let window = Window { from: second(at), to: second(until) };
            let mut walk = Walk::new(window, to, *limits, &read, &source.events);
            let mut part = walk.part(list).await?;
            if part.goes_on && until - at > 1 {
                length = shorter(&part, at, until);
                continue;
            }
            let count = part.events.len();
            let mut met = HashSet::new();
            loop {
                let goes_on = part.goes_on;
                self.settle(part, &mut met).await?;
                if !goes_on {
                    break;
                }
                self.report.unordered = true;
                part = walk.part(list).await?;
            }
            self.previous = met;
            self.report.compared_to = window.to;
            if extends {
                let compared_to = state.compared_to.map_or(window.to, |before| before.max(window.to));
                self.record(CatchUpStep { compared_to: Some(compared_to), ..CatchUpStep::default() }).await?;
            }
            at = until;
            if count < limits.events / 4 {
                length = length.saturating_mul(2);
            }
        }
        self.conclude();
        Ok(())
    }

    /// Removes those missing events from the record that have arrived meanwhile.
    async fn recheck(&mut self, mut state: CatchUpState) -> Result<CatchUpState, Stopped> {
        let Subject { source, store, .. } = self.subject;
        let second = |id: &EventId| source.scheme.body_id.then(|| SecondKey::of_id(id.as_str()));
        let names = state.missing.iter().map(|event| (event.id.clone(), second(&event.id))).collect();
        let known = store.knows(&source.name, names).await?;
        let (here, missing): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.missing).into_iter().zip(known).partition(|(_, known)| *known);
        state.missing = missing.into_iter().map(|(event, _)| event).collect();
        let arrived = here.into_iter().map(|(event, _)| event.id).collect();
        self.record(CatchUpStep { arrived, ..CatchUpStep::default() }).await?;
        self.recorded = state.missing.iter().map(|event| event.id.clone()).collect();
        Ok(state)
    }

    /// Where the comparison would begin if the store had all of its events.
    fn begin(&self, state: &CatchUpState, since: Option<Timestamp>) -> Timestamp {
        let settings = &self.subject.settings;
        let begin = since.unwrap_or_else(|| {
            let reached = state.compared_to.or(state.newest).unwrap_or(self.report.to);
            let oldest =
                state.missing.first().filter(|_| self.report.takes_in).map(|event| event.occurred_at);
            let begin = oldest.map_or(reached, |oldest| oldest.min(reached));
            begin.saturating_sub(settings.overlap).unwrap_or(begin)
        });
        let floor = state.removed_to.map(|removed_to| self.beyond(removed_to));
        whole(floor.map_or(begin, |floor| floor.max(begin)))
    }

    /// The time by the sender's clock at which something that was received then has surely happened.
    fn beyond(&self, received_at: Timestamp) -> Timestamp {
        let beyond = received_at.saturating_add(self.subject.source.tolerance).unwrap_or(received_at);
        second(beyond.as_second().saturating_add(1))
    }

    /// Reads which events of the store happened since then. Returns the time from which on each of them can be
    /// recognised.
    async fn look_around(&mut self, begin: Timestamp) -> Result<Timestamp, Stopped> {
        let Subject { source, store, .. } = self.subject;
        let since = begin.saturating_sub(source.tolerance).unwrap_or(begin);
        let mut before = None;
        loop {
            let step = store.stored_heads(&source.name, since, before, source.scheme.body_id).await?;
            for head in step.heads {
                let is_old = source.scheme.body_id && head.second.is_none();
                let key = match (head.second, &head.own_id) {
                    (Some(second), _) if source.scheme.body_id => second,
                    // From before the source had this scheme: the store does not know its other name.
                    (_, Some(own)) if is_old => SecondKey::of_id(own),
                    _ => SecondKey::of_id(&head.id),
                };
                if is_old && self.old.len() >= MOST_HERE {
                    self.here.too_many = true;
                    return Ok(self.beyond(head.received_at));
                } else if is_old {
                    self.old.insert(key);
                }
                let is_within = head.occurred_at.is_some_and(|at| at >= begin && at < self.report.to);
                if is_within && self.here.ids.len() < MOST_HERE {
                    self.here.ids.insert(key, head.id);
                } else if is_within {
                    self.here.too_many = true;
                }
            }
            match step.next {
                Some(next) => before = Some(next),
                None => return Ok(begin),
            }
        }
    }

    /// Compares a part of the list, oldest first. `met` are the events of this window.
    async fn settle(&mut self, part: Part, met: &mut HashSet<SecondKey>) -> Result<(), Stopped> {
        self.report.filtered += part.filtered;
        self.report.unreadable += part.unreadable;
        self.report.outside += part.outside;
        let mut events = part.events;
        // The list has the newest first, also of those that happened at the same time.
        events.reverse();
        events.sort_by_key(|listed| listed.at);
        events.retain(|listed| met.insert(listed.key()) && !self.previous.contains(&listed.key()));
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            self.settle_some(events.by_ref().take(CHUNK).collect()).await?;
        }
        Ok(())
    }

    async fn settle_some(&mut self, events: Vec<Listed>) -> Result<(), Stopped> {
        let Subject { source, store, .. } = self.subject;
        let names = events.iter().map(|listed| (listed.event.id.clone(), listed.second)).collect();
        let known = store.knows(&source.name, names).await?;
        let (mut step, mut lacking) = (CatchUpStep::default(), Vec::new());
        for (listed, known) in events.into_iter().zip(known) {
            self.report.listed += 1;
            self.here.ids.remove(&listed.key());
            let was_recorded = self.recorded.contains(&listed.event.id);
            if known || self.old.contains(&listed.key()) {
                self.report.here += 1;
                step.arrived.extend(was_recorded.then(|| listed.event.id.clone()));
                continue;
            }
            self.report.missing += 1;
            self.report.found += u64::from(!was_recorded);
            let missing = MissingEvent {
                id: listed.event.id.clone(),
                event_type: listed.event.event_type.clone(),
                occurred_at: listed.at,
            };
            if self.report.first_missing.len() < FIRST {
                self.report.first_missing.push(ListedEvent {
                    id: missing.id.as_str().to_owned(),
                    event_type: missing.event_type.as_str().to_owned(),
                    occurred_at: missing.occurred_at,
                });
            }
            if self.report.takes_in {
                step.arrived.extend(was_recorded.then(|| missing.id.clone()));
                lacking.push(listed);
            } else {
                step.missing.push(missing);
            }
        }
        if !lacking.is_empty() {
            self.take_in(lacking).await?;
        }
        self.record(step).await
    }

    /// Stores events in this order, all or none.
    async fn take_in(&mut self, events: Vec<Listed>) -> Result<(), Stopped> {
        let Subject { source, store, subscribers, env, .. } = self.subject;
        self.room().await?;
        let now = env.now();
        let offer = |Listed { mut event, second, .. }: Listed| {
            event.received_at = now;
            let subscribers = subscribers(&event);
            Offer { event, second, subscribers, origin: EventOrigin::CatchUp }
        };
        let offers: Vec<_> = events.into_iter().map(offer).collect();
        let ids: Vec<_> = offers.iter().map(|offer| offer.event.id.clone()).collect();
        let accepted = store.accept_all(offers, None).await?;
        for (id, accepted) in ids.iter().zip(accepted) {
            match accepted {
                Accepted::Stored(_) => self.report.taken_in += 1,
                // Its webhook came in between.
                Accepted::Duplicate => {
                    self.report.missing -= 1;
                    self.report.here += 1;
                }
            }
            tracing::debug!(
                source = %source.name,
                event = %id,
                duplicate = accepted == Accepted::Duplicate,
                "event caught up"
            );
        }
        Ok(())
    }

    /// Waits until half of the backlog is free: webhooks need room too.
    async fn room(&self) -> Result<(), Stopped> {
        loop {
            let backlog = self.subject.store.backlog();
            if backlog.used <= backlog.limit / 2 {
                return Ok(());
            }
            if Instant::now() >= self.deadline {
                let reason = "the backlog is more than half full; see which plugin is behind";
                return Err(Stopped::Failed(reason.to_owned()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reports which events of the store the list does not name, at the end of a complete comparison.
    fn conclude(&mut self) {
        if !self.here.too_many {
            self.report.unlisted = Some(self.here.ids.len() as u64);
            let mut ids: Vec<_> = std::mem::take(&mut self.here.ids).into_values().collect();
            ids.sort_unstable();
            ids.truncate(FIRST);
            self.report.first_unlisted = ids;
        }
    }

    async fn record(&self, step: CatchUpStep) -> Result<(), Stopped> {
        let is_empty = step.compared_to.is_none() && step.missing.is_empty() && step.arrived.is_empty();
        if !self.records || is_empty {
            return Ok(());
        }
        Ok(self.subject.store.catch_up(&self.subject.source.name, step).await?)
    }
}

/// The length of a window in seconds, after one from `at` to `until` held too much: half of the time in which the
/// events of this part happened, and a quarter of the window at most.
fn shorter(part: &Part, at: i64, until: i64) -> i64 {
    let oldest = part.events.iter().map(|listed| listed.at.as_second()).min().unwrap_or(at);
    ((until - oldest) / 2).clamp(1, ((until - at) / 4).max(1))
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

/// The time without its part of a second.
fn whole(time: Timestamp) -> Timestamp {
    second(time.as_second())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use posthouse_model::{
        NewEvent, SourceName,
        config::{CatchUpLogin, Secret},
        testing::{ManualClock, Seeded},
    };
    use posthouse_store::{EventFilter, testing};
    use tempfile::TempDir;
    use url::Url;

    use super::*;

    use crate::{
        catch_up::{NoPage, Page},
        ingress::fixtures,
    };

    /// A sender's list in memory, with pages of two events.
    #[derive(Default)]
    struct Sender {
        /// Seconds and ids, in any order.
        events: Vec<(i64, String)>,
        /// A webhook that arrives while the list is read.
        late: Option<(Store, NewEvent, Option<SecondKey>)>,
        asked: u64,
        fails_after: Option<u64>,
    }

    fn body(second: i64, id: &str) -> String {
        let at = super::second(second);
        format!(r#"{{"id":"{id}","type":"user.created","occurred_at":"{at}","data":{{}}}}"#)
    }

    impl List for Sender {
        async fn page(&mut self, window: Window, cursor: Option<&str>, _: usize) -> Result<Page, NoPage> {
            self.asked += 1;
            if self.fails_after.is_some_and(|most| self.asked > most) {
                return Err(NoPage::Failed("down".to_owned()));
            }
            if let Some((store, event, second)) = self.late.take() {
                let offer = Offer { event, second, subscribers: Vec::new(), origin: EventOrigin::Webhook };
                store.accept_all(vec![offer], None).await.unwrap();
            }
            let mut within: Vec<_> = self
                .events
                .iter()
                .filter(|(at, _)| *at >= window.from.as_second() && *at < window.to.as_second())
                .collect();
            within.sort_by(|a, b| b.cmp(a));
            let skip: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
            let page: Vec<_> =
                within.iter().skip(skip).take(2).map(|(at, id)| Bytes::from(body(*at, id))).collect();
            let next = (skip + page.len() < within.len()).then(|| (skip + page.len()).to_string());
            Ok(Page { events: page, next })
        }

        fn requests(&self) -> u64 {
            self.asked
        }
    }

    /// The time of the tests: long enough after 1970 for everything.
    const NOW: i64 = 1_800_000_000;

    struct Fixture {
        subject: Subject,
        clock: ManualClock,
        _folder: TempDir,
    }

    impl Fixture {
        fn new(mode: CatchUpMode, scheme: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let clock = ManualClock::epoch();
            clock.advance(Duration::from_secs(NOW.unsigned_abs()));
            let env = Env::new(clock.clone(), Seeded::new(1));
            let options = testing::options(&folder.path().join("posthouse.db"));
            let store = Store::open(options, env.clone()).unwrap();
            let source = fixtures::source(scheme);
            let login = CatchUpLogin::Stripe { api_key: Secret::new("sk_test") };
            let settings = CatchUp {
                mode,
                url: Url::parse("https://api.example.com").unwrap(),
                login,
                addresses: Vec::new(),
                every: Duration::from_secs(900),
                overlap: Duration::from_secs(600),
                delay: Duration::from_secs(300),
                rate: 5.0,
            };
            let subject = Subject {
                reader: ListedReader::new(&source).unwrap(),
                source,
                settings,
                store,
                subscribers: Arc::new(|_| Vec::new()),
                env,
                limits: Limits { events: 4, bytes: 1 << 20, body: 1000 },
            };
            Self { subject, clock, _folder: folder }
        }

        fn name(&self) -> SourceName {
            self.subject.source.name.clone()
        }

        /// Stores the webhook of an event of the sender's.
        async fn webhook(&self, second: i64, id: &str) {
            let (event, key) = self.of_webhook(second, id);
            let offer =
                Offer { event, second: Some(key), subscribers: Vec::new(), origin: EventOrigin::Webhook };
            let accepted = self.subject.store.accept_all(vec![offer], None).await.unwrap();
            assert!(matches!(accepted[..], [Accepted::Stored(_)]), "{id}");
        }

        fn of_webhook(&self, second: i64, id: &str) -> (NewEvent, SecondKey) {
            let body = Bytes::from(body(second, id));
            let (mut event, _) = self.subject.reader.read(&body, self.clock_now()).unwrap();
            event.id = EventId::new(&format!("msg_{id}")).unwrap();
            (event, SecondKey::of_id(id))
        }

        fn clock_now(&self) -> Timestamp {
            self.subject.env.now()
        }

        async fn run(&self, list: &mut Sender, since: Option<i64>) -> CatchUpReport {
            self.order(list, since, false).await
        }

        async fn order(&self, list: &mut Sender, since: Option<i64>, dry_run: bool) -> CatchUpReport {
            let order = Order { reason: CatchUpReason::Interval, since: since.map(second), dry_run };
            run(&self.subject, list, order).await.0
        }

        /// The ids in the order in which they were stored, with their origins.
        async fn stored(&self) -> Vec<(String, EventOrigin)> {
            let filter = EventFilter { limit: 1000, ..EventFilter::default() };
            let mut found = self.subject.store.events(filter).await.unwrap();
            found.sort_by_key(|event| event.seq);
            found.into_iter().map(|event| (event.id, event.origin)).collect()
        }

        async fn missing(&self) -> Vec<String> {
            let state = self.subject.store.catch_up_state(&self.name()).await.unwrap();
            state.missing.into_iter().map(|event| event.id.as_str().to_owned()).collect()
        }
    }

    fn list(events: &[(i64, &str)]) -> Sender {
        let events = events.iter().map(|(ago, id)| (NOW - ago, (*id).to_owned())).collect();
        Sender { events, ..Sender::default() }
    }

    fn ids(stored: &[(String, EventOrigin)]) -> Vec<&str> {
        stored.iter().map(|(id, _)| id.as_str()).collect()
    }

    #[tokio::test]
    async fn what_is_missing_is_taken_in_in_the_order_in_which_it_happened() {
        let fixture = Fixture::new(CatchUpMode::Apply, "scalekit");
        // Eleven events, of which four fit into a window; three happened within the same second.
        let mut events: Vec<_> = (0..9).map(|n| (NOW - 880 + n * 30, format!("evt_{n}"))).collect();
        events.push((NOW - 700, "evt_a".to_owned()));
        events.push((NOW - 700, "evt_b".to_owned()));
        let mut list = Sender { events, ..Sender::default() };
        fixture.webhook(NOW - 850, "evt_1").await;
        let report = fixture.run(&mut list, Some(NOW - 900)).await;
        assert_eq!(
            (report.listed, report.here, report.missing, report.taken_in),
            (11, 1, 10, 10),
            "{report:?}"
        );
        assert!(report.is_complete() && !report.unordered, "{report:?}");
        assert_eq!(report.unlisted, Some(0));
        let stored = fixture.stored().await;
        let expected = [
            "msg_evt_1",
            "evt_0",
            "evt_2",
            "evt_3",
            "evt_4",
            "evt_5",
            "evt_6",
            "evt_a",
            "evt_b",
            "evt_7",
            "evt_8",
        ];
        assert_eq!(ids(&stored), expected);
        assert_eq!(stored[0].1, EventOrigin::Webhook);
        assert!(stored[1..].iter().all(|(_, origin)| *origin == EventOrigin::CatchUp));

        // Once more: everything is here.
        let report = fixture.run(&mut list, Some(NOW - 900)).await;
        assert_eq!((report.listed, report.here, report.missing), (11, 11, 0), "{report:?}");
        assert_eq!(fixture.stored().await.len(), 11);
    }

    #[tokio::test]
    async fn a_report_takes_nothing_in_and_what_it_found_is_taken_in_later() {
        let mut fixture = Fixture::new(CatchUpMode::Report, "scalekit");
        fixture.webhook(NOW - 800, "evt_1").await;
        fixture.webhook(NOW - 790, "evt_of_a_test").await;
        let mut sender = list(&[(800, "evt_1"), (700, "evt_2"), (650, "evt_3")]);
        let report = fixture.run(&mut sender, Some(NOW - 900)).await;
        assert_eq!((report.listed, report.here, report.missing, report.taken_in), (3, 1, 2, 0), "{report:?}");
        assert_eq!(report.summary(), "2 events at the sender that never arrived");
        assert_eq!(
            (report.unlisted, &report.first_unlisted[..]),
            (Some(1), &["msg_evt_of_a_test".to_owned()][..])
        );
        assert_eq!(fixture.missing().await, ["evt_2", "evt_3"]);
        assert_eq!(fixture.stored().await.len(), 2);

        // Days later, a webhook of one of them arrives after all.
        fixture.clock.advance(Duration::from_secs(3 * 24 * 3600));
        fixture.webhook(NOW - 700, "evt_2").await;
        let report = fixture.run(&mut list(&[(650, "evt_3")]), None).await;
        assert_eq!((report.listed, report.missing, report.found), (1, 1, 0), "{report:?}");
        assert_eq!(fixture.missing().await, ["evt_3"]);
        // A list that is empty for once is no reason to forget it.
        fixture.run(&mut list(&[]), None).await;
        assert_eq!(fixture.missing().await, ["evt_3"]);

        // A dry run of the other mode looks back to it, and changes nothing.
        fixture.subject.settings.mode = CatchUpMode::Apply;
        let report = fixture.order(&mut sender, Some(NOW - 1000), true).await;
        assert_eq!((report.missing, report.taken_in), (1, 0), "{report:?}");
        assert_eq!((fixture.stored().await.len(), fixture.missing().await), (3, vec!["evt_3".to_owned()]));
        let report = fixture.run(&mut sender, None).await;
        assert_eq!((report.missing, report.taken_in), (1, 1), "{report:?}");
        assert_eq!(ids(&fixture.stored().await).last(), Some(&"evt_3"));
        assert!(fixture.missing().await.is_empty());
    }

    #[tokio::test]
    async fn a_webhook_that_arrives_in_between_makes_no_second_event() {
        let fixture = Fixture::new(CatchUpMode::Apply, "scalekit");
        let (event, key) = fixture.of_webhook(NOW - 700, "evt_1");
        let mut sender = list(&[(700, "evt_1"), (690, "evt_2")]);
        sender.late = Some((fixture.subject.store.clone(), event, Some(key)));
        let report = fixture.run(&mut sender, Some(NOW - 900)).await;
        assert_eq!((report.here, report.missing, report.taken_in), (1, 1, 1), "{report:?}");
        assert_eq!(ids(&fixture.stored().await), ["msg_evt_1", "evt_2"]);
    }

    #[tokio::test]
    async fn what_was_removed_is_not_taken_in_again() {
        let fixture = Fixture::new(CatchUpMode::Apply, "scalekit");
        fixture.webhook(NOW - 10, "evt_old").await;
        fixture.clock.advance(Duration::from_secs(25 * 3600));
        assert_eq!(fixture.subject.store.prune().await.unwrap(), 1);
        let mut sender = list(&[(10, "evt_old"), (-7200, "evt_new")]);
        let report = fixture.run(&mut sender, Some(NOW - 3600)).await;
        assert_eq!((report.listed, report.taken_in), (1, 1), "{report:?}");
        assert!(report.from > second(NOW), "{report:?}");
        assert_eq!(ids(&fixture.stored().await), ["evt_new"]);
    }

    #[tokio::test]
    async fn events_from_before_the_source_had_its_scheme_are_recognised() {
        let fixture = Fixture::new(CatchUpMode::Apply, "scalekit");
        let (event, _) = fixture.of_webhook(NOW - 700, "evt_1");
        let old = Offer { event, second: None, subscribers: Vec::new(), origin: EventOrigin::Webhook };
        fixture.subject.store.accept_all(vec![old], None).await.unwrap();
        let report = fixture.run(&mut list(&[(700, "evt_1"), (690, "evt_2")]), Some(NOW - 900)).await;
        assert_eq!((report.here, report.taken_in), (1, 1), "{report:?}");
        assert_eq!(ids(&fixture.stored().await), ["msg_evt_1", "evt_2"]);
    }

    #[tokio::test]
    async fn a_comparison_that_fails_keeps_what_it_has_and_the_next_goes_on_from_there() {
        let fixture = Fixture::new(CatchUpMode::Apply, "scalekit");
        let events: Vec<_> = (0..12).map(|n| (NOW - 880 + n * 30, format!("evt_{n:02}"))).collect();
        let mut runs = 0;
        for fails_after in [1, 5, 6, 7, 9, 12, 1000] {
            let fails_after = Some(fails_after);
            let mut sender = Sender { events: events.clone(), fails_after, ..Sender::default() };
            let report = fixture.run(&mut sender, Some(NOW - 900)).await;
            let stored = fixture.stored().await;
            let expected: Vec<_> = events.iter().take(stored.len()).map(|(_, id)| id.as_str()).collect();
            assert_eq!(ids(&stored), expected, "always the oldest first, and none twice");
            runs += 1;
            if report.is_complete() {
                break;
            }
            assert_eq!(report.error.as_deref(), Some("down"));
        }
        assert_eq!(fixture.stored().await.len(), 12);
        assert!(runs > 2, "{runs}");
    }

    #[tokio::test]
    async fn more_events_in_one_second_than_fit_are_all_taken_in_and_it_is_said() {
        let fixture = Fixture::new(CatchUpMode::Apply, "scalekit");
        let events = (0..11).map(|n| (NOW - 700, format!("evt_{n:02}"))).collect();
        let report = fixture.run(&mut Sender { events, ..Sender::default() }, Some(NOW - 900)).await;
        assert_eq!((report.taken_in, report.unordered), (11, true), "{report:?}");
        assert_eq!(fixture.stored().await.len(), 11);
    }

    #[tokio::test]
    async fn the_first_comparison_of_a_new_source_takes_in_no_history() {
        let fixture = Fixture::new(CatchUpMode::Apply, "stripe");
        let report = fixture.run(&mut list(&[(86_400, "evt_1")]), None).await;
        assert_eq!((report.listed, report.from), (0, second(NOW - 900)), "{report:?}");
        let state = fixture.subject.store.catch_up_state(&fixture.name()).await.unwrap();
        assert_eq!(state.compared_to, Some(second(NOW - 300)));
    }
}
