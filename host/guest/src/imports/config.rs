//! `config`: the plugin's own table, and no other. Its values may be secrets.

use posthouse_model::config::PluginSettings;

/// Returns the value of a key in `[plugin.<name>.config]`.
pub(super) fn get(settings: &PluginSettings, key: &str) -> Option<String> {
    settings.config.get(key).map(|value| value.expose().to_owned())
}
