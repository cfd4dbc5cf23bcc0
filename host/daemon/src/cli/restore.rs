//! `posthouse restore`: replaces the store and the databases of plugins with a backup.

use std::{path::PathBuf, process::ExitCode};

use bytesize::ByteSize;
use posthouse_model::config::Config;
use posthouse_store as store;
use serde_json::json;

use super::{
    CliError,
    backup::{facts, places, shape, shown},
    table,
};

use crate::daemon;

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup.
    file: PathBuf,
    /// Replace existing files; each is kept, renamed to a name with the time.
    #[arg(long)]
    force: bool,
    /// Accept a backup without a checksum, such as one from an older posthouse. If there is a checksum, it is
    /// still checked.
    #[arg(long)]
    without_checksum: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Failure`] if nothing was restored.
pub fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let places = places(config);
    let place = &config.store.path;
    let allowed = store::Allowed { force: args.force, without_checksum: args.without_checksum };
    let restored = store::restore(&args.file, place, &places, allowed, &daemon::env())
        .map_err(|error| CliError::Failure(error.to_string()))?;
    if args.json {
        let mut told = shape(&restored.contents);
        told["kept"] = json!(restored.kept);
        told["store"] = json!(place);
        return table::print(&table::json_lines([&told]));
    }
    let bytes = std::fs::metadata(place).map(|file| file.len()).unwrap_or_default();
    let mut text = format!("restored `{}`\n", shown(place));
    text += &facts(&restored.contents, &ByteSize(bytes).to_string());
    for kept in &restored.kept {
        text += &format!("the old file is kept as `{}`\n", shown(kept));
    }
    let in_it = |name: &String| restored.contents.databases.iter().any(|(known, _)| known == name);
    for name in places.keys().filter(|name| !in_it(name)) {
        text += &format!("database `{}` is not in the backup and was not changed\n", table::clean(name));
    }
    for name in &restored.contents.elsewhere {
        text += &format!(
            "restore database `{}` with its own tools, from the copy that was made with this backup\n",
            table::clean(name)
        );
    }
    text += match restored.contents.unfinished {
        0 => "no deliveries are unfinished; start the daemon\n",
        _ => "the unfinished deliveries run when the daemon starts\n",
    };
    table::print(&text)
}
