//! The `dataset` sink: writes real changes, tracks deletions, and keeps the pipe's place.
//!
//! Rows are gathered up to a checkpoint and committed with the place in one atomic step. Where
//! many come, that is done on a thread of its own while the next ones are gathered, and a commit's
//! sync overlaps the work on the next one.

mod beside;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tahini_entity::{Batch, Offset, Record};
use tahini_store::{
    Commit, Dataset, Head, Outcome, Rule, Seq, Show, StateWrite, StoreError, Ticket,
};

use super::committing::{Committing, Order};
use crate::breaker::{self, Breaker};
use crate::config::{Kind, Property};
use crate::registry::SinkDef;
use crate::rescan::{self, Joined, Role};
use crate::seen::{Chunk, Seen, marked, push_deleted};
use crate::sink::{End, Progress, Run, Written};
use crate::terms::{Terms, refused};
use crate::{Cancel, Class, Clock, Ctx, Failure, Sink, children, compaction, progress};

pub(super) const DEF: SinkDef = SinkDef {
    name: "dataset",
    summary: "Writes entities to a dataset; only real changes make a version.",
    properties: &[
        Property::new(
            "dataset",
            Kind::Dataset,
            "The dataset; the pipe's id by default.",
        ),
        Property::new(
            "deletion_tracking",
            Kind::Boolean,
            "After a complete full run, entities that did not come are deleted.",
        )
        .or("true"),
        Property::new(
            "set_initial_offset",
            Kind::Enum(&[
                "if-source-populated",
                "never",
                "always",
                "initially",
                "onload",
            ]),
            "When the dataset counts as populated.",
        )
        .or("\"if-source-populated\""),
        Property::new(
            "enable_optimistic_locking",
            Kind::Boolean,
            "Refuses a batch or a request in which an entity's `_updated` is not that of its latest \
             version; a poster is answered with the entities as they were written.",
        )
        .or("false"),
        Property::new(
            "max_entity_bytes_size",
            Kind::Integer(1),
            "The most bytes that an entity may take as it is stored; a larger one is a write error.",
        ),
        Property::new(
            "mark_deletion_tracked",
            Kind::Boolean,
            "Adds `\"$deletion_tracked\": true` to entities that deletion tracking deletes.",
        )
        .or("false"),
        Property::new(
            "indexes",
            Kind::Any,
            "Index expressions to maintain, such as `[\"_S.category\"]`, or `\"$ids\"`; each also \
             makes the API give subsets by it.",
        ),
        Property::new(
            "track_children",
            Kind::Boolean,
            "Children that are gone from an entity's `$children` stay there as deleted ones; true \
             by itself where rules use `create-child`.",
        ),
        Property::new(
            "suppress_filtered",
            Kind::Boolean,
            "Leaves filtered entities out, so that what the dataset has of them stays; otherwise \
             they are deleted.",
        )
        .or("false"),
        Property::new(
            "bitset_commit_interval",
            Kind::Integer(1),
            "How often another product writes its own records to disk.",
        )
        .noted(),
        Property::new(
            "prevent_multiple_versions",
            Kind::Any,
            "Fails on a second version of an entity, or with `ignore` passes it over.",
        )
        .or("false"),
        Property::new(
            "circuit_breaker_threshold_factor",
            Kind::Number,
            "How many entities a run may write, as a factor of the ids in the dataset; a run that \
             writes more is held back from readers until it is committed or rolled back.",
        ),
        Property::new(
            "circuit_breaker_threshold_count",
            Kind::Integer(0),
            "How many entities a run may write; with a factor the larger one counts.",
        ),
    ],
    open,
};

/// Rows gathered before a commit, whatever the checkpoints.
const COMMIT_ROWS: usize = 10_000;
/// Encoded bytes gathered before a commit.
const COMMIT_BYTES: usize = 16 << 20;
/// Encoded bytes that are committed before anything else is read: one large entity is in memory
/// several times while it is committed, and so would the next one be while it is read.
const LARGE_BYTES: usize = 2 * COMMIT_BYTES;
/// When a run's last commit would be synced if nobody waited for it.
const LAST_WITHIN: Duration = Duration::from_millis(100);

