//! The answer: a row a property.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use tahini_dtl::lineage::{Flow, Layout, Others, Spelling};

use super::{Lines, Parts, Place, decided_by_source, places, source_json, text};
use crate::Pipe;
use crate::hub::LivePipe;

/// How deep properties of properties are told.
const NESTED: usize = 5;

impl Lines<'_> {
    /// The lineage of what a pipe makes, of one property or of all.
    pub(super) fn of_pipe(&mut self, live: &LivePipe, property: Option<&str>) -> Json {
        let (Some(layout), Ok(pipe)) = (self.layout(live), live.usable()) else {
            return Json::Null;
        };
        let mut decided = places(pipe, &layout.filters);
        decided.extend(decided_by_source(pipe));
        let mut told = json!({
            "pipe": live.id(),
            "source": source_json(pipe),
            "sink": {"type": pipe.kind("sink"), "dataset": pipe.sink_dataset()},
            "decided-by": list(&decided),
        });
        let rows: Vec<Json> = match property {
            Some(property) => {
                let path: Vec<String> = split(property);
                let there = path.first().is_none_or(|name| layout.has(name));
                let row = self.row(live, pipe, &path, &layout.emitted(&path), 0);
                there.then_some(row).into_iter().collect()
            }
            None => {
                let names = self.names_of(live, &mut BTreeSet::new());
                let flows = names.into_iter().map(|name| {
                    let path = vec![name];
                    let flow = layout.property(&path);
                    (path, flow)
                });
                let flows: Vec<(Vec<String>, Flow)> = flows.collect();
                let rows = flows
                    .iter()
                    .map(|(path, flow)| self.row(live, pipe, path, flow, 0));
                rows.collect()
            }
        };
        told["properties"] = Json::Array(rows);
        if property.is_none() {
            let others = layout.others().iter();
            told["others"] = others
                .map(|others| self.others(live, pipe, others))
                .collect();
            let created: Vec<Json> = layout
                .created
                .iter()
                .map(|flow| self.created(live, pipe, flow))
                .collect();
            if !created.is_empty() {
                told["created"] = Json::Array(created);
            }
        }
        told["complete"] = json!(!self.is_cut());
        told
    }

    /// A property: what it is made of, what decides about it, and where that was first.
    fn row(
        &mut self,
        live: &LivePipe,
        pipe: &Pipe,
        path: &[String],
        flow: &Flow,
        nested: usize,
    ) -> Json {
        let parts = Parts::of(pipe, flow);
        let mut from = Vec::new();
        for (how, places) in [("taken", &parts.taken), ("computed", &parts.made)] {
            from.extend(places.iter().map(|place| with(place, how)));
        }
        let mut row = json!({
            "property": text(path),
            "from": from,
            "origins": self.origins(live, &parts),
        });
        if !parts.when.is_empty() {
            row["decided-by"] = list(&parts.when);
        }
        if !flow.beside.is_empty() {
            let beside = flow.beside.iter();
            row["depends-on"] = beside.map(ToString::to_string).collect();
        }
        if flow.is_constant() && flow.fields.is_none() {
            row["constant"] = json!(true);
        }
        if let Some(fields) = flow.fields.as_ref().filter(|_| nested < NESTED) {
            row["properties"] = self.inside(live, pipe, path, fields, nested);
        }
        row
    }

    fn inside(
        &mut self,
        live: &LivePipe,
        pipe: &Pipe,
        path: &[String],
        fields: &Layout,
        nested: usize,
    ) -> Json {
        let inner =
            |name: &str| -> Vec<String> { path.iter().cloned().chain([name.to_owned()]).collect() };
        let rows = fields
            .named()
            .map(|(name, flow)| self.row(live, pipe, &inner(name), flow, nested + 1));
        let mut rows: Vec<Json> = rows.collect();
        for others in fields.others() {
            let mut row = self.others(live, pipe, others);
            row["property"] = json!(text(&inner("*")));
            rows.push(row);
        }
        Json::Array(rows)
    }

    /// Properties that are taken over whatever they are called.
    fn others(&mut self, live: &LivePipe, pipe: &Pipe, others: &Others) -> Json {
        let parts = Parts::of(pipe, &others.of);
        let (include, exclude) = others.names();
        let mut row = json!({
            "names": include,
            "except": exclude,
            "from": parts.sources().map(Place::to_json).collect::<Vec<_>>(),
            "origins": self.origins(live, &parts),
        });
        match &others.spelling {
            Spelling::Same => {}
            Spelling::Qualified(namespace) => row["namespace-added"] = json!(namespace),
            Spelling::Stripped => row["namespaces-removed"] = json!(true),
            Spelling::Computed => {
                row["names"] = json!(["*"]);
                row["computed"] = json!(true);
            }
        }
        if !others.of.beside.is_empty() {
            let beside = others.of.beside.iter();
            row["depends-on"] = beside.map(ToString::to_string).collect();
        }
        row
    }

    /// Entities that are emitted beside the one that the rules make.
    fn created(&mut self, live: &LivePipe, pipe: &Pipe, flow: &Flow) -> Json {
        let mut row = self.row(live, pipe, &[], flow, 0);
        if let Some(row) = row.as_object_mut() {
            row.remove("property");
        }
        row
    }

    fn origins(&mut self, live: &LivePipe, parts: &Parts) -> Json {
        let mut all = BTreeSet::new();
        for place in parts.sources() {
            all.extend(self.firsts(live, place));
        }
        let hub = self.hub;
        all.iter().map(|first| first.to_json(hub)).collect()
    }
}

fn with(place: &Place, how: &str) -> Json {
    let mut told = place.to_json();
    told["how"] = json!(how);
    told
}

fn list(places: &BTreeSet<Place>) -> Json {
    places.iter().map(Place::to_json).collect()
}

/// The names of a property as somebody asks for it: with dots, and quotes around names that have
/// dots in them.
fn split(property: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = property;
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('\'') {
            Some(quoted) => {
                let (name, after) = quoted.split_once('\'').unwrap_or((quoted, ""));
                (name, after.strip_prefix('.').unwrap_or(after))
            }
            None => rest.split_once('.').unwrap_or((rest, "")),
        };
        names.push(name.to_owned());
        rest = after;
    }
    names
}
