//! A commit: look up what each row's id has, judge, write one frame, make it known.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use tahini_entity::Shape;

use super::block::{Row, RowShape};
use super::dataset::OpenDataset;
use super::fetch::{Fetch, look_up};
use super::frame::{self, Closing, Finished, FrameWriter, StateChange, put_state};
use super::hold;
use super::segment::HOLDING;
use super::writer::Writer;
use crate::content::Content;
use crate::keys::{index_key, is_cut, key_order, state_key};
use crate::rule::{self, Prior, Verdict};
use crate::{Commit, Outcome, Seq, Show, StateWrite, StoreError};

/// A segment with this many shapes takes no more: maps whose keys are data would never end.
const MOST_SHAPES: usize = 4096;
/// A shape with more names is written into its rows.
const MOST_NAMES: usize = 256;

/// Runs a commit; returns what came of it and the commit that has to be durable for it to hold.
pub(crate) fn run(
    dataset: &Arc<OpenDataset>,
    commit: &Commit<'_>,
) -> Result<(Outcome, u64), StoreError> {
    rule::check_state(commit.state)?;
    // Before the writer's lock, which compaction takes after this one.
    let still = (commit.show == Show::Later).then(|| hold::await_compaction(dataset));
    let mut writer = dataset.writer();
    dataset.check_writable(&mut writer)?;
    if writer.head.holds && commit.show == Show::Now {
        return Err(rule::held_back(&dataset.name));
    }
    if dataset.overlay_full(&writer, commit.show == Show::Later) {
        dataset.write_index(&mut writer)?;
    }
    let plan = Plan::make(dataset, &writer, commit)?;
    let noted = commit.note.and_then(|_| noted(commit, plan.outcome().seqs));
    let commit = &Commit {
        state: noted.as_deref().unwrap_or(commit.state),
        ..*commit
    };
    let populates = commit.populated && !writer.head.populated;
    let shows = commit.show == Show::All && writer.head.holds;
    if plan.written() == 0 && commit.state.is_empty() && !populates && !shows {
        // What was equal may have been written a moment ago: it holds when that is durable.
        return Ok((plan.outcome(), writer.commit));
    }
    // Whoever knows an older format alone must not take what is held back for the rest.
    let old = commit.show == Show::Later && writer.segment.opening.format < HOLDING;
    if old || dataset.segment_full(&writer) {
        dataset.roll(&mut writer)?;
    }
    let undo = old_state(dataset, commit.state)?;
    let (frame, shapes) = encode(dataset, &mut writer, commit, &plan)?;
    writer.append(&frame.bytes, dataset)?;
    writer.note_frame(&frame, &shapes);
    publish(dataset, &mut writer, commit, &plan, undo);
    dataset.buffers.keep(frame.bytes);
    if shows && writer.index_held {
        // Nobody could use it after a crash; a failure is met again by the next commit.
        let _ = dataset.write_index(&mut writer);
    }
    drop(still);
    Ok((plan.outcome(), writer.commit))
}

/// The state of a commit that remembers the versions which its rows met.
fn noted(commit: &Commit<'_>, seqs: Vec<Option<Seq>>) -> Option<Vec<StateWrite>> {
    let write = commit.note?.write(seqs.into_iter().flatten())?;
    let state = commit.state.iter().cloned();
    Some(state.chain([write]).collect())
}

/// What becomes of each row.
struct Plan<'a> {
    keys: Vec<Cow<'a, [u8]>>,
    rows: Vec<Planned>,
    next: Seq,
    first: Seq,
}

#[derive(Clone, Copy)]
enum Planned {
    Leave(Option<Prior>),
    Write {
        version: Prior,
        previous: Option<Prior>,
    },
}

impl Planned {
    fn latest(&self) -> Option<Prior> {
        match self {
            Planned::Leave(prior) => *prior,
            Planned::Write { version, .. } => Some(*version),
        }
    }
}

