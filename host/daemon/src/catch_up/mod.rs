//! Catching up: asks senders for the events that no webhook brought.
//!
//! A sender's retries end. If posthouse was down for longer, the sender is the only one that has the events. Some
//! senders list them. posthouse compares such a list with the store, and reports what is missing or takes it in.
//!
//! ```text
//!   worker     when: at the start, after an outage, from time to time, on demand; one task for each source
//!     ▼
//!   run        one comparison: windows of time, oldest first; compares, takes in, remembers how far it came
//!     ▼
//!   walk       the pages of one window, newest first, within limits; notices a list that goes in circles
//!     ▼
//!   asker      one request: the rate, retries, the token; through the egress rules
//!     ▼
//!   scalekit, stripe    the request and the answer of each API
//! ```
//!
//! Lists have the newest event first, and plugins need the oldest first. So a run walks windows of time from the oldest
//! to the newest. It collects all pages of a window before it takes in the first event. If a window holds too much, it
//! is made shorter. No more than one window is in memory, and a run can be continued at any window.
//!
//! A caught-up event has the names of its webhook (`ingress/listed.rs`): the store accepts one of the two.

mod asker;
mod run;
mod scalekit;
mod stripe;
mod walk;
mod worker;

use bytes::Bytes;
use jiff::Timestamp;

pub use worker::CatchUps;

/// A part of a sender's list: the events that happened at `from` or later, and before `to`, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: Timestamp,
    to: Timestamp,
}

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Page {
    /// The bodies of its events, newest first.
    events: Vec<Bytes>,
    /// Where the next page begins. None: this is the last one.
    next: Option<String>,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NoPage {
    /// The answer is too large. Fewer events may fit.
    TooLarge,
    /// The reason in words.
    Failed(String),
}

/// A list of events.
trait List: Send {
    /// Asks for the page of a window that begins at this cursor, with at most so many events.
    fn page(
        &mut self,
        window: Window,
        cursor: Option<&str>,
        size: usize,
    ) -> impl Future<Output = Result<Page, NoPage>> + Send;

    /// The requests so far.
    fn requests(&self) -> u64;
}
