//! The code of each content of a file, compiled, loaded and linked once for all plugins that run it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use crate::imports::Linked;

/// The code of one content. Locked while a task makes it; empty if no plugin runs it.
type Slot = Arc<tokio::sync::Mutex<Weak<Linked>>>;

/// The code that plugins run, by the SHA-256 of its file.
#[derive(Default)]
pub(super) struct Links(parking_lot::Mutex<HashMap<String, Slot>>);

impl Links {
    /// The code of this content. If no plugin runs it, this makes it, and concurrent callers wait for that.
    ///
    /// # Errors
    /// That of `make`. The next caller tries again.
    pub(super) async fn get<E>(
        &self,
        revision: &str,
        make: impl Future<Output = Result<Linked, E>>,
    ) -> Result<Arc<Linked>, E> {
        let slot = self.slot(revision);
        let mut code = slot.lock().await;
        if let Some(code) = code.upgrade() {
            return Ok(code);
        }
        let made = Arc::new(make.await?);
        *code = Arc::downgrade(&made);
        Ok(made)
    }

    fn slot(&self, revision: &str) -> Slot {
        let mut slots = self.0.lock();
        // Forgets code that nobody runs and nobody makes. This bounds the map, whatever files come and go.
        slots.retain(|_, slot| {
            Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|code| code.strong_count() > 0)
        });
        Arc::clone(slots.entry(revision.to_owned()).or_default())
    }
}
