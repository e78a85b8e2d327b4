//! The ways of a pipe: from the datasets that its rules join back to its source.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value as Json};
use tahini_dtl::{Dependencies, Index, Program, Side, To};
use tahini_entity::{Record, Value, order};

use super::given::Given;
use super::members;
use crate::config::dtl_options;
use crate::{Pipe, indexes};

/// How changes of joined datasets lead back to the entities of a pipe's source.
#[derive(Debug, Default)]
pub struct Ways {
    pub(super) places: Vec<Place>,
    /// Tests take one place's way back away, to see that somebody notices: its number from 1, or 0.
    lost: AtomicUsize,
}

/// A dataset as one alias joins it.
#[derive(Debug)]
pub(super) struct Place {
    pub dataset: String,
    pub tracked: bool,
    pub back: Vec<Back>,
}

/// One step back.
#[derive(Debug)]
pub(super) struct Back {
    pub own: Side,
    pub to: Target,
    pub there: There,
}

/// Where a step leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A dataset of the source.
    Source(String),
    /// Another place.
    Place(usize),
}

/// How entities are found where a step leads.
#[derive(Clone, Debug)]
pub(super) enum There {
    /// By their ids.
    Id,
    /// By ids that are put together of those of several entities, as the source's nth dataset has
    /// them; what stands before them.
    PartOfId(usize, Option<String>),
    /// By an index; of what the transforms before make of an entity, where there are any.
    Index(Arc<Index>, Option<Arc<Given>>),
    /// By one of several items of tuples, each at its place.
    Items(Vec<(usize, There)>),
}

/// Whether a source can give its entities once more.
pub(crate) fn gives_again(source: &Json) -> bool {
    match source["type"].as_str() {
        Some("dataset" | "union_datasets" | "merge") => true,
        Some("merge_datasets") => source["strategy"].is_null() || source["strategy"] == "latest",
        _ => false,
    }
}

/// What a source puts before the ids of a dataset's entities.
fn prefix(pipe: &Pipe, dataset: &str) -> Option<String> {
    let prefixes =
        pipe.kind("source") == "union_datasets" && pipe.effective["source"]["prefix_ids"] != false;
    prefixes.then(|| format!("{dataset}:"))
}

impl Ways {
    /// The ways of a pipe with these rules; none where its source cannot give an entity once more.
    pub(crate) fn of(pipe: &Pipe, programs: &[(&Json, Option<Program>)]) -> Ways {
        let mut ways = Ways::default();
        let Some(map) = pipe.effective.as_object() else {
            return ways;
        };
        if !gives_again(&pipe.effective["source"]) {
            return ways;
        }
        let mut given = Given::first(map);
        for (at, (transform, program)) in programs.iter().enumerate() {
            if let Some(program) = program {
                ways.add(pipe, program.dependencies(), &given);
            }
            if at + 1 < programs.len() {
                given = given.then(map, transform);
            }
        }
        ways
    }

    fn add(&mut self, pipe: &Pipe, found: &Dependencies, given: &Given) {
        let base = self.places.len();
        let sources = pipe.source_datasets();
        for place in &found.places {
            let mut back = Vec::new();
            for step in &place.back {
                let one = |to, there| Back {
                    own: step.own.clone(),
                    to,
                    there,
                };
                match step.to {
                    To::Place(at) => {
                        back.push(one(Target::Place(base + at), There::of(&step.there, None)));
                    }
                    To::Source => {
                        back.extend(sources.iter().enumerate().filter_map(|(nth, source)| {
                            let given = given.prefixed(prefix(pipe, source));
                            let there = match pipe.kind("source") {
                                "merge" => members::way(&step.there, (nth, source), &given, pipe)?,
                                _ => There::of(&step.there, Some((*source, &given, pipe))),
                            };
                            Some(one(Target::Source((*source).to_owned()), there))
                        }))
                    }
                }
            }
            self.places.push(Place {
                dataset: place.dataset.clone(),
                tracked: place.tracked,
                back,
            });
        }
    }

    /// The datasets whose changes are followed, each once.
    pub fn datasets(&self) -> BTreeSet<&str> {
        let tracked = self.places.iter().filter(|place| place.tracked);
        let leads = tracked.filter(|place| !place.back.is_empty());
        leads.map(|place| place.dataset.as_str()).collect()
    }

