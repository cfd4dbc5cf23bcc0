//! A mail that was sent, from the mail folder or from the test's mail server.

use std::{fs, path::Path};

use serde::Deserialize;

/// A mail as its recipient sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Mail {
    /// The sender in the envelope. Empty for a file in the mail folder.
    #[serde(default)]
    pub envelope_from: String,
    /// The recipients in the envelope. Empty for a file in the mail folder.
    #[serde(default)]
    pub envelope_to: Vec<String>,
    /// The headers in order, unfolded.
    pub headers: Vec<(String, String)>,
    /// Everything after the headers. From the mail server: the plain text, decoded.
    pub text: String,
}

impl Mail {
    /// The first header with this name. Empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// Its Message-ID.
    pub fn message_id(&self) -> &str {
        self.header("message-id")
    }

    pub(crate) fn parse(raw: &str) -> Self {
        let raw = raw.replace("\r\n", "\n");
        let (head, text) = raw.split_once("\n\n").unwrap_or((&raw, ""));
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in head.lines() {
            match (line.split_once(':'), headers.last_mut()) {
                (_, Some((_, value))) if line.starts_with([' ', '\t']) => {
                    value.push(' ');
                    value.push_str(line.trim());
                }
                (Some((name, value)), _) => headers.push((name.into(), value.trim().into())),
                _ => {}
            }
        }
        Self { envelope_from: String::new(), envelope_to: Vec::new(), headers, text: text.into() }
    }

    /// Every `.eml` in a folder, by file name. A missing folder has none.
    pub(crate) fn in_folder(folder: &Path) -> Vec<Self> {
        files(folder, "eml").iter().map(|raw| Self::parse(raw)).collect()
    }
}

/// The texts of the folder's files with this extension, by file name.
pub(crate) fn files(folder: &Path, extension: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|known| known == extension))
        .collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_unfolded_and_the_text_is_what_follows() {
        let mail = Mail::parse("Subject: a\r\n folded\r\nTo: b@example.com\r\n\r\nhello\r\n");
        assert_eq!(mail.header("subject"), "a folded");
        assert_eq!(mail.header("to"), "b@example.com");
        assert_eq!(mail.text, "hello\n");
    }
}
