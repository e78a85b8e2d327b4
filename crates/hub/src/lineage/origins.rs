//! Back through the pipes: where what stands in a dataset was first.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tahini_dtl::lineage::{ANY, Layout};

use super::{Lines, Parts, Place, layout, source_json};
use crate::hub::{Hub, LivePipe};

/// Places that one answer looks at, at most.
const STEPS: usize = 50_000;

/// Where a value was first, as far as anybody knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct First {
    place: Place,
    /// The pipe whose source gives it, or whose rules have it as a constant.
    pipe: Option<String>,
    /// How the way ends there.
    end: End,
    /// The pipes on the way, the last one first.
    via: Vec<String>,
}

/// How a way back ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// At a source outside.
    Outside,
    /// At a dataset that no pipe writes.
    Dataset,
    /// At rules: it is a constant, or the time, or chance.
    Rules,
    /// At something that cannot be looked into.
    Unknown,
    /// At a pipe that is on the way already.
    Cycle,
    /// It is longer than was asked for.
    Deeper,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            End::Outside => "source",
            End::Dataset => "dataset",
            End::Rules => "rules",
            End::Unknown => "unknown",
            End::Cycle => "cycle",
            End::Deeper => "deeper",
        }
    }
}

impl First {
    pub(super) fn to_json(&self, hub: &Hub) -> Json {
        let mut told = self.place.to_json();
        told["end"] = json!(self.end.name());
        told["via"] = json!(self.via);
        if let Some(pipe) = &self.pipe {
            told["pipe"] = json!(pipe);
            let live = hub.pipe(pipe).ok();
            if let Some(pipe) = live.as_ref().and_then(|live| live.pipe.as_ref().ok())
                && self.end == End::Outside
            {
                told["source"] = source_json(pipe);
            }
        }
        told
    }
}

impl<'a> Lines<'a> {
    pub(super) fn new(hub: &'a Hub, depth: usize) -> Lines<'a> {
        let mut writers: BTreeMap<String, Vec<Arc<LivePipe>>> = BTreeMap::new();
        for live in hub.pipes() {
            if let Some(dataset) = live.component.sink_dataset() {
                writers
                    .entry(dataset.to_owned())
                    .or_default()
                    .push(live.clone());
            }
        }
        Lines {
            hub,
            depth,
            layouts: Default::default(),
            writers,
            steps: 0,
        }
    }

    /// Whether the answer is not all there is.
    pub(super) fn is_cut(&self) -> bool {
        self.steps > STEPS
    }

    /// What a pipe makes.
    pub(super) fn layout(&mut self, live: &LivePipe) -> Option<Rc<Layout>> {
        let pipe = live.usable().ok()?;
        let known = self.layouts.entry(pipe.id.clone());
        Some(known.or_insert_with(|| Rc::new(layout(pipe))).clone())
    }

    /// The pipes that write a dataset.
    fn writers(&self, dataset: &str) -> Vec<Arc<LivePipe>> {
        self.writers.get(dataset).cloned().unwrap_or_default()
    }

    /// Where what stands at a place that `live` reads was first.
    pub(super) fn firsts(&mut self, live: &LivePipe, place: &Place) -> BTreeSet<First> {
        let mut all = BTreeSet::new();
        let mut via = vec![live.id().to_owned()];
        self.go_back(place, &mut via, &mut all);
        all
    }

    fn go_back(&mut self, place: &Place, via: &mut Vec<String>, all: &mut BTreeSet<First>) {
        self.steps += 1;
        let first = |end: End, pipe: Option<&str>, via: &[String]| First {
            place: place.clone(),
            pipe: pipe.map(str::to_owned),
            end,
            via: via.to_vec(),
        };
        let Some(dataset) = &place.dataset else {
            // The pipe that reads it is the last one on the way.
            let (pipe, before) = match via.split_last() {
                Some((pipe, before)) => (Some(pipe.as_str()), before),
                None => (None, &[][..]),
            };
            all.insert(first(End::Outside, pipe, before));
            return;
        };
        let writers = self.writers(dataset);
        if writers.is_empty() {
            all.insert(first(End::Dataset, None, via));
        }
        for live in writers {
            if via.iter().any(|id| id == live.id()) {
                all.insert(first(End::Cycle, Some(live.id()), via));
            } else if via.len() >= self.depth || self.is_cut() {
                all.insert(first(End::Deeper, Some(live.id()), via));
            } else {
                self.through(&live, place, via, all);
            }
        }
    }

    /// From a place in what a pipe writes to those that it comes from.
    fn through(
        &mut self,
        live: &LivePipe,
        place: &Place,
        via: &mut Vec<String>,
        all: &mut BTreeSet<First>,
    ) {
        let end = |end: End, via: &[String]| First {
            place: place.clone(),
            pipe: Some(live.id().to_owned()),
            end,
            via: via.to_vec(),
        };
        let (Some(layout), Ok(pipe)) = (self.layout(live), live.usable()) else {
            all.insert(end(End::Unknown, via));
            return;
        };
        let name = place.path.first().map(String::as_str);
        let flow = layout.emitted(&place.path);
        let parts = Parts::of(pipe, &flow);
        let nothing = parts.sources().next().is_none();
        if nothing && !name.is_none_or(|name| name == ANY || layout.has(name)) {
            // This pipe never writes it; another one does.
            return;
        }
        if flow.is_unknown() {
            all.insert(end(End::Unknown, via));
        } else if nothing {
            all.insert(end(End::Rules, via));
        }
        via.push(live.id().to_owned());
        for place in parts.sources() {
            self.go_back(place, via, all);
        }
        via.pop();
    }

    /// The names of properties that a dataset's entities may have, as far as rules write them.
    pub(super) fn names(
        &mut self,
        dataset: &str,
        asked: &mut BTreeSet<String>,
    ) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        if !asked.insert(dataset.to_owned()) || self.is_cut() {
            return names;
        }
        for live in self.writers(dataset) {
            names.extend(self.names_of(&live, asked));
        }
        names
    }

    /// The same of what a pipe makes: names that its rules write, names that they take over, and
    /// those that were seen.
    pub(super) fn names_of(
        &mut self,
        live: &LivePipe,
        asked: &mut BTreeSet<String>,
    ) -> BTreeSet<String> {
        self.steps += 1;
        let (Some(layout), Ok(pipe)) = (self.layout(live), live.usable()) else {
            return BTreeSet::new();
        };
        let mut names: BTreeSet<String> = layout.named().map(|(name, _)| name.to_owned()).collect();
        if layout.others().is_empty() {
            return names;
        }
        let mut found = BTreeSet::new();
        let whole = layout.others().iter().flat_map(|others| &others.of.taken);
        let whole: Vec<_> = whole.filter(|origin| origin.path.is_empty()).collect();
        for place in super::places(pipe, whole) {
            if let Some(dataset) = &place.dataset {
                found.extend(self.names(dataset, asked));
            }
        }
        if let Ok(kept) = self.hub.entity_types(live.id())
            && let Some(seen) = kept.sink
        {
            found.extend(seen.names().map(str::to_owned));
        }
        names.extend(found.into_iter().filter(|name| layout.has(name)));
        names
    }
}
