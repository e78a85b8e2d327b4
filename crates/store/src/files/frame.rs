//! A frame: everything that one commit wrote, checked by a sum, chained to the frame before.

use std::sync::Arc;

use tahini_entity::Shape;

use super::block::{BlockWriter, Row};
use super::wire::{Reader, crc, put_bytes, put_varint};
use crate::Seq;

/// The first bytes of a frame.
pub(crate) const MAGIC: [u8; 4] = *b"TFR1";
/// Bytes before the blocks.
pub(crate) const HEADER: usize = 64;
/// Bytes at the end: the frame's length and its sum.
pub(crate) const TRAILER: usize = 8;
/// No frame is longer; a commit that would be is refused.
pub(crate) const LONGEST: usize = 1 << 30;
/// State sections from this length on are compressed.
const STATE_TO_COMPRESS: usize = 256;

const POPULATED: u32 = 1;
const STATE_COMPRESSED: u32 = 2;
/// Readers do not see it before a later frame comes without this mark.
const HELD: u32 = 4;
/// It shows what stands before it and was held back.
const SHOWS: u32 = 8;

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The commit's number in its dataset, from 1.
    pub commit: u64,
    /// The sequence of the first row, or of the next one where there are none.
    pub first_seq: Seq,
    /// `_ts` of the newest version after this commit.
    pub last_ts: i64,
    /// The sum of the frame before, 0 for a dataset's first.
    pub previous: u32,
    pub rows: u32,
    pub blocks_len: u32,
    pub shapes_len: u32,
    pub state_len: u32,
    /// How many commits before this one were not known to be durable when it was written.
    pub behind: u32,
    marks: u32,
    pub removals_len: u32,
}

impl Header {
    /// Reads the first 64 bytes of a frame; `None` when they are not what was written.
    pub fn parse(bytes: &[u8], salt: u32) -> Option<Header> {
        let mut reader = Reader(bytes);
        let magic = reader.take(4)?;
        let sum = reader.u32()?;
        if magic != MAGIC || sum != crc(salt, bytes.get(8..HEADER)?) {
            return None;
        }
        Some(Header {
            commit: reader.u64()?,
            first_seq: reader.u64()?,
            last_ts: reader.i64()?,
            previous: reader.u32()?,
            rows: reader.u32()?,
            blocks_len: reader.u32()?,
            shapes_len: reader.u32()?,
            state_len: reader.u32()?,
            behind: reader.u32()?,
            marks: reader.u32()?,
            removals_len: reader.u32()?,
        })
    }

    fn write(&self, into: &mut [u8], salt: u32) {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.commit.to_le_bytes());
        bytes.extend_from_slice(&self.first_seq.to_le_bytes());
        bytes.extend_from_slice(&self.last_ts.to_le_bytes());
        for number in [
            self.previous,
            self.rows,
            self.blocks_len,
            self.shapes_len,
            self.state_len,
            self.behind,
            self.marks,
            self.removals_len,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let sum = crc(salt, &bytes[8..]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        into.copy_from_slice(&bytes);
    }

    /// The whole frame's length.
    pub fn len(&self) -> u64 {
        let body = [
            self.blocks_len,
            self.shapes_len,
            self.state_len,
            self.removals_len,
        ];
        body.into_iter().map(u64::from).sum::<u64>() + (HEADER + TRAILER) as u64
    }

    pub fn populated(&self) -> bool {
        self.marks & POPULATED != 0
    }

    /// Whether it is held back from readers.
    pub fn held(&self) -> bool {
        self.marks & HELD != 0
    }

    /// The newest commit that needs nobody else to vouch for it: those that were durable, and
    /// this one too where it holds nothing.
    pub fn vouches(&self) -> u64 {
        let content = [self.rows, self.state_len, self.removals_len];
        let empty = content == [0; 3] && self.marks & (POPULATED | SHOWS) == 0;
        if empty && self.behind == 0 {
            self.commit
        } else {
            self.durable()
        }
    }

    /// The newest commit that was durable when this frame was written.
    pub fn durable(&self) -> u64 {
        (self.commit - 1).saturating_sub(u64::from(self.behind))
    }
}

/// A whole state key and its value; `None` means removed.
pub(crate) type StateChange = (Vec<u8>, Option<Vec<u8>>);

/// A frame that was read and checked.
pub(crate) struct Frame<'a> {
    pub header: Header,
    /// The frame's sum, to which the next frame is chained.
    pub sum: u32,
    pub blocks: &'a [u8],
    shapes: &'a [u8],
    state: &'a [u8],
    removals: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks a whole frame; `None` when a byte differs from what was written.
    pub fn parse(bytes: &'a [u8], salt: u32) -> Option<Frame<'a>> {
        let header = Header::parse(bytes.get(..HEADER)?, salt)?;
        if bytes.len() as u64 != header.len() {
            return None;
        }
        let (summed, sum) = bytes.split_at(bytes.len() - 4);
        let sum = Reader(sum).u32()?;
        if sum != crc(salt, summed) {
            return None;
        }
        let mut reader = Reader(&bytes[HEADER..]);
        Some(Frame {
            header,
            sum,
            blocks: reader.take(header.blocks_len as usize)?,
            shapes: reader.take(header.shapes_len as usize)?,
            state: reader.take(header.state_len as usize)?,
            removals: reader.take(header.removals_len as usize)?,
        })
    }

    /// The shapes that this frame adds to its segment.
    pub fn shapes(&self) -> Option<Vec<Shape>> {
        read_shapes(self.shapes)
    }

    /// State keys, with their space, and what became of them.
    pub fn state(&self) -> Option<Vec<StateChange>> {
        let unpacked;
        let section = if self.header.marks & STATE_COMPRESSED == 0 {
            self.state
        } else {
            unpacked = lz4_flex::block::decompress_size_prepended(self.state).ok()?;
            &unpacked[..]
        };
        let mut reader = Reader(section);
        let mut rows = Vec::new();
        while !reader.is_empty() {
            let key = reader.bytes()?.to_vec();
            let value = match reader.u8()? {
                0 => None,
                1 => Some(reader.bytes()?.to_vec()),
                _ => return None,
            };
            rows.push((key, value));
        }
        Some(rows)
    }

    /// The ids that this frame removes.
    pub fn removals(&self) -> Option<Vec<Removal>> {
        let mut reader = Reader(self.removals);
        let mut removals = Vec::new();
        while !reader.is_empty() {
            removals.push(Removal {
                id: reader.text()?.to_owned(),
                seq: reader.varint()?,
                deleted: reader.u8()? == 1,
            });
        }
        Some(removals)
    }
}

/// An id that is gone with all its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub id: String,
    /// Its latest version.
    pub seq: Seq,
    /// Whether that was deleted.
    pub deleted: bool,
}

