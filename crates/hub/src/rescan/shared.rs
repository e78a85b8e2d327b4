//! What an incremental run and a rescan beside it know of each other.
//!
//! Both commit to one dataset. A commit of either is judged by what the other one wrote, and
//! remembered for it, under one lock: a row is never between the two.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use roaring::RoaringTreemap;
use tahini_store::{Dataset, Rule, Seq, Snapshot, StateWrite};

use super::{Beside, Kept, Phase, Record, TOUCHED, Wins, forget, space};
use crate::Failure;
use crate::execution_log::ExecutionLog;
use crate::progress::{self, SEEN};
use crate::retry::{Failures, Ledger};
use crate::seen::{Chunk, Seen};

/// What the runs of one pipe share, as long as its node runs.
#[derive(Default)]
pub struct Shared {
    both: Mutex<Both>,
    /// The failed entities that runs which are under way know of.
    failures: Mutex<Weak<Failures>>,
}

/// Which of the two a sink works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// An incremental run.
    Run,
    /// The rescan.
    Rescan,
}

/// The part of `Shared` that commits look at.
#[derive(Default)]
pub(crate) struct Both {
    /// Sinks that are open; what is known without any is read anew.
    sinks: usize,
    /// The rescan that began and is not finished.
    record: Option<Record>,
    ids: Option<Ids>,
    /// The latest versions of what the incremental run under way was given, and when it began.
    run: Option<(RoaringTreemap, i64)>,
}

/// The ids of an unfinished rescan, by the sequences of their latest versions.
struct Ids {
    /// What came out of the rescan.
    seen: Seen,
    /// What runs were given since it began.
    touched: Seen,
}

impl Ids {
    fn nothing(pipe: &str) -> Ids {
        Ids {
            seen: Seen::nothing(space(pipe)),
            touched: Seen::nothing_under(TOUCHED, space(pipe)),
        }
    }

    fn load(snapshot: &dyn Snapshot, pipe: &str) -> Result<Ids, Failure> {
        Ok(Ids {
            seen: Seen::load_under(SEEN, space(pipe), snapshot)?,
            touched: Seen::load_under(TOUCHED, space(pipe), snapshot)?,
        })
    }
}

/// A sink's part in it; whoever drops the last one forgets what stands in the dataset anyway.
pub(crate) struct Joined {
    shared: Arc<Shared>,
    role: Role,
}

impl Shared {
    /// The other one waits until this is dropped.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Both> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rescan that is not finished, as runs that are under way know it.
    pub(crate) fn record(&self) -> Option<Record> {
        self.lock().record.clone()
    }

    /// The failed entities of a pipe for a run: those that other runs set aside meanwhile are
    /// among them.
    pub(crate) fn ledger(&self, log: &ExecutionLog, pipe: &str) -> Result<Ledger, Failure> {
        let mut known = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failures) = known.upgrade() {
            return Ok(Ledger::of(failures));
        }
        let ledger = Ledger::load(log, pipe)?;
        *known = Arc::downgrade(ledger.failures());
        Ok(ledger)
    }

    /// The rescan deletes now; runs have the last word from here on.
    pub(crate) fn deletes(&self) {
        if let Some(record) = &mut self.lock().record {
            record.wins = Wins::Run;
            record.phase = Phase::Deleting;
        }
    }
}

impl Joined {
    /// Joins a sink whose run begins. `commit` keeps what a rescan begins with. Whoever joins opens
    /// the source of a rescan afterwards: what a run did that ended before this is in it.
    pub(crate) fn join(
        beside: &Beside,
        resumed: bool,
        pipe: &str,
        dataset: &dyn Dataset,
        commit: impl FnOnce(&[StateWrite]) -> Result<(), Failure>,
    ) -> Result<Joined, Failure> {
        let shared = Arc::clone(&beside.shared);
        let mut both = shared.lock();
        // Nobody commits between this look and what follows from it.
        let snapshot = dataset.snapshot()?;
        let snapshot = snapshot.as_ref();
        if both.sinks == 0 {
            both.record = Kept::load(snapshot, pipe)?.record;
            both.ids = match both.record {
                Some(_) => Some(Ids::load(snapshot, pipe)?),
                None => None,
            };
            both.run = None;
        }
        if resumed && both.record.is_none() {
            return Err(Failure::transient(
                "expected to go on with a rescan, found that nothing is kept of it",
            ));
        }
        let role = match &beside.record {
            Some(record) if !resumed => {
                both.begin(record, pipe, snapshot, commit)?;
                Role::Rescan
            }
            Some(_) => Role::Rescan,
            None => {
                both.run = Some((RoaringTreemap::new(), beside.started));
                Role::Run
            }
        };
        both.sinks += 1;
        drop(both);
        Ok(Joined { shared, role })
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The same part once more, to lock while the sink is at work.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut both = self.shared.lock();
        both.sinks -= 1;
        if self.role == Role::Run {
            both.run = None;
        }
    }
}

