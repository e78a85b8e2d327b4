//! Removing ids with all their versions: one frame that says so. From then on they are unknown;
//! the rows themselves leave the log when compaction writes their segments anew.

use std::sync::{Arc, PoisonError};

use super::dataset::OpenDataset;
use super::fetch::{Fetch, look_up};
use super::frame::Removal;
use super::segment::REMOVING;
use super::writer::Writer;
use crate::keys::{index_key, is_cut, key_order};
use crate::{Seq, StoreError};

/// An id to remove, and the version that has to be its latest one if that matters.
pub(crate) type Wanted = (String, Option<Seq>);

/// A frame removes ids of about this many bytes.
const AT_ONCE: usize = 4 << 20;

/// Removes those of the ids that exist, durably; returns how many there were.
pub(crate) fn run(dataset: &Arc<OpenDataset>, mut ids: &[Wanted]) -> Result<u64, StoreError> {
    let mut removed = 0;
    while !ids.is_empty() {
        let mut bytes = 0;
        let fits = |(id, _): &&Wanted| {
            bytes += id.len();
            bytes <= AT_ONCE
        };
        let count = ids.iter().take_while(fits).count().max(1);
        removed += together(dataset, &ids[..count])?;
        ids = &ids[count..];
    }
    Ok(removed)
}

fn together(dataset: &Arc<OpenDataset>, ids: &[Wanted]) -> Result<u64, StoreError> {
    let mut writer = dataset.writer();
    dataset.check_writable(&mut writer)?;
    if dataset.overlay_full(&writer, true) {
        dataset.write_index(&mut writer)?;
    }
    let removals = known(dataset, &writer, ids)?;
    if removals.is_empty() {
        return Ok(0);
    }
    if dataset.segment_full(&writer) || writer.segment.opening.format < REMOVING {
        dataset.roll(&mut writer)?;
    }
    dataset.append_marks(&mut writer, &removals)?;
    publish(dataset, &mut writer, &removals);
    dataset.durable.push(writer.view());
    dataset.durable.reach(writer.commit)?;
    Ok(removals.len() as u64)
}

/// The latest versions of those that exist, each id once.
fn known(
    dataset: &Arc<OpenDataset>,
    writer: &Writer,
    ids: &[Wanted],
) -> Result<Vec<Removal>, StoreError> {
    let keys: Vec<_> = ids.iter().map(|(id, _)| index_key(id.as_bytes())).collect();
    let order = key_order(keys.len(), |at| keys[at].as_ref());
    let priors = look_up(dataset, &keys, &order, &writer.superseded)?;
    let mut fetch = Fetch::new(dataset);
    let mut removals: Vec<Removal> = Vec::new();
    for at in order.into_iter().map(|at| at as usize) {
        let (id, expected) = &ids[at];
        let Some(prior) = priors[at].filter(|prior| expected.is_none_or(|seq| seq == prior.seq))
        else {
            continue;
        };
        if removals.last().is_some_and(|last| last.id == *id) {
            continue;
        }
        // A cut key may be that of another id.
        if is_cut(&keys[at]) && !fetch.with(prior.seq, |row, _| row.id == id)? {
            continue;
        }
        removals.push(Removal {
            id: id.clone(),
            seq: prior.seq,
            deleted: prior.deleted,
        });
    }
    Ok(removals)
}

fn publish(dataset: &OpenDataset, writer: &mut Writer, removals: &[Removal]) {
    let overlay = dataset.overlay.write();
    let mut overlay = overlay.unwrap_or_else(PoisonError::into_inner);
    for removal in removals {
        let head = &mut writer.head;
        *(if removal.deleted {
            &mut head.deleted
        } else {
            &mut head.live
        }) -= 1;
        writer.dirty.insert(writer.superseded.insert(removal.seq));
        overlay.set_latest(&index_key(removal.id.as_bytes()), None);
    }
    overlay.count();
}
