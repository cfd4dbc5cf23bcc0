//! Gives files that root creates for the daemon to the daemon's user.
//!
//! An operator runs `posthouse restore` as root, and the daemon runs as another user. So if root creates a file
//! or folder in another user's folder, it gets that folder's owner. Files of any other process keep their usual
//! owner.
//!
//! While root works, the folder's owner may create links in it. So each file gets a name that does not exist
//! yet, and its owner is changed through the open file, never by its path.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// Creates a new file with this mode, for the owner of its folder.
///
/// # Errors
/// The system's error, including that the file exists. No new file is left behind.
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
    give(&file, folder_of(path)).inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(file)
}

/// Writes a new file as [`create`] does and renames it to this path, so that nobody reads half of it. It is on disk
/// when this returns. Missing folders are created with mode 0700.
///
/// # Errors
/// The system's error.
pub fn replace(path: &Path, mode: u32, contents: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    create_folders(folder, 0o700)?;
    let beside = path.with_extension("new");
    // Removes the rest of a crash. With it, `create` would not create the file with its mode.
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = create(&beside, mode)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

/// Opens a file for reading and writing, or creates it as [`create`] does.
///
/// # Errors
/// The system's error.
pub fn open_or_create(path: &Path, mode: u32) -> io::Result<File> {
    if !rustix::process::geteuid().is_root() {
        return OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode).open(path);
    }
    loop {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        match create(path, mode) {
            // Another process created it first. A dangling link is not followed: it may lead anywhere.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !path.is_symlink() => {}
            made => return made,
        }
    }
}

/// Creates a folder and its missing parents with this mode, each for the owner of its parent.
///
/// # Errors
/// The system's error.
pub fn create_folders(path: &Path, mode: u32) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if path.is_dir() {
        return Ok(());
    }
    create_folders(folder_of(path), mode)?;
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => give(&File::open(path)?, folder_of(path)),
    }
}

/// If root runs this, gives the new file to the owner of another file or folder.
///
/// # Errors
/// The system's error.
pub fn give(file: &File, like: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(like)?;
    if owner.uid() == 0 {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// The folder that contains a file.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file or folder whose owner a file at this place will have. It is the file that exists there, or its
/// folder if that file belongs to root or does not exist.
pub fn of_place(place: &Path) -> PathBuf {
    let of_root = fs::metadata(place).map_or(true, |there| there.uid() == 0);
    if of_root { folder_of(place).to_owned() } else { place.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    /// The user `nobody` on every system.
    const NOBODY: u32 = 65534;

    fn owner(path: &Path) -> (u32, u32) {
        let file = fs::symlink_metadata(path).unwrap();
        (file.uid(), file.mode() & 0o777)
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        let expected = if own == 0 {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            NOBODY
        } else {
            own
        };
        let folder = dir.path().join("a/b");
        create_folders(&folder, 0o700).unwrap();
        create_folders(&folder, 0o700).unwrap();
        create(&folder.join("file"), 0o600).unwrap();
        open_or_create(&folder.join("lock"), 0o600).unwrap();
        open_or_create(&folder.join("lock"), 0o600).unwrap();
        for (made, mode) in [("a", 0o700), ("a/b", 0o700), ("a/b/file", 0o600), ("a/b/lock", 0o600)] {
            assert_eq!(owner(&dir.path().join(made)), (expected, mode), "{made}");
        }
        let again = create(&folder.join("file"), 0o600).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_link_to_nothing_makes_root_no_file_elsewhere() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = elsewhere.path().join("target");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert_eq!(create(&link, 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
        if rustix::process::geteuid().is_root() {
            assert_eq!(open_or_create(&link, 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        assert!(!target.exists());
        fs::write(&target, "there").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        let before = owner(&target);
        open_or_create(&link, 0o600).unwrap();
        assert_eq!(owner(&target), before, "a file that is there stays whose it is");
    }
}
