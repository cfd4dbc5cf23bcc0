//! The manifest: a plugin's description of itself.

use crate::{Capability, Manifest};

impl Manifest {
    /// Creates a manifest with a description of one line, and no events yet.
    pub fn new(description: &str) -> Self {
        Self {
            description: description.to_owned(),
            events: Vec::new(),
            requires: Vec::new(),
            intercepts: Vec::new(),
        }
    }

    /// Adds patterns of event types: `user.created`, `membership.*`, `*`.
    pub fn on<'a>(mut self, patterns: impl IntoIterator<Item = &'a str>) -> Self {
        self.events.extend(patterns.into_iter().map(str::to_owned));
        self
    }

    /// Adds a capability that the plugin requires: its deliveries are held until the operator grants it.
    pub fn requires(mut self, capability: Capability) -> Self {
        self.requires.push(capability);
        self
    }
}
