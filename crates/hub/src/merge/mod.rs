//! The `merge` source: entities of several datasets that are the same become one.
//!
//! ```text
//! rules.rs   which entities are the same       part.rs   a dataset before and now
//! step.rs    what changed since the place      reach.rs  what that concerns, by the indexes
//! whole.rs   everything, by numbers            blend.rs  several entities become one
//! explain.rs which rule joined what            again.rs  what a change of a join concerns
//! leads.rs   groups, found pair by pair         clash.rs  one id, and not the same
//! ```
//! Nothing is kept of what belongs together but the datasets themselves: what was given out is what
//! the rules make of the versions before the place, and the place moves in the same commit as what
//! is given out.

mod again;
mod blend;
mod clash;
mod explain;
mod leads;
mod part;
mod reach;
mod rules;
mod step;
mod whole;

use std::collections::HashSet;

use tahini_entity::{Batch, Offset};
use tahini_store::{Seq, Snapshot, StateWrite};

use crate::builtin::datasets::{
    CONTINUATION, IF_SOURCE_EMPTY, IGNORE_MISSING, INITIAL, Inputs, REQUIRE, SIGNALS,
};
use crate::config::{Kind, Property, dtl_options};
use crate::places::Places;
use crate::registry::SourceDef;
use crate::source::{From, Step};
use crate::{Cancel, Ctx, Failure, Source};

use blend::Blend;
use clash::Clashes;
use part::{Part, Trouble};
use whole::Whole;

pub use explain::explain;
#[doc(hidden)]
pub use rules::Back;
pub(crate) use rules::{Merging, problems};

pub(crate) const DEF: SourceDef = SourceDef {
    name: "merge",
    summary: "Entities of several datasets that are the same by equality rules become one.",
    properties: &[
        Property::required(
            "datasets",
            Kind::Strings,
            "The datasets and what the rules call them, each \"DATASET ALIAS\".",
        ),
        INITIAL,
        IGNORE_MISSING,
        REQUIRE,
        Property::new(
            "version",
            Kind::Integer(1),
            "2. What says 1, or nothing, runs as 2, with a warning.",
        ),
        Property::new(
            "equality",
            Kind::List,
            "Equalities of two datasets' entities, each `[\"eq\", \"a.email\", \"b.mail\"]`.",
        ),
        Property::new(
            "equality_sets",
            Kind::List,
            "Lists of expressions over the datasets' entities; who has a value of a list in common \
             is the same.",
        ),
        Property::new(
            "identity",
            Kind::Enum(&["composite", "first"]),
            "The `_id` of what was merged: `composite` is made of all, `first` is that of the \
             first entity, by the order of datasets and then of ids.",
        )
        .or("\"composite\""),
        Property::new(
            "strategy",
            Kind::Enum(&["default", "compact", "list"]),
            "How properties are put together: all values; each value once and single ones without \
             a list; or the entities as a list, `$merged`.",
        )
        .or("\"default\""),
        Property::new(
            "include_internal_properties",
            Kind::Boolean,
            "With the strategy `list`, `$merged` also has what datasets add, such as `_ts`.",
        )
        .or("false"),
        Property::new(
            "max_merged",
            Kind::Integer(1),
            "The most entities that may become one; the pipe fails where it would be more.",
        )
        .or("50000"),
        SIGNALS,
        IF_SOURCE_EMPTY,
    ],
    continuation: CONTINUATION,
    open,
};

/// The key of the rules that what was given out was made by.
const RULES: &[u8] = b"rules";
/// The key of whether several datasets have entities of one id, and its values.
const SHARED: &[u8] = b"shared";
const APART: &[u8] = b"0";
const TOGETHER: &[u8] = b"1";
/// How many versions a step looks at where batches are of one entity.
const STEP: usize = 10_000;
/// So many entities go into the run's last commit, with the place.
const LAST: usize = 5_000;

