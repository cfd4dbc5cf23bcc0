//! What root makes for the daemon belongs to the daemon's user.
//!
//! An operator runs `posthouse restore` as root, and the daemon runs as another user. So a file or folder that
//! root makes in a folder of another user gets that folder's owner. A process that is not root makes files of
//! its own, as ever.
//!
//! The owner of the folder may put links there while root works, so a file is made under a name that nothing
//! has, and its owner is changed through the open file, never by its path.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// Makes a file that was not there, with this mode, for the owner of its folder.
///
/// # Errors
/// What the system says; nothing is left then.
pub(crate) fn create(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
    give(&file, folder_of(path)).inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(file)
}

/// Opens a file to read and write, or makes it as [`create`] does.
///
/// # Errors
/// What the system says.
pub(crate) fn open_or_create(path: &Path, mode: u32) -> io::Result<File> {
    if !rustix::process::geteuid().is_root() {
        return OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode).open(path);
    }
    loop {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        match create(path, mode) {
            // Somebody else was first. A link to nothing is not followed: it may lead anywhere.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !path.is_symlink() => {}
            made => return made,
        }
    }
}

/// Makes a folder, and those above it that are missing, with this mode, each for the owner of the one above.
///
/// # Errors
/// What the system says.
pub(crate) fn create_folders(path: &Path, mode: u32) -> io::Result<()> {
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

/// Where root runs this, gives what it made to the owner of another file or folder.
///
/// # Errors
/// What the system says.
pub(crate) fn give(file: &File, like: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(like)?;
    if owner.uid() == 0 {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whose a file will be in this place: of the owner of what is there, or where that is root or nothing, of the
/// folder's owner. Returns what has that owner.
pub(crate) fn of_place(place: &Path) -> PathBuf {
    let of_root = fs::metadata(place).map_or(true, |there| there.uid() == 0);
    if of_root { folder_of(place).to_owned() } else { place.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    /// Nobody's, on every system.
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
