//! A segment: one file of the log, with a header, frames and, once it is sealed, a footer.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use tahini_entity::Shape;
use uuid::Uuid;

use super::block::Block;
use super::disk::{Disk, DiskFile};
use super::frame::{put_shape, read_shapes};
use super::wire::{Reader, crc};
use crate::{Seq, StoreError};

/// The format that this code writes.
pub(crate) const FORMAT: u32 = 3;
/// The oldest format that it reads.
pub(crate) const OLDEST: u32 = 1;
/// The first format whose frames may remove ids and whose segments may be compacted.
pub(crate) const REMOVING: u32 = 2;
/// The first format whose frames may be held back.
pub(crate) const HOLDING: u32 = 3;

const MAGIC: [u8; 8] = *b"TAHINILG";
const FOOTER: [u8; 4] = *b"TFT1";
const END: [u8; 4] = *b"TFE1";
/// How far ahead of this program's format one may be that is taken for a later one.
const LATER: u32 = 64;
/// Header bytes before the dataset's name in format 1.
const FIXED: usize = 56;
/// From format 2 on as many more.
const CLOSED: usize = 20;
/// Bytes at a sealed segment's end: the footer's length, its sum, `END`.
const TAIL: usize = 12;

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub format: u32,
    pub number: u32,
    pub generation: Uuid,
    /// The sequence of its first row.
    pub first_seq: Seq,
    /// The last commit of the segment before.
    pub commit: u64,
    /// The sum of the last frame of the segment before.
    pub previous: u32,
    /// The dataset's name, so that a lost manifest loses no name.
    pub name: String,
    /// Where a compacted segment ends: what it replaced ended there too.
    pub closed: Option<Closed>,
}

/// The last commit that a compacted segment stands for, as the segments that it replaced had it,
/// so that what follows them follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    pub commit: u64,
    pub next: Seq,
    pub sum: u32,
}

impl Opening {
    /// The header's bytes; their last four are the segment's salt.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.name.len() + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.format.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(self.generation.as_bytes());
        bytes.extend_from_slice(&self.first_seq.to_le_bytes());
        bytes.extend_from_slice(&self.commit.to_le_bytes());
        bytes.extend_from_slice(&self.previous.to_le_bytes());
        bytes.extend_from_slice(&(self.name.len() as u32).to_le_bytes());
        if self.format >= REMOVING {
            let closed = self.closed.unwrap_or_default();
            bytes.extend_from_slice(&closed.commit.to_le_bytes());
            bytes.extend_from_slice(&closed.next.to_le_bytes());
            bytes.extend_from_slice(&closed.sum.to_le_bytes());
        }
        bytes.extend_from_slice(self.name.as_bytes());
        let sum = crc(0, &bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Opening> {
        let (summed, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if Reader(sum).u32()? != crc(0, summed) {
            return None;
        }
        let mut reader = Reader(summed);
        reader.take(8)?;
        let mut opening = Opening {
            format: reader.u32()?,
            number: reader.u32()?,
            generation: Uuid::from_slice(reader.take(16)?).ok()?,
            first_seq: reader.u64()?,
            commit: reader.u64()?,
            previous: reader.u32()?,
            name: String::new(),
            closed: None,
        };
        reader.take(4)?;
        if opening.format >= REMOVING {
            let closed = Closed {
                commit: reader.u64()?,
                next: reader.u64()?,
                sum: reader.u32()?,
            };
            opening.closed = (closed.commit > 0).then_some(closed);
        }
        opening.name = std::str::from_utf8(reader.0).ok()?.to_owned();
        Some(opening)
    }

    /// The header's length with its sum.
    fn header_len(&self) -> u64 {
        header_len(self.format, self.name.len() as u64)
    }
}

fn header_len(format: u32, name_len: u64) -> u64 {
    let closed = if format >= REMOVING { CLOSED } else { 0 };
    (FIXED + closed + 4) as u64 + name_len
}

/// Where a block lies.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Its first sequence, counted from the segment's.
    seq: u32,
    at: u32,
    len: u32,
}

/// An open segment. Frames are only ever added, so readers need no lock for longer than a look.
pub(crate) struct Segment {
    pub opening: Opening,
    /// The sum of its header, from which all its other sums go on.
    pub salt: u32,
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
    places: RwLock<Vec<Place>>,
    shapes: RwLock<Arc<Vec<Arc<Shape>>>>,
    rows: AtomicU64,
    /// Set when nothing lists the segment any more: the last reader removes the file.
    replaced: OnceLock<Arc<dyn Disk>>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(disk) = self.replaced.get() {
            // One that stays is removed when the dataset is opened the next time.
            let _ = disk.remove_file(&self.path);
        }
    }
}

