//! Removing old versions after a run, as the pipe's `compaction` says.
//!
//! Nothing is removed that a pipe has still to read. Who reads latest versions only is not held up
//! by versions that are not the latest; but every reader has to learn of a deletion before the
//! deleted entity vanishes.

mod log;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use tahini_entity::{Batch, Offset, Value};
use tahini_store::{Compacted, Compaction, Dataset, Seq, StateRows, StateWrite, StoreError};

use crate::config::Props;
use crate::config::known::keeps_places;
use crate::execution_log::Summary;
use crate::hub::{Hub, LivePipe, commit_state};
use crate::places::Places;
use crate::{Cancel, Failure, Pipe, progress};

const HOUR: i64 = 3_600_000_000;
/// Where no sink compacts, datasets and execution logs are compacted once in so long.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What goes by age is looked for at most once in so long, and that often even without changes:
/// ages are given in hours.
const AGEING: Duration = Duration::from_secs(600);
/// The least that `time_threshold_hours_pump` may be.
const LEAST_LOG_HOURS: i64 = 720;

/// A dataset is written anew for the sake of versions that are few at this pace on average, so
/// that what may not be seen any more is gone soon from a small one, and within a day from any.
const BYTES_A_SECOND: u64 = 256 << 10;
const ALL_AT_LEAST: u64 = 60;
const ALL_AT_MOST: u64 = 24 * 3600;

/// Ids whose earlier versions are removed together: each time costs a look at the dataset.
const RETRACTED_AT_ONCE: usize = 100_000;

/// What a pipe's `compaction` says; times are in microseconds.
#[derive(Clone, Debug)]
struct Retention {
    interval: Duration,
    keep: u32,
    threshold: Option<i64>,
    log_threshold: i64,
    growth: f64,
    ttl: Option<i64>,
    ttl_timeout: Duration,
    retract: bool,
    retract_timeout: Duration,
    /// Neither the sink compacts nor the schedule.
    never: bool,
}

/// The key of the state record that says when a dataset was compacted last.
const LAST: &[u8] = b"last";

/// When a pipe's datasets were compacted last. Where that is not after every run it is kept in the
/// dataset, too, so that a node that starts often does not compact as often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Last {
    dataset: Option<(Timestamp, Seq)>,
    log: Option<Timestamp>,
    /// When everything that could go went.
    thorough: Option<Timestamp>,
    /// Whether less than that went since.
    owes: bool,
    /// The place of the reader that retracted versions wait for: until it has read on, looking for
    /// them once more finds the same.
    waits_for: Option<Seq>,
}

impl Last {
    /// Whether it is time that everything goes that can: to write a segment anew for the sake of
    /// a few versions is worth it only now and then.
    fn is_time_for_all(&self, now: Timestamp, bytes: u64) -> bool {
        let wait = Duration::from_secs((bytes / BYTES_A_SECOND).clamp(ALL_AT_LEAST, ALL_AT_MOST));
        match self.thorough {
            None => bytes <= BYTES_A_SECOND * ALL_AT_LEAST,
            Some(at) => now.duration_since(at).unsigned_abs() >= wait,
        }
    }
}

