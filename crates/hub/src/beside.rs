//! Datasets beside rules that no pipe runs: given with them, or read once from the store.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use tahini_dtl::{By, Index, Lookup, LookupError, Need};
use tahini_entity::{Batch, Entity, order};
use tahini_store::{Backend, Limit, View};

/// The most entities of one dataset that are read from the store for a look.
pub const MAX_READ: usize = 100_000;
/// The most encoded bytes of one dataset that are read from the store for a look.
pub const MAX_READ_BYTES: usize = 64 << 20;
/// Entities read from the store at a time.
const ROWS: usize = 1000;

/// Datasets in memory to look things up in, by name.
pub struct Beside {
    datasets: RefCell<HashMap<String, Rc<Dataset>>>,
    /// Where datasets that were not given are read from.
    store: Option<Arc<dyn Backend>>,
}

/// One dataset: its live entities in the order of `_id`, and the indexes that were asked for.
#[derive(Default)]
struct Dataset {
    by_id: BTreeMap<String, Arc<Entity>>,
    indexes: RefCell<HashMap<String, Keys>>,
}

/// The entities of an index, by the hash of a key.
type Keys = HashMap<u128, Vec<Arc<Entity>>>;

impl Beside {
    /// No datasets; a lookup in one is an error that says so.
    pub fn nothing() -> Beside {
        Beside {
            datasets: RefCell::default(),
            store: None,
        }
    }

    /// The datasets of a store, each read when it is first asked for; one that does not exist is
    /// empty.
    pub fn store(store: &Arc<dyn Backend>) -> Beside {
        Beside {
            store: Some(Arc::clone(store)),
            ..Beside::nothing()
        }
    }

    /// Gives a dataset. Of several entities with one `_id` the last one counts; those without, and
    /// deleted ones, are not there.
    pub fn give(&mut self, name: &str, entities: &Batch) {
        let mut dataset = Dataset::default();
        dataset.take(entities);
        self.datasets
            .borrow_mut()
            .insert(name.to_owned(), Rc::new(dataset));
    }

    fn dataset(&self, name: &str) -> Result<Rc<Dataset>, LookupError> {
        if let Some(known) = self.datasets.borrow().get(name) {
            return Ok(Rc::clone(known));
        }
        let dataset = match &self.store {
            Some(store) => Rc::new(read(store, name)?),
            None => {
                return Err(LookupError {
                    message: format!(
                        "expected the dataset \"{name}\" beside the rules, found none of that name"
                    ),
                });
            }
        };
        let mut known = self.datasets.borrow_mut();
        known.insert(name.to_owned(), Rc::clone(&dataset));
        Ok(dataset)
    }
}

impl Lookup for Beside {
    fn fetch(&self, needs: &[Need<'_>]) -> Result<Vec<Vec<Arc<Entity>>>, LookupError> {
        needs.iter().map(|need| self.answer(need)).collect()
    }
}

impl Beside {
    fn answer(&self, need: &Need<'_>) -> Result<Vec<Arc<Entity>>, LookupError> {
        Ok(match &need.by {
            By::Id(id) => {
                let dataset = self.dataset(need.dataset)?;
                dataset.by_id.get(*id).cloned().into_iter().collect()
            }
            By::Key(index, value) => {
                let dataset = self.dataset(need.dataset)?;
                let found = dataset.with_key(index, order::key(value));
                let has = |entity: &Arc<Entity>| {
                    let mut keys = Vec::new();
                    index.keys(entity, &mut keys);
                    keys.iter().any(|key| order::eq(key, value))
                };
                found.into_iter().filter(has).collect()
            }
            // Nobody knows earlier versions or the completeness of what was merely given.
            By::Previous { .. } | By::Completeness(_) => Vec::new(),
        })
    }
}

impl Dataset {
    fn take(&mut self, entities: &Batch) {
        for record in entities.iter() {
            let Some(id) = record.id else {
                continue;
            };
            if record.meta.deleted {
                self.by_id.remove(id);
            } else {
                self.by_id
                    .insert(id.to_owned(), Arc::new(record.to_entity()));
            }
        }
    }

    /// The entities that have a key with this hash, in the order of `_id`.
    fn with_key(&self, index: &Index, hash: u128) -> Vec<Arc<Entity>> {
        let mut indexes = self.indexes.borrow_mut();
        let keys = indexes
            .entry(index.fingerprint().to_owned())
            .or_insert_with(|| self.index(index));
        keys.get(&hash).cloned().unwrap_or_default()
    }

