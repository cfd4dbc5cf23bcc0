//! `kv`: the plugin's own keys and values, staged until the attempt commits.
//!
//! A read sees the attempt's own writes. The first read of a key remembers its version, which the store checks at the
//! commit. An increment is staged as the number that it adds. It reads the committed value only to refuse one that is
//! not a number, and does not remember that read, so increments never conflict.
//!
//! If the plugin has a database, its keys are there. Reads then go through the attempt's transaction, which detects
//! conflicts itself.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
};

use posthouse_database::Transaction;
use posthouse_model::{DecimalError, KvRead, KvVersion, KvWrite, add_decimal, config::Limits};
use posthouse_store::{Entries, Reading, Value};
use serde::{Deserialize, Serialize};

use super::{
    fault::Fault,
    limits::{Budget, READS, Stop, size},
};

/// The most entries of one listing.
const LIST: u32 = 1000;
/// Entries of one page. A listing counts the bytes of a page after it has read it.
const PAGE: usize = 100;
/// Bytes of a number in decimal.
const NUMBER: usize = 20;

/// The committed keys and values of one plugin.
pub(crate) trait KvSource: Send + Sync {
    /// The value of a key and the version of its last write.
    fn get<'a>(&'a self, key: &'a str) -> Reading<'a, Value>;
    /// Entries with the prefix, after the key, in order, at most `limit`.
    fn list<'a>(&'a self, prefix: &'a str, after: Option<&'a str>, limit: u32) -> Reading<'a, Entries>;
    /// Bytes of all keys and values.
    fn bytes(&self) -> u64;
}

/// Where the committed keys and values are.
pub(super) enum Source<'a> {
    /// In the store, whose engine may answer at once.
    Store(&'a dyn KvSource),
    /// In the plugin's database, as the attempt's transaction sees them.
    Database { transaction: &'a mut Transaction, plugin: &'a str },
}

impl Source<'_> {
    async fn get(&mut self, key: &str) -> Result<Option<(Vec<u8>, KvVersion)>, Stop> {
        match self {
            Self::Store(store) => Ok(store.get(key).await?),
            Self::Database { transaction, plugin } => {
                Ok(transaction.kv_get(plugin, key).await?.map(|value| (value, ISOLATED)))
            }
        }
    }

    async fn list(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, Vec<u8>, KvVersion)>, Stop> {
        match self {
            Self::Store(store) => Ok(store.list(prefix, after, limit).await?),
            Self::Database { transaction, plugin } => {
                let entries = transaction.kv_list(plugin, prefix, after, limit as usize).await?;
                Ok(entries.into_iter().map(|(key, value)| (key, value, ISOLATED)).collect())
            }
        }
    }

    /// Bytes of all keys and values.
    async fn bytes(&mut self) -> Result<u64, Stop> {
        match self {
            Self::Store(store) => Ok(store.bytes()),
            Self::Database { transaction, plugin } => Ok(transaction.kv_bytes(plugin).await?),
        }
    }

    async fn committed_bytes(&mut self, key: &str) -> Result<u64, Stop> {
        Ok(self.get(key).await?.map_or(0, |(value, _)| (key.len() + value.len()) as u64))
    }
}

/// The version of every value that a transaction reads. The transaction detects changes itself.
const ISOLATED: KvVersion = KvVersion(0);

/// An error that the guest can handle. Each message names the limit and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KvError {
    InvalidKey(String),
    ValueTooLarge(String),
    Quota(String),
    NotAnInteger(String),
}

type Answer<T> = Result<T, Fault<KvError>>;

/// The reads and writes of an attempt so far.
#[derive(Debug, Default)]
pub(super) struct Stage {
    reads: BTreeMap<String, Option<KvVersion>>,
    lists: Vec<KvRead>,
    /// The number of entries in all listings.
    listed: usize,
    writes: BTreeMap<String, Staged>,
}

#[derive(Debug)]
struct Staged {
    write: KvWrite,
    /// Bytes of the committed entry that it replaces, if they have been looked up.
    replaced: Option<u64>,
}

impl Stage {
    /// The reads that the store checks and the writes that it commits.
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

/// The parts of the state that one call on the plugin's keys needs.
pub(super) struct Kv<'a> {
    pub(super) limits: &'a Limits,
    pub(super) source: Source<'a>,
    pub(super) stage: &'a mut Stage,
    pub(super) budget: &'a mut Budget,
}

