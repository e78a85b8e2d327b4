//! The outcome of a run: what the log tells of it, and what can be read back from there.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tahini_dtl::Joined;
use tahini_entity::{Batch, Dict, Entity, Offset, Value};
use tahini_store::{Limit, Snapshot, StoreError, View};

use super::values::{count, dict, iso, round6};
use crate::Failure;
use crate::entity_type::Change;
use crate::rounds::News;

/// Entities that a message names.
pub(crate) const NAMED: usize = 5;

/// Changes of entity types that a summary tells in words.
const DRIFT_TOLD: usize = 20;

/// The outcome of a run, as the log and the API tell it.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// `full` or `incremental`.
    pub sync_type: String,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The ids of the first entities that the sink was given, at most `NAMED`.
    pub first_ids: Vec<String>,
    /// Of what a system outside was given, what was another before; only where that may come back.
    pub news: Option<News>,
    /// Entities that the source gave.
    pub read: u64,
    /// Of those, entities that came once more because of what they are joined with, by the dataset
    /// that changed.
    pub reprocessed: Vec<(String, u64)>,
    /// What rules joined, where they do.
    pub joined: Option<Joined>,
    /// The most entities that one evaluation of a `hops` with `trace` joined, by that name.
    pub traced_hops: BTreeMap<String, u64>,
    /// Entities that changed the sink.
    pub changed: u64,
    /// Of those, deletions.
    pub deleted: u64,
    /// Entities that the sink had already.
    pub unchanged: u64,
    /// Old versions that were removed from the sink's dataset.
    pub compacted: u64,
    /// Deleted entities that were removed from it as a whole, being old.
    pub expired: u64,
    /// Of the deleted ones, those that came no more.
    pub tracked: u64,
    /// Entities that could not be written.
    pub failed: u64,
    /// Failed reads.
    pub read_errors: u64,
    /// Seconds spent in source, transforms and sink.
    pub seconds: [f64; 3],
    /// The largest batch that the source gave, in bytes.
    pub batch_bytes: u64,
    /// The most that a batch and what transforms made of it took together, in bytes.
    pub peak_bytes: u64,
    /// The offset after the run, in its bare form.
    pub offset: Option<Offset>,
    /// Failed entities that wait for a later run.
    pub retryable: u64,
    /// Why entities that are there were not read yet, where the source holds some back.
    pub held_back: Option<String>,
    /// How much changed about what the entities look like.
    pub drift: u64,
    /// The first of these changes in words, at most `DRIFT_TOLD`.
    pub drift_told: Vec<String>,
    /// Why the run failed.
    pub failure: Option<Failure>,
    /// Things worth knowing that are no failure.
    pub warnings: Vec<String>,
    /// The requests of the run, where a part of the pipe has `trace`.
    pub trace: Option<Value>,
}

impl Summary {
    /// Whether the run reached its end.
    pub fn success(&self) -> bool {
        self.failure.is_none()
    }

    /// Entities that came once more because of what they are joined with.
    pub fn reprocessed(&self) -> u64 {
        self.reprocessed.iter().map(|(_, count)| count).sum()
    }

    /// How long the run took, in seconds.
    pub fn total_seconds(&self) -> f64 {
        (self.ended.as_microsecond() - self.started.as_microsecond()) as f64 / 1e6
    }

    /// Remembers how the entities differ from those before.
    pub(crate) fn tell_drift(&mut self, changes: &[Change]) {
        self.drift = changes.len() as u64;
        let first = changes.iter().take(DRIFT_TOLD);
        self.drift_told = first.map(Change::words).collect();
    }

    /// Remembers the first entities that the sink is given by their ids.
    pub(crate) fn name_first(&mut self, batch: &Batch) {
        let left = NAMED.saturating_sub(self.first_ids.len());
        let ids = batch.iter().take(left).filter_map(|record| record.id);
        self.first_ids.extend(ids.map(str::to_owned));
    }

    /// Takes note of the memory that a batch and what transforms made of it take.
    pub(crate) fn weigh(&mut self, batch: &Batch, made: Option<&Batch>) {
        let (read, made) = (batch.bytes() as u64, made.map_or(0, Batch::bytes) as u64);
        self.batch_bytes = self.batch_bytes.max(read);
        self.peak_bytes = self.peak_bytes.max(read + made);
    }

