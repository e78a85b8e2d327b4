//! The pump and everything around it, driven through `Hub::run` against a scripted world.
//!
//! What is easy to get wrong in a run, and which tests hold it:
//!
//! | what | tests |
//! |---|---|
//! | a checkpoint never stands inside a group of equal `_updated`; max is saved at the end only | `continuation::{a_checkpoint_inside_a_group_of_equal_values_skips_nothing, every_failure_inside_a_group_still_brings_all_of_it, the_last_value_of_a_chronological_source_counts_even_when_it_is_lower, max_is_saved_only_at_the_end_of_a_successful_run, max_never_goes_down, max_compares_numbers_by_value_and_strings_by_byte, digit_strings_of_unequal_length_are_warned_of, values_of_two_types_fail_and_both_are_shown}` |
//! | progress counts what the source gave, also what was dropped; what is set aside is durable first | `continuation::{what_is_dropped_on_the_way_moves_the_offset_too, a_checkpoint_counts_what_was_dropped}`, `steps::what_is_set_aside_is_durable_before_the_offset_passes_it` |
//! | a full run stays one over failures and restarts; what is not chronological starts over | `full_runs::{a_full_run_stays_full_over_a_restart, a_failed_full_run_of_a_chronological_source_resumes_with_what_it_saw, a_full_run_that_is_not_chronological_starts_over, a_rescan_that_fails_after_a_failed_full_run_deletes_nothing_that_is_there, a_full_run_whose_first_steps_met_nothing_resumes_with_all_that_it_saw}`; pushes: `sink::full_runs_start_over_and_incremental_ones_go_on` of the connectors |
//! | seen is what came out, changed or not, failed or not; a run that is not whole deletes nothing | `full_runs::{entities_that_were_set_aside_count_as_seen, a_filtered_entity_is_deleted, a_failed_full_run_deletes_nothing, a_run_that_is_stopped_deletes_nothing, an_empty_source_deletes_all_or_fails_as_configured}`; bodies that end early: `truncated` of the connectors |
//! | a rescan beside runs leaves alone what a run touched, also without a version; the other way round where the source changed | `rescans::{a_rescan_overwrites_and_deletes_nothing_that_a_run_wrote_meanwhile, what_a_run_was_given_and_did_not_have_to_write_is_not_overwritten_either, where_a_merged_source_changed_the_rescan_has_the_last_word}`, `rescans_at_random`, `tests/test_rescans.py` |
//! | runs that do nothing commit nothing; that a run began is told late and backdated | `steps::a_run_that_does_nothing_commits_nothing`, `execution_log::runs_that_do_nothing_leave_no_trace`, `started` |
//! | what is joined is followed from ends that were taken before, by every version since, the source's entity as the pipe has seen it | `dependencies::{a_changed_entity_brings_those_that_it_is_joined_with, a_join_that_disappears_is_known_by_the_version_before, what_changes_while_a_full_run_goes_on_is_the_next_ones, what_the_source_holds_back_is_processed_as_the_pipe_has_seen_it, who_joins_its_own_sink_comes_to_rest}`, `dependencies_at_random` |
//! | groups come apart again, replaced ids go with the new ones, a key that everybody has is named | `merge::{every_step_of_every_case_gives_what_it_says, too_many_that_are_the_same_fail_with_the_value}`, `merge_at_random` |
//! | completeness is that of the run's beginning and of its inputs before they are read; what is held back is stopped before, never skipped, and populates nothing | `completeness::{an_inbound_pipe_gives_the_time_at_which_its_run_began, a_failed_run_promises_nothing, a_source_stops_before_what_is_newer_and_goes_on_there, what_is_held_back_is_neither_skipped_by_a_subset_nor_by_replaced_entities, a_run_that_holds_back_deletes_nothing, what_is_held_back_altogether_populates_nothing, a_flow_that_is_always_busy_is_populated_when_its_beginning_came_through}` |
//! | JSON push repeats a request under its id; a conflict begins anew | `sink::{a_write_that_is_repeated_repeats_its_id_and_its_link, single_entities_after_a_failed_batch_are_links_of_the_same_chain, a_conflict_ends_the_run_for_good}` of the connectors, `receivers::a_repeated_last_request_is_answered_and_does_nothing` |
//! | a request is one commit, durable before the answer where that is wanted; its sequence survives a restart | `steps::{a_post_is_one_commit_that_is_durable_before_the_answer, a_post_waits_for_the_disk_where_the_pipe_wants_that}`, `receivers` |
//! | readers never see a run that trips, and all of one that does not at once; signals come with that | `breaker::{the_first_load_trips_nothing_and_a_run_within_the_limit_is_shown_at_its_end, a_run_that_changes_too_much_is_never_seen_and_stops_the_pipe, rolled_back_it_is_as_before_the_run, committed_it_is_there_and_the_pipe_goes_on_behind_it, what_a_node_that_was_killed_left_behind_is_taken_back}`, `posted_breaker::a_full_sequence_is_seen_whole_with_its_last_request`, `moments::a_run_that_trips_signals_nobody`, `stories::trips` |
//! | `_ts` goes up whatever the clock does; a batch has one `now` | `contract::writes::time_never_stands_still_or_goes_back` of the store, `moments` |
//! | an offset is of a generation, and a restored dataset knows which offsets it shares | `full_runs::a_dataset_that_was_made_anew_upstream_is_read_from_its_start`, `backup::a_restored_dataset_is_another_generation` of the store, `tests/test_backup.py` |
//! | kill -9 proves nothing about syncs: only a disk that loses what was not synced does | `power`, `stories` at every moment, `crash` of the store |
#![allow(clippy::unwrap_used)]

mod apply;
mod breaker;
mod cardinality;
mod check;
mod children;
mod compaction;
mod completeness;
mod continuation;
mod datasets;
mod dependencies;
mod dependencies_at_random;
mod entity_types;
mod every_moment;
mod execution_log;
mod faulty;
mod full_runs;
mod idle;
mod indexes;
mod large;
mod lineage;
mod lookup;
#[allow(dead_code, reason = "the store's tests use more of it")]
#[path = "../../../store/tests/it/lying_disk.rs"]
mod lying_disk;
mod many_datasets;
mod many_failed;
mod members_at_random;
mod merge;
mod merge_at_random;
mod middle;
mod moments;
mod namespaces;
mod partial_rescans;
mod places_by_hand;
mod posted_breaker;
mod power;
mod preview;
mod receivers;
mod refusals;
mod reprocessing;
mod rescans;
mod rescans_at_random;
mod rescans_scheduled;
mod rounds;
mod scheduler;
mod script;
mod secrets;
mod settle;
mod sink_demands;
mod stage;
mod started;
mod steps;
mod stories;
mod subsets;
mod terms;
mod transform_errors;
mod watched;
mod world;
mod write_errors;
