//! What datasets do not agree on.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use tahini_entity::{Dict, Entity, Str, Value, order};

use crate::Failure;
use crate::config::Props;

/// How entities are compared.
pub(super) struct Comparison {
    whitelist: Option<BTreeSet<String>>,
    blacklist: BTreeSet<String>,
    lists_are_sets: bool,
    ignores_deletes: bool,
}

impl Comparison {
    pub(super) fn of(props: Props<'_>) -> Result<Comparison, Failure> {
        let names = |name: &str| -> Result<Option<BTreeSet<String>>, Failure> {
            let Some(list) = props.opt_list(name)? else {
                return Ok(None);
            };
            let names = list.iter().filter_map(Json::as_str).map(str::to_owned);
            Ok(Some(names.collect()))
        };
        Ok(Comparison {
            whitelist: names("whitelist")?,
            blacklist: names("blacklist")?.unwrap_or_default(),
            lists_are_sets: props.bool("treat_lists_as_sets", false)?,
            ignores_deletes: props.bool("ignore_deletes", false)?,
        })
    }

    /// Leaves out versions that count as none.
    pub(super) fn leave_out(&self, present: &mut Vec<(&str, &Entity)>) {
        present.retain(|(_, version)| !(self.ignores_deletes && version.deleted));
    }

    /// The properties that are not equal in all of `datasets` datasets, each with the values that
    /// the datasets have; `None` when there are none.
    pub(super) fn diff(&self, present: &[(&str, &Entity)], datasets: usize) -> Option<Dict> {
        let mut names: Vec<&Str> = Vec::new();
        for (_, version) in present {
            for (name, _) in version.properties.iter() {
                if self.compares(name) && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let mut diff = Dict::new();
        for name in names {
            let values = present.iter();
            let values: Vec<(&str, &Value)> = values
                .filter_map(|(dataset, version)| Some((*dataset, version.properties.get(name)?)))
                .collect();
            if values.len() < datasets || !self.are_equal(&values) {
                let values = values
                    .into_iter()
                    .map(|(name, value)| (name, value.clone()));
                diff.push_new(name.clone(), by_dataset(values));
            }
        }
        let deleted = present
            .iter()
            .filter(|(_, version)| version.deleted)
            .count();
        if deleted > 0 && deleted < datasets {
            let flags = present.iter();
            let flags = flags.map(|(name, version)| (*name, Value::Bool(version.deleted)));
            diff.push_new("_deleted", by_dataset(flags));
        }
        (!diff.is_empty()).then_some(diff)
    }

    fn compares(&self, name: &str) -> bool {
        let listed = self.whitelist.as_ref();
        listed.is_none_or(|listed| listed.contains(name)) && !self.blacklist.contains(name)
    }

    fn are_equal(&self, values: &[(&str, &Value)]) -> bool {
        let mut forms = values.iter().map(|(_, value)| match self.lists_are_sets {
            true => as_sets(value),
            false => (*value).clone(),
        });
        let Some(first) = forms.next() else {
            return true;
        };
        forms.all(|other| order::eq(&first, &other))
    }
}

fn by_dataset<'a>(values: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let mut dict = Dict::new();
    for (name, value) in values {
        dict.set(name, value);
    }
    Value::Dict(dict)
}

/// The value with its lists sorted and each item once, at any depth.
fn as_sets(value: &Value) -> Value {
    match value {
        Value::List(items) => {
            let mut items: Vec<Value> = items.iter().map(as_sets).collect();
            items.sort_by(order::compare);
            items.dedup_by(|a, b| order::eq(a, b));
            Value::List(items.into_iter().collect())
        }
        Value::Dict(dict) => {
            let mut sets = Dict::new();
            for (name, value) in dict.iter() {
                sets.push_new(name.clone(), as_sets(value));
            }
            Value::Dict(sets)
        }
        other => other.clone(),
    }
}
