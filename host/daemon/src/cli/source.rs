//! Finds the source in config.toml that a command means.

use posthouse_model::config::{Config, Source, nearest};

use super::CliError;

/// The source with this name. Without a name, the only source.
///
/// # Errors
/// [`CliError::Usage`] if there is no such source, or several to choose from.
pub(super) fn source<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Source, CliError> {
    let names = || config.sources.iter().map(|source| source.name.as_str());
    let listed = || names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let Some(name) = name else {
        return match config.sources.as_slice() {
            [only] => Ok(only),
            [] => Err(CliError::Usage("config.toml has no [[source]]; add one".to_owned())),
            _ => Err(CliError::Usage(format!("several sources; choose one with --source: {}", listed()))),
        };
    };
    config.sources.iter().find(|source| source.name.as_str() == name).ok_or_else(|| {
        let way_out = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if config.sources.is_empty() => "config.toml has no [[source]]".to_owned(),
            None => format!("config.toml has {}", listed()),
        };
        CliError::Usage(format!("no source `{}`; {way_out}", name.escape_debug()))
    })
}

/// The source as if it had this URL, and the query: that of the arguments, or of the URL.
pub(super) fn addressed(
    source: &Source,
    url: Option<String>,
    query: Option<String>,
) -> (Source, Option<String>) {
    let mut source = source.clone();
    let Some(url) = url else { return (source, query) };
    let (bare, own) = match url.split_once('?') {
        Some((bare, own)) => (bare.to_owned(), Some(own.to_owned())),
        None => (url, None),
    };
    source.url = Some(bare);
    (source, query.or(own))
}

/// Parses the time of `--at`: seconds since 1970, within the range of a timestamp.
pub(super) fn unix_seconds(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse::<i64>()
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .ok_or_else(|| "write whole seconds since 1970, such as 1765281881".to_owned())
}
