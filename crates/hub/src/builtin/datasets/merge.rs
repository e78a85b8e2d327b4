//! The `merge_datasets` source: several datasets in the order of time, each `_id` once; and
//! `diff_datasets`, which gives what they do not agree on.

use std::collections::HashMap;

use tahini_entity::{Batch, Dict, Entity, Offset, Record, Str, Value};
use tahini_store::{Seq, Snapshot, StateWrite, View};

use super::diff::Comparison;
use super::{
    CONTINUATION, DATASETS, IF_SOURCE_EMPTY, IGNORE_MISSING, INITIAL, Inputs, REQUIRE, SIGNALS,
};
use crate::config::{Kind, Property};
use crate::places::seq_of;
use crate::registry::SourceDef;
use crate::source::{From, Step};
use crate::{Ctx, Failure, Source};

pub(in crate::builtin) const MERGE: SourceDef = SourceDef {
    name: "merge_datasets",
    summary: "Reads the changes of several datasets in the order of `_ts`; of entities with one \
              `_id` only the latest, or all together as one.",
    properties: &[
        DATASETS,
        INITIAL,
        IGNORE_MISSING,
        REQUIRE,
        Property::new(
            "strategy",
            Kind::Enum(&["latest", "all"]),
            "`latest` gives the newest version among the datasets; `all` gives one entity that \
             has each dataset's version under the dataset's id.",
        )
        .or("\"latest\""),
        SIGNALS,
        IF_SOURCE_EMPTY,
    ],
    continuation: CONTINUATION,
    open: open_merge,
};

pub(in crate::builtin) const DIFF: SourceDef = SourceDef {
    name: "diff_datasets",
    summary: "Deprecated. Reads several datasets as `merge_datasets` does with `all`, and gives \
              the entities that are not equal in all of them, with a `$diff`.",
    properties: &[
        DATASETS,
        INITIAL,
        IGNORE_MISSING,
        REQUIRE,
        Property::new(
            "whitelist",
            Kind::Strings,
            "The only properties to compare.",
        ),
        Property::new("blacklist", Kind::Strings, "Properties not to compare."),
        Property::new(
            "treat_lists_as_sets",
            Kind::Boolean,
            "The order of lists and what they hold twice mean nothing, at any depth.",
        )
        .or("false"),
        Property::new(
            "ignore_deletes",
            Kind::Boolean,
            "A deleted entity is the same as none.",
        )
        .or("false"),
        SIGNALS,
        IF_SOURCE_EMPTY,
    ],
    continuation: CONTINUATION,
    open: open_diff,
};

/// Versions that are read of one dataset at a time.
const AHEAD: usize = 1_000;
const LATEST: View = View {
    history: false,
    deleted: true,
};

enum Strategy {
    Latest,
    All,
    Diff(Comparison),
}

struct Merge {
    inputs: Inputs,
    cursors: Vec<Cursor>,
    strategy: Strategy,
    /// Everything is read: what is equal was never given, and need not be taken back.
    full: bool,
}

/// What was read of a dataset and not given yet.
#[derive(Default)]
struct Cursor {
    batch: Batch,
    at: usize,
    done: bool,
}

fn open_merge(ctx: &Ctx<'_>, from: From) -> Result<Box<dyn Source>, Failure> {
    let strategy = match ctx.props.opt_str("strategy")? {
        Some("all") => Strategy::All,
        _ => Strategy::Latest,
    };
    open(ctx, from, strategy)
}

fn open_diff(ctx: &Ctx<'_>, from: From) -> Result<Box<dyn Source>, Failure> {
    open(ctx, from, Strategy::Diff(Comparison::of(ctx.props)?))
}

fn open(ctx: &Ctx<'_>, from: From, strategy: Strategy) -> Result<Box<dyn Source>, Failure> {
    let full = from.since.is_none();
    let inputs = Inputs::open(ctx, from)?;
    Ok(Box::new(Merge {
        cursors: inputs.all.iter().map(|_| Cursor::default()).collect(),
        inputs,
        strategy,
        full,
    }))
}

/// The latest versions of some ids in one dataset.
type Versions = HashMap<String, Entity>;

impl Merge {
    /// Takes the oldest changes of all datasets, with the dataset that each came from.
    fn take(&mut self, limit: usize) -> Result<(Batch, Vec<usize>), Failure> {
        let (mut taken, mut origins) = (Batch::new(), Vec::new());
        while taken.len() < limit {
            let mut oldest: Option<(i64, usize)> = None;
            for at in 0..self.cursors.len() {
                if let Some(ts) = self.ts_ahead(at)?
                    && oldest.is_none_or(|(known, _)| ts < known)
                {
                    oldest = Some((ts, at));
                }
            }
            let Some((_, at)) = oldest else { break };
            let cursor = &mut self.cursors[at];
            let record = cursor.batch.get(cursor.at);
            cursor.at += 1;
            self.inputs.all[at].after = seq_of(&record);
            let mut meta = record.meta.clone();
            meta.updated = self.inputs.place();
            meta.previous = None;
            taken.push_encoded(record.id, record.shape, record.body, meta);
            origins.push(at);
        }
        Ok((taken, origins))
    }