/// Shapes that a dataset's segments share, so that equal ones are one in memory.
#[derive(Default)]
pub(crate) struct ShapePool(Mutex<HashSet<Arc<Shape>>>);

impl ShapePool {
    pub fn share(&self, shape: Shape) -> Arc<Shape> {
        self.adopt(&Arc::new(shape))
    }

    pub fn adopt(&self, shape: &Arc<Shape>) -> Arc<Shape> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(shape) {
            return Arc::clone(known);
        }
        known.insert(Arc::clone(shape));
        Arc::clone(shape)
    }
}

/// The end of a sealed segment, as its footer tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Where the frames end and the footer begins.
    pub at: u64,
    pub commit: u64,
    pub next: Seq,
    pub sum: u32,
}

/// Why a segment's header cannot be used.
pub(crate) enum BadHeader {
    Io(io::Error),
    Format(u32),
    Damaged,
}

impl Segment {
    /// The file of segment `number` in a dataset's folder.
    pub fn path(dir: &Path, number: u32) -> PathBuf {
        dir.join(format!("{number:06}.log"))
    }

    /// Makes the file with its header, durable but for its name in the folder.
    pub fn create(disk: &dyn Disk, dir: &Path, opening: Opening) -> io::Result<Segment> {
        let path = Segment::path(dir, opening.number);
        let file = disk.create(&path)?;
        let header = opening.encode();
        file.write_at(&header, 0)?;
        file.sync()?;
        Ok(Segment::new(opening, file, path))
    }

    /// Opens a segment and reads its header.
    pub fn open(disk: &dyn Disk, path: PathBuf) -> Result<Segment, BadHeader> {
        let file = disk.open(&path).map_err(BadHeader::Io)?;
        let mut fixed = [0; FIXED];
        file.read_at(&mut fixed, 0).map_err(short_is_damage)?;
        let mut reader = Reader(&fixed);
        if reader.take(8) != Some(&MAGIC) {
            return Err(BadHeader::Damaged);
        }
        let format = match reader.u32() {
            Some(format) if (OLDEST..=FORMAT).contains(&format) => format,
            // What a later version wrote has a number near ours; other numbers are damage.
            Some(found) if found > FORMAT && found - FORMAT <= LATER => {
                return Err(BadHeader::Format(found));
            }
            _ => return Err(BadHeader::Damaged),
        };
        let name_len = Reader(&fixed[FIXED - 4..])
            .u32()
            .ok_or(BadHeader::Damaged)?;
        let len = header_len(format, u64::from(name_len));
        if len > file.size().map_err(BadHeader::Io)? {
            return Err(BadHeader::Damaged);
        }
        let mut bytes = vec![0; len as usize];
        file.read_at(&mut bytes, 0).map_err(short_is_damage)?;
        let opening = Opening::parse(&bytes).ok_or(BadHeader::Damaged)?;
        Ok(Segment::new(opening, file, path))
    }

    fn new(opening: Opening, file: Arc<dyn DiskFile>, path: PathBuf) -> Segment {
        let header = opening.encode();
        let salt = Reader(&header[header.len() - 4..])
            .u32()
            .expect("a header ends with its sum");
        Segment {
            opening,
            salt,
            file,
            path,
            places: RwLock::default(),
            shapes: RwLock::default(),
            rows: AtomicU64::new(0),
            replaced: OnceLock::new(),
        }
    }

    /// Nothing lists the segment any more: its file goes when nobody reads it any more.
    pub fn replace(&self, disk: &Arc<dyn Disk>) {
        let _ = self.replaced.set(Arc::clone(disk));
    }

    /// How many versions it holds.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Where the first frame begins.
    pub fn start(&self) -> u64 {
        self.opening.header_len()
    }

    /// Makes a frame's blocks and shapes known to readers, and counts its rows.
    pub fn extend(
        &self,
        rows: u32,
        shapes: &[Arc<Shape>],
        blocks: impl Iterator<Item = (Seq, u64, u32)>,
    ) {
        self.rows.fetch_add(u64::from(rows), Ordering::Relaxed);
        if !shapes.is_empty() {
            let mut known = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
            Arc::make_mut(&mut known).extend_from_slice(shapes);
        }
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.extend(blocks.map(|(seq, at, len)| Place {
            seq: (seq - self.opening.first_seq) as u32,
            at: at as u32,
            len,
        }));
    }

