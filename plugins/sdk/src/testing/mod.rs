//! An in-memory host, for plugins' own unit tests. Like the real host, it keeps what an attempt stages if the
//! attempt returns `Ok`, and drops it otherwise.
//!
//! ```
//! use posthouse_sdk::{Delivery, Event, Failure, Manifest, Plugin, kv, testing};
//!
//! struct Signups;
//!
//! impl Plugin for Signups {
//!     fn manifest() -> Manifest {
//!         Manifest::new("counts sign-ups").on(["user.signup"])
//!     }
//!     fn handle(_event: Event, _delivery: Delivery) -> Result<(), Failure> {
//!         Ok(kv::increment("signups", 1)?)
//!     }
//! }
//!
//! let mut host = testing::Host::new();
//! host.deliver::<Signups>(testing::event("user.signup", "{}")).unwrap();
//! assert_eq!(host.text("signups").as_deref(), Some("1"));
//! ```

mod database;
pub(crate) mod imports;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

pub use crate::bindings::posthouse::plugin::{
    http::{Error as HttpError, Header, Request, Response},
    log::Level,
    outbox::{Derived, Mail},
};
use crate::{
    Capability, Delivery, Event, Failure, Plugin, Timestamp,
    decide::{Decision, Interceptor, Request as Question, Unsure},
    testing::database::Database,
};

/// The time of receipt of the events of [`event`]: 2026-01-02T03:04:05Z.
pub const RECEIVED_AT: Timestamp = 1_767_323_045_000_000_000;

