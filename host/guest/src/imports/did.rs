//! What an attempt did, in a few short lines for people: which keys, how much SQL, where to it made requests,
//! what it staged. It stands in the attempt's record.
//!
//! Values, statements, paths and queries are not in it. Keys are the plugin's words; what a source redacts is
//! masked in them where the record is made, so none is cut in the middle. The usual attempt has one or two
//! lines, which cost one short string.

use std::{collections::BTreeMap, fmt::Write as _};

use posthouse_model::{Derived, KvWrite, OutboxItem, counted};

/// The most lines; of more the last says how many.
const LINES: usize = 20;
/// Keys that are longer are not told.
const KEY: usize = 512;

/// Collects the lines of one attempt.
#[derive(Debug, Default)]
pub(super) struct Did {
    text: String,
    lines: usize,
    statements: u64,
    changed: u64,
}

impl Did {
    /// A request was made now; `status` is none where no answer came.
    pub(super) fn fetched(&mut self, method: &str, url: &str, status: Option<u16>) {
        match status {
            Some(status) => self.line(format_args!("fetch {method} {} {status}", origin(url))),
            None => self.line(format_args!("fetch {method} {} without an answer", origin(url))),
        }
    }

    /// A statement ran, and changed so many rows.
    pub(super) fn ran(&mut self, changed: u64) {
        self.statements += 1;
        self.changed = self.changed.saturating_add(changed);
    }

    /// The guest returned ok, with all this staged.
    pub(super) fn finished(
        &mut self,
        writes: &BTreeMap<String, KvWrite>,
        outbox: &[OutboxItem],
        emitted: &[Derived],
    ) {
        for (key, write) in writes {
            let word = match write {
                KvWrite::Set(_) => "set ",
                KvWrite::Delete => "delete ",
                KvWrite::Add(_) => "add ",
            };
            if !self.begin() {
                continue;
            }
            self.text.push_str(word);
            if key.len() > KEY {
                self.text.push_str("a long key");
            } else if key.chars().any(char::is_control) {
                self.text.extend(key.escape_debug());
            } else {
                self.text.push_str(key);
            }
        }
        match (self.statements, self.changed) {
            (0, _) => {}
            (statements, changed) => {
                self.line(format_args!(
                    "sql {}, {} changed",
                    counted(statements, "statement"),
                    counted(changed, "row")
                ));
            }
        }
        for item in outbox {
            match item {
                OutboxItem::Mail(mail) => match addresses(mail) {
                    1 => self.line(format_args!("mail to 1 address")),
                    many => self.line(format_args!("mail to {many} addresses")),
                },
                OutboxItem::Request(request) => {
                    self.line(format_args!("request {} {}", request.method, origin(&request.url)));
                }
            }
        }
        for derived in emitted {
            self.line(format_args!("emit {}", derived.event_type().as_str()));
        }
    }

    /// The lines, where there are any; it begins anew.
    pub(super) fn take(&mut self) -> Option<String> {
        let Self { mut text, lines, .. } = std::mem::take(self);
        if lines > LINES {
            let _ = write!(text, "\n… and {} more", lines - LINES);
        }
        (lines > 0).then_some(text)
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        if self.begin() {
            let _ = self.text.write_fmt(line);
        }
    }

    /// Begins a line, where there is room for one.
    fn begin(&mut self) -> bool {
        self.lines += 1;
        if self.lines > LINES {
            return false;
        }
        if self.lines > 1 {
            self.text.push('\n');
        }
        true
    }
}

fn addresses(mail: &posthouse_model::Mail) -> usize {
    mail.to.len() + mail.cc.len() + mail.bcc.len()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let Some(start) = url.find("://").map(|at| at + 3) else { return "a URL" };
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    if url[start..end].contains('@') { "a URL with a login" } else { &url[..end] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_stands_in_few_lines_without_values_paths_or_queries() {
        let mut did = Did::default();
        did.fetched("GET", "https://api.example.com:8443/users/7?token=abc", Some(200));
        did.fetched("POST", "http://[::1]?x", None);
        did.ran(0);
        did.ran(3);
        let writes = BTreeMap::from([
            ("a\nb".to_owned(), KvWrite::Delete),
            ("count".to_owned(), KvWrite::Add(7)),
            ("k".repeat(KEY + 1), KvWrite::Set(b"secret".to_vec())),
            ("seen/evt_1".to_owned(), KvWrite::Set(b"secret".to_vec())),
        ]);
        did.finished(&writes, &[], &[]);
        let text = did.take().unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "fetch GET https://api.example.com:8443 200",
                "fetch POST http://[::1] without an answer",
                "delete a\\nb",
                "add count",
                "set a long key",
                "set seen/evt_1",
                "sql 2 statements, 3 rows changed",
            ]
        );
        assert_eq!(did.take(), None);
    }

    #[test]
    fn many_are_counted_and_not_told() {
        let mut did = Did::default();
        let writes = (0..LINES + 5).map(|n| (format!("k{n:03}"), KvWrite::Delete)).collect();
        did.finished(&writes, &[], &[]);
        let text = did.take().unwrap();
        assert_eq!(text.lines().count(), LINES + 1);
        assert!(text.ends_with("delete k019\n… and 5 more"), "{text}");
    }
}