impl Retention {
    fn of(pipe: &Json) -> Result<Retention, Failure> {
        let nothing = Map::new();
        let map = pipe["compaction"].as_object().unwrap_or(&nothing);
        let props = Props::new("$.compaction", map);
        let in_sink = props.bool("sink", true)?;
        let hours = |name: &str| -> Result<Option<i64>, Failure> {
            let hours = props.get(name).map(|value| value.as_f64());
            match hours {
                None => Ok(None),
                Some(Some(hours)) if hours >= 0.0 => Ok(Some((hours * HOUR as f64) as i64)),
                Some(_) => Err(props.wrong(name, "hours, at least 0", props.get(name))),
            }
        };
        let seconds = |name: &str, default: u64| -> Result<Duration, Failure> {
            let found = props.opt_seconds(name)?;
            Ok(found.unwrap_or(Duration::from_secs(default)))
        };
        let keep = u32::try_from(props.int("keep_versions", 2)?.max(0)).unwrap_or(u32::MAX);
        let threshold = hours("time_threshold_hours")?;
        if keep == 0 && threshold.is_none() {
            return Err(Failure::config(format!(
                "{}.keep_versions: expected a time threshold where no version has to be kept, \
                 found none; set `time_threshold_hours` or keep at least 1",
                props.path()
            )));
        }
        let growth = props.get("growth_threshold").and_then(Json::as_f64);
        let log_hours = props.int("time_threshold_hours_pump", LEAST_LOG_HOURS)?;
        Ok(Retention {
            interval: match in_sink {
                true => seconds("compaction_interval", 0)?,
                false => DAY,
            },
            keep,
            threshold,
            log_threshold: log_hours.clamp(LEAST_LOG_HOURS, i64::MAX / HOUR) * HOUR,
            growth: growth.filter(|_| !in_sink).unwrap_or(1.0),
            ttl: hours("ttl_deletes_hours")?,
            ttl_timeout: seconds("ttl_deletes_timeout_seconds", 60)?,
            retract: props.bool("retract", false)?,
            retract_timeout: seconds("retract_timeout_seconds", 60)?,
            never: !in_sink && !props.bool("automatic", true)?,
        })
    }

    fn ages(&self) -> bool {
        self.threshold.is_some() || self.ttl.is_some()
    }

    /// Whether it is time, after a run that changed the dataset or did not.
    fn is_due(&self, last: Option<(Timestamp, Seq)>, now: Timestamp, next: Seq) -> bool {
        let Some((at, known)) = last else {
            return !self.never;
        };
        let since = now.duration_since(at).unsigned_abs();
        let grown = next > known && next as f64 >= known as f64 * self.growth;
        let waits = match self.ages() {
            true => self.interval.max(AGEING),
            false => self.interval,
        };
        !self.never && since >= waits && (grown || self.ages())
    }
}

/// Compacts what the pipe wrote, if it is time. What fails here fails no run: it is told as a
/// warning, and the next run tries again.
pub(crate) fn after_run(
    hub: &Hub,
    live: &LivePipe,
    pipe: &Pipe,
    cancel: &Cancel,
    summary: &mut Summary,
) {
    let outcome = Retention::of(&pipe.effective).and_then(|retention| {
        let stop = || cancel.is_cancelled();
        log::trim(hub, live, pipe, &retention, &stop)?;
        let Some(name) = pipe.sink_dataset() else {
            return Ok(());
        };
        let done = dataset(hub, live, name, &retention, &stop)?;
        (summary.compacted, summary.expired) = (done.versions, done.ids);
        Ok(())
    });
    if let Err(failure) = outcome {
        let words = format!("old versions were not removed: {failure}");
        tracing::warn!(pipe = %pipe.id, %failure, "old versions were not removed");
        summary.warnings.push(words);
    }
}

/// The same beside posts and between runs, and not often: for pipes that are posted to and never
/// run, and for what grows old, or waited for a reader, while a pipe does not run.
pub(crate) fn in_background(hub: &Hub, stop: &dyn Fn() -> bool) {
    for live in hub.pipes() {
        if stop() {
            return;
        }
        let Ok(pipe) = &live.pipe else { continue };
        let Some(name) = pipe.sink_dataset() else {
            continue;
        };
        let receives = pipe.kind("source") == "http_endpoint";
        let outcome = Retention::of(&pipe.effective).and_then(|mut retention| {
            let changes_alone = retention.ages() || retention.retract;
            if !receives && (live.lock().is_busy() || !changes_alone) {
                return Ok(Compacted::default());
            }
            retention.interval = retention.interval.max(AGEING);
            dataset(hub, &live, name, &retention, stop)
        });
        match outcome {
            Ok(done) => live.lock().totals.compacted += done.versions,
            Err(failure) => {
                tracing::warn!(pipe = %pipe.id, %failure, "old versions were not removed");
            }
        }
    }
}

/// When `dataset` was compacted last for the pipe, as it is kept there.
fn last_kept(dataset: &dyn Dataset, pipe: &str) -> Result<Option<(Timestamp, Seq)>, Failure> {
    let rows = dataset.snapshot()?.state(&space_of_last(pipe), LAST)?;
    let read = |value: &[u8]| {
        let (at, next) = value.split_first_chunk()?;
        let at = Timestamp::from_microsecond(i64::from_le_bytes(*at)).ok()?;
        Some((at, Seq::from_le_bytes(next.try_into().ok()?)))
    };
    Ok(rows.first().and_then(|(_, value)| read(value)))
}

