//! How many entities share the keys that hops join by, found out before that hurts.
//!
//! A small dataset is counted. Of a large one a sample of entities is looked at: a key that many
//! share is in it many times, and the index says how often that key is there in all. What is told
//! takes bounded time, whatever the dataset.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tahini_dtl::Index;
use tahini_entity::folded::FoldedMap;
use tahini_entity::json::to_config;
use tahini_entity::{Batch, Value, order};
use tahini_store::{Ask, Backend, Limit, Seq, Snapshot, StoreError, View};

use crate::dependency::Given;
use crate::hub::{Hub, LivePipe, Refusal, shown};
use crate::{Failure, Pipe, indexes};

/// Versions that a dataset may have to be counted as a whole.
const COUNTED: Seq = 20_000;
/// Entities that are looked at of a larger one.
const SAMPLE: u64 = 2_000;
/// Entities read together.
const STEP: usize = 500;
/// Keys that the index is asked for together: each may have `MOST` hits, which are in memory until
/// they are counted, and time is looked at between two questions.
const KEYS: usize = 4;
/// Entities of one key that are counted; more are told as that many.
const MOST: usize = 200_000;
/// How long an index is looked at for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same at the end of a run.
const GLANCE: Duration = Duration::from_millis(200);

/// How exact numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exact {
    /// Everything was counted.
    All,
    /// The keys of a sample were counted.
    Sample,
    /// Taken from a sample alone, while the index is being built.
    Estimate,
}

/// How many entities of a dataset share a key.
#[derive(Clone, Debug)]
pub struct Cardinality {
    /// The dataset.
    pub dataset: String,
    /// The expression whose values are the keys.
    pub by: String,
    /// Entities in it.
    pub entities: u64,
    /// Entities a key, on average; `None` where that cannot be told, or there is no key.
    pub average: Option<f64>,
    /// The most entities that were found with one key; at least so many, where it is `MOST`.
    pub largest: u64,
    /// That key.
    pub largest_key: Option<Value>,
    /// How exact this is.
    pub exact: Exact,
}

/// A key that was met: how often in what was looked at, and in all.
struct Met {
    key: Value,
    here: u64,
    all: u64,
}

type Keys = FoldedMap<u128, Met>;

/// An index, with what stands before the rules that join by it.
struct Joining<'a> {
    index: &'a Index,
    given: Option<&'a Given>,
}

