//! What the tests of write errors and of transform errors share: a pipe that is refused, and what
//! was tried and told.

use serde_json::{Value as Json, json};

use crate::script::records;
use crate::world::World;

/// A pipe `p` to a sink outside, whose source is chronological.
pub fn pipe(pump: Json) -> Json {
    json!({
        "_id": "p",
        "source": {"type": "scripted", "supports_since": true, "is_chronological": true},
        "sink": {"type": "scripted"},
        "batch_size": 3,
        "checkpoint_interval": 1,
        "pump": pump,
    })
}

/// Retries are on, nothing ends a run early, batches are split at once.
pub fn retrying() -> Json {
    json!({
        "max_write_errors_in_retry_dataset": 10,
        "max_consecutive_write_errors": 100,
        "max_retries_per_entity": 2,
        "batch_retries": 0,
    })
}

/// A world with this pipe `p` and four entities at its source.
pub fn world_of(pipe: Json) -> World {
    let mut world = World::new();
    world.pipe(pipe);
    world.records("p", records(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]));
    world
}

/// Attempts as `abc`, or `abc!` where they were refused.
pub fn told(attempts: Vec<(Vec<String>, bool)>) -> Vec<String> {
    attempts
        .into_iter()
        .map(|(ids, taken)| format!("{}{}", ids.join(""), if taken { "" } else { "!" }))
        .collect()
}

/// What the sink was given since the last look.
pub fn sent(world: &World) -> Vec<String> {
    told(world.target("p", |target| std::mem::take(&mut target.attempts)))
}

/// The write-error entries, each as what it says.
pub fn errors(world: &World) -> Vec<Json> {
    let log = world.log("p");
    let entries = log.iter();
    let entries = entries.filter(|entry| entry["event_type"] == "write-error");
    entries
        .map(|e| {
            json!([
                e["_id"],
                e["retry_attempts"],
                e["retryable"],
                e["resolved"],
                e["dead"]
            ])
        })
        .collect()
}
