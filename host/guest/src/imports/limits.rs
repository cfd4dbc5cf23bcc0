//! The limits of a guest. The error of each limit names it.
//!
//! [`Stop`] says why a host call ends the attempt. wasmtime asks the [`Meter`] before memories and tables grow. The
//! [`Budget`] counts what an attempt stages.

use std::time::Duration;

use posthouse_database::TxAborted;
use posthouse_model::{Capability, config::Limits};
use posthouse_store::StoreError;
use wasmtime::ResourceLimiter;

use super::call::Kind;

/// Elements of all tables of an instance. A CPython has some 20,000 functions.
pub(crate) const TABLE_ELEMENTS: usize = 200_000;
/// Core instances of a component; a componentized Python has about 30.
pub(crate) const CORE_INSTANCES: u32 = 50;
/// Tables of a component.
pub(crate) const TABLES: u32 = 20;
/// Linear memories of a component.
pub(crate) const MEMORIES: u32 = 4;
/// Handles that a guest may hold, such as streams and pollables.
pub(crate) const HANDLES: usize = 1_000;
/// Keys whose versions an attempt remembers for the check at its commit.
pub(crate) const READS: usize = 10_000;
/// Bytes of randomness in one call.
pub(crate) const RANDOM_BYTES: u64 = 64 << 10;

