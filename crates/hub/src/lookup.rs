//! Looking things up in the datasets of the store, for rules.
//!
//! What a batch misses is asked for together, and costs reads of indexes. While a join's index is
//! still being built, its dataset is read once for all the values that the batch joins.

mod kept;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tahini_dtl::{By, Index, Lookup, LookupError, Need};
use tahini_entity::folded::FoldedMap;
use tahini_entity::{Batch, Datetime, Dict, Entity, Value, order};
use tahini_store::{Ask, Backend, Limit, Snapshot, StoreError, View};

use crate::places::seq_of;
use crate::{Cancel, Ctx, Failure, Known, completeness, indexes};
use kept::Kept;

/// The datasets of a store, as the rules of one pipe see them.
pub(crate) struct Datasets {
    store: Arc<dyn Backend>,
    /// The dataset that the pipe reads, if it reads one.
    source: Option<String>,
    known: Arc<Known>,
    cancel: Cancel,
    /// What was looked up before, by dataset.
    kept: RefCell<HashMap<String, Kept>>,
}

/// How much of a joined dataset is in memory at a time.
const SCAN: Limit = Limit {
    rows: 1_000,
    bytes: 8 << 20,
};

/// What a fetch asks of one dataset; needs are told by their place.
#[derive(Default)]
struct Asked<'a> {
    ids: Vec<(&'a str, usize)>,
    /// By the fingerprint of the index.
    joins: BTreeMap<&'a str, Join<'a>>,
    previous: Vec<(&'a str, u64, usize)>,
    /// The datasets whose completeness is asked for.
    completeness: Vec<(&'a str, usize)>,
}

/// All values that one index is asked for, by their hash.
struct Join<'a> {
    index: &'a Index,
    values: FoldedMap<u128, (&'a Value, usize)>,
}

type Answers = Vec<Vec<Arc<Entity>>>;

impl Datasets {
    /// The datasets for the pipe of a component.
    pub(crate) fn of(ctx: &Ctx<'_>) -> Datasets {
        let source = ctx.whole.get("source");
        let dataset = source.and_then(|source| source["dataset"].as_str());
        Datasets {
            store: Arc::clone(ctx.store),
            source: dataset.map(str::to_owned),
            known: Arc::clone(ctx.known),
            cancel: ctx.cancel.clone(),
            kept: RefCell::default(),
        }
    }

    fn asked<'a>(
        &'a self,
        needs: &[Need<'a>],
    ) -> Result<BTreeMap<&'a str, Asked<'a>>, LookupError> {
        let mut asked: BTreeMap<&str, Asked<'_>> = BTreeMap::new();
        for (at, need) in needs.iter().enumerate() {
            match need.by {
                By::Id(id) => asked.entry(need.dataset).or_default().ids.push((id, at)),
                By::Key(index, value) => {
                    let joins = &mut asked.entry(need.dataset).or_default().joins;
                    let join = joins.entry(index.fingerprint()).or_insert_with(|| Join {
                        index,
                        values: FoldedMap::default(),
                    });
                    join.values.insert(order::key(value), (value, at));
                }
                By::Previous { id, version } => {
                    // Without a dataset there is nothing before.
                    if let Some(source) = self.source.as_deref() {
                        let previous = &mut asked.entry(source).or_default().previous;
                        previous.push((id, version, at));
                    }
                }
                By::Completeness(of) => {
                    let all = &mut asked.entry(need.dataset).or_default().completeness;
                    all.push((of, at));
                }
            }
        }
        Ok(asked)
    }

    fn answer(
        &self,
        dataset: &str,
        asked: &mut Asked<'_>,
        answers: &mut Answers,
    ) -> Result<(), Failure> {
        if !asked.completeness.is_empty() {
            self.answer_completeness(dataset, &asked.completeness, answers)?;
        }
        let Some(found) = self.store.find(dataset)? else {
            return Ok(());
        };
        let snapshot = found.snapshot()?;
        let mut all = self.kept.borrow_mut();
        if !all.contains_key(dataset) {
            all.insert(dataset.to_owned(), Kept::default());
        }
        let Some(kept) = all.get_mut(dataset) else {
            return Ok(());
        };
        kept.meet(snapshot.head());
        by_id(snapshot.as_ref(), &mut asked.ids, kept, answers)?;
        for (id, version, at) in &asked.previous {
            answers[*at].extend(version_of(snapshot.as_ref(), id, *version)?);
        }
        let mut unindexed = BTreeMap::new();
        for (fingerprint, mut join) in std::mem::take(&mut asked.joins) {
            let known = kept.joins(fingerprint);
            join.values.retain(|hash, (value, at)| {
                let known = known.and_then(|known| known.of(*hash, value));
                answers[*at].extend_from_slice(known.unwrap_or_default());
                known.is_none()
            });
            if !by_index(snapshot.as_ref(), &join, kept, answers)? {
                unindexed.insert(fingerprint, join);
            }
        }
        if !unindexed.is_empty() {
            self.join(snapshot.as_ref(), &unindexed, answers)?;
        }
        Ok(())
    }

    /// Others may have heard of a dataset that is gone; it has no completeness all the same.
    fn answer_completeness(
        &self,
        via: &str,
        asked: &[(&str, usize)],
        answers: &mut Answers,
    ) -> Result<(), Failure> {
        let values = completeness::of(self.store.as_ref(), &self.known, via)?;
        for (of, at) in asked {
            let is_there = via == *of || self.store.find(of)?.is_some();
            let value = values.get(*of).filter(|_| is_there).copied();
            let nanosecond = value.map(|micros| i128::from(micros) * 1_000);
            if let Some(moment) = nanosecond.and_then(Datetime::from_nanosecond) {
                let mut properties = Dict::new();
                properties.push_new("completeness", Value::Datetime(moment));
                answers[*at].push(Arc::new(Entity {
                    properties,
                    ..Entity::default()
                }));
            }
        }
        Ok(())
    }

    /// Reads the dataset once and hands out its entities by their keys.
    fn join(
        &self,
        snapshot: &dyn Snapshot,
        joins: &BTreeMap<&str, Join<'_>>,
        answers: &mut Answers,
    ) -> Result<(), StoreError> {
        let view = View {
            history: false,
            deleted: false,
        };
        let (mut after, mut found, mut keys) = (None, Batch::new(), Vec::new());
        loop {
            found.clear();
            let next = snapshot.changes(after, view, SCAN, &mut found)?;
            for record in found.iter() {
                let entity = Arc::new(record.to_entity());
                for join in joins.values() {
                    keys.clear();
                    join.index.keys(&entity, &mut keys);
                    for key in &keys {
                        let wanted = join.values.get(&order::key(key));
                        if let Some((value, at)) = wanted
                            && order::eq(value, key)
                        {
                            answers[*at].push(Arc::clone(&entity));
                        }
                    }
                }
            }
            match next {
                // A stopped run does not care for what is missing.
                Some(seq) if !self.cancel.is_cancelled() => after = Some(seq),
                _ => break,
            }
        }
        for (_, at) in joins.values().flat_map(|join| join.values.values()) {
            answers[*at].sort_by(|a, b| a.id.cmp(&b.id));
        }
        Ok(())
    }
}

impl Lookup for Datasets {
    fn fetch(&self, needs: &[Need<'_>]) -> Result<Answers, LookupError> {
        let mut answers = vec![Vec::new(); needs.len()];
        for (dataset, mut asked) in self.asked(needs)? {
            self.answer(dataset, &mut asked, &mut answers)
                .map_err(|error| LookupError {
                    message: format!("dataset {dataset:?} cannot be read: {error}"),
                })?;
        }
        if self.cancel.is_cancelled() {
            let message = "the run was stopped on request".to_owned();
            return Err(LookupError { message });
        }
        Ok(answers)
    }
}

/// The index is read in the order of its keys.
fn by_id(
    snapshot: &dyn Snapshot,
    wanted: &mut Vec<(&str, usize)>,
    kept: &mut Kept,
    answers: &mut Answers,
) -> Result<(), StoreError> {
    wanted.retain(|(id, at)| match kept.id(id) {
        Some(known) => {
            answers[*at].extend(known.clone());
            false
        }
        None => true,
    });
    if wanted.is_empty() {
        return Ok(());
    }
    wanted.sort_unstable();
    let ids: Vec<&str> = wanted.iter().map(|(id, _)| *id).collect();
    let mut latest = Batch::new();
    let found = snapshot.latest(&ids, &mut latest)?;
    let mut records = latest.iter();
    for ((id, at), found) in wanted.iter().zip(found) {
        let record = if found { records.next() } else { None };
        let living = record.filter(|record| !record.meta.deleted);
        let entity = living.map(|record| Arc::new(record.to_entity()));
        kept.keep_id(id, entity.clone());
        answers[*at].extend(entity);
    }
    kept.weigh(latest.bytes());
    Ok(())
}

/// Looks the values of a join up in its index; `false` where there is none that answers.
fn by_index(
    snapshot: &dyn Snapshot,
    join: &Join<'_>,
    kept: &mut Kept,
    answers: &mut Answers,
) -> Result<bool, StoreError> {
    if join.values.is_empty() {
        return Ok(true);
    }
    let mut values: Vec<(u128, &Value, usize)> = join
        .values
        .iter()
        .map(|(key, (value, at))| (*key, *value, *at))
        .collect();
    values.sort_unstable_by_key(|(key, ..)| *key);
    let keys: Vec<u128> = values.iter().map(|(key, ..)| *key).collect();
    let mut hits = Vec::new();
    let fingerprint = indexes::fingerprint(join.index, None);
    if !snapshot.find(&fingerprint, &keys, &Ask::LATEST, &mut hits)? {
        return Ok(false);
    }
    hits.sort_unstable_by_key(|hit| hit.seq);
    let mut own = Vec::new();
    for some in hits
        .chunk_by(|one, two| one.seq == two.seq)
        .collect::<Vec<_>>()
        .chunks(SCAN.rows)
    {
        let seqs: Vec<u64> = some.iter().map(|hits| hits[0].seq).collect();
        let mut versions = Batch::new();
        let found = snapshot.at(&seqs, &mut versions)?;
        kept.weigh(versions.bytes());
        let there = some.iter().zip(found).filter(|(_, found)| *found);
        for ((hits, _), record) in there.zip(versions.iter()) {
            if record.meta.deleted {
                continue;
            }
            let entity = Arc::new(record.to_entity());
            own.clear();
            join.index.keys(&entity, &mut own);
            for hit in *hits {
                let (_, value, at) = values[hit.of];
                // Two values may share a key.
                if own.iter().any(|key| order::eq(value, key)) {
                    answers[at].push(Arc::clone(&entity));
                }
            }
        }
    }
    let mut joins = kept.keep_joins(join.index.fingerprint());
    for (hash, value, at) in values {
        answers[at].sort_by(|a, b| a.id.cmp(&b.id));
        joins.keep(hash, value, &answers[at]);
    }
    Ok(true)
}

/// The version with that sequence number, if it is one of that entity.
pub(crate) fn version_of(
    snapshot: &dyn Snapshot,
    id: &str,
    version: u64,
) -> Result<Option<Arc<Entity>>, StoreError> {
    let view = View {
        history: true,
        deleted: true,
    };
    let one = Limit {
        rows: 1,
        bytes: usize::MAX,
    };
    let mut found = Batch::new();
    snapshot.changes(version.checked_sub(1), view, one, &mut found)?;
    let found = found.iter().next();
    let found = found.filter(|record| record.id == Some(id) && seq_of(record) == Some(version));
    Ok(found.map(|record| Arc::new(record.to_entity())))
}