impl Removal {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.id.as_bytes(), out);
        put_varint(self.seq, out);
        out.push(u8::from(self.deleted));
    }
}

/// Appends a state key, with its space, and its value to a frame's state.
pub(crate) fn put_state(key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    put_bytes(key, out);
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put_bytes(value, out);
        }
    }
}

/// Reads shapes until the bytes end.
pub(crate) fn read_shapes(bytes: &[u8]) -> Option<Vec<Shape>> {
    let mut reader = Reader(bytes);
    let mut shapes = Vec::new();
    while !reader.is_empty() {
        let count = reader.len()?;
        let mut names = Vec::with_capacity(count.min(256));
        for _ in 0..count {
            names.push(reader.text()?.into());
        }
        shapes.push(Shape::new(names));
    }
    Some(shapes)
}

/// Appends a shape: how many names, then each.
pub(crate) fn put_shape(shape: &Shape, out: &mut Vec<u8>) {
    put_varint(shape.names().len() as u64, out);
    for name in shape.names() {
        put_bytes(name.as_bytes(), out);
    }
}

/// A frame under way.
pub(crate) struct FrameWriter {
    bytes: Vec<u8>,
    shapes: Vec<u8>,
    blocks: BlockWriter,
    rows: u32,
}

/// What a finished frame says beside its rows.
pub(crate) struct Closing<'a> {
    pub commit: u64,
    pub first_seq: Seq,
    pub last_ts: i64,
    pub previous: u32,
    pub behind: u64,
    pub populated: bool,
    /// It is held back.
    pub held: bool,
    /// It shows what was held back before it.
    pub shows: bool,
    /// State as `put_state` writes it, not compressed yet.
    pub state: Vec<u8>,
    pub removals: &'a [Removal],
}

/// A frame ready to be written.
pub(crate) struct Finished {
    pub bytes: Vec<u8>,
    pub sum: u32,
    pub rows: u32,
    /// First sequence, position in the frame and length of each block.
    pub blocks: Vec<(Seq, u32, u32)>,
}

impl FrameWriter {
    /// Starts a frame in a segment with this salt; `buffer` lends its memory.
    pub fn new(mut buffer: Vec<u8>, salt: u32) -> FrameWriter {
        buffer.clear();
        buffer.resize(HEADER, 0);
        FrameWriter {
            bytes: buffer,
            shapes: Vec::new(),
            blocks: BlockWriter::new(salt),
            rows: 0,
        }
    }

    /// Adds a shape to the segment.
    pub fn shape(&mut self, shape: &Arc<Shape>) {
        put_shape(shape, &mut self.shapes);
    }

    /// Adds a row.
    pub fn row(&mut self, row: &Row<'_>) {
        self.rows += 1;
        self.blocks.push(row, &mut self.bytes);
    }

    /// How long the frame is so far.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shapes.len()
    }

    /// Writes header, state, removals and sum.
    pub fn finish(mut self, closing: Closing<'_>) -> Finished {
        let salt = self.blocks.salt();
        let blocks = self.blocks.finish(&mut self.bytes);
        let blocks_len = self.bytes.len() - HEADER;
        self.bytes.extend_from_slice(&self.shapes);
        let (state, compressed) = pack_state(closing.state);
        self.bytes.extend_from_slice(&state);
        let before = self.bytes.len();
        for removal in closing.removals {
            removal.put(&mut self.bytes);
        }
        let removals_len = self.bytes.len() - before;
        let mut marks = if closing.populated { POPULATED } else { 0 };
        if compressed {
            marks |= STATE_COMPRESSED;
        }
        marks |= if closing.held { HELD } else { 0 };
        marks |= if closing.shows { SHOWS } else { 0 };
        let header = Header {
            commit: closing.commit,
            first_seq: closing.first_seq,
            last_ts: closing.last_ts,
            previous: closing.previous,
            rows: self.rows,
            blocks_len: blocks_len as u32,
            shapes_len: self.shapes.len() as u32,
            state_len: state.len() as u32,
            behind: u32::try_from(closing.behind).unwrap_or(u32::MAX),
            marks,
            removals_len: removals_len as u32,
        };
        header.write(&mut self.bytes[..HEADER], salt);
        self.bytes
            .extend_from_slice(&(header.len() as u32).to_le_bytes());
        let sum = crc(salt, &self.bytes);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
        Finished {
            bytes: self.bytes,
            sum,
            rows: self.rows,
            blocks,
        }
    }
}

fn pack_state(section: Vec<u8>) -> (Vec<u8>, bool) {
    if section.len() >= STATE_TO_COMPRESS {
        let packed = lz4_flex::block::compress_prepend_size(&section);
        if packed.len() < section.len() {
            return (packed, true);
        }
    }
    (section, false)
}
