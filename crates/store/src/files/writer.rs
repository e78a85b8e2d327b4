//! The writer's end of a dataset: where the next frame goes, and what the next commit builds on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tahini_entity::Shape;

use super::dataset::{OpenDataset, io_error};
use super::durable::View;
use super::frame::Finished;
use super::manifest::Manifest;
use super::recovery::Recovered;
use super::segment::Segment;
use super::superseded::Superseded;
use super::tables::Applied;
use crate::{Head, StoreError};

/// What only the writer of a moment touches.
pub(crate) struct Writer {
    pub segment: Arc<Segment>,
    /// Where the next frame goes.
    pub end: u64,
    pub sum: u32,
    pub commit: u64,
    pub head: Head,
    pub superseded: Superseded,
    pub dirty: BTreeSet<u32>,
    /// The segment's shapes by their names.
    pub shapes: HashMap<Arc<Shape>, u32>,
    /// A commit began to write and did not come to its end: what is on disk is not known.
    pub torn: bool,
    /// The newest commit of which something on disk says that it was durable.
    pub witnessed: u64,
    /// The newest commit that the note beside the log says was durable.
    pub floor: u64,
    pub manifest: Manifest,
    pub index_bytes: u64,
    /// The number of the next segment, the same for all handles that the dataset ever had: one
    /// that failed may still be at work on a file.
    pub numbers: Arc<AtomicU32>,
    sealed_bytes: u64,
    /// What a failed sync may have left behind was cut off.
    pub cut: bool,
    /// The index was written with commits that are held back.
    pub index_held: bool,
}

impl Writer {
    /// A writer that goes on where the log ends; there is at least one segment.
    pub fn recovered(
        found: Recovered,
        segments: &[Arc<Segment>],
        manifest: Manifest,
        numbers: Arc<AtomicU32>,
        index_bytes: u64,
    ) -> Writer {
        numbers.fetch_max(manifest.fresh_number(), Ordering::Relaxed);
        let told = found.told;
        let (segment, sealed) = segments.split_last().expect("a dataset has a segment");
        let shapes = segment.shapes();
        let shapes = shapes
            .iter()
            .zip(0..)
            .map(|(shape, number)| (Arc::clone(shape), number));
        let head = Head {
            name: manifest.name.clone(),
            generation: manifest.generation,
            next: told.next,
            live: told.live,
            deleted: told.deleted,
            populated: told.populated,
            bytes: 0,
            last_ts: told.last_ts,
            holds: false,
            past: manifest.past.clone(),
        };
        let mut writer = Writer {
            shapes: shapes.collect(),
            segment: Arc::clone(segment),
            end: found.end,
            sum: told.sum,
            commit: told.commit,
            head,
            superseded: told.superseded,
            dirty: told.dirty,
            torn: false,
            witnessed: found.witnessed,
            floor: found.floor,
            numbers,
            manifest,
            sealed_bytes: sealed
                .iter()
                .map(|segment| segment.file.size().unwrap_or(0))
                .sum(),
            index_bytes,
            cut: false,
            index_held: told.index_held,
        };
        writer.head.bytes = writer.bytes();
        writer
    }

    /// Writes a frame at the end. What a refused write left behind is cut off again.
    pub fn append(&mut self, frame: &[u8], dataset: &OpenDataset) -> Result<(), StoreError> {
        self.torn = true;
        if let Err(source) = self.segment.file.write_at(frame, self.end) {
            match self.segment.file.cut(self.end) {
                Ok(()) => self.torn = false,
                Err(error) => dataset.durable.fail(&self.segment, &error),
            }
            return Err(io_error("writing", &self.segment.path, source));
        }
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Takes in what a frame that was just appended brings: its blocks and shapes, its sum.
    pub fn note_frame(&mut self, frame: &Finished, shapes: &[Arc<Shape>]) {
        let start = self.end - frame.bytes.len() as u64;
        let blocks = frame.blocks.iter();
        let blocks = blocks.map(|(seq, at, len)| (*seq, start + u64::from(*at), *len));
        self.segment.extend(frame.rows, shapes, blocks);
        for shape in shapes {
            let number = self.shapes.len() as u32;
            self.shapes.insert(Arc::clone(shape), number);
        }
        self.commit += 1;
        self.sum = frame.sum;
    }

    /// Goes on in a new segment; the one before was sealed, and all in it is durable.
    pub fn begin_segment(&mut self, segment: &Arc<Segment>, manifest: Manifest) {
        self.sealed_bytes += self.segment.file.size().unwrap_or(self.end);
        self.witnessed = self.commit;
        self.manifest = manifest;
        self.end = segment.start();
        self.segment = Arc::clone(segment);
        self.shapes.clear();
    }

    /// A number for a segment, never given before.
    pub fn take_number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Sealed segments of `before` bytes were replaced by one of `after` bytes.
    pub fn replaced(&mut self, before: u64, after: u64) {
        self.sealed_bytes = self.sealed_bytes.saturating_sub(before) + after;
        self.head.bytes = self.bytes();
    }

    /// The dataset as it is after the newest commit.
    pub fn view(&self) -> View {
        View {
            commit: self.commit,
            head: self.head.clone(),
            superseded: self.superseded.clone(),
            segment: Arc::clone(&self.segment),
            end: self.end,
        }
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.sealed_bytes + self.end + self.index_bytes
    }

    pub fn applied(&self) -> Applied {
        Applied {
            generation: self.head.generation,
            commit: self.commit,
            sum: self.sum,
            next: self.head.next,
            live: self.head.live,
            deleted: self.head.deleted,
            populated: self.head.populated,
            last_ts: self.head.last_ts,
            held: self.head.holds,
        }
    }
}
