//! The conformance suite: what a store promises, in terms of its handle alone. Every engine passes it.
//!
//! A test is a function over [`support::On`], and [`suite!`] names it for each engine:
//! `conformance::sqlite::keys::the_limit_holds_at_the_commit`. A module that asks for a feature is skipped on an
//! engine that lacks it. Failures are injected in the store's own words ([`InjectedFailure`]); a crash is a store opened on a
//! copy of the disk ([`support::Fixture::crashed`]).

mod accepting;
mod catching_up;
mod deciding;
mod durable;
mod emitting;
mod expiring;
mod failing;
mod finding;
mod keys;
mod lanes;
mod ledger;
mod listing;
mod mailing;
mod metering;
mod ordering;
mod random;
mod replaying;
mod revisions;
pub(super) mod support;
mod turns;

use super::Features;

/// A failure of the disk, in the store's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InjectedFailure {
    /// The next batch finds the disk full, and rolls back.
    DiskFull,
    /// The state of the disk is unknown after the next batch.
    InDoubt,
}

/// A feature that a module of the suite needs from an engine.
type Needs = fn(Features) -> bool;

/// Runs each test on each engine, under the engine's name.
macro_rules! suite {
    ($($module:ident($needs:expr): $($test:ident),+;)+) => {
        suite! { @ sqlite = Sqlite; $($module($needs): $($test),+;)+ }
        suite! { @ memory = Memory; $($module($needs): $($test),+;)+ }
    };
    (@ $engine:ident = $on:ident; $($module:ident($needs:expr): $($test:ident),+;)+) => {
        mod $engine {
            $(mod $module {
                use crate::conformance::{self, support::{Fixture, On}, Needs};

                $(#[tokio::test]
                async fn $test() {
                    let needs: Needs = $needs;
                    if needs(Fixture::new(On::$on).store.features()) {
                        conformance::$module::$test(On::$on).await;
                    } else {
                        println!("skipped: {:?} lacks what it needs", On::$on);
                    }
                })+
            })+
        }
    };
}

