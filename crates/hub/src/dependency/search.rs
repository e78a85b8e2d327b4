//! The search for source entities that changes of joined datasets concern.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringTreemap;
use tahini_dtl::Side;
use tahini_entity::folded::FoldedMap;
use tahini_entity::{Batch, Entity, Value, order};
use tahini_store::{Ask, Hit, Limit, Seq, Snapshot, StoreError, View};

use super::ways::{Target, There};
use super::{Since, Tracking};
use crate::lookup::version_of;
use crate::places::seq_of;
use crate::{Cancel, Failure, Source};

/// How many changed versions are looked at together.
const CHANGES: Limit = Limit {
    rows: 1_000,
    bytes: 8 << 20,
};
/// How many entities on the way are in memory together.
const AT_ONCE: usize = 256;
/// Keys that are looked up together, and the versions that one question gives of each.
const KEYS: usize = 1_000;
const HITS: usize = 100_000;
/// Members that are counted of each item of a tuple; more are as good as that many.
const COUNTED: usize = 1_000;
const HISTORY: View = View {
    history: true,
    deleted: true,
};

/// Versions by dataset.
pub(crate) type Versions = BTreeMap<String, RoaringTreemap>;

/// The source entities that have to go through the pipe again, as versions by dataset.
#[derive(Debug, Default)]
pub(crate) struct Affected {
    /// The versions in each dataset of the source.
    versions: Versions,
    /// The same by the joined dataset that changed; each stands where it was found first.
    pub(crate) because: Vec<(String, Versions)>,
    /// What people should know.
    pub(crate) warnings: Vec<String>,
}

impl Affected {
    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.versions.values().map(RoaringTreemap::len).sum()
    }
}

/// A search under way.
pub(crate) struct Search<'a> {
    tracking: &'a Tracking<'a>,
    source: &'a dyn Source,
    /// The first version of each dataset of the source that this run has read.
    read_from: &'a dyn Fn(&str) -> Seq,
    cancel: &'a Cancel,
    /// No more than these are looked for.
    most: u64,
    /// What was come to at each place.
    seen: Vec<RoaringTreemap>,
    todo: Vec<(usize, Vec<Seq>)>,
    found: Affected,
    lost: u64,
    /// By which item of a tuple members are looked for, by the join and the tuple.
    chosen: HashMap<String, FoldedMap<u128, usize>>,
}