/// Creates an event of source `test` with this type and `data`; the id is `evt_1`.
pub fn event(event_type: &str, data: &str) -> Event {
    Event {
        id: "evt_1".to_owned(),
        source: "test".to_owned(),
        event_type: event_type.to_owned(),
        organization_id: None,
        occurred_at: None,
        received_at: RECEIVED_AT,
        data: data.to_owned(),
        body: format!(r#"{{"id":"evt_1","type":"{event_type}","data":{data}}}"#).into_bytes(),
        headers: Vec::new(),
        content_type: "application/json".to_owned(),
        original: None,
    }
}

/// Creates a request of the interceptor `test` with this trigger, from this mail address, about the organization `org_1`.
/// The id is `req_1`.
pub fn question(trigger: &str, email: Option<&str>) -> Question {
    Question {
        id: "req_1".to_owned(),
        interceptor: "test".to_owned(),
        trigger: trigger.to_owned(),
        environment_id: Some("env_1".to_owned()),
        user_id: Some("usr_1".to_owned()),
        email: email.map(str::to_owned),
        organization_id: Some("org_1".to_owned()),
        client_id: None,
        ip: Some("203.0.113.24".to_owned()),
        region: None,
        triggered_at: None,
        received_at: RECEIVED_AT,
        data: "{}".to_owned(),
        body: format!(r#"{{"trigger_point":"{trigger}","data":{{}}}}"#).into_bytes(),
        milliseconds_left: 2500,
    }
}

/// A host with its store, its database, its outbox and its log.
#[derive(Debug, Default)]
pub struct Host {
    config: BTreeMap<String, String>,
    granted: Vec<Capability>,
    effects: Effects,
    database: Option<Database>,
    answers: VecDeque<Result<Response, HttpError>>,
    fetched: Vec<Request>,
    logs: Vec<(Level, String)>,
    delivery: String,
    deliveries: u32,
}

/// The state that an attempt changes if it returns `Ok`.
#[derive(Debug, Clone, Default)]
struct Effects {
    kv: BTreeMap<String, Vec<u8>>,
    mails: Vec<Mail>,
    requests: Vec<Request>,
    emitted: Vec<Derived>,
}

impl Host {
    /// Creates a host with an empty store and no grants.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value to the plugin's table of config.toml.
    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Grants a capability. [`Capability::Sql`] also creates an empty in-memory SQLite database.
    ///
    /// # Panics
    /// If SQLite cannot open one.
    pub fn grant(mut self, capability: Capability) -> Self {
        if capability == Capability::Sql {
            self.database = Some(Database::open());
        }
        self.granted.push(capability);
        self
    }

    /// Adds an answer for immediate requests. Each request takes the next answer; a request without one gets
    /// 200 with the body `{}`.
    pub fn answer(mut self, status: u16, body: &str) -> Self {
        self.answer_next(Ok(Response { status, headers: Vec::new(), body: body.into() }));
        self
    }

    /// Like [`Host::answer`], with headers, or with no response at all.
    pub fn answer_next(&mut self, answer: Result<Response, HttpError>) {
        self.answers.push_back(answer);
    }

    /// Creates a delivery of the event, and runs its first attempt.
    ///
    /// # Errors
    /// The plugin's failure.
    pub fn deliver<P: Plugin>(&mut self, event: Event) -> Result<(), Failure> {
        self.deliveries += 1;
        let delivery = Delivery { id: format!("dlv_{}", self.deliveries), attempt: 1 };
        self.attempt::<P>(event, delivery)
    }

    /// Runs one attempt. An attempt that panics leaves no changes either.
    ///
    /// # Errors
    /// The plugin's failure.
    pub fn attempt<P: Plugin>(&mut self, event: Event, delivery: Delivery) -> Result<(), Failure> {
        let id = delivery.id.clone();
        self.run(&id, || P::handle(event, delivery))
    }

    /// Asks for a decision about a request.
    ///
    /// # Errors
    /// If the plugin is unsure.
    pub fn decide<P: Interceptor>(&mut self, request: Question) -> Result<Decision, Unsure> {
        self.deliveries += 1;
        let id = format!("dlv_{}", self.deliveries);
        self.run(&id, || P::decide(request))
    }

    /// Runs the plugin, and keeps what it staged if it returns `Ok`.
    fn run<T, E>(&mut self, delivery: &str, plugin: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        delivery.clone_into(&mut self.delivery);
        let before = self.effects.clone();
        CURRENT.set(Some(mem::take(self)));
        let result = catch_unwind(AssertUnwindSafe(plugin));
        *self = CURRENT.take().unwrap_or_default();
        let commits = matches!(result, Ok(Ok(_)));
        if let Some(database) = &mut self.database {
            database.end(commits);
        }
        if !commits {
            self.effects = before;
        }
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// All keys.
    pub fn keys(&self) -> Vec<&str> {
        self.effects.kv.keys().map(String::as_str).collect()
    }

    /// Returns a value as text.
    pub fn text(&self, key: &str) -> Option<String> {
        self.effects.kv.get(key).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Returns the result of a query, one text per row: `usr_1|ada@example.com|NULL`.
    ///
    /// # Panics
    /// If it is not a query, or no database is granted.
    pub fn rows(&self, query: &str) -> Vec<String> {
        self.database.as_ref().expect("a database is granted").texts(query)
    }

    /// The mails that would be sent, in order.
    pub fn mails(&self) -> &[Mail] {
        &self.effects.mails
    }

    /// The requests that would be sent after the commit, in order.
    pub fn requests(&self) -> &[Request] {
        &self.effects.requests
    }

    /// The immediate requests, fetched or delivered, including those of failed attempts.
    pub fn fetched(&self) -> &[Request] {
        &self.fetched
    }

    /// The derived events, in order.
    pub fn emitted(&self) -> &[Derived] {
        &self.effects.emitted
    }

    /// The log lines, including those of failed attempts.
    pub fn logs(&self) -> &[(Level, String)] {
        &self.logs
    }

    /// The error of a call that is not granted; none if it is granted.
    fn denial(&self, capability: Capability, line: &str) -> Option<String> {
        let granted = self.granted.contains(&capability);
        (!granted).then(|| format!("this is not granted: add `{line}` to the plugin's grants"))
    }
}

thread_local! {
    /// The host of this thread's attempt.
    static CURRENT: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// Calls the host of this thread's attempt; outside of an attempt, an empty host that keeps nothing.
fn current<T>(call: impl FnOnce(&mut Host) -> T) -> T {
    CURRENT.with_borrow_mut(|host| call(host.as_mut().unwrap_or(&mut Host::default())))
}
