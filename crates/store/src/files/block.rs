//! A block: some rows of one frame, compressed together, readable without the others.

use std::sync::Arc;

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use tahini_entity::{Batch, Meta, Offset, Shape, Str};

use super::pack::pack;
use super::unpack::{SPARE, Unpacked};
use super::wire::{Reader, crc, put_bytes, put_varint, put_zigzag};
use crate::Seq;

/// A block is closed when its rows reach this length; a longer row is a block of its own.
const FULL: usize = 8 * 1024;
/// A body from this length on is not copied before it is packed. Larger memory is given back.
const LARGE: usize = 1 << 20;
/// Bytes before the rows.
pub(crate) const HEADER: usize = 32;
/// Set in the raw length when the rows are stored as they are.
const PLAIN: u32 = 1 << 31;

const DELETED: u8 = 1;
const PREVIOUS_DELETED: u8 = 2;

/// A version as it stands in a block.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub seq: Seq,
    pub ts: i64,
    pub deleted: bool,
    /// The id's version before, and whether that was deleted.
    pub previous: Option<(Seq, bool)>,
    pub id: &'a str,
    pub shape: RowShape<'a>,
    pub body: &'a [u8],
}

/// The names of a row's properties.
#[derive(Clone, Copy)]
pub(crate) enum RowShape<'a> {
    /// A shape of the segment.
    Known(u32),
    /// Written out in the row, since the segment has too many shapes or this one is too long.
    Inline(&'a [Str]),
}

/// Collects rows into blocks.
pub(crate) struct BlockWriter {
    salt: u32,
    rows: Vec<u8>,
    count: u32,
    first: (Seq, i64),
    last: (Seq, i64),
    done: Vec<(Seq, u32, u32)>,
    table: CompressTable,
    /// Of the row at hand.
    head: Vec<u8>,
}

impl BlockWriter {
    pub fn new(salt: u32) -> BlockWriter {
        BlockWriter {
            salt,
            rows: Vec::with_capacity(2 * FULL),
            count: 0,
            first: (0, 0),
            last: (0, 0),
            done: Vec::new(),
            table: CompressTable::small(),
            head: Vec::with_capacity(1024),
        }
    }

    pub fn salt(&self) -> u32 {
        self.salt
    }

    /// Adds a row; writes the block to `out` where it would not fit any more.
    pub fn push(&mut self, row: &Row<'_>, out: &mut Vec<u8>) {
        let room = row.id.len() + row.body.len() + 16;
        if self.count > 0 && self.rows.len() + room > FULL {
            self.close(out);
        }
        if self.count == 0 {
            self.first = (row.seq, row.ts);
            self.last = (row.seq.wrapping_sub(1), row.ts.wrapping_sub(1));
        }
        self.put_head(row);
        self.count += 1;
        self.last = (row.seq, row.ts);
        if row.body.len() >= LARGE {
            self.write_alone(row.body, out);
            return;
        }
        put_varint((self.head.len() + row.body.len()) as u64, &mut self.rows);
        self.rows.extend_from_slice(&self.head);
        self.rows.extend_from_slice(row.body);
    }

