//! The end of a trace: what became of an entity in the sink, and why.

use anyhow::anyhow;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tahini_entity::{Batch, Offset, Record};
use tahini_hub::execution_log::{Summary, last_run};
use tahini_hub::fate::{self, Held, Stored, Version};
use tahini_hub::hub::LivePipe;
use tahini_hub::{Hub, Pipe};

/// What the sink did with what the transforms gave, or would do in the next run.
pub(super) fn sink_step(
    hub: &Hub,
    live: &LivePipe,
    pipe: &Pipe,
    (source, outputs): (&Batch, &Batch),
) -> anyhow::Result<Json> {
    let mut lines = Vec::new();
    let mut results = Vec::new();
    if outputs.is_empty() {
        lines.push("discarded: no transform gives an entity".to_owned());
    }
    for record in outputs.iter() {
        let Some(id) = record.id else {
            return Err(anyhow!(
                "an entity without a string `_id` reaches the sink: the run would fail"
            ));
        };
        let stored = match pipe.sink_dataset() {
            Some(name) => fate::stored(hub, pipe, name, id)?,
            None => None,
        };
        let (verdict, words) = match pipe.sink_dataset() {
            Some(_) => verdict(id, record, stored.as_ref()),
            None => handed(id, record, pipe.kind("sink")),
        };
        lines.push(words);
        let mut result = json!({
            "id": id, "verdict": verdict, "hash": hex(record.hash()),
        });
        if let Some(stored) = &stored {
            lines.extend(history(stored));
            result["stored"] = stored_json(stored);
        }
        results.push(result);
    }
    lines.extend(not_yet(hub, live, pipe, source)?);
    Ok(json!({"step": "sink", "message": lines.join("\n"), "results": results}))
}

/// What the sink's dataset holds under that id; nothing where it holds nothing.
pub(super) fn stored_step(hub: &Hub, pipe: &Pipe, id: &str) -> anyhow::Result<Option<Json>> {
    let Some(name) = pipe.sink_dataset() else {
        return Ok(None);
    };
    let Some(stored) = fate::stored(hub, pipe, name, id)? else {
        return Ok(None);
    };
    let latest = &stored.latest;
    let gone = if latest.deleted { ", deleted" } else { "" };
    let mut lines = vec![format!(
        "{name:?} has {id:?} with hash {}{gone}",
        hex(latest.hash)
    )];
    lines.extend(history(&stored));
    let result = json!({"id": id, "stored": stored_json(&stored)});
    Ok(Some(
        json!({"step": "stored", "message": lines.join("\n"), "results": [result]}),
    ))
}

/// Which of the entities failed and wait, or were given up; nothing where none did.
pub(super) fn held_step(
    hub: &Hub,
    pipe: &Pipe,
    source: &Batch,
    outputs: &Batch,
) -> anyhow::Result<Option<Json>> {
    let first = source.iter().next();
    let ids: Vec<&str> = outputs.iter().filter_map(|record| record.id).collect();
    let all = fate::held(hub, pipe, first.and_then(|record| record.id), &ids)?;
    if all.is_empty() {
        return Ok(None);
    }
    let hashes: Vec<u128> = source.iter().chain(outputs.iter()).map(hash).collect();
    let lines: Vec<String> = all.iter().map(|held| waits(held, &hashes)).collect();
    let results: Vec<Json> = all.iter().map(held_json).collect();
    Ok(Some(
        json!({"step": "held back", "message": lines.join("\n"), "results": results}),
    ))
}

fn hash(record: Record<'_>) -> u128 {
    record.hash()
}

/// What a dataset does with an entity, in a word and in a sentence.
fn verdict(id: &str, record: Record<'_>, stored: Option<&Stored>) -> (&'static str, String) {
    let (filtered, after) = (record.meta.filtered, hex(record.hash()));
    let Some(stored) = stored.map(|stored| &stored.latest) else {
        return match (filtered, record.meta.deleted) {
            (true, _) => (
                "filtered",
                format!("{id:?} is filtered and unknown: nothing is written"),
            ),
            (_, true) => (
                "discarded",
                format!("{id:?} is deleted and unknown: nothing is written"),
            ),
            _ => (
                "new",
                format!("{id:?} is new: a run writes it with hash {after}"),
            ),
        };
    };
    let before = hex(stored.hash);
    match filtered {
        true if stored.deleted => (
            "filtered",
            format!("{id:?} is filtered, and stored as deleted: nothing more is written"),
        ),
        true => (
            "filtered",
            format!("{id:?} is filtered: a run deletes what is stored with hash {before}"),
        ),
        false if stored.hash == record.hash() => (
            "unchanged",
            format!(
                "{id:?} is stored as the pipe gives it, with hash {after}: nothing more is written"
            ),
        ),
        false => (
            "changed",
            format!(
                "{id:?} is not what is stored: hash {before} before, {after} after, different {}; a \
                 run writes it",
                in_what(
                    stored.deleted,
                    record.meta.deleted,
                    &stored.differs_from(record)
                ),
            ),
        ),
    }
}

