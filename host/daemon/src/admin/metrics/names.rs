//! Every metric: its name, its labels and its description. `docs/operations.md` has the same table.
//! `tests/metrics.rs` compares the two, and checks the names in the alerts and the dashboard.
//!
//! Counters count since the daemon started, unless the description says otherwise; times are in seconds. No
//! label contains text that a sender or a guest can choose: the operator names `source`, `interceptor`, `plugin` and
//! `database`, `type` is a type with a sample or `other`, and every other label has a fixed set of values.

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
        "By how much the system clock was set forward (or back, below 0) since the daemon started.";
    MEMORY "posthouse_resident_memory_bytes" [] "Resident memory of the daemon.";
    FILES "posthouse_open_files" [] "Files and connections that the daemon has open.";
    FILES_LIMIT "posthouse_open_files_limit" [] "Limit of open files and connections.";
    HEALTHY "posthouse_healthy" [] "1 while /healthz answers 200; at 0 only a restart helps.";
    READY "posthouse_ready" [] "1 while /readyz answers 200; at 0 senders get 503.";
    RELOADS "posthouse_config_reloads_total" ["outcome"]
        "Reloads of config.toml: applied or rejected.";
    RELOADED "posthouse_config_last_reload_successful" []
        "0 while the daemon rejects the present config.toml.";

    // Requests.
    RECEIVED "posthouse_requests_received_total" ["source"] "Requests received.";
    REQUESTS "posthouse_requests_total" ["source", "outcome"]
        "Requests finished, by outcome: accepted, duplicate, filtered, rejected or failed.";
    REJECTED "posthouse_requests_rejected_total" ["source", "reason"]
        "Requests rejected because of an error in the request, by reason.";
    FAILED "posthouse_requests_failed_total" ["source", "reason"]
        "Requests that posthouse could not store, by reason.";
    UNDER_WAY "posthouse_requests_under_way" ["source"] "Requests being processed.";
    ACCEPT "posthouse_accept_seconds" []
        "Time from the last byte of a new event until it is on disk.";

    // Catching up.
    CATCH_UPS "posthouse_catch_ups_total" ["source", "outcome"]
        "Comparisons of a sender's list with the store: complete or failed.";
    CATCH_UP_REQUESTS "posthouse_catch_up_requests_total" ["source"] "Requests to a sender for its list of events.";
    CATCH_UP_FOUND "posthouse_catch_up_missing_total" ["source"]
        "Events that were found to be missing: listed by the sender, and not here.";
    CATCH_UP_TAKEN_IN "posthouse_catch_up_taken_in_total" ["source"] "Missing events that were taken in.";
    CATCH_UP_MISSING "posthouse_catch_up_missing" ["source"]
        "Events that the sender lists and that are not here, as of the last comparison; 1,000 at most.";
    CATCH_UP_COMPLETE "posthouse_catch_up_complete_time_seconds" ["source"]
        "When the last complete comparison ended, in seconds since 1970; 0 if there was none since the start.";
    // Interceptors.
    DECISIONS "posthouse_decisions_total" ["interceptor", "decision"]
        "Decisions of plugins: ALLOW or DENY.";
    FALLBACKS "posthouse_decision_fallbacks_total" ["interceptor", "cause"]
        "Answers of interceptors without a decision, by cause.";
    REPEATED "posthouse_decisions_repeated_total" ["interceptor"]
        "Requests of interceptors with a known id, which got the recorded answer.";
    LATE "posthouse_decisions_late_total" ["interceptor"]
        "Decisions that committed after another answer had been sent.";
    OVERRULED "posthouse_decisions_overruled_total" ["interceptor"]
        "Decisions that deny, and were answered with ALLOW because of `enforce = false`.";
    DECISION "posthouse_decision_seconds" ["interceptor"]
        "Time from the request of an interceptor to its answer.";

    // Deliveries.
    MADE "posthouse_deliveries_made_total" ["plugin"] "Deliveries created since the store was created.";
    DELIVERIES "posthouse_deliveries" ["plugin", "state"]
        "Deliveries ever created, by their present state.";
    FINISHED "posthouse_deliveries_total" ["plugin", "type", "outcome"]
        "Deliveries finished by an attempt: done or dead.";
    BACKLOG "posthouse_backlog" ["plugin"] "Unfinished deliveries: neither done nor dead.";
    BACKLOG_LIMIT "posthouse_backlog_limit" []
        "Limit of unfinished deliveries, over all plugins, beyond which events get 503.";
    REPLAYS "posthouse_replays_waiting" ["plugin"]
        "Deferred deliveries: replayed with many others, and waiting for their turn.";
    OLDEST "posthouse_oldest_delivery_age_seconds" ["plugin"]
        "Age of the oldest unfinished delivery; 0 if there is none.";
    DEAD "posthouse_dead_letters" ["plugin"] "Deliveries that became dead letters since the store was created.";
    ATTEMPTS "posthouse_attempts_total" ["plugin", "outcome"]
        "Attempts by outcome: done, retry (failed, whether it is retried or not) or rejected.";
    ATTEMPT "posthouse_attempt_seconds" ["plugin"]
        "Duration of an attempt, from the request for its instance until the guest returned.";
    WAIT "posthouse_queue_wait_seconds" ["plugin"]
        "Time from when a delivery was due until its attempt began.";
    CONFLICTS "posthouse_conflicts_total" []
        "Attempts repeated after a transaction conflict, since the store was created.";
    LOST_LEASES "posthouse_lost_leases_total" []
        "Attempts dropped because another attempt held the lease of the delivery, since the store was created.";

    // Plugins.
    PLUGIN_STATE "posthouse_plugin_state" ["plugin", "state"] "1 for the present state of the plugin.";
    PLUGIN_ERROR "posthouse_plugin_error" ["plugin"]
        "1 while the newest file of the plugin does not load, even if an older revision serves.";
    BREAKER "posthouse_plugin_breaker" ["plugin", "state"]
        "1 for the state of the plugin's circuit breaker: closed, open or half-open.";
    LOADS "posthouse_plugin_loads_total" ["plugin", "outcome"] "Loads of the plugin's file: loaded or failed.";
    INSTANCES "posthouse_instances" ["use"] "Guest instances: running, idle for reuse, or deciding.";
    INSTANCES_LIMIT "posthouse_instances_limit" ["use"] "Limit of guest instances; further ones wait.";
    CONNECTIONS "posthouse_database_connections" ["database"]
        "Open transactions of attempts on a database.";
    CONNECTIONS_LIMIT "posthouse_database_connections_limit" ["database"]
        "Limit of open transactions; further ones wait.";

    // The outbox.
    SENT "posthouse_outbox_total" ["kind", "outcome"]
        "Attempts to send a mail or a request, by outcome: sent, retry (failed, and retried later) or dead.";
    UNSENT "posthouse_outbox_waiting" ["kind"] "Mails and requests that are neither sent nor dead.";
    ITEMS "posthouse_outbox_items" ["state"] "Outbox items ever staged, by their present state.";

    // The store.
    STORE_STATE "posthouse_store_state" ["state"]
        "1 for the state of the store: writing, failing (most likely its disk is full) or stopped.";
    COMMIT "posthouse_commit_seconds" [] "Duration of a commit of the store, its sync included.";
    BATCH "posthouse_commit_batch_operations" [] "Operations in one commit.";
    FAILED_COMMITS "posthouse_failed_commits_total" [] "Batches of the store's writer that were rolled back.";
    STORE_SIZE "posthouse_store_bytes" [] "Size of the store's file.";
    STORE_LIVE "posthouse_store_live_bytes" [] "Bytes of the store's file that are in use.";
    STORE_LIMIT "posthouse_store_limit_bytes" []
        "Bytes in use beyond which finished events are removed; 0 if there is no limit.";
    WAL_SIZE "posthouse_wal_bytes" [] "Size of the store's write-ahead log.";
    DISK_FREE "posthouse_disk_free_bytes" [] "Free space on the disk of the store.";
    DISK_LEAST "posthouse_disk_min_free_bytes" []
        "Free space below which events get 503; 0 if there is no limit.";
    DISK_SIZE "posthouse_disk_bytes" [] "Size of the disk of the store.";
    READERS "posthouse_store_readers" ["pool"] "Connections that read the store now.";
    READERS_LIMIT "posthouse_store_readers_limit" ["pool"] "Limit of connections that read the store; further reads wait.";
}
