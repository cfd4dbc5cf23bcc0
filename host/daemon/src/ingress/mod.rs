//! Ingress accepts webhooks. It verifies a request, reads the event in it, and stores that event on disk before
//! it answers the sender.
//!
//! ```text
//!  server     the limits of a connection (crate::listener) · stray: requests for no source
//!    ▼
//!  handler    finds the source by path
//!    ▼
//!  verify     headers ──► Claim           plan: a compiled row · keys: the parsed secrets
//!    │                                    claim: the parsed headers · refusal: the reasons
//!    ▼
//!  body       reads all of it, within limits
//!    ▼
//!  verify     Claim and body ──► Verified
//!    ▼
//!  rate       limits the valid requests of a source
//!    ▼
//!  event      Verified ──► NewEvent       by the row, or by envelope: posthouse's own members
//!    │                                    keep: the headers that go with it
//!    ▼
//!  Inbox      NewEvents ──► on disk
//!    ▼
//!  ending     the outcome and the response
//! ```
//!
//! Where the sender publishes its key, `keychain` keeps it, `network` fetches it, and `published` checks signatures with
//! it. `jwt` reads signatures that are tokens, `sealed` decrypts bodies, `sns` composes the text that Amazon SNS signs.
//! `listed` reads an event that its sender lists when it is asked: no request brought it.
//! `handshake` answers the requests with which senders test a URL. `learning` keeps the keys that some of them bring.
//!
//! A path of an interceptor goes another way: `interceptor` verifies as above, `question` reads what is asked, and
//! `dispatch` decides, while the sender waits.
//!
//! `sign` signs as a sender does. `offline` explains to a person why a signature is invalid, and `altered`
//! knows how bodies usually change on their way. The rows themselves are in `config/scheme` of the model.

mod altered;
mod body;
mod claim;
mod crypto;
mod ending;
mod envelope;
mod event;
#[cfg(test)]
pub(crate) mod fixtures;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod handler;
mod handling;
mod handshake;
mod interceptor;
mod jwt;
mod keep;
mod keychain;
mod keys;
mod learning;
mod listed;
mod members;
mod network;
mod offline;
mod plan;
mod published;
mod question;
#[cfg(test)]
mod random_schemes;
mod refusal;
mod request;
#[cfg(test)]
mod sample_requests;
mod sealed;
mod server;
mod sign;
mod sns;
mod stray;
#[cfg(test)]
mod vectors;
mod verify;

pub use envelope::InvalidPayload;
pub use handler::{Inbox, Ingress, KeyPlaces, NO_SOURCE, Subscribers};
pub use interceptor::{Decide, InterceptorAnswer};
pub use keys::KeyError;
pub use learning::{BroughtKeys, KeyState, LearnError};
pub use listed::ListedReader;
pub use offline::{Explanation, Given, Offline, Unverified, verify_offline};
pub use refusal::Refusal;
pub use request::RawRequest;
pub use sign::{Draft, SignError, Signed, sign, sign_in_body, sign_request};
pub use verify::{Verified, Verifier};
