//! The `dataset` source: the changes of a dataset, oldest first.

use tahini_dtl::Subset;
use tahini_entity::{Batch, Offset, Record, Value};
use tahini_store::{Head, Limit, Seq, Snapshot, StateWrite, View};

use super::IF_SOURCE_EMPTY;
use crate::completeness::Bound;
use crate::config::{Kind, Property, dtl_options};
use crate::places::seq_of;
use crate::registry::{ContinuationDef, SourceDef};
use crate::source::{From, Step};
use crate::subset::Part;
use crate::{Ctx, Failure, Source};

pub(super) const DEF: SourceDef = SourceDef {
    name: "dataset",
    summary: "Reads the changes of a dataset.",
    properties: &[
        Property::required("dataset", Kind::Dataset, "The dataset to read."),
        Property::new(
            "include_previous_versions",
            Kind::Boolean,
            "Also gives versions that were superseded.",
        )
        .or("false"),
        Property::new(
            "include_replaced",
            Kind::Boolean,
            "Also gives entities whose `$replaced` is true.",
        )
        .or("true"),
        Property::new(
            "require_populated_input",
            Kind::Boolean,
            "The pipe does not run before the dataset is populated.",
        ),
        Property::new(
            "supports_signalling",
            Kind::Boolean,
            "A change starts the pipe at once.",
        ),
        Property::new(
            "subset",
            Kind::List,
            "Reads only the entities with one key of an index, `[\"eq\", \"_S.category\", \
             \"tank\"]`; one that leaves the subset is given once more, as deleted.",
        ),
        Property::new(
            "completeness",
            Kind::Any,
            "Entities newer than this wait: `true` is the completeness of the dataset itself, a \
             list the smallest one of these datasets upstream, `{\"expression\": …}` a datetime in \
             DTL, evaluated when a run begins.",
        )
        .or("false"),
        Property::new(
            "initial_completeness",
            Kind::Strings,
            "Datasets that must have a completeness, whatever it is, before anything is read.",
        ),
        IF_SOURCE_EMPTY,
    ],
    continuation: ContinuationDef {
        supports_since: true,
        is_since_comparable: true,
        is_chronological: true,
        configurable: false,
    },
    open,
};

/// Encoded bytes that one read asks for at most.
const READ_BYTES: usize = 8 << 20;
const GENERATION: &[u8] = b"generation";
/// What has to come through before the source counts as populated, where some of it was held back.
const AWAITED: &[u8] = b"awaited";

struct DatasetSource {
    snapshot: Option<Box<dyn Snapshot>>,
    after: Option<Seq>,
    view: View,
    part: Option<Part>,
    include_replaced: bool,
    continues: bool,
    known_generation: Option<Vec<u8>>,
    dataset: String,
    /// A pipe writes it: where it does not exist, it will.
    is_written: bool,
    bound: Option<Bound>,
    /// The sequence of the first version that the bound held back.
    held: Option<Seq>,
    awaited: Option<Awaited>,
    /// The same as it is saved.
    saved: Option<Awaited>,
    /// Something came through in this run.
    gave: bool,
}

/// What was there when a run held something back for the first time.
///
/// A dataset that changes all the time always has something that is too new: whoever waited until
/// nothing is held back would wait for ever. So the source is populated when everything came
/// through that was there in the first run, in this or a newer version as far as that may be read.
#[derive(Clone, Copy, PartialEq)]
struct Awaited {
    /// The `_ts` of the last version then, microseconds since 1970 UTC.
    until: i64,
    /// Something came through since: where all of it is changed again before it may be read, the
    /// pipe has nothing, and nobody should take that for everything.
    gave: bool,
}

impl Awaited {
    fn of_bytes(bytes: &[u8]) -> Option<Awaited> {
        let (until, rest) = bytes.split_first_chunk::<8>()?;
        Some(Awaited {
            until: i64::from_le_bytes(*until),
            gave: rest == [1],
        })
    }

    fn to_bytes(self) -> Vec<u8> {
        [&self.until.to_le_bytes()[..], &[u8::from(self.gave)]].concat()
    }
}