    /// Forgets blocks and shapes, before they are read again.
    pub fn forget(&self) {
        self.rows.store(0, Ordering::Relaxed);
        self.places
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        *self.shapes.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    /// The shapes so far.
    pub fn shapes(&self) -> Arc<Vec<Arc<Shape>>> {
        Arc::clone(&self.shapes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> usize {
        self.places
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The number of the block that holds `seq`, or would.
    pub fn block_of(&self, seq: Seq) -> Option<usize> {
        Some(self.place_of(seq)?.0)
    }

    /// The same, and where that block lies.
    pub fn place_of(&self, seq: Seq) -> Option<(usize, Place)> {
        let seq = u32::try_from(seq.checked_sub(self.opening.first_seq)?).ok()?;
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let number = until(&places, seq).checked_sub(1)?;
        Some((number, *places.get(number)?))
    }

    /// Where block `number` lies; `None` beyond the last one.
    pub fn place(&self, number: usize) -> Option<Place> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(number).copied()
    }

    /// The sequences that block `number` is there for, those of rows that are gone included: up to
    /// the next block, or for the last one without end. `None` beyond the last one.
    pub fn span(&self, number: usize) -> Option<Range<Seq>> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let seq = |place: &Place| self.opening.first_seq + u64::from(place.seq);
        let first = seq(places.get(number)?);
        Some(first..places.get(number + 1).map_or(Seq::MAX, seq))
    }

    /// Reads a block and checks it. Nothing is unpacked yet.
    pub fn read(
        &self,
        place: Place,
        scratch: &mut Vec<u8>,
        into: &mut Block,
    ) -> Result<(), Unreadable> {
        scratch.resize(place.len as usize, 0);
        let at = u64::from(place.at);
        self.file
            .read_at(scratch, at)
            .map_err(|source| self.unreadable(at, Some(source)))?;
        into.check(scratch, self.salt)
            .ok_or_else(|| self.unreadable(at, None))
    }

    /// An error that names this segment and a position in it.
    pub fn unreadable(&self, at: u64, source: Option<io::Error>) -> Unreadable {
        Unreadable {
            path: self.path.clone(),
            at,
            source,
        }
    }

    /// Writes the footer after the last frame. The caller syncs.
    pub fn seal(&self, end: End) -> io::Result<()> {
        let mut footer = Vec::new();
        footer.extend_from_slice(&FOOTER);
        footer.extend_from_slice(&end.commit.to_le_bytes());
        footer.extend_from_slice(&end.next.to_le_bytes());
        footer.extend_from_slice(&end.sum.to_le_bytes());
        if self.opening.format >= REMOVING {
            footer.extend_from_slice(&self.rows().to_le_bytes());
        }
        let mut shapes = Vec::new();
        self.shapes()
            .iter()
            .for_each(|shape| put_shape(shape, &mut shapes));
        footer.extend_from_slice(&(shapes.len() as u32).to_le_bytes());
        footer.extend_from_slice(&shapes);
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        footer.extend_from_slice(&(places.len() as u32).to_le_bytes());
        for place in places.iter() {
            for number in [place.seq, place.at, place.len] {
                footer.extend_from_slice(&number.to_le_bytes());
            }
        }
        let len = (footer.len() + TAIL) as u32;
        footer.extend_from_slice(&len.to_le_bytes());
        let sum = crc(self.salt, &footer);
        footer.extend_from_slice(&sum.to_le_bytes());
        footer.extend_from_slice(&END);
        self.file.write_at(&footer, end.at)
    }

    /// Reads the footer and makes its blocks and shapes known; `None` when there is no good one.
    pub fn load_footer(&self, pool: &ShapePool) -> io::Result<Option<End>> {
        let Some(footer) = self.read_footer()? else {
            return Ok(None);
        };
        let shapes = footer
            .shapes
            .into_iter()
            .map(|shape| pool.share(shape))
            .collect();
        let counted = footer.end.next.saturating_sub(self.opening.first_seq);
        self.rows
            .store(footer.rows.unwrap_or(counted), Ordering::Relaxed);
        *self.places.write().unwrap_or_else(PoisonError::into_inner) = footer.places;
        *self.shapes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shapes);
        Ok(Some(footer.end))
    }

    /// What a good footer says of the segment's end.
    pub fn footer(&self) -> io::Result<Option<End>> {
        Ok(self.read_footer()?.map(|footer| footer.end))
    }

    /// Whether a footer, good or bad, begins at `at`.
    pub fn begins_footer(&self, at: u64) -> io::Result<bool> {
        let mut magic = [0; 4];
        match self.file.read_at(&mut magic, at) {
            Ok(()) => Ok(magic == FOOTER),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read_footer(&self) -> io::Result<Option<Footer>> {
        let size = self.file.size()?;
        let Some(tail_at) = size.checked_sub(TAIL as u64) else {
            return Ok(None);
        };
        let mut tail = [0; TAIL];
        self.file.read_at(&mut tail, tail_at)?;
        let len = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        if tail[8..] != END || len > size || len < TAIL as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; len as usize];
        self.file.read_at(&mut bytes, size - len)?;
        let format = self.opening.format;
        Ok(Footer::parse(&bytes, size - len, self.salt, format))
    }
}

/// A footer that was read.
struct Footer {
    end: End,
    /// Where they are noted; before format 2 there is one for each sequence.
    rows: Option<u64>,
    shapes: Vec<Shape>,
    places: Vec<Place>,
}

impl Footer {
    fn parse(bytes: &[u8], at: u64, salt: u32, format: u32) -> Option<Footer> {
        let (summed, tail) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
        if Reader(tail).u32()? != crc(salt, summed) {
            return None;
        }
        let mut reader = Reader(summed);
        if reader.take(4)? != FOOTER {
            return None;
        }
        let end = End {
            at,
            commit: reader.u64()?,
            next: reader.u64()?,
            sum: reader.u32()?,
        };
        let rows = if format >= REMOVING {
            Some(reader.u64()?)
        } else {
            None
        };
        let shapes_len = reader.u32()? as usize;
        let shapes = read_shapes(reader.take(shapes_len)?)?;
        let count = reader.u32()? as usize;
        let mut table = Reader(reader.take(count.checked_mul(12)?)?);
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            places.push(Place {
                seq: table.u32()?,
                at: table.u32()?,
                len: table.u32()?,
            });
        }
        Some(Footer {
            end,
            rows,
            shapes,
            places,
        })
    }
}

/// How many places begin at `seq` or before. Blocks hold about as many rows each, so the search
/// begins where the last one would be if all held as many: it meets fewer bytes that way.
fn until(places: &[Place], seq: u32) -> usize {
    let is_within = |at: usize| places[at].seq <= seq;
    let Some(last) = places.last().filter(|last| last.seq > seq) else {
        return places.len();
    };
    let guess = (places.len() as u64 - 1) * u64::from(seq) / u64::from(last.seq);
    let (mut low, mut high) = (guess as usize, guess as usize);
    let mut step = 4;
    while low > 0 && !is_within(low) {
        (low, high) = (low.saturating_sub(step), low);
        step *= 2;
    }
    while is_within(high) {
        // The last one is not.
        (low, high) = (high, (high + step).min(places.len() - 1));
        step *= 2;
    }
    low + places[low..high].partition_point(|place| place.seq <= seq)
}

fn short_is_damage(error: io::Error) -> BadHeader {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BadHeader::Damaged,
        _ => BadHeader::Io(error),
    }
}

