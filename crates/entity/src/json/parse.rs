//! The text of one entity straight into a row of a batch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::entity_error::{EntityError, EntityFault, Fault, Step};
use super::excerpt;
use super::number::Numbers;
use super::value::{self, Options, Reader, Scratch};
use crate::hash::Sum;
use crate::{Batch, Entity, Meta, Offset, Shape, Str};

/// Reads entities from JSON text into batches. It keeps memory and known shapes from one
/// entity to the next and counts them, so use one parser for a stream.
#[derive(Debug)]
pub struct Parser {
    options: Options,
    position: u64,
    scratch: Scratch,
    shapes: Shapes,
    /// Where the encoding of each root property ends.
    ends: Vec<usize>,
    id: String,
}

/// Reads one entity as a tree.
///
/// # Errors
/// When `text` is not exactly one well-formed entity.
pub fn parse_entity(text: &[u8], numbers: Numbers) -> Result<Entity, EntityError> {
    let mut batch = Batch::new();
    Parser::new(numbers).push_json(&mut batch, text)?;
    Ok(batch.get(0).to_entity())
}

impl Parser {
    /// A parser for a stream whose numbers become what `numbers` says.
    pub fn new(numbers: Numbers) -> Parser {
        Parser {
            options: Options {
                numbers,
                transit: true,
            },
            position: 0,
            scratch: Scratch::default(),
            shapes: Shapes::default(),
            ends: Vec::new(),
            id: String::new(),
        }
    }

    /// How many entities were read, wrong ones included.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Counts entities that were not for this parser.
    pub fn pass(&mut self, entities: u64) {
        self.position += entities;
    }

    /// Appends the entity whose JSON object is `element`.
    ///
    /// The reserved fields leave the content: `_id` and `_deleted` as they are; `_updated`, `_ts`,
    /// `_previous` and `_filtered` into the row's `Meta`, the latter three only where they have
    /// the type that we give them ourselves; `_hash` is computed afresh. Other names that start with `_`
    /// stay in the body, and `Meta::reserved` says so; so does an `_id` that is neither a string
    /// nor null, and the row then has none. Of equal names the last value counts, in the place of
    /// the first.
    ///
    /// # Errors
    /// When `element` is not one well-formed object, or `_updated` has a wrong type.
    /// The batch then is as it was.
    pub fn push_json(&mut self, batch: &mut Batch, element: &[u8]) -> Result<(), EntityError> {
        let position = self.position;
        self.position += 1;
        let out = batch.arena();
        let start = out.len();
        match value::text(element).and_then(|text| self.root(text, out)) {
            Ok(row) => {
                let id = row.has_id.then_some(self.id.as_str());
                batch.close_row(start, id, &row.shape, row.meta);
                Ok(())
            }
            Err(fault) => {
                out.truncate(start);
                Err(fault.of(position, element))
            }
        }
    }

    fn root(&mut self, text: &str, out: &mut Vec<u8>) -> Step<Row> {
        let start = out.len();
        let mut reader = Reader::new(text, self.options, &mut self.scratch);
        let mut meta = Meta::default();
        let (mut has_id, mut named) = (Found::Nothing, false);
        self.ends.clear();
        self.shapes.begin();
        reader.space();
        if reader.peek() != Some(b'{') {
            return reader.unexpected("an entity, which is a JSON object");
        }
        let mut more = !reader.is_empty(b'}');
        while more {
            let plain = reader.name()?;
            let name = plain.unwrap_or(&reader.scratch.unescaped);
            match Reserved::of(name) {
                Some(Reserved::Id) => {
                    reader.colon()?;
                    let at = reader.at;
                    let found = read_id(&mut reader, &mut self.id, out)?;
                    if has_id != found && [has_id, found].contains(&Found::Value) && named {
                        return twice(at);
                    }
                    named = true;
                    has_id = found;
                    if found == Found::Value {
                        meta.reserved = true;
                        self.shapes.name("_id");
                        self.ends.push(out.len());
                    }
                }
                Some(field) => {
                    reader.colon()?;
                    read_reserved(&mut reader, field, &mut meta, out)?;
                }
                None => {
                    meta.reserved |= name.starts_with('_');
                    self.shapes.name(name);
                    reader.colon()?;
                    reader.value(out, 1)?;
                    self.ends.push(out.len());
                }
            }
            more = reader.comma(b'}')?;
        }
        reader.end()?;
        let shape = match self.shapes.finish() {
            Ok(shape) => shape,
            Err(names) => keep_last(&names, start, &mut self.ends, out),
        };
        let has_id = has_id == Found::Text;
        let id = has_id.then_some(self.id.as_str());
        let mut sum = Sum::new(id, meta.deleted);
        let mut from = start;
        for (at, (&end, &seed)) in self.ends.iter().zip(shape.seeds()).enumerate() {
            if !meta.reserved || !shape.names()[at].starts_with('_') {
                sum.add(seed, &out[from..end]);
            }
            from = end;
        }
        meta.hash = Some(sum.finish());
        Ok(Row {
            shape,
            meta,
            has_id,
        })
    }
}

