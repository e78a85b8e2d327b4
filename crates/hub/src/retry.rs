//! Entities that could not be written: which wait for a later run, and which were given up.
//!
//! The set lives as state records in the execution log's dataset, committed together with the
//! `write-error` entries, so that reading it does not scan the log. While they are few they are
//! known in memory; many are looked up one by one and read in pages, so that their number takes
//! no memory.

mod kept;
mod letters;

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tahini_entity::{Batch, Entity, Offset, Record, Str, Value};
use tahini_store::{Dataset, Snapshot, StateWrite};

use crate::Failure;
use crate::execution_log::{ExecutionLog, RunLog, WriteError, entity_of};
use kept::Counts;

pub use letters::Letters;

/// Failed entities that are known in memory; where there are more, all are looked up.
const IN_MEMORY: u64 = 10_000;

/// Where on its way an entity failed. What fails in the transforms is kept as the source gave it,
/// what fails in the sink as the sink was given it; the same id may stand for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// In the transforms.
    Transforms,
    /// In the sink.
    Sink,
}

impl At {
    const BOTH: [At; 2] = [At::Transforms, At::Sink];

    /// The id of the log's entry for the entity `id`. Ids may hold anything, so that only what
    /// stands before them tells the two apart.
    pub(crate) fn entry_id(self, id: &str) -> String {
        match self {
            At::Transforms => format!("transform-error:{id}"),
            At::Sink => format!("write-error:{id}"),
        }
    }

    /// Where the entity failed that an entry of the log tells of, and its id.
    pub(crate) fn of_entry(entry: &str) -> Option<(At, &str)> {
        let (kind, id) = entry.split_once(':')?;
        match kind {
            "transform-error" => Some((At::Transforms, id)),
            "write-error" => Some((At::Sink, id)),
            _ => None,
        }
    }
}

/// What is remembered of a failed entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// How often it was retried.
    pub attempts: u64,
    /// It was given up and is left alone until another version comes.
    pub dead: bool,
    /// It was given up once and did not get through since: there may be a dead letter.
    pub buried: bool,
    /// The content hash of the version that failed.
    pub hash: u128,
    /// When the run began that set it aside, microseconds since 1970 UTC; 0 for a rescan in the
    /// background.
    pub run: i64,
    /// When the run or rescan began that tried it last.
    pub tried: i64,
    /// The number that the source gave this version, where it numbers them.
    pub updated: Option<i64>,
}

/// Ids that wait, in order, and where to go on.
pub type Waiting = (Vec<Str>, Option<Vec<u8>>);

/// The failed entities of a pipe, shared by the runs that are under way.
pub struct Failures {
    pipe: String,
    dataset: Arc<dyn Dataset>,
    /// Held while something is written: the numbers of all are committed with it.
    inner: Mutex<Inner>,
}

struct Inner {
    counts: Counts,
    /// All of them, while they are few.
    known: Option<HashMap<(At, Str), Failed>>,
    /// How often something was written; a view that was taken before is out of date.
    written: u64,
}

/// A view of the log, and how often something had been written before.
type Dated = (u64, Box<dyn Snapshot>);

/// The failed entities of a pipe as one run deals with them.
pub struct Ledger {
    failures: Arc<Failures>,
    run: i64,
    began: i64,
    /// Of what runs set aside that began at this moment or later, this one reads older versions.
    newer_from: i64,
    view: RefCell<Option<Dated>>,
}