impl Joining<'_> {
    fn measure(&self, view: &dyn Snapshot, patience: Duration) -> Result<Cardinality, StoreError> {
        let until = Instant::now() + patience;
        let mut keys = Keys::default();
        let whole = view.head().next <= COUNTED;
        let looked_at = match whole {
            true => self.count(view, &mut keys)?,
            false => self.sample(view, until, &mut keys)?,
        };
        let entities = view.head().live;
        let exact = match whole {
            true => Exact::All,
            false if self.ask(view, until, &mut keys)? => Exact::Sample,
            false => Exact::Estimate,
        };
        if exact == Exact::Estimate {
            let share = entities as f64 / looked_at.max(1) as f64;
            for met in keys.values_mut() {
                met.all = (met.here as f64 * share) as u64;
            }
        }
        let known: Vec<&Met> = keys.values().filter(|met| met.all > 0).collect();
        // Where time was up, those keys were counted that were met most often.
        let is_whole = exact != Exact::Estimate && known.len() == keys.len();
        // Who looks at entities meets a key as often as it has entities.
        let rows: u64 = known.iter().map(|met| met.here).sum();
        let each: f64 = known
            .iter()
            .map(|met| met.here as f64 / met.all as f64)
            .sum();
        let largest = known.iter().max_by_key(|met| (met.all, met.here));
        Ok(Cardinality {
            dataset: self.index.dataset().to_owned(),
            by: self.index.fingerprint().to_owned(),
            entities,
            average: (rows > 0 && is_whole).then(|| rows as f64 / each),
            largest: largest.map_or(0, |met| met.all),
            largest_key: largest.map(|met| met.key.clone()),
            exact,
        })
    }

    fn take(&self, batch: &Batch, keys: &mut Keys) -> u64 {
        let mut living = 0;
        for record in batch.iter().filter(|record| !record.meta.deleted) {
            living += 1;
            for key in indexes::values(self.index, self.given, record) {
                let met = keys.entry(order::key(&key)).or_insert_with(|| Met {
                    key,
                    here: 0,
                    all: 0,
                });
                met.here += 1;
            }
        }
        living
    }

    /// Looks at every entity.
    fn count(&self, view: &dyn Snapshot, keys: &mut Keys) -> Result<u64, StoreError> {
        let latest = View {
            history: false,
            deleted: false,
        };
        let limit = Limit {
            rows: STEP,
            bytes: 4 << 20,
        };
        let (mut after, mut living) = (None, 0);
        loop {
            let mut batch = Batch::new();
            after = view.changes(after, latest, limit, &mut batch)?;
            living += self.take(&batch, keys);
            if after.is_none() {
                break;
            }
        }
        keys.values_mut().for_each(|met| met.all = met.here);
        Ok(living)
    }

    /// Looks at entities from all over the dataset.
    fn sample(
        &self,
        view: &dyn Snapshot,
        until: Instant,
        keys: &mut Keys,
    ) -> Result<u64, StoreError> {
        let (next, mut living) = (view.head().next, 0);
        // Not at equal distances: whoever wrote the dataset may have had a rhythm of its own.
        let at = |nth: u64| {
            let within = next / SAMPLE;
            let shift = nth.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
            nth * next / SAMPLE + shift % within.max(1)
        };
        let mut seqs: Vec<Seq> = (0..SAMPLE).map(at).filter(|seq| *seq < next).collect();
        seqs.sort_unstable();
        seqs.dedup();
        for some in seqs.chunks(STEP) {
            if Instant::now() > until {
                break;
            }
            let (mut versions, mut latest) = (Batch::new(), Batch::new());
            view.at(some, &mut versions)?;
            let mut ids: Vec<&str> = versions.iter().filter_map(|record| record.id).collect();
            ids.sort_unstable();
            ids.dedup();
            view.latest(&ids, &mut latest)?;
            living += self.take(&latest, keys);
        }
        Ok(living)
    }

    /// Asks the index how often the keys are there, those first that were met most often; `false`
    /// where it does not answer.
    fn ask(
        &self,
        view: &dyn Snapshot,
        until: Instant,
        keys: &mut Keys,
    ) -> Result<bool, StoreError> {
        let fingerprint = indexes::fingerprint(self.index, self.given);
        let mut hashes: Vec<u128> = keys.keys().copied().collect();
        hashes.sort_by_key(|hash| std::cmp::Reverse(keys[hash].here));
        let ask = Ask {
            limit: MOST,
            ..Ask::LATEST
        };
        for some in hashes.chunks(KEYS) {
            let mut hits = Vec::new();
            if !view.find(&fingerprint, some, &ask, &mut hits)? {
                return Ok(false);
            }
            for hit in hits {
                if let Some(met) = some.get(hit.of).and_then(|hash| keys.get_mut(hash)) {
                    met.all += 1;
                }
            }
            if Instant::now() > until {
                break;
            }
        }
        Ok(true)
    }
}

impl Cardinality {
    /// The numbers as JSON.
    pub fn to_json(&self) -> Json {
        json!({
            "dataset": self.dataset,
            "by": self.by,
            "entities": self.entities,
            "average": self.average.map(|average| (average * 1000.0).round() / 1000.0),
            "largest": self.largest,
            "largest-key": self.largest_key.as_ref().map(to_config),
            "counted": match self.exact {
                Exact::All => "all",
                Exact::Sample => "sample",
                Exact::Estimate => "estimate",
            },
        })
    }

    fn key(&self) -> String {
        let key = self.largest_key.as_ref().map(to_config);
        let text = key.map_or_else(String::new, |key| key.to_string());
        text.chars().take(100).collect()
    }