/// What `root` found beside the encoded values.
struct Row {
    shape: Arc<Shape>,
    meta: Meta,
    has_id: bool,
}

/// The reserved fields that are no part of the body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reserved {
    Id,
    Deleted,
    Updated,
    Previous,
    Ts,
    Hash,
    Filtered,
}

impl Reserved {
    #[inline]
    pub(super) fn of(name: &str) -> Option<Reserved> {
        if !name.starts_with('_') {
            return None;
        }
        Some(match name {
            "_id" => Reserved::Id,
            "_deleted" => Reserved::Deleted,
            "_updated" => Reserved::Updated,
            "_previous" => Reserved::Previous,
            "_ts" => Reserved::Ts,
            "_hash" => Reserved::Hash,
            "_filtered" => Reserved::Filtered,
            _ => return None,
        })
    }
}

/// Whether a property of the root of that name stands beside the content.
#[inline]
pub fn is_reserved(name: &str) -> bool {
    Reserved::of(name).is_some()
}

/// What a name `_id` has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Null, or there is no such name.
    Nothing,
    /// A string, which identifies the entity.
    Text,
    /// Another value, from which a transform may make one.
    Value,
}

/// Reads `_id`: a string as it stands, tags are not decoded in it; another value as one of the
/// body, encoded into `out`.
fn read_id(reader: &mut Reader<'_, '_>, id: &mut String, out: &mut Vec<u8>) -> Step<Found> {
    match reader.peek() {
        Some(b'"') => {
            let plain = reader.string()?;
            id.clear();
            id.push_str(plain.unwrap_or(&reader.scratch.unescaped));
            Ok(Found::Text)
        }
        Some(b'n') => reader.raw(out).map(|_| Found::Nothing),
        _ => reader.value(out, 1).map(|_| Found::Value),
    }
}

/// Which of two kinds of `_id` holds would depend on who reads it.
fn twice<T>(at: usize) -> Step<T> {
    Err(Box::new(Fault {
        at,
        kind: EntityFault::Id,
        message: "expected one `_id`, found another of another type before it".to_owned(),
    }))
}

pub(super) fn read_reserved(
    reader: &mut Reader<'_, '_>,
    field: Reserved,
    meta: &mut Meta,
    out: &mut Vec<u8>,
) -> Step<()> {
    let at = reader.at;
    if let (Reserved::Updated, Some(b'"')) = (field, reader.peek()) {
        let plain = reader.string()?;
        let text = plain.unwrap_or(&reader.scratch.unescaped);
        meta.updated = Some(Offset::Text(Str::from(text)));
        return Ok(());
    }
    let found = reader.raw(out)?;
    match field {
        Reserved::Deleted => meta.deleted = found == "true",
        Reserved::Filtered => meta.filtered = found == "true",
        Reserved::Previous => meta.previous = found.parse().ok(),
        Reserved::Ts => meta.ts = found.parse().unwrap_or(0),
        Reserved::Updated if found == "null" => meta.updated = None,
        Reserved::Updated => match found.parse() {
            Ok(number) => meta.updated = Some(Offset::Int(number)),
            Err(_) => {
                let found = excerpt(found.as_bytes());
                let message = format!(
                    "expected `_updated` to be a string or an integer of 64 bits, found {found}"
                );
                return Err(Box::new(Fault {
                    at,
                    kind: EntityFault::Updated,
                    message,
                }));
            }
        },
        Reserved::Id | Reserved::Hash => {}
    }
    Ok(())
}

