//! `log`: lines tied to the delivery, bounded in number and length. What the guest writes to standard
//! output and standard error becomes lines too.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use posthouse_model::{LogLevel, LogLine, config::Limits};

use super::limits::{Stop, cut, size};

/// How a panic begins that Rust tells of.
const PANICKED: &str = "panicked at ";

/// How an exception begins that Python tells of.
const TRACEBACK: &str = "Traceback (most recent call last):";

/// Lines that are searched for a guest's last words.
const LAST_LINES: usize = 100;

/// Bytes of a guest's last words that are kept.
const LAST_WORDS: usize = 1024;

/// The lines of one attempt. Shared with the guest's standard output.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    /// When the attempt began.
    began: Instant,
    lines: Vec<LogLine>,
    /// What stands on standard output and standard error without its end of line yet.
    open: [Vec<u8>; 2],
    most: usize,
    longest: usize,
}

/// The guest's standard output or standard error.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stdio {
    Out,
    Err,
}

impl Stdio {
    fn level(self) -> LogLevel {
        match self {
            Self::Out => LogLevel::Info,
            Self::Err => LogLevel::Warn,
        }
    }
}

impl Log {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            began: Instant::now(),
            lines: Vec::new(),
            open: [Vec::new(), Vec::new()],
            most: limits.log_lines,
            longest: limits.log_line,
        })))
    }

    /// Begins anew, for another attempt.
    pub(super) fn begin(&self) {
        self.take();
        self.0.lock().began = Instant::now();
    }

    /// Adds a line; one that is too long is cut, one too many stops the attempt.
    pub(super) fn write(&self, level: LogLevel, message: String) -> Result<(), Stop> {
        let mut lines = self.0.lock();
        let line = lines.line(level, message);
        lines.push(line)
    }

    /// Takes what the guest wrote to a standard stream.
    pub(super) fn print(&self, stdio: Stdio, bytes: &[u8]) -> Result<(), Stop> {
        self.0.lock().print(stdio, bytes)
    }

    /// All lines so far, and what stands on the standard streams without its end of line: two lines at
    /// most, kept over the limit, since what a guest said last is often why it stopped.
    pub(super) fn take(&self) -> Vec<LogLine> {
        let mut lines = self.0.lock();
        let open = [Stdio::Out, Stdio::Err].map(|stdio| lines.end_line(stdio));
        lines.lines.extend(open.into_iter().flatten());
        std::mem::take(&mut lines.lines)
    }
}

impl Lines {
    fn push(&mut self, line: LogLine) -> Result<(), Stop> {
        if self.lines.len() >= self.most {
            return Err(Stop::count("log_lines", self.most));
        }
        self.lines.push(line);
        Ok(())
    }

    fn line(&self, level: LogLevel, mut message: String) -> LogLine {
        if cut(&mut message, self.longest) {
            message.push_str(&format!(" … [limit `log_line` ({}) reached: line cut]", size(self.longest)));
            message.shrink_to_fit();
        }
        LogLine { after: self.began.elapsed(), level, message }
    }

    fn print(&mut self, stdio: Stdio, bytes: &[u8]) -> Result<(), Stop> {
        let mut pieces = bytes.split(|&byte| byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.extend(stdio, piece);
            if let Some(line) = self.end_line(stdio) {
                self.push(line)?;
            }
        }
        self.extend(stdio, last);
        Ok(())
    }

    /// Keeps one character over the limit, so that the line shows as cut.
    fn extend(&mut self, stdio: Stdio, bytes: &[u8]) {
        let open = &mut self.open[stdio as usize];
        let room = (self.longest + 4).saturating_sub(open.len());
        open.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, stdio: Stdio) -> Option<LogLine> {
        let text = std::mem::take(&mut self.open[stdio as usize]);
        (!text.is_empty()).then(|| self.line(stdio.level(), String::from_utf8_lossy(&text).into_owned()))
    }
}