struct DatasetSink {
    dataset: Arc<dyn Dataset>,
    clock: Arc<dyn Clock>,
    deletion_tracking: bool,
    marks_deletions: bool,
    terms: Terms,
    tracks_children: bool,
    retracts: bool,
    /// The pipe's rules look into this very dataset: what a batch brought is there for the next.
    reads_itself: bool,
    populate: Populate,
    breaker: Option<Breaker>,
    pipe: String,
    gathered: Batch,
    /// The memory of a batch that was committed.
    spare: Batch,
    committing: Option<Committing>,
    seen: Option<Seen>,
    /// What a run shares with a rescan beside it, or a rescan with runs; nothing is committed on
    /// another thread then.
    joined: Option<Joined>,
    cancel: Cancel,
    durable: Option<Ticket>,
    changed: bool,
    armed: Option<Armed>,
}

/// A circuit breaker that may trip in this run.
struct Armed {
    breaker: Breaker,
    /// The dataset before the run.
    head: Head,
    limit: Option<u64>,
    changes: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Populate {
    IfSourcePopulated,
    Always,
    Never,
    AtStart,
}

fn open(ctx: &Ctx<'_>) -> Result<Box<dyn Sink>, Failure> {
    let name = ctx.props.opt_str("dataset")?.unwrap_or(ctx.owner);
    let populate = match ctx.props.opt_str("set_initial_offset")? {
        Some("always") => Populate::Always,
        Some("never") => Populate::Never,
        Some("initially" | "onload") => Populate::AtStart,
        _ => Populate::IfSourcePopulated,
    };
    Ok(Box::new(DatasetSink {
        dataset: ctx.store.open(name, true)?,
        clock: Arc::clone(ctx.clock),
        deletion_tracking: ctx.props.bool("deletion_tracking", true)?,
        marks_deletions: ctx.props.bool("mark_deletion_tracked", false)?,
        terms: Terms::of(ctx.props)?,
        tracks_children: ctx.props.bool("track_children", false)?,
        retracts: compaction::retracts(ctx.whole.get("compaction")),
        reads_itself: ctx.joined.iter().any(|read| read.dataset == name),
        populate,
        breaker: Breaker::of(ctx.props, ctx.whole.get("transform"))?,
        pipe: ctx.owner.to_owned(),
        gathered: Batch::new(),
        spare: Batch::new(),
        committing: None,
        seen: None,
        joined: None,
        cancel: ctx.cancel.clone(),
        durable: None,
        changed: false,
        armed: None,
    }))
}

impl DatasetSink {
    /// Commits what was gathered with `state` in one step; waits for the commit before. Nothing
    /// to commit costs nothing: a thousand idle pipes run every half minute. The last commit of a
    /// run shows what was held back.
    fn commit(
        &mut self,
        state: &[StateWrite],
        populated: bool,
        last: bool,
    ) -> Result<Written, Failure> {
        if let Some(joined) = &self.joined {
            let (shared, role) = (joined.shared(), joined.role());
            let mut both = shared.lock();
            return self.commit_beside(&mut both, role, state, populated);
        }
        let mut written = self.collect()?;
        let shows = last && self.holds()?;
        if self.gathered.is_empty() && state.is_empty() && !populated && !shows {
            return Ok(written);
        }
        let rows = std::mem::take(&mut self.gathered);
        written += self.commit_these(&rows, state, populated, last)?;
        self.gathered = rows;
        self.gathered.clear();
        Ok(written)
    }

    /// Commits a batch with a large entity behind what was gathered, and copies it only where the
    /// dataset stores something else.
    fn commit_large(&mut self, batch: &Batch, state: &[StateWrite]) -> Result<Written, Failure> {
        let rows = self.terms.rows(batch)?;
        let mut written = self.commit(&[], false, false)?;
        written += self.commit_these(&rows, state, false, false)?;
        Ok(written)
    }

