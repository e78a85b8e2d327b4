//! Sources that read several datasets: `union_datasets`, `merge_datasets` and `diff_datasets`.

mod diff;
mod merge;
mod union;

use tahini_entity::{Batch, Offset};
use tahini_store::{Limit, Seq, Snapshot, StateWrite, View};

pub(crate) use super::IF_SOURCE_EMPTY;
use crate::config::{Kind, Property};
use crate::places::Places;
use crate::registry::ContinuationDef;
use crate::source::From;
use crate::{Ctx, Failure};

pub(super) use merge::{DIFF, MERGE};
pub(super) use union::UNION;

pub(crate) const CONTINUATION: ContinuationDef = ContinuationDef {
    supports_since: true,
    is_since_comparable: true,
    is_chronological: true,
    configurable: false,
};

const DATASETS: Property = Property::required("datasets", Kind::Strings, "The datasets to read.");
pub(crate) const INITIAL: Property = Property::new(
    "initial_datasets",
    Kind::Strings,
    "The datasets that have to be populated before the source is; all by default.",
);
pub(crate) const IGNORE_MISSING: Property = Property::new(
    "ignore_non_existent_datasets",
    Kind::Boolean,
    "Whether the source can be populated although one of these datasets does not exist and no \
     pipe writes it.",
)
.or("true");
pub(crate) const REQUIRE: Property = Property::new(
    "require_populated_input",
    Kind::Boolean,
    "The pipe does not run before the datasets are populated.",
);
pub(crate) const SIGNALS: Property = Property::new(
    "supports_signalling",
    Kind::Boolean,
    "A change starts the pipe at once.",
);

/// Encoded bytes that one read asks for at most.
const READ_BYTES: usize = 8 << 20;
/// Prefix of the keys that keep a dataset's generation.
const GENERATION: &[u8] = b"generation/";

/// One of the datasets.
pub(crate) struct Input {
    pub(crate) name: String,
    /// `None` where it does not exist.
    pub(crate) snapshot: Option<Box<dyn Snapshot>>,
    /// The last sequence that was read.
    pub(crate) after: Option<Seq>,
    known_generation: Option<Vec<u8>>,
}

/// All datasets of a source, in the order of its configuration.
pub(crate) struct Inputs {
    pub(crate) all: Vec<Input>,
    pub(crate) continues: bool,
    pub(crate) populated: bool,
}

impl Input {
    fn read(&mut self, view: View, rows: usize, out: &mut Batch) -> Result<bool, Failure> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(false);
        };
        let want = Limit {
            rows,
            bytes: READ_BYTES,
        };
        Ok(snapshot.changes(self.after, view, want, out)?.is_some())
    }

    /// Everything in it was read.
    fn exhaust(&mut self) {
        let head = self.snapshot.as_ref().map(|snapshot| snapshot.head());
        if let Some(last) = head.and_then(|head| head.next.checked_sub(1)) {
            self.after = Some(last);
        }
    }
}

impl Inputs {
    fn open(ctx: &Ctx<'_>, from: From) -> Result<Inputs, Failure> {
        Inputs::of(ctx, from, &ctx.props.datasets("datasets")?)
    }

    /// The datasets of these names.
    pub(crate) fn of(ctx: &Ctx<'_>, from: From, names: &[&str]) -> Result<Inputs, Failure> {
        let places = match &from.since {
            Some(since) => Places::of(since).map_err(Failure::config)?,
            None => Places::default(),
        };
        let mut inputs = Inputs {
            all: Vec::new(),
            continues: true,
            populated: false,
        };
        for name in names.iter().copied() {
            if inputs.all.iter().any(|input| input.name == name) {
                continue;
            }
            let snapshot = match ctx.store.find(name)? {
                Some(dataset) => Some(dataset.snapshot()?),
                None => None,
            };
            let key = [GENERATION, name.as_bytes()].concat();
            let known = from.state.iter().find(|(known, _)| *known == key);
            let input = Input {
                name: name.to_owned(),
                snapshot,
                after: places.0.get(name).copied(),
                known_generation: known.map(|(_, value)| value.clone()),
            };
            inputs.continues &= input.continues();
            inputs.all.push(input);
        }
        let missing = inputs.not_populated(ctx, names)?;
        inputs.populated = missing.is_empty();
        if ctx.props.bool("require_populated_input", false)? && !missing.is_empty() {
            let names: Vec<String> = missing.iter().map(|name| format!("{name:?}")).collect();
            let (word, are) = match names.len() {
                1 => ("dataset", "which is"),
                _ => ("datasets", "which are"),
            };
            return Err(Failure::waiting(format!(
                "pipe {:?} waits for {word} {}, {are} not populated yet \
                 (`require_populated_input`)",
                ctx.owner,
                names.join(", ")
            )));
        }
        Ok(inputs)
    }