impl<'a> Plan<'a> {
    fn make(
        dataset: &Arc<OpenDataset>,
        writer: &Writer,
        commit: &Commit<'a>,
    ) -> Result<Plan<'a>, StoreError> {
        let mut keys = Vec::with_capacity(commit.rows.len());
        for at in 0..commit.rows.len() {
            let id = rule::row_id(at, &commit.rows.get(at))?;
            keys.push(index_key(id.as_bytes()));
        }
        let order = key_order(keys.len(), |at| keys[at].as_ref());
        let priors = look_up(dataset, &keys, &order, &writer.superseded)?;
        check_cut_keys(dataset, commit, &keys, &order, &priors)?;
        let earlier = earlier_rows(&keys, &order);
        let first = writer.head.next;
        let mut plan = Plan {
            keys,
            rows: Vec::with_capacity(priors.len()),
            next: first,
            first,
        };
        for (at, record) in commit.rows.iter().enumerate() {
            let prior = match earlier[at] {
                Some(earlier) => plan.rows[earlier as usize].latest(),
                None => priors[at],
            };
            let id = record.id.expect("rows without an id were refused");
            let hash = rule::half(record.hash());
            plan.rows.push(
                match rule::judge(commit.rule, id, &record, hash, prior.as_ref())? {
                    Verdict::Leave => Planned::Leave(prior),
                    Verdict::Write => {
                        let seq = plan.next;
                        plan.next += 1;
                        let version = Prior {
                            seq,
                            hash,
                            deleted: record.meta.deleted,
                        };
                        Planned::Write {
                            version,
                            previous: prior,
                        }
                    }
                },
            );
        }
        Ok(plan)
    }

    fn written(&self) -> u64 {
        self.next - self.first
    }

    fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.seqs.reserve(self.rows.len());
        for planned in &self.rows {
            outcome.seqs.push(planned.latest().map(|latest| latest.seq));
            match planned {
                Planned::Leave(_) => outcome.unchanged += 1,
                Planned::Write { version, .. } if version.deleted => outcome.deleted += 1,
                Planned::Write { .. } => outcome.written += 1,
            }
        }
        outcome
    }
}

/// For each row the row before it with the same key, if there is one.
fn earlier_rows(keys: &[Cow<'_, [u8]>], order: &[u32]) -> Vec<Option<u32>> {
    let mut earlier = vec![None; keys.len()];
    for pair in order.windows(2) {
        if keys[pair[0] as usize] == keys[pair[1] as usize] {
            earlier[pair[1] as usize] = Some(pair[0]);
        }
    }
    earlier
}

/// Cut keys stand for more than they show: the ids behind them have to be the same.
fn check_cut_keys(
    dataset: &Arc<OpenDataset>,
    commit: &Commit<'_>,
    keys: &[Cow<'_, [u8]>],
    order: &[u32],
    priors: &[Option<Prior>],
) -> Result<(), StoreError> {
    let mut fetch = Fetch::new(dataset);
    let mut before: Option<usize> = None;
    for at in order
        .iter()
        .map(|at| *at as usize)
        .filter(|at| is_cut(&keys[*at]))
    {
        let id = commit.rows.get(at).id.unwrap_or_default();
        if let Some(other) = before.filter(|before| keys[*before] == keys[at]) {
            refuse_other(id, commit.rows.get(other).id.unwrap_or_default())?;
        }
        if let Some(prior) = priors[at] {
            fetch.with(prior.seq, |row, _| refuse_other(id, row.id))??;
        }
        before = Some(at);
    }
    Ok(())
}

fn refuse_other(id: &str, other: &str) -> Result<(), StoreError> {
    if id == other {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "expected ids that differ in their hash, found {id:?} and {other:?} to share one"
    )))
}

/// What the state keys held before this commit, for snapshots that are older than it.
fn old_state(
    dataset: &Arc<OpenDataset>,
    state: &[StateWrite],
) -> Result<Vec<StateChange>, StoreError> {
    let overlay = dataset
        .overlay
        .read()
        .unwrap_or_else(PoisonError::into_inner);
    let mut old = Vec::with_capacity(state.len());
    for write in state {
        let key = state_key(&write.space, &write.key);
        let value = match overlay.state.get(&key) {
            Some(value) => value.clone(),
            None => dataset
                .index
                .read(|tables, txn| tables.state_of(txn, &key))?
                .flatten(),
        };
        old.push((key, value));
    }
    Ok(old)
}

fn encode(
    dataset: &OpenDataset,
    writer: &mut Writer,
    commit: &Commit<'_>,
    plan: &Plan<'_>,
) -> Result<(Finished, Vec<Arc<Shape>>), StoreError> {
    let mut frame = FrameWriter::new(dataset.buffers.take(), writer.segment.salt);
    let mut shapes = FrameShapes::new(dataset, &writer.shapes, Vec::new());
    let mut ts = writer.head.last_ts;
    for (planned, record) in plan.rows.iter().zip(commit.rows.iter()) {
        let Planned::Write { version, previous } = planned else {
            continue;
        };
        ts = if version.seq == 0 {
            commit.now
        } else {
            commit.now.max(ts + 1)
        };
        let content = Content::of(&record);
        let shape = shapes.number(&content.shape, &mut frame);
        frame.row(&Row {
            seq: version.seq,
            ts,
            deleted: version.deleted,
            previous: previous.map(|previous| (previous.seq, previous.deleted)),
            id: record.id.expect("rows without an id were refused"),
            shape: shape.map_or(RowShape::Inline(content.shape.names()), RowShape::Known),
            body: &content.body,
        });
        check_length(frame.len())?;
    }
    let state: usize = commit.state.iter().map(state_len).sum();
    check_length(frame.len() + state)?;
    let fresh = shapes.fresh;
    let mut state = Vec::new();
    for write in commit.state {
        let key = state_key(&write.space, &write.key);
        put_state(&key, write.value.as_deref(), &mut state);
    }
    let finished = frame.finish(Closing {
        commit: writer.commit + 1,
        first_seq: plan.first,
        last_ts: ts,
        previous: writer.sum,
        behind: writer.commit - dataset.durable.published().commit,
        populated: commit.populated,
        held: commit.show == Show::Later,
        shows: commit.show == Show::All && writer.head.holds,
        state,
        removals: &[],
    });
    Ok((finished, fresh))
}

