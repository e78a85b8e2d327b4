//! What a merge source's configuration says: which entities are the same, and what becomes of them.
//!
//! Every equality joins two *sides*, an expression over one of the datasets each. Sides that
//! equalities lead from one to the other are one *set*, however they were written down: entities
//! with a value in common in a set are the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use tahini_dtl::{Index, JsonPath, Options, Problem, Segment, Severity};
use tahini_entity::{Record, Str, Value, order};

use super::leads::Leads;
use crate::indexes;

/// The most entities that become one where the configuration does not say.
pub(crate) const MAX_MERGED: u64 = 50_000;

/// A compiled merge source.
#[derive(Debug)]
pub(crate) struct Merging {
    /// The datasets, in the order of the configuration.
    pub(crate) datasets: Vec<String>,
    /// The distinct sides of all equalities.
    pub(crate) keys: Vec<Side>,
    pub(crate) identity: Identity,
    pub(crate) strategy: Strategy,
    /// `$merged` also has what datasets add to entities.
    pub(crate) internal: bool,
    /// The most entities that may become one.
    pub(crate) max_merged: usize,
    /// What `$ids` are qualified with; `None` where there are no namespaces.
    pub(crate) namespace: Option<Str>,
    /// A step back that a test took away.
    pub(crate) lost: Option<Back>,
}

/// What an incremental run goes back over from a change.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// From what an entity was before to whom it was the same as.
    Before,
    /// From those to others, and so on.
    Further,
    /// From an `_id` that was given out and means nothing any more to its deletion.
    Given,
}

/// An expression over one dataset.
#[derive(Debug)]
pub(crate) struct Side {
    /// The number of its set.
    pub(crate) set: u32,
    /// The place of its dataset.
    pub(crate) part: usize,
    pub(crate) index: Arc<Index>,
    /// What the store knows the index by.
    pub(crate) fingerprint: String,
    /// As it was written.
    pub(crate) expression: Json,
}

/// How a merged entity gets its `_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Composite,
    First,
}

/// How several entities become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    Union,
    Compact,
    List,
}

/// A value of a set: entities that have one in common are the same.
pub(crate) type Key = (u32, u128);

impl Merging {
    /// Compiles the source of a pipe whose DTL has these options.
    ///
    /// # Errors
    /// All problems at once, with paths from the source.
    pub(crate) fn compile(
        source: &Map<String, Json>,
        options: &Options,
    ) -> Result<Merging, Vec<Problem>> {
        let mut draft = Draft {
            options,
            ..Draft::new(options)
        };
        draft.datasets(source.get("datasets"));
        draft.equalities(source);
        let failed = |problem: &Problem| problem.severity == Severity::Error;
        if draft.problems.iter().any(failed) {
            return Err(draft.problems);
        }
        let keys = draft.settled();
        let text = |name: &str| source.get(name).and_then(Json::as_str);
        let most = source.get("max_merged").and_then(Json::as_u64);
        Ok(Merging {
            datasets: draft
                .named
                .into_iter()
                .map(|(dataset, _)| dataset)
                .collect(),
            keys,
            identity: match text("identity") {
                Some("first") => Identity::First,
                _ => Identity::Composite,
            },
            strategy: match text("strategy") {
                Some("compact") => Strategy::Compact,
                Some("list") => Strategy::List,
                _ => Strategy::Union,
            },
            internal: source.get("include_internal_properties") == Some(&Json::Bool(true)),
            max_merged: usize::try_from(most.unwrap_or(MAX_MERGED)).unwrap_or(usize::MAX),
            namespace: options
                .namespaced_identifiers
                .then(|| options.identity().into()),
            lost: None,
        })
    }

    /// What has to be the same for what was given out before to be understood.
    pub(crate) fn fingerprint(&self) -> String {
        let mut sides: Vec<String> = self.keys.iter().map(Side::told).collect();
        sides.sort();
        format!(
            "{:?} {:?} {}",
            self.identity,
            self.datasets,
            sides.join(", ")
        )
    }

    /// Appends the keys of an entity of dataset `part`, each once.
    pub(crate) fn keys_of(&self, part: usize, record: Record<'_>, out: &mut Vec<Key>) {
        let mut values = Vec::new();
        let first = out.len();
        for side in self.keys.iter().filter(|side| side.part == part) {
            values.clear();
            side.index.keys_of(record, &mut values);
            out.extend(values.iter().map(|value| (side.set, order::key(value))));
        }
        if out.len() - first > 1 {
            out[first..].sort_unstable();
            out.dedup();
        }
    }

