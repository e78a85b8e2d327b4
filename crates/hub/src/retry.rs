//! Entities that could not be written: which wait for a later run, and which were given up.
//!
//! The set lives as state records in the execution log's dataset, committed together with the
//! `write-error` entries, so that reading it does not scan the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tahini_entity::{Batch, Entity, Offset, Str, Value};
use tahini_store::{Backend, Commit, Dataset, Rule, Show, StateWrite};

use crate::execution_log::{ExecutionLog, RunLog, WriteError, entity_of};
use crate::policy::Policy;
use crate::seen::push_deleted;
use crate::{Clock, Failure, progress};

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

    /// The prefix of the state records. No prefix begins another.
    fn prefix(self) -> &'static [u8] {
        match self {
            At::Transforms => b"waiting-at-transforms/",
            At::Sink => b"waiting/",
        }
    }

    /// The id of the log's entry for the entity `id`. Ids may hold anything, so that only what
    /// stands before them tells the two apart.
    pub(crate) fn entry_id(self, id: &str) -> String {
        match self {
            At::Transforms => format!("transform-error:{id}"),
            At::Sink => format!("write-error:{id}"),
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
    /// The content hash of the version that failed.
    pub hash: u128,
    /// When the run began that set it aside, microseconds since 1970 UTC; 0 for a rescan in the
    /// background.
    pub run: i64,
}

/// The failed entities of a pipe, shared by the runs that are under way.
#[derive(Default)]
pub struct Failures(Mutex<BTreeMap<(At, Str), Failed>>);

/// The failed entities of a pipe as one run deals with them.
pub struct Ledger {
    pipe: String,
    failures: Arc<Failures>,
    run: i64,
    /// Of what runs set aside that began at this moment or later, this one reads older versions.
    newer_from: i64,
}

impl Ledger {
    /// Reads the set of `pipe`.
    pub fn load(log: &ExecutionLog, pipe: &str) -> Result<Ledger, Failure> {
        let mut failed = BTreeMap::new();
        let snapshot = log.dataset().snapshot()?;
        for at in At::BOTH {
            for (key, value) in snapshot.state(&progress::space(pipe), at.prefix())? {
                let id = String::from_utf8_lossy(&key[at.prefix().len()..]);
                if let Some(entry) = decode(&value) {
                    failed.insert((at, id.as_ref().into()), entry);
                }
            }
        }
        Ok(Ledger::of(pipe, Arc::new(Failures(Mutex::new(failed)))))
    }

    /// A run's view of what is known already.
    pub(crate) fn of(pipe: &str, failures: Arc<Failures>) -> Ledger {
        Ledger {
            pipe: pipe.to_owned(),
            failures,
            run: 0,
            newer_from: i64::MAX,
        }
    }

    /// The same for a run that began at `run`, microseconds since 1970 UTC.
    pub(crate) fn of_run(self, run: i64) -> Ledger {
        Ledger { run, ..self }
    }

    /// The same for a rescan: what runs that began at `newer_from` or later set aside is newer
    /// than what it reads, and none of its business.
    pub(crate) fn of_rescan(self, newer_from: i64) -> Ledger {
        Ledger { newer_from, ..self }
    }

    pub(crate) fn failures(&self) -> &Arc<Failures> {
        &self.failures
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(At, Str), Failed>> {
        self.failures
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing failed there or was given up.
    pub fn is_empty(&self, at: At) -> bool {
        let failed = self.lock();
        let first = failed.range((at, Str::from(""))..).next();
        first.is_none_or(|((known, _), _)| *known != at)
    }

    /// How many entities wait for a later run.
    pub fn waiting(&self) -> u64 {
        self.lock().values().filter(|entry| !entry.dead).count() as u64
    }

    /// What is remembered of `id`.
    pub fn get(&self, at: At, id: &str) -> Option<Failed> {
        self.lock().get(&(at, Str::from(id))).copied()
    }

    /// The ids that wait, in order.
    pub fn ids(&self, at: At) -> Vec<Str> {
        let failed = self.lock();
        let waiting = failed.iter().filter(|(_, entry)| !entry.dead);
        let ids = waiting.filter(|((known, _), _)| *known == at);
        ids.map(|((_, id), _)| id.clone()).collect()
    }

    /// The entity of `id` as it failed.
    pub fn entity(&self, log: &ExecutionLog, at: At, id: &str) -> Result<Option<Entity>, Failure> {
        let mut batch = Batch::new();
        let key = at.entry_id(id);
        log.dataset().snapshot()?.latest(&[&key], &mut batch)?;
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
        let known = self.get(at, &id);
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
        let entry = Failed {
            attempts,
            dead,
            hash,
            run: self.run,
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
        let state = [self.write(at, &id, Some(entry))];
        log.write_errors(vec![world.log.write_error(&error)], &state)?;
        self.lock().insert((at, id), entry);
        Ok(())
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
        let Some(known) = self.get(at, id) else {
            return Ok(());
        };
        if known.run >= self.newer_from {
            return Ok(());
        }
        let old = self.entity(world.log, at, id)?;
        let other_version = known.hash != entity.hash.unwrap_or_default();
        let error = WriteError {
            at,
            entity: old.as_ref().unwrap_or(entity),
            failure: None,
            attempts: known.attempts,
            retryable: false,
            resolved: true,
            dead: false,
            resolved_by: other_version.then_some(entity),
        };
        if known.dead && world.policy.track_dead_letters && !self.is_dead_beside(at, id) {
            world.exhume(id)?;
        }
        let state = [self.write(at, id, None)];
        log.write_errors(vec![world.log.write_error(&error)], &state)?;
        self.lock().remove(&(at, id.clone()));
        Ok(())
    }

    /// Whether the entity was given up at the other place, too.
    fn is_dead_beside(&self, at: At, id: &str) -> bool {
        let others = At::BOTH.into_iter().filter(|other| *other != at);
        let mut found = others.filter_map(|other| self.get(other, id));
        found.any(|entry| entry.dead)
    }

    /// The writes that forget what waits; what was given up stays so.
    pub fn discard(&self) -> Vec<StateWrite> {
        let failed = self.lock();
        let waiting = failed.iter().filter(|(_, entry)| !entry.dead);
        waiting
            .map(|((at, id), _)| self.write(*at, id, None))
            .collect()
    }

    fn write(&self, at: At, id: &str, entry: Option<Failed>) -> StateWrite {
        let key = [at.prefix(), id.as_bytes()].concat();
        progress::write(&self.pipe, &key, entry.map(encode))
    }
}

/// What setting an entity aside needs of the run.
pub struct Letters<'a> {
    /// The store, for the dead-letter dataset.
    pub store: &'a dyn Backend,
    /// The pipe's execution log.
    pub log: &'a ExecutionLog,
    /// The pipe's policy.
    pub policy: &'a Policy,
    /// The wall clock.
    pub clock: &'a dyn Clock,
}

impl Letters<'_> {
    /// Writes a given-up entity to the dead-letter dataset, durably, if there is one.
    fn bury(&self, entity: &Entity) -> Result<(), Failure> {
        let Some(name) = &self.policy.dead_letter_dataset else {
            return Ok(());
        };
        let mut rows = Batch::new();
        rows.push_entity(entity)
            .map_err(|error| Failure::fatal(error.to_string()))?;
        self.write(self.store.open(name, true)?.as_ref(), &rows)
    }

    /// Deletes a dead letter, durably, if there is one.
    fn exhume(&self, id: &str) -> Result<(), Failure> {
        let Some(name) = &self.policy.dead_letter_dataset else {
            return Ok(());
        };
        let Some(dataset) = self.store.find(name)? else {
            return Ok(());
        };
        let (mut letter, mut rows) = (Batch::new(), Batch::new());
        dataset.snapshot()?.latest(&[id], &mut letter)?;
        letter
            .iter()
            .for_each(|record| push_deleted(&mut rows, record));
        self.write(dataset.as_ref(), &rows)
    }

    fn write(&self, dataset: &dyn Dataset, rows: &Batch) -> Result<(), Failure> {
        let commit = Commit {
            rows,
            rule: Rule::IfChanged,
            state: &[],
            populated: true,
            now: self.clock.micros(),
            show: Show::Now,
            note: None,
        };
        dataset.commit(commit)?.1.wait()?;
        Ok(())
    }
}

fn encode(entry: Failed) -> Vec<u8> {
    let mut bytes = entry.attempts.to_le_bytes().to_vec();
    bytes.push(u8::from(entry.dead));
    bytes.extend_from_slice(&entry.hash.to_le_bytes());
    bytes.extend_from_slice(&entry.run.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Failed> {
    let (attempts, rest) = bytes.split_first_chunk::<8>()?;
    let (dead, rest) = rest.split_first()?;
    let (hash, rest) = rest.split_first_chunk::<16>()?;
    Some(Failed {
        attempts: u64::from_le_bytes(*attempts),
        dead: *dead != 0,
        hash: u128::from_le_bytes(*hash),
        // Records of earlier versions end before it.
        run: rest.try_into().map(i64::from_le_bytes).unwrap_or_default(),
    })
}