fn state_len(write: &StateWrite) -> usize {
    write.space.len() + write.key.len() + write.value.as_ref().map_or(0, Vec::len) + 16
}

/// Leaves room for the last block and for compression that makes things longer.
fn check_length(len: usize) -> Result<(), StoreError> {
    let limit = frame::LONGEST / 2;
    if len <= limit {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "expected a commit of at most {limit} bytes, found a longer one; use smaller batches"
    )))
}

/// The shapes of the segment and those that this frame adds.
pub(crate) struct FrameShapes<'w> {
    known: &'w HashMap<Arc<Shape>, u32>,
    dataset: &'w OpenDataset,
    /// Those that the segment does not have yet.
    pub fresh: Vec<Arc<Shape>>,
    /// Most batches have few shapes, one after the other.
    recent: Option<(Arc<Shape>, u32)>,
}

impl<'w> FrameShapes<'w> {
    /// Shapes of a frame in a segment that knows some already, going on from `fresh`.
    pub fn new(
        dataset: &'w OpenDataset,
        known: &'w HashMap<Arc<Shape>, u32>,
        fresh: Vec<Arc<Shape>>,
    ) -> FrameShapes<'w> {
        FrameShapes {
            known,
            dataset,
            fresh,
            recent: None,
        }
    }

    /// The number of a shape in the segment; `None` where its names go into the row.
    pub fn number(&mut self, shape: &Arc<Shape>, frame: &mut FrameWriter) -> Option<u32> {
        if let Some((recent, number)) = &self.recent
            && Arc::ptr_eq(recent, shape)
        {
            return Some(*number);
        }
        let number = self.find(shape, frame)?;
        self.recent = Some((Arc::clone(shape), number));
        Some(number)
    }

    fn find(&mut self, shape: &Arc<Shape>, frame: &mut FrameWriter) -> Option<u32> {
        if let Some(number) = self.known.get(shape) {
            return Some(*number);
        }
        let known = self.known.len();
        if let Some(at) = self.fresh.iter().position(|fresh| fresh == shape) {
            return Some((known + at) as u32);
        }
        if shape.names().len() > MOST_NAMES || known + self.fresh.len() >= MOST_SHAPES {
            return None;
        }
        frame.shape(shape);
        self.fresh.push(self.dataset.pool().adopt(shape));
        Some((known + self.fresh.len() - 1) as u32)
    }
}

/// Makes a written frame known to readers and to the next commit. Nothing here can fail.
fn publish(
    dataset: &OpenDataset,
    writer: &mut Writer,
    commit: &Commit<'_>,
    plan: &Plan<'_>,
    undo: Vec<StateChange>,
) {
    let mut overlay = dataset
        .overlay
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    for (key, planned) in plan.keys.iter().zip(&plan.rows) {
        let Planned::Write { version, previous } = planned else {
            continue;
        };
        let head = &mut writer.head;
        if let Some(previous) = previous {
            *(if previous.deleted {
                &mut head.deleted
            } else {
                &mut head.live
            }) -= 1;
            writer.dirty.insert(writer.superseded.insert(previous.seq));
        }
        *(if version.deleted {
            &mut head.deleted
        } else {
            &mut head.live
        }) += 1;
        overlay.set_latest(key, Some(*version));
    }
    for (write, (key, old)) in commit.state.iter().zip(undo) {
        overlay.remember(writer.commit, key.clone(), old);
        overlay.set_state(key, write.value.clone());
    }
    overlay.forget(dataset.durable.oldest());
    overlay.count();
    drop(overlay);
    if plan.written() > 0 {
        writer.head.last_ts = last_ts(writer, commit, plan);
    }
    writer.head.next = plan.next;
    writer.head.populated |= commit.populated;
    writer.head.holds = commit.show == Show::Later;
    writer.head.bytes = writer.bytes();
    dataset.durable.push(writer.view());
    writer.torn = false;
}

/// `_ts` of the last row: the first one's, and one microsecond more a row.
fn last_ts(writer: &Writer, commit: &Commit<'_>, plan: &Plan<'_>) -> i64 {
    let first = if plan.first == 0 {
        commit.now
    } else {
        commit.now.max(writer.head.last_ts + 1)
    };
    first + (plan.written() as i64 - 1)
}
