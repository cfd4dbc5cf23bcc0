//! Checks the plugins: asks the running daemon, or loads each plugin if there is none.

use std::time::Duration;

use serde_json::Value;

use super::{Context, Notes};
use crate::cli::{check, client::Client};

pub(super) fn plugins(context: &Context, notes: &mut Notes) {
    let listed = Client::new(&context.config).and_then(|client| client.get("/v1/plugins", &[]));
    match listed {
        Ok(listed) => {
            let plugins = listed["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
            plugins.iter().for_each(|plugin| of_daemon(plugin, notes));
        }
        Err(_) => of_folder(context, notes),
    }
    if notes.found.is_empty() {
        notes.ok("the plugins folder has no plugins");
    }
}

fn of_daemon(plugin: &Value, notes: &mut Notes) {
    let text = |key: &str| plugin[key].as_str();
    let name = text("name").unwrap_or_default();
    match (text("reason"), text("last_error")) {
        (Some(reason), _) => notes.problem(
            format!("`{name}` does not run: {reason}"),
            format!("see `posthouse plugins show {name}`; its deliveries are held until then"),
        ),
        (None, Some(error)) => notes.warning(
            format!("`{name}` runs, but its newest file does not load: {}", error.replace('\n', "; ")),
            "fix the file; the previous revision serves until then",
        ),
        (None, None) => notes.ok(format!("`{name}` runs")),
    }
}

fn of_folder(context: &Context, notes: &mut Notes) {
    let inspected = match check::inspected(&context.config) {
        Ok(inspected) => inspected,
        Err(error) => return notes.problem(error.to_string(), "check `[plugins] dir`"),
    };
    for (name, result) in inspected {
        match result {
            Err(error) => notes.problem(
                format!("`{name}` does not load: {}", error.replace('\n', "; ")),
                "fix the file; its deliveries are held until then",
            ),
            Ok(lacking) if lacking.is_empty() => notes.ok(format!("`{name}` loads")),
            Ok(lacking) => notes.problem(
                format!("`{name}` lacks a grant"),
                format!("add to [plugin.{name}.grants]: {}", lacking.join(", ")),
            ),
        }
    }
}

/// The result of the work, if it is ready within this time.
pub(super) fn runtime<T>(within: Duration, work: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let answer = runtime.block_on(async { tokio::time::timeout(within, work).await }).ok();
    runtime.shutdown_background();
    answer
}