struct Merge {
    merging: Merging,
    inputs: Inputs,
    parts: Vec<Part>,
    blend: Blend,
    cancel: Cancel,
    way: Way,
    /// How many versions a step looks at: as many as lie between two saved places.
    step: usize,
    continues: bool,
    /// The rules that were saved.
    known_rules: Option<Vec<u8>>,
    /// What was given once more, by the keys of the ids.
    told: HashSet<u128>,
    /// Ids of several entities that are not the same, and whether there can be any.
    clashes: Clashes,
    ids_can_clash: bool,
    /// What was saved of whether datasets share ids.
    known_shared: Option<Vec<u8>>,
}

impl Merge {
    /// The place of a dataset.
    fn at(&self, dataset: &str) -> Option<usize> {
        let mut inputs = self.inputs.all.iter();
        inputs.position(|input| input.name == dataset)
    }
}

/// What the run gives.
enum Way {
    /// Everything, which is found out when somebody asks.
    All(Option<Box<Whole>>),
    /// What changed; whether something of it was taken in and is to be given.
    Changes(bool),
    Done,
}

fn open(ctx: &Ctx<'_>, from: From) -> Result<Box<dyn Source>, Failure> {
    let options = dtl_options(ctx.whole.map(), &Default::default());
    let mut merging = Merging::compile(ctx.props.map(), &options).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::config(format!("{}: {}", ctx.props.path(), words.join("; ")))
    })?;
    merging.lost = ctx.known.lost();
    let known = |name: &[u8]| {
        let found = from.state.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    let (known_rules, known_shared) = (known(RULES), known(SHARED));
    let full = from.since.is_none();
    let names: Vec<&str> = merging.datasets.iter().map(String::as_str).collect();
    let mut inputs = Inputs::of(ctx, from, &names)?;
    let mut parts: Vec<Part> = Vec::new();
    for input in &mut inputs.all {
        let first = input.after.map_or(0, |after| after + 1);
        parts.push(Part::new(
            input.snapshot.take(),
            if full { 0 } else { first },
        ));
    }
    let number = |name: &str| {
        let number = ctx.whole.get(name).and_then(serde_json::Value::as_u64);
        number.map_or(100, |number| number.max(1) as usize)
    };
    let same_rules = known_rules.as_deref() == Some(merging.fingerprint().as_bytes());
    let ids_can_clash = Clashes::can_be(&merging);
    let mut source = Merge {
        blend: Blend::new(&merging),
        continues: full || (inputs.continues && same_rules),
        merging,
        inputs,
        parts,
        cancel: ctx.cancel.clone(),
        way: Way::All(None),
        step: match number("batch_size") {
            // One at a time is how something goes out, and not how much is looked at.
            1 => STEP,
            size => size.saturating_mul(number("checkpoint_interval")),
        },
        known_rules,
        told: HashSet::new(),
        clashes: Clashes::default(),
        ids_can_clash,
        known_shared,
    };
    // Where nobody has looked yet they may.
    source.clashes.shared = !full && source.known_shared.as_deref() != Some(APART);
    if !full && source.continues {
        if !step::are_indexed(&source.merging, &mut source.parts)? {
            // Without indexes nobody knows what counted at a place in the middle.
            source.step = usize::MAX;
        }
        match step::take(&source.merging, &mut source.parts, source.step) {
            Ok(more) => source.way = Way::Changes(more),
            // What was given out cannot be told any more: everything is read.
            Err(Trouble::Lost) => source.continues = false,
            Err(trouble) => return Err(source.failure(trouble)),
        }
    }
    Ok(Box::new(source))
}

impl Merge {
    fn failure(&mut self, trouble: Trouble) -> Failure {
        step::failure(&self.merging, &mut self.parts, &self.cancel, trouble)
    }

