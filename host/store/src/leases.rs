//! The leases of this process, for an engine that keeps their tokens in memory.
//!
//! A lease begins and ends within a batch. [`Leases::settle`] makes that final after the commit, and
//! [`Leases::undo`] reverts it after a rollback. A new process knows no tokens, so no lease of an earlier one
//! is valid.

use std::collections::{BTreeMap, HashMap};

use posthouse_model::{DeliveryId, Job, LeaseToken, OrderKey, PluginId};

use super::engine::Room;

/// The leases, and the changes of the current batch.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_delivery: BTreeMap<DeliveryId, Lease>,
    /// Created by this batch.
    given: Vec<DeliveryId>,
    /// Ended by this batch.
    ended: Vec<(DeliveryId, Lease)>,
    /// Created and ended by this batch: their jobs must not be sent.
    void: Vec<DeliveryId>,
    last_token: i64,
    /// The last token of earlier batches.
    settled: i64,
}

/// The right to complete a delivery.
#[derive(Debug)]
pub(super) struct Lease {
    token: LeaseToken,
    /// The lane that holds the job.
    pub(super) lane: u64,
    /// The order key of the delivery.
    pub(super) order_key: Option<OrderKey>,
}

impl Leases {
    /// Leases a delivery to a lane.
    pub(super) fn give(
        &mut self,
        delivery: DeliveryId,
        lane: u64,
        order_key: Option<OrderKey>,
    ) -> LeaseToken {
        self.last_token += 1;
        let token = LeaseToken(self.last_token);
        self.by_delivery.insert(delivery, Lease { token, lane, order_key });
        self.given.push(delivery);
        token
    }

    /// The lease of a job, if it is valid.
    pub(super) fn of(&self, job: &Job) -> Option<&Lease> {
        self.by_delivery.get(&job.delivery).filter(|lease| lease.token == job.token)
    }

    /// Ends a lease. Returns the lane that held it and the delivery's order key.
    pub(super) fn end(&mut self, delivery: DeliveryId) -> Option<(u64, Option<OrderKey>)> {
        let lease = self.by_delivery.remove(&delivery)?;
        let (lane, order_key) = (lease.lane, lease.order_key.clone());
        if lease.token.0 > self.settled {
            self.void.push(delivery);
        } else {
            self.ended.push((delivery, lease));
        }
        Some((lane, order_key))
    }

    /// The lowest id of a leased delivery.
    pub(super) fn lowest(&self) -> Option<DeliveryId> {
        self.by_delivery.first_key_value().map(|(delivery, _)| *delivery)
    }

    /// The leased delivery with the lowest id of each open lane.
    pub(super) fn oldest(&self, rooms: &[Room]) -> Vec<(PluginId, DeliveryId)> {
        let mut oldest = HashMap::new();
        for (delivery, lease) in &self.by_delivery {
            oldest.entry(lease.lane).or_insert(*delivery);
        }
        rooms.iter().filter_map(|room| Some((room.plugin, *oldest.get(&room.lane)?))).collect()
    }

    /// After the commit. Removes the jobs whose leases the batch has also ended, and returns the lane of each
    /// other lease that ended.
    pub(super) fn settle(&mut self, jobs: &mut Vec<Job>) -> Vec<u64> {
        if !self.void.is_empty() {
            jobs.retain(|job| !self.void.contains(&job.delivery));
            self.void.clear();
        }
        self.given.clear();
        self.settled = self.last_token;
        self.ended.drain(..).map(|(_, lease)| lease.lane).collect()
    }

    /// After a rollback.
    pub(super) fn undo(&mut self) {
        for delivery in self.given.drain(..) {
            self.by_delivery.remove(&delivery);
        }
        self.by_delivery.extend(self.ended.drain(..));
        self.void.clear();
    }
}
