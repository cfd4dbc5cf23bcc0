//! Every metric: its name, its labels and what it tells. `docs/operations.md` has the same table, and
//! `tests/metrics.rs` holds the two against each other, as it does the alerts and the dashboard.
//!
//! Counters count since the daemon started where nothing else is said; times are in seconds. No label takes
//! what a sender or a guest may make up: `source`, `plugin` and `database` are names of the operator's, `type`
//! is one that there is a sample of or `other`, and every other label has a fixed set of values.

/// A metric with so many labels.
pub(super) struct Metric<const N: usize> {
    pub(super) name: &'static str,
    pub(super) labels: [&'static str; N],
    pub(super) help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $name:literal [$($label:literal),*] $help:literal;)+) => {$(
        pub(super) const $constant: Metric<{ 0 $(+ one($label))* }> =
            Metric { name: $name, labels: [$($label),*], help: $help };
    )+};
}

/// Counts a label.
const fn one(_: &str) -> usize {
    1
}

metrics! {
    // The process.
    BUILD "posthouse_build_info" ["version"] "Always 1; the label says which version runs.";
    START "posthouse_start_time_seconds" [] "When the daemon started, in seconds since 1970.";
    CLOCK "posthouse_clock_step_seconds" []
        "How far the time of day has been set forward (or back, below 0) since the daemon started.";
    MEMORY "posthouse_resident_memory_bytes" [] "Memory that the daemon has in use.";
    FILES "posthouse_open_files" [] "Files and connections that the daemon has open.";
    FILES_LIMIT "posthouse_open_files_limit" [] "The most files and connections that it may have open.";
    HEALTHY "posthouse_healthy" [] "1 while /healthz says ok; at 0 only a new start helps.";
    READY "posthouse_ready" [] "1 while /readyz says ready; at 0 senders get 503.";
    RELOADS "posthouse_config_reloads_total" ["outcome"]
        "Times that config.toml was read anew: taken, or refused as it was wrong.";
    RELOADED "posthouse_config_last_reload_successful" []
        "0 while a config.toml lies there that was refused.";

    // Requests.
    RECEIVED "posthouse_requests_received_total" ["source"] "Requests that came.";
    REQUESTS "posthouse_requests_total" ["source", "outcome"]
        "Requests that ended: accepted, duplicate, filtered, rejected or failed.";
    REJECTED "posthouse_requests_rejected_total" ["source", "reason"]
        "Requests that were themselves at fault, by reason.";
    FAILED "posthouse_requests_failed_total" ["source", "reason"]
        "Requests that posthouse could not take in, by reason.";
    UNDER_WAY "posthouse_requests_under_way" ["source"] "Requests that have come and not ended yet.";
    ACCEPT "posthouse_accept_seconds" []
        "From when a new event had come whole until it was on disk.";

    // Deliveries.
    MADE "posthouse_deliveries_made_total" ["plugin"] "Deliveries made since the store was made.";
    DELIVERIES "posthouse_deliveries" ["plugin", "state"]
        "Deliveries ever made, by the state that they are in now.";
    FINISHED "posthouse_deliveries_total" ["plugin", "type", "outcome"]
        "Deliveries that an attempt finished: done, or dead.";
    BACKLOG "posthouse_backlog" ["plugin"] "Deliveries that are neither done nor dead.";
    BACKLOG_LIMIT "posthouse_backlog_limit" []
        "Unfinished deliveries of all plugins at which no more events are taken in.";
    REPLAYS "posthouse_replays_waiting" ["plugin"]
        "Deliveries that were replayed with many others and wait for their turn.";
    OLDEST "posthouse_oldest_delivery_age_seconds" ["plugin"]
        "Age of the oldest delivery that is neither done nor dead; 0 where there is none.";
    DEAD "posthouse_dead_letters" ["plugin"] "Deliveries given up since the store was made.";
    ATTEMPTS "posthouse_attempts_total" ["plugin", "outcome"]
        "Attempts that ended: done, retry (failed, whether it runs again or not) or rejected.";
    ATTEMPT "posthouse_attempt_seconds" ["plugin"]
        "From when an attempt asked for its instance until the guest returned.";
    WAIT "posthouse_queue_wait_seconds" ["plugin"]
        "From when a delivery might have run until its attempt began.";
    CONFLICTS "posthouse_conflicts_total" []
        "Attempts run again because another was in their way, since the store was made.";
    LOST_LEASES "posthouse_lost_leases_total" []
        "Attempts that came to nothing because another held their delivery, since the store was made.";

    // Plugins.
    PLUGIN_STATE "posthouse_plugin_state" ["plugin", "state"] "1 for the state that the plugin is in.";
    PLUGIN_ERROR "posthouse_plugin_error" ["plugin"]
        "1 while the newest file of the plugin does not load, whether an older one serves or not.";
    BREAKER "posthouse_plugin_breaker" ["plugin", "state"]
        "1 for where the plugin's circuit breaker stands: closed, open or half-open.";
    LOADS "posthouse_plugin_loads_total" ["plugin", "outcome"] "Files of the plugin: loaded, or failed to.";
    INSTANCES "posthouse_instances" ["use"] "Instances of guests that run, or rest to be used again.";
    INSTANCES_LIMIT "posthouse_instances_limit" ["use"] "The most of them at once; a further one waits.";
    CONNECTIONS "posthouse_database_connections" ["database"]
        "Transactions of attempts that are under way on a database.";
    CONNECTIONS_LIMIT "posthouse_database_connections_limit" ["database"]
        "The most of them at once; a further one waits.";

    // The outbox.
    SENT "posthouse_outbox_total" ["kind", "outcome"]
        "Attempts to send a mail or a request: sent, retry (to be tried again) or dead (given up).";
    UNSENT "posthouse_outbox_waiting" ["kind"] "Mails and requests that are neither sent nor given up.";
    ITEMS "posthouse_outbox_items" ["state"] "Outbox items ever staged, by the state that they are in now.";

    // The store.
    STORE_STATE "posthouse_store_state" ["state"]
        "1 for how the store stands: writing, failing (most likely its disk is full) or stopped.";
    COMMIT "posthouse_commit_seconds" [] "What a commit of the store took, its sync included.";
    BATCH "posthouse_commit_batch_operations" [] "Operations that were committed together.";
    FAILED_COMMITS "posthouse_failed_commits_total" [] "Batches of the store's writer that were taken back.";
    STORE_SIZE "posthouse_store_bytes" [] "Size of the store's file.";
    STORE_LIVE "posthouse_store_live_bytes" [] "What of the store's file is in use.";
    STORE_LIMIT "posthouse_store_limit_bytes" []
        "What may be in use before finished events leave for it; 0 where there is no bound.";
    WAL_SIZE "posthouse_wal_bytes" [] "Size of the store's write-ahead log.";
    DISK_FREE "posthouse_disk_free_bytes" [] "Room that is left on the disk of the store.";
    DISK_LEAST "posthouse_disk_min_free_bytes" []
        "Room at which no more events are taken in; 0 where there is no bound.";
    DISK_SIZE "posthouse_disk_bytes" [] "Size of the disk of the store.";
    READERS "posthouse_store_readers" ["pool"] "Connections that are reading the store.";
    READERS_LIMIT "posthouse_store_readers_limit" ["pool"] "The most of them at once; a further one waits.";
}