impl<'a> Search<'a> {
    /// A search that ends early once it has found more than `most`.
    pub(crate) fn new(
        tracking: &'a Tracking<'a>,
        source: &'a dyn Source,
        read_from: &'a dyn Fn(&str) -> Seq,
        cancel: &'a Cancel,
        most: u64,
    ) -> Search<'a> {
        Search {
            tracking,
            source,
            read_from,
            cancel,
            most,
            seen: vec![RoaringTreemap::new(); tracking.ways.places.len()],
            todo: Vec::new(),
            found: Affected::default(),
            lost: 0,
            chosen: HashMap::new(),
        }
    }

    /// Follows every joined dataset from where the pipe has come to.
    ///
    /// # Errors
    /// When a dataset cannot be read, or the run is stopped.
    pub(crate) fn run(mut self) -> Result<Affected, Failure> {
        for dataset in self.tracking.ways.datasets() {
            let before = self.found.versions.clone();
            match (self.tracking.since(dataset), self.tracking.view(dataset)) {
                (Since::After(since), Some(view)) => self.dataset(dataset, view, since)?,
                (Since::Other, _) => self.found.warnings.push(format!(
                    "the dataset {dataset:?} is another one than before, so that nobody knows what \
                     changed in it: a rescan puts everything through the pipe again"
                )),
                (Since::After(_) | Since::New, _) => {}
            }
            let mut more = self.found.versions.clone();
            for (source, versions) in &mut more {
                *versions -= before.get(source).unwrap_or(&RoaringTreemap::new());
            }
            self.found.because.push((dataset.to_owned(), more));
            if self.has_enough() {
                break;
            }
        }
        if self.lost > 0 {
            self.found.warnings.push(format!(
                "{} versions that were joined before are gone, so that nobody knows what they were \
                 joined with; `compaction.keep_versions` has to be at least 2 for that",
                self.lost
            ));
        }
        Ok(self.found)
    }

    fn has_enough(&self) -> bool {
        self.found.len() > self.most
    }

    /// Follows what a dataset has got since.
    fn dataset(
        &mut self,
        dataset: &str,
        view: &dyn Snapshot,
        since: Option<Seq>,
    ) -> Result<(), Failure> {
        let mut after = since;
        loop {
            self.cancel.check()?;
            let mut changed = Batch::new();
            let next = view.changes(after, HISTORY, CHANGES, &mut changed)?;
            let mut old: Vec<Seq> = changed
                .iter()
                .filter_map(|record| record.meta.previous)
                .filter(|previous| since.is_some_and(|since| *previous <= since))
                .collect();
            old.sort_unstable();
            let mut before = Batch::new();
            let found = view.at(&old, &mut before)?;
            self.lost += found.iter().filter(|found| !**found).count() as u64;
            let all = changed.iter().chain(before.iter());
            let living = all.filter(|record| !record.meta.deleted);
            let entities: Vec<Entity> = living.map(|record| record.to_entity()).collect();
            let places = self.tracking.ways.places.iter().enumerate();
            let here = places.filter(|(_, place)| place.tracked && place.dataset == dataset);
            for (at, _) in here {
                self.step(at, &entities)?;
                self.go_on()?;
            }
            match next {
                Some(seq) if !self.has_enough() => after = Some(seq),
                _ => return Ok(()),
            }
        }
    }

    /// Follows what was come to, until it ends at the source.
    fn go_on(&mut self) -> Result<(), Failure> {
        while let Some((place, seqs)) = self.todo.pop() {
            let dataset = self.tracking.ways.places[place].dataset.as_str();
            let Some(view) = self.tracking.view(dataset) else {
                continue;
            };
            for some in seqs.chunks(AT_ONCE) {
                self.cancel.check()?;
                let mut batch = Batch::new();
                view.at(some, &mut batch)?;
                let living = batch.iter().filter(|record| !record.meta.deleted);
                let entities: Vec<Entity> = living.map(|record| record.to_entity()).collect();
                self.step(place, &entities)?;
                if self.has_enough() {
                    self.todo.clear();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes every step back from entities of a place.
    fn step(&mut self, place: usize, entities: &[Entity]) -> Result<(), Failure> {
        for back in self.tracking.ways.back(place) {
            let keys = keys(&back.own, entities);
            if keys.is_empty() {
                continue;
            }
            match &back.to {
                Target::Place(at) => {
                    let dataset = self.tracking.ways.places[*at].dataset.as_str();
                    let Some(view) = self.tracking.view(dataset) else {
                        continue;
                    };
                    let mut found = RoaringTreemap::new();
                    find(view, &back.there, &keys, Ask::LATEST, |seq| {
                        found.insert(seq);
                    })?;
                    found -= &self.seen[*at];
                    self.seen[*at] |= &found;
                    if !found.is_empty() {
                        self.todo.push((*at, found.into_iter().collect()));
                    }
                }
                Target::Source(dataset) => match &back.there {
                    There::Items(items) => {
                        for (there, keys) in self.by_items(items, &keys)? {
                            self.arrive(dataset, there, &keys)?;
                        }
                    }
                    there => self.arrive(dataset, there, &keys)?,
                },
            }
        }
        Ok(())
    }

    /// Takes the source entities that have one of the keys, as the source has given them.
    fn arrive(&mut self, dataset: &str, there: &There, keys: &Keys) -> Result<(), Failure> {
        let Some((view, until)) = self.source.view(dataset) else {
            return Ok(());
        };
        let from = (self.read_from)(dataset);
        let versions = self.found.versions.entry(dataset.to_owned()).or_default();
        if until >= view.head().next {
            find(view, there, keys, Ask::LATEST, |seq| {
                // What this run has read is joined with what is there now.
                if seq < from {
                    versions.insert(seq);
                }
            })?;
            return Ok(());
        }
        // The source holds newer versions back: the last one that it gave counts.
        let ask = Ask {
            history: true,
            ..Ask::LATEST
        };
        let mut hits = RoaringTreemap::new();
        find(view, there, keys, ask, |seq| {
            hits.insert(seq);
        })?;
        let hits: Vec<Seq> = hits.into_iter().collect();
        for some in hits.chunks(AT_ONCE) {
            let mut batch = Batch::new();
            view.at(some, &mut batch)?;
            let mut ids: Vec<&str> = batch.iter().filter_map(|record| record.id).collect();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                let given = as_of(view, id, until)?;
                versions.extend(given.filter(|seq| *seq < from));
            }
        }
        Ok(())
    }
}

impl Search<'_> {
    /// The items of tuples by which members are looked for. What has a tuple has each item of it from
    /// one of its members, so that any of them leads to it: it is the one that the fewest have, and
    /// the same in all datasets of the source, since members of one may be in several.
    fn by_items<'t>(
        &mut self,
        items: &'t [(usize, There)],
        keys: &Keys,
    ) -> Result<Vec<(&'t There, Keys)>, StoreError> {
        let name = |(nth, there): &(usize, There)| format!("{nth} {:?}", there.fingerprint());
        let name: String = items.iter().map(name).collect();
        let mut chosen = self.chosen.remove(&name).unwrap_or_default();
        let unknown: Vec<(u128, &Value)> = keys
            .iter()
            .filter(|(hash, _)| !chosen.contains_key(*hash))
            .map(|(hash, key)| (*hash, key))
            .collect();
        for some in unknown.chunks(KEYS) {
            let mut counts = Vec::new();
            for (nth, there) in items {
                counts.push(self.members_with(*nth, there, some)?);
            }
            for (at, (hash, _)) in some.iter().enumerate() {
                let least = (0..items.len()).min_by_key(|item| counts[*item][at]);
                chosen.insert(*hash, least.unwrap_or_default());
            }
        }
        let mut by: Vec<(&There, Keys)> = Vec::new();
        for (which, (nth, there)) in items.iter().enumerate() {
            let own = keys.iter().filter(|(hash, _)| chosen[*hash] == which);
            let own = own.filter_map(|(_, key)| item(key, *nth));
            by.push((there, own.collect()));
        }
        self.chosen.insert(name, chosen);
        Ok(by)
    }

    /// How many members have an item of each of these keys, in all datasets of the source.
    fn members_with(
        &self,
        nth: usize,
        there: &There,
        keys: &[(u128, &Value)],
    ) -> Result<Vec<usize>, StoreError> {
        let mut counts = vec![0; keys.len()];
        let items: Vec<Option<u128>> = keys
            .iter()
            .map(|(_, key)| item(key, nth).map(|(hash, _)| hash))
            .collect();
        let mut hashes: Vec<u128> = items.iter().flatten().copied().collect();
        hashes.sort_unstable();
        hashes.dedup();
        let ask = Ask {
            limit: COUNTED,
            ..Ask::LATEST
        };
        for dataset in self.tracking.ways.sources() {
            let (Some((view, _)), Some(fingerprint)) =
                (self.source.view(dataset), there.fingerprint())
            else {
                continue;
            };
            let mut hits = Vec::new();
            // One that is being built says nothing: then all are as good.
            view.find(&fingerprint, &hashes, &ask, &mut hits)?;
            let mut of: FoldedMap<u128, usize> = FoldedMap::default();
            for hit in hits {
                *of.entry(hashes[hit.of]).or_default() += 1;
            }
            for (count, item) in counts.iter_mut().zip(&items) {
                *count += item.and_then(|item| of.get(&item)).copied().unwrap_or(0);
            }
        }
        Ok(counts)
    }
}

