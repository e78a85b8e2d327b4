//! The dataset sink of an incremental run beside a rescan in the background, and of that rescan.

use tahini_entity::Batch;
use tahini_store::{Rule, Snapshot, StateWrite};

use super::{DatasetSink, Step, told};
use crate::rescan::{self, Both, Joined, Role, Shared};
use crate::seen::{each_other, marked};
use crate::sink::{End, Run, Written};
use crate::{Failure, children};

impl DatasetSink {
    /// Begins a run that shares the dataset with a rescan of its pipe, or the rescan.
    pub(super) fn begin_beside(
        &mut self,
        run: &Run,
        snapshot: &dyn Snapshot,
    ) -> Result<(), Failure> {
        let Some(beside) = &run.beside else {
            return Ok(());
        };
        let pipe = self.pipe.clone();
        let resumed = run.resumed && beside.record.is_some();
        let dataset = std::sync::Arc::clone(&self.dataset);
        let joined = Joined::join(beside, resumed, &pipe, dataset.as_ref(), |state| {
            self.commit_state(state)
        })?;
        self.joined = Some(joined);
        if self.populate == super::Populate::AtStart && !snapshot.head().populated {
            self.commit(&[], true, false)?;
        }
        Ok(())
    }

    fn commit_state(&mut self, state: &[StateWrite]) -> Result<(), Failure> {
        self.commit_rows(Step {
            rows: &Batch::new(),
            state,
            populated: false,
            rule: Rule::IfChanged,
            note: None,
            last: false,
        })?;
        Ok(())
    }

    /// Commits what was gathered with `state` in one step, judged by what the other one wrote and
    /// remembered for it.
    pub(super) fn commit_beside(
        &mut self,
        both: &mut Both,
        role: Role,
        state: &[StateWrite],
        populated: bool,
    ) -> Result<Written, Failure> {
        if self.gathered.is_empty() && state.is_empty() && !populated {
            return Ok(Written::default());
        }
        let rows = std::mem::take(&mut self.gathered);
        let tracked = match self.tracks_children {
            true => children::tracked(&rows, self.dataset.uncommitted()?.as_ref())?,
            false => None,
        };
        let chunk = match rows.is_empty() && both.is_settled(role) {
            true => None,
            false => both.chunk(role)?,
        };
        let merged = chunk.as_ref().map_or(&[][..], |chunk| &chunk.writes);
        let outcome = self.commit_rows(Step {
            rows: tracked.as_ref().unwrap_or(&rows),
            state: &[state, merged].concat(),
            populated,
            rule: both.rule(role, self.terms.rule()),
            note: chunk.as_ref(),
            last: false,
        })?;
        both.saved(role, chunk.as_ref(), outcome.seqs.iter().flatten().copied());
        self.gathered = rows;
        self.gathered.clear();
        Ok(told(&outcome))
    }

    /// Ends a rescan: deletes what neither it nor a run saw, a batch at a time and beside runs,
    /// and forgets what was kept of it.
    pub(super) fn finish_rescan(
        &mut self,
        shared: &Shared,
        end: &End,
        populated: bool,
    ) -> Result<Written, Failure> {
        let mut written = self.commit(&[], false, false)?;
        if end.complete && self.deletion_tracking {
            written += self.delete_beside(shared)?;
        }
        let mut both = shared.lock();
        let mut state = end.progress.state.clone();
        let newest = self.dataset.uncommitted()?;
        state.extend(rescan::forget(newest.as_ref(), &self.pipe)?);
        let populated = populated && !newest.head().populated;
        self.commit_rows(Step {
            rows: &Batch::new(),
            state: &state,
            populated,
            rule: Rule::IfChanged,
            note: None,
            last: true,
        })?;
        both.finished();
        drop(both);
        if let Some(ticket) = self.durable.take() {
            ticket.wait()?;
        }
        Ok(written)
    }

    fn delete_beside(&mut self, shared: &Shared) -> Result<Written, Failure> {
        let mut written = Written::default();
        let seen = shared.lock().seen();
        let snapshot = self.dataset.uncommitted()?;
        each_other(&seen, snapshot.as_ref(), |gone| {
            self.cancel.check()?;
            let both = shared.lock();
            let marked = self.marks_deletions.then(|| marked(gone)).transpose()?;
            let outcome = self.commit_rows(Step {
                rows: marked.as_ref().unwrap_or(gone),
                state: &[],
                populated: false,
                rule: both.rule(Role::Rescan, self.terms.rule_of_deletions()),
                note: None,
                last: false,
            })?;
            written += told(&outcome);
            Ok::<(), Failure>(())
        })?;
        Ok(written)
    }
}
