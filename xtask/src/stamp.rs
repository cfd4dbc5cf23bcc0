//! Remembers what something was made of, so that it is not made again.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use crate::shell::{Doing, Result};

/// A hash of inputs, and the file that keeps the hash of the last time.
pub struct Stamp {
    file: PathBuf,
    hash: DefaultHasher,
}

impl Stamp {
    /// A stamp of nothing yet, kept in `file`.
    pub fn new(file: PathBuf) -> Self {
        Self { file, hash: DefaultHasher::new() }
    }

    /// Adds a file.
    pub fn file(&mut self, input: &Path) -> Result {
        let bytes = fs::read(input).doing(format_args!("read {}", input.display()))?;
        (input, bytes).hash(&mut self.hash);
        Ok(())
    }

    /// Adds the files right in a folder.
    pub fn folder(&mut self, folder: &Path) -> Result {
        let doing = format!("read {}", folder.display());
        let entries = fs::read_dir(folder).doing(&doing)?;
        let mut files = Vec::new();
        for entry in entries {
            files.push(entry.doing(&doing)?.path());
        }
        files.retain(|file| file.is_file());
        files.sort();
        files.iter().try_for_each(|file| self.file(file))
    }

    /// Whether the inputs are those of the last time.
    pub fn holds(&self) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|kept| kept == self.text())
    }

    /// Keeps it, once the thing is made.
    pub fn keep(&self) -> Result {
        fs::write(&self.file, self.text()).doing(format_args!("write {}", self.file.display()))
    }

    fn text(&self) -> String {
        format!("{:016x}\n", self.hash.finish())
    }
}
