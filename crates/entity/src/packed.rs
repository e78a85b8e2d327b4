//! Entities as bytes on their way from node to node (`docs/packed.md`): blocks that stand for
//! themselves, each with a checksum, and an end that cannot be missed.

use std::io::{self, Read};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::encoding::{put_varint, try_decode};
use crate::{Batch, Dict, Entity, Offset, Shape, Str};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.tahini.entities";

/// How a stream begins; the last byte is the version of the format.
const MAGIC: &[u8; 8] = b"TAHINIE\x01";
/// Bytes before a block's content: its length and its checksum.
const HEAD: usize = 12;
/// The longest block that is read.
const MAX_BLOCK: u32 = 1 << 30;

mod flag {
    pub const ID: u8 = 1;
    pub const DELETED: u8 = 2;
    pub const NUMBER: u8 = 4;
    pub const TEXT: u8 = 8;
    pub const ALL: u8 = 15;
}

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackedError {
    /// The bytes do not come.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// They are not such a stream, or of another version.
    #[error("expected packed entities of version 1, found {0}")]
    Other(String),
    /// A block is not what was written.
    #[error("expected a whole block of packed entities, found {0}")]
    Damaged(&'static str),
}

/// Begins a stream.
pub fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
}

/// Ends a stream: a block of no bytes.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; HEAD]);
}

