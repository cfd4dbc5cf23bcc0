//! The session's memory of each open lane. With it, a batch need not query the tables for waiting deliveries.
//!
//! A batch's entries here are valid once it has committed. A rollback clears them, and the next refill reads the
//! tables again.

use std::collections::HashMap;

use posthouse_model::PluginId;

use super::{counters::Tally, schema::code};

use crate::engine::Room;

/// The lanes, as the last batch had them.
#[derive(Default)]
pub(super) struct Lines(pub(super) HashMap<PluginId, Line>);

/// One lane.
pub(super) struct Line {
    pub(super) room: Room,
    /// Jobs leased by this batch, minus leases that it ended.
    staged: isize,
    /// When the earliest waiting delivery is due, or an earlier time; `i64::MAX` if none waits.
    pub(super) next_due: i64,
    /// Whether there may be deferred deliveries.
    pub(super) deferred: bool,
    /// The count of deliveries that had become ready when a trial last looked for one; none if it has not
    /// looked.
    pub(super) looked: Option<u64>,
    /// Whether the batch names it.
    is_open: bool,
}

impl Line {
    fn new(room: Room) -> Self {
        Self { room, staged: 0, next_due: 0, deferred: true, looked: None, is_open: true }
    }

    /// The jobs that count against the capacity.
    pub(super) fn held(&self) -> usize {
        self.room.held.saturating_add_signed(self.staged)
    }

    pub(super) fn free(&self) -> usize {
        self.room.capacity.saturating_sub(self.held())
    }

    /// Whether there is enough room for a refill to be worth a read.
    pub(super) fn wants(&self) -> bool {
        match self.room.trial {
            Some(_) => self.free() > 0,
            None => self.free() * 2 >= self.room.capacity,
        }
    }

    /// When it next has something to take; `i64::MAX` if nothing waits.
    pub(super) fn due(&self, tally: &Tally) -> i64 {
        match self.room.trial {
            None if tally.states[code::READY as usize] > 0 => 0,
            None => self.next_due,
            Some(_) if self.looked != Some(tally.arrived) => 0,
            Some(trial) if trial.any && self.held() == 0 => self.next_due,
            Some(_) => i64::MAX,
        }
    }
}

impl Lines {
    /// A batch begins, with these lanes open.
    pub(super) fn begin(&mut self, rooms: &[Room]) {
        for line in self.0.values_mut() {
            line.is_open = false;
        }
        for room in rooms {
            let line = self.0.entry(room.plugin).or_insert_with(|| Line::new(*room));
            if line.room.lane == room.lane {
                (line.room, line.staged, line.is_open) = (*room, 0, true);
            } else {
                *line = Line::new(*room);
            }
        }
        self.0.retain(|_, line| line.is_open);
    }

    /// The plugin's lane, if a new delivery may be leased to it at once: it has room, and no older delivery
    /// waits.
    pub(super) fn may_take(&self, plugin: PluginId, older_ready: bool, now: i64) -> Option<u64> {
        let line = self.0.get(&plugin).filter(|line| line.room.trial.is_none())?;
        (!older_ready && line.next_due > now && line.free() > 0).then_some(line.room.lane)
    }

    /// The lane has one more job.
    pub(super) fn leased(&mut self, plugin: PluginId) {
        if let Some(line) = self.0.get_mut(&plugin) {
            line.staged += 1;
        }
    }

    /// A lease of this lane has ended.
    pub(super) fn ended(&mut self, plugin: PluginId, lane: u64) {
        if let Some(line) = self.0.get_mut(&plugin).filter(|line| line.room.lane == lane) {
            line.staged -= 1;
        }
    }

    /// A delivery of this plugin is stored, and waits until this time.
    pub(super) fn waits(&mut self, plugin: PluginId, due: i64) {
        if let Some(line) = self.0.get_mut(&plugin) {
            line.next_due = line.next_due.min(due);
        }
    }

    /// A delivery of this plugin is stored, and is deferred.
    pub(super) fn has_deferred(&mut self, plugin: PluginId) {
        if let Some(line) = self.0.get_mut(&plugin) {
            line.deferred = true;
        }
    }

    /// When a lane with room next has something to take; none if nothing waits.
    pub(super) fn next_due(&self, tally: impl Fn(PluginId) -> Tally) -> Option<i64> {
        self.0
            .iter()
            .filter(|(_, line)| line.wants())
            .map(|(&plugin, line)| line.due(&tally(plugin)))
            .filter(|&due| due != i64::MAX)
            .min()
    }

    /// After a rollback.
    pub(super) fn undo(&mut self) {
        for line in self.0.values_mut() {
            (line.staged, line.next_due, line.deferred, line.looked) = (0, 0, true, None);
        }
    }
}
