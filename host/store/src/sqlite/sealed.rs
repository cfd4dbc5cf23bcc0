//! A backup's file: an SQLite file, and after it a seal over all of it (`posthouse_model::seal`).
//!
//! SQLite knows from its header how many pages a file has, and reads nothing beyond them. So a backup can be
//! streamed, any SQLite tool opens it, and an older posthouse restores it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use posthouse_model::seal::{self, Broken, Sealer};

use super::{
    backup::BackupError,
    copy::{CopyError, unread, unwritten},
};

/// The purpose of the seal.
const PURPOSE: &str = "backup";
/// Bytes read at once.
const PART: u64 = 1 << 20;

/// A backup, opened once, so that everything is read from one file even if the name is given to another file.
pub(super) struct BackupFile {
    path: PathBuf,
    file: File,
    /// Bytes before the seal.
    length: u64,
    seal: Option<Vec<u8>>,
}

impl BackupFile {
    /// Opens a backup. One without a seal is accepted only if `unsealed` is set.
    ///
    /// # Errors
    /// [`BackupError`] says why it is not a backup.
    pub(super) fn open(path: &Path, unsealed: bool) -> Result<Self, BackupError> {
        let no_backup = |reason: &str| BackupError::NoBackup { path: path.to_owned(), reason: reason.into() };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(no_backup("it does not exist"));
            }
            // Opening a pipe would block.
            Ok(there) if !there.is_file() => return Err(no_backup("it is not a file")),
            _ => {}
        }
        let failed = |error: io::Error| unread(path, &error);
        let file = File::open(path).map_err(failed)?;
        let all = file.metadata().map_err(failed)?.len();
        let at = all.checked_sub(seal::BYTES as u64);
        let mut last = vec![0; seal::BYTES];
        if let Some(at) = at {
            file.read_exact_at(&mut last, at).map_err(failed)?;
        }
        let seal = at.filter(|_| seal::is_seal(&last)).map(|at| (at, last));
        match seal {
            None if !unsealed => Err(BackupError::Unsealed(path.to_owned())),
            None => Ok(Self { path: path.to_owned(), file, length: all, seal: None }),
            Some((length, seal)) => Ok(Self { path: path.to_owned(), file, length, seal: Some(seal) }),
        }
    }

    /// Whether it has a seal.
    pub(super) fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Passes the content on in order. The content is complete and verified only if this returns without
    /// error.
    ///
    /// # Errors
    /// [`BackupError`] if the file cannot be read or differs from what was sealed, and errors of `take`.
    pub(super) fn read(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), CopyError>,
    ) -> Result<(), BackupError> {
        let failed = |error: io::Error| unread(&self.path, &error);
        let mut sealer = Sealer::default();
        let mut part = vec![0; PART.min(self.length) as usize];
        let mut at = 0;
        while at < self.length {
            part.truncate(PART.min(self.length - at) as usize);
            self.file.read_exact_at(&mut part, at).map_err(failed)?;
            sealer.update(&part);
            take(&part)?;
            at += part.len() as u64;
        }
        let Some(seal) = &self.seal else { return Ok(()) };
        sealer.check(seal, PURPOSE).map_err(|broken| self.damaged(&broken))
    }

    /// Reads it to its end and checks its seal, if it has one.
    pub(super) fn check(&self) -> Result<(), BackupError> {
        if self.is_sealed() { self.read(|_| Ok(())) } else { Ok(()) }
    }

    fn damaged(&self, broken: &Broken) -> BackupError {
        let reason = format!("{broken}; nothing was changed, use another backup");
        CopyError::Damaged { path: self.path.clone(), reason }.into()
    }
}

/// Appends the seal to a complete file, and returns once all of it is durable. Later reads come from the disk
/// and not from memory, so that a check sees what the disk contains.
pub(super) fn seal(path: &Path) -> Result<(), CopyError> {
    let failed = |error: io::Error| unwritten(path, &error);
    let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut sealer = Sealer::default();
    let mut part = vec![0; PART.min(length) as usize];
    let mut at = 0;
    while at < length {
        part.truncate(PART.min(length - at) as usize);
        file.read_exact_at(&mut part, at).map_err(failed)?;
        sealer.update(&part);
        at += part.len() as u64;
    }
    file.write_all(&sealer.seal(PURPOSE)).and_then(|()| file.sync_all()).map_err(failed)?;
    // If the file system does not support this, the check reads from memory.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}