    /// What `pump-completed` and `pump-failed` have in common, but for what the run began with.
    pub(super) fn properties(&self) -> Vec<(&'static str, Value)> {
        let mut properties = vec![
            ("end_time", iso(self.ended)),
            // Documented as a string.
            (
                "total_time",
                Value::string(format!("{:.6}", self.total_seconds())),
            ),
            ("retry_entities_exist", Value::Bool(self.retryable > 0)),
            ("entities_succeeded", count(self.changed + self.unchanged)),
            ("entities_failed", count(self.failed)),
            ("processed_last_run", count(self.read)),
            ("changes_last_run", count(self.changed)),
            ("pipe_offset", offset_value(self.offset.as_ref())),
            ("metrics", self.metrics()),
        ];
        if self.retryable > 0 {
            properties.push(("retry_entities_count", count(self.retryable)));
        }
        if !self.reprocessed.is_empty() {
            let because = self.reprocessed.iter();
            let because = because.map(|(name, many)| (name.as_str().into(), count(*many)));
            properties.push(("reprocessed_because_of", Value::Dict(because.collect())));
        }
        if self.drift > 0 {
            let told = self.drift_told.iter();
            let told = told.map(|text| Value::string(text.as_str()));
            properties.push(("entity_type_changes", count(self.drift)));
            properties.push(("entity_type_changes_first", Value::List(told.collect())));
        }
        if let Some(trace) = &self.trace {
            properties.push(("trace", trace.clone()));
        }
        if !self.warnings.is_empty() {
            let warnings = self
                .warnings
                .iter()
                .map(|text| Value::string(text.as_str()));
            properties.push(("warnings", Value::List(warnings.collect())));
        }
        properties
    }

    /// The `metrics` of an entry.
    pub(super) fn metrics(&self) -> Value {
        let [source, transform, sink] = self.seconds.map(|seconds| Value::float(round6(seconds)));
        let entities = dict([
            ("changes_last_run", count(self.changed)),
            ("entities_last_run", count(self.read)),
            ("reprocessed_last_run", count(self.reprocessed())),
            ("deletes_last_run", count(self.deleted)),
            ("read_errors_last_run", count(self.read_errors)),
            ("write_errors_last_run", count(self.failed)),
            ("ttl_deletes_entities_last_run", count(self.expired)),
            ("compacted_last_run", count(self.compacted)),
            ("source_time", source),
            ("transform_time", transform),
            ("sink_time", sink),
        ]);
        let memory = dict([
            ("batch-max-mem-size", count(self.batch_bytes)),
            ("total-peak", count(self.peak_bytes)),
        ]);
        let Some(joined) = self.joined else {
            return dict([("entities", entities), ("memory", memory)]);
        };
        let mut hops = vec![
            ("max-cardinality", count(joined.most)),
            ("max-cardinality-last-run", count(joined.most)),
            ("total-rows-last-run", count(joined.rows)),
        ];
        if !self.traced_hops.is_empty() {
            hops.push(("trace", self.trace_of_hops()));
        }
        let hops = dict(hops);
        dict([("entities", entities), ("hops", hops), ("memory", memory)])
    }

    /// What is told of each `hops` by itself that has a `trace`; a name of its own level, since it
    /// may be any.
    fn trace_of_hops(&self) -> Value {
        let each = self.traced_hops.iter();
        let each = each.map(|(name, most)| {
            let told = dict([("max-cardinality", count(*most))]);
            (name.as_str().into(), told)
        });
        Value::Dict(each.collect())
    }
}

/// The last run that a pipe's log tells of.
///
/// # Errors
/// When the log cannot be read.
pub fn last_run(log: &dyn Snapshot) -> Result<Option<Summary>, StoreError> {
    let mut ends = Batch::new();
    log.latest(&["pump-completed", "pump-failed"], &mut ends)?;
    let ends = ends.iter().map(|record| record.to_entity());
    // What stands later in the log ended later.
    let last = ends.max_by_key(|entry| match &entry.updated {
        Some(Offset::Int(seq)) => *seq,
        _ => -1,
    });
    Ok(last.as_ref().map(told_by))
}

/// Entries looked at together while a run is searched.
const LOOKED_AT: Limit = Limit {
    rows: 100,
    bytes: 1 << 20,
};

/// The run of a pipe's log during which something was written at that time, given in
/// microseconds since 1970 UTC.
///
/// # Errors
/// When the log cannot be read.
pub fn run_at(log: &dyn Snapshot, micros: i64) -> Result<Option<Summary>, StoreError> {
    let view = View {
        history: true,
        deleted: false,
    };
    let mut before = None;
    loop {
        let mut entries = Batch::new();
        let next = log.changes_reversed(before, view, LOOKED_AT, &mut entries)?;
        let ends = entries
            .iter()
            .filter(|entry| matches!(entry.id, Some("pump-completed" | "pump-failed")));
        for run in ends.map(|entry| told_by(&entry.to_entity())) {
            // A dataset's clock goes on by a microsecond a version at least.
            let behind = i64::try_from(run.changed).unwrap_or(i64::MAX);
            let ended = run.ended.as_microsecond().saturating_add(behind);
            if ended < micros {
                return Ok(None);
            }
            if run.started.as_microsecond() <= micros {
                return Ok(Some(run));
            }
        }
        match next {
            Some(seq) => before = Some(seq),
            None => return Ok(None),
        }
    }
}

/// Entries that are looked at for the first failed run of a row of them, at most.
const FAILURES: usize = 2_000;

