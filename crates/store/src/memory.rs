//! Datasets in memory: for tests and for `tahini test`. Nothing survives the process.

mod keyed;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use roaring::RoaringTreemap;
use tahini_entity::{Batch, Meta, Offset, Shape, Str, hash};

use crate::compaction::Line;
use crate::content::Content;
use crate::keys::{index_key, state_key};
use crate::rule::{self, Prior, Verdict};
use crate::{
    Ask, Backend, Commit, Compacted, Compaction, Dataset, Declared, Head, Hit, IndexState, Limit,
    Outcome, Seq, Show, Snapshot, StateRows, StateWrite, StoreError, Ticket, View,
};
use keyed::Keyed;

/// A store in memory.
#[derive(Default)]
pub struct Memory {
    datasets: Mutex<BTreeMap<String, Arc<MemoryDataset>>>,
    declared: Mutex<Declared>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Memory {
        Memory::default()
    }

    fn fresh(&self, name: &str) -> MemoryDataset {
        let dataset = MemoryDataset::new(name);
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let defs = declared.get(name).map_or(&[][..], Vec::as_slice);
        dataset.write().keyed.declare(defs);
        dataset
    }

    fn named(&self, name: &str) -> Option<Arc<MemoryDataset>> {
        let datasets = self.datasets.lock().unwrap_or_else(PoisonError::into_inner);
        datasets.get(name).cloned()
    }
}

impl Backend for Memory {
    fn open(&self, name: &str, create: bool) -> Result<Arc<dyn Dataset>, StoreError> {
        if !create {
            let found = self
                .named(name)
                .ok_or_else(|| StoreError::Missing(name.to_owned()))?;
            return Ok(found);
        }
        let mut datasets = self.datasets.lock().unwrap_or_else(PoisonError::into_inner);
        let dataset = datasets
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(self.fresh(name)));
        Ok(Arc::clone(dataset) as Arc<dyn Dataset>)
    }

    fn find(&self, name: &str) -> Result<Option<Arc<dyn Dataset>>, StoreError> {
        Ok(self.named(name).map(|dataset| dataset as Arc<dyn Dataset>))
    }

    fn list(&self) -> Result<Vec<Head>, StoreError> {
        let datasets = self.datasets.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(datasets
            .values()
            .map(|dataset| dataset.read().visible().0.clone())
            .collect())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let mut datasets = self.datasets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dataset) = datasets.remove(name) {
            dataset.write().removed = true;
        }
        Ok(())
    }

    fn declare(&self, indexes: Declared) {
        let datasets = self.datasets.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, dataset) in datasets.iter() {
            let defs = indexes.get(name).map_or(&[][..], Vec::as_slice);
            dataset.write().keyed.declare(defs);
        }
        *self.declared.lock().unwrap_or_else(PoisonError::into_inner) = indexes;
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct MemoryDataset {
    name: String,
    all: Arc<RwLock<All>>,
}

/// Every version ever written. Snapshots are positions in it.
struct All {
    head: Head,
    /// Commits so far; state is kept per commit for as long as a snapshot needs it.
    commits: u64,
    /// By sequence; `None` where compaction took one.
    versions: Vec<Option<Version>>,
    /// Index key to the sequences of the id's versions, oldest first.
    ids: BTreeMap<Vec<u8>, Vec<Seq>>,
    /// State key to its values by commit.
    state: BTreeMap<Vec<u8>, Vec<StateAt>>,
    /// Where living snapshots stand, and how many at each place.
    readers: Readers,
    keyed: Keyed,
    removed: bool,
    /// What readers see while commits are held back.
    held: Option<Held>,
    /// How often what was held back was taken back.
    cuts: u64,
}

/// A dataset before what it holds back.
struct Held {
    head: Head,
    commits: u64,
}

/// The next sequence of living snapshots, and how many there are of each.
type Readers = Arc<Mutex<BTreeMap<Seq, usize>>>;

/// A commit and what a state key held after it.
type StateAt = (u64, Option<Vec<u8>>);

struct Version {
    id: Str,
    shape: Arc<Shape>,
    body: Box<[u8]>,
    meta: Meta,
    /// The next version of the same id.
    successor: Option<Seq>,
}

