//! Datasets that are given beside rules, for looks.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tahini_dtl::{By, Index, Lookup, LookupError, Need};
use tahini_entity::{Batch, Entity, order};

/// Datasets in memory to look things up in, by name.
#[derive(Default)]
pub struct Beside {
    datasets: HashMap<String, Dataset>,
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
    /// Gives a dataset. Of several entities with one `_id` the last one counts; those without, and
    /// deleted ones, are not there.
    pub fn give(&mut self, name: &str, entities: &Batch) {
        let mut dataset = Dataset::default();
        dataset.take(entities);
        self.datasets.insert(name.to_owned(), dataset);
    }

    /// These datasets, and `others` for whatever was not given.
    pub(crate) fn and<'a>(&'a self, others: &'a dyn Lookup) -> impl Lookup {
        Both {
            given: self,
            others,
        }
    }
}

impl Lookup for Beside {
    fn fetch(&self, needs: &[Need<'_>]) -> Result<Vec<Vec<Arc<Entity>>>, LookupError> {
        self.and(&Nothing).fetch(needs)
    }
}

/// What was not given is not there.
struct Nothing;

impl Lookup for Nothing {
    fn fetch(&self, needs: &[Need<'_>]) -> Result<Vec<Vec<Arc<Entity>>>, LookupError> {
        for need in needs {
            // Nobody knows earlier versions or the completeness of what was merely given.
            if matches!(need.by, By::Id(_) | By::Key(..)) {
                return Err(LookupError {
                    message: format!(
                        "expected the dataset {0:?} beside the rules, found none of that name; \
                         --dataset {0}=FILE gives it",
                        need.dataset
                    ),
                });
            }
        }
        Ok(vec![Vec::new(); needs.len()])
    }
}

struct Both<'a> {
    given: &'a Beside,
    others: &'a dyn Lookup,
}

impl Lookup for Both<'_> {
    fn fetch(&self, needs: &[Need<'_>]) -> Result<Vec<Vec<Arc<Entity>>>, LookupError> {
        let given = |need: &Need<'_>| self.given.datasets.get(need.dataset);
        let others: Vec<Need<'_>> = needs
            .iter()
            .filter(|need| given(need).is_none())
            .cloned()
            .collect();
        let mut answers = if others.is_empty() {
            Vec::new().into_iter()
        } else {
            self.others.fetch(&others)?.into_iter()
        };
        let answer = |need: &Need<'_>| match given(need) {
            Some(dataset) => dataset.answer(&need.by),
            None => answers.next().unwrap_or_default(),
        };
        Ok(needs.iter().map(answer).collect())
    }
}

impl Dataset {
    fn answer(&self, by: &By<'_>) -> Vec<Arc<Entity>> {
        match by {
            By::Id(id) => self.by_id.get(*id).cloned().into_iter().collect(),
            By::Key(index, value) => {
                let has = |entity: &Arc<Entity>| {
                    let mut keys = Vec::new();
                    index.keys(entity, &mut keys);
                    keys.iter().any(|key| order::eq(key, value))
                };
                let found = self.with_key(index, order::key(value));
                found.into_iter().filter(has).collect()
            }
            By::Previous { .. } | By::Completeness(_) => Vec::new(),
        }
    }

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

    fn run(beside: &dyn Lookup) -> Result<Vec<String>, String> {
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
        let mut beside = Beside::default();
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
        let mut beside = Beside::default();
        beside.give("orders", &Batch::new());
        let words = run(&beside).unwrap_err();
        assert!(words.contains("\"countries\""), "{words}");
    }

    #[test]
    fn what_was_not_given_is_looked_up_elsewhere() {
        let (mut some, mut others) = (Beside::default(), Beside::default());
        some.give("countries", &batch(&[r#"{"_id": "NO", "name": "Norway"}"#]));
        others.give(
            "countries",
            &batch(&[r#"{"_id": "NO", "name": "another"}"#]),
        );
        others.give("orders", &batch(&[r#"{"_id": "a", "customer": "c1"}"#]));
        let expected = r#"{"by-key":["a"],"by-id":"Norway","_id":"c1","_deleted":false}"#;
        assert_eq!(run(&some.and(&others)).unwrap(), [expected]);
    }
}