suite! {
    accepting(|_| true):
        an_event_that_was_answered_is_there_after_a_crash,
        an_event_seen_before_is_a_duplicate_and_makes_nothing,
        of_equal_events_at_once_exactly_one_is_stored,
        a_full_backlog_takes_nothing_more_but_knows_what_it_has,
        an_event_nobody_wants_is_kept_all_the_same,
        a_second_key_that_was_seen_makes_a_duplicate_whatever_the_id,
        several_events_are_stored_together_or_none_is,
        what_is_kept_of_a_request_reaches_its_deliveries_and_its_readers;
    catching_up(|_| true):
        an_event_that_was_asked_for_and_its_webhook_are_one_whichever_comes_first,
        what_is_missing_is_kept_until_it_is_here_and_within_a_bound,
        what_may_have_been_removed_is_known_by_its_time,
        the_events_of_a_source_are_walked_newest_first;
    deciding(|_| true):
        a_decision_takes_effect_once_and_its_answer_is_known_afterwards,
        a_decision_that_did_not_end_begins_again_with_its_number,
        what_changed_meanwhile_is_a_conflict_and_a_fallback_leaves_nothing,
        a_late_decision_is_marked_once_with_its_event,
        decisions_are_listed_newest_first_and_found_by_id,
        old_decisions_leave_and_their_ids_with_them;
    durable(|_| true):
        what_was_told_is_on_disk,
        a_conflict_and_a_lost_lease_are_told_apart,
        many_wait_for_one_commit_together,
        a_full_disk_is_waited_out_and_a_disk_in_doubt_is_told,
        a_conflict_elsewhere_runs_again_at_once_and_is_counted,
        only_what_is_fresh_from_the_inbox_is_certain_not_to_have_run,
        what_is_finished_is_known_and_what_is_unknown_is_not,
        what_is_dead_and_took_effect_after_all_comes_again_and_nothing_else_does;
    emitting(|_| true):
        a_derived_event_comes_with_its_deliveries_when_the_attempt_is_done,
        nothing_is_emitted_without_done,
        a_batch_that_is_taken_back_emits_once_when_it_is_tried_again,
        the_room_for_more_is_known_before_a_commit_and_no_commit_is_refused;
    expiring(|can| can.leases_expire):
        an_expired_lease_is_lost_and_its_delivery_runs_again;
    failing(|_| true):
        after_a_failed_sync_nothing_is_answered_well,
        a_completion_that_finds_the_disk_full_is_not_forgotten,
        what_a_failed_batch_handed_over_is_handed_over_again;
    finding(|can| can.charts):
        a_text_is_found_whatever_its_case_and_an_id_at_once,
        a_search_out_of_time_says_where_it_stopped_and_the_next_goes_on_there,
        every_minute_is_counted_over_a_restart_too,
        dead_letters_are_grouped_by_plugin_and_cause_and_a_group_is_replayed_alone,
        the_newest_event_of_each_source_is_known,
        what_an_operator_does_is_on_disk_before_it_is_done,
        types_are_counted_over_a_day;
    keys(|_| true):
        effects_are_there_with_done_also_after_a_crash,
        what_was_read_and_has_changed_makes_the_attempt_run_again,
        a_key_that_went_and_came_back_has_changed,
        a_listing_that_would_come_out_otherwise_is_a_conflict,
        increments_commute_and_refuse_what_is_no_number,
        the_limit_holds_at_the_commit,
        plugins_do_not_see_one_another,
        attempts_take_effect_as_if_one_after_another;
    lanes(|_| true):
        jobs_come_in_order_and_no_more_than_the_lane_holds,
        what_is_accepted_while_the_lane_has_room_comes_at_once,
        a_retry_waits_until_it_is_due_and_counts_its_attempt,
        what_is_due_for_longest_comes_first,
        a_clock_that_is_set_back_stops_nothing,
        a_lane_that_closes_gives_its_jobs_back_uncounted,
        a_second_lane_takes_over_and_the_first_can_finish_what_it_has,
        only_the_holder_of_the_lease_completes_and_only_once,
        leases_end_with_the_process_and_the_attempt_keeps_its_number,
        deliveries_of_a_held_plugin_show_as_held;
    ledger(|_| true):
        plugins_are_counted_by_themselves,
        the_ledger_adds_up_whatever_happens;
    listing(|_| true):
        events_are_listed_newest_first_page_by_page,
        each_filter_of_events_means_what_it_says,
        each_filter_of_deliveries_means_what_it_says,
        an_event_is_shown_with_all_that_became_of_it;
    mailing(|_| true):
        items_leave_once_and_in_order,
        who_waits_is_woken_by_a_new_item,
        one_who_stopped_waiting_takes_nothing_with_him,
        a_failed_item_waits_is_given_up_and_can_be_sent_again,
        after_a_crash_what_was_being_sent_is_sent_again,
        each_kind_has_a_line_of_its_own,
        the_items_of_one_plugin_take_no_place_that_another_will_need,
        where_no_place_is_left_items_wait_for_one_and_none_is_forgotten;
    metering(|_| true):
        attempts_are_counted_when_they_are_on_disk_with_the_time_that_they_waited,
        a_clock_that_is_set_back_makes_no_time_negative,
        what_is_taken_back_is_counted_as_that_alone,
        a_conflict_is_no_attempt,
        the_oldest_is_known_whether_it_runs_waits_or_is_tried_again,
        what_becomes_of_items_is_counted_by_kind;
    ordering(|_| true):
        one_of_a_key_runs_at_a_time_and_other_keys_beside_it,
        a_retry_a_conflict_and_a_release_hold_back_their_key_alone,
        the_order_outlives_crashes_and_closed_lanes,
        a_batch_that_is_taken_back_lets_the_next_go_once,
        a_clock_that_is_set_back_stops_no_key,
        a_replay_runs_last_of_its_key_and_many_in_the_order_of_the_first,
        a_forgotten_plugin_leaves_nothing_behind_that_nobody_lets_go,
        what_waits_for_its_turn_says_so,
        no_key_runs_out_of_order_whatever_happens;
    random(|_| true):
        any_run_agrees_with_the_model;
    replaying(|_| true):
        dead_letters_are_replayed_once_and_the_count_agrees,
        a_replay_keeps_the_bound_of_the_backlog_and_can_be_continued,
        an_event_is_replayed_for_the_plugins_named,
        a_forgotten_plugin_leaves_dead_letters_and_no_keys,
        old_events_leave_when_all_of_them_is_finished;
    revisions(|_| true):
        each_content_of_a_file_is_remembered_with_its_end_and_not_for_ever;
    turns(|_| true):
        what_is_taken_in_runs_after_a_few_of_them_and_none_is_forgotten,
        a_batch_that_fails_loses_no_turn,
        with_one_order_for_all_they_keep_to_it_and_the_others_follow,
        a_plugin_that_is_forgotten_leaves_none_of_them_behind;
}

// The engine in memory once more, with leases that expire.
suite! {
    @ memory_with_expiry = MemoryWithExpiry;
    expiring(|can| can.leases_expire):
        an_expired_lease_is_lost_and_its_delivery_runs_again;
    lanes(|_| true):
        a_lane_that_closes_gives_its_jobs_back_uncounted,
        only_the_holder_of_the_lease_completes_and_only_once;
    random(|_| true):
        any_run_agrees_with_the_model;
}
