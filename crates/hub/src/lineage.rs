//! Where each property of what a pipe makes comes from, through its rules and back through the
//! pipes before it.
//!
//! All of it is read from the configuration (see `tahini_dtl::lineage`); the inferred entity types
//! give names where rules take properties over whatever they are called, and nothing else. What a
//! transform makes that cannot be looked into is told as unknown.

mod origins;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use tahini_dtl::Options;
use tahini_dtl::lineage::{ANY, Flow, Layout, Of, Origin, lineage};

use crate::Pipe;
use crate::config::{dtl_options, keeps_places, trigger_on, without_secrets};
use crate::hub::{Hub, LivePipe, Refusal};

/// Where a property can be found: in a dataset, or in what a source outside gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The dataset; `None` for what a source outside gives.
    pub dataset: Option<String>,
    /// The names on the way to it; without any, the entity as a whole.
    pub path: Vec<String>,
}

/// What is asked of a pipe's lineage.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Only this property, with dots between names; all without one.
    pub property: Option<&'a str>,
    /// How many pipes to go back at most.
    pub depth: usize,
}

/// Pipes that are gone back unless somebody says otherwise.
pub const DEPTH: usize = 64;

/// The lineage of a pipe's output as JSON.
///
/// # Errors
/// When there is no such pipe, or its configuration has errors.
pub fn told(hub: &Hub, id: &str, ask: Ask<'_>) -> Result<Json, Refusal> {
    let live = hub.pipe(id)?;
    live.usable()?;
    Ok(Lines::new(hub, ask.depth).of_pipe(&live, ask.property))
}

/// The lineage of pipes, as far as somebody asked.
pub(crate) struct Lines<'a> {
    hub: &'a Hub,
    depth: usize,
    /// What pipes make, in terms of what their sources give.
    layouts: BTreeMap<String, Rc<Layout>>,
    /// The pipes that write each dataset.
    writers: BTreeMap<String, Vec<Arc<LivePipe>>>,
    /// Places that were looked at for the answer.
    steps: usize,
}

/// What a pipe makes, in terms of what its source gives.
pub fn layout(pipe: &Pipe) -> Layout {
    let nothing = Map::new();
    let map = pipe.effective.as_object().unwrap_or(&nothing);
    let mut layout = Layout::of_source();
    if pipe.effective["add_namespaces"] == true {
        layout = layout.with_namespaces(&dtl_options(map, &nothing));
    }
    for transform in pipe.transforms() {
        let own = transform.as_object().unwrap_or(&nothing);
        layout = match transform["type"].as_str() {
            Some("dtl") if transform["rules"].is_object() => {
                let options = Options {
                    trigger_on: trigger_on(own).ok().flatten(),
                    ..dtl_options(map, own)
                };
                lineage(&without_secrets(&transform["rules"]), &options, &layout)
            }
            // It lets entities through, or does not.
            Some("json_schema") => layout,
            _ => layout.unknown(),
        };
    }
    match pipe.effective["remove_namespaces"] == true {
        true => layout.without_namespaces(),
        false => layout,
    }
}

/// Where what a pipe's source gives under a path stands.
fn behind_source(pipe: &Pipe, path: &[String]) -> Vec<Place> {
    let source = &pipe.effective["source"];
    let kind = pipe.kind("source");
    let datasets: Vec<&str> = pipe.source_datasets();
    if !(keeps_places(kind) || kind == "diff_datasets") || datasets.is_empty() {
        return vec![Place {
            dataset: None,
            path: path.to_vec(),
        }];
    }
    let at = |dataset: &str, path: &[String]| Place {
        dataset: Some(dataset.to_owned()),
        path: path.to_vec(),
    };
    let first = path.first().map(String::as_str);
    if kind == "diff_datasets" || (kind == "merge_datasets" && source["strategy"] == "all") {
        // Each dataset's version stands under the dataset's id.
        let own = datasets.iter().filter(|name| Some(**name) == first);
        let own: Vec<Place> = own.map(|name| at(name, &path[1..])).collect();
        return match own.is_empty() {
            true => datasets.iter().map(|name| at(name, &any(path))).collect(),
            false => own,
        };
    }
    if kind == "merge" {
        return match first {
            Some("$ids" | "$replaced") => {
                let id = ["_id".to_owned()];
                datasets.iter().map(|name| at(name, &id)).collect()
            }
            Some("$merged") => datasets.iter().map(|name| at(name, &path[1..])).collect(),
            _ => datasets.iter().map(|name| at(name, path)).collect(),
        };
    }
    datasets.iter().map(|name| at(name, path)).collect()
}

