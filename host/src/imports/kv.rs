//! `kv`: keys and values of the plugin's own, staged until the attempt commits.
//!
//! Reads see the attempt's own writes and remember, once a key, the version first seen; the store checks
//! them at the commit. An increment is staged as what it adds: it looks at the committed value only to
//! refuse one that is no number, and that look is not remembered, so increments never conflict.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
};

use super::limits::{Budget, READS, Stop, size};
use crate::{
    config::Limits,
    model::{KvRead, KvVersion, KvWrite},
    store::StoreError,
};

/// The most entries of one listing.
const LIST: u32 = 1000;
/// Entries fetched at once: bounds what a listing holds before its bytes are counted.
const PAGE: usize = 100;
/// Bytes of a number in decimal.
const NUMBER: usize = 20;

/// The committed keys and values of one plugin.
pub(crate) trait KvSource: Send + Sync {
    /// The value of a key and the version of its last write.
    fn get(&self, key: &str) -> Result<Option<(Vec<u8>, KvVersion)>, StoreError>;
    /// Entries with the prefix, after the key, in order, at most `limit`.
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, Vec<u8>, KvVersion)>, StoreError>;
    /// Bytes of all keys and values.
    fn bytes(&self) -> u64;
}

/// What a guest did wrong and can put right; each message names the limit and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KvError {
    InvalidKey(String),
    ValueTooLarge(String),
    Quota(String),
    NotAnInteger(String),
}

/// Why a call brought nothing: an answer for the guest, or the end of the attempt.
#[derive(Debug)]
pub(crate) enum Fault<E> {
    Answer(E),
    Stop(Stop),
}

impl<E> From<Stop> for Fault<E> {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<KvError> for Fault<KvError> {
    fn from(error: KvError) -> Self {
        Self::Answer(error)
    }
}

impl<E> From<StoreError> for Fault<E> {
    fn from(error: StoreError) -> Self {
        Self::Stop(error.into())
    }
}

type Answer<T> = Result<T, Fault<KvError>>;

/// What an attempt has read and written so far.
#[derive(Debug, Default)]
pub(super) struct Stage {
    reads: BTreeMap<String, Option<KvVersion>>,
    lists: Vec<KvRead>,
    /// Entries that the listings found.
    listed: usize,
    writes: BTreeMap<String, Staged>,
}

#[derive(Debug)]
struct Staged {
    write: KvWrite,
    /// Bytes of the committed entry that it replaces, once somebody needed to know.
    replaced: Option<u64>,
}

impl Stage {
    /// What the store commits.
    pub(super) fn into_effects(self) -> (Vec<KvRead>, BTreeMap<String, KvWrite>) {
        let keys = self.reads.into_iter().map(|(key, version)| KvRead::Key { key, version });
        let writes = self.writes.into_iter().map(|(key, staged)| (key, staged.write)).collect();
        (keys.chain(self.lists).collect(), writes)
    }

    fn remember(&mut self, key: &str, version: Option<KvVersion>) -> Result<(), Stop> {
        if !self.reads.contains_key(key) {
            self.room_for_reads(1)?;
            self.reads.insert(key.to_owned(), version);
        }
        Ok(())
    }

    fn room_for_reads(&self, more: usize) -> Result<(), Stop> {
        if self.reads.len() + self.lists.len() + self.listed + more > READS {
            return Err(Stop::count("reads", READS));
        }
        Ok(())
    }
}

/// The key-value data as one call sees it.
pub(super) struct Kv<'a> {
    pub(super) limits: &'a Limits,
    pub(super) source: &'a dyn KvSource,
    pub(super) stage: &'a mut Stage,
    pub(super) budget: &'a mut Budget,
}