    /// Commits these rows with `state` in one step; no commit is under way.
    fn commit_these(
        &mut self,
        rows: &Batch,
        state: &[StateWrite],
        populated: bool,
        last: bool,
    ) -> Result<Written, Failure> {
        // What came is saved together with a place, never behind it: an id that was passed and is
        // not remembered would be deleted.
        let wanted = |seen: &&Seen| !(state.is_empty() || rows.is_empty() && seen.is_settled());
        let seen = self.seen.as_ref().filter(wanted).filter(|_| !last);
        let chunk = seen.map(Seen::chunk).transpose()?;
        let with_chunk;
        let state = match &chunk {
            Some(chunk) if !chunk.writes.is_empty() => {
                with_chunk = [state, &chunk.writes].concat();
                &with_chunk
            }
            _ => state,
        };
        let tracked = match self.tracks_children {
            true => children::tracked(rows, self.dataset.uncommitted()?.as_ref())?,
            false => None,
        };
        let outcome = self.commit_rows(Step {
            rows: tracked.as_ref().unwrap_or(rows),
            state,
            populated,
            rule: self.terms.rule(),
            note: chunk.as_ref(),
            last,
        })?;
        let seqs = outcome.seqs.iter().flatten().copied();
        match (&mut self.seen, &chunk) {
            (Some(seen), Some(chunk)) => seen.saved(chunk, seqs),
            (Some(seen), None) => seen.note(seqs),
            (None, _) => {}
        }
        Ok(told(&outcome))
    }

    /// Begins to commit what was gathered with `state`; tells what came of the commit before.
    fn hand_over(&mut self, state: &[StateWrite]) -> Result<Written, Failure> {
        let written = self.collect()?;
        let rows = std::mem::replace(&mut self.gathered, std::mem::take(&mut self.spare));
        let state = self.with_retracted(state, &rows).into_owned();
        let committing = match &mut self.committing {
            Some(committing) => committing,
            none => none.insert(Committing::start(&self.dataset).map_err(|error| {
                Failure::transient(format!(
                    "expected a thread to commit on, found none: {error}"
                ))
            })?),
        };
        committing.begin(Order {
            rows,
            rule: self.terms.rule(),
            state,
            now: self.clock.micros(),
        })?;
        Ok(written)
    }

    /// Ends the commit under way, if there is one.
    fn collect(&mut self) -> Result<Written, Failure> {
        let Some(done) = self.committing.as_mut().and_then(Committing::end) else {
            return Ok(Written::default());
        };
        let done = done?;
        self.spare = done.rows;
        self.spare.clear();
        let outcome = self.committed(done.outcome)?;
        if let Some(seen) = &mut self.seen {
            seen.note(outcome.seqs.iter().flatten().copied());
        }
        Ok(told(&outcome))
    }

    fn commit_rows(&mut self, step: Step<'_>) -> Result<Outcome, Failure> {
        let state = self.with_retracted(step.state, step.rows);
        let commit = Commit {
            rows: step.rows,
            rule: step.rule,
            state: &state,
            populated: step.populated,
            now: self.clock.micros(),
            show: match &self.armed {
                None => Show::Now,
                Some(_) if step.last => Show::All,
                Some(_) => Show::Later,
            },
            note: step.note.map(Chunk::note),
        };
        // The end of a run waits for its last commits together, and syncs for all of them.
        let outcome = match step.last {
            true => self.dataset.commit_within(commit, LAST_WITHIN),
            false => self.dataset.commit(commit),
        };
        self.committed(outcome)
    }

