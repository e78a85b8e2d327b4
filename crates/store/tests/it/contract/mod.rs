//! What every backend promises. Each test runs over memory, over disk, and over disk with limits
//! so small that segments roll, indexes are written and environments are closed all the time.

pub mod compaction;
mod hold;
pub mod indexes;
mod reads;
mod writes;

use std::sync::Arc;

use tahini_store::{Backend, Dataset, Files, Memory, Options};

use compaction::*;
use hold::*;
use indexes::*;
use reads::*;
use writes::*;

/// Limits that make everything happen that big datasets see.
pub fn tiny() -> Options {
    Options {
        segment_bytes: 2_000,
        overlay_keys: 5,
        overlay_state_bytes: 4_000,
        idle_keys: 0,
        open_indexes: 1,
        map_bytes: 1 << 20,
        ..Options::default()
    }
}

pub fn on_disk(options: Options, test: fn(&dyn Backend)) {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::open(dir.path(), options).unwrap();
    test(&files);
}

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod memory { $(#[test] fn $test() { super::$test(&super::Memory::new()) })* }
        mod files { $(#[test] fn $test() { super::on_disk(super::Options::default(), super::$test) })* }
        mod tiny_files { $(#[test] fn $test() { super::on_disk(super::tiny(), super::$test) })* }
    };
}

contract!(
    datasets_are_made_found_listed_and_removed,
    a_version_is_written_only_when_content_or_deletion_changes,
    versions_count_from_zero_and_know_the_one_before,
    time_never_stands_still_or_goes_back,
    an_unknown_deleted_entity_writes_nothing,
    one_commit_may_hold_an_id_twice,
    the_optimistic_rule_is_all_or_nothing,
    one_version_of_an_id_may_be_all,
    what_did_not_change_can_be_written_once_more,
    touched_versions_are_left_alone,
    a_commit_may_remember_which_versions_it_met,
    rows_need_an_id,
    order_of_names_is_no_change,
    types_and_digits_are_changes,
    reserved_names_are_dropped,
    every_kind_of_value_comes_back,
    latest_answers_in_the_order_of_the_question,
    long_ids_are_told_apart,
    changes_come_in_pages,
    changes_come_backwards,
    a_page_in_bytes_holds_at_least_one_row,
    versions_of_one_id,
    unseen_walks_in_pages,
    state_is_listed_by_prefix,
    state_keys_may_be_long,
    state_is_read_in_pages,
    state_alone_is_a_commit,
    the_populated_flag_stays,
    counts_follow_deletion,
    a_snapshot_keeps_what_it_saw,
    readers_see_whole_commits_while_writers_go_on,
    two_writers_lose_nothing,
    many_shapes_and_wide_shapes_are_kept,
    the_newest_versions_stay,
    pages_go_over_gaps,
    young_versions_stay,
    without_a_number_to_keep_ids_are_trimmed_by_time,
    readers_hold_versions_back,
    old_deletions_go_with_their_history,
    retracting_keeps_the_latest_version,
    erased_ids_are_gone_and_begin_anew,
    state_outlives_compaction,
    a_snapshot_holds_back_what_it_needs,
    a_stopped_compaction_goes_on,
    compaction_runs_beside_writers_and_readers,
    what_is_held_back_is_seen_when_it_is_shown,
    what_is_held_back_may_be_taken_back,
    beside_what_is_held_back_nothing_else_is_written,
    a_commit_that_changes_nothing_holds_nothing_back,
    an_index_leads_to_the_latest_versions,
    an_index_tells_what_left_a_key,
    an_index_is_read_in_pages_both_ways,
    an_index_shows_a_snapshot_what_it_knew,
    indexes_come_and_go_as_they_are_declared,
    an_index_is_built_anew_on_demand,
    indexes_follow_compaction,
    an_index_says_what_a_look_at_all_versions_says,
);

fn orders(backend: &dyn Backend) -> Arc<dyn Dataset> {
    backend.open("orders", true).unwrap()
}