impl Both {
    /// Begins a rescan from its start: what another one left is forgotten, but for what the run
    /// under way was given.
    fn begin(
        &mut self,
        record: &Record,
        pipe: &str,
        snapshot: &dyn Snapshot,
        commit: impl FnOnce(&[StateWrite]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut record = record.clone();
        record.until = progress::offset(snapshot, pipe)?;
        let mut ids = Ids::nothing(pipe);
        let mut writes = forget(snapshot, pipe)?;
        if let Some((given, began)) = &self.run {
            record.newer_from = record.newer_from.min(*began);
            if record.wins == Wins::Run {
                ids.touched.note(given.iter());
                writes.extend(ids.touched.save()?);
            }
        }
        writes.push(record.write(pipe));
        commit(&writes)?;
        self.record = Some(record);
        self.ids = Some(ids);
        Ok(())
    }

    /// How the rows of a commit are judged; `own` is what the sink says.
    pub(crate) fn rule<'s>(&'s self, role: Role, own: Rule<'static>) -> Rule<'s> {
        let (Some(record), Some(ids)) = (&self.record, &self.ids) else {
            return own;
        };
        // What is there stays anyway.
        if matches!(own, Rule::KeepFirst) {
            return own;
        }
        match (role, record.wins) {
            (Role::Run, Wins::Rescan) => Rule::UnlessTouched(ids.seen.all()),
            (Role::Rescan, Wins::Run) => Rule::UnlessTouched(ids.touched.all()),
            (Role::Run, Wins::Run) | (Role::Rescan, Wins::Rescan) => own,
        }
    }

    /// The ids that a commit of `role` is remembered among.
    fn noted(&mut self, role: Role) -> Option<&mut Seen> {
        let wins = self.record.as_ref()?.wins;
        let ids = self.ids.as_mut()?;
        match (role, wins) {
            (Role::Rescan, _) => Some(&mut ids.seen),
            (Role::Run, Wins::Run) => Some(&mut ids.touched),
            (Role::Run, Wins::Rescan) => None,
        }
    }

    /// Whether a commit of `role` without rows has nothing to remember.
    pub(crate) fn is_settled(&mut self, role: Role) -> bool {
        self.noted(role).is_none_or(|seen| seen.is_settled())
    }

    /// What a commit needs to remember its rows for the other one.
    pub(crate) fn chunk(&mut self, role: Role) -> Result<Option<Chunk>, Failure> {
        self.noted(role).map(|seen| seen.chunk()).transpose()
    }

    /// Takes note of the latest versions of a commit's rows, which it remembered in `chunk`.
    pub(crate) fn saved(
        &mut self,
        role: Role,
        chunk: Option<&Chunk>,
        seqs: impl Iterator<Item = Seq> + Clone,
    ) {
        self.given(role, seqs.clone());
        match (self.noted(role), chunk) {
            (Some(seen), Some(chunk)) => seen.saved(chunk, seqs),
            (Some(seen), None) => seen.note(seqs),
            (None, _) => {}
        }
    }

    /// Takes note of latest versions without a commit: the next one remembers them.
    pub(crate) fn note(&mut self, role: Role, seqs: impl Iterator<Item = Seq> + Clone) {
        self.given(role, seqs.clone());
        if let Some(seen) = self.noted(role) {
            seen.note(seqs);
        }
    }

    fn given(&mut self, role: Role, seqs: impl Iterator<Item = Seq>) {
        if let (Role::Run, Some((given, _))) = (role, &mut self.run) {
            given.extend(seqs);
        }
    }

    /// What came out of the rescan.
    pub(crate) fn seen(&self) -> RoaringTreemap {
        let ids = self.ids.as_ref();
        ids.map(|ids| ids.seen.all().clone()).unwrap_or_default()
    }

    /// The rescan is finished, and nothing of it stands in the dataset any more.
    pub(crate) fn finished(&mut self) {
        self.record = None;
        self.ids = None;
    }
}
