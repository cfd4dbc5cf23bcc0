//! The bearer token of the admin API. Its source is `[admin] token`, or the file `admin-token` in the
//! state folder, which the first start creates.
//!
//! With the file, one can do everything that the operator can, so it has mode 0600. A file that others may
//! read is refused.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use posthouse_model::{
    Env,
    config::{Config, NotASecret, Secret, not_a_secret},
    owner,
};

/// The name of the file in the state folder.
const FILE: &str = "admin-token";
/// The most bytes of the file. A file that the daemon made has 65.
const LONGEST: u64 = 1024;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Others than the owner may read or write the file.
    #[error(
        "other users can read the admin token `{path}` (mode {mode:03o}); remove it and restart the daemon, \
         which creates a new one"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The content of the file is not a token.
    #[error(
        "`{0}` does not contain an admin token (visible ASCII on one line); remove it and restart the daemon"
    )]
    Malformed(PathBuf),
    /// The content of the file can't have been meant as a token.
    #[error("`{path}` {problem}; or remove it and restart the daemon, which creates one")]
    NotASecret {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: NotASecret,
    },
    /// There is no token yet.
    #[error("there is no admin token `{0}` yet; the daemon creates it at its first start: `posthouse serve`")]
    Missing(PathBuf),
    /// The file can't be read or made.
    #[error("the admin token `{path}` can't be read or created: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// Returns the token, and creates it if there is none yet.
///
/// # Errors
/// [`TokenError`] names the file and the fix.
pub fn token(config: &Config, env: &Env) -> Result<Secret, TokenError> {
    match existing(config) {
        Err(TokenError::Missing(path)) => {
            let mut bytes = [0; 32];
            env.fill(&mut bytes);
            let token = hex::encode(bytes);
            write(&path, &token).map_err(|error| TokenError::Io { path, error })?;
            Ok(Secret::new(token))
        }
        found => found,
    }
}

/// The existing token, as a client reads it.
///
/// # Errors
/// [`TokenError`] names the file and the fix.
pub fn existing(config: &Config) -> Result<Secret, TokenError> {
    match &config.admin.token {
        Some(token) => Ok(token.clone()),
        None => read(&file(config)),
    }
}

/// The path of the token's file, if config.toml does not contain the token.
pub fn file(config: &Config) -> PathBuf {
    config.store.state_dir().join(FILE)
}

fn read(path: &Path) -> Result<Secret, TokenError> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => TokenError::Missing(path.to_owned()),
        _ => TokenError::Io { path: path.to_owned(), error },
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TokenError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
    let token = text.trim_end();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Malformed(path.to_owned()));
    }
    if let Some(problem) = not_a_secret(token) {
        return Err(TokenError::NotASecret { path: path.to_owned(), problem });
    }
    Ok(Secret::new(token))
}

fn write(path: &Path, token: &str) -> io::Result<()> {
    owner::replace(path, 0o600, format!("{token}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_file_is_the_owners_alone_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/admin-token");
        assert!(matches!(read(&path), Err(TokenError::Missing(_))));
        write(&path, "0123abcd").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(read(&path).unwrap().expose(), "0123abcd");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_placeholder_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin-token");
        for placeholder in ["changeme", "${ADMIN_TOKEN}", "'0123abcd'", "ADMIN_TOKEN=0123abcd"] {
            write(&path, placeholder).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, TokenError::NotASecret { .. }), "{error}");
            assert!(!error.to_string().contains(placeholder), "{error}");
        }
    }

    #[test]
    fn what_a_crash_left_does_not_pass_its_mode_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin-token");
        let beside = path.with_extension("new");
        fs::write(&beside, "half").unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, "0123abcd").unwrap();
        assert_eq!((mode(&path), read(&path).unwrap().expose()), (0o600, "0123abcd"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin-token");
        write(&path, "0123abcd").unwrap();
        for exposed in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, TokenError::Exposed { mode, .. } if mode == exposed), "{error}");
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()) && !text.contains("0123abcd"), "{text}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin-token");
        for odd in ["", "\n", "two words", "two\nlines", "ü"] {
            write(&path, odd).unwrap();
            assert!(matches!(read(&path), Err(TokenError::Malformed(_))), "{odd:?}");
        }
    }
}