    fn with_retracted<'s>(&self, state: &'s [StateWrite], rows: &Batch) -> Cow<'s, [StateWrite]> {
        match self.retracts {
            true => Cow::Owned([state, &compaction::to_retract(&self.pipe, rows)].concat()),
            false => Cow::Borrowed(state),
        }
    }

    /// Takes a commit in; waits for the sync of the one before.
    fn committed(
        &mut self,
        outcome: Result<(Outcome, Ticket), StoreError>,
    ) -> Result<Outcome, Failure> {
        let (outcome, ticket) = outcome.map_err(|error| refused(&self.terms, error))?;
        if let Some(before) = self.durable.replace(ticket) {
            before.wait()?;
        }
        self.changed |= outcome.written + outcome.deleted > 0;
        self.count(&outcome)?;
        Ok(outcome)
    }

    /// Counts what a run under an armed breaker changed.
    fn count(&mut self, outcome: &Outcome) -> Result<(), Failure> {
        let Some(armed) = &mut self.armed else {
            return Ok(());
        };
        armed.changes += outcome.written + outcome.deleted;
        match armed.limit {
            Some(limit) if armed.changes > limit => {
                let name = self.dataset.name();
                Err(armed.breaker.tripped(name, &armed.head, limit))
            }
            _ => Ok(()),
        }
    }

    /// Whether this run wrote something that is held back.
    fn holds(&self) -> Result<bool, Failure> {
        Ok(self.armed.is_some() && self.dataset.snapshot()?.head().holds)
    }

    /// Leaves what the run wrote held back, with a record that says why.
    fn trip(&mut self, why: &Failure) -> Result<(), Failure> {
        let rows = Batch::new();
        let commit = Commit {
            rows: &rows,
            rule: Rule::IfChanged,
            state: &[breaker::record(&self.pipe, self.clock.as_ref(), why)],
            populated: false,
            now: self.clock.micros(),
            show: Show::Later,
            note: None,
        };
        self.dataset.commit(commit)?.1.wait()?;
        Ok(())
    }

    /// Deletes what is live and did not come, a batch at a time.
    fn track_deletions(&mut self) -> Result<Written, Failure> {
        let mut written = Written::default();
        let Some(seen) = self.seen.take() else {
            return Ok(written);
        };
        let snapshot = self.dataset.uncommitted()?;
        seen.each_unseen(snapshot.as_ref(), |gone| {
            let marked = self.marks_deletions.then(|| marked(gone)).transpose()?;
            let outcome = self.commit_rows(Step {
                rows: marked.as_ref().unwrap_or(gone),
                state: &[],
                populated: false,
                rule: self.terms.rule_of_deletions(),
                note: None,
                last: false,
            })?;
            written += told(&outcome);
            written.tracked = written.deleted;
            Ok::<(), Failure>(())
        })?;
        Ok(written)
    }
}

/// What goes into one commit.
struct Step<'a> {
    rows: &'a Batch,
    state: &'a [StateWrite],
    populated: bool,
    rule: Rule<'a>,
    note: Option<&'a Chunk>,
    /// It is the run's last one.
    last: bool,
}

/// Appends an entity as a dataset stores it: without reserved names, filtered ones as deleted.
pub(crate) fn push_row(out: &mut Batch, record: Record<'_>) -> Result<(), Failure> {
    if record.meta.reserved {
        let mut entity = record.to_entity();
        entity.properties.retain(|name, _| !name.starts_with('_'));
        entity.deleted |= entity.filtered;
        return out
            .push_entity(&entity)
            .map_err(|error| Failure::fatal(error.to_string()));
    }
    if record.meta.filtered && !record.meta.deleted {
        push_deleted(out, record);
    } else {
        out.push(record);
    }
    Ok(())
}

fn told(outcome: &Outcome) -> Written {
    Written {
        changed: outcome.written + outcome.deleted,
        deleted: outcome.deleted,
        unchanged: outcome.unchanged,
        ..Written::default()
    }
}

impl Sink for DatasetSink {
    fn begin(&mut self, run: &Run) -> Result<(), Failure> {
        let snapshot = self.dataset.snapshot()?;
        if run.beside.is_some() {
            return self.begin_beside(run, snapshot.as_ref());
        }
        let space = progress::space(&self.pipe);
        let kept = Seen::load(space.clone(), snapshot.as_ref())?;
        let mut state = match run.resumed {
            true => Vec::new(),
            false => kept.forget()?,
        };
        if run.kind.reads_everything() {
            // It does what an unfinished rescan in the background would have done.
            state.extend(rescan::forget(snapshot.as_ref(), &self.pipe)?);
        }
        if run.kind.reads_everything() && self.deletion_tracking {
            self.seen = Some(match run.resumed {
                true => kept,
                false => Seen::nothing(space),
            });
        }
        let populated = self.populate == Populate::AtStart && !snapshot.head().populated;
        if !state.is_empty() || populated {
            self.commit(&state, populated, false)?;
        }
        let head = snapshot.head();
        let breaker = self.breaker.filter(|_| head.populated);
        self.armed = breaker.map(|breaker| Armed {
            breaker,
            limit: breaker.limit(head),
            head: head.clone(),
            changes: 0,
        });
        Ok(())
    }