/// The message of the last panic or exception in what a guest logged, in one line and at most 1 KiB; none where it
/// logged none:
///
/// | who | writes |
/// | --- | --- |
/// | Rust with the SDK | one line of the log: `panicked at src/lib.rs:4:5:` and on a new line the message |
/// | Rust without it | the same on standard error, after `thread '<unnamed>'` and before `note: run with …` |
/// | Python | `Traceback (most recent call last):`, the stack with a margin, `ValueError: the message` |
/// | JavaScript | ``invalid variant tag value `undefined` (received `Error: the message`) specified for `Failure` ``, or what is thrown alone, perhaps after `uncaught exception: `, and the stack with a margin |
pub(crate) fn last_words(logged: &[LogLine]) -> Option<String> {
    let last = &logged[logged.len().saturating_sub(LAST_LINES)..];
    let lines: Vec<&str> = last.iter().flat_map(|line| line.message.lines()).map(str::trim_end).collect();
    let at = lines.iter().rposition(|line| begins(line).is_some())?;
    // The host language's runtime panics after an exception that nobody caught, and says nothing by that.
    let traced = lines[..at].iter().rposition(|line| *line == TRACEBACK);
    let at = traced
        .and_then(|traced| {
            let thrown = |line: &&str| begins(line).is_some_and(|words| !words.starts_with(PANICKED));
            lines[traced..=at].iter().rposition(thrown).map(|thrown| traced + thrown)
        })
        .unwrap_or(at);
    let mut words = begins(lines[at])?.to_owned();
    // The message of a panic may have several lines; an exception is told whole by one.
    if words.starts_with(PANICKED) {
        for line in lines[at + 1..].iter().take_while(|line| !ends(line)) {
            words.push(' ');
            words.push_str(line.trim());
        }
    }
    let mut words = words.trim().to_owned();
    if cut(&mut words, LAST_WORDS) {
        words.push('…');
    }
    Some(words)
}

/// The part of a line with which last words begin.
fn begins(line: &str) -> Option<&str> {
    if let Some(at) = line.find(PANICKED).filter(|at| *at == 0 || line.starts_with("thread ")) {
        return Some(&line[at..]);
    }
    // What is thrown and is no failure, componentize-js reads as one that makes no sense.
    if let Some((thrown, _)) =
        line.split_once("(received `").and_then(|(_, received)| received.rsplit_once("`) specified for "))
    {
        return Some(thrown);
    }
    let line = ["uncaught exception: ", "Uncaught exception: ", "Uncaught "]
        .into_iter()
        .find_map(|prefix| line.strip_prefix(prefix))
        .or_else(|| line.strip_prefix("Exception while ")?.split_once(": ").map(|(_, thrown)| thrown))
        .unwrap_or(line);
    // `json.decoder.JSONDecodeError: the message`, `TypeError: the message`, `KeyError: 'id'`
    let class = line.split(':').next().unwrap_or_default();
    let name = class.rsplit('.').next().unwrap_or_default();
    let is_class = !class.is_empty()
        && name.starts_with(|char: char| char.is_ascii_uppercase())
        && class.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
        && ["Error", "Exception", "Exit", "Interrupt", "Warning"].iter().any(|ending| name.ends_with(ending));
    is_class.then_some(line)
}

