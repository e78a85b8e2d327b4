//! What a run has looked up already: a dataset that did not change since gives the same again.

use std::collections::HashMap;
use std::sync::Arc;

use tahini_entity::folded::FoldedMap;
use tahini_entity::{Entity, Value, order};
use tahini_store::{Head, Seq};
use uuid::Uuid;

/// Encoded bytes of entities of one dataset that are kept; at more, all are forgotten.
const BYTES: usize = 32 << 20;
/// What an answer takes beside its entities, about.
const ANSWER: usize = 100;

/// Answers of one dataset.
#[derive(Default)]
pub(super) struct Kept {
    /// The generation and the end of the dataset that gave them.
    of: (Uuid, Seq),
    ids: HashMap<String, Option<Arc<Entity>>>,
    /// By the fingerprint of an index.
    joins: HashMap<String, Joins>,
    bytes: usize,
}

/// The answers of one index, by the hash of a value.
#[derive(Default)]
pub(super) struct Joins(FoldedMap<u128, Joined>);

/// The answers of one index, to which some are added.
pub(super) struct Keep<'k> {
    joins: &'k mut Joins,
    bytes: &'k mut usize,
}

struct Joined {
    /// Two values may share a hash.
    value: Value,
    entities: Vec<Arc<Entity>>,
}

impl Kept {
    /// Forgets everything that another state of the dataset gave.
    pub(super) fn meet(&mut self, head: &Head) {
        let of = (head.generation, head.next);
        if self.of != of || self.bytes > BYTES {
            *self = Kept {
                of,
                ..Kept::default()
            };
        }
    }

    /// The living entity of that id; `None` when nobody asked for it yet.
    pub(super) fn id(&self, id: &str) -> Option<&Option<Arc<Entity>>> {
        self.ids.get(id)
    }

    /// Counts the bytes of entities that are kept.
    pub(super) fn weigh(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Keeps the entity of an id.
    pub(super) fn keep_id(&mut self, id: &str, entity: Option<Arc<Entity>>) {
        self.bytes += id.len() + ANSWER;
        self.ids.insert(id.to_owned(), entity);
    }

    /// What is known of an index; `None` when nobody asked it yet.
    pub(super) fn joins(&self, index: &str) -> Option<&Joins> {
        self.joins.get(index)
    }

    /// The answers of an index, to add to them.
    pub(super) fn keep_joins(&mut self, index: &str) -> Keep<'_> {
        Keep {
            joins: self.joins.entry(index.to_owned()).or_default(),
            bytes: &mut self.bytes,
        }
    }
}

impl Keep<'_> {
    /// Keeps the entities of a value.
    pub(super) fn keep(&mut self, hash: u128, value: &Value, found: &[Arc<Entity>]) {
        *self.bytes += ANSWER + size_of_val(found);
        let joined = Joined {
            value: value.clone(),
            entities: found.to_vec(),
        };
        self.joins.0.insert(hash, joined);
    }
}

impl Joins {
    /// The entities that have a value; `None` when nobody asked for it yet.
    pub(super) fn of(&self, hash: u128, value: &Value) -> Option<&[Arc<Entity>]> {
        let joined = self.0.get(&hash)?;
        order::eq(&joined.value, value).then_some(&joined.entities[..])
    }
}
