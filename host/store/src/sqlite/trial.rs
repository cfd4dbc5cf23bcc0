//! Chooses the deliveries to try while a plugin's breaker is open (`model/breaker.rs`).
//!
//! Deliveries that have never run show whether the plugin is down or only some events are bad, so they run
//! first. The newest, the oldest and others from in between are tried, because bad events arrive in bursts, and
//! a burst is not everywhere. A look reads at most a few hundred rows, even if many
//! deliveries wait. Later looks find the others, because each look begins at other positions.

use posthouse_model::PluginId;
use rusqlite::{OptionalExtension, Result, params};

use super::session::Session;

/// Rows read from either end of the due deliveries.
const END: i64 = 256;

/// Positions in between at which rows are read.
const PLACES: u64 = 8;

/// Rows read at each of them.
const PLACE: i64 = 32;

/// The index of a plugin's due deliveries: the first ?3 from ?2 on.
const FROM: &str = "
SELECT id, state, attempts, replay_of IS NOT NULL, due_at FROM delivery INDEXED BY delivery_due
WHERE plugin = ?1 AND state IN (0, 2) AND due_at >= ?2 ORDER BY due_at, id LIMIT ?3";

/// The last ?3 up to ?2.
const UP_TO: &str = "
SELECT id, state, attempts, replay_of IS NOT NULL, due_at FROM delivery INDEXED BY delivery_due
WHERE plugin = ?1 AND state IN (0, 2) AND due_at <= ?2 ORDER BY due_at DESC, id DESC LIMIT ?3";

/// The delivery with the fewest attempts among the first ?3 that may run.
const LEAST: &str = "
SELECT id FROM (
    SELECT id, state, attempts, due_at FROM delivery INDEXED BY delivery_due
    WHERE plugin = ?1 AND state IN (0, 2) ORDER BY due_at, id LIMIT ?3)
WHERE state = 0 OR due_at <= ?2 ORDER BY attempts, due_at, id LIMIT 1";

/// A delivery that may run and never has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Untried {
    id: i64,
    replay: bool,
}

impl Session<'_> {
    /// Up to `room` deliveries of a plugin that may run and never have; new events are before replays.
    pub(super) fn untried(&self, plugin: PluginId, room: usize) -> Result<Vec<i64>> {
        let (mut found, first, _) = self.look(FROM, plugin, i64::MIN, END)?;
        let (newest, _, last) = self.look(UP_TO, plugin, self.now, END)?;
        found.extend(newest);
        if let (Some(first), Some(last)) = (first, last)
            && found.len() as i64 >= END
        {
            let span = u64::try_from(last.saturating_sub(first)).unwrap_or(0).saturating_add(1);
            for _ in 0..PLACES {
                let offset = i64::try_from(self.env.random_u64() % span).unwrap_or(0);
                found.extend(self.look(FROM, plugin, first.saturating_add(offset), PLACE)?.0);
            }
        }
        found.sort_unstable();
        found.dedup();
        let (replays, new): (Vec<_>, Vec<_>) = found.into_iter().partition(|untried| untried.replay);
        let mut chosen = spread(new, room, || self.env.random_u64());
        let left = room - chosen.len();
        chosen.extend(spread(replays, left, || self.env.random_u64()));
        Ok(chosen.into_iter().map(|untried| untried.id).collect())
    }

    /// The delivery of a plugin that may run and has used the fewest attempts.
    pub(super) fn least_tried(&self, plugin: PluginId) -> Result<Option<i64>> {
        self.connection
            .prepare_cached(LEAST)?
            .query_row(params![plugin.0, self.now, 2 * END], |row| row.get(0))
            .optional()
    }

    /// The untried deliveries among the rows of one look, and the time range of those rows.
    fn look(
        &self,
        sql: &str,
        plugin: PluginId,
        place: i64,
        rows: i64,
    ) -> Result<(Vec<Untried>, Option<i64>, Option<i64>)> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![plugin.0, place, rows])?;
        let (mut found, mut first, mut last) = (Vec::new(), None::<i64>, None::<i64>);
        while let Some(row) = rows.next()? {
            let (id, state, attempts): (i64, i64, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let due: i64 = row.get(4)?;
            first = Some(first.map_or(due, |first| first.min(due)));
            last = Some(last.map_or(due, |last| last.max(due)));
            if state == 0 && attempts == 0 {
                found.push(Untried { id, replay: row.get(3)? });
            }
        }
        Ok((found, first, last))
    }
}

/// Up to `room` of the deliveries, sorted by age: the newest, the oldest, and others at random.
fn spread<T>(mut sorted: Vec<T>, room: usize, mut random: impl FnMut() -> u64) -> Vec<T> {
    let mut chosen = Vec::with_capacity(room.min(sorted.len()));
    while chosen.len() < room && !sorted.is_empty() {
        let at = match chosen.len() {
            0 => sorted.len() - 1,
            1 => 0,
            _ => usize::try_from(random() % sorted.len() as u64).unwrap_or(0),
        };
        chosen.push(sorted.remove(at));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_the_oldest_and_others_are_chosen_each_once() {
        assert_eq!(spread((0..10).collect(), 4, || 3), [9, 0, 4, 5]);
        assert_eq!(spread(vec![7], 4, || 3), [7]);
        assert_eq!(spread(vec![7, 8], 1, || 3), [8]);
        let mut all = spread((0..100).collect(), 200, || u64::MAX);
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}
