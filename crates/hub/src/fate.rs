//! What is known of one entity of a pipe: its stored versions, the run that wrote the latest one,
//! and whether it is held back.

use std::collections::BTreeSet;

use tahini_entity::{Batch, Record, Value};
use tahini_store::Snapshot;

use crate::execution_log::{ExecutionLog, Summary, run_at};
use crate::places::seq_of;
use crate::retry::{At, Ledger};
use crate::{Failure, Hub, Pipe};

/// The latest version of an entity in a dataset, and the one before it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The latest version.
    pub latest: Version,
    /// The version before it, as far as it is still there.
    pub previous: Option<Version>,
    /// The properties in which the two differ, in the order of their names.
    pub differs: Vec<String>,
    /// The run of the pipe during which the latest version was written. `None` when the pipe's
    /// log tells of none: a post, another pipe, or a log that was cleared.
    pub run: Option<Summary>,
}

/// One stored version.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its `_updated`.
    pub updated: u64,
    /// Its content hash.
    pub hash: u128,
    /// Whether it says that the entity is deleted.
    pub deleted: bool,
    /// When it was written, in microseconds since 1970 UTC.
    pub ts: i64,
    /// The properties and their values.
    properties: Vec<(String, Value)>,
}

/// An entity that failed and did not get through since.
#[derive(Clone, Debug)]
pub struct Held {
    /// Where it failed: `transforms` or `sink`.
    pub place: &'static str,
    /// How often it was retried.
    pub attempts: u64,
    /// It was given up and is left alone until another version comes.
    pub dead: bool,
    /// The content hash of the version that failed.
    pub hash: u128,
    /// What went wrong the last time; empty when the log tells no more.
    pub error: String,
    /// When that was, as the log has it.
    pub time: String,
}

/// What the dataset `name` holds of the entity `id`, and how it came there.
///
/// # Errors
/// When the store cannot be read.
pub fn stored(hub: &Hub, pipe: &Pipe, name: &str, id: &str) -> Result<Option<Stored>, Failure> {
    let Some(dataset) = hub.world.store.find(name)? else {
        return Ok(None);
    };
    let snapshot = dataset.snapshot()?;
    let (mut latest, mut previous) = (Batch::new(), Batch::new());
    snapshot.latest(&[id], &mut latest)?;
    let Some(latest) = latest.iter().next() else {
        return Ok(None);
    };
    if let Some(before) = latest.meta.previous {
        snapshot.at(&[before], &mut previous)?;
    }
    let latest = version_of(latest);
    let previous = previous.iter().next().map(version_of);
    let differs = previous.as_ref();
    let differs = differs.map(|previous| differences(&previous.properties, &latest.properties));
    let log = hub.log(&pipe.id)?;
    let run = run_at(log.dataset().snapshot()?.as_ref(), latest.ts)?;
    Ok(Some(Stored {
        differs: differs.unwrap_or_default(),
        latest,
        previous,
        run,
    }))
}

impl Version {
    /// The properties in which the version and `record` differ, in the order of their names.
    pub fn differs_from(&self, record: Record<'_>) -> Vec<String> {
        differences(&self.properties, &properties(record))
    }
}

/// Whether the entity is held back: `source` is its `_id` in the source, `outputs` those that
/// the sink would be given.
///
/// # Errors
/// When the log cannot be read.
pub fn held(
    hub: &Hub,
    pipe: &Pipe,
    source: Option<&str>,
    outputs: &[&str],
) -> Result<Vec<Held>, Failure> {
    let log = hub.log(&pipe.id)?;
    let ledger = Ledger::load(&log, &pipe.id)?;
    let wanted = source.map(|id| (At::Transforms, id)).into_iter();
    let mut all = Vec::new();
    for (at, id) in wanted.chain(outputs.iter().map(|id| (At::Sink, *id))) {
        if let Some(failed) = ledger.get(at, id)? {
            let (error, time) = told(&log, at, id)?;
            all.push(Held {
                place: match at {
                    At::Transforms => "transforms",
                    At::Sink => "sink",
                },
                attempts: failed.attempts,
                dead: failed.dead,
                hash: failed.hash,
                error,
                time,
            });
        }
    }
    Ok(all)
}

/// What the log's entry for a failed entity says: what went wrong, and when.
fn told(log: &ExecutionLog, at: At, id: &str) -> Result<(String, String), Failure> {
    let mut entry = Batch::new();
    let snapshot: Box<dyn Snapshot> = log.dataset().snapshot()?;
    snapshot.latest(&[&at.entry_id(id)], &mut entry)?;
    let text = |name: &str| {
        let value = entry.iter().next().and_then(|entry| entry.value(name));
        let text = value.as_ref().and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    Ok((text("traceback"), text("event_time")))
}

fn version_of(record: Record<'_>) -> Version {
    Version {
        updated: seq_of(&record).unwrap_or_default(),
        hash: record.hash(),
        deleted: record.meta.deleted,
        ts: record.meta.ts,
        properties: properties(record),
    }
}

/// What counts as content: names that start with `_` are no part of it.
fn properties(record: Record<'_>) -> Vec<(String, Value)> {
    let entity = record.to_entity();
    let all = entity.properties.iter();
    all.filter(|(name, _)| !name.starts_with('_'))
        .map(|(name, value)| (name.to_string(), value.clone()))
        .collect()
}

fn differences(before: &[(String, Value)], after: &[(String, Value)]) -> Vec<String> {
    let has = |all: &[(String, Value)], name: &str, value: &Value| {
        let mut all = all.iter();
        all.any(|(known, other)| known == name && tahini_entity::order::same(value, other))
    };
    let gone = before
        .iter()
        .filter(|(name, value)| !has(after, name, value));
    let come = after
        .iter()
        .filter(|(name, value)| !has(before, name, value));
    let names: BTreeSet<&String> = gone.chain(come).map(|(name, _)| name).collect();
    names.into_iter().cloned().collect()
}
