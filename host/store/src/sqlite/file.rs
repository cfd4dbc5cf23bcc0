//! The open file: the readers' connections, the free space on its disk, and whether the file is still in
//! place.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

use super::{present::Present, readers::Readers, space::Space};

/// Connections for guests' reads: as many as there are threads to run them.
const GUEST_READERS: usize = 8;

/// Connections for operators' reads.
const PEOPLE_READERS: usize = 4;

/// The state that the session, the readers and the checkpointer share.
pub(super) struct OpenFile {
    path: PathBuf,
    pub(super) space: Space,
    /// Whether its files are still in place.
    pub(super) present: Present,
    /// For reads of keys while a guest runs.
    pub(super) guests: Readers,
    /// For lists, which take longer.
    pub(super) people: Readers,
    #[cfg(test)]
    pub(super) injected: parking_lot::Mutex<Option<super::tests::Injected>>,
    /// For syncing the file. It is the last member: if it were closed before SQLite's connections, POSIX
    /// would release their locks.
    file: File,
}

impl OpenFile {
    pub(super) fn new(path: PathBuf, min_free: u64) -> std::io::Result<Self> {
        let file = OpenOptions::new().write(true).open(&path)?;
        let space = Space::new(min_free);
        space.look(&file);
        Ok(Self {
            file,
            space,
            present: Present::new(&path),
            guests: Readers::new(path.clone(), GUEST_READERS),
            people: Readers::new(path.clone(), PEOPLE_READERS),
            path,
            #[cfg(test)]
            injected: parking_lot::Mutex::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers which files are open, once `connection` has read the store.
    pub(super) fn remember(&self, connection: &rusqlite::Connection) -> std::io::Result<()> {
        self.present.remember(&self.file, connection)
    }

    /// Syncs what has been copied into the file.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }

    /// Reads the free space of the disk.
    pub(super) fn look_at_disk(&self) {
        self.space.look(&self.file);
    }
}
