//! A batch: many entities encoded in one arena, the unit that moves through a pipe.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use crate::encoding::{self, EncodeError};
use crate::{Dict, Entity, Offset, Str, Value, json};

/// The ordered property names of an entity's root, shared by the entities that have the same ones.
#[derive(Debug)]
pub struct Shape {
    names: Box<[Str]>,
    /// The names as JSON text, each with a comma before it and a colon behind; made when one is
    /// written first, since most shapes are only read.
    keys: OnceLock<Box<[Box<[u8]>]>>,
    seeds: Box<[u64]>,
    /// Of all seeds in order, so that looking up a shape does not hash every name again.
    fingerprint: u64,
    reserved: bool,
}

impl PartialEq for Shape {
    fn eq(&self, other: &Shape) -> bool {
        self.fingerprint == other.fingerprint && self.names == other.names
    }
}

impl Eq for Shape {}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl Shape {
    /// A shape of these names, which must be distinct.
    pub fn new(names: impl IntoIterator<Item = Str>) -> Shape {
        let names: Box<[Str]> = names.into_iter().collect();
        let seeds: Box<[u64]> = names
            .iter()
            .map(|name| crate::hash::name_seed(name))
            .collect();
        let fingerprint = seeds.iter().fold(0u64, |sum, seed| {
            sum.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed
        });
        let reserved = names.iter().any(|name| name.starts_with('_'));
        Shape {
            keys: OnceLock::new(),
            names,
            seeds,
            fingerprint,
            reserved,
        }
    }

    /// The names in order.
    pub fn names(&self) -> &[Str] {
        &self.names
    }

    /// The names as JSON text, in the same order, each with a comma before it and a colon behind.
    pub fn keys(&self) -> &[Box<[u8]>] {
        let key = |name: &Str| {
            let mut key = Vec::with_capacity(name.len() + 4);
            json::write_name(name, false, &mut key);
            key.into_boxed_slice()
        };
        self.keys
            .get_or_init(|| self.names.iter().map(key).collect())
    }

    /// The hash seeds of the names, in the same order (see the `hash` module).
    pub fn seeds(&self) -> &[u64] {
        &self.seeds
    }

    /// Whether a name starts with `_`: those do not count in the content hash.
    pub fn has_reserved(&self) -> bool {
        self.reserved
    }

    /// The place of `name`, if the shape has it.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    len: usize,
}

#[derive(Clone, Debug)]
struct Row {
    id: Option<Span>,
    body: Span,
    shape: u32,
    meta: Meta,
}

/// What travels with an encoded entity beside its content.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// `_deleted`.
    pub deleted: bool,
    /// `_filtered`.
    pub filtered: bool,
    /// The root holds names that start with `_` beyond the known ones; a dataset drops them.
    pub reserved: bool,
    /// `_updated` as the source gave it; for a dataset, the sequence of the version.
    pub updated: Option<Offset>,
    /// `_previous`.
    pub previous: Option<u64>,
    /// `_ts`, microseconds since 1970 UTC; 0 when unknown.
    pub ts: i64,
    /// The content hash (see the `hash` module) where it is known already: reading a version does
    /// not compute it, since most readers never ask. [`Record::hash`] gives it in any case.
    pub hash: Option<u128>,
}

/// Entities in the storage encoding, in order, in one arena.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    shapes: Vec<Arc<Shape>>,
    known: HashMap<Arc<Shape>, u32>,
    /// The shape that was interned last; most batches have few.
    recent: u32,
}

