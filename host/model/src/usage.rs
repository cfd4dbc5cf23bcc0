//! How much of a limited resource is in use.

/// An amount in use, and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In use now.
    pub used: u64,
    /// The most that may be in use.
    pub limit: u64,
}

impl Usage {
    /// The usage if `free` of `limit` are free.
    pub fn of(limit: usize, free: usize) -> Self {
        Self { used: limit.saturating_sub(free) as u64, limit: limit as u64 }
    }
}