impl Kv<'_> {
    pub(super) async fn get(&mut self, key: &str) -> Answer<Option<Vec<u8>>> {
        self.check_key(key)?;
        let add = match self.stage.writes.get(key).map(|staged| &staged.write) {
            Some(KvWrite::Set(value)) => return Ok(Some(value.clone())),
            Some(KvWrite::Delete) => return Ok(None),
            Some(KvWrite::Add(add)) => Some(*add),
            None => None,
        };
        let (value, version) = self.source.get(key).await?.unzip();
        self.stage.remember(key, version)?;
        Ok(match add {
            Some(add) => Some(sum(value, add)),
            None => value,
        })
    }

    pub(super) async fn set(&mut self, key: String, value: Vec<u8>) -> Answer<()> {
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
        self.check_quota(&key, value.len()).await?;
        self.write(key, KvWrite::Set(value))
    }

    pub(super) async fn delete(&mut self, key: String) -> Answer<()> {
        self.check_key(&key)?;
        self.write(key, KvWrite::Delete)
    }

    pub(super) async fn increment(&mut self, key: String, by: i64) -> Answer<()> {
        self.check_key(&key)?;
        let refused = |error| not_added(&key, by, error);
        let write = match self.stage.writes.get(&key).map(|staged| &staged.write) {
            Some(KvWrite::Set(value)) => KvWrite::Set(add_decimal(Some(value), by).map_err(refused)?),
            Some(KvWrite::Delete) => KvWrite::Set(by.to_string().into_bytes()),
            staged => {
                let before = if let Some(KvWrite::Add(add)) = staged { *add } else { 0 };
                let add = before.checked_add(by).ok_or(DecimalError::OutOfRange).map_err(refused)?;
                let base = self.source.get(&key).await?.map(|(value, _)| value);
                add_decimal(base.as_deref(), add).map_err(refused)?;
                KvWrite::Add(add)
            }
        };
        self.check_quota(&key, NUMBER).await?;
        self.write(key, write)
    }

    pub(super) async fn list(
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
            let page = self.fetch(prefix, after.as_deref(), limit.min(PAGE) as u32).await?;
            // After a full page there may be more committed keys, so staged keys after it have to wait.
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

    /// Reads a page and remembers its entries.
    async fn fetch(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Answer<Vec<(String, Vec<u8>, KvVersion)>> {
        let page = self.source.list(prefix, after, limit).await?;
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

    /// Applies the staged writes to a page that contains the keys after `after` up to `end`.
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

    /// Checks that the plugin's data still fits with a value of `length` bytes at `key`. Only near the limit does it
    /// look up the entries that the staged writes replace.
    async fn check_quota(&mut self, key: &str, length: usize) -> Answer<()> {
        let most = self.limits.kv_total;
        let committed = self.source.bytes().await?;
        let entry = (key.len() + length) as u64;
        if committed + self.budget.bytes() as u64 + entry <= most {
            return Ok(());
        }
        let (mut added, mut gone) = (entry, 0);
        if !self.stage.writes.contains_key(key) {
            gone += self.source.committed_bytes(key).await?;
        }
        for (staged_key, staged) in &mut self.stage.writes {
            let replaced = match staged.replaced {
                Some(bytes) => bytes,
                None => *staged.replaced.insert(self.source.committed_bytes(staged_key).await?),
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

/// Why this can't be added to the value of the key.
fn not_added(key: &str, by: i64, error: DecimalError) -> KvError {
    KvError::NotAnInteger(match error {
        DecimalError::NotAnInteger => format!("the value of `{key}` is no decimal number within 64 bits"),
        DecimalError::OutOfRange => format!("`{key}` plus {by} does not fit a number of 64 bits"),
    })
}

/// Adds the staged number to the committed value. If the value is not a number any more, it was changed after the
/// increment had read it. The commit detects that, so the value is returned unchanged.
fn sum(base: Option<Vec<u8>>, add: i64) -> Vec<u8> {
    add_decimal(base.as_deref(), add).ok().or(base).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imports::tests::{MemoryKv, limits};

    /// One attempt on a source.
    struct Attempt<'a> {
        source: &'a MemoryKv,
        limits: Limits,
        stage: Stage,
        budget: Budget,
    }

    impl<'a> Attempt<'a> {
        fn on(source: &'a MemoryKv) -> Self {
            Self { source, limits: limits(), stage: Stage::default(), budget: Budget::default() }
        }

        fn kv(&mut self) -> Kv<'_> {
            Kv {
                limits: &self.limits,
                source: Source::Store(self.source),
                stage: &mut self.stage,
                budget: &mut self.budget,
            }
        }
    }

    fn parse(value: &[u8]) -> Option<i64> {
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    /// The store's side never waits.
    fn now<T>(call: impl Future<Output = T>) -> T {
        futures_util::FutureExt::now_or_never(call).unwrap()
    }

    fn problem<T>(answer: Answer<T>) -> String {
        match answer.map(drop).unwrap_err() {
            Fault::Answer(error) => format!("{error:?}"),
            Fault::Stop(stop) => stop.to_string(),
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Get(String),
        Set(String, Vec<u8>),
        Delete(String),
        Increment(String, i64),
        List(String, Option<String>, u32),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let key = "[ab]{1,2}";
        let value = prop_oneof!["-?[0-9]{1,3}", "[xy]{0,2}"].prop_map(String::into_bytes);
        let op = prop_oneof![
            key.prop_map(Op::Get),
            (key, value).prop_map(|(key, value)| Op::Set(key, value)),
            key.prop_map(Op::Delete),
            (key, prop_oneof![-9..9i64, Just(i64::MAX)]).prop_map(|(key, by)| Op::Increment(key, by)),
            ("[ab]{0,1}", prop::option::of(key), 1..5u32).prop_map(|(p, a, l)| Op::List(p, a, l)),
        ];
        prop::collection::vec(op, 0..40)
    }

    fn committed() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
        prop::collection::btree_map(
            "[ab]{1,2}",
            prop_oneof!["[0-9]{1,2}", "z"].prop_map(String::into_bytes),
            0..5,
        )
    }

    /// The answer to a guest that is alone and whose writes take effect at once.
    fn model(data: &mut BTreeMap<String, Vec<u8>>, op: &Op) -> Result<Vec<(String, Vec<u8>)>, ()> {
        match op {
            Op::Get(key) => return Ok(data.get(key).map(|v| (key.clone(), v.clone())).into_iter().collect()),
            Op::Set(key, value) => drop(data.insert(key.clone(), value.clone())),
            Op::Delete(key) => drop(data.remove(key)),
            Op::Increment(key, by) => {
                let base = match data.get(key) {
                    Some(value) => parse(value).ok_or(())?,
                    None => 0,
                };
                let total = base.checked_add(*by).ok_or(())?;
                data.insert(key.clone(), total.to_string().into_bytes());
            }
            Op::List(prefix, after, limit) => {
                return Ok(data
                    .iter()
                    .filter(|(key, _)| key.starts_with(prefix) && after.as_ref().is_none_or(|a| *key > a))
                    .take(*limit as usize)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect());
            }
        }
        Ok(Vec::new())
    }

    fn run(kv: &mut Kv<'_>, op: &Op) -> Result<Vec<(String, Vec<u8>)>, ()> {
        let nothing = |()| Vec::new();
        let result = match op.clone() {
            Op::Get(key) => {
                now(kv.get(&key)).map(|value| value.map(|value| (key, value)).into_iter().collect())
            }
            Op::Set(key, value) => now(kv.set(key, value)).map(nothing),
            Op::Delete(key) => now(kv.delete(key)).map(nothing),
            Op::Increment(key, by) => now(kv.increment(key, by)).map(nothing),
            Op::List(prefix, after, limit) => now(kv.list(&prefix, after.as_deref(), limit)),
        };
        result.map_err(|fault| assert!(matches!(fault, Fault::Answer(_)), "{fault:?}"))
    }

    proptest! {
        #[test]
        fn an_attempt_sees_its_own_writes_and_commits_what_it_saw(data in committed(), ops in ops()) {
            let source = MemoryKv::of(&data);
            let mut attempt = Attempt::on(&source);
            let mut model_data = data.clone();
            let mut touched = std::collections::BTreeSet::new();
            for op in &ops {
                let (expected, got) = (model(&mut model_data, op), run(&mut attempt.kv(), op));
                prop_assert_eq!(got, expected, "{:?}", op);
                if let Op::Get(key) = op {
                    touched.insert(key.clone());
                }
            }
            let (reads, writes) = attempt.stage.into_effects();
            let mut seen = std::collections::BTreeSet::new();
            for read in reads {
                if let KvRead::Key { key, version } = read {
                    prop_assert_eq!(version, source.version(&key));
                    prop_assert!(touched.contains(&key), "an increment or a write remembers nothing");
                    prop_assert!(seen.insert(key), "each key is remembered once");
                }
            }
            let mut after = data;
            for (key, write) in writes {
                match write {
                    KvWrite::Set(value) => drop(after.insert(key, value)),
                    KvWrite::Delete => drop(after.remove(&key)),
                    KvWrite::Add(add) => {
                        let base = after.get(&key).map_or(0, |value| parse(value).unwrap());
                        after.insert(key, (base + add).to_string().into_bytes());
                    }
                }
            }
            prop_assert_eq!(after, model_data);
        }
    }

    #[test]
    fn increments_stay_deltas_and_remember_nothing() {
        let source = MemoryKv::of(&BTreeMap::from([("n".to_owned(), b"40".to_vec())]));
        let mut attempt = Attempt::on(&source);
        now(attempt.kv().increment("n".into(), 1)).unwrap();
        now(attempt.kv().increment("n".into(), 1)).unwrap();
        let (reads, writes) = attempt.stage.into_effects();
        assert_eq!(reads, []);
        assert_eq!(writes["n"], KvWrite::Add(2));
    }

    #[test]
    fn the_version_first_seen_is_the_one_remembered() {
        let source = MemoryKv::of(&BTreeMap::from([("k".to_owned(), b"1".to_vec())]));
        let mut attempt = Attempt::on(&source);
        let first = source.version("k");
        now(attempt.kv().get("k")).unwrap();
        source.put("k", b"2");
        now(attempt.kv().get("k")).unwrap();
        assert_ne!(source.version("k"), first);
        assert_eq!(attempt.stage.into_effects().0, [KvRead::Key { key: "k".into(), version: first }]);
    }

    #[test]
    fn a_long_listing_merges_over_several_pages() {
        let data: BTreeMap<_, _> = (0..350).map(|n| (format!("k{n:03}"), b"v".to_vec())).collect();
        let source = MemoryKv::of(&data);
        let mut attempt = Attempt::on(&source);
        for n in (0..350).step_by(2) {
            now(attempt.kv().delete(format!("k{n:03}"))).unwrap();
        }
        now(attempt.kv().set("k0015".into(), b"mine".to_vec())).unwrap();
        let listed = now(attempt.kv().list("k", Some("k001"), 1000)).unwrap();
        let keys: Vec<_> = listed.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys[..3], ["k0015", "k003", "k005"]);
        assert_eq!(keys.len(), 175);
        assert_eq!(attempt.stage.lists.len(), 4, "each page is remembered");
    }

    #[test]
    fn what_goes_over_a_limit_names_it() {
        let source = MemoryKv::of(&BTreeMap::new());
        let mut attempt = Attempt::on(&source);
        attempt.limits.staged_items = 2;
        attempt.limits.staged_bytes = 1000;
        assert!(problem(now(attempt.kv().get(""))).contains("the key is empty"));
        assert!(problem(now(attempt.kv().set("k".repeat(513), vec![]))).contains("limit `kv_key` is 512 B"));
        assert!(problem(now(attempt.kv().list(&"k".repeat(513), None, 1))).contains("InvalidKey"));
        let huge = vec![0; (256 << 10) + 1];
        assert!(problem(now(attempt.kv().set("k".into(), huge))).contains("limit `kv_value` is 256 KiB"));
        now(attempt.kv().set("a".into(), vec![0; 900])).unwrap();
        let over = problem(now(attempt.kv().set("b".into(), vec![0; 900])));
        assert_eq!(over, "limit `staged_bytes` (1000 B) reached");
        now(attempt.kv().set("a".into(), vec![0; 950])).unwrap();
        now(attempt.kv().delete("b".into())).unwrap();
        assert_eq!(problem(now(attempt.kv().delete("c".into()))), "limit `staged_items` (2) reached");
    }

    #[test]
    fn reads_are_bounded() {
        let source = MemoryKv::of(&BTreeMap::new());
        let mut attempt = Attempt::on(&source);
        for n in 0..READS {
            now(attempt.kv().get(&format!("k{n}"))).unwrap();
        }
        now(attempt.kv().get("k0")).unwrap();
        assert_eq!(problem(now(attempt.kv().get("one more"))), "limit `reads` (10000) reached");
    }

    #[test]
    fn a_listing_is_bounded_in_bytes() {
        let data: BTreeMap<_, _> = (0..20).map(|n| (format!("k{n}"), vec![0; 250 << 10])).collect();
        let source = MemoryKv::of(&data);
        let mut attempt = Attempt::on(&source);
        assert_eq!(problem(now(attempt.kv().list("", None, 1000))), "limit `hostcall` (4 MiB) reached");
        assert_eq!(now(attempt.kv().list("", None, 10)).unwrap().len(), 10);
    }

    #[test]
    fn the_quota_counts_what_is_committed_and_staged_less_what_goes() {
        let data = BTreeMap::from([("a".to_owned(), vec![0; 499]), ("b".to_owned(), vec![0; 399])]);
        let source = MemoryKv::of(&data);
        let mut attempt = Attempt::on(&source);
        attempt.limits.kv_total = 1000;
        now(attempt.kv().set("c".into(), vec![0; 99])).unwrap();
        assert!(problem(now(attempt.kv().set("d".into(), vec![]))).contains("limit `kv_total` (1000 B)"));
        now(attempt.kv().set("a".into(), vec![1; 499])).unwrap();
        now(attempt.kv().delete("b".into())).unwrap();
        now(attempt.kv().set("d".into(), vec![0; 399])).unwrap();
        assert!(problem(now(attempt.kv().increment("n".into(), 1))).contains("Quota"));
    }
}