/// A property that cannot be told, or the entity where that was asked for.
fn any(path: &[String]) -> Vec<String> {
    match path.is_empty() {
        true => Vec::new(),
        false => vec![ANY.to_owned()],
    }
}

/// What decides which entities a source gives: the values that a merge goes by, and those of a
/// subset.
fn decided_by_source(pipe: &Pipe) -> BTreeSet<Place> {
    let source = &pipe.effective["source"];
    let mut all = BTreeSet::new();
    let named = source["datasets"].as_array().into_iter().flatten();
    let named = named.filter_map(Json::as_str);
    let aliases: Vec<(&str, &str)> = named.filter_map(|name| name.rsplit_once(' ')).collect();
    if pipe.kind("source") == "merge" {
        for rules in ["equality", "equality_sets"] {
            mentioned(&source[rules], &aliases, &mut all);
        }
    }
    if let (Some(dataset), Some((index, _))) = (
        source["dataset"].as_str(),
        tahini_dtl::subset::sides(&source["subset"]),
    ) {
        mentioned(index, &[(dataset, "_S")], &mut all);
    }
    all
}

/// The properties that an expression mentions, by the aliases of datasets.
fn mentioned(json: &Json, aliases: &[(&str, &str)], all: &mut BTreeSet<Place>) {
    match json {
        Json::String(text) => {
            let Some((head, tail)) = text.split_once('.') else {
                return;
            };
            let own = aliases.iter().filter(|(_, alias)| *alias == head);
            for (dataset, _) in own {
                let path = tail.split('.').filter(|name| !name.is_empty());
                all.insert(Place {
                    dataset: Some((*dataset).to_owned()),
                    path: path.map(str::to_owned).collect(),
                });
            }
        }
        Json::Array(items) => items.iter().for_each(|item| mentioned(item, aliases, all)),
        Json::Object(map) => map.values().for_each(|item| mentioned(item, aliases, all)),
        _ => {}
    }
}

/// The places of some origins, as a pipe sees them.
fn places<'o>(pipe: &Pipe, origins: impl IntoIterator<Item = &'o Origin>) -> BTreeSet<Place> {
    let mut all = BTreeSet::new();
    for origin in origins {
        match &origin.of {
            Of::Dataset(name) => {
                all.insert(Place {
                    dataset: Some(name.clone()),
                    path: origin.path.clone(),
                });
            }
            Of::Source => all.extend(behind_source(pipe, &origin.path)),
        }
    }
    all
}

/// The source of a pipe, as far as it tells where entities come from.
fn source_json(pipe: &Pipe) -> Json {
    let mut told = json!({"type": pipe.kind("source")});
    let datasets = pipe.source_datasets();
    if !datasets.is_empty() {
        told["datasets"] = json!(datasets);
    }
    if let Some(system) = pipe.effective["source"]["system"].as_str() {
        told["system"] = json!(system);
    }
    told
}

/// Names on the way to a property as a path of the language; `*` for the entity as a whole.
fn text(path: &[String]) -> String {
    if path.is_empty() {
        return ANY.to_owned();
    }
    let quoted = path.iter().map(|name| match name.contains('.') {
        true => format!("'{}'", name.replace('\'', "''")),
        false => name.clone(),
    });
    quoted.collect::<Vec<_>>().join(".")
}

impl Place {
    fn to_json(&self) -> Json {
        match &self.dataset {
            Some(dataset) => json!({"dataset": dataset, "property": text(&self.path)}),
            None => json!({"property": text(&self.path)}),
        }
    }
}

/// What a property is made of, and what decides about it.
struct Parts {
    taken: BTreeSet<Place>,
    made: BTreeSet<Place>,
    when: BTreeSet<Place>,
}

impl Parts {
    fn of(pipe: &Pipe, flow: &Flow) -> Parts {
        let inside: BTreeSet<Origin> = flow.origins();
        let taken = places(pipe, &flow.taken);
        let made = places(pipe, inside.difference(&flow.taken));
        let when = places(pipe, &flow.when);
        Parts {
            made: made.difference(&taken).cloned().collect(),
            taken,
            when,
        }
    }

    fn sources(&self) -> impl Iterator<Item = &Place> {
        self.taken.iter().chain(&self.made)
    }
}