/// A block that could not be read: the disk refused, or the bytes are not what was written.
pub(crate) struct Unreadable {
    path: PathBuf,
    at: u64,
    source: Option<io::Error>,
}

impl Unreadable {
    pub fn of(self, dataset: &str) -> StoreError {
        match self.source {
            Some(source) if source.kind() != io::ErrorKind::UnexpectedEof => StoreError::Io {
                what: format!("reading {} at byte {}", self.path.display(), self.at),
                source,
            },
            _ => StoreError::Damaged {
                dataset: dataset.to_owned(),
                found: format!(
                    "the block at byte {} of {} does not match its sum",
                    self.at,
                    self.path.display()
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_place_of_a_sequence_is_found_however_blocks_are_filled(
            gaps in proptest::collection::vec(prop_oneof![1..50u32, 1..9_000u32], 0..300),
            first in 0..3u32,
            seq: u32,
        ) {
            let mut places = Vec::new();
            let mut next = first;
            for gap in gaps {
                places.push(Place { seq: next, at: 0, len: 0 });
                next += gap;
            }
            let bounds = places.iter().flat_map(|place| [place.seq.saturating_sub(1), place.seq]);
            for seq in bounds.chain([seq, seq % next.max(1), 0, u32::MAX]) {
                let expected = places.partition_point(|place| place.seq <= seq);
                prop_assert_eq!(until(&places, seq), expected);
            }
        }
    }
}
