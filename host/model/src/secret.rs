//! A text that must not be shown.

use std::{fmt, sync::Arc};

/// A text that must not be shown. `Debug` masks it; there is no `Display`, and it can't be serialized.
///
/// Two secrets are equal if their texts are equal, wherever they were written.
#[derive(Clone)]
pub struct Secret {
    text: String,
    place: Option<Arc<str>>,
}

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), place: None }
    }

    /// The same secret, written at this place of config.toml, such as `config.toml:69:12`.
    #[must_use]
    pub fn written_at(self, place: &str) -> Self {
        Self { place: Some(place.into()), ..self }
    }

    /// The text itself, for the code that uses it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The place in config.toml of the secret or of the reference to it, for errors.
    pub fn place(&self) -> Option<&Arc<str>> {
        self.place.as_ref()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
