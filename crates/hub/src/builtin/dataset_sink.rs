//! The `dataset` sink: writes real changes, tracks deletions, and keeps the pipe's place.
//!
//! Rows are gathered up to a checkpoint and committed with the place in one atomic step.
//! A commit's sync overlaps the work on the next one.

use std::sync::Arc;

use tahini_entity::{Batch, Offset, Record};
use tahini_store::{Commit, Dataset, Outcome, Rule, StateWrite, Ticket};

use crate::config::{Kind, Property};
use crate::registry::SinkDef;
use crate::seen::{Seen, push_deleted};
use crate::sink::{End, Progress, Run, Written};
use crate::terms::{Terms, refused};
use crate::{Clock, Ctx, Failure, Sink, children, compaction, progress};

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
            "Marks tracked deletions.",
        )
        .withheld(),
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
            "Limit of changes by share.",
        )
        .withheld(),
        Property::new(
            "circuit_breaker_threshold_count",
            Kind::Integer(0),
            "Limit of changes by number.",
        )
        .withheld(),
    ],
    open,
};

/// Rows gathered before a commit, whatever the checkpoints.
const COMMIT_ROWS: usize = 10_000;
/// Encoded bytes gathered before a commit.
const COMMIT_BYTES: usize = 16 << 20;

struct DatasetSink {
    dataset: Arc<dyn Dataset>,
    clock: Arc<dyn Clock>,
    deletion_tracking: bool,
    terms: Terms,
    tracks_children: bool,
    retracts: bool,
    populate: Populate,
    pipe: String,
    gathered: Batch,
    seen: Option<Seen>,
    durable: Option<Ticket>,
    changed: bool,
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
        terms: Terms::of(ctx.props)?,
        tracks_children: ctx.props.bool("track_children", false)?,
        retracts: compaction::retracts(ctx.whole.get("compaction")),
        populate,
        pipe: ctx.owner.to_owned(),
        gathered: Batch::new(),
        seen: None,
        durable: None,
        changed: false,
    }))
}

impl DatasetSink {
    /// Commits what was gathered with `state` in one step; waits for the commit before. Nothing
    /// to commit costs nothing: a thousand idle pipes run every half minute.
    fn commit(&mut self, state: &[StateWrite], populated: bool) -> Result<Written, Failure> {
        if self.gathered.is_empty() && state.is_empty() && !populated {
            return Ok(Written::default());
        }
        let rows = std::mem::take(&mut self.gathered);
        let tracked = match self.tracks_children {
            true => children::tracked(&rows, self.dataset.snapshot()?.as_ref())?,
            false => None,
        };
        let to_write = tracked.as_ref().unwrap_or(&rows);
        let outcome = self.commit_rows(to_write, state, populated, self.terms.rule())?;
        self.gathered = rows;
        self.gathered.clear();
        if let Some(seen) = &mut self.seen {
            seen.note(outcome.seqs.iter().flatten().copied());
        }
        Ok(told(&outcome))
    }

    fn commit_rows(
        &mut self,
        rows: &Batch,
        state: &[StateWrite],
        populated: bool,
        rule: Rule<'_>,
    ) -> Result<Outcome, Failure> {
        let with_retracted;
        let state = match self.retracts {
            true => {
                with_retracted = [state, &compaction::to_retract(&self.pipe, rows)].concat();
                &with_retracted
            }
            false => state,
        };
        let commit = Commit {
            rows,
            rule,
            state,
            populated,
            now: self.clock.micros(),
        };
        let outcome = self.dataset.commit(commit);
        let (outcome, ticket) = outcome.map_err(|error| refused(&self.terms, error))?;
        if let Some(before) = self.durable.replace(ticket) {
            before.wait()?;
        }
        self.changed |= outcome.written + outcome.deleted > 0;
        Ok(outcome)
    }

