//! Remembers during which file's compilation the daemon died, by a marker in the cache.
//!
//! If memory is short, the kernel may kill the daemon together with the child. A service manager or a container
//! restarts the daemon, which would compile the same file again, without end. So a marker exists while a file
//! is being compiled, and it counts the deaths. If a marker is left at a start, the file is compiled alone, so
//! that no other file is blamed. After three deaths it is no longer compiled.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The number of deaths after which a file is no longer compiled.
const DEADLY: u32 = 3;

/// The results of earlier compilations of a file.
pub(super) struct Trial {
    marker: PathBuf,
    memory: u64,
    deaths: u32,
}

impl Trial {
    /// Reads the marker of a file that may use `memory` bytes. Compilations with another limit do not count.
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

    /// Whether the daemon died too often to compile the file again.
    pub(super) fn is_deadly(&self) -> bool {
        self.deaths >= DEADLY
    }

    /// The path of the marker.
    pub(super) fn marker(&self) -> &Path {
        &self.marker
    }

    /// Marks the file as being compiled until the returned value is dropped.
    pub(super) fn begin(&self) -> Marked<'_> {
        let text = format!("{} {}\n", self.deaths.saturating_add(1), self.memory);
        if let Err(error) = fs::write(&self.marker, text) {
            tracing::warn!(path = %self.marker.display(), %error, "could not write the marker of a compilation; compiling without one");
        }
        Marked(&self.marker)
    }
}

/// Removes the marker when dropped. A daemon that dies leaves the marker.
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