impl<'a> Reader<'a, '_> {
    /// The text of the value at the present place; `out` is used and left as it was.
    fn raw(&mut self, out: &mut Vec<u8>) -> Step<&'a str> {
        let (start, len) = (self.at, out.len());
        self.value(out, 1)?;
        out.truncate(len);
        Ok(self.since(start))
    }
}

/// Writes the root's values again: of equal names the last value, in the place of the first.
fn keep_last(names: &[Str], start: usize, ends: &mut Vec<usize>, out: &mut Vec<u8>) -> Arc<Shape> {
    let mut values: Vec<(Str, std::ops::Range<usize>)> = Vec::new();
    let mut places = HashMap::new();
    let mut from = start;
    for (name, &end) in names.iter().zip(ends.iter()) {
        let place = *places.entry(name).or_insert(values.len());
        if place == values.len() {
            values.push((name.clone(), from..end));
        } else {
            values[place].1 = from..end;
        }
        from = end;
    }
    let body = out.split_off(start);
    ends.clear();
    for (_, range) in &values {
        out.extend_from_slice(&body[range.start - start..range.end - start]);
        ends.push(out.len());
    }
    Arc::new(Shape::new(values.into_iter().map(|(name, _)| name)))
}

/// Shapes that a parser remembers before it starts over.
const MAX_SHAPES: usize = 4096;

/// Separates names in keys; no UTF-8 text has this byte.
const SEPARATOR: u8 = 0xff;

/// The shapes that came by. An entity whose names are those of the one before costs a
/// comparison of each name, another known shape one hash of all names.
#[derive(Debug, Default)]
struct Shapes {
    recent: Option<Arc<Shape>>,
    known: HashMap<Box<[u8]>, Arc<Shape>>,
    /// How many names were the recent shape's so far; `None` once one was not.
    matched: Option<usize>,
    /// All names so far, each with a separator behind it, once one was not the recent shape's.
    key: Vec<u8>,
}

impl Shapes {
    fn begin(&mut self) {
        self.matched = Some(0);
        self.key.clear();
    }

    #[inline]
    fn name(&mut self, name: &str) {
        if let Some(matched) = self.matched {
            if let Some(shape) = &self.recent
                && shape
                    .names()
                    .get(matched)
                    .is_some_and(|known| known == name)
            {
                self.matched = Some(matched + 1);
                return;
            }
            self.diverge(matched);
        }
        self.key.extend_from_slice(name.as_bytes());
        self.key.push(SEPARATOR);
    }

    fn diverge(&mut self, matched: usize) {
        self.matched = None;
        for known in self
            .recent
            .iter()
            .flat_map(|shape| &shape.names()[..matched])
        {
            self.key.extend_from_slice(known.as_bytes());
            self.key.push(SEPARATOR);
        }
    }

    /// The shape of the names since `begin`, or the names when two are equal.
    fn finish(&mut self) -> Result<Arc<Shape>, Vec<Str>> {
        if let Some(matched) = self.matched {
            if let Some(shape) = &self.recent
                && shape.names().len() == matched
            {
                return Ok(Arc::clone(shape));
            }
            self.diverge(matched);
        }
        if let Some(shape) = self.known.get(self.key.as_slice()) {
            self.recent = Some(Arc::clone(shape));
            return Ok(Arc::clone(shape));
        }
        let names: Vec<Str> = self
            .key
            .split_inclusive(|byte| *byte == SEPARATOR)
            .map(|name| {
                std::str::from_utf8(&name[..name.len() - 1])
                    .expect("names are text")
                    .into()
            })
            .collect();
        let mut seen = HashSet::with_capacity(names.len());
        if !names.iter().all(|name| seen.insert(name)) {
            return Err(names);
        }
        let shape = Arc::new(Shape::new(names));
        if self.known.len() >= MAX_SHAPES {
            self.known.clear();
        }
        self.known
            .insert(self.key.as_slice().into(), Arc::clone(&shape));
        self.recent = Some(Arc::clone(&shape));
        Ok(shape)
    }
}