    /// Commits with the place. In a full run the place goes into a second commit, with the ids
    /// seen so far: sequences are known only once the rows are in, and a place that runs ahead
    /// of the seen set would delete entities after a crash. In between, a crash reads again.
    fn checkpoint(&mut self, progress: &Progress) -> Result<Written, Failure> {
        if self.seen.is_none() {
            return self.commit(&progress.state, false);
        }
        let written = self.commit(&[], false)?;
        let mut state = progress.state.clone();
        if let Some(seen) = &mut self.seen {
            state.extend(seen.save()?);
        }
        self.commit(&state, false)?;
        Ok(written)
    }

    /// Deletes what is live and did not come, a batch at a time.
    fn track_deletions(&mut self) -> Result<Written, Failure> {
        let mut written = Written::default();
        let Some(seen) = self.seen.take() else {
            return Ok(written);
        };
        let snapshot = self.dataset.snapshot()?;
        seen.each_unseen(snapshot.as_ref(), |gone| {
            let rule = self.terms.rule_of_deletions();
            written += told(&self.commit_rows(gone, &[], false, rule)?);
            Ok::<(), Failure>(())
        })?;
        Ok(written)
    }
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
    }
}

impl Sink for DatasetSink {
    fn begin(&mut self, run: &Run) -> Result<(), Failure> {
        let snapshot = self.dataset.snapshot()?;
        let space = progress::space(&self.pipe);
        let kept = Seen::load(space.clone(), snapshot.as_ref())?;
        let state = match run.resumed {
            true => Vec::new(),
            false => kept.forget()?,
        };
        if run.kind.reads_everything() && self.deletion_tracking {
            self.seen = Some(match run.resumed {
                true => kept,
                false => Seen::nothing(space),
            });
        }
        let populated = self.populate == Populate::AtStart && !snapshot.head().populated;
        if !state.is_empty() || populated {
            self.commit(&state, populated)?;
        }
        Ok(())
    }

    fn write(&mut self, batch: &Batch, progress: Option<&Progress>) -> Result<Written, Failure> {
        self.terms.push(&mut self.gathered, batch)?;
        let full = self.gathered.len() >= COMMIT_ROWS
            || self.gathered.bytes() >= COMMIT_BYTES
            || self.terms.one_by_one();
        match progress {
            Some(progress) => self.checkpoint(progress),
            None if full => self.commit(&[], false),
            None => Ok(Written::default()),
        }
    }

    fn finish(&mut self, end: &End) -> Result<Written, Failure> {
        let mut written = self.commit(&[], false)?;
        let mut state = end.progress.state.clone();
        if end.complete && self.deletion_tracking {
            if let Some(seen) = &self.seen {
                state.extend(seen.forget()?);
            }
            written += self.track_deletions()?;
        }
        let populated = match self.populate {
            Populate::Always => true,
            Populate::IfSourcePopulated => end.populated,
            Populate::Never | Populate::AtStart => false,
        };
        let head = self.dataset.snapshot()?;
        let news = state
            .iter()
            .any(|write| !progress::is_saved(head.as_ref(), write));
        let news = news || (self.changed && !end.along.is_empty());
        state.extend_from_slice(&end.along);
        if news || (populated && !head.head().populated) {
            self.seen = None;
            written += self.commit(&state, populated)?;
        }
        if let Some(ticket) = self.durable.take() {
            ticket.wait()?;
        }
        Ok(written)
    }

    fn abort(&mut self, _why: &Failure) {
        self.gathered.clear();
        if let Some(ticket) = self.durable.take() {
            let _ = ticket.wait();
        }
    }

    fn seen(&mut self, ids: &[&str]) -> Result<(), Failure> {
        let Some(seen) = &mut self.seen else {
            return Ok(());
        };
        let mut latest = Batch::new();
        self.dataset.snapshot()?.latest(ids, &mut latest)?;
        seen.note(
            latest
                .iter()
                .filter_map(|record| match record.meta.updated {
                    Some(Offset::Int(seq)) => Some(seq.unsigned_abs()),
                    _ => None,
                }),
        );
        Ok(())
    }

    fn keeps_progress(&self) -> bool {
        true
    }

    fn takes_filtered(&self) -> bool {
        !self.terms.suppress_filtered()
    }
}
