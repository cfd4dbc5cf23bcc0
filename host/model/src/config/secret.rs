//! Reads a secret from its place: the environment, a file, a systemd credential, or the text itself.
//!
//! A secret is never in a log or an error: `Debug` masks it, and messages name the key and the position.

use std::{ffi::OsString, io::Read as _, path::Path};

use toml::de::DeValue;

use super::{
    diagnose::shown,
    placeholder::{self, NotASecret, Role},
    table::{Fault, Value},
};
use crate::Secret;

/// The secret of the shipped config.toml, which is public.
pub const DEMO_SECRET: &str = "whsec_cG9zdGhvdXNlIGRlbW8gc2VjcmV0OiByZXBsYWNlIG1l";

/// The largest file with a secret, in bytes.
const MOST_BYTES: u64 = 64 << 10;

/// The environment variables; a test passes its own.
pub trait Environment {
    /// The value of a variable, if it is set.
    fn variable(&self, name: &str) -> Option<OsString>;
}

/// The variables of this process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

/// Reads a secret: a literal text, or a table that names its place.
pub(super) fn secret(value: &Value<'_>) -> Result<Secret, Fault> {
    if let DeValue::String(text) = value.get() {
        if **text != *DEMO_SECRET {
            value.document.literal_secret(value.at());
        }
        return checked(
            value,
            text.as_ref().to_owned(),
            None,
            "is empty; write the secret, or where it is: { env = \"NAME\" }",
        );
    }
    let Some((kind, name)) = reference(value) else {
        return Err(value.mistyped(
            "{ env = \"NAME\" }, { file = \"PATH\" }, { credential = \"NAME\" } or the text in quotes",
        ));
    };
    if !value.document.secrets.covers(&value.key) {
        return Err(Fault::Unread);
    }
    let name_shown = shown(name);
    match kind {
        "env" => {
            let text = value.document.environment.variable(name).ok_or_else(|| {
                value.fault(format_args!(
                    "wants the environment variable `{name_shown}`, which is not set; set it, or say \
                     {{ file = \"PATH\" }}"
                ))
            })?;
            let text = text.into_string().map_err(|_| {
                value.fault(format_args!("wants the environment variable `{name_shown}`, which is not UTF-8"))
            })?;
            let empty = format!("wants the environment variable `{name_shown}`, which is empty");
            checked(value, text, Some(name), &empty)
        }
        "file" => read(value, name, &value.document.dir.join(name), "file"),
        _ => {
            if name.is_empty() || name.contains('/') {
                return Err(value.fault(format_args!(
                    "wants the credential `{name_shown}`, which is no name; it may not hold `/`"
                )));
            }
            let folder = value.document.environment.variable("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                value.fault(format_args!(
                    "wants the credential `{name_shown}`, but $CREDENTIALS_DIRECTORY is not set; run \
                     posthouse as a systemd service with LoadCredential={name_shown}"
                ))
            })?;
            read(value, name, &Path::new(&folder).join(name), "credential")
        }
    }
}

/// The kind and the name of a reference such as `{ env = "NAME" }`; none if the table is not one.
pub(super) fn reference<'a>(value: &Value<'a>) -> Option<(&'a str, &'a str)> {
    let table = value.get().as_table()?;
    let (key, name) = table.iter().next().filter(|_| table.len() == 1)?;
    let kind = ["env", "file", "credential"].into_iter().find(|kind| **key.get_ref() == **kind)?;
    Some((kind, name.get_ref().as_str()?))
}

/// Reads a file without the newline at its end.
fn read(value: &Value<'_>, name: &str, path: &Path, what: &str) -> Result<Secret, Fault> {
    let wants = format!("wants the {what} `{}`", path.display());
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| value.fault(format_args!("{wants}, which can't be read: {error}")))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(value.fault(format_args!("{wants}, which is longer than {MOST_BYTES} bytes")));
    }
    let mut text =
        String::from_utf8(bytes).map_err(|_| value.fault(format_args!("{wants}, which is not UTF-8")))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    checked(value, text, Some(name), &format!("{wants}, which is empty"))
}

/// Refuses a text that cannot be a secret. `name` is the variable or file that contains the text.
fn checked(value: &Value<'_>, text: String, name: Option<&str>, empty: &str) -> Result<Secret, Fault> {
    let judged_later = value.document.secrets.takes_unfit(&value.key);
    if text.is_empty() && !judged_later {
        return Err(value.fault(empty));
    }
    let role = Role::of(&value.key);
    if let Some(told) = placeholder::found(&text, role, name).filter(|_| !judged_later) {
        let of = match (role, told) {
            (Role::Url, NotASecret::Word | NotASecret::Same | NotASecret::Name) => "has a password that ",
            _ => "",
        };
        let from = name.map(|name| format!(" (from `{}`)", shown(name))).unwrap_or_default();
        let problem = format!("{of}{told}{from}");
        if told.is_certain(role) {
            return Err(value.fault(problem));
        }
        value.document.warn(value.at(), format!("`{}` {problem}", value.key));
    }
    Ok(Secret::new(text).written_at(&value.document.place(value.at())))
}