    fn write(&mut self, batch: &Batch, progress: Option<&Progress>) -> Result<Written, Failure> {
        if batch.bytes() >= LARGE_BYTES && self.joined.is_none() {
            return self.commit_large(batch, progress.map_or(&[], |progress| &progress.state));
        }
        self.terms.push(&mut self.gathered, batch)?;
        let many = self.gathered.len() >= COMMIT_ROWS || self.gathered.bytes() >= COMMIT_BYTES;
        // A refusal must stay with its batch, and a breaker trips where its limit is passed: then
        // nothing may be under way.
        let alone = self.armed.is_some() || self.joined.is_some();
        let large = self.gathered.bytes() >= LARGE_BYTES;
        let together = self.terms.one_by_one() || self.reads_itself || large || (many && alone);
        let full = many && !together;
        match progress {
            Some(progress) if full && self.seen.is_none() => self.hand_over(&progress.state),
            Some(progress) => self.commit(&progress.state, false, false),
            None if full => self.hand_over(&[]),
            None if together => self.commit(&[], false, false),
            None => Ok(Written::default()),
        }
    }

    fn finish(&mut self, end: &End) -> Result<Written, Failure> {
        let populated = match self.populate {
            Populate::Always => true,
            Populate::IfSourcePopulated => end.populated,
            Populate::Never | Populate::AtStart => false,
        };
        if let Some(joined) = &self.joined
            && joined.role() == Role::Rescan
        {
            let shared = joined.shared();
            return self.finish_rescan(&shared, end, populated);
        }
        let mut written = self.collect()?;
        let mut state = end.progress.state.clone();
        // What is deleted or counted comes before the place. Without either the last rows and the
        // place are one commit.
        if end.complete && self.deletion_tracking {
            written += self.commit(&[], false, false)?;
            if let Some(seen) = &self.seen {
                state.extend(seen.forget()?);
            }
            written += self.track_deletions()?;
        } else if self.armed.is_some() {
            written += self.commit(&[], false, false)?;
        }
        let head = self.dataset.snapshot()?;
        let news = !self.gathered.is_empty()
            || self.holds()?
            || state
                .iter()
                .any(|write| !progress::is_saved(head.as_ref(), write));
        if news || (populated && !head.head().populated) {
            self.seen = None;
            written += self.commit(&state, populated, true)?;
        }
        // Whether the last rows changed something is known only now.
        if self.changed && !end.along.is_empty() {
            // A commit is durable no later than the one behind it.
            self.durable = None;
            written += self.commit(&end.along, false, true)?;
        }
        if let Some(ticket) = self.durable.take() {
            ticket.wait()?;
        }
        Ok(written)
    }

    fn abort(&mut self, why: &Failure) {
        let _ = self.collect();
        self.gathered.clear();
        if let Some(ticket) = self.durable.take() {
            let _ = ticket.wait();
        }
        let done = match why.class {
            Class::Tripped => self.trip(why),
            _ if self.armed.is_some() => self.dataset.roll_back().map_err(Failure::from),
            _ => Ok(()),
        };
        if let Err(failure) = done {
            // The next run takes back what no record says to keep.
            tracing::warn!(pipe = %self.pipe, %failure, "what the run wrote is held back");
        }
    }

    fn shows_at_end(&self) -> bool {
        self.armed.is_some()
    }

    fn seen(&mut self, ids: &[&str]) -> Result<(), Failure> {
        let shared = self.joined.as_ref().map(Joined::shared);
        // Nothing is written between the look and the note.
        let both = shared.as_ref().map(|shared| shared.lock());
        if self.seen.is_none() && both.is_none() {
            return Ok(());
        }
        let mut latest = Batch::new();
        self.dataset.uncommitted()?.latest(ids, &mut latest)?;
        let latest = latest.iter();
        let seqs: Vec<Seq> = latest
            .filter_map(|record| match record.meta.updated {
                Some(Offset::Int(seq)) => Some(seq.unsigned_abs()),
                _ => None,
            })
            .collect();
        if let (Some(mut both), Some(joined)) = (both, &self.joined) {
            both.note(joined.role(), seqs.iter().copied());
        } else if let Some(seen) = &mut self.seen {
            seen.note(seqs);
        }
        Ok(())
    }

    fn keeps_progress(&self) -> bool {
        true
    }

    fn takes_filtered(&self) -> bool {
        !self.terms.suppress_filtered()
    }
}
