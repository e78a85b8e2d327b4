//! Holding commits back from readers, and taking them back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::compact::Memo;
use super::dataset::{OpenDataset, io_error};
use super::floor;
use super::manifest::Manifest;
use super::recovery::{self, Place};
use super::writer::Writer;
use crate::StoreError;

/// Waits for the compaction that runs, which ends early, and keeps others from beginning: what
/// it removes at once could not be taken back.
pub(crate) fn await_compaction(dataset: &OpenDataset) -> MutexGuard<'_, Memo> {
    dataset.holding_up.fetch_add(1, Ordering::AcqRel);
    let held = dataset.compacting.lock();
    dataset.holding_up.fetch_sub(1, Ordering::AcqRel);
    held.unwrap_or_else(PoisonError::into_inner)
}

/// Cuts off what is held back and reads the end of the log again, as if the dataset were opened.
///
/// Segments go from the list before the last one that stays is cut, so that whatever ends this in
/// the middle leaves a log whose newest commits are missing.
pub(crate) fn roll_back(dataset: &Arc<OpenDataset>) -> Result<(), StoreError> {
    let mut memo = await_compaction(dataset);
    let mut writer = dataset.writer();
    dataset.check_writable(&mut writer)?;
    if !writer.head.holds {
        return Ok(());
    }
    dataset.durable.reach(writer.commit)?;
    let cutting = dataset.cutting.write();
    let _cutting = cutting.unwrap_or_else(PoisonError::into_inner);
    cut(dataset, &mut writer)?;
    dataset.cuts.fetch_add(1, Ordering::AcqRel);
    read_again(dataset, &mut writer)?;
    *memo = Memo::default();
    Ok(())
}

/// Takes what is held back out of the log.
fn cut(dataset: &OpenDataset, writer: &mut Writer) -> Result<(), StoreError> {
    let visible = dataset.durable.visible();
    let number = visible.segment.opening.number;
    let mut manifest = writer.manifest.clone();
    let listed = &mut manifest.segments;
    let place = listed.iter().position(|listed| *listed == number);
    let place = place.expect("only compaction takes segments from the list, and it stands still");
    let disk = &dataset.options.disk;
    if writer.floor > visible.commit {
        floor::forget(&**disk, &dataset.dir)
            .map_err(|source| io_error("rolling back", &dataset.dir, source))?;
        writer.floor = 0;
    }
    if place + 1 < listed.len() {
        listed.truncate(place + 1);
        manifest
            .prepare(&**disk, &dataset.dir)
            .map_err(|source| io_error("rolling back", &dataset.dir, source))?;
        if let Err(error) = Manifest::swap(&**disk, &dataset.dir) {
            // Either list may count now: whoever opens the dataset anew sees which one.
            dataset.durable.fail(&visible.segment, &error);
            return dataset.durable.check();
        }
        writer.manifest = manifest;
    }
    let file = &visible.segment.file;
    if let Err(error) = file.cut(visible.end).and_then(|()| file.sync()) {
        dataset.durable.fail(&visible.segment, &error);
        return dataset.durable.check();
    }
    Ok(())
}

/// Takes over what the log says now.
fn read_again(dataset: &OpenDataset, writer: &mut Writer) -> Result<(), StoreError> {
    // Nobody looks into the index meanwhile: where it knows what was held back it is built anew.
    let overlay = dataset.overlay.write();
    let mut overlay = overlay.unwrap_or_else(PoisonError::into_inner);
    let index = &dataset.index;
    let manifest = writer.manifest.clone();
    let place = Place::of(&dataset.options, &dataset.dir, &manifest, dataset.pool());
    let found = match recovery::recover(&place, index, &|| Arc::clone(index)) {
        Ok((found, _)) if found.damage.is_none() => Ok(found),
        Ok((found, _)) => Err(dataset.damaged(found.damage.unwrap_or_default())),
        Err(error) => Err(error),
    };
    let mut found = found.inspect_err(|error| {
        // The handle knows what is gone: the next one begins with the log as it is.
        let refused = std::io::Error::other(error.to_string());
        dataset.durable.fail(&writer.segment, &refused);
    })?;
    let segments = Arc::new(std::mem::take(&mut found.segments));
    let mut fresh = std::mem::take(&mut found.told.overlay);
    fresh.keep(&mut overlay, found.told.commit);
    *overlay = fresh;
    let numbers = Arc::clone(&writer.numbers);
    let bytes = index.bytes() + dataset.keyed.bytes();
    *writer = Writer::recovered(found, &segments, manifest, numbers, bytes);
    let list = dataset.segments.write();
    let mut list = list.unwrap_or_else(PoisonError::into_inner);
    for gone in list.iter().skip(segments.len()) {
        gone.replace(&dataset.options.disk);
    }
    *list = segments;
    drop(list);
    dataset.durable.restart(writer.view());
    Ok(())
}
