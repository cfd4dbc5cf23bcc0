//! Fixtures for the tests of this crate and of those above it.

use std::{path::Path, time::Duration};

use crate::StoreOptions;

/// Options of a store in this file without limits of size, and with a retention of a day.
pub fn options(path: &Path) -> StoreOptions {
    StoreOptions {
        path: path.to_owned(),
        retention: Duration::from_hours(24),
        max_backlog: 1_000_000,
        min_free: 0,
        max_size: None,
    }
}