fn keep_last(
    hub: &Hub,
    dataset: &dyn Dataset,
    pipe: &str,
    last: (Timestamp, Seq),
) -> Result<(), Failure> {
    let (at, next) = last;
    let value = [at.as_microsecond().to_le_bytes(), next.to_le_bytes()].concat();
    let write = StateWrite {
        space: space_of_last(pipe),
        key: LAST.to_vec(),
        value: Some(value),
    };
    Ok(commit_state(
        dataset,
        &[write],
        false,
        hub.world.clock.as_ref(),
    )?)
}

fn space_of_last(pipe: &str) -> String {
    format!("compaction:{pipe}")
}

fn dataset(
    hub: &Hub,
    live: &LivePipe,
    name: &str,
    retention: &Retention,
    stop: &dyn Fn() -> bool,
) -> Result<Compacted, Failure> {
    let mut done = Compacted::default();
    let Some(dataset) = hub.world.store.find(name)? else {
        return Ok(done);
    };
    if dataset.snapshot()?.head().holds {
        return Ok(done);
    }
    if retention.retract {
        done.versions += retract(hub, live, dataset.as_ref(), retention, stop)?;
    }
    let now = hub.world.clock.now();
    let head = dataset.snapshot()?.head().clone();
    let known = live.lock().compacted.dataset;
    let is_kept = !retention.interval.is_zero();
    let last = match known {
        None if is_kept => last_kept(dataset.as_ref(), live.id())?,
        known => known,
    };
    let (all, owed) = {
        let compacted = &mut live.lock().compacted;
        compacted.dataset = last;
        let all = compacted.is_time_for_all(now, head.bytes);
        (all, all && compacted.owes && !retention.never)
    };
    // What is not populated may be read by somebody who waits for it to be.
    if !head.populated || !(owed || retention.is_due(last, now, head.next)) {
        return Ok(done);
    }
    {
        let compacted = &mut live.lock().compacted;
        compacted.dataset = Some((now, head.next));
        compacted.owes = !all;
        if all || compacted.thorough.is_none() {
            compacted.thorough = Some(now);
        }
    }
    let usual = Compaction::default().least_dead;
    let least_dead = if all { 0.0 } else { usual };
    if is_kept {
        keep_last(hub, dataset.as_ref(), live.id(), (now, head.next))?;
    }
    let trimmed = trim(hub, dataset.as_ref(), retention, (now, least_dead), stop)?;
    done.versions += trimmed.versions;
    done.ids += trimmed.ids;
    Ok(done)
}

/// Removes what is too old or superseded too often, where that share of a segment can go.
fn trim(
    hub: &Hub,
    dataset: &dyn Dataset,
    retention: &Retention,
    (now, least_dead): (Timestamp, f64),
    stop: &dyn Fn() -> bool,
) -> Result<Compacted, Failure> {
    let before = |age: i64| now.as_microsecond().saturating_sub(age);
    let readers = Readers::of(hub, dataset.name())?;
    let mut done = dataset.compact(&Compaction {
        keep_versions: Some(retention.keep),
        older_than: retention.threshold.map(before),
        keep_from: match retention.keep {
            0 => readers.latest,
            _ => readers.history,
        },
        least_dead,
        index_later: true,
        stop,
        ..Compaction::default()
    })?;
    if let Some(ttl) = retention.ttl {
        let until = Instant::now() + retention.ttl_timeout;
        let expired = dataset.compact(&Compaction {
            deleted_before: Some(before(ttl)),
            keep_from: readers.latest,
            least_dead,
            index_later: true,
            stop: &|| stop() || Instant::now() >= until,
            ..Compaction::default()
        })?;
        done.ids += expired.ids;
        done.versions += expired.versions;
    }
    Ok(done)
}

/// The first version that pipes have not read yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Readers {
    /// Pipes that want every version, or that compare what they read with what they have seen.
    history: Option<Seq>,
    /// All pipes.
    latest: Option<Seq>,
}

