//! Entities that could not be written: which wait for a later run, and which were given up.
//!
//! The set lives as state records in the execution log's dataset, committed together with the
//! `write-error` entries, so that reading it does not scan the log. While they are few they are
//! known in memory; many are looked up one by one and read in pages, so that their number takes
//! no memory.

mod kept;
mod letters;
mod loaded;
mod pending;

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tahini_entity::{Batch, Entity, Offset, Record, Str, Value};
use tahini_store::{Dataset, Snapshot, StateWrite};

use crate::Failure;
use crate::execution_log::{ExecutionLog, RunLog, WriteError, entity_of};
use kept::Counts;
use loaded::{adopt, count_overtaken, read_all};
use pending::Pending;

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
    /// Another version went to where this one failed. It is not tried again: it would come after
    /// that one.
    pub overtaken: bool,
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
    /// How many were overtaken.
    overtaken: u64,
    pending: Pending,
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
        let overtaken = match &known {
            Some(known) => known.values().filter(|it| it.overtaken).count() as u64,
            None => count_overtaken(dataset.snapshot()?.as_ref(), pipe)?,
        };
        Ok(Ledger::of(Arc::new(Failures {
            pipe: pipe.to_owned(),
            dataset,
            inner: Mutex::new(Inner {
                counts,
                known,
                written: 0,
                overtaken,
                pending: Pending::default(),
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
        self.view_at(written)
    }

    fn view_at(&self, written: u64) -> Result<Ref<'_, Box<dyn Snapshot>>, Failure> {
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
        let key = (at, Str::from(id));
        if let Some(known) = &inner.known {
            return Ok(known.get(&key).copied());
        }
        if let Some(change) = inner.pending.get(&key) {
            return Ok(change);
        }
        drop(inner);
        Ok(kept::find(self.view()?.as_ref(), self.pipe(), at, id)?)
    }

    /// Which entities of a batch are left alone at `at`: versions that were given up, or that wait
    /// and were tried in this run already. A filtered version is never the one that failed, even
    /// when its content is the same; nor is one that the source gave another number.
    ///
    /// Of the others earlier versions may wait: from here on those are not tried any more, whatever
    /// becomes of the run.
    ///
    /// # Errors
    /// When the log cannot be read or written.
    pub fn hopeless(
        &mut self,
        world: &Letters<'_>,
        at: At,
        batch: &Batch,
    ) -> Result<Vec<bool>, Failure> {
        // What others wrote meanwhile need not be kept for this view.
        *self.view.borrow_mut() = None;
        let (mut hopeless, mut overtakes) = (Vec::with_capacity(batch.len()), false);
        for record in batch.iter() {
            let known = match record.id {
                Some(id) => self.get(at, id)?.map(|known| (id, known)),
                None => None,
            };
            let Some((id, known)) = known else {
                hopeless.push(false);
                continue;
            };
            let is_hopeless = self.is_hopeless(&known, record);
            hopeless.push(is_hopeless);
            let is_other = record.meta.filtered || known.hash != record.hash();
            if !is_hopeless && is_other && self.may_overtake(&known) {
                let overtaken = Failed {
                    overtaken: true,
                    ..known
                };
                self.change(at, id, Some(overtaken), |_| Ok(()))?;
                overtakes = true;
            }
        }
        if overtakes {
            self.flush(world, &[])?;
        }
        Ok(hopeless)
    }

    fn is_hopeless(&self, known: &Failed, record: Record<'_>) -> bool {
        if record.meta.filtered {
            return false;
        }
        let (before, now) = (known.updated, kept::number_of(record.meta.updated.as_ref()));
        let renumbered = before.is_some() && now.is_some() && before != now;
        let left_alone = known.dead || known.tried == self.began;
        left_alone && !renumbered && known.hash == record.hash()
    }

    /// Whether what this run has is newer than a version that failed, and nobody knows yet.
    fn may_overtake(&self, known: &Failed) -> bool {
        !known.overtaken && known.run < self.newer_from
    }

    /// Some ids that wait at `at` and may be tried again, behind `after`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn waiting_behind(&self, at: At, after: Option<&[u8]>) -> Result<Waiting, Failure> {
        if self.is_empty(at) {
            return Ok((Vec::new(), None));
        }
        let view = self.view()?;
        let (rows, next) = kept::page(view.as_ref(), self.pipe(), (at, false), after)?;
        let rows = rows.into_iter();
        let rows = rows.filter(|(_, known)| !known.overtaken);
        Ok((rows.map(|(id, _)| id).collect(), next))
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

    /// Keeps `entity` for later runs, or gives it up when it was retried often enough; it is
    /// durable when `flush` has been called, the dead letter before the entry that says so.
    pub fn set_aside(
        &mut self,
        world: &Letters<'_>,
        log: &mut RunLog<'_>,
        at: At,
        entity: &Entity,
        failure: &Failure,
    ) -> Result<(), Failure> {
        let id: Str = entity.id.clone().unwrap_or_default();
        self.make_room(world, &id)?;
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
        let given = kept::number_of(entity.updated.as_ref());
        let before = known.filter(|known| known.hash == hash);
        let kept = Failed {
            attempts,
            dead,
            buried: dead || known.is_some_and(|known| known.buried),
            hash,
            run: self.run,
            tried: self.began,
            overtaken: false,
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
        let entry = log.in_run(world.log.write_error(&error))?;
        let grave = world.policy.dead_letter_dataset.as_ref().filter(|_| dead);
        self.change(at, &id, Some(kept), |pending| {
            pending.tell(&entry)?;
            match grave {
                Some(name) => pending.graves.entry(name.clone()).or_default().bury(entity),
                None => Ok(()),
            }
        })?;
        self.flush_if_due(world)
    }

    /// Notes that `entity` got through, if an earlier version of it had failed; durably when
    /// `flush` has been called.
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
        let other_version = known.hash != entity.hash.unwrap_or_default();
        self.resolve_known(world, log, at, id, &known, other_version.then_some(entity))
    }

    fn resolve_known(
        &mut self,
        world: &Letters<'_>,
        log: &mut RunLog<'_>,
        at: At,
        id: &str,
        known: &Failed,
        resolved_by: Option<&Entity>,
    ) -> Result<(), Failure> {
        self.make_room(world, id)?;
        let old = self.entity(at, id)?;
        let unknown = Entity {
            id: Some(id.into()),
            ..Entity::default()
        };
        let error = WriteError {
            at,
            entity: old.as_ref().or(resolved_by).unwrap_or(&unknown),
            failure: None,
            attempts: known.attempts,
            retryable: false,
            resolved: true,
            dead: false,
            resolved_by,
        };
        let entry = log.in_run(world.log.write_error(&error))?;
        let tracked = known.buried && world.policy.track_dead_letters;
        let grave = world.policy.dead_letter_dataset.as_ref();
        let grave = match tracked && !self.is_buried_beside(at, id)? {
            true => grave,
            false => None,
        };
        self.change(at, id, None, |pending| {
            pending.tell(&entry)?;
            if let Some(name) = grave {
                let graves = pending.graves.entry(name.clone()).or_default();
                graves.exhume(id, resolved_by);
            }
            Ok(())
        })?;
        self.flush_if_due(world)
    }

    /// Notes, at the end of a run that was read to its end, that what was overtaken is over and
    /// nothing else was said of it: the newer version got through, here or in a run that could not
    /// say so any more. Otherwise this run would have been given it, and it would have failed.
    ///
    /// # Errors
    /// When the log cannot be read or written.
    pub fn resolve_overtaken(
        &mut self,
        world: &Letters<'_>,
        log: &mut RunLog<'_>,
    ) -> Result<(), Failure> {
        let is_rescan = self.newer_from != i64::MAX;
        if is_rescan || self.lock().overtaken == 0 {
            return Ok(());
        }
        self.flush(world, &[])?;
        for at in At::BOTH {
            let mut after = None;
            loop {
                let view = self.failures.dataset.snapshot()?;
                let page = kept::overtaken_page(view.as_ref(), self.pipe(), at, after.as_deref());
                let (ids, next) = page?;
                for id in ids {
                    let known = self.get(at, &id)?;
                    if let Some(known) = known.filter(|known| known.overtaken) {
                        self.resolve_known(world, log, at, &id, &known, None)?;
                    }
                }
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes what is to be written of `id`, so that it stands there once.
    fn make_room(&self, world: &Letters<'_>, id: &str) -> Result<(), Failure> {
        let concerned = self.lock().pending.concerns(id);
        match concerned {
            true => self.flush(world, &[]),
            false => Ok(()),
        }
    }

    /// Writes what happened to entities if it is much, or was a while ago.
    ///
    /// # Errors
    /// When the log or the dead letters cannot be written; the next call tries again.
    pub fn flush_if_due(&self, world: &Letters<'_>) -> Result<(), Failure> {
        let due = self.lock().pending.is_due();
        match due {
            true => self.flush(world, &[]),
            false => Ok(()),
        }
    }

    /// Makes durable what happened to entities, together with `progress`: dead letters first, then
    /// the rest in one step. Where letters are deleted again, that there may be some comes before
    /// both.
    ///
    /// # Errors
    /// When the log or the dead letters cannot be written; the next call tries again.
    pub fn flush(&self, world: &Letters<'_>, progress: &[StateWrite]) -> Result<(), Failure> {
        let mut inner = self.lock();
        if inner.pending.is_empty() {
            drop(inner);
            if !progress.is_empty() {
                world.log.append(Vec::new(), progress)?;
            }
            return Ok(());
        }
        if world.policy.track_dead_letters {
            self.remember_letters(world, &mut inner)?;
        }
        for (name, graves) in &inner.pending.graves {
            world.write(name, graves)?;
        }
        let mut state = inner.pending.state(self.pipe());
        state.push(inner.counts.write(self.pipe()));
        state.extend_from_slice(progress);
        world.log.append_rows(&inner.pending.entries, &state)?;
        inner.written += 1;
        inner.pending = Pending::default();
        Ok(())
    }

    /// Notes durably of which entities there may be letters from now on.
    fn remember_letters(&self, world: &Letters<'_>, inner: &mut Inner) -> Result<(), Failure> {
        let (counts, pending) = (inner.counts, &mut inner.pending);
        let remembered = pending.before_letters();
        if remembered.is_empty() {
            return Ok(());
        }
        let writes = pending.writes_before_letters(self.pipe(), &remembered, counts);
        let (entries, state) = writes?;
        world.log.append_rows(&entries, &state)?;
        pending.stands(remembered);
        inner.written += 1;
        Ok(())
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
            self.turn(log, at, id, &entry, &again(&entry))?;
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
                    if entry.overtaken && now.is_none() {
                        state.push(kept::overtaken(self.pipe(), at, id, false));
                        inner.overtaken = inner.overtaken.saturating_sub(1);
                    }
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
                (Some((_, id)), _) if inner.pending.concerns(id) => true,
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

    /// Turns what is kept of an entity into `after`, durably, where no run is under way.
    fn turn(
        &self,
        log: &ExecutionLog,
        at: At,
        id: &str,
        before: &Failed,
        after: &Failed,
    ) -> Result<(), Failure> {
        let mut inner = self.lock();
        let mut counts = inner.counts;
        counts.moved(at, Some(before.dead), Some(after.dead));
        let state = [
            kept::no_record(self.pipe(), at, before.dead, id),
            kept::record(self.pipe(), at, id, after),
            counts.write(self.pipe()),
        ];
        log.append(Vec::new(), &state)?;
        inner.counts = counts;
        inner.written += 1;
        if let Some(known) = &mut inner.known {
            known.insert((at, id.into()), *after);
        }
        Ok(())
    }

    /// Turns what is remembered of an entity into `after`, and notes with it what `tell` has to
    /// say. Another run may have changed it since it was looked at, so that this is done under the
    /// lock.
    fn change(
        &self,
        at: At,
        id: &str,
        after: Option<Failed>,
        tell: impl FnOnce(&mut Pending) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut inner = self.lock();
        let key = (at, Str::from(id));
        let before = match (&inner.known, inner.pending.get(&key)) {
            (Some(known), _) => known.get(&key).copied(),
            (None, Some(pending)) => pending,
            (None, None) => {
                let view = self.view_at(inner.written)?;
                kept::find(view.as_ref(), self.pipe(), at, id)?
            }
        };
        tell(&mut inner.pending)?;
        inner.pending.change(key.clone(), before, after);
        let is_overtaken = |known: Option<Failed>| u64::from(known.is_some_and(|it| it.overtaken));
        inner.overtaken += is_overtaken(after);
        inner.overtaken = inner.overtaken.saturating_sub(is_overtaken(before));
        let (before, now) = (before.map(|it| it.dead), after.map(|it| it.dead));
        inner.counts.moved(at, before, now);
        if inner.counts.all() > IN_MEMORY {
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

fn all_states() -> impl Iterator<Item = (At, bool)> {
    let both = |at| [(at, false), (at, true)];
    At::BOTH.into_iter().flat_map(both)
}