/// What is known of an entity that goes to an outside.
fn handed(id: &str, record: Record<'_>, kind: &str) -> (&'static str, String) {
    if record.meta.filtered {
        let words = format!("{id:?} is filtered: the {kind} sink is not given it");
        return ("filtered", words);
    }
    let words = format!(
        "{id:?} is handed to the {kind} sink with hash {}; what is at its other end is not known here",
        hex(record.hash())
    );
    ("handed on", words)
}

/// How the stored version came about.
fn history(stored: &Stored) -> Vec<String> {
    let latest = &stored.latest;
    let by = match &stored.run {
        Some(run) => format!(
            "by the {} run that began at {:.6}",
            run.sync_type, run.started
        ),
        None => "by no run that the pipe's log tells of".to_owned(),
    };
    let mut lines = vec![format!(
        "  version {} was written at {}, {by}",
        latest.updated,
        moment(latest)
    )];
    lines.push(match &stored.previous {
        Some(previous) => format!(
            "  because it was not version {}: hash {} before, {} after, different {}",
            previous.updated,
            hex(previous.hash),
            hex(latest.hash),
            in_what(previous.deleted, latest.deleted, &stored.differs)
        ),
        None => "  because it was new: there is no version before it".to_owned(),
    });
    lines
}

/// Why a run did not get to the entity, as far as that can be told.
fn not_yet(hub: &Hub, live: &LivePipe, pipe: &Pipe, source: &Batch) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    if live.state().disabled.is_some() {
        lines.push("the pipe is disabled, and does not run".to_owned());
    }
    let log = hub.log(&pipe.id)?;
    match last_run(log.dataset().snapshot()?.as_ref())? {
        None => lines.push("the pipe's log tells of no run yet".to_owned()),
        Some(run) if pipe.sink_dataset().is_none() => lines.push(format!(
            "the last run began at {:.6} and {}",
            run.started,
            ending(&run)
        )),
        Some(_) => {}
    }
    let updated = source
        .iter()
        .next()
        .and_then(|record| record.meta.updated.clone());
    if let (Some(Offset::Int(updated)), Some(Offset::Int(offset))) =
        (updated, hub.place(pipe)?.offset)
    {
        if updated > offset {
            lines.push(format!(
                "no run has read this version: its `_updated` is {updated}, the pipe's offset {offset}"
            ));
        } else if pipe.sink_dataset().is_none() {
            lines.push(format!(
                "a run has read this version: its `_updated` is {updated}, the pipe's offset {offset}"
            ));
        }
    }
    Ok(lines)
}

fn ending(run: &Summary) -> String {
    match &run.failure {
        None => "reached its end".to_owned(),
        Some(failure) => format!("failed: {failure}"),
    }
}

/// Why a failed entity is held back, and what ends that.
fn waits(held: &Held, hashes: &[u128]) -> String {
    let state = match (hashes.contains(&held.hash), held.dead) {
        (false, _) => "another version than this one failed",
        (true, true) => "given up, until another version comes",
        (true, false) => "set aside, and tried again in the next run",
    };
    let error = match held.error.as_str() {
        "" => "the log does not say why",
        error => error,
    };
    format!(
        "{state}: failed in the {} at {}, retried {} times: {error}",
        held.place, held.time, held.attempts
    )
}

/// The flag and the properties in which two versions differ, in words.
fn in_what(was_deleted: bool, is_deleted: bool, names: &[String]) -> String {
    let mut parts = Vec::new();
    match (was_deleted, is_deleted) {
        (false, true) => parts.push("since it is deleted now".to_owned()),
        (true, false) => parts.push("since it was deleted before".to_owned()),
        _ => {}
    }
    if !names.is_empty() {
        parts.push(format!("in {}", names.join(", ")));
    }
    parts.join(" and ")
}

fn stored_json(stored: &Stored) -> Json {
    let version = |version: &Version| {
        json!({
            "_updated": version.updated,
            "_hash": hex(version.hash),
            "_deleted": version.deleted,
            "_ts": version.ts,
        })
    };
    let run = stored.run.as_ref().map(|run| {
        json!({
            "sync_type": run.sync_type,
            "start_time": format!("{:.6}", run.started),
            "end_time": format!("{:.6}", run.ended),
            "success": run.success(),
        })
    });
    json!({
        "latest": version(&stored.latest),
        "previous": stored.previous.as_ref().map(version),
        "differs": stored.differs,
        "run": run,
    })
}

fn held_json(held: &Held) -> Json {
    json!({
        "place": held.place,
        "attempts": held.attempts,
        "dead": held.dead,
        "hash": hex(held.hash),
        "error": held.error,
        "time": held.time,
    })
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}

fn moment(version: &Version) -> String {
    let at = Timestamp::from_microsecond(version.ts);
    at.map_or_else(|_| version.ts.to_string(), |at| format!("{at:.6}"))
}