impl Readers {
    /// The pipes that read `dataset`. Disabled ones count: they may be enabled again.
    fn of(hub: &Hub, dataset: &str) -> Result<Readers, StoreError> {
        let mut readers = Readers::default();
        for live in hub.pipes() {
            let Ok(pipe) = &live.pipe else { continue };
            if live.ways.datasets().contains(dataset)
                && let Some(first) = first_unfollowed(hub, pipe, dataset)?
            {
                readers.hold(first, true);
            }
            if !pipe.source_datasets().contains(&dataset) {
                continue;
            }
            let source = &pipe.effective["source"];
            let first = match (
                pipe.kind("source"),
                pipe.kind("sink").ends_with("_endpoint"),
            ) {
                // Whoever asks there says where to go on.
                (kind, true) if keeps_places(kind) => continue,
                (kind, false) if keeps_places(kind) => first_unread(hub, pipe, dataset)?,
                // Nobody here can tell how far it has read.
                _ => Some(0),
            };
            let all = source["include_previous_versions"] == true;
            // Who begins anew reads what there is; only history must be whole for that.
            let Some(first) = first.or(all.then_some(0)) else {
                continue;
            };
            // What it gave last may have to go through the pipe again while newer versions wait.
            let waits = pipe.bounds_source() && !live.ways.datasets().is_empty();
            let merges = pipe.kind("source") == "merge";
            let compares = !source["subset"].is_null() || waits || merges;
            readers.hold(first, all || compares || !keeps_places(pipe.kind("source")));
        }
        Ok(readers)
    }

    /// One more reader that has not read what begins here.
    fn hold(&mut self, first: Seq, history: bool) {
        let least = |known: Option<Seq>| Some(known.map_or(first, |known| known.min(first)));
        self.latest = least(self.latest);
        if history {
            self.history = least(self.history);
        }
    }
}

/// The first version of `dataset` that a pipe which reads it has not read; `None` when it has to
/// read everything anyway.
fn first_unread(hub: &Hub, pipe: &Pipe, dataset: &str) -> Result<Option<Seq>, StoreError> {
    let Some(home) = hub.world.store.find(&pipe.home())? else {
        return Ok(None);
    };
    let offset = progress::offset(home.snapshot()?.as_ref(), &pipe.id)?;
    let read = |offset: &Offset| Places::read(offset, dataset).map_or(0, |seq| seq + 1);
    Ok(offset.as_ref().map(read))
}

/// The first version of `dataset` that a pipe which joins it has not looked at; `None` when it has
/// to read everything anyway.
fn first_unfollowed(hub: &Hub, pipe: &Pipe, dataset: &str) -> Result<Option<Seq>, StoreError> {
    let Some(home) = hub.world.store.find(&pipe.home())? else {
        return Ok(None);
    };
    let mark = progress::tracked(home.snapshot()?.as_ref(), &pipe.id, dataset)?;
    Ok(mark.map(|mark| mark.next))
}

/// The space of the ids whose earlier versions are to be removed.
fn space(pipe: &str) -> String {
    format!("retract:{pipe}")
}

/// The space of those among them that are being removed. What asks for the removal of an id's
/// versions while others of it go stays in the first space.
fn space_under_way(pipe: &str) -> String {
    format!("retracting:{pipe}")
}

/// Whether what a pipe writes may retract earlier versions.
pub(crate) fn retracts(compaction: Option<&Json>) -> bool {
    compaction.is_some_and(|compaction| compaction["retract"] == true)
}

/// The writes that remember the rows with `$retract`, to be committed with them.
pub(crate) fn to_retract(pipe: &str, rows: &Batch) -> Vec<StateWrite> {
    let wanted = rows
        .iter()
        .filter(|record| matches!(record.value("$retract"), Some(Value::Bool(true))));
    let ids = wanted.filter_map(|record| record.id);
    ids.map(|id| StateWrite {
        space: space(pipe),
        key: id.as_bytes().to_vec(),
        value: Some(Vec::new()),
    })
    .collect()
}