fn open(ctx: &Ctx<'_>, from: From) -> Result<Box<dyn Source>, Failure> {
    let name = ctx.props.str("dataset")?;
    let bound = Bound::of(ctx, name)?;
    let snapshot = match ctx.store.find(name)? {
        Some(dataset) => Some(dataset.snapshot()?),
        None => None,
    };
    let head = snapshot.as_ref().map(|snapshot| snapshot.head());
    let populated = head.is_some_and(|head| head.populated);
    if ctx.props.bool("require_populated_input", false)? && !populated {
        return Err(Failure::waiting(format!(
            "pipe {:?} waits for dataset {name:?}, which is not populated yet \
             (`require_populated_input`)",
            ctx.owner
        )));
    }
    let state = |name: &[u8]| from.state.iter().find(|(key, _)| key == name);
    let known_generation = state(GENERATION).map(|(_, value)| value.clone());
    let saved = state(AWAITED).and_then(|(_, value)| Awaited::of_bytes(value));
    let after = match from.since {
        None => None,
        Some(Offset::Int(seq)) => Some(Seq::try_from(seq).map_err(|_| wrong_offset(&seq))?),
        Some(Offset::Text(text)) => Some(text.parse().map_err(|_| wrong_offset(&text))?),
    };
    let continues = after.is_none() || still_means(head, after, known_generation.as_deref());
    Ok(Box::new(DatasetSource {
        after,
        part: subset(ctx, name)?.map(|subset| Part::new(subset, after)),
        view: View {
            history: ctx.props.bool("include_previous_versions", false)?,
            deleted: true,
        },
        include_replaced: ctx.props.bool("include_replaced", true)?,
        continues,
        known_generation,
        snapshot,
        dataset: name.to_owned(),
        is_written: ctx.known.is_written(name),
        bound,
        held: None,
        awaited: saved,
        saved,
        gave: false,
    }))
}

fn subset(ctx: &Ctx<'_>, dataset: &str) -> Result<Option<Subset>, Failure> {
    let written = ctx.props.get("subset");
    // An empty list is nothing, as everywhere.
    let Some(json) = written.filter(|json| json.as_array().is_none_or(|list| !list.is_empty()))
    else {
        return Ok(None);
    };
    let options = dtl_options(ctx.whole.map(), &Default::default());
    let subset = Subset::compile(dataset, json, &options).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::config(format!("{}.subset: {}", ctx.props.path(), words.join("; ")))
    })?;
    Ok(Some(subset))
}

/// An offset is of one generation: after delete and re-create it means nothing, and reading on
/// from it would say "nothing new" for ever.
fn still_means(head: Option<&Head>, after: Option<Seq>, known: Option<&[u8]>) -> bool {
    let (Some(head), Some(after)) = (head, after) else {
        return head.is_none() || known.is_none_or(|known| is_of(head, known));
    };
    // Before anything was ever committed the end of a dataset is 0, too.
    let generation = match known {
        Some(known) => uuid::Uuid::from_slice(known).ok(),
        None => Some(head.generation),
    };
    let empty = after == 0 && head.next == 0 && known.is_none_or(|known| is_of(Some(head), known));
    empty || generation.is_some_and(|generation| head.continues(generation, after))
}

fn is_of(head: Option<&Head>, known: &[u8]) -> bool {
    head.is_some_and(|head| head.generation.as_bytes() == known)
}

fn wrong_offset(found: &dyn std::fmt::Display) -> Failure {
    Failure::config(format!(
        "expected a dataset's offset to be a whole number of at least 0, found {found}"
    ))
}

fn is_replaced(record: Record<'_>) -> bool {
    matches!(record.value("$replaced"), Some(Value::Bool(true)))
}

impl DatasetSource {
    /// Takes note, at the end of a run that held something back, of what is waited for.
    fn awaits(&mut self) {
        let Some(head) = self.snapshot.as_ref().map(|snapshot| snapshot.head()) else {
            return;
        };
        match &mut self.awaited {
            None if self.held.is_some() && head.populated => {
                self.awaited = Some(Awaited {
                    until: head.last_ts,
                    gave: self.gave || self.after.is_some(),
                });
            }
            Some(awaited) => awaited.gave |= self.gave,
            None => {}
        }
    }

