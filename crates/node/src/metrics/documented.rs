//! The metrics that the reference documents, under their names.
//!
//! Not among them is what nothing here has a number for: how many versions a log holds by whether
//! they are deleted, and queues of tracked datasets and replicas.

use std::collections::{BTreeSet, HashMap};

use tahini_hub::hub::{LivePipe, LiveState};
use tahini_hub::totals::Totals;
use tahini_hub::{Pipe, reprocessing};
use tahini_store::{Head, StoreError, StoreLock};

use super::Page;
use crate::api::Node;

/// What all pipes together tell.
pub(super) struct Whole<'a> {
    heads: HashMap<&'a str, &'a Head>,
    /// The datasets that pipes read or join.
    read: BTreeSet<String>,
}

impl<'a> Whole<'a> {
    pub(super) fn of(node: &Node, heads: &'a [Head]) -> Whole<'a> {
        let pipes = node.assembly.hub.pipes();
        let inputs = pipes.iter().filter_map(|live| live.pipe.as_ref().ok());
        Whole {
            heads: heads
                .iter()
                .map(|head| (head.name.as_str(), head))
                .collect(),
            read: inputs.flat_map(Pipe::inputs).collect(),
        }
    }
}

/// The node itself; whether all of its datasets are whole.
pub(super) fn node(node: &Node, is_whole: bool, page: &mut Page) {
    let health = match node.is_ready() && is_whole {
        true => "healthy",
        false => "unhealthy",
    };
    one_of(
        "sesam_health",
        "Whether the node does its work.",
        health,
        page,
    );
    let help = "Whether the last backup of each name came to its end.";
    one_of("sesam_backup_health", help, backups(node), page);
    let help = "Starts after the first one of this version.";
    page.gauge("sesam_service_restarts", help, &[], node.restarts as f64);
}

fn backups(node: &Node) -> &'static str {
    let Some(backups) = &node.backups else {
        return "unknown";
    };
    let Ok(known) = backups.list() else {
        return "unhealthy";
    };
    let failed = known.iter().any(|(name, note)| {
        // One that has not ended is under way where somebody holds its folder.
        let over = || StoreLock::take(&backups.folder.join(name)).is_ok();
        !note.skipped.is_empty() || (note.ended.is_none() && over())
    });
    match (known.is_empty(), failed) {
        (true, _) => "unknown",
        (_, true) => "unhealthy",
        (_, false) => "healthy",
    }
}

fn one_of(name: &'static str, help: &str, now: &str, page: &mut Page) {
    for state in ["healthy", "unhealthy", "unknown"] {
        let value = f64::from(u8::from(state == now));
        page.gauge(name, help, &[(name, state)], value);
    }
}

/// A pipe, and its pump; how many versions wait in its source, where that is known.
pub(super) fn pipe(
    node: &Node,
    live: &LivePipe,
    (state, waiting): (&LiveState, Option<u64>),
    whole: &Whole<'_>,
    page: &mut Page,
) -> Result<(), StoreError> {
    let labels = [("pipe", live.id())];
    let on = |on: bool| f64::from(u8::from(on));
    let help = "Whether the pipe is enabled.";
    page.gauge(
        "sesam_pipe_enabled",
        help,
        &labels,
        on(state.disabled.is_none()),
    );
    let sink = live.component.sink_dataset();
    let leaf = sink.is_none_or(|sink| !whole.read.contains(sink));
    let group = live.component.original["metadata"]["$config-group"].as_str();
    let help = "Whether its configuration has no errors.";
    let own = [
        ("pipe", live.id()),
        ("config_group", group.unwrap_or("default")),
        ("leaf", if leaf { "1" } else { "0" }),
    ];
    page.gauge(
        "sesam_pipe_config",
        help,
        &own,
        on(live.component.is_valid()),
    );
    let head = sink.and_then(|sink| whole.heads.get(sink));
    let help = "Bytes that the pipe's dataset takes on disk.";
    let bytes = head.map_or(0, |head| head.bytes);
    page.gauge("sesam_pipe_usage", help, &labels, bytes as f64);
    queues(node, live, waiting, &labels, page)?;
    if let Some(head) = head {
        let exists = "sesam_pipe_sink_dataset_count_index_exists";
        let deleted = "sesam_pipe_sink_dataset_count_index_deleted";
        counts(exists, deleted, "its dataset", head, &labels, page);
    }
    let letters = live.pipe.as_ref().ok();
    let letters = letters.and_then(|pipe| pipe.policy.dead_letter_dataset.as_deref());
    if let Some(head) = letters.and_then(|name| whole.heads.get(name)) {
        let exists = "sesam_pipe_dead_letter_dataset_count_index_exists";
        let deleted = "sesam_pipe_dead_letter_dataset_count_index_deleted";
        counts(exists, deleted, "its dead letters", head, &labels, page);
    }
    let reasons = match node.home(live)? {
        Some(home) => reprocessing::reasons_in(home.as_ref(), live.id())?,
        None => Vec::new(),
    };
    let help = "Reasons why its output is out of sync with its input.";
    page.gauge(
        "tahini_pipe_out_of_sync",
        help,
        &labels,
        reasons.len() as f64,
    );
    if is_scheduled(live, state) {
        pump(node, state, &labels, page);
    }
    Ok(())
}