impl Ledger {
    /// Reads the set of `pipe`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn load(log: &ExecutionLog, pipe: &str) -> Result<Ledger, Failure> {
        let dataset = Arc::clone(log.dataset());
        let snapshot = dataset.snapshot()?;
        let counts = match Counts::load(snapshot.as_ref(), pipe)? {
            Some(counts) => counts,
            None => adopt(log, pipe)?,
        };
        let known = match counts.all() <= IN_MEMORY {
            true => Some(read_all(dataset.snapshot()?.as_ref(), pipe, &counts)?),
            false => None,
        };
        Ok(Ledger::of(Arc::new(Failures {
            pipe: pipe.to_owned(),
            dataset,
            inner: Mutex::new(Inner {
                counts,
                known,
                written: 0,
            }),
        })))
    }

    /// A run's view of what is known already.
    pub(crate) fn of(failures: Arc<Failures>) -> Ledger {
        Ledger {
            failures,
            run: 0,
            began: 0,
            newer_from: i64::MAX,
            view: RefCell::new(None),
        }
    }

    /// The same for a run that began at `run`, microseconds since 1970 UTC.
    pub(crate) fn of_run(self, run: i64) -> Ledger {
        Ledger {
            run,
            began: run,
            ..self
        }
    }

    /// The same for a rescan that began at `began`: what runs that began at `newer_from` or later
    /// set aside is newer than what it reads, and none of its business.
    pub(crate) fn of_rescan(self, began: i64, newer_from: i64) -> Ledger {
        Ledger {
            began,
            newer_from,
            ..self
        }
    }

    pub(crate) fn failures(&self) -> &Arc<Failures> {
        &self.failures
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let inner = self.failures.inner.lock();
        inner.unwrap_or_else(PoisonError::into_inner)
    }

    fn pipe(&self) -> &str {
        &self.failures.pipe
    }

    /// The log as it is now, as far as this ledger is concerned.
    fn view(&self) -> Result<Ref<'_, Box<dyn Snapshot>>, Failure> {
        let written = self.lock().written;
        let known = self.view.borrow().as_ref().map(|(at, _)| *at);
        if known != Some(written) {
            *self.view.borrow_mut() = Some((written, self.failures.dataset.snapshot()?));
        }
        let view = Ref::filter_map(self.view.borrow(), |view| view.as_ref().map(|(_, it)| it));
        view.map_err(|_| Failure::fatal("a view of the log was given away"))
    }

    /// Whether nothing failed there or was given up.
    pub fn is_empty(&self, at: At) -> bool {
        self.lock().counts.at(at) == 0
    }

    /// How many entities wait for a later run.
    pub fn waiting(&self) -> u64 {
        self.lock().counts.waiting()
    }

    /// What is remembered of `id`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn get(&self, at: At, id: &str) -> Result<Option<Failed>, Failure> {
        let inner = self.lock();
        if inner.counts.at(at) == 0 {
            return Ok(None);
        }
        if let Some(known) = &inner.known {
            return Ok(known.get(&(at, Str::from(id))).copied());
        }
        drop(inner);
        Ok(kept::find(self.view()?.as_ref(), self.pipe(), at, id)?)
    }

    /// Which entities of a batch are left alone at `at`: versions that were given up, or that wait
    /// and were tried in this run already. A filtered version is never the one that failed, even
    /// when its content is the same; nor is one that the source gave another number.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn hopeless(&self, at: At, batch: &Batch) -> Result<Vec<bool>, Failure> {
        // What others wrote meanwhile need not be kept for this view.
        *self.view.borrow_mut() = None;
        batch
            .iter()
            .map(|record| self.is_hopeless(at, record))
            .collect()
    }

    fn is_hopeless(&self, at: At, record: Record<'_>) -> Result<bool, Failure> {
        let Some(id) = record.id.filter(|_| !record.meta.filtered) else {
            return Ok(false);
        };
        let Some(entry) = self.get(at, id)? else {
            return Ok(false);
        };
        let (before, now) = (entry.updated, kept::number_of(record.meta.updated.as_ref()));
        let renumbered = before.is_some() && now.is_some() && before != now;
        let left_alone = entry.dead || entry.tried == self.began;
        Ok(left_alone && !renumbered && entry.hash == record.hash())
    }

    /// Some ids that wait at `at`, behind `after`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn waiting_behind(&self, at: At, after: Option<&[u8]>) -> Result<Waiting, Failure> {
        if self.is_empty(at) {
            return Ok((Vec::new(), None));
        }
        let view = self.view()?;
        let (rows, next) = kept::page(view.as_ref(), self.pipe(), (at, false), after)?;
        Ok((rows.into_iter().map(|(id, _)| id).collect(), next))
    }

    /// The entity of `id` as it failed.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn entity(&self, at: At, id: &str) -> Result<Option<Entity>, Failure> {
        let mut batch = Batch::new();
        let key = at.entry_id(id);
        self.view()?.latest(&[&key], &mut batch)?;
        let Some(record) = batch.iter().next() else {
            return Ok(None);
        };
        let Some(Value::Dict(dict)) = record.value("entity") else {
            return Ok(None);
        };
        let updated = match record.value("source_updated") {
            Some(Value::Int(number)) => Some(Offset::Int(number)),
            Some(Value::String(text)) => Some(Offset::Text(text)),
            _ => None,
        };
        Ok(Some(Entity {
            updated,
            ..entity_of(&dict)
        }))
    }

    /// Keeps `entity` for later runs, or gives it up when it was retried often enough:
    /// the dead letter is durable before the entry that says so.
    pub fn set_aside(
        &mut self,
        world: &Letters<'_>,
        log: &mut RunLog<'_>,
        at: At,
        entity: &Entity,
        failure: &Failure,
    ) -> Result<(), Failure> {
        let id: Str = entity.id.clone().unwrap_or_default();
        let hash = entity.hash.unwrap_or_default();
        let known = self.get(at, &id)?;
        // A newer version waits already.
        if known.is_some_and(|known| known.run >= self.newer_from) {
            return Ok(());
        }
        let attempts = match known {
            Some(known) if known.hash == hash => known.attempts + 1,
            _ => 0,
        };
        let dead = attempts >= world.policy.under(failure).max_retries_per_entity;
        if dead {
            world.bury(entity)?;
        }
        let given = kept::number_of(entity.updated.as_ref());
        let before = known.filter(|known| known.hash == hash);
        let entry = Failed {
            attempts,
            dead,
            buried: dead || known.is_some_and(|known| known.buried),
            hash,
            run: self.run,
            tried: self.began,
            // What comes from the log again has the number that it had.
            updated: given.or(before.and_then(|known| known.updated)),
        };
        let error = WriteError {
            at,
            entity,
            failure: Some(failure),
            attempts,
            retryable: !dead,
            resolved: false,
            dead,
            resolved_by: None,
        };
        let told = vec![world.log.write_error(&error)];
        self.turn(at, &id, Some(entry), |state| log.write_errors(told, state))
    }

    /// Notes that `entity` got through, if an earlier version of it had failed.
    pub fn resolve(
        &mut self,
        world: &Letters<'_>,
        log: &mut RunLog<'_>,
        at: At,
        entity: &Entity,
    ) -> Result<(), Failure> {
        let Some(id) = entity.id.as_ref() else {
            return Ok(());
        };
        let known = self.get(at, id)?;
        let Some(known) = known.filter(|known| known.run < self.newer_from) else {
            return Ok(());
        };
        let old = self.entity(at, id)?;
        let other_version = known.hash != entity.hash.unwrap_or_default();
        let resolved_by = other_version.then_some(entity);
        let error = WriteError {
            at,
            entity: old.as_ref().unwrap_or(entity),
            failure: None,
            attempts: known.attempts,
            retryable: false,
            resolved: true,
            dead: false,
            resolved_by,
        };
        if known.buried && world.policy.track_dead_letters && !self.is_buried_beside(at, id)? {
            world.exhume(id, resolved_by)?;
        }
        let told = vec![world.log.write_error(&error)];
        self.turn(at, id, None, |state| log.write_errors(told, state))
    }

    /// Whether the entity was given up at the other place, too.
    fn is_buried_beside(&self, at: At, id: &str) -> Result<bool, Failure> {
        for other in At::BOTH.into_iter().filter(|other| *other != at) {
            if self.get(other, id)?.is_some_and(|entry| entry.buried) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets what waits, some at a time; what was given up stays so.
    ///
    /// # Errors
    /// When the log cannot be read or written: some may wait still.
    pub fn discard(&mut self, log: &ExecutionLog) -> Result<(), Failure> {
        self.each(false, log, |_| None)?;
        Ok(())
    }

    /// Lets the next run try again what was given up, as often as at first; how many there are.
    /// Of `ids` only these, of none all.
    ///
    /// # Errors
    /// When the log cannot be read or written: some may be left alone still.
    pub fn revive(&mut self, log: &ExecutionLog, ids: &[&str]) -> Result<u64, Failure> {
        let again = |entry: &Failed| Failed {
            attempts: 0,
            dead: false,
            tried: 0,
            ..*entry
        };
        if ids.is_empty() {
            return self.each(true, log, |entry| Some(again(entry)));
        }
        let mut count = 0;
        for (at, id) in At::BOTH
            .into_iter()
            .flat_map(|at| ids.iter().map(move |id| (at, *id)))
        {
            let Some(entry) = self.get(at, id)?.filter(|entry| entry.dead) else {
                continue;
            };
            self.turn(at, id, Some(again(&entry)), |state| {
                log.append(Vec::new(), state).map(|_| ())
            })?;
            count += 1;
        }
        Ok(count)
    }

    /// Goes through all of a state; each becomes what `change` says, or is forgotten.
    fn each(
        &mut self,
        dead: bool,
        log: &ExecutionLog,
        change: impl Fn(&Failed) -> Option<Failed>,
    ) -> Result<u64, Failure> {
        let mut count = 0;
        let mut inner = self.lock();
        inner.known = None;
        for at in At::BOTH {
            let mut after = None;
            loop {
                let view = self.failures.dataset.snapshot()?;
                let page = kept::page(view.as_ref(), self.pipe(), (at, dead), after.as_deref());
                let (rows, next) = page?;
                let (mut counts, mut state) = (inner.counts, Vec::new());
                for (id, entry) in &rows {
                    let now = change(entry);
                    state.push(kept::no_record(self.pipe(), at, dead, id));
                    state.extend(now.map(|now| kept::record(self.pipe(), at, id, &now)));
                    counts.moved(at, Some(dead), now.map(|now| now.dead));
                }
                if !rows.is_empty() {
                    state.push(counts.write(self.pipe()));
                    log.append(Vec::new(), &state)?;
                    inner.counts = counts;
                    inner.written += 1;
                    count += rows.len() as u64;
                }
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(count)
    }

    /// Hands those of the log's entries to `erase` of which nothing is remembered here. No run sets
    /// an entity aside meanwhile: what it would tell is not to go with what was told before.
    ///
    /// # Errors
    /// When the log cannot be read, and those of `erase`.
    pub(crate) fn forgotten(
        &self,
        entries: &[String],
        erase: impl FnOnce(&[&str]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let inner = self.lock();
        let view = self.failures.dataset.snapshot()?;
        let mut over = Vec::new();
        for entry in entries {
            let remembered = match (At::of_entry(entry), &inner.known) {
                (None, _) => false,
                (Some((at, id)), Some(known)) => known.contains_key(&(at, Str::from(id))),
                (Some((at, id)), None) => kept::find(view.as_ref(), self.pipe(), at, id)?.is_some(),
            };
            if !remembered {
                over.push(entry.as_str());
            }
        }
        drop(view);
        match over.is_empty() {
            true => Ok(()),
            false => erase(&over),
        }
    }

    /// Turns what is kept of an entity into `after`, in the step that `write` makes. Another run
    /// may have changed it since it was looked at, so that this is done under the lock.
    fn turn(
        &self,
        at: At,
        id: &str,
        after: Option<Failed>,
        write: impl FnOnce(&[StateWrite]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut inner = self.lock();
        let key = (at, Str::from(id));
        let before = match &inner.known {
            Some(known) => known.get(&key).copied(),
            None => {
                let view = self.failures.dataset.snapshot()?;
                kept::find(view.as_ref(), self.pipe(), at, id)?
            }
        };
        let mut counts = inner.counts;
        counts.moved(at, before.map(|it| it.dead), after.map(|it| it.dead));
        let mut state = Vec::new();
        if let Some(before) = before
            && after.is_none_or(|after| after.dead != before.dead)
        {
            state.push(kept::no_record(self.pipe(), at, before.dead, id));
        }
        state.extend(after.map(|after| kept::record(self.pipe(), at, id, &after)));
        state.push(counts.write(self.pipe()));
        write(&state)?;
        inner.counts = counts;
        inner.written += 1;
        if counts.all() > IN_MEMORY {
            inner.known = None;
        }
        if let Some(known) = &mut inner.known {
            match after {
                Some(after) => known.insert(key, after),
                None => known.remove(&key),
            };
        }
        Ok(())
    }
}

fn read_all(
    snapshot: &dyn Snapshot,
    pipe: &str,
    counts: &Counts,
) -> Result<HashMap<(At, Str), Failed>, Failure> {
    let mut all = HashMap::new();
    for (at, dead) in all_states().filter(|(at, _)| counts.at(*at) > 0) {
        let mut after = None;
        loop {
            let (rows, next) = kept::page(snapshot, pipe, (at, dead), after.as_deref())?;
            all.extend(rows.into_iter().map(|(id, entry)| ((at, id), entry)));
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(all)
}

fn all_states() -> impl Iterator<Item = (At, bool)> {
    let both = |at| [(at, false), (at, true)];
    At::BOTH.into_iter().flat_map(both)
}

/// Takes over what an earlier version of the program kept, and counts.
fn adopt(log: &ExecutionLog, pipe: &str) -> Result<Counts, Failure> {
    for at in At::BOTH {
        let mut after = None;
        loop {
            let snapshot = log.dataset().snapshot()?;
            let (writes, next) = kept::adopt(snapshot.as_ref(), pipe, at, after.as_deref())?;
            if !writes.is_empty() {
                log.append(Vec::new(), &writes)?;
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    let mut counts = Counts::default();
    let snapshot = log.dataset().snapshot()?;
    for (at, dead) in all_states() {
        let mut after = None;
        loop {
            let page = kept::page(snapshot.as_ref(), pipe, (at, dead), after.as_deref());
            let (rows, next) = page?;
            rows.iter().for_each(|_| counts.moved(at, None, Some(dead)));
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    if counts.all() > 0 {
        log.append(Vec::new(), &[counts.write(pipe)])?;
    }
    Ok(counts)
}