    /// Whether nothing is held back, or only what came after all that was waited for.
    fn came_through(&self) -> bool {
        let (Some(_), Some(bound)) = (self.held, &self.bound) else {
            return true;
        };
        let awaited = self.awaited.filter(|awaited| awaited.gave || self.gave);
        awaited.is_some_and(|awaited| bound.until.is_some_and(|until| until >= awaited.until))
    }
}

impl Source for DatasetSource {
    fn next_batch(&mut self, limit: usize, out: &mut Batch) -> Result<Step, Failure> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(Step::End);
        };
        if let Some(Bound { until: None, .. }) = &self.bound {
            let next = self.after.map_or(0, |after| after + 1);
            self.held = (next < snapshot.head().next).then_some(next);
            return Ok(Step::End);
        }
        let want = Limit {
            rows: limit,
            bytes: READ_BYTES,
        };
        let mut all = Batch::new();
        let looked_at = self.bound.is_some() || !self.include_replaced;
        let read = match looked_at {
            false => &mut *out,
            true => &mut all,
        };
        let next = match &mut self.part {
            Some(part) => part.changes(snapshot.as_ref(), self.after, self.view, want, read)?,
            None => snapshot.changes(self.after, self.view, want, read)?,
        };
        for record in all.iter() {
            if self.bound.as_ref().is_some_and(|bound| bound.holds(record)) {
                // `_ts` never goes down in a dataset: what follows is newer still.
                self.held = seq_of(&record);
                return Ok(Step::End);
            }
            self.gave = true;
            if self.include_replaced || !is_replaced(record) {
                out.push(record);
            }
        }
        match next {
            Some(seq) => {
                self.after = Some(seq);
                Ok(Step::More)
            }
            None => Ok(Step::End),
        }
    }

    fn state(&mut self) -> Vec<StateWrite> {
        let Some(snapshot) = &self.snapshot else {
            return Vec::new();
        };
        let write = |key: &[u8], value: Vec<u8>| StateWrite {
            space: String::new(),
            key: key.to_vec(),
            value: Some(value),
        };
        let mut writes = Vec::new();
        let generation = snapshot.head().generation.as_bytes().to_vec();
        if self.known_generation.as_ref() != Some(&generation) {
            self.known_generation = Some(generation.clone());
            writes.push(write(GENERATION, generation));
        }
        self.awaits();
        if self.awaited != self.saved {
            self.saved = self.awaited;
            writes.extend(self.awaited.map(|it| write(AWAITED, it.to_bytes())));
        }
        writes
    }

    fn continues(&self) -> bool {
        self.continues
    }

    fn distinct(&self) -> bool {
        true
    }

    /// What was left out was read, too, and is not to be read again.
    fn offset(&self) -> Option<Offset> {
        if let Some(held) = self.held {
            let before = held.checked_sub(1)?;
            return i64::try_from(before).ok().map(Offset::Int);
        }
        if self.part.is_none() && self.include_replaced {
            return None;
        }
        let last = self.snapshot.as_ref()?.head().next.checked_sub(1)?;
        i64::try_from(last).ok().map(Offset::Int)
    }

    fn populated(&self) -> bool {
        let is_closed = |bound: &Bound| bound.until.is_none();
        match &self.snapshot {
            Some(_) if self.bound.as_ref().is_some_and(is_closed) => false,
            Some(snapshot) => snapshot.head().populated && self.came_through(),
            None => !self.is_written,
        }
    }

    fn view(&self, dataset: &str) -> Option<(&dyn Snapshot, Seq)> {
        let snapshot = self
            .snapshot
            .as_deref()
            .filter(|_| dataset == self.dataset)?;
        Some((snapshot, self.held.unwrap_or(snapshot.head().next)))
    }

    fn again(&mut self, _dataset: &str, seqs: &[Seq], out: &mut Batch) -> Result<(), Failure> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(());
        };
        let mut versions = Batch::new();
        snapshot.at(seqs, &mut versions)?;
        for record in versions.iter().filter(|record| !record.meta.deleted) {
            let inside = self.part.as_ref().is_none_or(|part| part.holds(record));
            if inside && (self.include_replaced || !is_replaced(record)) {
                out.push(record);
            }
        }
        Ok(())
    }

    fn held_back(&self) -> Option<String> {
        let bound = self.bound.as_ref().filter(|_| self.held.is_some())?;
        Some(bound.told(&self.dataset))
    }
}