/// Why a host call ends the attempt.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Stop {
    /// The guest exceeded a limit.
    #[error("limit `{name}` ({bound}) reached")]
    Limit { name: &'static str, bound: String },
    /// `describe` made a call that only `handle` may make.
    #[error("`{}` can't be called from `describe`; only `log` can", .0.name())]
    Describing(Kind),
    /// The guest called a function that is linked only so that the guest loads.
    #[error("`{0}` is not offered: a plugin has no HTTP of WASI")]
    NotOffered(String),
    /// The guest called `exit` of WASI.
    #[error("the guest exited with status {0} in place of returning")]
    Exited(u8),
    /// The guest passed something to WASI that makes no sense.
    #[error("{0}")]
    Wasi(String),
    /// A call of this kind had to wait in a function that can't.
    #[error("the host could not answer `{}` at once", .0.name())]
    Pending(Kind),
    /// A call of this kind got the answer of another kind.
    #[error("the answer to `{}` is that of another call", .0.name())]
    Misfit(Kind),
    /// The store failed. The guest is not the cause.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transaction on the plugin's database has ended.
    #[error(transparent)]
    Database(#[from] TxAborted),
}

impl Stop {
    /// A limit with a number of something.
    pub(crate) fn count(name: &'static str, bound: usize) -> Self {
        Self::Limit { name, bound: bound.to_string() }
    }

    /// A limit in bytes.
    pub(crate) fn bytes(name: &'static str, bound: usize) -> Self {
        Self::Limit { name, bound: size(bound) }
    }

    /// The deadline of the attempt.
    pub(crate) fn time(bound: Duration) -> Self {
        Self::Limit { name: "time", bound: format!("{bound:?}") }
    }
}

/// The error for a plugin that lacks a grant. It contains the line for config.toml.
pub(super) fn lacks(plugin: &str, capability: Capability) -> String {
    format!(
        "plugin `{plugin}` has no grant for {capability}; add `{}` below [plugin.{plugin}.grants] in \
         config.toml",
        capability.example()
    )
}

/// A number of bytes as people write it in config.toml.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        b if b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b if b % (1 << 10) == 0 => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

/// Cuts a text to at most `most` bytes, between two characters. Returns whether the text was longer.
pub(crate) fn cut(text: &mut String, most: usize) -> bool {
    let over = text.len() > most;
    text.truncate(text.floor_char_boundary(most));
    over
}

/// How much an attempt has staged.
#[derive(Debug, Default)]
pub(super) struct Budget {
    items: usize,
    bytes: usize,
}

impl Budget {
    /// Bytes staged so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds `items` and `bytes`, and removes `freed` bytes that were staged before.
    ///
    /// # Errors
    /// The limit that this would exceed.
    pub(super) fn charge(
        &mut self,
        limits: &Limits,
        items: usize,
        bytes: usize,
        freed: usize,
    ) -> Result<(), Stop> {
        let (items, bytes) = (self.items + items, self.bytes - freed + bytes);
        if items > limits.staged_items {
            return Err(Stop::count("staged_items", limits.staged_items));
        }
        if bytes > limits.staged_bytes {
            return Err(Stop::bytes("staged_bytes", limits.staged_bytes));
        }
        *self = Self { items, bytes };
        Ok(())
    }
}

/// Counts the bytes and elements of an instance's memories and tables. Growth over the limit fails in the guest, as it
/// would on a small machine. If the guest then traps, the error names the limit.
#[derive(Debug)]
pub(crate) struct Meter {
    memory: usize,
    most_memory: usize,
    elements: usize,
    /// The bytes or elements that the last allowed growth added. If the growth fails, they are subtracted again.
    last: usize,
    hit: Option<&'static str>,
}

impl Meter {
    pub(super) fn new(most_memory: usize) -> Self {
        Self { memory: 0, most_memory, elements: 0, last: 0, hit: None }
    }

    /// Forgets the limit that an earlier attempt of this instance reached.
    pub(super) fn reset(&mut self) {
        self.hit = None;
    }

    /// The limit that refused a growth, if one did.
    pub(crate) fn hit(&self) -> Option<Stop> {
        Some(match self.hit? {
            "memory" => Stop::bytes("memory", self.most_memory),
            name => Stop::count(name, TABLE_ELEMENTS),
        })
    }

    fn grow(used: &mut usize, last: &mut usize, by: usize, most: usize) -> bool {
        let fits = used.checked_add(by).is_some_and(|sum| sum <= most);
        if fits {
            *used += by;
            *last = by;
        }
        fits
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let by = desired.saturating_sub(current);
        let fits = Self::grow(&mut self.memory, &mut self.last, by, self.most_memory);
        if !fits {
            self.hit = Some("memory");
        }
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory -= std::mem::take(&mut self.last);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let by = desired.saturating_sub(current);
        let fits = Self::grow(&mut self.elements, &mut self.last, by, TABLE_ELEMENTS);
        if !fits {
            self.hit = Some("table_elements");
        }
        Ok(fits)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.elements -= std::mem::take(&mut self.last);
        Ok(())
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_with_their_bound() {
        assert_eq!(Stop::bytes("memory", 64 << 20).to_string(), "limit `memory` (64 MiB) reached");
        assert_eq!(Stop::bytes("staged_bytes", 1000).to_string(), "limit `staged_bytes` (1000 B) reached");
        assert_eq!(Stop::count("log_lines", 1000).to_string(), "limit `log_lines` (1000) reached");
        assert_eq!(Stop::time(Duration::from_secs(8)).to_string(), "limit `time` (8s) reached");
    }

    #[test]
    fn memory_is_bounded_over_all_memories_of_the_instance() {
        let page = 64 << 10;
        let mut meter = Meter::new(4 * page);
        assert!(meter.memory_growing(0, 2 * page, None).unwrap());
        assert!(meter.memory_growing(0, page, None).unwrap());
        assert!(!meter.memory_growing(2 * page, 4 * page, None).unwrap());
        assert_eq!(meter.hit().unwrap().to_string(), "limit `memory` (256 KiB) reached");
        assert!(meter.memory_growing(2 * page, 3 * page, None).unwrap());
        meter.memory_grow_failed(wasmtime::Error::msg("the machine is full")).unwrap();
        assert!(meter.memory_growing(2 * page, 3 * page, None).unwrap(), "what failed is given back");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut text = "aéz".to_owned();
        assert!(cut(&mut text, 2));
        assert_eq!(text, "a");
        assert!(!cut(&mut text, 1));
    }
}
