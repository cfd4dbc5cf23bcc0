//! Writes the daemon's log to standard error: for people, for programs, or for the journal.
//!
//! Lines of libraries are shown only from `warn` up, even if the filter allows more. At `debug` and `trace`,
//! libraries log what passes through them, such as parameters of SQL and headers of requests. Bodies and
//! secrets must not be in the log.

use std::{
    fmt::{self, Write as _},
    io::IsTerminal as _,
};

use posthouse_model::config::{Log, LogFormat};
use rustix::fs::fstat;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    field::RecordFields,
    filter::filter_fn,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use super::CliError;

use crate::{
    daemon::Relevel,
    escape::{self, Escaping},
};

/// If set, it replaces `level` of `[log]`.
const LEVEL: &str = "POSTHOUSE_LOG";

/// Starts the log. Returns the handle that applies another `[log]`.
pub(super) fn start(log: &Log) -> Result<Relevel, CliError> {
    let (filter, handle) = reload::Layer::new(filter(log).map_err(CliError::Misconfigured)?);
    // A line that can't be written, such as on a full disk, is lost. A complaint in the same place would end
    // the thread that wrote the line.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false);
    let journal = in_the_journal();
    let lines = match (log.format, journal) {
        (LogFormat::Human, false) => {
            let inner = Format::default();
            lines.fmt_fields(Fields).event_format(Line { inner, json: false, journal }).boxed()
        }
        (LogFormat::Human, true) => {
            let inner = Format::default().without_time();
            lines.fmt_fields(Fields).event_format(Line { inner, json: false, journal }).boxed()
        }
        (LogFormat::Json, _) => {
            let inner = Format::default().json().flatten_event(true);
            lines.json().event_format(Line { inner, json: true, journal }).boxed()
        }
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(may_show))
        .with(lines)
        .try_init()
        .map_err(|error| CliError::Failure(format!("the log can't be started: {error}")))?;
    Ok(Box::new(move |log| handle.reload(self::filter(log)?).map_err(|error| error.to_string())))
}

/// The filter of the log, or the reason why there is none.
fn filter(log: &Log) -> Result<EnvFilter, String> {
    let (level, wanted_by) = match std::env::var(LEVEL) {
        Ok(level) if !level.is_empty() => (level, LEVEL),
        _ => (log.level.clone(), "`log.level`"),
    };
    EnvFilter::try_new(&level)
        .map_err(|error| format!("{wanted_by} is not a log filter: {error}; an example is `info`"))
}

/// Whether a line may be shown at all: one of posthouse's own, or a serious one of a library.
fn may_show(metadata: &Metadata<'_>) -> bool {
    let krate = metadata.target().split("::").next().unwrap_or_default();
    let ours = krate == "posthouse" || krate.starts_with("posthouse_");
    ours || *metadata.level() <= Level::WARN
}

/// Whether standard error is the journal. Its device and inode are in the environment.
fn in_the_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok().and_then(|stream| {
        let (device, inode) = stream.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    let here = fstat(std::io::stderr()).ok().map(|stat| (stat.st_dev, stat.st_ino));
    named.is_some() && named == here
}

/// Writes one event as one line. Text from outside is escaped (see `escape`), so that it can't forge a line
/// or steer the terminal that shows it. In the journal, a line begins with its priority, as sd-daemon(3)
/// defines it.
struct Line<F> {
    inner: F,
    json: bool,
    journal: bool,
}

impl<S, N, F> FormatEvent<S, N> for Line<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.journal {
            let priority = match *event.metadata().level() {
                Level::ERROR => 3,
                Level::WARN => 4,
                Level::INFO => 6,
                Level::DEBUG | Level::TRACE => 7,
            };
            write!(writer, "<{priority}>")?;
        }
        if !self.json {
            return self.inner.format_event(context, writer, event);
        }
        let mut text = String::new();
        self.inner.format_event(context, Writer::new(&mut text), event)?;
        writeln!(writer, "{}", escape::json(text.trim_end()))
    }
}

/// The fields of a line for people: the message, then `name=value`, with each value escaped.
struct Fields;

impl<'a> FormatFields<'a> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut written = Written { writer, first: true, result: Ok(()) };
        fields.record(&mut written);
        written.result
    }
}

struct Written<'a> {
    writer: Writer<'a>,
    first: bool,
    result: fmt::Result,
}

impl Written<'_> {
    fn write(&mut self, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
        if !std::mem::replace(&mut self.first, false) {
            self.writer.write_char(' ')?;
        }
        match (field.name(), self.writer.has_ansi_escapes()) {
            ("message", _) => {}
            // In italics, with a dimmed sign.
            (name, true) => write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
            (name, false) => write!(self.writer, "{name}=")?,
        }
        write!(Escaping(&mut self.writer), "{value:?}")
    }
}

impl Visit for Written<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Fields that `log` adds about its own lines are left out.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.write(field, value);
        }
    }
}