/// Removes the earlier versions of what was remembered, and forgets it when they are gone.
fn retract(
    hub: &Hub,
    live: &LivePipe,
    dataset: &dyn Dataset,
    retention: &Retention,
    stop: &dyn Fn() -> bool,
) -> Result<u64, Failure> {
    let pipe = live.id();
    let until = Instant::now() + retention.retract_timeout;
    let stops = || stop() || Instant::now() >= until;
    let is_new = take_up(hub, pipe, dataset)?;
    let waited_for = live.lock().compacted.waits_for;
    let (mut versions, mut after) = (0, None);
    loop {
        let (wanted, next) = some_of(dataset, &space_under_way(pipe), after.as_deref())?;
        if !wanted.is_empty() {
            let reader = Readers::of(hub, dataset.name())?.history;
            if !is_new && reader.is_some() && reader == waited_for {
                return Ok(versions);
            }
            let keys: Vec<&[u8]> = wanted.iter().map(|(key, _)| key.as_slice()).collect();
            let (removed, finished) = retract_some(hub, (pipe, reader), dataset, &keys, &stops)?;
            versions += removed;
            if !finished {
                live.lock().compacted.waits_for = reader.filter(|_| !stops());
                return Ok(versions);
            }
        }
        after = next;
        if after.is_none() {
            return Ok(versions);
        }
    }
}

/// State records of a space, and where the next ones begin.
fn some_of(
    dataset: &dyn Dataset,
    space: &str,
    after: Option<&[u8]>,
) -> Result<(StateRows, Option<Vec<u8>>), StoreError> {
    let snapshot = dataset.snapshot()?;
    snapshot.state_page(space, b"", after, RETRACTED_AT_ONCE)
}

/// Takes up what was remembered since, and tells whether there was something: whatever is written
/// from now on is remembered anew.
fn take_up(hub: &Hub, pipe: &str, dataset: &dyn Dataset) -> Result<bool, Failure> {
    let (mut after, mut is_new) = (None, false);
    loop {
        let (wanted, next) = some_of(dataset, &space(pipe), after.as_deref())?;
        let mut state = Vec::with_capacity(2 * wanted.len());
        for (space, value) in [
            (space(pipe), None),
            (space_under_way(pipe), Some(Vec::new())),
        ] {
            state.extend(wanted.iter().map(|(key, _)| StateWrite {
                space: space.clone(),
                key: key.clone(),
                value: value.clone(),
            }));
        }
        if !state.is_empty() {
            commit_state(dataset, &state, false, hub.world.clock.as_ref())?;
            is_new = true;
        }
        after = next;
        if after.is_none() {
            return Ok(is_new);
        }
    }
}

/// The versions that were removed, and whether these ids are done with. `reader` is the first
/// version that somebody who wants all of them has not read.
fn retract_some(
    hub: &Hub,
    (pipe, reader): (&str, Option<Seq>),
    dataset: &dyn Dataset,
    keys: &[&[u8]],
    stop: &dyn Fn() -> bool,
) -> Result<(u64, bool), Failure> {
    let ids = keys.iter().filter_map(|id| std::str::from_utf8(id).ok());
    let done = dataset.compact(&Compaction {
        retract: &ids.collect::<Vec<&str>>(),
        keep_from: reader,
        least_dead: 0.0,
        stop,
        ..Compaction::default()
    })?;
    if done.finished {
        let forget = |key: &&[u8]| StateWrite {
            space: space_under_way(pipe),
            key: key.to_vec(),
            value: None,
        };
        let state: Vec<StateWrite> = keys.iter().map(forget).collect();
        commit_state(dataset, &state, false, hub.world.clock.as_ref())?;
    }
    Ok((done.versions, done.finished))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_goes_the_sooner_the_smaller_a_dataset_is() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let (small, large) = (1 << 20, 1 << 30);
        let mut last = Last::default();
        assert!(last.is_time_for_all(at(0), small));
        assert!(!last.is_time_for_all(at(0), large), "not at every start");
        last.thorough = Some(at(0));
        assert!(!last.is_time_for_all(at(59), small));
        assert!(last.is_time_for_all(at(60), small));
        assert!(!last.is_time_for_all(at(4_095), large));
        assert!(last.is_time_for_all(at(4_096), large));
        assert!(!last.is_time_for_all(at(86_399), u64::MAX));
        assert!(last.is_time_for_all(at(86_400), u64::MAX));
    }
}