/// Appends the entities of a batch as one block; nothing where there are none.
pub fn put(batch: &Batch, out: &mut Vec<u8>) {
    if batch.is_empty() {
        return;
    }
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let mut shapes: Vec<&Arc<Shape>> = Vec::new();
    let mut rows = Vec::new();
    for record in batch.iter() {
        let known = shapes
            .iter()
            .rposition(|shape| Arc::ptr_eq(shape, record.shape));
        let shape = known.unwrap_or_else(|| {
            shapes.push(record.shape);
            shapes.len() - 1
        });
        let meta = record.meta;
        let mut flags = if meta.deleted { flag::DELETED } else { 0 };
        flags |= record.id.map_or(0, |_| flag::ID);
        flags |= match meta.updated {
            None => 0,
            Some(Offset::Int(_)) => flag::NUMBER,
            Some(Offset::Text(_)) => flag::TEXT,
        };
        rows.push(flags);
        if let Some(id) = record.id {
            put_bytes(&mut rows, id.as_bytes());
        }
        match &meta.updated {
            None => {}
            Some(Offset::Int(number)) => put_zigzag(&mut rows, *number),
            Some(Offset::Text(text)) => put_bytes(&mut rows, text.as_bytes()),
        }
        put_zigzag(&mut rows, meta.ts);
        put_varint(&mut rows, shape as u64);
        put_bytes(&mut rows, record.body);
    }
    put_varint(out, shapes.len() as u64);
    for shape in shapes {
        put_varint(out, shape.names().len() as u64);
        shape
            .names()
            .iter()
            .for_each(|name| put_bytes(out, name.as_bytes()));
    }
    put_varint(out, batch.len() as u64);
    out.extend_from_slice(&rows);
    let content = &out[start + HEAD..];
    let (len, sum) = (content.len() as u32, xxh3_64(content));
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&sum.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_zigzag(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Reads a stream block by block.
pub struct Blocks<R> {
    from: R,
    begun: bool,
    ended: bool,
}

impl<R: Read> Blocks<R> {
    /// A stream that comes from `from`.
    pub fn new(from: R) -> Blocks<R> {
        Blocks {
            from,
            begun: false,
            ended: false,
        }
    }

    /// Appends the entities of the next block; `false` at the end of the stream. After an error
    /// `out` holds what it held before.
    ///
    /// # Errors
    /// When the bytes do not come, end too early, or are not such a stream.
    pub fn next_block(&mut self, out: &mut Batch) -> Result<bool, PackedError> {
        if !self.begun {
            self.read_magic()?;
        }
        if self.ended {
            return Ok(false);
        }
        let mut head = [0; HEAD];
        self.from.read_exact(&mut head)?;
        let (len, sum) = head.split_at(4);
        let len = u32::from_le_bytes(len.try_into().expect("four bytes were split off"));
        if len == 0 {
            self.ended = true;
            return Ok(false);
        }
        if len > MAX_BLOCK {
            return Err(PackedError::Damaged("one of more than 1 GiB"));
        }
        let mut content = Vec::new();
        let read = self
            .from
            .by_ref()
            .take(len.into())
            .read_to_end(&mut content)?;
        if read < len as usize {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if xxh3_64(&content).to_le_bytes() != *sum {
            return Err(PackedError::Damaged("another checksum"));
        }
        let before = out.len();
        unpack(&content, out).map_err(|what| {
            out.truncate(before);
            PackedError::Damaged(what)
        })?;
        Ok(true)
    }

    fn read_magic(&mut self) -> Result<(), PackedError> {
        let mut magic = [0; MAGIC.len()];
        self.from.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(PackedError::Other(match magic.starts_with(&MAGIC[..7]) {
                true => format!("version {}", magic[7]),
                false => "other bytes".to_owned(),
            }));
        }
        self.begun = true;
        Ok(())
    }
}

/// What is wrong with a block.
type Wrong = &'static str;

fn unpack(mut from: &[u8], out: &mut Batch) -> Result<(), Wrong> {
    let from = &mut from;
    let mut shapes: Vec<Vec<Str>> = Vec::new();
    for _ in 0..varint(from)? {
        let mut names: Vec<Str> = Vec::new();
        for _ in 0..varint(from)? {
            names.push(Str::from(text(from)?));
        }
        shapes.push(names);
    }
    for _ in 0..varint(from)? {
        let entity = row(from, &shapes)?;
        out.push_entity(&entity)
            .map_err(|_| "values that nest too deep")?;
    }
    match from.is_empty() {
        true => Ok(()),
        false => Err("more bytes than entities"),
    }
}

fn row(from: &mut &[u8], shapes: &[Vec<Str>]) -> Result<Entity, Wrong> {
    let (flags, rest) = from.split_first().ok_or("fewer entities")?;
    *from = rest;
    if flags & !flag::ALL != 0 {
        return Err("unknown flags");
    }
    let has = |one: u8| flags & one != 0;
    let mut entity = Entity {
        deleted: has(flag::DELETED),
        ..Entity::default()
    };
    if has(flag::ID) {
        entity.id = Some(Str::from(text(from)?));
    }
    if has(flag::NUMBER) {
        entity.updated = Some(Offset::Int(zigzag(from)?));
    } else if has(flag::TEXT) {
        entity.updated = Some(Offset::Text(Str::from(text(from)?)));
    }
    entity.ts = Some(zigzag(from)?).filter(|ts| *ts != 0);
    let shape = usize::try_from(varint(from)?).ok();
    let names = shape
        .and_then(|at| shapes.get(at))
        .ok_or("an unknown shape")?;
    let mut body = bytes(from)?;
    let mut properties = Dict::new();
    for name in names {
        let value = try_decode(&mut body).map_err(|_| "a value that is none")?;
        // A name that comes twice keeps one value.
        properties.set(name.clone(), value);
    }
    if !body.is_empty() {
        return Err("more values than names");
    }
    entity.properties = properties;
    Ok(entity)
}

fn varint(from: &mut &[u8]) -> Result<u64, Wrong> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first().ok_or("a number that is cut off")?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number of more than 64 bits")
}

fn zigzag(from: &mut &[u8]) -> Result<i64, Wrong> {
    let number = varint(from)?;
    Ok((number >> 1) as i64 ^ -((number & 1) as i64))
}

fn bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], Wrong> {
    let len = usize::try_from(varint(from)?).map_err(|_| "a length beyond its bytes")?;
    let (bytes, rest) = from
        .split_at_checked(len)
        .ok_or("a length beyond its bytes")?;
    *from = rest;
    Ok(bytes)
}