    /// The datasets that keep the source from counting as populated.
    fn not_populated(&self, ctx: &Ctx<'_>, all: &[&str]) -> Result<Vec<String>, Failure> {
        let mut missing = Vec::new();
        let ignored = ctx.props.bool("ignore_non_existent_datasets", true)?;
        let names = match ctx.props.get("initial_datasets") {
            Some(_) => ctx.props.datasets("initial_datasets")?,
            None => all.to_vec(),
        };
        for name in names {
            let known = self.all.iter().find(|input| input.name == name);
            let populated = match known.and_then(|input| input.snapshot.as_ref()) {
                Some(snapshot) => Some(snapshot.head().populated),
                None => match ctx.store.find(name)? {
                    Some(dataset) => Some(dataset.snapshot()?.head().populated),
                    None => None,
                },
            };
            if !populated.unwrap_or(ignored && !ctx.known.is_written(name)) {
                missing.push(name.to_owned());
            }
        }
        Ok(missing)
    }

    /// The view of a dataset, and the end of what is read in it.
    fn view(&self, dataset: &str) -> Option<(&dyn Snapshot, Seq)> {
        let input = self.all.iter().find(|input| input.name == dataset)?;
        let snapshot = input.snapshot.as_deref()?;
        Some((snapshot, snapshot.head().next))
    }

    /// These versions of a dataset, as far as they are there and not deleted.
    fn living(&self, dataset: &str, seqs: &[Seq]) -> Result<Batch, Failure> {
        let (mut all, mut living) = (Batch::new(), Batch::new());
        if let Some((snapshot, _)) = self.view(dataset) {
            snapshot.at(seqs, &mut all)?;
        }
        for record in all.iter().filter(|record| !record.meta.deleted) {
            living.push(record);
        }
        Ok(living)
    }

    /// How far all of them were read.
    fn place(&self) -> Option<Offset> {
        let read = self.all.iter();
        let read = read.filter_map(|input| Some((input.name.clone(), input.after?)));
        Places(read.collect()).offset()
    }

    fn state(&mut self) -> Vec<StateWrite> {
        let heads = self.all.iter().map(|input| {
            let snapshot = input.snapshot.as_ref();
            snapshot.map(|snapshot| snapshot.head().generation)
        });
        let heads: Vec<Option<uuid::Uuid>> = heads.collect();
        self.state_of(&heads)
    }

    /// The state to save where the datasets are of these generations.
    pub(crate) fn state_of(&mut self, generations: &[Option<uuid::Uuid>]) -> Vec<StateWrite> {
        let mut writes = Vec::new();
        for (input, generation) in self.all.iter_mut().zip(generations) {
            let Some(generation) = generation else {
                continue;
            };
            let generation = generation.as_bytes().to_vec();
            if input.known_generation.as_ref() == Some(&generation) {
                continue;
            }
            input.known_generation = Some(generation.clone());
            writes.push(StateWrite {
                space: String::new(),
                key: [GENERATION, input.name.as_bytes()].concat(),
                value: Some(generation),
            });
        }
        writes
    }
}

impl Input {
    /// Whether what was read still means something.
    fn continues(&self) -> bool {
        let (Some(after), Some(snapshot)) = (self.after, &self.snapshot) else {
            return true;
        };
        let known = self.known_generation.as_deref();
        let known = known.and_then(|bytes| uuid::Uuid::from_slice(bytes).ok());
        let head = snapshot.head();
        head.continues(known.unwrap_or(head.generation), after)
    }
}
