//! What changed since something was given out: the entities that it concerns, put together anew.
//!
//! A step is given out as a whole with its place, or not at all: what counts as given out is what
//! the rules make of the versions before that place, and so nobody has to keep it.

use std::collections::HashSet;

use tahini_entity::{Batch, Meta};

use super::blend::{Blend, gone};
use super::part::{Node, Part, Trouble};
use super::reach::{Reach, When};
use super::rules::Merging;
use crate::{Cancel, Failure};

/// From so many versions on the datasets are read on threads of their own.
const MANY: u64 = 64;

/// Takes in what changed behind the place, at most `most` versions; whether there is anything.
///
/// # Errors
/// `Lost` where what was given out cannot be told any more.
pub(super) fn take(merging: &Merging, parts: &mut [Part], most: usize) -> Result<bool, Trouble> {
    let pending: u64 = parts.iter().map(|part| part.head() - part.from).sum();
    if pending > MANY && pending <= most as u64 {
        return take_side_by_side(merging, parts);
    }
    let mut left = most;
    for (at, part) in parts.iter_mut().enumerate() {
        left -= part.take_changes(merging, at, left)?.min(left);
    }
    Ok(left < most)
}

/// The same where all of it is taken.
fn take_side_by_side(merging: &Merging, parts: &mut [Part]) -> Result<bool, Trouble> {
    std::thread::scope(|scope| {
        let parts = parts.iter_mut().enumerate();
        let tasks: Vec<_> = parts
            .map(|(at, part)| scope.spawn(move || part.take_changes(merging, at, usize::MAX)))
            .collect();
        let joined = tasks.into_iter().map(|task| {
            task.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let counts = joined.collect::<Result<Vec<usize>, Trouble>>()?;
        Ok(counts.iter().any(|count| *count > 0))
    })
}

/// Appends what becomes of everything that the changes concern: ids that are no more as deleted,
/// then what is there now.
///
/// # Errors
/// Transient where a dataset cannot be read, fatal where too many entities are the same.
pub(super) fn give(
    merging: &Merging,
    parts: &mut [Part],
    blend: &mut Blend,
    cancel: &Cancel,
    out: &mut Batch,
) -> Result<(), Trouble> {
    let mut reach = Reach {
        merging,
        parts,
        cancel,
    };
    reach.close()?;
    let before = reach.together(When::Before)?;
    let now = reach.together(When::Now)?;
    let ids: Vec<String> = now.iter().map(|members| reach.identity(members)).collect();
    let known: HashSet<&str> = ids.iter().map(String::as_str).collect();
    // An id that led to somebody who is still there is not deleted but replaced.
    let mut replaced: HashSet<String> = HashSet::new();
    let mut vanished: Vec<String> = Vec::new();
    for members in &before {
        let id = reach.identity(members);
        if known.contains(id.as_str()) {
            continue;
        }
        let lives = |node: &Node| node.now.as_ref().is_some_and(|now| !now.deleted);
        let mut members = members.iter();
        match members.any(|at| lives(&reach.parts[at.0].nodes[at.1 as usize])) {
            true => drop(replaced.insert(id)),
            false => vanished.push(id),
        }
    }
    let mut told: HashSet<String> = HashSet::new();
    for (at, part) in reach.parts.iter().enumerate() {
        for (node, number) in part.nodes.iter().zip(0u32..) {
            let Some(now) = node.now.as_ref().filter(|now| node.changed && now.deleted) else {
                continue;
            };
            let id = reach.identity(&[(at, number)]);
            if known.contains(id.as_str()) || replaced.contains(&id) {
                continue;
            }
            let meta = Meta {
                deleted: true,
                ..Meta::default()
            };
            blend.put(&id, &[part.record(now)], meta, out)?;
            told.insert(id);
        }
    }
    vanished.retain(|id| !told.contains(id));
    vanished.iter().for_each(|id| gone(id, false, out));
    let mut replaced: Vec<String> = replaced.into_iter().collect();
    replaced.sort_unstable();
    replaced.iter().for_each(|id| gone(id, true, out));
    for (members, id) in now.iter().zip(&ids) {
        let records: Vec<_> = members.iter().filter_map(|at| reach.record(*at)).collect();
        blend.put(id, &records, Meta::default(), out)?;
    }
    Ok(())
}

/// The failure that a trouble is told as.
pub(super) fn failure(
    merging: &Merging,
    parts: &mut [Part],
    cancel: &Cancel,
    trouble: Trouble,
) -> Failure {
    let reach = Reach {
        merging,
        parts,
        cancel,
    };
    reach.failure(trouble)
}
