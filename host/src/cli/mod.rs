//! (to come)

pub mod client;
pub mod deliveries;
pub mod events;
pub mod outbox;
pub mod plugins;
pub mod replay;
pub mod stats;
pub mod table;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Exit code 1.
    #[error("{0}")]
    Failure(String),
}
