//! An entity type as bytes, in two halves: what there is, which changes seldom, and how often, which
//! changes with every run that read something. Only what changed is written.
//!
//! Both halves go through the tree in the same order. The first begins with the number of this
//! layout; varints are LEB128.

use tahini_entity::Str;
use tahini_entity::encoding::Kind;

use super::{EntityType, Fields, KINDS, Node, Parts};

const LAYOUT: u8 = 1;
const DELETED: u8 = 1;
const INTEGERS: u8 = 2;
const TEXTS: u8 = 4;
const TRUNCATED: u8 = 8;
/// Bits beyond those of the kinds, in a node's mask.
const HAS_PARTS: u64 = 1 << KINDS;

/// The two halves of a type.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Halves {
    /// What there is.
    pub(crate) what: Vec<u8>,
    /// How often.
    pub(crate) counts: Vec<u8>,
}

impl EntityType {
    /// The type as bytes.
    pub(crate) fn to_halves(&self) -> Halves {
        let mut out = Halves::default();
        let flags = [
            (self.deleted, DELETED),
            (self.updated[0], INTEGERS),
            (self.updated[1], TEXTS),
            (self.room.truncated, TRUNCATED),
        ];
        let set = flags.iter().filter(|(on, _)| *on).map(|(_, flag)| flag);
        out.what.extend([LAYOUT, set.sum()]);
        put(&mut out.counts, self.entities);
        self.fields.put(&mut out);
        out
    }

    /// The type from bytes; `None` when they are of another layout, or of no type at all.
    pub(crate) fn of_halves(what: &[u8], counts: &[u8]) -> Option<EntityType> {
        let (&[LAYOUT, flags], what) = what.split_first_chunk()? else {
            return None;
        };
        let mut from = From { what, counts };
        let mut found = EntityType {
            entities: take(&mut from.counts)?,
            deleted: flags & DELETED > 0,
            updated: [flags & INTEGERS > 0, flags & TEXTS > 0],
            ..EntityType::default()
        };
        found.fields = from.fields(0)?;
        found.room.left = found.room.left.saturating_sub(found.fields.size());
        found.room.truncated = flags & TRUNCATED > 0;
        Some(found)
    }
}

impl Fields {
    fn put(&self, out: &mut Halves) {
        put(&mut out.what, self.named.len() as u64);
        for (name, node) in &self.named {
            put_text(&mut out.what, name);
            node.put(out);
        }
        out.what.push(u8::from(self.rest.is_some()));
        if let Some(rest) = &self.rest {
            rest.put(out);
        }
    }
}

impl Node {
    fn put(&self, out: &mut Halves) {
        let mut mask = 0;
        for kind in self.kinds() {
            mask |= 1 << (kind as u64);
            put(&mut out.counts, self.count(kind));
        }
        let Some(parts) = &self.parts else {
            return put(&mut out.what, mask);
        };
        put(&mut out.what, mask | HAS_PARTS);
        out.what.push(u8::from(parts.items.is_some()));
        if let Some(items) = &parts.items {
            items.put(out);
        }
        parts.fields.put(out);
        put(&mut out.what, parts.namespaces.names.len() as u64);
        for name in &parts.namespaces.names {
            put_text(&mut out.what, name);
        }
        out.what.push(u8::from(parts.namespaces.many));
    }
}

/// What is left to read of both halves.
struct From<'a> {
    what: &'a [u8],
    counts: &'a [u8],
}

/// Deeper than this no type is written.
const DEEPEST: usize = 2 * super::MAX_DEPTH;

impl From<'_> {
    fn fields(&mut self, depth: usize) -> Option<Fields> {
        if depth > DEEPEST {
            return None;
        }
        let mut fields = Fields::default();
        for _ in 0..take(&mut self.what)? {
            let name = self.text()?;
            fields.named.push((name, self.node(depth + 1)?));
        }
        if self.flag()? {
            fields.rest = Some(Box::new(self.node(depth + 1)?));
        }
        Some(fields)
    }

    fn node(&mut self, depth: usize) -> Option<Node> {
        let mask = take(&mut self.what)?;
        let mut node = Node::default();
        for kind in Kind::ALL {
            if mask & (1 << (kind as u64)) > 0 {
                node.counts[kind as usize] = take(&mut self.counts)?;
            }
        }
        if mask & HAS_PARTS > 0 {
            let mut parts = Parts::default();
            if self.flag()? {
                parts.items = Some(self.node(depth + 1)?);
            }
            parts.fields = self.fields(depth + 1)?;
            for _ in 0..take(&mut self.what)? {
                let name = self.text()?;
                parts.namespaces.names.push(name);
            }
            parts.namespaces.many = self.flag()?;
            node.parts = Some(Box::new(parts));
        }
        Some(node)
    }

    fn flag(&mut self) -> Option<bool> {
        Some(take(&mut self.what)? > 0)
    }

    fn text(&mut self) -> Option<Str> {
        let len = usize::try_from(take(&mut self.what)?).ok()?;
        let (text, rest) = self.what.split_at_checked(len)?;
        self.what = rest;
        std::str::from_utf8(text).ok().map(Str::from)
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(number);
        }
    }
    None
}
