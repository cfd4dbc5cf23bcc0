//! `log`: lines tied to the delivery, bounded in number and length. What the guest writes to standard
//! output and standard error becomes lines too.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::limits::{Stop, cut, size};
use crate::{
    config::Limits,
    model::{LogLevel, LogLine},
};

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
}
