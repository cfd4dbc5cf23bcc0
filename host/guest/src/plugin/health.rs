//! Opens and closes the breakers of plugins, by the results of their attempts. The policy is in `breaker.rs`.
//!
//! Each attempt reports its plugin's health ([`Health`]). Only a report that opens or closes a breaker waits
//! for the right to change the list.

use std::time::Duration;

use posthouse_model::{DeliveryId, Env, FailedTrial, Trip};
use posthouse_store::PluginChange;

use super::{
    breaker::{Health, Verdict},
    list::List,
    running::Plugin,
};

/// Records how an attempt of this delivery went. Opens or closes the plugin's breaker if needed.
pub(super) async fn record(list: &List, env: &Env, plugin: &Plugin, delivery: DeliveryId, health: Health) {
    match plugin.judge(delivery, health, env.now()) {
        Verdict::Unchanged => {}
        Verdict::Open(failures) => open(list, env, plugin, failures).await,
        Verdict::Close => close(list, env, plugin).await,
    }
}

async fn open(list: &List, env: &Env, plugin: &Plugin, failures: u32) {
    // Marked at once, so that no attempt begins while this is being recorded.
    if !plugin.streak().trip() {
        return;
    }
    let now = env.now();
    let opened = turn(list, plugin, |current| {
        current.trip().is_none().then(|| Some(Trip::first(failures, now, current.pauses())))
    })
    .await;
    if opened {
        tracing::warn!(
            plugin = plugin.record.name,
            failures,
            "different deliveries failed in a row; only some that have never run are tried"
        );
    } else {
        plugin.streak().untrip();
    }
}

async fn close(list: &List, env: &Env, plugin: &Plugin) {
    let (mut was, now) = (None, env.now());
    let closed = turn(list, plugin, |current| {
        was = current.trip();
        was.map(|_| None)
    })
    .await;
    if let Some(trip) = was.filter(|_| closed) {
        plugin.streak().close(trip, now, plugin.pauses());
        tracing::info!(plugin = plugin.record.name, "an attempt succeeded; all deliveries run again");
    }
}

/// Records that every delivery of a trial of this plugin has failed. Returns false if the breaker has
/// changed since the trial began, or if the store did not record this. The trial goes on then.
pub(super) async fn trial_failed(list: &List, env: &Env, plugin: &Plugin, failed: FailedTrial) -> bool {
    let now = env.now();
    let mut next = None;
    let turned = turn(list, plugin, |current| {
        // After a resume, another revision or the end of a pause, this trial's result is outdated.
        next = current
            .trip()
            .filter(|_| current.trip() == plugin.trip())
            .map(|trip| trip.again(now, failed, current.pauses()));
        next.map(Some)
    })
    .await;
    if let Some(Trip { failures, pauses, until, untried_from, .. }) = next.filter(|_| turned) {
        let (name, untried) = (&plugin.record.name, untried_from.map(tracing::field::display));
        if pauses == 2 {
            tracing::error!(
                plugin = name, failures, untried, %until,
                "the plugin fails whatever it is given and is paused on its own; its deliveries are held"
            );
        } else {
            tracing::warn!(
                plugin = name, failures, pauses, untried, %until,
                "what was tried failed; the plugin stays paused"
            );
        }
    }
    turned
}

/// Sets the plugin's breaker to the result of `turn`, in the store first. Returns false if it is not set.
async fn turn(list: &List, plugin: &Plugin, turn: impl FnOnce(&Plugin) -> Option<Option<Trip>>) -> bool {
    let name = &plugin.record.name;
    let edit = list.edit().await;
    let Some(current) = list.by_name(name).filter(|current| current.counts_with(plugin)) else {
        return false;
    };
    let Some(trip) = turn(&current) else { return false };
    if let Err(error) = edit.commit(current.with_trip(trip), PluginChange::Held).await {
        tracing::warn!(plugin = name, %error, "the store could not record the state of the breaker");
        return false;
    }
    true
}

/// How long until the next trial of a plugin whose breaker is open.
pub(super) fn next_trial(list: &List, env: &Env) -> Option<Duration> {
    let now = env.now();
    list.snapshot().plugins().filter_map(|plugin| plugin.trip()?.next(now, plugin.pauses())).min()
}

/// Begins the trials that are due.
pub(super) async fn begin_trials(list: &List, env: &Env) {
    let edit = list.edit().await;
    let now = env.now();
    for plugin in list.all() {
        let Some(trip) = plugin.trip() else { continue };
        let next = trip.at(now, plugin.pauses());
        if next != trip {
            // Not recorded, because a restart begins a trial at once.
            edit.publish(plugin.with_trip(Some(next)));
            tracing::debug!(
                plugin = plugin.record.name,
                any = next.trying,
                "a pause is over; a trial begins"
            );
        }
    }
}