/// When the first of the failed runs began behind which none succeeded; the first of the last ones
/// that the log tells of, where there are very many.
///
/// # Errors
/// When the log cannot be read.
pub fn failing_since(log: &dyn Snapshot) -> Result<Option<Timestamp>, StoreError> {
    let view = View {
        history: true,
        deleted: false,
    };
    let (mut before, mut since, mut seen) = (None, None, 0);
    while seen < FAILURES {
        let mut entries = Batch::new();
        let next = log.changes_reversed(before, view, LOOKED_AT, &mut entries)?;
        seen += entries.len();
        for entry in entries.iter() {
            match entry.id {
                Some("pump-completed") => return Ok(since),
                Some("pump-failed") => since = Some(told_by(&entry.to_entity()).started),
                _ => {}
            }
        }
        match next {
            Some(seq) => before = Some(seq),
            None => break,
        }
    }
    Ok(since)
}

/// A summary from the entry that its run left.
fn told_by(entry: &Entity) -> Summary {
    let properties = &entry.properties;
    let text = |name: &str| properties.get(name).and_then(Value::as_str);
    let time = |name: &str| {
        text(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    };
    let counted = |name: &str| number(properties, name) as u64;
    let empty = Dict::new();
    let inner = |name: &str| match properties.get("metrics") {
        Some(Value::Dict(metrics)) => match metrics.get(name) {
            Some(Value::Dict(part)) => part.clone(),
            _ => empty.clone(),
        },
        _ => empty.clone(),
    };
    let (entities, memory) = (inner("entities"), inner("memory"));
    let changed = counted("changes_last_run");
    let failed = text("event_type") == Some("pump-failed");
    Summary {
        sync_type: text("sync_type").unwrap_or_default().to_owned(),
        started: time("start_time"),
        ended: time("end_time"),
        first_ids: Vec::new(),
        news: None,
        read: counted("processed_last_run"),
        reprocessed: reprocessed(properties),
        joined: None,
        traced_hops: BTreeMap::new(),
        changed,
        deleted: number(&entities, "deletes_last_run") as u64,
        unchanged: counted("entities_succeeded").saturating_sub(changed),
        tracked: 0,
        compacted: number(&entities, "compacted_last_run") as u64,
        expired: number(&entities, "ttl_deletes_entities_last_run") as u64,
        failed: counted("entities_failed"),
        read_errors: number(&entities, "read_errors_last_run") as u64,
        seconds: ["source_time", "transform_time", "sink_time"].map(|name| number(&entities, name)),
        batch_bytes: number(&memory, "batch-max-mem-size") as u64,
        peak_bytes: number(&memory, "total-peak") as u64,
        offset: match properties.get("pipe_offset") {
            Some(Value::Int(number)) => Some(Offset::Int(*number)),
            Some(Value::String(text)) => Some(Offset::Text(text.clone())),
            _ => None,
        },
        retryable: counted("retry_entities_count"),
        held_back: None,
        failure: failed.then(|| failure_of(entry)),
        drift: counted("entity_type_changes"),
        drift_told: texts(properties, "entity_type_changes_first"),
        warnings: texts(properties, "warnings"),
        trace: None,
    }
}

fn reprocessed(properties: &Dict) -> Vec<(String, u64)> {
    let Some(Value::Dict(because)) = properties.get("reprocessed_because_of") else {
        return Vec::new();
    };
    let each = because.iter();
    each.map(|(name, _)| (name.to_string(), number(because, name) as u64))
        .collect()
}

fn texts(properties: &Dict, name: &str) -> Vec<String> {
    let Some(Value::List(list)) = properties.get(name) else {
        return Vec::new();
    };
    let texts = list.iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// The failure that an entry tells of; its class is not kept, and nobody retries it.
fn failure_of(entry: &Entity) -> Failure {
    let text = |name: &str| entry.properties.get(name).and_then(Value::as_str);
    let message = text("traceback").or(text("reason_why_stopped"));
    let mut failure = Failure::fatal(message.unwrap_or_default());
    failure.reached = number(&entry.properties, "error_code") > 0.0;
    failure.original = text("original_error_message")
        .filter(|original| *original != failure.message)
        .map(str::to_owned);
    if let Some(Value::Dict(entity)) = entry.properties.get("exception_entity") {
        failure = failure.with_entity(super::entity_of(entity));
    }
    failure
}

fn number(properties: &Dict, name: &str) -> f64 {
    match properties.get(name) {
        Some(Value::Int(number)) => *number as f64,
        Some(Value::Float(number)) => *number,
        _ => 0.0,
    }
}

pub(super) fn offset_value(offset: Option<&Offset>) -> Value {
    offset.map_or(Value::Null, |offset| match offset {
        Offset::Int(number) => Value::Int(*number),
        Offset::Text(text) => Value::String(text.clone()),
    })
}
