//! What a request does to the dataset.

use std::borrow::Cow;
use std::time::Duration;

use tahini_entity::Batch;
use tahini_store::{Commit, Dataset, Outcome, Rule, Show, Snapshot, StateWrite, StoreError};

use super::sequence::{self, Sequence, Turn};
use super::stale::Stale;
use super::trip::Guard;
use super::{PostError, Push};
use crate::compaction;
use crate::completeness::{Leaving, Promised};
use crate::hub::Hub;
use crate::pipe::Pipe;
use crate::seen::{Chunk, Seen, marked};
use crate::terms::{Terms, refused};

pub(super) struct Receiver<'a> {
    /// The completeness that the dataset gets, where this request is one whole step.
    pub leaving: Option<Leaving>,
    /// What readers know of it when the request is done.
    pub promised: Option<Promised>,
    /// The time of the request, microseconds since 1970 UTC.
    pub now: i64,
    pub terms: Terms,
    pub hub: &'a Hub,
    pub pipe: &'a Pipe,
    /// Zero where the answer waits for the disk.
    pub delay: Duration,
    pub dataset: &'a dyn Dataset,
    pub push: &'a Push,
    /// Under an armed circuit breaker: what is written is held back.
    pub guard: Option<Guard>,
    /// How many versions readers see when the request is done that they did not see before.
    pub shown: u64,
}

