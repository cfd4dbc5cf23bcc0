//! Ingress: where webhooks come in. A request becomes verified bytes, those an event, and the event is
//! on disk before its sender hears of it.
//!
//! ```text
//!  server     what a connection may take (crate::listener) · stray: what reaches no source
//!    ▼
//!  handler    the source by path
//!    ▼
//!  verify     headers ──► Claim           scheme: the rows · keys: the secrets, prepared
//!    │                                    claim: the headers, read · refusal: why not
//!    ▼
//!  body       read whole, within bounds
//!    ▼
//!  verify     Claim and body ──► Verified
//!    ▼
//!  rate       how many of those a source may send
//!    ▼
//!  envelope   Verified ──► NewEvent
//!    ▼
//!  Inbox      NewEvent ──► on disk
//!    ▼
//!  ending     what is counted, what is answered
//! ```
//!
//! `sign` does the sender's part. `offline` verifies for a person who wants to know why, and `altered` knows what
//! usually happens to a body.

mod altered;
mod body;
mod claim;
mod ending;
mod envelope;
#[cfg(test)]
mod fixtures;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod handler;
mod handling;
mod keys;
mod offline;
mod rate;
mod refusal;
mod scheme;
mod server;
mod sign;
mod stray;
mod verify;

pub use envelope::InvalidPayload;
pub use handler::{Inbox, Ingress, NO_SOURCE, Subscribers};
pub use keys::KeyError;
pub use offline::{Explanation, Unverified, verify_offline};
pub use refusal::Refusal;
pub use sign::{SignError, sign};
pub use verify::{RawRequest, Verified, Verifier};