/// Whether a line of a log is no more part of a panic's message.
fn ends(line: &str) -> bool {
    line.starts_with("note: ") || line.starts_with("stack backtrace:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imports::tests::limits;

    #[test]
    fn one_line_too_many_stops_the_attempt_and_keeps_the_others() {
        let log = Log::new(&Limits { log_lines: 2, ..limits() });
        log.write(LogLevel::Info, "a".into()).unwrap();
        log.write(LogLevel::Info, "b".into()).unwrap();
        let stop = log.write(LogLevel::Info, "c".into()).unwrap_err();
        assert_eq!(stop.to_string(), "limit `log_lines` (2) reached");
        assert_eq!(log.take().len(), 2);
        log.write(LogLevel::Info, "the next attempt begins anew".into()).unwrap();
    }

    #[test]
    fn a_long_line_is_cut_with_a_mark() {
        let log = Log::new(&Limits { log_line: 5, ..limits() });
        log.write(LogLevel::Info, "ééé".into()).unwrap();
        assert_eq!(log.take()[0].message, "éé … [limit `log_line` (5 B) reached: line cut]");
    }

    #[test]
    fn standard_streams_become_lines() {
        let log = Log::new(&limits());
        log.print(Stdio::Out, b"one\ntw").unwrap();
        log.print(Stdio::Err, b"oh").unwrap();
        log.print(Stdio::Out, b"o\n\n").unwrap();
        let lines: Vec<_> = log.take().into_iter().map(|line| (line.level, line.message)).collect();
        assert_eq!(
            lines,
            [
                (LogLevel::Info, "one".to_owned()),
                (LogLevel::Info, "two".to_owned()),
                (LogLevel::Warn, "oh".to_owned())
            ]
        );
    }

    #[test]
    fn a_stream_without_line_ends_is_bounded() {
        let log = Log::new(&Limits { log_line: 8, ..limits() });
        for _ in 0..1000 {
            log.print(Stdio::Out, &[b'x'; 4096]).unwrap();
        }
        assert!(log.0.lock().open[0].len() <= 12);
        assert!(log.take()[0].message.ends_with("reached: line cut]"));
    }

    #[test]
    fn the_last_words_are_those_of_the_panic_or_the_exception_in_any_language() {
        let said = |lines: &[&str]| {
            let log = Log::new(&limits());
            for line in lines {
                log.write(LogLevel::Error, (*line).to_owned()).unwrap();
            }
            last_words(&log.take())
        };
        let expect =
            |lines: &[&str], words: &str| assert_eq!(said(lines).as_deref(), Some(words), "{lines:?}");
        expect(
            &["hello", "panicked at src/lib.rs:4:5:\nno user\n  at all"],
            "panicked at src/lib.rs:4:5: no user at all",
        );
        expect(
            &["panicked at a.rs:1:1:\nfirst", "panicked at a.rs:2:2:\nlast"],
            "panicked at a.rs:2:2: last",
        );
        expect(
            &[
                "Traceback (most recent call last):",
                "  File \"app.py\", line 7, in handle",
                "    x = data['id']",
                "KeyError: 'id'",
            ],
            "KeyError: 'id'",
        );
        expect(
            &["json.decoder.JSONDecodeError: Expecting value"],
            "json.decoder.JSONDecodeError: Expecting value",
        );
        expect(
            &["uncaught exception: TypeError: a is undefined", "  handle@app.js:3:9"],
            "TypeError: a is undefined",
        );
        expect(
            &[
                "invalid variant tag value `undefined` (received `TypeError: no `x``) specified for `Failure`",
                "Stack:",
            ],
            "TypeError: no `x`",
        );
        expect(&["Error: boom", "Stack:", "  handle@app.js:3:9"], "Error: boom");
        expect(&["Exception while calling handle: TypeError: no plan", "Stack:"], "TypeError: no plan");
        expect(
            &[
                "Traceback (most recent call last):",
                "  File \"app.py\", line 7, in handle",
                "ValueError: no plan",
                "thread '<unnamed>' panicked at runtime/src/lib.rs:1:2:",
                "Python function threw an unexpected exception",
            ],
            "ValueError: no plan",
        );
        for nothing in [&["hello: world", "an Error: no", "HTTP: x", "the thread panicked at noon"][..], &[]]
        {
            assert_eq!(said(nothing), None, "{nothing:?}");
        }
        let long = said(&[&format!("Error: {}", "é".repeat(4000))]).unwrap();
        assert!(long.len() <= LAST_WORDS + "…".len() && long.ends_with("é…"));

        // On standard error, without the SDK, its last line without an end.
        let log = Log::new(&limits());
        log.print(
            Stdio::Err,
            b"\nthread '<unnamed>' panicked at src/lib.rs:9:1:\nboom\nnote: run with `RUST_BACKTRACE=1`",
        )
        .unwrap();
        assert_eq!(last_words(&log.take()).as_deref(), Some("panicked at src/lib.rs:9:1: boom"));
    }
}
