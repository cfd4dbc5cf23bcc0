//! What a plugin says of itself.

use crate::{Capability, Manifest};

impl Manifest {
    /// A manifest with one line for people, that wants no events yet.
    pub fn new(description: &str) -> Self {
        Self { description: description.to_owned(), events: Vec::new(), requires: Vec::new() }
    }

    /// Adds patterns of event types: `user.created`, `membership.*`, `*`.
    pub fn on<'a>(mut self, patterns: impl IntoIterator<Item = &'a str>) -> Self {
        self.events.extend(patterns.into_iter().map(str::to_owned));
        self
    }

    /// Adds what the plugin cannot do without: it is held until the operator grants it.
    pub fn requires(mut self, capability: Capability) -> Self {
        self.requires.push(capability);
        self
    }
}
