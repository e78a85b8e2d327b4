//! Dependency tracking: what a pipe's rules joined has changed, and the entities of its source that
//! it was joined with go through the pipe again.
//!
//! A pipe keeps, beside its offset, how far it has followed each joined dataset. A run notes the
//! ends of these datasets before anything is joined, reads its source, and then looks at what the
//! datasets have got since: every version, and the one before the first of them, since a join that
//! disappeared is known by that one only. From these the way leads back to the source by the joins'
//! other sides (`ways`, `search`). What is found goes through the pipe behind what the source gave.
//!
//! That is enough: take a source entity whose result would be another now, and the changed entity
//! of the join that is nearest to it. Everything between them did not change, so that today's
//! indexes lead from one to the other.

mod given;
mod members;
mod search;
mod ways;

use std::collections::BTreeMap;

use serde_json::Map;
use tahini_store::{Seq, Snapshot, StateWrite};
use uuid::Uuid;

pub(crate) use given::{Given, is_pure};
pub(crate) use members::obstacle;
pub(crate) use search::Search;
pub use ways::Ways;
pub(crate) use ways::gives_again;

use crate::Failure;
use crate::config::Props;
use crate::pipe::World;
use crate::progress::{self, TRACKED};

/// How many entities one run may process again because of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// More are worth a warning.
    pub warning: u64,
    /// More fail the run.
    pub error: u64,
    /// So many bytes of them are worth a warning.
    pub warning_bytes: u64,
    /// So many fail the run.
    pub error_bytes: u64,
    /// Whether one entity of the source may be joined with as many, too.
    pub of_hops: bool,
}

impl Limits {
    /// What the `dependency_tracking` of an effective pipe says.
    ///
    /// # Errors
    /// Config, when a limit is no whole number.
    pub(crate) fn of_pipe(pipe: Props<'_>) -> Result<Limits, Failure> {
        let nothing = Map::new();
        let map = pipe.opt_object("dependency_tracking")?.unwrap_or(&nothing);
        let props = Props::new("$.dependency_tracking", map);
        let limit = |name: &str, default: i64| -> Result<u64, Failure> {
            Ok(props.int(name, default)?.max(0).unsigned_abs())
        };
        Ok(Limits {
            warning: limit("dependency_warning_threshold", 10_000)?,
            error: limit("dependency_error_threshold", 50_000)?,
            warning_bytes: limit("dependency_warning_threshold_total_bytes", 32 << 20)?,
            error_bytes: limit("dependency_error_threshold_total_bytes", 128 << 20)?,
            of_hops: props.bool("enable_hops_thresholds", false)?,
        })
    }
}

/// How far a pipe has followed a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The generation that was followed; `None` where the dataset was not there.
    pub generation: Option<Uuid>,
    /// The first version that was not looked at.
    pub next: Seq,
}

impl Mark {
    fn of(snapshot: Option<&dyn Snapshot>) -> Mark {
        snapshot.map_or_else(Mark::default, |snapshot| Mark {
            generation: Some(snapshot.head().generation),
            next: snapshot.head().next,
        })
    }

    /// The mark before the first version of a dataset as it is.
    pub(crate) fn start(snapshot: Option<&dyn Snapshot>) -> Mark {
        Mark {
            next: 0,
            ..Mark::of(snapshot)
        }
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let generation = self.generation.unwrap_or_default();
        [&generation.as_bytes()[..], &self.next.to_le_bytes()[..]].concat()
    }

    /// The mark that a record holds.
    pub(crate) fn read(record: &[u8]) -> Option<Mark> {
        let (generation, next) = record.split_first_chunk::<16>()?;
        let generation = Uuid::from_bytes(*generation);
        Some(Mark {
            generation: Some(generation).filter(|generation| !generation.is_nil()),
            next: Seq::from_le_bytes(next.try_into().ok()?),
        })
    }
}

/// From where on the versions of a dataset are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// Behind this version; `None`: from the first one.
    After(Option<Seq>),
    /// It was not followed until now.
    New,
    /// What was followed is another dataset of this name.
    Other,
}

/// The joined datasets of a run as they were when it began.
pub(crate) struct Tracking<'a> {
    ways: &'a Ways,
    /// `None` where there is no such dataset.
    views: BTreeMap<&'a str, Option<Box<dyn Snapshot>>>,
    known: BTreeMap<String, Mark>,
}

impl<'a> Tracking<'a> {
    /// Notes the ends of the datasets that are followed. What is joined from now on is of these
    /// versions or newer ones.
    ///
    /// # Errors
    /// When a dataset cannot be read.
    pub(crate) fn begin(
        ways: &'a Ways,
        world: &World,
        known: BTreeMap<String, Mark>,
    ) -> Result<Tracking<'a>, Failure> {
        let mut views = BTreeMap::new();
        for name in ways.on_the_way() {
            let view = match world.store.find(name)? {
                Some(dataset) => Some(dataset.snapshot()?),
                None => None,
            };
            views.insert(name, view);
        }
        Ok(Tracking { ways, views, known })
    }

    /// The writes that say that everything was followed up to these ends; of datasets that were
    /// not followed before only, where `fresh`.
    pub(crate) fn writes(&self, pipe: &str, fresh: bool) -> Vec<StateWrite> {
        let names = self.ways.datasets().into_iter();
        let wanted = names.filter(|name| !fresh || !self.known.contains_key(*name));
        let write = |name: &str| {
            let key = [TRACKED, name.as_bytes()].concat();
            let mark = Mark::of(self.view(name));
            progress::write(pipe, &key, Some(mark.bytes()))
        };
        let mut writes: Vec<StateWrite> = wanted.map(write).collect();
        // What is not followed any more holds nobody back.
        let followed = self.ways.datasets();
        let gone = self
            .known
            .keys()
            .filter(|name| !followed.contains(&name.as_str()));
        writes.extend(gone.map(|name| {
            let key = [TRACKED, name.as_bytes()].concat();
            progress::write(pipe, &key, None)
        }));
        writes
    }

    /// Whether no dataset is followed.
    pub(crate) fn is_idle(&self) -> bool {
        self.views.is_empty()
    }

    fn view(&self, dataset: &str) -> Option<&dyn Snapshot> {
        self.views.get(dataset)?.as_deref()
    }

    /// From where on a dataset is to be looked at.
    fn since(&self, dataset: &str) -> Since {
        let Some(mark) = self.known.get(dataset) else {
            return Since::New;
        };
        let Some(generation) = mark.generation else {
            return Since::After(None);
        };
        let Some(head) = self.view(dataset).map(Snapshot::head) else {
            return Since::Other;
        };
        let after = mark.next.checked_sub(1);
        let goes_on = match after {
            Some(after) => head.continues(generation, after),
            None => head.generation == generation,
        };
        match goes_on {
            true => Since::After(after),
            false => Since::Other,
        }
    }
}
