//! Reading versions: by key through overlay and index, by sequence through the segments' blocks.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError};

use tahini_entity::Shape;

use super::block::{Block, Malformed, Stored};
use super::dataset::OpenDataset;
use super::segment::{Place, Segment, Unreadable};
use super::superseded::Superseded;
use super::tables::bad_row;
use crate::rule::Prior;
use crate::{Seq, StoreError};

/// Whoever looks for more ids at a time believes that those are new that an index does not have
/// which was found to be whole: to make sure of each would cost as much as looking for it.
const MANY: usize = 256;

/// Room for a larger block is given back.
const KEPT: usize = 64 << 10;

/// The latest version under each key, looked up in key order; `order` says which that is. What is
/// `superseded` by now, or was in some view, is no latest version: an index that says so has a page
/// that it had before.
pub(crate) fn look_up(
    dataset: &OpenDataset,
    keys: &[Cow<'_, [u8]>],
    order: &[u32],
    superseded: &Superseded,
) -> Result<Vec<Option<Prior>>, StoreError> {
    let mut priors = vec![None; keys.len()];
    // The index is read under the overlay's lock: what leaves the overlay is in the index by then.
    let overlay = dataset
        .overlay
        .read()
        .unwrap_or_else(PoisonError::into_inner);
    let mut misses = Vec::new();
    for at in order {
        match overlay.latest.get(&keys[*at as usize]) {
            Some(prior) => priors[*at as usize] = prior,
            None => misses.push(*at as usize),
        }
    }
    if !misses.is_empty() {
        let wary = misses.len() <= MANY || dataset.index.is_unknown();
        dataset.index.read(|tables, txn| {
            for at in misses {
                let prior = tables.prior(txn, &keys[at], wary)?;
                if prior.is_some_and(|prior| superseded.contains(prior.seq)) {
                    return Err(bad_row("a row names a version that has a newer one"));
                }
                priors[at] = prior;
            }
            Ok(())
        })?;
    }
    Ok(priors)
}

/// A block as it was read, and its rows.
#[derive(Default)]
pub(crate) struct Room {
    stored: Vec<u8>,
    block: Block,
    shapes: Arc<Vec<Arc<Shape>>>,
    /// The segment that the shapes are of, where it is one of a view: there no more are to come.
    shapes_of: Option<usize>,
}

/// Reads versions from the log and keeps the block that it read last.
pub(crate) struct Fetch<'d> {
    dataset: &'d OpenDataset,
    pub segments: Arc<Vec<Arc<Segment>>>,
    at: Option<(usize, usize)>,
    room: Room,
    /// Whether only what a view knows is read.
    in_view: bool,
}

impl<'d> Fetch<'d> {
    /// Reads from the segments of now. To be made after the sequences are known, so that it
    /// knows their segments.
    pub fn new(dataset: &'d OpenDataset) -> Fetch<'d> {
        Fetch::over(dataset, dataset.all_segments())
    }

    /// Reads from these segments.
    pub fn over(dataset: &'d OpenDataset, segments: Arc<Vec<Arc<Segment>>>) -> Fetch<'d> {
        Fetch {
            dataset,
            segments,
            at: None,
            room: Room::default(),
            in_view: false,
        }
    }

    /// Reads what a view knows, into room that another one of the same view left.
    pub fn within(self, room: Room) -> Fetch<'d> {
        Fetch {
            room,
            in_view: true,
            ..self
        }
    }

    /// The room, for the next one; none where a large block was in it.
    pub fn leave(self) -> Option<Room> {
        Some(self.room).filter(|room| room.stored.capacity().max(room.block.bytes()) <= KEPT)
    }

    /// Where the block is that holds `seq` or, where there is none, the rows before it.
    pub fn place(&self, seq: Seq) -> Option<(usize, usize)> {
        let segment = OpenDataset::segment_of(&self.segments, seq)?;
        Some((segment, self.segments[segment].block_of(seq).unwrap_or(0)))
    }

    /// Makes block `number` of a segment the current one, with all its rows; `false` beyond the
    /// segment's last.
    pub fn load(&mut self, segment: usize, number: usize) -> Result<bool, StoreError> {
        let Some(place) = self.segments[segment].place(number) else {
            return Ok(false);
        };
        self.check(segment, number, place)?;
        match self.room.block.unpack_all(&mut self.room.stored) {
            Some(()) => Ok(true),
            None => Err(self.malformed(&Malformed)),
        }
    }

    /// Makes a block the current one. None of its rows need be unpacked.
    fn check(&mut self, segment: usize, number: usize, place: Place) -> Result<(), StoreError> {
        if self.at == Some((segment, number)) {
            return Ok(());
        }
        self.at = None;
        let from = &self.segments[segment];
        let read = from.read(place, &mut self.room.stored, &mut self.room.block);
        read.map_err(|error: Unreadable| self.dataset.note(error.of(&self.dataset.name)))?;
        // Shapes are taken after the block is known, so that they include all of its own.
        if self.room.shapes_of != Some(segment) {
            self.room.shapes = from.shapes();
            self.room.shapes_of = self.in_view.then_some(segment);
        }
        self.at = Some((segment, number));
        Ok(())
    }

    pub fn block(&self) -> &Block {
        &self.room.block
    }

    pub fn shapes(&self) -> &[Arc<Shape>] {
        &self.room.shapes
    }

    /// Hands the version `seq` to `look`, with its segment's shapes.
    pub fn with<R>(
        &mut self,
        seq: Seq,
        look: impl FnOnce(&Stored<'_>, &[Arc<Shape>]) -> R,
    ) -> Result<R, StoreError> {
        let found = self.find(seq, look)?;
        found.ok_or_else(|| {
            let found = format!("expected version {seq} in the log, found none");
            self.dataset.index.doubt(&found)
        })
    }

    /// The same, `None` where the log has no such version.
    pub fn find<R>(
        &mut self,
        seq: Seq,
        look: impl FnOnce(&Stored<'_>, &[Arc<Shape>]) -> R,
    ) -> Result<Option<R>, StoreError> {
        let segment = OpenDataset::segment_of(&self.segments, seq);
        let place = segment.and_then(|at| Some((at, self.segments[at].place_of(seq)?)));
        let Some((segment, (number, place))) = place else {
            return Ok(None);
        };
        self.check(segment, number, place)?;
        let Room {
            stored,
            block,
            shapes,
            ..
        } = &mut self.room;
        let found = block.find(stored, seq, |row| look(row, shapes));
        found.map_err(|found| self.malformed(&found))
    }

    /// Bytes that passed their sum and make no sense.
    pub fn malformed(&self, _found: &Malformed) -> StoreError {
        let segment = self
            .at
            .map(|(segment, _)| self.segments[segment].path.display().to_string());
        self.dataset.note(self.dataset.damaged(format!(
            "a block of {} passes its sum and cannot be read",
            segment.unwrap_or_default()
        )))
    }
}
