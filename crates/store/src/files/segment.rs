//! A segment: one file of the log, with a header, frames and, once it is sealed, a footer.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tahini_entity::Shape;
use uuid::Uuid;

use super::block::Block;
use super::disk::{Disk, DiskFile};
use super::frame::{put_shape, read_shapes};
use super::wire::{Reader, crc};
use crate::{Seq, StoreError};

/// The format that this code writes, and the only one that it reads.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"TAHINILG";
const FOOTER: [u8; 4] = *b"TFT1";
const END: [u8; 4] = *b"TFE1";
/// Header bytes before the dataset's name.
const FIXED: usize = 56;
/// Bytes at a sealed segment's end: the footer's length, its sum, `END`.
const TAIL: usize = 12;

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
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
}

impl Opening {
    /// The header's bytes; their last four are the segment's salt.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.name.len() + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(self.generation.as_bytes());
        bytes.extend_from_slice(&self.first_seq.to_le_bytes());
        bytes.extend_from_slice(&self.commit.to_le_bytes());
        bytes.extend_from_slice(&self.previous.to_le_bytes());
        bytes.extend_from_slice(&(self.name.len() as u32).to_le_bytes());
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
        reader.take(12)?;
        Some(Opening {
            number: reader.u32()?,
            generation: Uuid::from_slice(reader.take(16)?).ok()?,
            first_seq: reader.u64()?,
            commit: reader.u64()?,
            previous: reader.u32()?,
            name: std::str::from_utf8(&summed[FIXED..]).ok()?.to_owned(),
        })
    }
}

/// Where a block lies.
#[derive(Clone, Copy)]
struct Place {
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
        match reader.u32() {
            Some(FORMAT) => {}
            Some(found) => return Err(BadHeader::Format(found)),
            None => return Err(BadHeader::Damaged),
        }
        let name_len = Reader(&fixed[FIXED - 4..])
            .u32()
            .ok_or(BadHeader::Damaged)?;
        let len = u64::from(name_len) + (FIXED + 4) as u64;
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
        }
    }

    /// Where the first frame begins.
    pub fn start(&self) -> u64 {
        (FIXED + self.opening.name.len() + 4) as u64
    }

    /// Makes a frame's blocks and shapes known to readers.
    pub fn extend(&self, shapes: &[Arc<Shape>], blocks: impl Iterator<Item = (Seq, u64, u32)>) {
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
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let seq = u32::try_from(seq.checked_sub(self.opening.first_seq)?).ok()?;
        places
            .partition_point(|place| place.seq <= seq)
            .checked_sub(1)
    }

    /// Reads block `number`; `None` beyond the last one.
    pub fn read(
        &self,
        number: usize,
        scratch: &mut Vec<u8>,
        into: &mut Block,
    ) -> Result<Option<()>, Unreadable> {
        let place = {
            let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
            match places.get(number) {
                Some(place) => *place,
                None => return Ok(None),
            }
        };
        scratch.resize(place.len as usize, 0);
        let at = u64::from(place.at);
        self.file
            .read_at(scratch, at)
            .map_err(|source| self.unreadable(at, Some(source)))?;
        into.fill(scratch, self.salt)
            .ok_or_else(|| self.unreadable(at, None))?;
        Ok(Some(()))
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
        Ok(Footer::parse(&bytes, size - len, self.salt))
    }
}

/// A footer that was read.
struct Footer {
    end: End,
    shapes: Vec<Shape>,
    places: Vec<Place>,
}

impl Footer {
    fn parse(bytes: &[u8], at: u64, salt: u32) -> Option<Footer> {
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
            shapes,
            places,
        })
    }
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
