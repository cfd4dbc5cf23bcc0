//! `config`: the plugin's own table, and no other. Its values may be secrets: they go to the guest and
//! nowhere else.

use posthouse_model::config::PluginSettings;

/// The value of a key of `[plugin.<name>.config]`.
pub(super) fn get(settings: &PluginSettings, key: &str) -> Option<String> {
    settings.config.get(key).map(|value| value.expose().to_owned())
}