impl MemoryDataset {
    fn new(name: &str) -> MemoryDataset {
        let head = Head {
            name: name.to_owned(),
            generation: uuid::Uuid::new_v4(),
            next: 0,
            live: 0,
            deleted: 0,
            populated: false,
            bytes: 0,
            last_ts: 0,
            holds: false,
            past: Vec::new(),
        };
        let all = All {
            head,
            commits: 0,
            versions: Vec::new(),
            ids: BTreeMap::new(),
            state: BTreeMap::new(),
            readers: Readers::default(),
            keyed: Keyed::default(),
            removed: false,
            held: None,
            cuts: 0,
        };
        MemoryDataset {
            name: name.to_owned(),
            all: Arc::new(RwLock::new(all)),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, All> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, All> {
        write(&self.all)
    }

    fn at(&self, all: &All, head: &Head, commits: u64, uncommitted: bool) -> MemorySnapshot {
        let mut readers = all.readers.lock().unwrap_or_else(PoisonError::into_inner);
        *readers.entry(head.next).or_default() += 1;
        MemorySnapshot {
            cuts: (uncommitted && head.holds).then_some(all.cuts),
            head: head.clone(),
            commits,
            all: Arc::clone(&self.all),
            readers: Arc::clone(&all.readers),
        }
    }

    fn present(&self) -> Result<RwLockWriteGuard<'_, All>, StoreError> {
        let all = self.write();
        match all.removed {
            true => Err(StoreError::Missing(self.name.clone())),
            false => Ok(all),
        }
    }
}

fn write(all: &RwLock<All>) -> RwLockWriteGuard<'_, All> {
    all.write().unwrap_or_else(PoisonError::into_inner)
}

impl Dataset for MemoryDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let all = self.read();
        let (head, commits) = all.visible();
        Ok(Box::new(self.at(&all, head, commits, false)))
    }

    fn uncommitted(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let all = self.read();
        Ok(Box::new(self.at(&all, &all.head, all.commits, true)))
    }

    fn commit(&self, commit: Commit<'_>) -> Result<(Outcome, Ticket), StoreError> {
        rule::check_state(commit.state)?;
        let mut all = self.present()?;
        if all.held.is_some() && commit.show == Show::Now {
            return Err(rule::held_back(&self.name));
        }
        let verdicts = all.judge(&commit)?;
        let changes = verdicts.contains(&Verdict::Write)
            || !commit.state.is_empty()
            || commit.note.is_some()
            || commit.populated && !all.head.populated;
        match commit.show {
            Show::Later if changes => all.hold(),
            Show::All => all.show(),
            _ => {}
        }
        let outcome = all.apply(&commit, &verdicts);
        Ok((outcome, Ticket::new(|| Ok(()))))
    }

    fn compact(&self, rules: &Compaction<'_>) -> Result<Compacted, StoreError> {
        let mut all = self.present()?;
        if all.held.is_some() {
            return Err(rule::held_back(&self.name));
        }
        let done = all.compact(rules)?;
        all.index_what_is_left();
        Ok(done)
    }

    fn indexes(&self) -> Result<Vec<IndexState>, StoreError> {
        let mut all = self.present()?;
        all.index();
        Ok(all.keyed.states())
    }

    fn rebuild_index(&self, number: u32) -> Result<bool, StoreError> {
        Ok(self.present()?.keyed.rebuild(number))
    }

    fn roll_back(&self) -> Result<(), StoreError> {
        let mut all = self.write();
        if all.removed {
            return Err(StoreError::Missing(self.name.clone()));
        }
        all.roll_back();
        Ok(())
    }
}

impl All {
    /// What readers see.
    fn visible(&self) -> (&Head, u64) {
        match &self.held {
            Some(held) => (&held.head, held.commits),
            None => (&self.head, self.commits),
        }
    }

    fn hold(&mut self) {
        self.head.holds = true;
        let (head, commits) = (self.head.clone(), self.commits);
        self.held.get_or_insert(Held { head, commits });
    }

    fn show(&mut self) {
        self.head.holds = false;
        self.held = None;
    }

    fn roll_back(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        self.head = Head {
            holds: false,
            ..held.head
        };
        self.commits = held.commits;
        self.cuts += 1;
        let next = self.head.next;
        self.versions.truncate(next as usize);
        for version in self.versions.iter_mut().flatten() {
            version.successor = version.successor.filter(|seq| *seq < next);
        }
        self.ids.retain(|_, seqs| {
            seqs.retain(|seq| *seq < next);
            !seqs.is_empty()
        });
        self.state.retain(|_, values| {
            values.retain(|(commit, _)| *commit <= held.commits);
            !values.is_empty()
        });
    }

