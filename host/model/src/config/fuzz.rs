//! The fuzz target of config.toml.

use std::{ffi::OsString, path::Path};

use super::{ConfigError, Environment, Loaded, Secrets};

/// An environment in which every variable has the same secret as its value.
struct Everywhere;

const SECRET: &str = "whsec_ZnV6emluZyBtdXN0IG5ldmVyIHNob3cgdGhpcyE=";

impl Environment for Everywhere {
    fn variable(&self, name: &str) -> Option<OsString> {
        (name != "CREDENTIALS_DIRECTORY").then(|| SECRET.into())
    }
}

/// Any text is a configuration, or has errors at positions within it. None of them shows a secret.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // A secret may be read from a file, and some devices never end.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    let lines = text.matches('\n').count() + 1;
    for secrets in [Secrets::All, Secrets::OfSources, Secrets::ToVerify, Secrets::OfAdmin] {
        let shown = match Loaded::parse(text, Path::new("/nowhere/config.toml"), &Everywhere, secrets) {
            Ok(loaded) => format!("{:?} {:?}", loaded.config, loaded.warnings),
            Err(ConfigError::Wrong(findings)) => {
                assert!(!findings.is_empty());
                for finding in &findings {
                    assert!((1..=lines).contains(&finding.line) && finding.column >= 1, "{finding}");
                    assert!(!finding.message.contains('\n'), "{finding}");
                }
                format!("{findings:?}")
            }
            Err(ConfigError::Unreadable { reason, .. }) => reason,
        };
        // A secret in the text itself cannot be hidden from its writer.
        assert!(!shown.contains(SECRET) || text.contains(SECRET), "{shown}");
    }
}
