//! Writing segments anew without what compaction takes, and putting the new one in their place.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, PoisonError};

use tahini_entity::Shape;

use super::block::{self, Block, Malformed, Row, RowShape};
use super::commit::FrameShapes;
use super::dataset::{OpenDataset, io_error};
use super::frame::{self, Closing, Frame, FrameWriter, Header, Removal, put_state};
use super::manifest::Manifest;
use super::segment::{Closed, End, FORMAT, Opening, Segment};
use super::survey::Found;
use crate::StoreError;

/// Commits are put together until they are about this long.
const TOGETHER: usize = 1 << 20;

/// Writes neighbouring sealed segments anew as one, without `dead`; it is durable but listed
/// nowhere. `oldest` says that nothing stands before them. `None` when it was stopped.
pub(crate) fn group(
    dataset: &OpenDataset,
    segments: &[Arc<Segment>],
    dead: &[&Found],
    oldest: bool,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Arc<Segment>>, StoreError> {
    let mut anew = Anew::create(dataset, segments, oldest)?;
    let path = anew.segment.path.clone();
    let written = anew.copy(segments, dead, stop);
    if matches!(written, Ok(true)) {
        return Ok(Some(Arc::new(anew.segment)));
    }
    // One that cannot be removed is when the dataset is opened the next time.
    let _ = dataset.options.disk.remove_file(&path);
    written.map(|_| None)
}

/// Puts `fresh` in the place of `segments`, in one step. Whoever reads those goes on.
pub(crate) fn swap(
    dataset: &OpenDataset,
    segments: &[Arc<Segment>],
    fresh: &Arc<Segment>,
    dead: &[&Found],
) -> Result<(), StoreError> {
    let mut writer = dataset.writer();
    dataset.check_writable(&mut writer)?;
    // State that a later commit replaced was left out, and what the index has of the replaced
    // segments cannot be read from the new one: both are durable before those go.
    dataset.durable.reach(writer.commit)?;
    if dataset.index.exists() {
        dataset.write_index(&mut writer)?;
    }
    let mut manifest = writer.manifest.clone();
    let first = segments[0].opening.number;
    let at = manifest.segments.iter().position(|number| *number == first);
    let at = at.expect("only compaction takes segments from the list, one at a time");
    let place = at..at + segments.len();
    manifest
        .segments
        .splice(place.clone(), [fresh.opening.number]);
    let disk = &dataset.options.disk;
    disk.sync_dir(&dataset.dir)
        .and_then(|()| manifest.prepare(&**disk, &dataset.dir))
        .map_err(|source| io_error("replacing segments of", &dataset.dir, source))?;
    if let Err(error) = Manifest::swap(&**disk, &dataset.dir) {
        // Either list may count now: whoever opens the dataset anew sees which one.
        dataset.durable.fail(fresh, &error);
        return dataset.durable.check();
    }
    writer.manifest = manifest;
    {
        let list = dataset.segments.write();
        let mut list = list.unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut list).splice(place, [Arc::clone(fresh)]);
    }
    let size = |segment: &Arc<Segment>| segment.file.size().unwrap_or(0);
    writer.replaced(segments.iter().map(size).sum(), size(fresh));
    for found in dead {
        let changed = writer.superseded.remove(&found.dead);
        writer.dirty.extend(changed);
    }
    dataset.durable.refresh(writer.view());
    segments.iter().for_each(|segment| segment.replace(disk));
    Ok(())
}

/// A segment under way.
struct Anew<'d> {
    dataset: &'d OpenDataset,
    oldest: bool,
    segment: Segment,
    closed: Closed,
    end: u64,
    sum: u32,
    known: HashMap<Arc<Shape>, u32>,
    frame: Together,
}

/// Commits that become one frame.
struct Together {
    frame: FrameWriter,
    fresh: Vec<Arc<Shape>>,
    rows: u32,
    state: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    state_bytes: usize,
    removals: Vec<Removal>,
    populated: bool,
    /// The first of them, and the last.
    first: Option<Header>,
    last: Option<Header>,
}

impl Together {
    fn new(buffer: Vec<u8>, salt: u32) -> Together {
        Together {
            frame: FrameWriter::new(buffer, salt),
            fresh: Vec::new(),
            rows: 0,
            state: BTreeMap::new(),
            state_bytes: 0,
            removals: Vec::new(),
            populated: false,
            first: None,
            last: None,
        }
    }

