//! What a run has looked up already: a dataset that did not change since gives the same again.

use std::collections::HashMap;
use std::sync::Arc;

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
    /// By the fingerprint of an index, and the hash of a value.
    joins: HashMap<String, HashMap<u128, Joined>>,
    bytes: usize,
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

    /// The entities that have a value in an index; `None` when nobody asked yet.
    pub(super) fn join(&self, index: &str, hash: u128, value: &Value) -> Option<&[Arc<Entity>]> {
        let joined = self.joins.get(index)?.get(&hash)?;
        order::eq(&joined.value, value).then_some(&joined.entities[..])
    }

    /// Keeps the entities of a value.
    pub(super) fn keep_join(
        &mut self,
        index: &str,
        hash: u128,
        value: &Value,
        found: &[Arc<Entity>],
    ) {
        self.bytes += ANSWER + size_of_val(found);
        let joined = Joined {
            value: value.clone(),
            entities: found.to_vec(),
        };
        if !self.joins.contains_key(index) {
            self.joins.insert(index.to_owned(), HashMap::new());
        }
        if let Some(known) = self.joins.get_mut(index) {
            known.insert(hash, joined);
        }
    }
}
