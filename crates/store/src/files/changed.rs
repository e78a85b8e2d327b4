//! The ids that changed since the index was written, in memory: a hash table over keys that lie
//! in one piece. A first load puts every id in and asks for every id, so both have to be cheap.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::keys::key_order;
use crate::rule::Prior;

/// Index keys and what is the latest version under each; `None` where an id was removed.
#[derive(Default)]
pub(crate) struct Changed {
    /// All keys, one behind the other.
    keys: Vec<u8>,
    /// In the order in which the keys came.
    entries: Vec<Entry>,
    /// A power of two of them, at most three quarters in use: the upper half of a key's hash and
    /// the number of its entry, counted from 1; 0 is free.
    slots: Vec<u64>,
    seed: u64,
}

struct Entry {
    end: usize,
    latest: Option<Prior>,
}

/// The first size of the table.
const SLOTS: usize = 64;
const NUMBER: u64 = u32::MAX as u64;

impl Changed {
    /// What is known of a key; `None` when nothing is.
    pub fn get(&self, key: &[u8]) -> Option<Option<Prior>> {
        if self.slots.is_empty() {
            return None;
        }
        let found = self.find(self.hash(key), key).ok()?;
        Some(self.entries[found].latest)
    }

    /// Notes the latest version under a key.
    pub fn set(&mut self, key: &[u8], latest: Option<Prior>) {
        if (self.entries.len() + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let hash = self.hash(key);
        match self.find(hash, key) {
            Ok(entry) => self.entries[entry].latest = latest,
            Err(slot) => {
                self.keys.extend_from_slice(key);
                let end = self.keys.len();
                self.entries.push(Entry { end, latest });
                self.slots[slot] = hash & !NUMBER | self.entries.len() as u64;
            }
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries in the order of their keys.
    pub fn order(&self) -> Vec<u32> {
        key_order(self.len(), |at| self.key(at))
    }

    /// The keys of these entries, with what is known of each.
    pub fn rows<'a>(
        &'a self,
        order: &'a [u32],
    ) -> impl Iterator<Item = (&'a [u8], Option<Prior>)> + 'a {
        order.iter().map(|at| {
            let at = *at as usize;
            (self.key(at), self.entries[at].latest)
        })
    }

    fn key(&self, at: usize) -> &[u8] {
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.entries[before].end);
        &self.keys[start..self.entries[at].end]
    }

    fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }

    /// The entry of a key or, where there is none, the slot for it.
    fn find(&self, hash: u64, key: &[u8]) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut at = (hash >> 32) as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return Err(at);
            }
            let entry = (slot & NUMBER) as usize;
            if (slot ^ hash) & !NUMBER == 0 && self.key(entry - 1) == key {
                return Ok(entry - 1);
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        if self.slots.is_empty() {
            // Ids come from outside: nobody shall know which ones meet in the table.
            self.seed = uuid::Uuid::new_v4().as_u64_pair().0;
        }
        let count = (self.slots.len() * 2).max(SLOTS);
        let mask = count - 1;
        let before = std::mem::replace(&mut self.slots, vec![0; count]);
        for slot in before.into_iter().filter(|slot| *slot != 0) {
            let mut at = (slot >> 32) as usize & mask;
            while self.slots[at] != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Against an ordered map: the same keys, in order, with what came last.
    #[test]
    fn it_holds_what_a_map_holds() {
        let (mut changed, mut map) = (Changed::default(), BTreeMap::new());
        assert_eq!(changed.get(b"0"), None);
        for step in 0..5_000u64 {
            let number = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
            let key = match number % 3 {
                0 => format!("person:{number}"),
                1 => number.to_string(),
                _ => format!("person:a-long-beginning-that-many-share:{number:x}"),
            };
            let latest = (number % 5 != 0).then_some(Prior {
                seq: step,
                hash: number,
                deleted: step % 2 == 0,
            });
            changed.set(key.as_bytes(), latest);
            map.insert(key.into_bytes(), latest);
            assert_eq!(changed.len(), map.len());
        }
        assert!(map.len() > 1_000);
        let sorted = changed.order();
        let sorted = changed
            .rows(&sorted)
            .map(|(key, latest)| (key.to_vec(), latest));
        assert!(sorted.eq(map.clone()));
        for (key, latest) in &map {
            assert_eq!(changed.get(key), Some(*latest));
        }
        assert_eq!(changed.get(b"none"), None);
        assert_eq!(changed.get(b""), None);
    }
}
