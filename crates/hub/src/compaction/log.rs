//! What leaves execution logs and dead letters, once a day and by age.
//!
//! The newest entry of each kind stays, and so does what is still open: what waits for a retry, and
//! what was given up and did not get through since. The rest of what the log tells of failures has
//! an id of its own for each read or entity, so that it would stay for ever as its own newest
//! version.

use jiff::Timestamp;
use tahini_entity::{Batch, Record, Value};
use tahini_store::{Compaction, Limit, View};

use super::{DAY, Retention, keep_last, last_kept};
use crate::execution_log::{self, ExecutionLog};
use crate::hub::{Hub, LivePipe};
use crate::retry::At;
use crate::{Failure, Pipe};

/// Entries of a log, without superseded ones.
const LATEST: View = View {
    history: false,
    deleted: false,
};
/// How much of a log is looked at together.
const LOOKED_AT: Limit = Limit {
    rows: 1_000,
    bytes: 4 << 20,
};
/// Entries of a log that are removed together.
const ERASED_AT_ONCE: usize = 10_000;

/// Trims the execution log of a pipe, and its dead letters.
pub(super) fn trim(
    hub: &Hub,
    live: &LivePipe,
    pipe: &Pipe,
    retention: &Retention,
    stop: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let now = hub.world.clock.now();
    let recent = |at: Timestamp| now.duration_since(at).unsigned_abs() < DAY;
    if live.lock().compacted.log.is_some_and(recent) {
        return Ok(());
    }
    let Some(dataset) = hub.world.store.find(&execution_log::dataset_id(&pipe.id))? else {
        return Ok(());
    };
    let kept = last_kept(dataset.as_ref(), &pipe.id)?.map(|(at, _)| at);
    if kept.is_some_and(recent) {
        live.lock().compacted.log = kept;
        return Ok(());
    }
    live.lock().compacted.log = Some(now);
    let before = now.as_microsecond() - retention.log_threshold;
    forget_failures(live, &hub.log(&pipe.id)?, before, stop)?;
    dataset.compact(&Compaction {
        keep_versions: Some(1),
        older_than: Some(before),
        index_later: true,
        stop,
        ..Compaction::default()
    })?;
    letters(hub, pipe, retention, now, stop)?;
    keep_last(hub, dataset.as_ref(), &pipe.id, (now, 0))
}

/// Removes dead letters that got through in the end, when that is as long ago as entries of the
/// log stay. A pipe that writes the dataset itself says what becomes of it.
fn letters(
    hub: &Hub,
    pipe: &Pipe,
    retention: &Retention,
    now: Timestamp,
    stop: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let Some(name) = pipe.policy.dead_letter_dataset.as_deref() else {
        return Ok(());
    };
    let Some(dataset) = hub.world.store.find(name)? else {
        return Ok(());
    };
    if !hub.writers(name).is_empty() {
        return Ok(());
    }
    let age = Some(retention.log_threshold);
    let retention = Retention {
        keep: 1,
        threshold: age,
        ttl: age,
        ..retention.clone()
    };
    let usual = Compaction::default().least_dead;
    super::trim(hub, dataset.as_ref(), &retention, (now, usual), stop)?;
    Ok(())
}

/// Removes what a log tells of failures before `before` that are over.
fn forget_failures(
    live: &LivePipe,
    log: &ExecutionLog,
    before: i64,
    stop: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let snapshot = log.dataset().snapshot()?;
    let mut old: Vec<String> = Vec::new();
    let mut after = None;
    loop {
        if old.len() >= ERASED_AT_ONCE {
            forget(live, log, &std::mem::take(&mut old), stop)?;
        }
        let mut entries = Batch::new();
        let next = snapshot.changes(after, LATEST, LOOKED_AT, &mut entries)?;
        let mut done = false;
        for entry in entries.iter() {
            done = entry.meta.ts >= before;
            if done {
                break;
            }
            let id = entry.id.filter(|id| may_go(id, entry));
            old.extend(id.map(str::to_owned));
        }
        match next {
            Some(seq) if !done && !stop() => after = Some(seq),
            _ => break,
        }
    }
    drop(snapshot);
    forget(live, log, &old, stop)
}

/// Whether an entry tells of a failure that may be over. What was given up is not.
fn may_go(id: &str, entry: Record<'_>) -> bool {
    let is_dead = || matches!(entry.value("dead"), Some(Value::Bool(true)));
    id.starts_with("read-error:") || (At::of_entry(id).is_some() && !is_dead())
}

/// Removes these entries, but for what is remembered for later runs.
fn forget(
    live: &LivePipe,
    log: &ExecutionLog,
    ids: &[String],
    stop: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    if ids.is_empty() {
        return Ok(());
    }
    let ledger = live.rescan().ledger(log, live.id())?;
    ledger.forgotten(ids, |ids| {
        for erase in ids.chunks(ERASED_AT_ONCE) {
            log.dataset().compact(&Compaction {
                erase,
                least_dead: 1.0,
                stop,
                ..Compaction::default()
            })?;
        }
        Ok(())
    })
}