    fn len(&self) -> usize {
        self.frame.len() + self.state_bytes
    }
}

impl<'d> Anew<'d> {
    fn create(
        dataset: &'d OpenDataset,
        segments: &[Arc<Segment>],
        oldest: bool,
    ) -> Result<Anew<'d>, StoreError> {
        let (writer, first) = (dataset.writer(), &segments[0].opening);
        let list = dataset.all_segments();
        let last = &segments[segments.len() - 1];
        let after = list
            .iter()
            .skip_while(|segment| !Arc::ptr_eq(segment, last))
            .nth(1)
            .expect("behind a sealed segment stands another");
        let closed = Closed {
            commit: after.opening.commit,
            next: after.opening.first_seq,
            sum: after.opening.previous,
        };
        let opening = Opening {
            format: FORMAT,
            number: writer.take_number(),
            generation: writer.head.generation,
            closed: Some(closed),
            ..first.clone()
        };
        drop(writer);
        let segment = Segment::create(&*dataset.options.disk, &dataset.dir, opening)
            .map_err(|source| io_error("adding a segment to", &dataset.dir, source))?;
        Ok(Anew {
            dataset,
            oldest,
            closed,
            end: segment.start(),
            sum: segment.opening.previous,
            known: HashMap::new(),
            frame: Together::new(Vec::new(), segment.salt),
            segment,
        })
    }

    /// Copies all frames; `false` when it was stopped.
    fn copy(
        &mut self,
        segments: &[Arc<Segment>],
        dead: &[&Found],
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let ends = segments.iter().skip(1);
        let ends = ends.map(|segment| segment.opening.commit);
        let ends = ends.chain([self.closed.commit]);
        for ((segment, found), end) in segments.iter().zip(dead).zip(ends) {
            match self.copy_segment(segment, found, stop)? {
                None => return Ok(false),
                Some((reached, _)) if reached == end => {}
                Some((_, at)) => return Err(self.damaged(segment, at)),
            }
        }
        self.flush(true)?;
        let end = End {
            at: self.end,
            commit: self.closed.commit,
            next: self.closed.next,
            sum: self.closed.sum,
        };
        let sealed = self.segment.seal(end);
        sealed
            .and_then(|()| self.segment.file.sync())
            .map_err(|error| self.unwritten(error))?;
        Ok(true)
    }

    /// Copies frames for as long as there are some; the last commit, and where it ends.
    fn copy_segment(
        &mut self,
        segment: &Segment,
        found: &Found,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let (mut at, mut sum) = (segment.start(), segment.opening.previous);
        let mut reached = segment.opening.commit;
        let size = segment.file.size();
        let size = size.map_err(|error| self.unread(segment, at, error))?;
        let mut bytes = Vec::new();
        while at + ((frame::HEADER + frame::TRAILER) as u64) <= size {
            if stop() {
                return Ok(None);
            }
            bytes.resize(frame::HEADER, 0);
            let read = segment.file.read_at(&mut bytes, at);
            read.map_err(|error| self.unread(segment, at, error))?;
            // Whether the footer begins here or damage, the next segment's opening tells.
            let Some(header) = Header::parse(&bytes, segment.salt) else {
                break;
            };
            if header.len() > size - at || header.previous != sum {
                return Err(self.damaged(segment, at));
            }
            bytes.resize(header.len() as usize, 0);
            let read = segment.file.read_at(&mut bytes, at);
            read.map_err(|error| self.unread(segment, at, error))?;
            let frame = Frame::parse(&bytes, segment.salt);
            let frame = frame.ok_or_else(|| self.damaged(segment, at))?;
            self.copy_frame(segment, &frame, found)
                .map_err(|_| self.damaged(segment, at))?;
            (sum, reached) = (frame.sum, header.commit);
            at += header.len();
            if self.frame.len() >= TOGETHER {
                self.flush(header.commit == self.closed.commit)?;
            }
        }
        Ok(Some((reached, at)))
    }

    fn copy_frame(
        &mut self,
        segment: &Segment,
        frame: &Frame<'_>,
        found: &Found,
    ) -> Result<(), Malformed> {
        let together = &mut self.frame;
        together.first.get_or_insert(frame.header);
        together.last = Some(frame.header);
        together.populated |= frame.header.populated();
        for (key, value) in frame.state().ok_or(Malformed)? {
            together.state_bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            together.state.insert(key, value);
        }
        if !self.oldest {
            // What is removed stands before this frame: with nothing there it is gone by now.
            together.removals.extend(frame.removals().ok_or(Malformed)?);
        }
        let shapes = segment.shapes();
        let fresh = std::mem::take(&mut together.fresh);
        let mut numbers = FrameShapes::new(self.dataset, &self.known, fresh);
        let mut block = Block::default();
        for (_, at, len) in block::places(frame.blocks).ok_or(Malformed)? {
            let stored = &frame.blocks[at as usize..(at + len) as usize];
            block.fill(stored, segment.salt).ok_or(Malformed)?;
            let mut rows = block.rows();
            while let Some(row) = rows.next()? {
                if found.dead.contains(row.seq) {
                    continue;
                }
                let shape = row.shape(&shapes)?;
                let number = numbers.number(&shape, &mut together.frame);
                together.rows += 1;
                together.frame.row(&Row {
                    seq: row.seq,
                    ts: row.ts,
                    deleted: row.deleted,
                    previous: row.previous,
                    id: row.id,
                    shape: number.map_or(RowShape::Inline(shape.names()), RowShape::Known),
                    body: row.body,
                });
            }
        }
        together.fresh = numbers.fresh;
        Ok(())
    }

    /// Writes the commits so far as one frame. Where nothing is left of them, the next ones take
    /// them along, but for the `last`, which ends the segment.
    fn flush(&mut self, last: bool) -> Result<(), StoreError> {
        let (Some(first), Some(newest)) = (self.frame.first, self.frame.last) else {
            return Ok(());
        };
        let state = self.state()?;
        let rows = self.frame.rows > 0;
        let marks = self.frame.populated || !self.frame.removals.is_empty();
        if !(last || rows || marks || !state.is_empty()) {
            return Ok(());
        }
        let fresh = Together::new(Vec::new(), self.segment.salt);
        let together = std::mem::replace(&mut self.frame, fresh);
        let finished = together.frame.finish(Closing {
            commit: newest.commit,
            first_seq: first.first_seq,
            last_ts: newest.last_ts,
            previous: self.sum,
            behind: 0,
            populated: together.populated,
            // Nothing is compacted while something is held back.
            held: false,
            shows: false,
            state,
            removals: &together.removals,
        });
        let written = self.segment.file.write_at(&finished.bytes, self.end);
        written.map_err(|error| self.unwritten(error))?;
        let start = self.end;
        let blocks = finished.blocks.iter();
        let blocks = blocks.map(|(seq, at, len)| (*seq, start + u64::from(*at), *len));
        self.segment.extend(finished.rows, &together.fresh, blocks);
        for shape in together.fresh {
            let number = self.known.len() as u32;
            self.known.insert(shape, number);
        }
        self.end += finished.bytes.len() as u64;
        self.sum = finished.sum;
        Ok(())
    }

    /// The state that still counts: what the key holds now, or that it holds nothing. What was
    /// replaced meanwhile stands in a later commit.
    fn state(&mut self) -> Result<Vec<u8>, StoreError> {
        let mut section = Vec::new();
        for (key, value) in std::mem::take(&mut self.frame.state) {
            let overlay = self.dataset.overlay.read();
            let overlay = overlay.unwrap_or_else(PoisonError::into_inner);
            let now = match overlay.state.get(&key) {
                Some(now) => now.clone(),
                None => {
                    let index = &self.dataset.index;
                    index
                        .read(|tables, txn| tables.state_of(txn, &key))?
                        .flatten()
                }
            };
            let needless = value.is_none() && self.oldest;
            if now == value && !needless {
                put_state(&key, value.as_deref(), &mut section);
            }
        }
        self.frame.state_bytes = section.len();
        Ok(section)
    }

    fn damaged(&self, segment: &Segment, at: u64) -> StoreError {
        let found = self.dataset.damaged(format!(
            "the frame at byte {at} of {} does not match its sum",
            segment.path.display()
        ));
        self.dataset.note(found)
    }

    fn unread(&self, segment: &Segment, at: u64, error: io::Error) -> StoreError {
        segment.unreadable(at, Some(error)).of(&self.dataset.name)
    }

    fn unwritten(&self, error: io::Error) -> StoreError {
        io_error("writing", &self.segment.path, error)
    }
}
