//! The daemon's log on standard error: for people, for programs, for the journal.
//!
//! Whatever the filter says, lines of libraries show from `warn` up and no deeper: in `debug` and `trace`
//! they hold what passes through them, parameters of SQL and headers of requests among it, and neither
//! bodies nor secrets are for the log.

use std::{fmt, io::IsTerminal as _};

use rustix::fs::fstat;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer as _,
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
    config::{Log, LogFormat},
    daemon::Relevel,
};

/// In place of `level` of `[log]`, where it is set.
const LEVEL: &str = "POSTHOUSE_LOG";

/// Starts the log, and returns how it follows another `[log]`.
pub(super) fn start(log: &Log) -> Result<Relevel, CliError> {
    let (filter, handle) = reload::Layer::new(filter(log).map_err(CliError::Misconfigured)?);
    // A line that can't be written, the disk being full, is lost: to complain of it in the same place
    // would end the thread that wrote it.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false);
    let json = Format::default().json().flatten_event(true);
    let lines = match (log.format, in_the_journal()) {
        (LogFormat::Human, false) => lines.boxed(),
        (LogFormat::Human, true) => lines.event_format(Prioritized(Format::default().without_time())).boxed(),
        (LogFormat::Json, false) => lines.json().event_format(json).boxed(),
        (LogFormat::Json, true) => lines.json().event_format(Prioritized(json)).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(may_show))
        .with(lines)
        .try_init()
        .map_err(|error| CliError::Failure(format!("the log can't be started: {error}")))?;
    Ok(Box::new(move |log| handle.reload(self::filter(log)?).map_err(|error| error.to_string())))
}

/// What the log shows, or why that can't be told.
fn filter(log: &Log) -> Result<EnvFilter, String> {
    let (level, wanted_by) = match std::env::var(LEVEL) {
        Ok(level) if !level.is_empty() => (level, LEVEL),
        _ => (log.level.clone(), "`log.level`"),
    };
    EnvFilter::try_new(&level)
        .map_err(|error| format!("{wanted_by} is no filter of the log: {error}; `info` is one"))
}

/// Whether a line may show at all: ours, or a library's that is grave.
fn may_show(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target == "posthouse" || target.starts_with("posthouse::");
    ours || *metadata.level() <= Level::WARN
}

/// Whether standard error is the journal: it says which device and inode that is.
fn in_the_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok().and_then(|stream| {
        let (device, inode) = stream.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    let here = fstat(std::io::stderr()).ok().map(|stat| (stat.st_dev, stat.st_ino));
    named.is_some() && named == here
}

/// Lines that begin with how grave they are, as the journal takes it (sd-daemon(3)).
struct Prioritized<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
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
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        // A message of several lines is as many entries of the journal, all equally grave.
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}