fn text<'a>(from: &mut &'a [u8]) -> Result<&'a str, Wrong> {
    std::str::from_utf8(bytes(from)?).map_err(|_| "text that is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{self, Fields, Numbers};

    fn batch(entities: &[&str]) -> Batch {
        let mut batch = Batch::new();
        for text in entities {
            let entity = json::parse_entity(text.as_bytes(), Numbers::default()).unwrap();
            batch.push_entity(&entity).unwrap();
        }
        batch
    }

    fn texts(batch: &Batch) -> Vec<String> {
        let text = |record| {
            let mut text = Vec::new();
            json::write_record(record, Fields::ALL, &mut text);
            String::from_utf8(text).unwrap()
        };
        batch.iter().map(text).collect()
    }

    fn stream(batches: &[&Batch]) -> Vec<u8> {
        let mut out = Vec::new();
        begin(&mut out);
        batches.iter().for_each(|batch| put(batch, &mut out));
        end(&mut out);
        out
    }

    fn read(stream: &[u8]) -> Result<Batch, PackedError> {
        let (mut blocks, mut out) = (Blocks::new(stream), Batch::new());
        while blocks.next_block(&mut out)? {}
        Ok(out)
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let first = batch(&[
            r#"{"_id": "a", "_updated": -3, "_ts": 17, "n": 1.50, "l": [1, {"x": null}]}"#,
            r#"{"_id": "b", "_updated": "x", "_deleted": true}"#,
        ]);
        let second = batch(&[r#"{"d": "~t2015-12-31T00:00:00.5Z", "_id": "ø"}"#, "{}"]);
        let out = read(&stream(&[&first, &Batch::new(), &second])).unwrap();
        assert_eq!(texts(&out), [texts(&first), texts(&second)].concat());
        assert!(
            out.iter()
                .zip(first.iter())
                .all(|(a, b)| a.hash() == b.hash())
        );
        assert_eq!(read(&stream(&[])).unwrap().len(), 0);
    }

    #[test]
    fn what_was_cut_off_or_changed_is_never_taken() {
        let whole = stream(&[&batch(&[r#"{"_id": "a", "n": 1}"#, r#"{"_id": "b"}"#])]);
        for len in 0..whole.len() {
            assert!(read(&whole[..len]).is_err(), "{len} bytes");
        }
        for at in 0..whole.len() - HEAD {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn bytes_with_a_right_checksum_are_looked_at_all_the_same() {
        for (content, what) in [
            (&[1, 1, 1, b'n', 1, 0, 0, 0, 0][..], "a value that is none"),
            (&[0, 1, 0, 0, 0, 0], "an unknown shape"),
            (&[0, 1, 16], "unknown flags"),
            (&[1, 1, 1, 0xff, 0], "text that is not UTF-8"),
            (&[0, 0, 7], "more bytes than entities"),
            (&[1, 0, 1, 0, 0, 0, 1, 0], "more values than names"),
            (&[0x80; 11], "a number of more than 64 bits"),
            (&[1, 1, 0xff, 0xff, 1], "a length beyond its bytes"),
        ] {
            let mut bytes = Vec::new();
            begin(&mut bytes);
            bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&xxh3_64(content).to_le_bytes());
            bytes.extend_from_slice(content);
            end(&mut bytes);
            let found = read(&bytes).unwrap_err().to_string();
            assert!(found.ends_with(what), "{found}");
        }
        let newer = read(b"TAHINIE\x02").unwrap_err().to_string();
        assert!(newer.ends_with("found version 2"), "{newer}");
        assert!(
            read(b"[{},\n{}]...")
                .unwrap_err()
                .to_string()
                .ends_with("other bytes")
        );
    }
}