impl Kv<'_> {
    pub(super) fn get(&mut self, key: &str) -> Answer<Option<Vec<u8>>> {
        self.check_key(key)?;
        let add = match self.stage.writes.get(key).map(|staged| &staged.write) {
            Some(KvWrite::Set(value)) => return Ok(Some(value.clone())),
            Some(KvWrite::Delete) => return Ok(None),
            Some(KvWrite::Add(add)) => Some(*add),
            None => None,
        };
        let (value, version) = self.source.get(key)?.unzip();
        self.stage.remember(key, version)?;
        Ok(match add {
            Some(add) => Some(sum(value, add)),
            None => value,
        })
    }

    pub(super) fn set(&mut self, key: String, value: Vec<u8>) -> Answer<()> {
        self.check_key(&key)?;
        let most = self.limits.kv_value;
        if value.len() > most {
            return Err(KvError::ValueTooLarge(format!(
                "the value of `{key}` is {} bytes long; limit `kv_value` is {}",
                value.len(),
                size(most)
            ))
            .into());
        }
        self.check_quota(&key, value.len())?;
        self.write(key, KvWrite::Set(value))
    }

    pub(super) fn delete(&mut self, key: String) -> Answer<()> {
        self.check_key(&key)?;
        self.write(key, KvWrite::Delete)
    }

    pub(super) fn increment(&mut self, key: String, by: i64) -> Answer<()> {
        self.check_key(&key)?;
        let out_of_range =
            || KvError::NotAnInteger(format!("`{key}` plus {by} does not fit a number of 64 bits"));
        let write = match self.stage.writes.get(&key).map(|staged| &staged.write) {
            Some(KvWrite::Set(value)) => {
                let total = number(&key, value)?.checked_add(by).ok_or_else(out_of_range)?;
                KvWrite::Set(total.to_string().into_bytes())
            }
            Some(KvWrite::Delete) => KvWrite::Set(by.to_string().into_bytes()),
            staged => {
                let before = if let Some(KvWrite::Add(add)) = staged { *add } else { 0 };
                let add = before.checked_add(by).ok_or_else(out_of_range)?;
                let base = match self.source.get(&key)? {
                    Some((value, _)) => number(&key, &value)?,
                    None => 0,
                };
                base.checked_add(add).ok_or_else(out_of_range)?;
                KvWrite::Add(add)
            }
        };
        self.check_quota(&key, NUMBER)?;
        self.write(key, write)
    }

    pub(super) fn list(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Vec<(String, Vec<u8>)>> {
        for text in [Some(prefix), after].into_iter().flatten() {
            self.check_length(text)?;
        }
        let limit = limit.clamp(1, LIST) as usize;
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut after = after.map(str::to_owned);
        loop {
            let page = self.fetch(prefix, after.as_deref(), limit.min(PAGE) as u32)?;
            // Beyond a full page there may be more committed keys: staged ones there have to wait.
            let full = page.len() >= limit.min(PAGE);
            let end = page.last().filter(|_| full).map(|(key, ..)| key.clone());
            for (key, value) in self.merge(page, prefix, after.as_deref(), end.as_deref()) {
                bytes += key.len() + value.len();
                if bytes > self.limits.hostcall {
                    return Err(Stop::bytes("hostcall", self.limits.hostcall).into());
                }
                entries.push((key, value));
                if entries.len() == limit {
                    return Ok(entries);
                }
            }
            match end {
                Some(end) => after = Some(end),
                None => return Ok(entries),
            }
        }
    }

    /// Reads a page and remembers what came.
    fn fetch(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Vec<(String, Vec<u8>, KvVersion)>> {
        let page = self.source.list(prefix, after, limit)?;
        self.stage.room_for_reads(1 + page.len())?;
        self.stage.listed += page.len();
        self.stage.lists.push(KvRead::List {
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit,
            found: page.iter().map(|(key, _, version)| (key.clone(), *version)).collect(),
        });
        Ok(page)
    }

    /// The page as the staged writes leave it, over the keys after `after` up to `end`.
    fn merge(
        &self,
        page: Vec<(String, Vec<u8>, KvVersion)>,
        prefix: &str,
        after: Option<&str>,
        end: Option<&str>,
    ) -> BTreeMap<String, Vec<u8>> {
        let mut merged: BTreeMap<_, _> = page.into_iter().map(|(key, value, _)| (key, value)).collect();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let staged = self.stage.writes.range::<str, _>((from, Bound::Unbounded));
        for (key, staged) in
            staged.take_while(|(key, _)| key.starts_with(prefix) && end.is_none_or(|end| key.as_str() <= end))
        {
            match &staged.write {
                KvWrite::Set(value) => drop(merged.insert(key.clone(), value.clone())),
                KvWrite::Delete => drop(merged.remove(key)),
                KvWrite::Add(add) => {
                    let base = merged.remove(key);
                    merged.insert(key.clone(), sum(base, *add));
                }
            }
        }
        merged
    }

    fn write(&mut self, key: String, write: KvWrite) -> Answer<()> {
        let bytes = weight(&key, &write);
        match self.stage.writes.entry(key) {
            Entry::Occupied(mut staged) => {
                let freed = weight(staged.key(), &staged.get().write);
                self.budget.charge(self.limits, 0, bytes, freed)?;
                staged.get_mut().write = write;
            }
            Entry::Vacant(slot) => {
                self.budget.charge(self.limits, 1, bytes, 0)?;
                slot.insert(Staged { write, replaced: None });
            }
        }
        Ok(())
    }

    fn check_key(&self, key: &str) -> Result<(), KvError> {
        if key.is_empty() {
            return Err(KvError::InvalidKey("the key is empty".to_owned()));
        }
        self.check_length(key)
    }

    fn check_length(&self, key: &str) -> Result<(), KvError> {
        let most = self.limits.kv_key;
        if key.len() > most {
            return Err(KvError::InvalidKey(format!(
                "the key is {} bytes long; limit `kv_key` is {}",
                key.len(),
                size(most)
            )));
        }
        Ok(())
    }

    /// Whether the plugin's data would still fit with a value of `length` bytes at `key`. Only near
    /// the limit is it worth looking up what the staged writes replace.
    fn check_quota(&mut self, key: &str, length: usize) -> Answer<()> {
        let most = self.limits.kv_total;
        let committed = self.source.bytes();
        let entry = (key.len() + length) as u64;
        if committed + self.budget.bytes() as u64 + entry <= most {
            return Ok(());
        }
        let (mut added, mut gone) = (entry, 0);
        if !self.stage.writes.contains_key(key) {
            gone += self.committed_bytes(key)?;
        }
        for (staged_key, staged) in &mut self.stage.writes {
            let replaced = match staged.replaced {
                Some(bytes) => bytes,
                None => *staged.replaced.insert(committed_bytes(self.source, staged_key)?),
            };
            gone += replaced;
            if staged_key != key && staged.write != KvWrite::Delete {
                added += weight(staged_key, &staged.write) as u64;
            }
        }
        if (committed + added).saturating_sub(gone) <= most {
            return Ok(());
        }
        let bound = size(usize::try_from(most).unwrap_or(usize::MAX));
        Err(KvError::Quota(format!("the plugin's keys and values are at limit `kv_total` ({bound})")).into())
    }

    fn committed_bytes(&self, key: &str) -> Result<u64, StoreError> {
        committed_bytes(self.source, key)
    }
}

fn committed_bytes(source: &dyn KvSource, key: &str) -> Result<u64, StoreError> {
    Ok(source.get(key)?.map_or(0, |(value, _)| (key.len() + value.len()) as u64))
}

/// Bytes that a write stages.
fn weight(key: &str, write: &KvWrite) -> usize {
    key.len()
        + match write {
            KvWrite::Set(value) => value.len(),
            KvWrite::Delete => 0,
            KvWrite::Add(_) => NUMBER,
        }
}

fn parse(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn number(key: &str, value: &[u8]) -> Result<i64, KvError> {
    parse(value).ok_or_else(|| {
        KvError::NotAnInteger(format!("the value of `{key}` is no decimal number within 64 bits"))
    })
}

/// The committed value with the staged addition. A value that is no number any more was changed after
/// the increment looked at it; the commit will find that out, so it is shown as it is.
fn sum(base: Option<Vec<u8>>, add: i64) -> Vec<u8> {
    let total = match &base {
        Some(value) => parse(value).and_then(|base| base.checked_add(add)),
        None => Some(add),
    };
    total.map(|total| total.to_string().into_bytes()).or(base).unwrap_or_default()
}
