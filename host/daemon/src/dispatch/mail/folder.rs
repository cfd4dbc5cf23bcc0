//! Writes each mail to its own `.eml` file.
//!
//! The file is named by the Message-ID, so a repeated mail replaces its first copy. The file is complete
//! whenever it is visible: it is written under a temporary name, synced and renamed, and then the folder is
//! synced. The `Bcc` header is kept, because a file has no envelope; `sendmail -t` reads the header and drops
//! it. Only the daemon's user may read the files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use lettre::Message;
use posthouse_model::Mail;
use sha2::{Digest, Sha256};

use super::NotSent;

/// The most bytes of a Message-ID that a file name keeps.
const LONGEST_NAME: usize = 160;

/// A folder for mail. The first mail creates it.
pub(in crate::dispatch) struct Folder {
    path: PathBuf,
    /// Bytes that must stay free on its disk.
    least: u64,
}

impl Folder {
    pub(super) fn new(path: PathBuf, least: u64) -> Self {
        Self { path, least }
    }

    pub(super) async fn send(&self, message: Message, mail: &Mail) -> Result<(), NotSent> {
        let (folder, name, least) = (self.path.clone(), file_name(&mail.message_id), self.least);
        let written =
            tokio::task::spawn_blocking(move || write(&folder, &name, &message.formatted(), least)).await;
        let failed = |error: &dyn std::fmt::Display| {
            NotSent::Transient(format!("the mail folder `{}` can't be written: {error}", self.path.display()))
        };
        written.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}

fn write(folder: &Path, name: &str, message: &[u8], least: u64) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let disk = rustix::fs::statvfs(folder)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Some network file systems report no size.
    if disk.f_blocks > 0 && free < least {
        let (free, least) = (ByteSize(free), ByteSize(least));
        let full =
            format!("its disk has {free} free, less than {least}, which is half of `min_free` of [store]");
        return Err(io::Error::new(io::ErrorKind::StorageFull, full));
    }
    // A file that a crash left has the same name and is overwritten.
    let beside = folder.join(format!(".{name}.tmp"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(message)?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(format!("{name}.eml")))?;
    File::open(folder)?.sync_all()
}

/// Returns a name that is safe in any folder. If characters were replaced or cut off, a part of the id's
/// SHA-256 keeps the names of two ids distinct.
fn file_name(message_id: &str) -> String {
    let inner = message_id.trim_start_matches('<').trim_end_matches('>');
    let safe: String = inner
        .char_indices()
        .map(|(at, c)| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '@' => c,
            '.' if at > 0 => c,
            _ => '_',
        })
        .take(LONGEST_NAME)
        .collect();
    if safe == inner && !safe.is_empty() {
        return safe;
    }
    let digest = hex::encode(Sha256::digest(message_id));
    format!("{safe}-{}", &digest[..16])
}

#[cfg(test)]
mod tests {
    use super::{
        super::message::{
            Bcc, build,
            tests::{env, mail},
        },
        *,
    };

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_same_mail_twice_is_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("mail/out"), 0);
        for subject in ["first", "second"] {
            let mail = Mail { subject: subject.into(), ..mail() };
            folder.send(build(&mail, Bcc::Kept, &env()).unwrap(), &mail).await.unwrap();
        }
        assert_eq!(names(&folder.path), ["dlv_7.1@posthouse.example.eml"]);
        let text = fs::read_to_string(folder.path.join("dlv_7.1@posthouse.example.eml")).unwrap();
        assert!(text.contains("Subject: second\r\n"), "{text}");
    }

    #[tokio::test]
    async fn no_mail_is_written_where_less_than_min_free_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("mail"), u64::MAX);
        let error = folder.send(build(&mail(), Bcc::Kept, &env()).unwrap(), &mail()).await.unwrap_err();
        assert!(matches!(&error, NotSent::Transient(text) if text.contains("`min_free`")), "{error:?}");
        assert_eq!(names(&folder.path), [""; 0]);
    }

    #[tokio::test]
    async fn a_folder_that_is_a_file_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let folder = Folder::new(file.path().to_owned(), 0);
        let error = folder.send(build(&mail(), Bcc::Kept, &env()).unwrap(), &mail()).await.unwrap_err();
        let named = file.path().display().to_string();
        assert!(matches!(&error, NotSent::Transient(text) if text.contains(&named)), "{error:?}");
    }

    #[test]
    fn no_id_leaves_the_folder_or_hides() {
        for (id, name) in [
            ("<dlv_1.0@host.example>", "dlv_1.0@host.example"),
            ("<../../etc/passwd>", "_._.._etc_passwd"),
            ("<.hidden>", "_hidden"),
            ("<a/b\0c\nd@e>", "a_b_c_d@e"),
            ("", ""),
        ] {
            let made = file_name(id);
            assert!(made.starts_with(name), "{id:?} gives {made}");
            assert!(!made.contains(['/', '\0', '\n']) && !made.starts_with('.'), "{id:?} gives {made}");
        }
        assert_ne!(file_name("<a/b@c>"), file_name("<a_b@c>"));
        assert_ne!(file_name("<a/b@c>"), file_name("<a:b@c>"));
        let long = file_name(&format!("<{}@c>", "x".repeat(1000)));
        assert!(long.len() < 200, "{long}");
    }
}