    /// Judges every row before any is written, so that a refusal leaves nothing behind.
    fn judge(&self, commit: &Commit<'_>) -> Result<Vec<Verdict>, StoreError> {
        let mut fresh: HashMap<&str, Prior> = HashMap::new();
        let mut next = self.head.next;
        let mut verdicts = Vec::with_capacity(commit.rows.len());
        for at in 0..commit.rows.len() {
            let record = commit.rows.get(at);
            let id = rule::row_id(at, &record)?;
            let prior = fresh.get(id).copied().or_else(|| self.prior(id));
            let hash = rule::half(record.hash());
            let verdict = rule::judge(commit.rule, id, &record, hash, prior.as_ref())?;
            if verdict == Verdict::Write {
                fresh.insert(
                    id,
                    Prior {
                        seq: next,
                        hash,
                        deleted: record.meta.deleted,
                    },
                );
                next += 1;
            }
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    fn apply(&mut self, commit: &Commit<'_>, verdicts: &[Verdict]) -> Outcome {
        let mut outcome = Outcome::default();
        for (record, verdict) in commit.rows.iter().zip(verdicts) {
            let id = record.id.expect("judged rows have an id");
            let latest = self.latest_seq(id);
            if *verdict == Verdict::Leave {
                outcome.unchanged += 1;
                outcome.seqs.push(latest);
                continue;
            }
            if record.meta.deleted {
                outcome.deleted += 1;
            } else {
                outcome.written += 1;
            }
            outcome.seqs.push(Some(self.push(
                id,
                &Content::of(&record),
                record.meta,
                commit.now,
            )));
        }
        self.commits += 1;
        self.head.populated |= commit.populated;
        let seqs = outcome.seqs.iter().flatten().copied();
        let noted = commit.note.and_then(|note| note.write(seqs));
        for write in commit.state.iter().chain(&noted) {
            self.set_state(write);
        }
        outcome
    }

    fn push(&mut self, id: &str, content: &Content<'_>, meta: &Meta, now: i64) -> Seq {
        let hash = hash::content(Some(id), meta.deleted, &content.shape, &content.body);
        let seq = self.head.next;
        let previous = self.latest_seq(id);
        if let Some(previous) = previous {
            let version = self.versions[previous as usize].as_mut();
            let version = version.expect("the latest version is there");
            version.successor = Some(seq);
            *(if version.meta.deleted {
                &mut self.head.deleted
            } else {
                &mut self.head.live
            }) -= 1;
        }
        *(if meta.deleted {
            &mut self.head.deleted
        } else {
            &mut self.head.live
        }) += 1;
        let ts = if seq == 0 {
            now
        } else {
            now.max(self.head.last_ts + 1)
        };
        self.versions.push(Some(Version {
            id: Str::from(id),
            shape: Arc::clone(&content.shape),
            body: content.body.as_ref().into(),
            meta: Meta {
                deleted: meta.deleted,
                filtered: false,
                reserved: false,
                updated: Some(Offset::Int(seq as i64)),
                previous,
                ts,
                hash: Some(hash),
            },
            successor: None,
        }));
        self.ids
            .entry(index_key(id.as_bytes()).into_owned())
            .or_default()
            .push(seq);
        self.head.next = seq + 1;
        self.head.last_ts = ts;
        self.head.bytes += (id.len() + content.body.len()) as u64;
        seq
    }

    fn compact(&mut self, rules: &Compaction<'_>) -> Result<Compacted, StoreError> {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = readers.keys().next().copied();
        drop(readers);
        let next = self.head.next;
        let line = Line::new(rules, oldest.map_or(next, |oldest| oldest.min(next)))?;
        let key = |id: &&str| index_key(id.as_bytes()).into_owned();
        let erase: HashSet<Vec<u8>> = rules.erase.iter().map(key).collect();
        let retract: HashSet<Vec<u8>> = rules.retract.iter().map(key).collect();
        let mut done = Compacted {
            finished: true,
            ..Compacted::default()
        };
        let mut ids = std::mem::take(&mut self.ids);
        ids.retain(|key, seqs| {
            let newest = seqs.last().and_then(|seq| self.at(*seq));
            let expired = newest.is_some_and(|newest| newest.expires(&line));
            let whole = expired || erase.contains(key);
            if whole {
                let deleted = newest.is_some_and(|newest| newest.meta.deleted);
                *(if deleted {
                    &mut self.head.deleted
                } else {
                    &mut self.head.live
                }) -= 1;
                done.ids += 1;
            }
            let retracted = retract.contains(key);
            done.finished &= !retracted || seqs.last().is_some_and(|newest| *newest < line.until);
            let gone = if whole {
                seqs.len()
            } else {
                self.surplus(seqs, &line, retracted)
            };
            for seq in seqs.drain(..gone) {
                self.versions[seq as usize] = None;
            }
            done.versions += gone as u64;
            !whole
        });
        self.ids = ids;
        Ok(done)
    }

    /// How many of an id's versions go, its oldest ones.
    fn surplus(&self, seqs: &[Seq], line: &Line, retracted: bool) -> usize {
        let settled = seqs.partition_point(|seq| *seq < line.until);
        let goes = |at: &usize| {
            let newer = settled - at - 1;
            let ts = self
                .at(seqs[*at])
                .map_or(i64::MIN, |version| version.meta.ts);
            (retracted && newer > 0) || line.goes(seqs[*at], ts, newer as u32)
        };
        (0..settled).take_while(goes).count()
    }

    fn set_state(&mut self, write: &StateWrite) {
        let readers = self.readers.lock();
        let watched = !readers.unwrap_or_else(PoisonError::into_inner).is_empty();
        let watched = watched || self.held.is_some();
        let values = self
            .state
            .entry(state_key(&write.space, &write.key))
            .or_default();
        if !watched {
            values.clear();
        }
        values.push((self.commits, write.value.clone()));
    }

    fn at(&self, seq: Seq) -> Option<&Version> {
        self.versions.get(seq as usize)?.as_ref()
    }

    fn latest_seq(&self, id: &str) -> Option<Seq> {
        self.ids
            .get(index_key(id.as_bytes()).as_ref())
            .and_then(|seqs| seqs.last().copied())
    }

    fn prior(&self, id: &str) -> Option<Prior> {
        let seq = self.latest_seq(id)?;
        let version = self.at(seq)?;
        Some(Prior {
            seq,
            hash: rule::half(version.meta.hash?),
            deleted: version.meta.deleted,
        })
    }
}

struct MemorySnapshot {
    head: Head,
    commits: u64,
    all: Arc<RwLock<All>>,
    readers: Readers,
    /// In a view with what is held back: how often that had been taken back before.
    cuts: Option<u64>,
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = readers.get_mut(&self.head.next) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.head.next);
            }
        }
    }
}

