//! A subset: the entities of a dataset that have one key in an index.

use serde_json::Value as Json;
use tahini_entity::{Entity, Value, json, order};

use crate::compile::compile_index;
use crate::error::{JsonPath, Problem, Segment, Severity};
use crate::{Index, Options};

/// A compiled subset expression, `["eq", INDEX, VALUE]`.
#[derive(Debug)]
pub struct Subset {
    index: Index,
    value: Value,
}

impl Subset {
    /// Compiles the expression over the entities (`_S`) of `dataset`.
    ///
    /// # Errors
    /// What is wrong with it, with paths from its own root.
    pub fn compile(dataset: &str, json: &Json, options: &Options) -> Result<Subset, Vec<Problem>> {
        let (index, value) = sides(json).ok_or_else(|| {
            let message = "expected [\"eq\", INDEX, VALUE], for example \
                           [\"eq\", \"_S.category\", \"tank\"], found something else";
            vec![wrong(Vec::new(), message)]
        })?;
        if !(value.is_string() || value.is_number() || value.is_boolean()) {
            let message = "expected a literal text, number or truth value, found something else; \
                           an identifier is written \"~:namespace:id\"";
            return Err(vec![wrong(vec![Segment::Position(2)], message)]);
        }
        Ok(Subset {
            index: compile_index(dataset, index, options)?,
            value: json::from_config(value, json::Numbers::default()),
        })
    }

    /// The index that the subset goes by.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The key of the subset's entities in that index.
    pub fn key(&self) -> u128 {
        order::key(&self.value)
    }

    /// Whether `entity` is in the subset: one of its keys equals the value, as in a join.
    pub fn holds(&self, entity: &Entity) -> bool {
        let mut keys = Vec::new();
        self.index.keys(entity, &mut keys);
        keys.iter().any(|key| order::eq(key, &self.value))
    }
}

/// The index expression and the value of a subset expression, if it has the shape of one.
pub fn sides(json: &Json) -> Option<(&Json, &Json)> {
    match json.as_array()?.as_slice() {
        [eq, index, value] if eq == "eq" => Some((index, value)),
        _ => None,
    }
}

fn wrong(path: Vec<Segment>, message: &str) -> Problem {
    Problem {
        path: JsonPath(path),
        severity: Severity::Error,
        message: message.to_owned(),
    }
}
