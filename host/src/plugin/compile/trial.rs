//! Which file the daemon died of: a marker in the cache while a file is compiled.
//!
//! Where memory is short the kernel may end the daemon with the child, and a service manager or a container
//! starts it again: it would compile the same file again, without end. So a marker says that a file is being
//! compiled. One that is there at a start counts how often the daemon died meanwhile. Such a file is compiled
//! alone, so that no other is blamed for it, and after three deaths no more.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// So many deaths are enough.
const DEADLY: u32 = 3;

/// What is known of a file from earlier tries.
pub(super) struct Trial {
    marker: PathBuf,
    memory: u64,
    deaths: u32,
}

impl Trial {
    /// Of the file with this marker, compiled with so many bytes of memory; tries with another limit do not
    /// count.
    pub(super) fn of(marker: PathBuf, memory: u64) -> Self {
        let text = fs::read_to_string(&marker).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let deaths = match (numbers.next(), numbers.next()) {
            (Some(Ok(deaths)), Some(Ok(of))) if of == memory => u32::try_from(deaths).unwrap_or(u32::MAX),
            _ => 0,
        };
        Self { marker, memory, deaths }
    }

    /// How often the daemon died while it compiled this file.
    pub(super) fn deaths(&self) -> u32 {
        self.deaths
    }

    /// Whether that is enough.
    pub(super) fn is_deadly(&self) -> bool {
        self.deaths >= DEADLY
    }

    /// Where that is kept.
    pub(super) fn marker(&self) -> &Path {
        &self.marker
    }

    /// Marks the file as one that is being compiled, until what this returns is dropped.
    pub(super) fn begin(&self) -> Marked<'_> {
        let text = format!("{} {}\n", self.deaths.saturating_add(1), self.memory);
        if let Err(error) = fs::write(&self.marker, text) {
            tracing::warn!(path = %self.marker.display(), %error, "a file is compiled without a marker");
        }
        Marked(&self.marker)
    }
}

/// The marker. A daemon that dies leaves it.
pub(super) struct Marked<'a>(&'a Path);

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_daemon_dies_of_again_and_again_is_compiled_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("trial");
        let trial = |memory| Trial::of(marker.clone(), memory);
        for deaths in 0..DEADLY {
            assert_eq!((trial(7).deaths(), trial(7).is_deadly()), (deaths, false));
            std::mem::forget(trial(7).begin());
        }
        assert!(trial(7).is_deadly());
        assert_eq!(trial(8).deaths(), 0, "with another limit it is tried again");
        drop(trial(8).begin());
        assert!(!marker.exists(), "a try that came to its end is forgotten");
        fs::write(&marker, "nonsense").unwrap();
        assert_eq!(trial(7).deaths(), 0);
    }
}
