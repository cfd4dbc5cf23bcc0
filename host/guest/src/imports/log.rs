//! `log`: the lines of an attempt, limited in number and length. Standard output and standard error become lines too.
//!
//! The log is a view of the calls. It adds the lines of a call before the host answers it, as many as the limit allows.
//! If a line is over the limit, the host's answer ends the attempt.

use std::time::Instant;

use posthouse_model::{LogLevel, LogLine, config::Limits};

use super::{
    call::{HostCall, Stdio},
    limits::{Stop, cut, size},
};

/// How the message of a Rust panic begins.
const PANICKED: &str = "panicked at ";

/// How the message of a Python exception begins.
const TRACEBACK: &str = "Traceback (most recent call last):";

/// The number of lines that are searched for a guest's last words.
const LAST_LINES: usize = 100;

/// Bytes of a guest's last words that are kept.
const LAST_WORDS: usize = 1024;

/// The lines of one attempt.
#[derive(Debug)]
pub(super) struct Log {
    /// When the attempt began.
    began: Instant,
    lines: Vec<LogLine>,
    /// The last line of standard output and of standard error, while it has no line end.
    open: [Vec<u8>; 2],
    most: usize,
    longest: usize,
    /// The limit that the last call exceeded.
    over: Option<Stop>,
}

fn level(stream: Stdio) -> LogLevel {
    match stream {
        Stdio::Out => LogLevel::Info,
        Stdio::Err => LogLevel::Warn,
    }
}

impl Log {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            began: Instant::now(),
            lines: Vec::new(),
            open: [Vec::new(), Vec::new()],
            most: limits.log_lines,
            longest: limits.log_line,
            over: None,
        }
    }

    /// Starts again, for another attempt.
    pub(super) fn begin(&mut self) {
        self.take();
        self.began = Instant::now();
        self.over = None;
    }

    /// Adds the lines of a call.
    pub(super) fn asked(&mut self, call: &HostCall) {
        let result = match call {
            HostCall::LogWrite { level, message } => self.write(*level, message),
            HostCall::Print { stream, bytes } => self.print(*stream, bytes),
            _ => return,
        };
        self.over = result.err();
    }

    /// Whether all lines of the last call had room.
    ///
    /// # Errors
    /// The limit that the call exceeded.
    pub(super) fn room(&mut self) -> Result<(), Stop> {
        self.over.take().map_or(Ok(()), Err)
    }

    /// Adds a line. One that is too long is cut.
    fn write(&mut self, level: LogLevel, message: &str) -> Result<(), Stop> {
        let line = self.line(level, message);
        self.push(line)
    }

    /// Adds what the guest wrote to a standard stream. Keeps one character over the limit of a line, so that the line
    /// shows as cut.
    fn print(&mut self, stream: Stdio, bytes: &[u8]) -> Result<(), Stop> {
        let mut pieces = bytes.split(|&byte| byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.extend(stream, piece);
            if let Some(line) = self.end_line(stream) {
                self.push(line)?;
            }
        }
        self.extend(stream, last);
        Ok(())
    }

    /// Returns all lines so far, and the last lines of the standard streams even if they have no line end. These two may
    /// exceed the limit, since a guest's last line often says why it stopped.
    pub(super) fn take(&mut self) -> Vec<LogLine> {
        let open = [Stdio::Out, Stdio::Err].map(|stream| self.end_line(stream));
        self.lines.extend(open.into_iter().flatten());
        std::mem::take(&mut self.lines)
    }

    fn push(&mut self, line: LogLine) -> Result<(), Stop> {
        if self.lines.len() >= self.most {
            return Err(Stop::count("log_lines", self.most));
        }
        self.lines.push(line);
        Ok(())
    }

    fn line(&self, level: LogLevel, message: &str) -> LogLine {
        let kept = &message[..message.floor_char_boundary(self.longest)];
        let message = match kept.len() < message.len() {
            true => format!("{kept} … [limit `log_line` ({}) reached: line cut]", size(self.longest)),
            false => kept.to_owned(),
        };
        LogLine { after: self.began.elapsed(), level, message }
    }

    fn extend(&mut self, stream: Stdio, bytes: &[u8]) {
        let open = &mut self.open[stream as usize];
        let room = (self.longest + 4).saturating_sub(open.len());
        open.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, stream: Stdio) -> Option<LogLine> {
        let text = std::mem::take(&mut self.open[stream as usize]);
        (!text.is_empty()).then(|| self.line(level(stream), &String::from_utf8_lossy(&text)))
    }
}

