//! Reads config.toml: the file with its size limit, its syntax, its sections, and the warnings.

use std::{collections::BTreeSet, io::Read as _, os::unix::fs::MetadataExt as _, path::Path};

use toml::de::DeTable;

use super::{
    Config, ConfigError, Environment, Files, Finding, sections,
    table::{Document, Table},
};

/// The largest config.toml, in bytes.
const MOST_BYTES: u64 = 4 << 20;

/// The secrets to resolve. A command that only talks to the daemon runs without the daemon's variables and
/// credentials. It must not fail because those are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// All of them: for the daemon and for `check`.
    All,
    /// Those of the sources. Others are left out if they are not in the file itself.
    OfSources,
    /// Those of the sources, including secrets that cannot be used: `verify` explains why a signature is
    /// invalid, and such a secret may be the reason.
    ToVerify,
    /// The admin token only. A source may have no secrets then.
    OfAdmin,
}

impl Secrets {
    pub(super) fn covers(self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::OfSources | Self::ToVerify => key.starts_with("source.") || key.starts_with("interceptor."),
            Self::OfAdmin => key.starts_with("admin."),
        }
    }

    /// Whether an unusable secret at this key is passed on, so that [`posthouse::ingress`] refuses it.
    pub(super) fn takes_unfit(self, key: &str) -> bool {
        self == Self::ToVerify && self.covers(key)
    }
}

/// A config.toml that was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Warnings: the demo secret is in use, or the file contains a secret and everybody may read it.
    pub warnings: Vec<Finding>,
    /// The files that it names. They are checked again once the daemon has created its own.
    pub files: Files,
    /// Every key that it may contain, dotted (`server.listen`), including those of the plugins in it.
    pub keys: BTreeSet<String>,
}

impl Config {
    /// Reads config.toml with all checks and all secrets.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong, each with its line and column.
    pub fn load(path: &Path, environment: &dyn Environment) -> Result<Self, ConfigError> {
        Loaded::read(path, environment, Secrets::All).map(|loaded| loaded.config)
    }
}

impl Loaded {
    /// Reads the file at `path`. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong, each with its line and column.
    pub fn read(path: &Path, environment: &dyn Environment, secrets: Secrets) -> Result<Self, ConfigError> {
        let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
        let mut file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let mode = file.metadata().map_err(|error| unreadable(error.to_string()))?.mode();
        let mut bytes = Vec::new();
        file.by_ref()
            .take(MOST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(error.to_string()))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(unreadable(format!("it is longer than {MOST_BYTES} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
        Self::parse_with_mode(&text, path, environment, secrets, Some(mode))
    }

    /// Reads a text as if it were the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong, each with its line and column.
    pub fn parse(
        text: &str,
        path: &Path,
        environment: &dyn Environment,
        secrets: Secrets,
    ) -> Result<Self, ConfigError> {
        Self::parse_with_mode(text, path, environment, secrets, None)
    }

    fn parse_with_mode(
        text: &str,
        path: &Path,
        environment: &dyn Environment,
        secrets: Secrets,
        mode: Option<u32>,
    ) -> Result<Self, ConfigError> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let finding = |error: toml::de::Error| {
                let at = error.span().map_or(0, |span| span.start);
                let message = format!("this is not TOML: {}", error.message().replace('\n', " "));
                Finding::at(path, text, at, message)
            };
            return Err(ConfigError::Wrong(errors.into_iter().map(finding).collect()));
        }
        let document = Document::new(text, path, environment, secrets);
        let mut root = Table::new(&document, String::new(), 0, root.get_ref());
        let config = sections::config(&mut root);
        root.finish();
        let files = Files::new(path, &config, document.led());

        if let (Some(at), Some(mode)) = (document.first_literal_secret(), mode)
            && mode & 0o004 != 0
        {
            let message = "this file contains a secret, and everybody on this machine may read it; use \
                           { env = \"NAME\" } or { file = \"PATH\" }, or remove that right (chmod o-r)";
            document.warn(at, message);
        }
        let mut problems = document.problems();
        problems.extend(files.problems());
        if problems.is_empty() {
            return Ok(Self { config, warnings: document.warnings(), files, keys: document.keys() });
        }
        problems.sort_by_key(|finding| (finding.line, finding.column));
        Err(ConfigError::Wrong(problems))
    }
}