/// One entity of a batch, still encoded.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// `_id`, missing until the sink demands it.
    pub id: Option<&'a str>,
    /// The root's property names.
    pub shape: &'a Arc<Shape>,
    /// The values of `shape`'s names in order, in the storage encoding.
    pub body: &'a [u8],
    /// Everything beside the content.
    pub meta: &'a Meta,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// How many entities it holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of encoded content, ids included.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Makes room for so many entities more, with so many bytes of content and ids together, and for
    /// no more than that.
    pub fn reserve_exact(&mut self, entities: usize, bytes: usize) {
        self.rows.reserve_exact(entities);
        self.bytes.reserve_exact(bytes);
    }

    /// Forgets the entities and keeps the shapes and the memory, unless that is unusually much.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > MAX_KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.rows.clear();
        if self.shapes.len() > MAX_KEPT_SHAPES {
            self.shapes.clear();
            self.known.clear();
            self.recent = 0;
        }
    }

    /// The entity at `at`; panics beyond `len`, as slices do.
    pub fn get(&self, at: usize) -> Record<'_> {
        let row = &self.rows[at];
        Record {
            id: row.id.map(|span| {
                std::str::from_utf8(self.slice(span)).expect("ids were pushed as text")
            }),
            shape: &self.shapes[row.shape as usize],
            body: self.slice(row.body),
            meta: &row.meta,
        }
    }

    /// The entities in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// The entities in order without their ids: shape, body and what travels with them. For code
    /// that looks at all content and has to be quick about it.
    pub fn contents(&self) -> impl ExactSizeIterator<Item = (&Arc<Shape>, &[u8], &Meta)> {
        self.rows.iter().map(|row| {
            let shape = &self.shapes[row.shape as usize];
            (shape, self.slice(row.body), &row.meta)
        })
    }

    /// Changes what travels with the entity at `at`; the hash is kept as it was
    /// unless `deleted` changes, which `set_deleted` is for.
    pub fn meta_mut(&mut self, at: usize) -> &mut Meta {
        &mut self.rows[at].meta
    }

    /// Appends an entity that is encoded already, from another batch or a store.
    /// The caller vouches that `body` has one value for each name of the shape and that
    /// `meta.hash`, where there is one, is the content's hash.
    pub fn push_encoded(&mut self, id: Option<&str>, shape: &Arc<Shape>, body: &[u8], meta: Meta) {
        let shape = self.intern(shape);
        let id = id.map(|id| self.append(id.as_bytes()));
        let body = self.append(body);
        self.rows.push(Row {
            id,
            body,
            shape,
            meta,
        });
    }

    /// Appends a copy of `record`.
    pub fn push(&mut self, record: Record<'_>) {
        self.push_encoded(record.id, record.shape, record.body, record.meta.clone());
    }

    /// Appends copies of all entities of `other`.
    pub fn push_all(&mut self, other: &Batch) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.rows.reserve(other.rows.len());
        let moved = |span: Span| Span {
            start: base + span.start,
            ..span
        };
        for row in &other.rows {
            let shape = self.intern(&other.shapes[row.shape as usize]);
            self.rows.push(Row {
                id: row.id.map(moved),
                body: moved(row.body),
                shape,
                meta: row.meta.clone(),
            });
        }
    }

    /// What travels with each entity, and how many bytes its id and content take, in order.
    pub fn sizes(&self) -> impl Iterator<Item = (&Meta, usize)> {
        self.rows.iter().map(|row| {
            let id = row.id.map_or(0, |id| id.len);
            (&row.meta, id + row.body.len)
        })
    }

    /// Encodes and appends an entity tree; the hash is computed here.
    ///
    /// # Errors
    /// When a value nests deeper than `encoding::MAX_DEPTH`; the batch then is as it was.
    pub fn push_entity(&mut self, entity: &Entity) -> Result<(), EncodeError> {
        let start = self.bytes.len();
        for (_, value) in entity.properties.iter() {
            if let Err(error) = encoding::encode(value, &mut self.bytes) {
                self.bytes.truncate(start);
                return Err(error);
            }
        }
        let shape = self.shape_of(entity);
        let id = entity.id.as_deref();
        let meta = Meta {
            deleted: entity.deleted,
            filtered: entity.filtered,
            reserved: shape.names().iter().any(|name| name.starts_with('_')),
            updated: entity.updated.clone(),
            previous: entity.previous,
            ts: entity.ts.unwrap_or(0),
            hash: Some(crate::hash::content(
                id,
                entity.deleted,
                &shape,
                &self.bytes[start..],
            )),
        };
        self.close_row(start, id, &shape, meta);
        Ok(())
    }

    /// The shape of an entity's properties: the recent one if they are its names.
    fn shape_of(&self, entity: &Entity) -> Arc<Shape> {
        let names = || entity.properties.iter().map(|(name, _)| name);
        match self.shapes.get(self.recent as usize) {
            Some(recent) if recent.names().iter().eq(names()) => Arc::clone(recent),
            _ => Arc::new(Shape::new(names().cloned())),
        }
    }

    /// Says that the entity at `at` is deleted, or that it is not; its hash changes with it.
    pub fn set_deleted(&mut self, at: usize, deleted: bool) {
        let meta = self.meta_mut(at);
        meta.deleted = deleted;
        meta.hash = None;
    }

    /// Keeps the first `len` entities.
    pub fn truncate(&mut self, len: usize) {
        self.rows.truncate(len);
    }

    /// The interned id of a shape in this batch; used by writers that encode in place.
    pub fn intern(&mut self, shape: &Arc<Shape>) -> u32 {
        if self
            .shapes
            .get(self.recent as usize)
            .is_some_and(|recent| Arc::ptr_eq(recent, shape))
        {
            return self.recent;
        }
        if let Some(&id) = self.known.get(shape) {
            self.recent = id;
            return id;
        }
        let id = u32::try_from(self.shapes.len()).expect("a batch has fewer than 2^32 shapes");
        self.shapes.push(Arc::clone(shape));
        self.known.insert(Arc::clone(shape), id);
        self.recent = id;
        id
    }

    /// Where encoded content goes; a writer appends a body here and then calls `close_row`, or
    /// cuts it off again.
    pub(crate) fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes what was appended to the arena since `start` the body of a new entity.
    pub(crate) fn close_row(
        &mut self,
        start: usize,
        id: Option<&str>,
        shape: &Arc<Shape>,
        meta: Meta,
    ) {
        let body = Span {
            start,
            len: self.bytes.len() - start,
        };
        let shape = self.intern(shape);
        let id = id.map(|id| self.append(id.as_bytes()));
        self.rows.push(Row {
            id,
            body,
            shape,
            meta,
        });
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span {
            start,
            len: bytes.len(),
        }
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.start + span.len]
    }
}

