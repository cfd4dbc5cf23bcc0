//! The actions of an attempt, in a few short lines for people: the keys that it wrote, how much SQL it ran, the origins
//! of its requests, and what it staged. They are part of the attempt's record.
//!
//! The lines contain no values, statements, paths or queries. Keys are the plugin's words. If a source redacts values,
//! they are masked in the keys when the record is made, so keys are not cut here. Most attempts have one or two lines,
//! which cost one short string.

use std::{collections::BTreeMap, fmt::Write as _};

use posthouse_model::{Derived, KvWrite, OutboxItem, counted};

use super::call::{Fetch, HostAnswer, Target};

/// The most lines. One more line counts the rest.
const LINES: usize = 20;
/// Longer keys are not shown.
const KEY: usize = 512;

/// Collects the lines of one attempt.
#[derive(Debug, Default)]
pub(super) struct Actions {
    text: String,
    lines: usize,
    statements: u64,
    changed: u64,
}

impl Actions {
    /// Adds what the guest did, if it can't be undone or is counted.
    pub(super) fn answered(&mut self, answer: &HostAnswer) {
        match answer {
            HostAnswer::HttpFetch(Fetch { sent: Some(Target { method, url }), result }) => match result {
                Ok(response) => self.line(format_args!("fetch {method} {} {}", origin(url), response.status)),
                Err(_) => self.line(format_args!("fetch {method} {} without an answer", origin(url))),
            },
            HostAnswer::SqlQuery(Ok(_)) => self.statements += 1,
            HostAnswer::SqlExecute(Ok(changed)) => {
                self.statements += 1;
                self.changed = self.changed.saturating_add(*changed);
            }
            _ => {}
        }
    }

    /// Adds what the guest staged. Called if it returned ok.
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

    /// Returns the lines, if there are any, and starts again.
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

    /// Begins a line, if there is room for one.
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

/// Returns scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let Some(start) = url.find("://").map(|at| at + 3) else { return "a URL" };
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    if url[start..end].contains('@') { "a URL with a login" } else { &url[..end] }
}

#[cfg(test)]
mod tests {
    use posthouse_database::Rows;
    use posthouse_egress::{Refusal, WebResponse};

    use super::*;

    fn fetched(method: &str, url: &str, status: Option<u16>) -> HostAnswer {
        let response = |status| WebResponse { status, headers: Vec::new(), body: b"secret".to_vec() };
        HostAnswer::HttpFetch(Fetch {
            sent: Some(Target { method: method.to_owned(), url: url.to_owned() }),
            result: status.map(response).ok_or_else(|| Refusal::Failed("secret".to_owned())),
        })
    }

    #[test]
    fn actions_are_few_lines_without_values_paths_or_queries() {
        let mut actions = Actions::default();
        actions.answered(&fetched("GET", "https://api.example.com:8443/users/7?token=abc", Some(200)));
        actions.answered(&fetched("POST", "http://[::1]?x", None));
        let refused = Fetch { sent: None, result: Err(Refusal::Invalid("never sent".to_owned())) };
        actions.answered(&HostAnswer::HttpFetch(refused));
        actions.answered(&HostAnswer::SqlQuery(Ok(Rows::default())));
        actions.answered(&HostAnswer::SqlExecute(Ok(3)));
        let writes = BTreeMap::from([
            ("a\nb".to_owned(), KvWrite::Delete),
            ("count".to_owned(), KvWrite::Add(7)),
            ("k".repeat(KEY + 1), KvWrite::Set(b"secret".to_vec())),
            ("seen/evt_1".to_owned(), KvWrite::Set(b"secret".to_vec())),
        ]);
        actions.finished(&writes, &[], &[]);
        let text = actions.take().unwrap();
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
        assert_eq!(actions.take(), None);
    }

    #[test]
    fn many_actions_are_counted_and_not_listed() {
        let mut actions = Actions::default();
        let writes = (0..LINES + 5).map(|n| (format!("k{n:03}"), KvWrite::Delete)).collect();
        actions.finished(&writes, &[], &[]);
        let text = actions.take().unwrap();
        assert_eq!(text.lines().count(), LINES + 1);
        assert!(text.ends_with("delete k019\n… and 5 more"), "{text}");
    }
}