impl MemorySnapshot {
    fn all(&self) -> Result<RwLockReadGuard<'_, All>, StoreError> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        match self.cuts {
            Some(cuts) if cuts != all.cuts => Err(rule::rolled_back(&self.head.name)),
            _ => Ok(all),
        }
    }

    /// The newest of these sequences that this view knows.
    fn newest(&self, seqs: &[Seq]) -> Option<Seq> {
        let known = seqs.partition_point(|seq| *seq < self.head.next);
        known.checked_sub(1).map(|at| seqs[at])
    }

    fn wanted(&self, version: &Version, view: View) -> bool {
        let superseded = version.successor.is_some_and(|seq| seq < self.head.next);
        (view.history || !superseded) && (view.deleted || !version.meta.deleted)
    }

    /// Takes versions at `seqs` until the limit; returns the last one looked at if it stopped early.
    fn take(
        &self,
        seqs: impl Iterator<Item = Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let all = self.all()?;
        let (rows, bytes) = (out.len(), out.bytes());
        let mut last = None;
        for seq in seqs {
            if out.len() - rows >= limit.rows.max(1) || out.bytes() - bytes >= limit.bytes.max(1) {
                return Ok(last);
            }
            let Some(version) = all.at(seq) else {
                continue;
            };
            if self.wanted(version, view) {
                version.push_to(out);
            }
            last = Some(seq);
        }
        Ok(None)
    }
}

impl Version {
    fn expires(&self, line: &Line) -> bool {
        let seq = match self.meta.updated {
            Some(Offset::Int(seq)) => seq as Seq,
            _ => return false,
        };
        line.expires(seq, self.meta.ts, self.meta.deleted)
    }