    /// Gives what the changes that were taken in concern, and takes in the next ones.
    fn give_changes(&mut self, out: &mut Batch) -> Result<Step, Failure> {
        let first = out.len();
        let clashes = Some(&mut self.clashes).filter(|_| self.ids_can_clash);
        let given = step::give(
            &self.merging,
            &mut self.parts,
            (&mut self.blend, clashes),
            &self.cancel,
            out,
        );
        given.map_err(|trouble| self.failure(trouble))?;
        let place = self.place();
        if out.len() > first {
            out.meta_mut(out.len() - 1).updated = place;
        }
        let at_end = self.parts.iter().all(|part| part.until == part.head());
        if at_end && out.len() - first <= LAST {
            self.way = Way::Done;
            return Ok(Step::End);
        }
        self.way = Way::Changes(false);
        Ok(Step::More)
    }

    /// How far the datasets were given out.
    fn place(&self) -> Option<Offset> {
        let parts = self.inputs.all.iter().zip(&self.parts);
        let read = parts.filter_map(|(input, part)| {
            let last: Seq = part.until.checked_sub(1)?;
            Some((input.name.clone(), last))
        });
        Places(read.collect()).offset()
    }
}

impl Source for Merge {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        match &mut self.way {
            Way::Done => Ok(Step::End),
            Way::Changes(true) => self.give_changes(out),
            Way::Changes(false) => {
                self.parts.iter_mut().for_each(Part::advance);
                let more = step::take(&self.merging, &mut self.parts, self.step);
                let more = more.map_err(|trouble| self.failure(trouble))?;
                if more {
                    return self.give_changes(out);
                }
                self.way = Way::Done;
                Ok(Step::End)
            }
            Way::All(whole) => {
                let whole = match whole {
                    Some(whole) => whole,
                    none => {
                        let found = Whole::survey(&self.merging, &mut self.parts, &self.cancel)?;
                        none.insert(Box::new(found))
                    }
                };
                let with = (&mut self.blend, &mut self.clashes);
                let more = whole.give(&self.merging, &mut self.parts, with, limit, out)?;
                if more {
                    return Ok(Step::More);
                }
                self.way = Way::Done;
                Ok(Step::End)
            }
        }
    }

    fn state(&mut self) -> Vec<StateWrite> {
        let heads = self.parts.iter().map(|part| {
            let snapshot = part.snapshot.as_ref();
            snapshot.map(|snapshot| snapshot.head().generation)
        });
        let heads: Vec<_> = heads.collect();
        let mut writes = self.inputs.state_of(&heads);
        let mut save = |key: &[u8], value: &[u8], known: &mut Option<Vec<u8>>| {
            if known.as_deref() != Some(value) {
                *known = Some(value.to_vec());
                writes.push(StateWrite {
                    space: String::new(),
                    key: key.to_vec(),
                    value: Some(value.to_vec()),
                });
            }
        };
        let rules = self.merging.fingerprint().into_bytes();
        save(RULES, &rules, &mut self.known_rules);
        if self.ids_can_clash {
            let shared = if self.clashes.shared { TOGETHER } else { APART };
            save(SHARED, shared, &mut self.known_shared);
        }
        writes
    }

    fn continues(&self) -> bool {
        self.continues
    }

    fn distinct(&self) -> bool {
        true
    }

    fn whole(&self) -> bool {
        !matches!(self.way, Way::All(_))
    }

    fn offset(&self) -> Option<Offset> {
        self.place()
    }

    fn populated(&self) -> bool {
        self.inputs.populated
    }

    fn warnings(&self) -> Vec<String> {
        self.clashes.warning().into_iter().collect()
    }

    fn view(&self, dataset: &str) -> Option<(&dyn Snapshot, Seq)> {
        let part = self.parts.get(self.at(dataset)?)?;
        Some((part.snapshot.as_deref()?, part.until))
    }

    fn again(&mut self, dataset: &str, seqs: &[Seq], out: &mut Batch) -> Result<(), Failure> {
        let Some(at) = self.at(dataset) else {
            return Ok(());
        };
        let members = (at, seqs, &mut self.told);
        let (merging, parts) = (&self.merging, &mut self.parts);
        let clashes = Some(&mut self.clashes).filter(|_| self.ids_can_clash);
        let with = (&mut self.blend, clashes);
        let given = again::again(merging, parts, with, &self.cancel, members, out);
        given.map_err(|trouble| self.failure(trouble))
    }
}
