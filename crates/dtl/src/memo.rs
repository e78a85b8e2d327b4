//! What a batch's evaluation looked up already, and what it still misses.

use ecow::EcoVec;
use tahini_entity::folded::FoldedMap;
use tahini_entity::{Str, Value, order};

use crate::lookup::{By, Lookup, LookupError, Need};
use crate::program::Program;

/// Entities found, as values.
pub(crate) type Found = EcoVec<Value>;

/// A key to look up, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Dataset (by its place in the program's reads) and `_id`.
    Id(u32, Str),
    /// Index (by its place in the program) and a value's hash.
    Join(u32, u128),
    /// `_id` and version of the source entity.
    Previous(Str, u64),
    /// Via dataset and dataset, by name.
    Completeness(Str, Str),
}

/// Answers by key, and the keys that were asked for in vain.
#[derive(Default)]
pub(crate) struct Memo {
    known: FoldedMap<Key, Found>,
    missing: FoldedMap<Key, Value>,
    missed: bool,
}

impl Memo {
    /// Starts the next source entity.
    pub(crate) fn begin(&mut self) {
        self.missed = false;
    }

    /// Whether the entity at work missed something: its result means nothing then.
    pub(crate) fn missed(&self) -> bool {
        self.missed
    }

    /// The answer for a key; when it is not known, it is noted for the next round.
    pub(crate) fn get(&mut self, key: Key, value: impl FnOnce() -> Value) -> Option<Found> {
        if let Some(found) = self.known.get(&key) {
            return Some(found.clone());
        }
        self.missed = true;
        self.missing.entry(key).or_insert_with(value);
        None
    }

    /// Entities of an index (by its place) that have `value` among their keys.
    pub(crate) fn join(&mut self, index: u32, value: &Value) -> Option<Found> {
        self.get(Key::Join(index, order::key(value)), || value.clone())
    }

    /// The version of the source entity that `_previous` points to.
    pub(crate) fn previous(&mut self, id: &str, version: u64) -> Option<Found> {
        self.get(Key::Previous(id.into(), version), || Value::Null)
    }

    /// Asks for everything that was missed, in one call.
    ///
    /// # Errors
    /// When a dataset cannot be read.
    pub(crate) fn fetch(
        &mut self,
        program: &Program,
        lookup: &dyn Lookup,
    ) -> Result<(), LookupError> {
        let missing: Vec<(Key, Value)> = self.missing.drain().collect();
        let mut needs = Vec::with_capacity(missing.len());
        for (key, value) in &missing {
            let dataset = |at: &u32| program.datasets[*at as usize].as_str();
            needs.push(match key {
                Key::Id(at, id) => Need {
                    dataset: dataset(at),
                    by: By::Id(id),
                },
                Key::Join(at, _) => {
                    let index = &program.indexes[*at as usize];
                    Need {
                        dataset: index.dataset(),
                        by: By::Key(index, value),
                    }
                }
                Key::Previous(id, version) => Need {
                    dataset: "",
                    by: By::Previous {
                        id,
                        version: *version,
                    },
                },
                Key::Completeness(via, of) => Need {
                    dataset: via,
                    by: By::Completeness(of),
                },
            });
        }
        let answers = lookup.fetch(&needs)?;
        if answers.len() != needs.len() {
            return Err(LookupError {
                message: format!(
                    "expected {} answers to a lookup, found {}",
                    needs.len(),
                    answers.len()
                ),
            });
        }
        drop(needs);
        for ((key, _), entities) in missing.into_iter().zip(answers) {
            let found = entities
                .iter()
                .map(|entity| Value::Dict(entity.to_dict()))
                .collect();
            self.known.insert(key, found);
        }
        Ok(())
    }
}
