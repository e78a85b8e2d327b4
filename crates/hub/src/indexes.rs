//! Indexes of datasets by expressions: which ones the configuration wants, and for whom.
//!
//! A dataset sink names them among its `indexes`, a `subset` wants the one it goes by, and so does
//! every join of a rule. Equal expressions are one index, whoever wants it. The store builds and
//! keeps them; one that no pipe wants any more is removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use tahini_dtl::{Index, Program, subset};
use tahini_entity::{Record, Value, order};
use tahini_store::{Declared, IndexDef};

use crate::config::dtl_options;
use crate::dependency::{Given, Ways};
use crate::merge::Merging;
use crate::{Hub, Pipe};

/// An index that pipes want.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The index.
    pub index: Arc<Index>,
    /// What the store knows it by.
    pub fingerprint: String,
    /// What stands before the rules that join by it, where it goes by what that makes of entities.
    given: Option<Arc<Given>>,
    /// The pipes that want it, by id.
    pub pipes: Vec<String>,
}

/// What the store knows an index by. Keys are what the functions of the language make of entities,
/// so that another version of the program builds them anew.
pub(crate) fn fingerprint(index: &Index, given: Option<&Given>) -> String {
    let behind = given.map(|given| format!(" behind {}", given.fingerprint()));
    let (version, behind) = (env!("CARGO_PKG_VERSION"), behind.unwrap_or_default());
    format!("{version} {}{behind}", index.fingerprint())
}

/// Appends the keys of a version in an index.
pub(crate) fn keys(index: &Index, given: Option<&Given>, record: Record<'_>, out: &mut Vec<u128>) {
    out.extend(values(index, given, record).iter().map(order::key));
}

/// The values of a version that an index has keys of.
pub(crate) fn values(index: &Index, given: Option<&Given>, record: Record<'_>) -> Vec<Value> {
    let mut values = Vec::new();
    match given {
        None => index.keys_of(record, &mut values),
        Some(given) => {
            for entity in given.entities(record) {
                index.keys(&entity, &mut values);
            }
        }
    }
    values
}

/// The expressions that a dataset sink's `indexes` names: one list, or `"$ids"`.
pub(crate) fn named(indexes: &Json) -> Vec<Json> {
    let one = |json: &Json| match json == "$ids" {
        true => json!("_S.$ids"),
        false => json.clone(),
    };
    match indexes {
        Json::Array(list) => list.iter().map(one).collect(),
        Json::Null => Vec::new(),
        other => vec![one(other)],
    }
}

/// The indexes that a pipe wants of the datasets that it reads, joins and writes. What does not
/// compile wants none: configuration tells of that.
pub(crate) fn of_pipe(
    pipe: &Pipe,
    ways: &Ways,
    programs: &[(&Json, Option<Program>)],
) -> Vec<Arc<Index>> {
    let Some(map) = pipe.effective.as_object() else {
        return Vec::new();
    };
    let options = dtl_options(map, &Map::new());
    let compiled = |dataset: &str, json: &Json| Index::compile(dataset, json, &options).ok();
    let mut indexes = Vec::new();
    if let Some(dataset) = pipe.sink_dataset() {
        let named = named(&pipe.effective["sink"]["indexes"]);
        indexes.extend(named.iter().filter_map(|json| compiled(dataset, json)));
    }
    let source = &pipe.effective["source"];
    if let (Some(dataset), Some((index, _))) =
        (source["dataset"].as_str(), subset::sides(&source["subset"]))
    {
        indexes.extend(compiled(dataset, index));
    }
    if source["type"] == "merge"
        && let Some(source) = source.as_object()
        && let Ok(merging) = Merging::compile(source, &options)
    {
        let keys = merging.keys.into_iter();
        indexes.extend(keys.filter_map(|key| Arc::into_inner(key.index)));
    }
    let programs = programs.iter().filter_map(|(_, program)| program.as_ref());
    indexes.extend(programs.flat_map(Program::indexes).cloned());
    let back = ways.indexes().filter(|(_, given)| given.is_none());
    let back = back.map(|(index, _)| index);
    indexes.into_iter().map(Arc::new).chain(back).collect()
}

/// Everything that the pipes of the running configuration want, by dataset.
pub fn wanted(hub: &Hub) -> BTreeMap<String, Vec<Wanted>> {
    let mut all: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for live in hub.pipes() {
        let plain = live.indexes.iter().map(|index| (index.clone(), None));
        let behind = live.ways.indexes().filter(|(_, given)| given.is_some());
        for (index, given) in plain.chain(behind) {
            let known = all.entry(index.dataset().to_owned()).or_default();
            let fingerprint = fingerprint(&index, given.as_deref());
            let same = |wanted: &&mut Wanted| wanted.fingerprint == fingerprint;
            let pipe = live.id().to_owned();
            match known.iter_mut().find(same) {
                Some(wanted) if wanted.pipes.last() == Some(&pipe) => {}
                Some(wanted) => wanted.pipes.push(pipe),
                None => known.push(Wanted {
                    index,
                    fingerprint,
                    given,
                    pipes: vec![pipe],
                }),
            }
        }
    }
    all
}

/// Has the store keep what the pipes want, and nothing else.
pub(crate) fn declare(hub: &Hub) {
    let wanted = wanted(hub).into_iter();
    let defs = wanted.map(|(dataset, wanted)| {
        let defs = wanted.iter().map(def);
        (dataset, defs.collect())
    });
    hub.world.store.declare(defs.collect::<Declared>());
}

fn def(wanted: &Wanted) -> IndexDef {
    let (index, given) = (wanted.index.clone(), wanted.given.clone());
    IndexDef {
        fingerprint: wanted.fingerprint.clone(),
        keys: Arc::new(move |record, out| keys(&index, given.as_deref(), record, out)),
    }
}