    /// The `_ts` of the next change of a dataset; `None` at its end.
    fn ts_ahead(&mut self, at: usize) -> Result<Option<i64>, Failure> {
        let cursor = &mut self.cursors[at];
        while cursor.at == cursor.batch.len() {
            if cursor.done {
                return Ok(None);
            }
            cursor.batch.clear();
            cursor.at = 0;
            cursor.done = !self.inputs.all[at].read(LATEST, AHEAD, &mut cursor.batch)?;
        }
        Ok(Some(cursor.batch.get(cursor.at).meta.ts))
    }

    /// The latest versions in every dataset of the ids that came.
    fn versions(&self, taken: &Batch) -> Result<Vec<Versions>, Failure> {
        let mut ids: Vec<&str> = taken.iter().filter_map(|record| record.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut all = Vec::new();
        for input in &self.inputs.all {
            let mut latest = Batch::new();
            if let Some(snapshot) = &input.snapshot {
                snapshot.latest(&ids, &mut latest)?;
            }
            let entities = latest.iter().map(|record| {
                let id = record.id.unwrap_or_default().to_owned();
                (id, record.to_entity())
            });
            all.push(entities.collect());
        }
        Ok(all)
    }

    fn give(
        &self,
        record: Record<'_>,
        versions: &[Versions],
        out: &mut Batch,
    ) -> Result<(), Failure> {
        let id = record.id.unwrap_or_default();
        let named = self.inputs.all.iter().zip(versions);
        let named = named.filter_map(|(input, found)| Some((input.name.as_str(), found.get(id)?)));
        let mut present: Vec<(&str, &Entity)> = named.collect();
        let mut properties = Dict::new();
        let mut equal = false;
        if let Strategy::Diff(comparison) = &self.strategy {
            comparison.leave_out(&mut present);
            match comparison.diff(&present, self.inputs.all.len()) {
                Some(diff) => properties.push_new("$diff", Value::Dict(diff)),
                // It may have been given when it was not equal.
                None if self.full => return Ok(()),
                None => equal = true,
            }
        }
        for (name, version) in &present {
            properties.set(*name, Value::Dict(version.to_dict()));
        }
        let entity = Entity {
            id: Some(Str::from(id)),
            deleted: equal || present.iter().all(|(_, version)| version.deleted),
            updated: record.meta.updated.clone(),
            ts: Some(record.meta.ts),
            properties,
            ..Entity::default()
        };
        out.push_entity(&entity)
            .map_err(|error| Failure::entity(error.to_string()).with_entity(entity))
    }
}

/// Whether another dataset has a newer version than that of dataset `at`; of versions of one
/// moment, that of the later dataset counts.
fn is_superseded(record: Record<'_>, at: usize, versions: &[Versions]) -> bool {
    let id = record.id.unwrap_or_default();
    versions.iter().enumerate().any(|(other, found)| {
        let ts = found.get(id).and_then(|version| version.ts);
        other != at && ts.is_some_and(|ts| (ts, other) > (record.meta.ts, at))
    })
}

impl Source for Merge {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let (taken, origins) = self.take(limit)?;
        if taken.is_empty() {
            self.inputs.all.iter_mut().for_each(super::Input::exhaust);
            return Ok(Step::End);
        }
        let versions = self.versions(&taken)?;
        for (record, at) in taken.iter().zip(origins) {
            if is_superseded(record, at, &versions) {
                continue;
            }
            match self.strategy {
                Strategy::Latest => out.push(record),
                _ => self.give(record, &versions, out)?,
            }
        }
        Ok(Step::More)
    }

    fn view(&self, dataset: &str) -> Option<(&dyn Snapshot, Seq)> {
        self.inputs.view(dataset)
    }

    /// Where another dataset has a newer version, that one is what was given.
    fn again(&mut self, dataset: &str, seqs: &[Seq], out: &mut Batch) -> Result<(), Failure> {
        let living = self.inputs.living(dataset, seqs)?;
        let versions = self.versions(&living)?;
        let at = self
            .inputs
            .all
            .iter()
            .position(|input| input.name == dataset);
        let latest = living
            .iter()
            .filter(|record| at.is_some_and(|at| !is_superseded(*record, at, &versions)));
        for record in latest {
            let mut meta = record.meta.clone();
            meta.updated = self.inputs.place();
            meta.previous = None;
            out.push_encoded(record.id, record.shape, record.body, meta);
        }
        Ok(())
    }

    fn state(&mut self) -> Vec<StateWrite> {
        self.inputs.state()
    }

    fn continues(&self) -> bool {
        self.inputs.continues
    }

    fn distinct(&self) -> bool {
        true
    }

    fn offset(&self) -> Option<Offset> {
        self.inputs.place()
    }

    fn populated(&self) -> bool {
        self.inputs.populated
    }
}