    /// These, and those that lie between them and the source.
    pub(super) fn on_the_way(&self) -> BTreeSet<&str> {
        let leads = self.places.iter().filter(|place| !place.back.is_empty());
        leads.map(|place| place.dataset.as_str()).collect()
    }

    /// The indexes that lead back.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = (Arc<Index>, Option<Arc<Given>>)> {
        let steps = self.places.iter().flat_map(|place| &place.back);
        steps.flat_map(|step| match &step.there {
            There::Id | There::PartOfId(..) => Vec::new(),
            There::Index(index, given) => vec![(index.clone(), given.clone())],
            There::Items(items) => items
                .iter()
                .filter_map(|(_, there)| there.index())
                .collect(),
        })
    }

    /// The datasets of the source that ways lead to.
    pub(super) fn sources(&self) -> BTreeSet<&str> {
        let steps = self.places.iter().flat_map(|place| &place.back);
        let sources = steps.filter_map(|step| match &step.to {
            Target::Source(name) => Some(name.as_str()),
            Target::Place(_) => None,
        });
        sources.collect()
    }

    /// Takes the way back of one place away: what changes there is no longer noticed. Only tests
    /// want that; `false` where there is no such place.
    #[doc(hidden)]
    pub fn lose(&self, place: usize) -> bool {
        self.lost.store(place + 1, Ordering::SeqCst);
        place < self.places.len()
    }

    /// The steps back from a place.
    pub(super) fn back(&self, place: usize) -> &[Back] {
        match self.lost.load(Ordering::SeqCst) == place + 1 {
            true => &[],
            false => &self.places[place].back,
        }
    }
}

impl There {
    /// `source` is given where the step leads to a dataset of the source: its name, what the
    /// transforms before make of it, and the pipe.
    pub(super) fn of(side: &Side, source: Option<(&str, &Given, &Pipe)>) -> There {
        let Some((name, given, pipe)) = source else {
            return match side {
                Side::Id => There::Id,
                Side::Index(index) => There::Index(Arc::new(index.clone()), None),
            };
        };
        let there = |index: &Index| Arc::new(index.in_source(name));
        match side {
            Side::Id if given.is_plain() => There::Id,
            Side::Index(index) if given.is_plain() => There::Index(there(index), None),
            Side::Index(index) => There::Index(there(index), Some(Arc::new(given.clone()))),
            // The id that the transforms before gave it.
            Side::Id => {
                let nothing = Map::new();
                let map = pipe.effective.as_object().unwrap_or(&nothing);
                let id = Json::from("_S._id");
                match Index::compile(name, &id, &dtl_options(map, &nothing)) {
                    Ok(index) => There::Index(Arc::new(index), Some(Arc::new(given.clone()))),
                    Err(_) => There::Id,
                }
            }
        }
    }

    fn index(&self) -> Option<(Arc<Index>, Option<Arc<Given>>)> {
        match self {
            There::Index(index, given) => Some((index.clone(), given.clone())),
            There::Id | There::PartOfId(..) | There::Items(_) => None,
        }
    }

    /// What the store knows the index by; `None` where there is not one.
    pub(super) fn fingerprint(&self) -> Option<String> {
        let (index, given) = self.index()?;
        Some(indexes::fingerprint(&index, given.as_deref()))
    }

    /// The ids that a key stands for, where there is no index.
    pub(super) fn ids<'k>(&self, key: &'k str) -> Vec<&'k str> {
        match self {
            There::PartOfId(nth, prefix) => {
                let prefix = prefix.as_deref().unwrap_or_default();
                let key = key.strip_prefix(prefix);
                key.map(|key| members::ids(key, *nth)).unwrap_or_default()
            }
            There::Id | There::Index(..) | There::Items(_) => vec![key],
        }
    }

    /// Appends the keys of a version, as the index has them.
    pub(super) fn keys(&self, record: Record<'_>, out: &mut Vec<u128>) {
        match self {
            There::Id | There::PartOfId(..) => {
                out.extend(record.id.map(|id| order::key(&Value::string(id))));
            }
            There::Index(index, given) => indexes::keys(index, given.as_deref(), record, out),
            // Each is looked for by one of its items.
            There::Items(_) => {}
        }
    }
}