/// The nth item of a tuple, by its hash.
fn item(key: &Value, nth: usize) -> Option<(u128, Value)> {
    match key {
        Value::Tuple(items) => items.get(nth).map(|item| (order::key(item), item.clone())),
        _ => None,
    }
}

/// Keys by their hash.
type Keys = FoldedMap<u128, Value>;

fn keys(side: &Side, entities: &[Entity]) -> Keys {
    let mut keys = Keys::default();
    let mut values = Vec::new();
    for entity in entities {
        match side {
            Side::Id => values.extend(entity.id.clone().map(Value::String)),
            Side::Index(index) => index.keys(entity, &mut values),
        }
        let hashed = values.drain(..).map(|value| (order::key(&value), value));
        keys.extend(hashed);
    }
    keys
}

/// Calls `take` with the versions in this view that have one of the keys. They may be deleted.
fn find(
    view: &dyn Snapshot,
    there: &There,
    keys: &Keys,
    ask: Ask,
    mut take: impl FnMut(Seq),
) -> Result<(), StoreError> {
    let Some(fingerprint) = there.fingerprint() else {
        let keys = keys.values().filter_map(Value::as_str);
        let mut ids: Vec<&str> = keys.flat_map(|key| there.ids(key)).collect();
        ids.sort_unstable();
        ids.dedup();
        for some in ids.chunks(KEYS) {
            let mut latest = Batch::new();
            view.latest(some, &mut latest)?;
            latest
                .iter()
                .filter_map(|record| seq_of(&record))
                .for_each(&mut take);
        }
        return Ok(());
    };
    let mut hashes: Vec<u128> = keys.keys().copied().collect();
    hashes.sort_unstable();
    for some in hashes.chunks(KEYS) {
        if !by_index(view, &fingerprint, some, ask, &mut take)? {
            return scan(view, there, keys, ask.history, take);
        }
    }
    Ok(())
}