impl Receiver<'_> {
    fn space(&self) -> String {
        format!("receiver:{}", self.pipe.id)
    }

    pub(super) fn take(&mut self, rows: &Batch) -> Result<u64, PostError> {
        Guard::check(self.pipe, self.dataset)?;
        match self.push.is_full {
            true => self.take_full(rows),
            // An incremental request leaves the active sequence alone, whatever its parameters say.
            false => self.take_incremental(rows),
        }
    }

    fn take_full(&mut self, rows: &Batch) -> Result<u64, PostError> {
        // What a sequence under a breaker has done so far is held back, its place included.
        let before = self.dataset.uncommitted()?;
        let promise = self.promise(rows.len(), before.as_ref())?;
        let known = self.sequence(before.as_ref())?;
        let digest = sequence::digest(self.push, rows);
        let turn = Sequence::turn(known.as_ref(), self.push, &digest)?;
        if turn == Turn::Repeated {
            return Ok(0);
        }
        let begins = turn == Turn::First;
        drop(before);
        self.guard = match begins {
            true => Guard::new(self.pipe, self.settled()?.head()),
            false => Guard::going_on(self.pipe, self.dataset)?,
        };
        let kept = Seen::load(self.space(), self.dataset.uncommitted()?.as_ref())?;
        let (mut seen, state) = match begins {
            false => (kept, Vec::new()),
            true => (Seen::nothing(self.space()), kept.forget()?),
        };
        let mut changed = 0;
        if turn != Turn::Ends {
            changed = self.take_part(rows, &mut seen, state)?;
        }
        if self.push.is_last {
            changed += self.delete_unseen(&seen)?;
            self.end_sequence(digest, changed, (&seen, promise))?;
        } else if self.guard.is_none() {
            self.shown = changed;
        }
        Ok(changed)
    }

    /// Commits what a request of a full sequence brings, and that it came.
    fn take_part(
        &self,
        rows: &Batch,
        seen: &mut Seen,
        mut state: Vec<StateWrite>,
    ) -> Result<u64, PostError> {
        let chunk = seen.chunk()?;
        let sequence = match self.push.is_last {
            true => Sequence::ending(self.push),
            false => Sequence::after(self.push, String::new()),
        };
        state.extend_from_slice(&chunk.writes);
        state.push(self.write(b"sequence", Some(sequence.to_bytes())));
        let outcome = self.commit_rows(rows, &state, self.terms.rule(), Some(&chunk))?;
        seen.saved(&chunk, outcome.seqs.iter().flatten().copied());
        Ok(changes(&outcome))
    }

    /// The commit that ends a full sequence, of which readers see everything now.
    fn end_sequence(
        &mut self,
        digest: String,
        changed: u64,
        (seen, promise): (&Seen, Vec<StateWrite>),
    ) -> Result<(), PostError> {
        let mut state = seen.forget()?;
        state.extend(promise);
        let done = Sequence::after(self.push, digest);
        state.push(self.write(b"sequence", Some(done.to_bytes())));
        // The sequence was the first load, where nothing was populated before.
        let populated = self.pipe.effective["sink"]["set_initial_offset"] != "never";
        self.shown = match &self.guard {
            None => changed,
            Some(guard) => guard.held(self.dataset)?,
        };
        self.commit_last(&state, populated)
    }

    /// What readers see, once what was held back of something that broke off is taken back.
    fn settled(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let seen = self.dataset.snapshot()?;
        if !seen.head().holds {
            return Ok(seen);
        }
        drop(seen);
        self.dataset.roll_back()?;
        self.dataset.snapshot()
    }

    /// What comes in the middle of somebody's full sequence must not be deleted at its end. A
    /// sequence that is held back ends here: what this request brings is to be seen at once.
    fn take_incremental(&mut self, rows: &Batch) -> Result<u64, PostError> {
        let before = self.settled()?;
        let promise = self.promise(rows.len(), before.as_ref())?;
        let open = self
            .sequence(before.as_ref())?
            .is_some_and(|known| known.is_open());
        // A row is a change at most.
        let guard = Guard::new(self.pipe, before.head());
        self.guard = guard.filter(|guard| rows.len() as u64 > guard.limit);
        let outcome = self.commit_rows(rows, &promise, self.terms.rule(), None)?;
        let mut state = Vec::new();
        if open {
            let mut seen = Seen::load(self.space(), before.as_ref())?;
            seen.note(outcome.seqs.iter().flatten().copied());
            state = seen.save()?;
        }
        if self.guard.is_some() || !state.is_empty() {
            self.commit_last(&state, false)?;
        }
        self.shown = changes(&outcome);
        Ok(self.shown)
    }

    /// The completeness that goes along. Without a word of the poster it is the time of the
    /// request: not before the `_ts` of the last row, since all of them are in then.
    fn promise(
        &mut self,
        rows: usize,
        before: &dyn Snapshot,
    ) -> Result<Vec<StateWrite>, PostError> {
        let Some(leaving) = &mut self.leaving else {
            return Ok(Vec::new());
        };
        if self.push.completeness.is_none() {
            let rows = i64::try_from(rows).unwrap_or(i64::MAX);
            let first = self.now.max(before.head().last_ts.saturating_add(1));
            leaving.cap(first.saturating_add(rows));
        }
        self.promised = Some(leaving.promised(&self.hub.world, before)?);
        Ok(vec![leaving.write(before)?.0])
    }

    /// What the dataset has of these ids.
    pub(super) fn latest(&self, rows: &Batch) -> Result<Batch, PostError> {
        let ids: Vec<&str> = rows.iter().filter_map(|record| record.id).collect();
        let mut latest = Batch::new();
        self.dataset.uncommitted()?.latest(&ids, &mut latest)?;
        Ok(latest)
    }

    fn sequence(&self, snapshot: &dyn Snapshot) -> Result<Option<Sequence>, PostError> {
        let rows = snapshot.state(&self.space(), b"sequence")?;
        let saved = rows.into_iter().next();
        Ok(saved.and_then(|(_, value)| Sequence::of_bytes(value)))
    }

    fn write(&self, key: &[u8], value: Option<Vec<u8>>) -> StateWrite {
        StateWrite {
            space: self.space(),
            key: key.to_vec(),
            value,
        }
    }

    /// Commits rows; where the breaker trips, they stay held back.
    fn commit_rows(
        &self,
        rows: &Batch,
        state: &[StateWrite],
        rule: Rule<'_>,
        chunk: Option<&Chunk>,
    ) -> Result<Outcome, PostError> {
        let mut state = Cow::Borrowed(state);
        if compaction::retracts(self.pipe.effective.get("compaction")) {
            let retracted = compaction::to_retract(&self.pipe.id, rows);
            state.to_mut().extend(retracted);
        }
        let outcome = self.commit_as(Commit {
            rows,
            rule,
            state: state.as_ref(),
            populated: false,
            now: self.now,
            show: match self.guard {
                Some(_) => Show::Later,
                None => Show::Now,
            },
            note: chunk.map(Chunk::note),
        })?;
        if let Some(guard) = &self.guard {
            guard.count(self.hub, self.pipe, self.dataset)?;
        }
        Ok(outcome)
    }

    /// The commit that ends a step: state alone, and all that was held back is seen.
    fn commit_last(&self, state: &[StateWrite], populated: bool) -> Result<(), PostError> {
        self.commit_as(Commit {
            rows: &Batch::new(),
            rule: self.terms.rule(),
            state,
            populated,
            now: self.now,
            show: match self.guard {
                None => Show::Now,
                Some(_) => Show::All,
            },
            note: None,
        })?;
        Ok(())
    }

    fn commit_as(&self, commit: Commit<'_>) -> Result<Outcome, PostError> {
        let rows = commit.rows;
        let (outcome, ticket) = match self.dataset.commit_within(commit, self.delay) {
            Err(error @ StoreError::Refused(_)) if self.terms.one_by_one() => {
                let stale = match self.terms.is_locked() {
                    true => Stale::find(rows, self.dataset.uncommitted()?.as_ref())?,
                    false => None,
                };
                let error = stale.as_ref().and_then(Stale::told_twice).unwrap_or(error);
                let words = refused(&self.terms, error).message;
                return Err(PostError::Outdated(words, stale.map(Box::new)));
            }
            other => other?,
        };
        if self.delay.is_zero() {
            ticket.wait()?;
        }
        Ok(outcome)
    }

    fn delete_unseen(&self, seen: &Seen) -> Result<u64, PostError> {
        if self.pipe.effective["sink"]["deletion_tracking"] == false {
            return Ok(0);
        }
        let snapshot = self.dataset.uncommitted()?;
        let marks = self.pipe.effective["sink"]["mark_deletion_tracked"] == true;
        let mut deleted = 0;
        seen.each_unseen(snapshot.as_ref(), |gone| {
            let rule = self.terms.rule_of_deletions();
            let marked = marks.then(|| marked(gone)).transpose()?;
            let gone = marked.as_ref().unwrap_or(gone);
            deleted += self.commit_rows(gone, &[], rule, None)?.deleted;
            Ok::<(), PostError>(())
        })?;
        Ok(deleted)
    }
}

fn changes(outcome: &Outcome) -> u64 {
    outcome.written + outcome.deleted
}