/// Memory that a cleared batch may keep for the next fill, in bytes.
const MAX_KEPT_BYTES: usize = 32 << 20;

/// Shapes that a cleared batch may keep for the next fill.
const MAX_KEPT_SHAPES: usize = 1024;

impl Record<'_> {
    /// The content hash: as it is known, or computed from the content.
    pub fn hash(&self) -> u128 {
        let known = self.meta.hash;
        known.unwrap_or_else(|| {
            crate::hash::content(self.id, self.meta.deleted, self.shape, self.body)
        })
    }

    /// The entity as a tree.
    pub fn to_entity(&self) -> Entity {
        let mut properties = Dict::new();
        let mut rest = self.body;
        for name in self.shape.names() {
            properties.push_new(name.clone(), encoding::decode(&mut rest));
        }
        Entity {
            id: self.id.map(Str::from),
            deleted: self.meta.deleted,
            filtered: self.meta.filtered,
            updated: self.meta.updated.clone(),
            previous: self.meta.previous,
            ts: (self.meta.ts != 0).then_some(self.meta.ts),
            hash: Some(self.hash()),
            properties,
        }
    }

    /// The value of one root property, without decoding the others.
    pub fn value(&self, name: &str) -> Option<Value> {
        let at = self.shape.position(name)?;
        let mut rest = self.body;
        for _ in 0..at {
            encoding::skip(&mut rest);
        }
        Some(encoding::decode(&mut rest))
    }
}