    /// Makes a row's `head`: all of it but its length and its body.
    fn put_head(&mut self, row: &Row<'_>) {
        let head = &mut self.head;
        head.clear();
        let before = row.previous.is_some_and(|(_, deleted)| deleted);
        head.push(
            (if row.deleted { DELETED } else { 0 }) | (if before { PREVIOUS_DELETED } else { 0 }),
        );
        put_varint(row.seq.wrapping_sub(self.last.0.wrapping_add(1)), head);
        put_zigzag(row.ts.wrapping_sub(self.last.1.wrapping_add(1)), head);
        put_varint(
            row.previous.map_or(0, |(previous, _)| row.seq - previous),
            head,
        );
        put_bytes(row.id.as_bytes(), head);
        match row.shape {
            RowShape::Known(number) => put_varint(u64::from(number) + 1, head),
            RowShape::Inline(names) => {
                put_varint(0, head);
                put_varint(names.len() as u64, head);
                for name in names {
                    put_bytes(name.as_bytes(), head);
                }
            }
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let at = out.len();
        out.resize(at + HEADER + get_maximum_output_size(self.rows.len()), 0);
        let room = &mut out[at + HEADER..];
        let packed = compress_into_with_table(&self.rows, room, &mut self.table)
            .expect("the room is as large as the worst case");
        let (stored, plain) = if packed < self.rows.len() {
            (packed, 0)
        } else {
            room[..self.rows.len()].copy_from_slice(&self.rows);
            (self.rows.len(), PLAIN)
        };
        out.truncate(at + HEADER + stored);
        self.put_header(self.rows.len() as u32 | plain, at, out);
        self.rows.clear();
        if self.rows.capacity() > LARGE {
            self.rows = Vec::new();
        }
    }

    /// Writes the block of a row whose `head` is there and nothing else is.
    fn write_alone(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let mut lead = Vec::with_capacity(self.head.len() + 10);
        put_varint((self.head.len() + body.len()) as u64, &mut lead);
        lead.extend_from_slice(&self.head);
        let whole = lead.len() + body.len();
        let at = out.len();
        out.resize(at + HEADER, 0);
        pack(&lead, body, &mut self.table, out);
        let mut plain = 0;
        if out.len() - at - HEADER >= whole {
            plain = PLAIN;
            out.truncate(at + HEADER);
            out.extend_from_slice(&lead);
            out.extend_from_slice(body);
        }
        self.put_header(whole as u32 | plain, at, out);
    }

    /// Fills in the header of the block at `at`, behind which its rows end `out`, and is ready for
    /// the next one.
    fn put_header(&mut self, whole: u32, at: usize, out: &mut [u8]) {
        let block = &mut out[at..];
        let stored = (block.len() - HEADER) as u32;
        block[4..8].copy_from_slice(&whole.to_le_bytes());
        block[8..12].copy_from_slice(&stored.to_le_bytes());
        block[12..16].copy_from_slice(&self.count.to_le_bytes());
        block[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        block[24..32].copy_from_slice(&self.first.1.to_le_bytes());
        let sum = crc(self.salt, &block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
        self.done
            .push((self.first.0, at as u32, block.len() as u32));
        self.count = 0;
    }

    /// Writes the last block and says where each one is.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Vec<(Seq, u32, u32)> {
        if self.count > 0 {
            self.close(out);
        }
        std::mem::take(&mut self.done)
    }
}

/// The first sequence, the place and the length of each block in a frame's blocks.
pub(crate) fn places(mut blocks: &[u8]) -> Option<Vec<(Seq, u32, u32)>> {
    let whole = blocks.len();
    let mut places = Vec::new();
    while !blocks.is_empty() {
        let mut reader = Reader(blocks.get(..HEADER)?);
        reader.take(8)?;
        let stored = reader.u32()? as usize;
        reader.take(4)?;
        places.push((
            reader.u64()?,
            (whole - blocks.len()) as u32,
            (HEADER + stored) as u32,
        ));
        blocks = blocks.get(HEADER + stored..)?;
    }
    Some(places)
}

/// A block's rows, unpacked as far as they were asked for; kept and filled again.
#[derive(Default)]
pub(crate) struct Block {
    /// Room for all rows and a little more.
    rows: Vec<u8>,
    whole: usize,
    unpacked: Unpacked,
    first: (Seq, i64),
    count: u32,
}

impl Block {
    /// Checks and unpacks; `None` when a byte differs from what was written.
    pub fn fill(&mut self, stored: &[u8], salt: u32) -> Option<()> {
        self.check(stored, salt)?;
        self.unpack(stored, self.whole)
    }

    /// Checks, and unpacks nothing yet; `None` when a byte differs from what was written.
    pub fn check(&mut self, stored: &[u8], salt: u32) -> Option<()> {
        let mut reader = Reader(stored);
        let sum = reader.u32()?;
        if sum != crc(salt, &stored[4..]) {
            return None;
        }
        let raw = reader.u32()?;
        let packed = reader.u32()? as usize;
        self.count = reader.u32()?;
        self.first = (reader.u64()?, reader.i64()?);
        self.unpacked = Unpacked::default();
        self.whole = (raw & !PLAIN) as usize;
        let payload = reader.take(packed)?;
        if !reader.is_empty() {
            return None;
        }
        if raw & PLAIN != 0 {
            self.rows.clear();
            self.rows.extend_from_slice(payload);
            self.whole = packed;
            self.unpacked.done = packed;
        } else if self.rows.len() < self.whole + SPARE {
            // What was there is written over.
            self.rows.resize(self.whole + SPARE, 0);
        }
        Some(())
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.rows.capacity()
    }

    /// Unpacks what was checked up to its byte `until`, if that was not done before.
    fn unpack(&mut self, stored: &[u8], until: usize) -> Option<()> {
        if self.unpacked.done >= until {
            return Some(());
        }
        let packed = stored.get(HEADER..)?;
        let room = &mut self.rows[..self.whole + SPARE];
        self.unpacked.reach(packed, room, until)
    }

    /// Unpacks all of what was checked.
    pub fn unpack_all(&mut self, stored: &mut Vec<u8>) -> Option<()> {
        self.unpack(stored, self.whole)?;
        self.let_go(stored);
        Some(())
    }

    /// Gives a large block's stored bytes back once nothing more of them is needed, so that its
    /// rows go on alone.
    fn let_go(&self, stored: &mut Vec<u8>) {
        if self.unpacked.done >= self.whole && stored.capacity() > LARGE {
            *stored = Vec::new();
        }
    }

    /// The rows in order, all of which are unpacked.
    pub fn rows(&self) -> Rows<'_> {
        let last = (self.first.0.wrapping_sub(1), self.first.1.wrapping_sub(1));
        Rows {
            rest: Reader(&self.rows[..self.unpacked.done]),
            last,
            left: self.count,
        }
    }

    /// Hands the row with this sequence to `look`, if there is one. Of a block that was checked,
    /// no more is unpacked than it takes.
    pub fn find<R>(
        &mut self,
        stored: &mut Vec<u8>,
        seq: Seq,
        look: impl FnOnce(&Stored<'_>) -> R,
    ) -> Result<Option<R>, Malformed> {
        self.unpack(stored, self.until(seq)).ok_or(Malformed)?;
        self.let_go(stored);
        match self.rows().find(seq) {
            Ok(row) => return Ok(row.map(|row| look(&row))),
            Err(found) if self.unpacked.done >= self.whole => return Err(found),
            // The row does not end where it was thought to.
            Err(_) => self.unpack_all(stored).ok_or(Malformed)?,
        }
        let row = self.rows().find(seq)?;
        Ok(row.map(|row| look(&row)))
    }

    /// Where the row with this sequence ends, or so: as if all were equally long, and a little more.
    fn until(&self, seq: Seq) -> usize {
        let count = u64::from(self.count).max(1);
        // Where rows are gone it is one of those before.
        let at = seq.saturating_sub(self.first.0).min(count - 1) + 1;
        let whole = self.whole as u64;
        (whole * at / count + whole / 16).min(whole) as usize
    }
}

/// Walks over the rows of a block.
pub(crate) struct Rows<'a> {
    rest: Reader<'a>,
    last: (Seq, i64),
    left: u32,
}

/// A row that was read.
pub(crate) struct Stored<'a> {
    pub seq: Seq,
    pub ts: i64,
    pub deleted: bool,
    pub previous: Option<(Seq, bool)>,
    pub id: &'a str,
    shape: StoredShape<'a>,
    pub body: &'a [u8],
}

