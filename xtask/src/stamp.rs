//! Remembers the inputs of a result, so that it is not made again.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use crate::shell::{Doing, Result};

/// A hash of inputs, and the file that stores the previous hash.
pub struct Stamp {
    file: PathBuf,
    hash: DefaultHasher,
}

impl Stamp {
    /// A stamp without inputs, stored in `file`.
    pub fn new(file: PathBuf) -> Self {
        Self { file, hash: DefaultHasher::new() }
    }

    /// Adds a file.
    pub fn file(&mut self, input: &Path) -> Result {
        let bytes = fs::read(input).doing(format_args!("read {}", input.display()))?;
        (input, bytes).hash(&mut self.hash);
        Ok(())
    }

    /// Adds the files directly in a folder.
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

    /// Whether the inputs are the same as the last time.
    pub fn holds(&self) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|kept| kept == self.text())
    }

    /// Stores the hash, once the result is made.
    pub fn keep(&self) -> Result {
        fs::write(&self.file, self.text()).doing(format_args!("write {}", self.file.display()))
    }

    fn text(&self) -> String {
        format!("{:016x}\n", self.hash.finish())
    }
}
