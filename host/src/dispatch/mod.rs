//! (to come)

mod mail;
pub mod sender;
