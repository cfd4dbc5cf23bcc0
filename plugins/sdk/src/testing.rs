//! A host in memory, for plugins' own unit tests: what an attempt stages is kept if it returns `Ok`, and
//! dropped if not, as the real host does.
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

use std::{cell::RefCell, collections::BTreeMap};

pub use crate::bindings::posthouse::plugin::{log::Level, outbox::Mail};
use crate::{Capability, Delivery, Event, Failure, Plugin, Timestamp};

/// When events of [`event`] came in: 2026-01-02T03:04:05Z.
pub const RECEIVED_AT: Timestamp = 1_767_323_045_000_000_000;

/// An event of source `test` with this type and `data`; the id is `evt_1`.
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
    }
}

/// A host with its store, its outbox and its log.
#[derive(Debug, Clone, Default)]
pub struct Host {
    config: BTreeMap<String, String>,
    granted: Vec<Capability>,
    kv: BTreeMap<String, Vec<u8>>,
    mails: Vec<Mail>,
    logs: Vec<(Level, String)>,
    delivery: String,
    deliveries: u32,
}

impl Host {
    /// A host whose store is empty and that grants nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value to the plugin's table of config.toml.
    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Grants a capability.
    pub fn grant(mut self, capability: Capability) -> Self {
        self.granted.push(capability);
        self
    }

    /// Makes a new delivery of the event, and its first attempt.
    ///
    /// # Errors
    /// What the plugin returned.
    pub fn deliver<P: Plugin>(&mut self, event: Event) -> Result<(), Failure> {
        self.deliveries += 1;
        let delivery = Delivery { id: format!("dlv_{}", self.deliveries), attempt: 1 };
        self.attempt::<P>(event, delivery)
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// What the plugin returned.
    pub fn attempt<P: Plugin>(&mut self, event: Event, delivery: Delivery) -> Result<(), Failure> {
        self.delivery.clone_from(&delivery.id);
        CURRENT.replace(Some(self.clone()));
        let result = P::handle(event, delivery);
        let after = CURRENT.take().unwrap_or_default();
        self.logs = after.logs;
        if result.is_ok() {
            self.kv = after.kv;
            self.mails = after.mails;
        }
        result
    }

    /// The keys there are.
    pub fn keys(&self) -> Vec<&str> {
        self.kv.keys().map(String::as_str).collect()
    }

    /// A value as text.
    pub fn text(&self, key: &str) -> Option<String> {
        self.kv.get(key).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The mails that would have left, in order.
    pub fn mails(&self) -> &[Mail] {
        &self.mails
    }

    /// What was logged, by attempts that failed as well.
    pub fn logs(&self) -> &[(Level, String)] {
        &self.logs
    }
}

thread_local! {
    /// The host of the attempt that this thread runs.
    static CURRENT: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// Speaks to the host of this thread's attempt; outside of one, to an empty host that forgets.
fn current<T>(call: impl FnOnce(&mut Host) -> T) -> T {
    CURRENT.with_borrow_mut(|host| call(host.as_mut().unwrap_or(&mut Host::default())))
}

/// The imports, as wit-bindgen would give them.
pub(crate) mod imports {
    use super::{Capability, current};

    pub(crate) mod log {
        use super::*;
        use crate::log::Level;

        pub(crate) fn write(level: Level, message: &str) {
            current(|host| host.logs.push((level, message.to_owned())));
        }
    }

    pub(crate) mod config {
        use super::*;

        pub(crate) fn get(key: &str) -> Option<String> {
            current(|host| host.config.get(key).cloned())
        }
    }

    pub(crate) mod kv {
        use super::*;
        use crate::bindings::posthouse::plugin::kv::{Entry, Error};

        fn checked(key: &str) -> Result<&str, Error> {
            match key.len() {
                1..=512 => Ok(key),
                length => Err(Error::InvalidKey(format!("a key of {length} bytes; the limit is 512"))),
            }
        }

        pub(crate) fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
            let key = checked(key)?;
            Ok(current(|host| host.kv.get(key).cloned()))
        }

        pub(crate) fn set(key: &str, value: &[u8]) -> Result<(), Error> {
            let key = checked(key)?;
            current(|host| host.kv.insert(key.to_owned(), value.to_owned()));
            Ok(())
        }

        pub(crate) fn delete(key: &str) -> Result<(), Error> {
            let key = checked(key)?;
            current(|host| host.kv.remove(key));
            Ok(())
        }

        pub(crate) fn list(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<Entry>, Error> {
            let wanted = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
            Ok(current(|host| {
                let found = host.kv.iter().filter(|(key, _)| wanted(key)).take(limit.clamp(1, 1000) as usize);
                found.map(|(key, value)| Entry { key: key.clone(), value: value.clone() }).collect()
            }))
        }

        pub(crate) fn increment(key: &str, by: i64) -> Result<(), Error> {
            let odd = || Error::NotAnInteger(format!("`{key}` is not a decimal number within 64 bits"));
            let now = match get(key)? {
                None => 0,
                Some(value) => {
                    str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or_else(odd)?
                }
            };
            set(key, i64::checked_add(now, by).ok_or_else(odd)?.to_string().as_bytes())
        }
    }

    pub(crate) mod outbox {
        use super::*;
        use crate::bindings::posthouse::plugin::outbox::{Error, Mail};

        pub(crate) fn send_mail(mail: &Mail) -> Result<String, Error> {
            current(|host| {
                if !host.granted.contains(&Capability::Mail) {
                    return Err(Error::Denied(
                        "mail is not granted: add `mail = { … }` to the grants".to_owned(),
                    ));
                }
                if let Some(odd) = mail.to.iter().find(|address| !address.contains('@')) {
                    return Err(Error::Invalid(format!("to: `{odd}` is no address")));
                }
                if mail.subject.contains(char::is_control) {
                    return Err(Error::Invalid("subject: holds a control character".to_owned()));
                }
                host.mails.push(mail.clone());
                Ok(format!("<{}-{}@test>", host.delivery, host.mails.len()))
            })
        }
    }
}