/// Returns the message of the last panic or exception that a guest logged, in one line of at most 1 KiB. None if it
/// logged none.
///
/// | language | what it writes |
/// | --- | --- |
/// | Rust with the SDK | one line of the log: `panicked at src/lib.rs:4:5:` and on a new line the message |
/// | Rust without it | the same on standard error, after `thread '<unnamed>'` and before `note: run with …` |
/// | Python | `Traceback (most recent call last):`, the stack with a margin, `ValueError: the message` |
/// | JavaScript | ``invalid variant tag value `undefined` (received `Error: the message`) specified for `Failure` ``, or what is thrown alone, perhaps after `uncaught exception: `, and the stack with a margin |
pub(crate) fn last_words(logged: &[LogLine]) -> Option<String> {
    let last = &logged[logged.len().saturating_sub(LAST_LINES)..];
    let lines: Vec<&str> = last.iter().flat_map(|line| line.message.lines()).map(str::trim_end).collect();
    let at = lines.iter().rposition(|line| begins(line).is_some())?;
    // The runtime of the language panics after an exception that nothing caught. That panic explains nothing.
    let traced = lines[..at].iter().rposition(|line| *line == TRACEBACK);
    let at = traced
        .and_then(|traced| {
            let thrown = |line: &&str| begins(line).is_some_and(|words| !words.starts_with(PANICKED));
            lines[traced..=at].iter().rposition(thrown).map(|thrown| traced + thrown)
        })
        .unwrap_or(at);
    let mut words = begins(lines[at])?.to_owned();
    // The message of a panic may have several lines, that of an exception has one.
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

/// Returns the part of a line with which last words begin.
fn begins(line: &str) -> Option<&str> {
    if let Some(at) = line.find(PANICKED).filter(|at| *at == 0 || line.starts_with("thread ")) {
        return Some(&line[at..]);
    }
    // If a guest throws something that is not a `Failure`, componentize-js reports it as an invalid one.
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

/// Whether a line of a log is no part of a panic's message any more.
fn ends(line: &str) -> bool {
    line.starts_with("note: ") || line.starts_with("stack backtrace:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imports::tests::limits;

    #[test]
    fn one_line_too_many_stops_the_attempt_and_keeps_the_others() {
        let mut log = Log::new(&Limits { log_lines: 2, ..limits() });
        log.write(LogLevel::Info, "a").unwrap();
        log.write(LogLevel::Info, "b").unwrap();
        let stop = log.write(LogLevel::Info, "c").unwrap_err();
        assert_eq!(stop.to_string(), "limit `log_lines` (2) reached");
        assert_eq!(log.take().len(), 2);
        log.write(LogLevel::Info, "the next attempt starts again").unwrap();
    }

    #[test]
    fn a_long_line_is_cut_with_a_mark() {
        let mut log = Log::new(&Limits { log_line: 5, ..limits() });
        log.write(LogLevel::Info, "ééé").unwrap();
        assert_eq!(log.take()[0].message, "éé … [limit `log_line` (5 B) reached: line cut]");
    }

    #[test]
    fn standard_streams_become_lines() {
        let mut log = Log::new(&limits());
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
        let mut log = Log::new(&Limits { log_line: 8, ..limits() });
        for _ in 0..1000 {
            log.print(Stdio::Out, &[b'x'; 4096]).unwrap();
        }
        assert!(log.open[0].len() <= 12);
        assert!(log.take()[0].message.ends_with("reached: line cut]"));
    }

    #[test]
    fn the_last_words_are_those_of_the_panic_or_the_exception_in_any_language() {
        let said = |lines: &[&str]| {
            let mut log = Log::new(&limits());
            for line in lines {
                log.write(LogLevel::Error, line).unwrap();
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
        let mut log = Log::new(&limits());
        log.print(
            Stdio::Err,
            b"\nthread '<unnamed>' panicked at src/lib.rs:9:1:\nboom\nnote: run with `RUST_BACKTRACE=1`",
        )
        .unwrap();
        assert_eq!(last_words(&log.take()).as_deref(), Some("panicked at src/lib.rs:9:1: boom"));
    }
}