enum StoredShape<'a> {
    Known(u32),
    Inline(Vec<&'a str>),
}

impl<'a> Rows<'a> {
    /// The next row. `Err` when the bytes do not hold one although they should.
    pub fn next(&mut self) -> Result<Option<Stored<'a>>, Malformed> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.read().map(Some).ok_or(Malformed)
    }

    /// The row with this sequence. Those before it are passed over without a look at what is in
    /// them. `Err` as for `next`.
    pub fn find(&mut self, wanted: Seq) -> Result<Option<Stored<'a>>, Malformed> {
        while self.left > 0 {
            self.left -= 1;
            let (flags, row) = self.head().ok_or(Malformed)?;
            if self.last.0 >= wanted {
                let found = self.last.0 == wanted;
                let row = found.then(|| self.body(flags, row).ok_or(Malformed));
                return row.transpose();
            }
        }
        Ok(None)
    }

    fn read(&mut self) -> Option<Stored<'a>> {
        let (flags, row) = self.head()?;
        self.body(flags, row)
    }

    /// Takes the next row's place in, and gives its flags and what follows.
    fn head(&mut self) -> Option<(u8, Reader<'a>)> {
        let mut row = Reader(self.rest.bytes()?);
        let flags = row.u8()?;
        let seq = self.last.0.wrapping_add(1).wrapping_add(row.varint()?);
        let ts = self.last.1.wrapping_add(1).wrapping_add(row.zigzag()?);
        self.last = (seq, ts);
        Some((flags, row))
    }

    fn body(&self, flags: u8, mut row: Reader<'a>) -> Option<Stored<'a>> {
        let (seq, ts) = self.last;
        let previous = match row.varint()? {
            0 => None,
            back => Some((seq.checked_sub(back)?, flags & PREVIOUS_DELETED != 0)),
        };
        let id = row.text()?;
        let shape = match row.varint()? {
            0 => StoredShape::Inline((0..row.len()?).map(|_| row.text()).collect::<Option<_>>()?),
            code => StoredShape::Known(u32::try_from(code - 1).ok()?),
        };
        let deleted = flags & DELETED != 0;
        Some(Stored {
            seq,
            ts,
            deleted,
            previous,
            id,
            shape,
            body: row.0,
        })
    }
}

/// A block passed its sum and still makes no sense.
#[derive(Debug)]
pub(crate) struct Malformed;

impl Stored<'_> {
    /// The names, from the segment's shapes or the row itself.
    pub fn shape(&self, shapes: &[Arc<Shape>]) -> Result<Arc<Shape>, Malformed> {
        match &self.shape {
            StoredShape::Known(number) => shapes.get(*number as usize).cloned().ok_or(Malformed),
            StoredShape::Inline(names) => Ok(Arc::new(Shape::new(
                names.iter().map(|name| Str::from(*name)),
            ))),
        }
    }

    /// Appends the version to a batch.
    pub fn push_to(&self, shapes: &[Arc<Shape>], out: &mut Batch) -> Result<(), Malformed> {
        let shape = self.shape(shapes)?;
        let meta = Meta {
            deleted: self.deleted,
            filtered: false,
            reserved: false,
            updated: Some(Offset::Int(self.seq as i64)),
            previous: self.previous.map(|(seq, _)| seq),
            ts: self.ts,
            hash: None,
        };
        out.push_encoded(Some(self.id), &shape, self.body, meta);
        Ok(())
    }
}
