//! What changed since something was given out: the entities that it concerns, put together anew.
//!
//! A step is given out as a whole with its place, or not at all: what counts as given out is what
//! the rules make of the versions before that place, and so nobody has to keep it.

use std::collections::HashSet;

use tahini_entity::encoding::EncodeError;
use tahini_entity::{Batch, Meta, Record};
use tahini_store::StoreError;

use super::blend::{Blend, gone};
use super::clash::Clashes;
use super::part::{Node, Part, Trouble, each, each_if};
use super::reach::{At, Reach, When};
use super::rules::{Back, Merging};
use crate::{Cancel, Failure};

/// From so many versions on the datasets are read on threads of their own, and from so many
/// entities on two threads put them together.
const MANY: u64 = 64;

/// Whether the indexes of all sides answer; they take in first what was committed since.
///
/// # Errors
/// Where a dataset cannot be read.
pub(super) fn are_indexed(merging: &Merging, parts: &mut [Part]) -> Result<bool, StoreError> {
    let many = pending(parts) > MANY;
    let answers = each_if(many, parts, |at, part| part.is_indexed(merging, at))?;
    Ok(answers.into_iter().all(|answers| answers))
}

/// How many versions wait.
fn pending(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.head() - part.from).sum()
}

/// Takes in what changed behind the place, at most `most` versions; whether there is anything.
///
/// # Errors
/// `Lost` where what was given out cannot be told any more.
pub(super) fn take(merging: &Merging, parts: &mut [Part], most: usize) -> Result<bool, Trouble> {
    let pending = pending(parts);
    if pending > MANY && pending <= most as u64 {
        let counts = each(parts, |at, part| part.take_changes(merging, at, usize::MAX))?;
        return Ok(counts.iter().any(|count| *count > 0));
    }
    let mut left = most;
    for (at, part) in parts.iter_mut().enumerate() {
        left -= part.take_changes(merging, at, left)?.min(left);
    }
    Ok(left < most)
}

/// Appends what becomes of everything that the changes concern: ids that are no more as deleted,
/// then what is there now.
///
/// # Errors
/// Transient where a dataset cannot be read, fatal where too many entities are the same.
pub(super) fn give(
    merging: &Merging,
    parts: &mut [Part],
    (blend, clashes): (&mut Blend, Option<&mut Clashes>),
    cancel: &Cancel,
    out: &mut Batch,
) -> Result<(), Trouble> {
    let mut reach = Reach {
        merging,
        parts,
        cancel,
    };
    let (now, ids) = reach.given_now(clashes)?;
    let before = reach.together(When::Before)?;
    let known: HashSet<&str> = ids.iter().map(String::as_str).collect();
    // An id that led to somebody who is still there is not deleted but replaced.
    let mut replaced: HashSet<String> = HashSet::new();
    let mut vanished: Vec<String> = Vec::new();
    for members in &before {
        let id = reach.identity(members);
        if known.contains(id.as_str()) || merging.lost == Some(Back::Given) {
            continue;
        }
        let mut members = members.iter();
        match members.any(|at| reach.parts[at.0].nodes[at.1 as usize].lives()) {
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
    let read: Vec<Read<'_>> = reach
        .parts
        .iter()
        .map(|part| (&*part.nodes, &part.rows))
        .collect();
    Ok(put_together(merging, &read, (&now, &ids), blend, out)?)
}

/// The entities of a dataset, and the rows of their versions.
type Read<'r> = (&'r [Node], &'r Batch);

/// Appends what becomes of groups of entities, each under its id.
fn put_together(
    merging: &Merging,
    read: &[Read<'_>],
    (groups, ids): (&[Vec<At>], &[String]),
    blend: &mut Blend,
    out: &mut Batch,
) -> Result<(), EncodeError> {
    let record = |(part, node): &At| -> Option<Record<'_>> {
        let (nodes, rows) = read[*part];
        let now = nodes[*node as usize].now.as_ref()?;
        Some(rows.get(now.row as usize))
    };
    let put = |groups: &[Vec<At>], ids: &[String], blend: &mut Blend, out: &mut Batch| {
        groups.iter().zip(ids).try_for_each(|(members, id)| {
            let records: Vec<_> = members.iter().filter_map(record).collect();
            blend.put(id, &records, Meta::default(), out)
        })
    };
    if (groups.len() as u64) < MANY {
        return put(groups, ids, blend, out);
    }
    let half = groups.len() / 2;
    let (groups, ids) = (groups.split_at(half), ids.split_at(half));
    let rest = std::thread::scope(|scope| {
        let rest = scope.spawn(|| {
            let mut rest = Batch::new();
            put(groups.1, ids.1, &mut Blend::new(merging), &mut rest).map(|()| rest)
        });
        put(groups.0, ids.0, blend, out)?;
        rest.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    out.push_all(&rest);
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