    fn index(&self, index: &Index) -> Keys {
        let mut all = Keys::new();
        let mut keys = Vec::new();
        for entity in self.by_id.values() {
            keys.clear();
            index.keys(entity, &mut keys);
            for key in &keys {
                all.entry(order::key(key))
                    .or_default()
                    .push(Arc::clone(entity));
            }
        }
        all
    }
}

/// The live entities of a dataset of the store.
fn read(store: &Arc<dyn Backend>, name: &str) -> Result<Dataset, LookupError> {
    let failed = |error: &dyn std::fmt::Display| LookupError {
        message: format!("the dataset \"{name}\" could not be read: {error}"),
    };
    let mut dataset = Dataset::default();
    let Some(found) = store.find(name).map_err(|error| failed(&error))? else {
        return Ok(dataset);
    };
    let snapshot = found.snapshot().map_err(|error| failed(&error))?;
    let (view, limit) = (
        View {
            history: false,
            deleted: false,
        },
        Limit {
            rows: ROWS,
            bytes: MAX_READ_BYTES / 16,
        },
    );
    let (mut after, mut batch, mut bytes) = (None, Batch::new(), 0);
    loop {
        batch.clear();
        after = snapshot
            .changes(after, view, limit, &mut batch)
            .map_err(|error| failed(&error))?;
        dataset.take(&batch);
        bytes += batch.iter().map(|record| record.body.len()).sum::<usize>();
        if dataset.by_id.len() > MAX_READ || bytes > MAX_READ_BYTES {
            return Err(LookupError {
                message: format!(
                    "expected the dataset \"{name}\" to hold at most {MAX_READ} entities and \
                     {MAX_READ_BYTES} bytes for a look, found more; give a part of it beside the \
                     rules"
                ),
            });
        }
        if after.is_none() {
            return Ok(dataset);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tahini_dtl::{Context, Options, compile};
    use tahini_entity::json::{Numbers, Parser};

    use super::*;

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::new();
        let mut parser = Parser::new(Numbers::default());
        for line in lines {
            parser.push_json(&mut batch, line.as_bytes()).unwrap();
        }
        batch
    }

    fn run(beside: &Beside) -> Result<Vec<String>, String> {
        let rules = json!({"default": [
            ["add", "by-key", ["hops", {"datasets": ["orders o"], "where": ["eq", "_S._id", "o.customer"],
                "return": "o._id"}]],
            ["add", "by-id", ["path", "name", ["lookup-entity", "countries", "_S.country"]]]
        ]});
        let program = compile(&rules, &Options::default()).unwrap();
        let input = batch(&[r#"{"_id": "c1", "country": "NO"}"#]);
        let mut out = Batch::new();
        let context = Context::new(jiff::Timestamp::UNIX_EPOCH, beside);
        program
            .transform(&input, &context, &mut out, &mut Vec::new())
            .map_err(|error| error.message)?;
        let mut lines = Vec::new();
        for record in out.iter() {
            let mut text = Vec::new();
            let fields = tahini_entity::json::Fields::SINK;
            tahini_entity::json::write_record(record, fields, &mut text);
            lines.push(String::from_utf8(text).unwrap());
        }
        Ok(lines)
    }

    #[test]
    fn given_datasets_are_found_by_key_and_by_id() {
        let mut beside = Beside::nothing();
        beside.give(
            "orders",
            &batch(&[
                r#"{"_id": "b", "customer": ["c0", "c1"]}"#,
                r#"{"_id": "a", "customer": "c1"}"#,
                r#"{"_id": "gone", "customer": "c1"}"#,
                r#"{"_id": "gone", "_deleted": true}"#,
                r#"{"_id": "other", "customer": "c2"}"#,
            ]),
        );
        beside.give("countries", &batch(&[r#"{"_id": "NO", "name": "Norway"}"#]));
        let expected = r#"{"by-key":["a","b"],"by-id":"Norway","_id":"c1","_deleted":false}"#;
        assert_eq!(run(&beside).unwrap(), [expected]);
    }

    #[test]
    fn what_was_not_given_is_asked_for_by_name() {
        let mut beside = Beside::nothing();
        beside.give("orders", &Batch::new());
        let words = run(&beside).unwrap_err();
        assert!(words.contains("\"countries\""), "{words}");
    }

    #[test]
    fn a_store_without_the_dataset_has_none_of_its_entities() {
        let store: Arc<dyn Backend> = Arc::new(tahini_store::Memory::new());
        let expected = r#"{"by-key":[],"by-id":null,"_id":"c1","_deleted":false}"#;
        assert_eq!(run(&Beside::store(&store)).unwrap(), [expected]);
    }
}
