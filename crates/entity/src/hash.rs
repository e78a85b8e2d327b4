//! The content hash `h1`: 128 bits that tell whether two versions of an entity differ.
//!
//! It is defined over values, never over the place where they are stored:
//!
//! - `H = mix(start + Σ field)` modulo 2^128, over the root's properties. Adding makes it
//!   independent of the order of the names; a sum, not an exclusive or, since in that two
//!   equal terms would cancel.
//! - `start = xxh3_128(id, seed)`, where the seed is 0 for a living entity and 1 for a deleted
//!   one, and 2 more when it has no `_id` (the text is then empty).
//! - `field = xxh3_128(canonical(value), seed = xxh3_64(name))`.
//! - `canonical(value)` is the storage encoding (see `encoding`), in which a dict, at whatever
//!   depth, is replaced by its tag and the 16 bytes (little-endian) of `Σ field` over its own
//!   pairs. The byte lengths of the lists around it count the replacement.
//! - `mix(x) = xxh3_128(the 16 bytes of x, little-endian)`.
//!
//! Root names that start with `_` do not count, `$…` names do, nested `_…` names do. Values are
//! type-strict: `1`, `1.0` and the decimals `1.0` and `1.00` all differ. The hash detects changes;
//! it is not keyed and defends against nobody.

use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

use crate::Shape;
use crate::encoding::{self, Token, tag};

/// The seed under which a property's value is hashed: xxh3-64 of its name.
pub fn name_seed(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// The hash of an entity's content; `body` holds one encoded value for each name of `shape`.
pub fn content(id: Option<&str>, deleted: bool, shape: &Arc<Shape>, body: &[u8]) -> u128 {
    let mut sum = Sum::new(id, deleted);
    let mut rest = body;
    for (name, &seed) in shape.names().iter().zip(shape.seeds()) {
        let value = encoding::take(&mut rest);
        if !shape.has_reserved() || !name.starts_with('_') {
            sum.add(seed, value);
        }
    }
    sum.finish()
}

/// A content hash under way.
pub(crate) struct Sum(u128);

impl Sum {
    pub(crate) fn new(id: Option<&str>, deleted: bool) -> Sum {
        let seed = u64::from(deleted) + if id.is_none() { 2 } else { 0 };
        Sum(xxh3_128_with_seed(id.unwrap_or("").as_bytes(), seed))
    }

    /// Adds a root property that counts: its name's seed and its encoded value.
    pub(crate) fn add(&mut self, seed: u64, encoded: &[u8]) {
        self.0 = self.0.wrapping_add(field(seed, encoded));
    }

    pub(crate) fn finish(self) -> u128 {
        xxh3_128(&self.0.to_le_bytes())
    }
}

fn field(seed: u64, encoded: &[u8]) -> u128 {
    if !encoding::has_dict(encoded) {
        return xxh3_128_with_seed(encoded, seed);
    }
    let mut canonical = Vec::with_capacity(64);
    put_canonical(encoded, &mut canonical);
    xxh3_128_with_seed(&canonical, seed)
}

fn put_canonical(encoded: &[u8], out: &mut Vec<u8>) {
    if !encoding::has_dict(encoded) {
        out.extend_from_slice(encoded);
        return;
    }
    let kind = encoded[0];
    let token = encoding::token(&mut &*encoded).expect("the bytes were written by encode");
    match token {
        Token::Dict(entries) => {
            let sum = entries.fold(0u128, |sum, (name, value)| {
                sum.wrapping_add(field(name_seed(name), value))
            });
            out.push(tag::DICT);
            out.extend_from_slice(&sum.to_le_bytes());
        }
        Token::List(items) | Token::Tuple(items) => {
            let at = encoding::open(out);
            let mut rest = items.bytes();
            while !rest.is_empty() {
                put_canonical(encoding::take(&mut rest), out);
            }
            encoding::close(out, at, kind, items.count());
        }
        _ => unreachable!("only containers hold dicts"),
    }
}
