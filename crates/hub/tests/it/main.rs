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
//! | JSON push repeats a request under its id; a conflict begins anew | `sink::{a_write_that_is_repeated_repeats_its_id_and_its_link, single_entities_after_a_failed_batch_are_links_of_the_same_chain, a_conflict_ends_the_run_for_good}` of the connectors, `receivers::a_repeated_last_request_is_answered_and_does_nothing` |
//! | a request is one commit, durable before the answer where that is wanted; its sequence survives a restart | `steps::{a_post_is_one_commit_that_is_durable_before_the_answer, a_post_waits_for_the_disk_where_the_pipe_wants_that}`, `receivers` |
//! | `_ts` goes up whatever the clock does; a batch has one `now` | `contract::writes::time_never_stands_still_or_goes_back` of the store, `moments` |
//! | an offset is of a generation, and a restored dataset knows which offsets it shares | `full_runs::a_dataset_that_was_made_anew_upstream_is_read_from_its_start`, `backup::a_restored_dataset_is_another_generation` of the store, `tests/test_backup.py` |
//! | kill -9 proves nothing about syncs: only a disk that loses what was not synced does | `power`, `crash` of the store |
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
mod execution_log;
mod faulty;
mod full_runs;
mod idle;
mod indexes;
mod lineage;
mod lookup;
#[allow(dead_code, reason = "the store's tests use more of it")]
#[path = "../../../store/tests/it/lying_disk.rs"]
mod lying_disk;
mod many_datasets;
mod many_failed;
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
mod scheduler;
mod script;
mod secrets;
mod settle;
mod sink_demands;
mod stage;
mod started;
mod steps;
mod subsets;
mod terms;
mod transform_errors;
mod watched;
mod world;
mod write_errors;
