//! Ingress accepts webhooks. It verifies a request, reads the event in it, and stores that event on disk before
//! it answers the sender.
//!
//! ```text
//!  server     the limits of a connection (crate::listener) · stray: requests for no source
//!    ▼
//!  handler    finds the source by path
//!    ▼
//!  verify     headers ──► Claim           scheme: the table · keys: the parsed secrets
//!    │                                    claim: the parsed headers · refusal: the reasons
//!    ▼
//!  body       reads all of it, within limits
//!    ▼
//!  verify     Claim and body ──► Verified
//!    ▼
//!  rate       limits the valid requests of a source
//!    ▼
//!  envelope   Verified ──► NewEvent
//!    ▼
//!  Inbox      NewEvent ──► on disk
//!    ▼
//!  ending     the outcome and the response
//! ```
//!
//! `sign` signs as a sender does. `offline` explains to a person why a signature is invalid, and `altered`
//! knows how bodies usually change on their way.

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
