//! How much of something that is bounded is in use.

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In use now.
    pub used: u64,
    /// The most that may be.
    pub limit: u64,
}

impl Usage {
    /// What is in use where so many of `limit` are free.
    pub fn of(limit: usize, free: usize) -> Self {
        Self { used: limit.saturating_sub(free) as u64, limit: limit as u64 }
    }
}