/// `false` where the index does not answer; some may have been taken then.
fn by_index(
    view: &dyn Snapshot,
    fingerprint: &str,
    keys: &[u128],
    ask: Ask,
    take: &mut impl FnMut(Seq),
) -> Result<bool, StoreError> {
    let ask = Ask { limit: HITS, ..ask };
    let mut hits: Vec<Hit> = Vec::new();
    if !view.find(fingerprint, keys, &ask, &mut hits)? {
        return Ok(false);
    }
    for of_one in hits.chunk_by(|one, two| one.of == two.of) {
        of_one.iter().for_each(|hit| take(hit.seq));
        let (mut count, mut last) = (of_one.len(), of_one.last().copied());
        while let Some(hit) = last.filter(|_| count >= HITS) {
            let from = Some(hit.seq);
            let mut more = Vec::new();
            let key = [keys[hit.of]];
            if !view.find(fingerprint, &key, &Ask { from, ..ask }, &mut more)? {
                return Ok(false);
            }
            more.iter().for_each(|hit| take(hit.seq));
            count = more.len();
            last = more.last().map(|last| Hit {
                of: hit.of,
                ..*last
            });
        }
    }
    Ok(true)
}

/// The same by looking at everything, while the index is being built.
fn scan(
    view: &dyn Snapshot,
    there: &There,
    keys: &Keys,
    history: bool,
    mut take: impl FnMut(Seq),
) -> Result<(), StoreError> {
    let living = View {
        history,
        deleted: false,
    };
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let mut batch = Batch::new();
        let next = view.changes(after, living, CHANGES, &mut batch)?;
        for record in batch.iter() {
            found.clear();
            there.keys(record, &mut found);
            if found.iter().any(|key| keys.contains_key(key)) {
                seq_of(&record).into_iter().for_each(&mut take);
            }
        }
        match next {
            Some(seq) => after = Some(seq),
            None => return Ok(()),
        }
    }
}

/// The last version of an id before `until`.
fn as_of(view: &dyn Snapshot, id: &str, until: Seq) -> Result<Option<Seq>, StoreError> {
    let mut latest = Batch::new();
    view.latest(&[id], &mut latest)?;
    let Some(record) = latest.iter().next() else {
        return Ok(None);
    };
    let (mut at, mut previous) = (seq_of(&record), record.meta.previous);
    while at.is_some_and(|seq| seq >= until) {
        at = previous;
        let Some(seq) = at.filter(|seq| *seq >= until) else {
            break;
        };
        previous = version_of(view, id, seq)?.and_then(|version| version.previous);
    }
    Ok(at)
}
