//! Running a project's pipes until nothing changes any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tahini_entity::Batch;
use tahini_store::{Limit, Seq, View};

use crate::execution_log::Summary;
use crate::hub::{Hub, LivePipe};
use crate::pump::Request;
use crate::{Cancel, Class, Failure};

/// What to run, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these pipes; empty means all.
    pub only: Vec<String>,
    /// Also the pipes that write to the outside.
    pub outputs: bool,
    /// The most passes over the pipes.
    pub max_passes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            only: Vec::new(),
            outputs: true,
            max_passes: 100,
        }
    }
}

/// One run of one pipe.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Which pass over the pipes, from 1.
    pub pass: usize,
    /// The pipe.
    pub pipe: String,
    /// What came of it.
    pub summary: Summary,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing changes any more.
    Settled,
    /// Some pipes failed; the others came to rest.
    Failed(Vec<String>),
    /// These pipes wait for something that nothing brings.
    Stuck(Vec<String>),
    /// These pipes changed these entities to the last.
    Restless(Vec<(String, Vec<String>)>),
    /// Stopped on request.
    Stopped,
}

/// Runs the pipes in the order of their datasets, pass by pass, until nothing changes.
/// Pipes that read from outside run in the first pass only. `told` hears of every run.
pub fn settle(
    hub: &Hub,
    options: &Options,
    cancel: &Cancel,
    mut told: impl FnMut(&Ran),
) -> Result<Rest, Failure> {
    let pipes = in_order(wanted(hub, options));
    let mut seen: BTreeMap<String, Seq> = BTreeMap::new();
    let mut failed: BTreeMap<String, bool> = BTreeMap::new();
    let mut waiting: BTreeMap<String, String> = BTreeMap::new();
    let mut restless = Vec::new();
    for pass in 1..=options.max_passes {
        let mut ran = 0;
        restless.clear();
        for live in &pipes {
            if cancel.is_cancelled() {
                return Ok(Rest::Stopped);
            }
            let inputs = heads(hub, live)?;
            let news = inputs
                .iter()
                .any(|(dataset, next)| seen.get(&format!("{}<{dataset}", live.id())) != Some(next));
            if pass > 1 && !news && !waiting.contains_key(live.id()) {
                continue;
            }
            let before = sink_head(hub, live)?;
            let summary = match hub.run(live, &Request::default()) {
                Ok(summary) => summary,
                Err(refusal) => refused(&refusal),
            };
            let class = summary.failure.as_ref().map(|failure| failure.class);
            let wait = class == Some(Class::Waiting);
            if wait {
                let why = summary
                    .failure
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                // A wait counts as a run only when it is news, or the passes would never end.
                ran += usize::from(waiting.insert(live.id().to_owned(), why).is_none());
                continue;
            }
            ran += 1;
            waiting.remove(live.id());
            failed.insert(live.id().to_owned(), !summary.success());
            for (dataset, next) in inputs {
                seen.insert(format!("{}<{dataset}", live.id()), next);
            }
            if summary.changed > 0 {
                restless.push((live.id().to_owned(), changed_ids(hub, live, before)?));
            }
            told(&Ran {
                pass,
                pipe: live.id().to_owned(),
                summary,
            });
        }
        if ran == 0 || (restless.is_empty() && waiting.is_empty()) {
            return Ok(at_rest(failed, waiting));
        }
    }
    Ok(Rest::Restless(restless))
}

fn at_rest(failed: BTreeMap<String, bool>, waiting: BTreeMap<String, String>) -> Rest {
    let failed: Vec<String> = failed
        .into_iter()
        .filter(|(_, failed)| *failed)
        .map(|(id, _)| id)
        .collect();
    if !failed.is_empty() {
        Rest::Failed(failed)
    } else if !waiting.is_empty() {
        Rest::Stuck(waiting.into_values().collect())
    } else {
        Rest::Settled
    }
}

fn refused(refusal: &crate::hub::Refusal) -> Summary {
    let failure = Failure::config(refusal.to_string());
    Summary {
        failure: Some(failure),
        ..Summary::default()
    }
}

fn wanted(hub: &Hub, options: &Options) -> Vec<Arc<LivePipe>> {
    let chosen =
        |live: &LivePipe| options.only.is_empty() || options.only.iter().any(|id| id == live.id());
    let runs = |live: &LivePipe| {
        let Ok(pipe) = live.runnable() else {
            // What cannot run because its configuration is wrong is told, endpoints are not.
            return !live.component.is_valid();
        };
        options.outputs || pipe.sink_dataset().is_some()
    };
    hub.pipes()
        .into_iter()
        .filter(|live| chosen(live) && runs(live))
        .collect()
}

/// Sorts pipes so that writers of a dataset come before its readers; members of a cycle and
/// equals stand in the order of their ids.
fn in_order(pipes: Vec<Arc<LivePipe>>) -> Vec<Arc<LivePipe>> {
    let mut left = pipes;
    let mut sorted = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let written: BTreeSet<String> = left
            .iter()
            .filter_map(|live| live.component.sink_dataset().map(str::to_owned))
            .collect();
        let ready = left.iter().position(|live| {
            let own = live.component.sink_dataset();
            let reads = live.component.source_datasets();
            reads
                .iter()
                .all(|name| Some(*name) == own || !written.contains(*name))
        });
        // Nobody is ready: a cycle, which is entered at its first id.
        sorted.push(left.remove(ready.unwrap_or(0)));
    }
    sorted
}

fn heads(hub: &Hub, live: &LivePipe) -> Result<Vec<(String, Seq)>, Failure> {
    let mut heads = Vec::new();
    for name in live.component.source_datasets() {
        let next = match hub.world.store.find(name)? {
            Some(dataset) => dataset.snapshot()?.head().next,
            None => 0,
        };
        heads.push((name.to_owned(), next));
    }
    Ok(heads)
}

fn sink_head(hub: &Hub, live: &LivePipe) -> Result<Seq, Failure> {
    let Some(name) = live.component.sink_dataset() else {
        return Ok(0);
    };
    match hub.world.store.find(name)? {
        Some(dataset) => Ok(dataset.snapshot()?.head().next),
        None => Ok(0),
    }
}

/// Entities that a message names.
const NAMED: usize = 5;

fn changed_ids(hub: &Hub, live: &LivePipe, before: Seq) -> Result<Vec<String>, Failure> {
    let Some(name) = live.component.sink_dataset() else {
        return Ok(Vec::new());
    };
    let Some(dataset) = hub.world.store.find(name)? else {
        return Ok(Vec::new());
    };
    let mut batch = Batch::new();
    let view = View {
        history: true,
        deleted: true,
    };
    let limit = Limit {
        rows: NAMED,
        bytes: 1 << 20,
    };
    dataset
        .snapshot()?
        .changes(before.checked_sub(1), view, limit, &mut batch)?;
    Ok(batch
        .iter()
        .filter_map(|record| record.id.map(str::to_owned))
        .collect())
}