    fn about(&self) -> &'static str {
        match self.exact {
            Exact::All => "",
            Exact::Sample | Exact::Estimate => "about ",
        }
    }
}

/// What there is to know of one index; nothing where there is no such dataset.
fn of_index(
    store: &dyn Backend,
    joining: &Joining<'_>,
    patience: Duration,
) -> Result<Option<Cardinality>, Failure> {
    let Some(view) = shown(store, joining.index.dataset())? else {
        return Ok(None);
    };
    Ok(Some(joining.measure(view.as_ref(), patience)?))
}

/// The indexes by which the rules of a pipe find what they join.
fn forward(pipe: &Pipe) -> Vec<Index> {
    let mut all: Vec<Index> = Vec::new();
    for program in pipe
        .programs()
        .iter()
        .filter_map(|(_, program)| program.as_ref())
    {
        for index in program.indexes() {
            let same = |known: &&Index| {
                known.dataset() == index.dataset() && known.fingerprint() == index.fingerprint()
            };
            if !all.iter().any(|known| same(&known)) {
                all.push(index.clone());
            }
        }
    }
    all
}

/// What a pipe's hops join by, and how many entities share a key there: `joins` are the datasets
/// that are looked into, `tracked` what a change of a joined entity leads back to.
///
/// # Errors
/// When there is no such pipe, or a dataset cannot be read.
pub fn told(hub: &Hub, id: &str) -> Result<Json, Refusal> {
    let live = hub.pipe(id)?;
    let pipe = live.usable()?;
    let store = hub.world.store.as_ref();
    let mut warnings = Vec::new();
    let mut joins = Vec::new();
    for index in forward(pipe) {
        let joining = Joining {
            index: &index,
            given: None,
        };
        if let Some(found) = of_index(store, &joining, PATIENCE)? {
            if found.largest > pipe.tracking.warning {
                warnings.push(format!(
                    "{}{} entities of dataset {:?} have the key {} in common ({}): whatever joins \
                     by it is joined with all of them",
                    found.about(),
                    found.largest,
                    found.dataset,
                    found.key(),
                    found.by
                ));
            }
            joins.push(found.to_json());
        }
    }
    let back = back(store, &live, PATIENCE)?;
    warnings.extend(too_many(pipe, &back));
    let back = back.iter().map(Cardinality::to_json);
    Ok(json!({
        "pipe": id,
        "joins": joins,
        "tracked": back.collect::<Vec<Json>>(),
        "warnings": warnings,
    }))
}

/// What changes of joined entities lead back to.
fn back(
    store: &dyn Backend,
    live: &LivePipe,
    patience: Duration,
) -> Result<Vec<Cardinality>, Failure> {
    let mut all: Vec<Cardinality> = Vec::new();
    for (index, given) in live.ways.indexes() {
        let same = |known: &Cardinality| {
            known.dataset == index.dataset() && known.by == index.fingerprint()
        };
        if all.iter().any(same) {
            continue;
        }
        let joining = Joining {
            index: &index,
            given: given.as_deref(),
        };
        all.extend(of_index(store, &joining, patience)?);
    }
    Ok(all)
}

/// What is worth a warning, before a change makes the run fail.
fn too_many(pipe: &Pipe, back: &[Cardinality]) -> Vec<String> {
    let many = back
        .iter()
        .filter(|found| found.largest > pipe.tracking.warning);
    let words = many.map(|found| {
        format!(
            "{}{} entities of dataset {:?} have the key {} in common ({}): a change of an entity \
             that is joined by it puts all of them through the pipe again; more than {} fail the \
             run (`dependency_tracking`)",
            found.about(),
            found.largest,
            found.dataset,
            found.key(),
            found.by,
            pipe.tracking.error
        )
    });
    words.collect()
}

/// What the log of a run that read everything warns of. A dataset that cannot be read is told by
/// whoever has to read it.
pub(crate) fn warnings(store: &dyn Backend, pipe: &Pipe, live: &LivePipe) -> Vec<String> {
    let found = back(store, live, GLANCE).unwrap_or_default();
    too_many(pipe, &found)
}
