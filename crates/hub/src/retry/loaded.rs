//! What is read of failed entities when the first run begins that looks at them.

use std::collections::HashMap;

use tahini_entity::Str;
use tahini_store::Snapshot;

use super::kept::Counts;
use super::{At, Failed, all_states, kept};
use crate::Failure;
use crate::execution_log::ExecutionLog;

/// All of them, by place and id.
pub(super) fn read_all(
    snapshot: &dyn Snapshot,
    pipe: &str,
    counts: &Counts,
) -> Result<HashMap<(At, Str), Failed>, Failure> {
    let mut all = HashMap::new();
    for (at, dead) in all_states().filter(|(at, _)| counts.at(*at) > 0) {
        let mut after = None;
        loop {
            let (rows, next) = kept::page(snapshot, pipe, (at, dead), after.as_deref())?;
            all.extend(rows.into_iter().map(|(id, entry)| ((at, id), entry)));
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(all)
}

/// How many were overtaken.
pub(super) fn count_overtaken(snapshot: &dyn Snapshot, pipe: &str) -> Result<u64, Failure> {
    let mut count = 0;
    for at in At::BOTH {
        let mut after = None;
        loop {
            let (ids, next) = kept::overtaken_page(snapshot, pipe, at, after.as_deref())?;
            count += ids.len() as u64;
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(count)
}

/// Takes over what an earlier version of the program kept, and counts.
pub(super) fn adopt(log: &ExecutionLog, pipe: &str) -> Result<Counts, Failure> {
    for at in At::BOTH {
        let mut after = None;
        loop {
            let snapshot = log.dataset().snapshot()?;
            let (writes, next) = kept::adopt(snapshot.as_ref(), pipe, at, after.as_deref())?;
            if !writes.is_empty() {
                log.append(Vec::new(), &writes)?;
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    let mut counts = Counts::default();
    let snapshot = log.dataset().snapshot()?;
    for (at, dead) in all_states() {
        let mut after = None;
        loop {
            let page = kept::page(snapshot.as_ref(), pipe, (at, dead), after.as_deref());
            let (rows, next) = page?;
            rows.iter().for_each(|_| counts.moved(at, None, Some(dead)));
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    if counts.all() > 0 {
        log.append(Vec::new(), &[counts.write(pipe)])?;
    }
    Ok(counts)
}
