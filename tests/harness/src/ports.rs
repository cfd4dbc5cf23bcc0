//! Free ports.
//!
//! They are below the range from which the kernel takes the ports of outgoing connections. So a daemon that
//! restarts finds its port free, whatever connections were made meanwhile.

use std::{net::TcpListener, ops::RangeInclusive};

const RANGE: RangeInclusive<u16> = 10_240..=32_000;

/// Two ports that are free at this time. Another process may still be faster: then the daemon fails to start,
/// and its test retries with other ports.
pub(crate) fn free_pair() -> (u16, u16) {
    loop {
        let (first, second) = (rand::random_range(RANGE), rand::random_range(RANGE));
        if first != second && is_free(first) && is_free(second) {
            return (first, second);
        }
    }
}

/// One port that is free at this time.
pub(crate) fn free() -> u16 {
    free_pair().0
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