/// What waits for a pipe.
fn queues(
    node: &Node,
    live: &LivePipe,
    waiting: Option<u64>,
    labels: &[(&str, &str)],
    page: &mut Page,
) -> Result<(), StoreError> {
    if let Some(waiting) = waiting {
        let help = "Versions that wait in its source.";
        page.gauge("sesam_pipe_queue_source", help, labels, waiting as f64);
    }
    let changed = node.assembly.hub.unfollowed(live)?;
    if !changed.is_empty() {
        let help = "Versions of joined datasets that were not looked at yet.";
        let changed: u64 = changed.values().sum();
        page.gauge("sesam_pipe_queue_tracking", help, labels, changed as f64);
    }
    Ok(())
}

fn counts(
    exists: &'static str,
    deleted: &'static str,
    of: &str,
    head: &Head,
    labels: &[(&str, &str)],
    page: &mut Page,
) {
    let help = format!("Entities of {of} that are not deleted.");
    page.gauge(exists, &help, labels, head.live as f64);
    let help = format!("Entities of {of} that are deleted.");
    page.gauge(deleted, &help, labels, head.deleted as f64);
}

/// As documented, pumps that no schedule runs have no metrics.
fn is_scheduled(live: &LivePipe, state: &LiveState) -> bool {
    let mode = live.component.pump().map().get("mode");
    let by_hand = mode.is_some_and(|mode| mode == "manual" || mode == "off");
    state.disabled.is_none() && !by_hand && !live.component.is_endpoint()
}

fn pump(node: &Node, state: &LiveState, labels: &[(&str, &str)], page: &mut Page) {
    let seconds = |at: jiff::Timestamp| at.as_microsecond() as f64 / 1e6;
    let last = state.last.as_ref();
    let success = match last.map(|last| last.success()) {
        None => 0.0,
        Some(true) => 1.0,
        Some(false) => -1.0,
    };
    let mut gauge = |name: &'static str, help: &str, value: f64| {
        page.gauge(name, help, labels, value);
    };
    let took = last.map_or(0.0, |last| last.total_seconds());
    gauge("sesam_pump_total_time", "Seconds of the last run.", took);
    let help = "Whether the last run reached its end: 1, -1, or 0 without one.";
    gauge("sesam_pump_successful", help, success);
    let help = "Failed entities that wait for a retry.";
    let waiting = last.map_or(0, |last| last.retryable);
    gauge("sesam_pump_entities_retryable", help, waiting as f64);
    let now = node.assembly.hub.world.clock.now();
    let help = "When this was read, in seconds since 1970.";
    gauge("sesam_pump_scrape_time", help, seconds(now));
    if let Some(last) = last {
        let help = "When the last run ended, in seconds since 1970.";
        gauge("sesam_pump_last_completed_time", help, seconds(last.ended));
    }
    if let Some(next) = state.next {
        let help = "When the next run is due, in seconds since 1970.";
        gauge("sesam_pump_scheduled_time", help, seconds(next));
    }
    if let Some(before) = state.previous {
        let help = "When the run before that was due, in seconds since 1970.";
        gauge("sesam_pump_previous_scheduled_time", help, seconds(before));
    }
    counters(&state.totals, seconds(node.started), labels, page);
}

fn counters(totals: &Totals, begun: f64, labels: &[(&str, &str)], page: &mut Page) {
    let started = totals.told + totals.failed_runs;
    let mut counter = |names: [&'static str; 2], help: &str, count: u64| {
        page.counter(names[0], help, labels, count as f64);
        page.gauge(names[1], "When the count began.", labels, begun);
    };
    counter(
        ["sesam_pump_started_total", "sesam_pump_started_created"],
        "Runs that began, but for those that did nothing.",
        started,
    );
    counter(
        ["sesam_pump_completed_total", "sesam_pump_completed_created"],
        "Runs that reached their end, but for those that did nothing.",
        totals.told,
    );
    counter(
        ["sesam_pump_failed_total", "sesam_pump_failed_created"],
        "Runs that failed by themselves.",
        totals.failed_runs - totals.interrupted,
    );
    counter(
        [
            "sesam_pump_interrupted_total",
            "sesam_pump_interrupted_created",
        ],
        "Runs that were stopped.",
        totals.interrupted,
    );
    counter(
        [
            "sesam_pump_entities_changes_total",
            "sesam_pump_entities_changes_created",
        ],
        "Entities that changed the sink.",
        totals.changed,
    );
    counter(
        [
            "sesam_pump_entities_seen_total",
            "sesam_pump_entities_seen_created",
        ],
        "Entities that the source gave.",
        totals.read,
    );
    counter(
        [
            "sesam_pump_entities_compacted_total",
            "sesam_pump_entities_compacted_created",
        ],
        "Old versions that were removed.",
        totals.compacted,
    );
    counter(
        [
            "sesam_pump_entities_deletion_tracked_total",
            "sesam_pump_entities_deletion_tracked_created",
        ],
        "Entities that were deleted because they came no more.",
        totals.tracked,
    );
}