    fn push_to(&self, out: &mut Batch) {
        out.push_encoded(Some(&self.id), &self.shape, &self.body, self.meta.clone());
    }
}

impl Snapshot for MemorySnapshot {
    fn head(&self) -> &Head {
        &self.head
    }

    fn latest(&self, ids: &[&str], out: &mut Batch) -> Result<Vec<bool>, StoreError> {
        let all = self.all()?;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let seqs = all.ids.get(index_key(id.as_bytes()).as_ref());
            let newest = seqs.and_then(|seqs| self.newest(seqs));
            let version = newest.and_then(|seq| all.at(seq));
            if let Some(version) = version {
                version.push_to(out);
            }
            found.push(version.is_some());
        }
        Ok(found)
    }

    fn changes(
        &self,
        after: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        self.take(from..self.head.next, view, limit, out)
    }

    fn changes_reversed(
        &self,
        before: Option<Seq>,
        view: View,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let until = before.unwrap_or(Seq::MAX).min(self.head.next);
        self.take((0..until).rev(), view, limit, out)
    }

    fn versions(&self, id: &str, out: &mut Batch) -> Result<(), StoreError> {
        let all = self.all()?;
        let seqs = all.ids.get(index_key(id.as_bytes()).as_ref());
        for seq in seqs
            .into_iter()
            .flatten()
            .take_while(|seq| **seq < self.head.next)
        {
            if let Some(version) = all.at(*seq) {
                version.push_to(out);
            }
        }
        Ok(())
    }

    fn unseen(
        &self,
        seen: &RoaringTreemap,
        after: Option<Seq>,
        limit: Limit,
        out: &mut Batch,
    ) -> Result<Option<Seq>, StoreError> {
        let all = self.all()?;
        let newest = all.ids.values().filter_map(|seqs| self.newest(seqs));
        let mut newest: Vec<Seq> = newest
            .filter(|seq| after.is_none_or(|after| *seq > after))
            .collect();
        newest.sort_unstable();
        let (rows, bytes) = (out.len(), out.bytes());
        let mut last = None;
        for seq in newest {
            if out.len() - rows >= limit.rows.max(1) || out.bytes() - bytes >= limit.bytes.max(1) {
                return Ok(last);
            }
            let Some(version) = all.at(seq) else {
                continue;
            };
            if !version.meta.deleted && !seen.contains(seq) {
                version.push_to(out);
            }
            last = Some(seq);
        }
        Ok(None)
    }

    fn at(&self, seqs: &[Seq], out: &mut Batch) -> Result<Vec<bool>, StoreError> {
        let all = self.all()?;
        let found = seqs.iter().map(|seq| {
            let version = all.at(*seq).filter(|_| *seq < self.head.next);
            version.map(|version| version.push_to(out)).is_some()
        });
        Ok(found.collect())
    }

    fn find(
        &self,
        fingerprint: &str,
        keys: &[u128],
        ask: &Ask,
        out: &mut Vec<Hit>,
    ) -> Result<bool, StoreError> {
        self.look_up(fingerprint, keys, ask, out)
    }

    fn state(&self, space: &str, prefix: &[u8]) -> Result<StateRows, StoreError> {
        Ok(self.state_page(space, prefix, None, usize::MAX)?.0)
    }

    fn state_page(
        &self,
        space: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<(StateRows, Option<Vec<u8>>), StoreError> {
        let all = self.all()?;
        let start = state_key(space, prefix);
        let behind = after.map(|after| state_key(space, after));
        let mut rows: StateRows = Vec::new();
        for (key, values) in all.state.range(start.clone()..) {
            if !key.starts_with(&start) {
                break;
            }
            if behind.as_ref().is_some_and(|behind| key <= behind) {
                continue;
            }
            let known = values.partition_point(|(commit, _)| *commit <= self.commits);
            if let Some((_, Some(value))) = known.checked_sub(1).map(|at| &values[at]) {
                if rows.len() >= most.max(1) {
                    let last = rows.last().map(|(key, _)| key.clone());
                    return Ok((rows, last));
                }
                rows.push((key[space.len() + 1..].to_vec(), value.clone()));
            }
        }
        Ok((rows, None))
    }
}