    /// The side and the value by which an entity of `part` has a key.
    pub(crate) fn reason(
        &self,
        part: usize,
        record: Record<'_>,
        key: Key,
    ) -> Option<(&Side, Value)> {
        let of_it = |side: &&Side| side.part == part && side.set == key.0;
        self.keys.iter().filter(of_it).find_map(|side| {
            let mut values = Vec::new();
            side.index.keys_of(record, &mut values);
            let value = values
                .into_iter()
                .find(|value| order::key(value) == key.1)?;
            Some((side, value))
        })
    }
}

impl Side {
    /// Whether it is this property of an entity, and nothing made of it.
    pub(super) fn is_of(&self, property: &str) -> bool {
        let path = self
            .expression
            .as_str()
            .and_then(|text| text.split_once('.'));
        path.is_some_and(|(_, name)| name == property)
    }

    fn told(&self) -> String {
        format!("{}/{}/{}", self.set, self.part, self.fingerprint)
    }
}

/// A merge source that is being compiled.
struct Draft<'a> {
    options: &'a Options,
    problems: Vec<Problem>,
    /// Datasets and their aliases.
    named: Vec<(String, String)>,
    sides: Vec<Side>,
    /// The sides that are in a set with each other.
    leads: Leads,
}

impl<'a> Draft<'a> {
    fn new(options: &'a Options) -> Draft<'a> {
        Draft {
            options,
            problems: Vec::new(),
            named: Vec::new(),
            sides: Vec::new(),
            leads: Leads::default(),
        }
    }

    fn error(&mut self, path: &JsonPath, message: impl Into<String>) {
        self.problems.push(Problem {
            path: path.clone(),
            severity: Severity::Error,
            message: message.into(),
        });
    }

    fn datasets(&mut self, json: Option<&Json>) {
        let path = JsonPath::default().name("datasets");
        let list = json
            .and_then(Json::as_array)
            .filter(|list| !list.is_empty());
        let Some(list) = list else {
            return self.error(&path, "expected a list of datasets, each \"DATASET ALIAS\"");
        };
        for (at, item) in list.iter().enumerate() {
            let words: Vec<&str> = item.as_str().unwrap_or("").split_whitespace().collect();
            let path = path.at(at);
            let [dataset, alias] = words.as_slice() else {
                self.error(&path, format!("expected \"DATASET ALIAS\", found {item}"));
                continue;
            };
            if alias.starts_with('_') || alias.contains('.') {
                let words = "expected an alias without dots that does not start with _";
                self.error(&path, format!("{words}, found {alias:?}"));
            } else if self.named.iter().any(|(known, _)| known == dataset) {
                self.error(
                    &path,
                    format!("expected each dataset once, found {dataset:?} again"),
                );
            } else if self.named.iter().any(|(_, known)| known == alias) {
                self.error(
                    &path,
                    format!("expected each alias once, found {alias:?} again"),
                );
            } else {
                self.named
                    .push(((*dataset).to_owned(), (*alias).to_owned()));
            }
        }
    }

    fn equalities(&mut self, source: &Map<String, Json>) {
        let mut lists = |name: &str| -> Vec<(JsonPath, Vec<Json>)> {
            let path = JsonPath::default().name(name);
            match source.get(name) {
                None | Some(Json::Null) => Vec::new(),
                Some(Json::Array(list)) => {
                    let lists = list.iter().enumerate();
                    let lists = lists.map(|(at, one)| (path.at(at), one));
                    lists
                        .filter_map(|(path, one)| match one {
                            Json::Array(items) if !items.is_empty() => Some((path, items.clone())),
                            _ => {
                                self.error(&path, format!("expected a list, found {one}"));
                                None
                            }
                        })
                        .collect()
                }
                Some(other) => {
                    self.error(&path, format!("expected a list of lists, found {other}"));
                    Vec::new()
                }
            }
        };
        let (equality, sets) = (lists("equality"), lists("equality_sets"));
        for (path, items) in equality {
            match items.as_slice() {
                [eq, one, two] if eq == "eq" => {
                    let one = self.side(&path.at(1), one);
                    let two = self.side(&path.at(2), two);
                    self.join(one, two);
                }
                _ => self.error(
                    &path,
                    "expected [\"eq\", EXPRESSION, EXPRESSION], each about one of the datasets, \
                     for example [\"eq\", \"a.email\", \"b.mail\"]",
                ),
            }
        }
        for (path, items) in sets {
            let mut before = None;
            for (at, item) in items.iter().enumerate() {
                let side = self.side(&path.at(at), item);
                self.join(before, side);
                before = side.or(before);
            }
        }
    }

    /// The place of a side among all of them; `None` when it is wrong, which is noted.
    fn side(&mut self, path: &JsonPath, json: &Json) -> Option<usize> {
        let mut mentioned = BTreeSet::new();
        self.mentions(json, &mut mentioned);
        let mut mentioned = mentioned.into_iter();
        let (Some(part), None) = (mentioned.next(), mentioned.next()) else {
            let aliases: Vec<&str> = self.named.iter().map(|(_, alias)| alias.as_str()).collect();
            self.error(
                path,
                format!(
                    "expected an expression about the entities of one of the datasets ({}), found \
                     {json}",
                    aliases.join(", ")
                ),
            );
            return None;
        };
        let (dataset, alias) = &self.named[part];
        let others = self.named.iter().map(|(_, other)| other);
        let others: Vec<String> = others.filter(|other| *other != alias).cloned().collect();
        match Index::of_side(dataset, alias, &others, json, self.options) {
            Ok(index) => Some(self.take(part, index, json)),
            Err(found) => {
                let moved = found.into_iter().map(|problem| Problem {
                    path: JsonPath([path.0.as_slice(), &problem.path.0].concat()),
                    ..problem
                });
                self.problems.extend(moved);
                None
            }
        }
    }

    /// The side's place; one that is there already is the same one.
    fn take(&mut self, part: usize, index: Index, json: &Json) -> usize {
        let fingerprint = indexes::fingerprint(&index, None);
        let same = |side: &Side| side.part == part && side.fingerprint == fingerprint;
        if let Some(known) = self.sides.iter().position(same) {
            return known;
        }
        self.leads.add();
        self.sides.push(Side {
            set: 0,
            part,
            index: Arc::new(index),
            fingerprint,
            expression: json.clone(),
        });
        self.sides.len() - 1
    }

    /// The places of the datasets that an expression is about.
    fn mentions(&self, json: &Json, out: &mut BTreeSet<usize>) {
        match json {
            Json::String(text) => {
                let about = |alias: &str| {
                    let rest = text.strip_prefix(alias);
                    rest.is_some_and(|rest| rest.starts_with('.'))
                };
                out.extend(self.named.iter().position(|(_, alias)| about(alias)));
            }
            Json::Array(items) => items.iter().for_each(|item| self.mentions(item, out)),
            Json::Object(pairs) => pairs.values().for_each(|item| self.mentions(item, out)),
            _ => {}
        }
    }

    fn join(&mut self, one: Option<usize>, two: Option<usize>) {
        if let (Some(one), Some(two)) = (one, two) {
            self.leads.join(one, two);
        }
    }

    /// The sides with the numbers of their sets.
    fn settled(&mut self) -> Vec<Side> {
        let mut sides = std::mem::take(&mut self.sides);
        for (at, side) in sides.iter_mut().enumerate() {
            side.set = u32::try_from(self.leads.lead(at)).unwrap_or(u32::MAX);
        }
        sides
    }
}

/// The problems of the effective source of a pipe, in the words of configuration.
pub(crate) fn problems(pipe: &Map<String, Json>, options: &Options) -> Vec<crate::Problem> {
    let Some(Json::Object(source)) = pipe.get("source") else {
        return Vec::new();
    };
    if source.get("type").and_then(Json::as_str) != Some("merge") {
        return Vec::new();
    }
    let root = JsonPath::default().name("source");
    let mut all = Vec::new();
    let version = source.get("version").and_then(Json::as_i64).unwrap_or(1);
    if version == 1 {
        let path = root.name("version");
        let words = "expected \"version\": 2: version 1 of the merge source is deprecated, and what \
                     says 1, or nothing, runs as version 2 here";
        all.push(crate::Problem::warning(path, words));
    }
    let none = |name: &str| {
        let list = source.get(name).and_then(Json::as_array);
        list.is_none_or(Vec::is_empty)
    };
    if none("equality") && none("equality_sets") {
        let words = "expected \"equality_sets\", found none: no two entities are the same";
        all.push(crate::Problem::warning(root.clone(), words));
    }
    if let Err(found) = Merging::compile(source, options) {
        all.extend(found.into_iter().map(|problem| {
            let path: Vec<Segment> = [root.0.as_slice(), &problem.path.0].concat();
            match problem.severity {
                Severity::Error => crate::Problem::error(JsonPath(path), problem.message),
                Severity::Warning => crate::Problem::warning(JsonPath(path), problem.message),
            }
        }));
    }
    all
}
