//! What config.toml says about plugins now. A reload changes it.

use posthouse_model::config::PluginSettings;

use super::folder::Components;

/// The `[plugin.<name>]` tables in force.
pub trait PluginConfig: Send + Sync {
    /// The settings of the plugin with this name.
    fn settings(&self, name: &str) -> PluginSettings;

    /// Which plugins have a file of another name. None by default.
    fn components(&self) -> Components {
        Components::default()
    }
}

impl<F: Fn(&str) -> PluginSettings + Send + Sync> PluginConfig for F {
    fn settings(&self, name: &str) -> PluginSettings {
        self(name)
    }
}
