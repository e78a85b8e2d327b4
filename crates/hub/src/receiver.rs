//! Taking what is posted to a pipe (JSON push protocol, the receiving side).
//!
//! A request to a pipe with `metadata.durable` is answered when what it brought is durable; any
//! other is answered when that is written, and it is durable `receiver_sync_ms` later. Whoever
//! reads the dataset, the next request too, makes it durable first. In a full sequence the request id and
//! the ids seen so far are saved after the rows: a crash in between makes the poster repeat the
//! request, which then changes nothing.

mod forward;
mod look;
mod sequence;

use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

use tahini_entity::Batch;
use tahini_entity::json::{Elements, Layout, Numbers, Parser, ReadError};
use tahini_store::{Commit, Dataset, Outcome, Rule, Show, Snapshot, StateWrite, StoreError};

use crate::children;
use crate::completeness::{self, Leaving, Promised};
use crate::hub::{Hub, LivePipe, Refusal};
use crate::intake::id_found;
use crate::pipe::Pipe;
use crate::seen::{Seen, marked};
use crate::terms::{Terms, refused};
use crate::transform::apply_all;
use crate::{Cancel, Class, Failure, compaction};

pub(crate) use forward::Receiving;
use sequence::{Sequence, Turn};

/// Milliseconds from the answer to the disk where the pipe does not say otherwise.
const SYNC_MS: i64 = 100;

/// The request parameters of the protocol.
#[derive(Clone, Debug, Default)]
pub struct Push {
    /// `sequence_id`.
    pub sequence_id: Option<String>,
    /// `is_full`.
    pub is_full: bool,
    /// `request_id`.
    pub request_id: Option<String>,
    /// `previous_request_id`.
    pub previous_request_id: Option<String>,
    /// `is_first`.
    pub is_first: bool,
    /// `is_last`.
    pub is_last: bool,
    /// The header `X-Dataset-Completeness`: what the dataset's completeness is after this request.
    pub completeness: Option<i64>,
}

/// Why a post was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The pipe cannot take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The body is not what the protocol says; nothing was written.
    #[error("{0}")]
    Body(String),
    /// The request does not belong to the active sequence.
    #[error("{0}")]
    Conflict(String),
    /// An entity has another version than the poster knows, or one too many; nothing was written.
    #[error("{0}")]
    Outdated(String),
    /// Transforms or sink failed.
    #[error("{0}")]
    Failed(#[from] Failure),
}

impl From<StoreError> for PostError {
    fn from(error: StoreError) -> PostError {
        PostError::Failed(match error {
            // A disk has room again some time, and a dataset is opened anew: who posts comes again.
            StoreError::Io { .. } => Failure::transient(error.to_string()),
            error => error.into(),
        })
    }
}

/// What a post did.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    /// Entities that came.
    pub read: u64,
    /// Entities that changed the sink.
    pub changed: u64,
    /// What the dataset has of these entities now, in the order of the request, where the sink
    /// compares versions (`enable_optimistic_locking`) and the poster needs the new ones.
    pub written: Option<Batch>,
}

/// Takes one request.
pub fn receive(
    hub: &Hub,
    live: &LivePipe,
    push: &Push,
    body: impl Read,
) -> Result<Posted, PostError> {
    let pipe = live.usable()?;
    if pipe.kind("source") != "http_endpoint" {
        let why = "its source is not an http_endpoint".to_owned();
        return Err(Refusal::NoPump(pipe.id.clone(), why).into());
    }
    let batch = parse(live, body)?;
    let read = batch.len() as u64;
    let mut receiving = live
        .receiving
        .lock()
        .unwrap_or_else(|lock| lock.into_inner());
    // What the inputs promise is read before what they hold.
    let leaving = match push.is_full && !push.is_last {
        true => None,
        false => completeness::leaving(pipe, &hub.world, push.completeness.unwrap_or(i64::MAX))?,
    };
    let mut look = look::begin(&mut receiving, hub, pipe, &batch)?;
    let entities = transform(hub, pipe, batch)?;
    let mut written = None;
    let changed = match pipe.sink_dataset() {
        Some(name) => {
            let terms = Terms::of_pipe(pipe)?;
            let mut rows = Batch::new();
            terms.push(&mut rows, &entities).map_err(unfit)?;
            let dataset = hub.world.store.open(name, true)?;
            if pipe.effective["sink"]["track_children"] == true
                && let Some(tracked) = children::tracked(&rows, dataset.snapshot()?.as_ref())?
            {
                rows = tracked;
            }
            let mut receiver = Receiver {
                leaving,
                promised: None,
                now: hub.world.clock.micros(),
                terms,
                hub,
                pipe,
                delay: delay(live)?,
                dataset: dataset.as_ref(),
                push,
            };
            let changed = receiver.take(&rows)?;
            if let Some(promised) = receiver.promised.take() {
                promised.keep(&hub.world);
            }
            if terms.is_locked() {
                written = Some(receiver.latest(&rows)?);
            }
            changed
        }
        None => receiving.forward(hub, pipe, push, &entities)?,
    };
    if let Some(look) = &mut look {
        look.posted(hub, live, &entities);
    }
    receiving.look = look;
    Ok(Posted {
        read,
        changed,
        written,
    })
}

/// How much later than the answer what was posted may be durable.
fn delay(live: &LivePipe) -> Result<Duration, Failure> {
    let durable = live.component.effective["metadata"]["durable"] == true;
    let delay = live.component.source().int("receiver_sync_ms", SYNC_MS)?;
    Ok(match durable {
        true => Duration::ZERO,
        false => Duration::from_millis(u64::try_from(delay).unwrap_or(0)),
    })
}

fn parse(live: &LivePipe, body: impl Read) -> Result<Batch, PostError> {
    let source = live.component.source();
    let numbers = Numbers {
        float_as_decimal: source.bool("do_float_as_decimal", true)?,
        float_as_int: source.bool("do_float_as_int", true)?,
    };
    let mut elements = Elements::new(body, Layout::ArrayOrObject);
    let mut parser = Parser::new(numbers);
    let mut batch = Batch::new();
    loop {
        match elements.next_element() {
            Ok(Some(element)) => parser
                .push_json(&mut batch, element)
                .map_err(|error| PostError::Body(error.to_string()))?,
            Ok(None) => return Ok(batch),
            Err(ReadError::Io(error)) => {
                return Err(PostError::Body(format!("the body broke off: {error}")));
            }
            Err(error) => return Err(PostError::Body(error.to_string())),
        }
    }
}

/// What becomes of what was posted, with an id on every entity.
fn transform(hub: &Hub, pipe: &Pipe, batch: Batch) -> Result<Batch, PostError> {
    let mut transforms = pipe.open_way(&hub.world, &Cancel::new())?;
    let outputs = apply_all(&mut transforms, &batch)?;
    let last = outputs.as_ref().map_or(&batch, |outputs| &outputs.batch);
    if let Some(at) = last.iter().position(|record| record.id.is_none()) {
        let origin = outputs.as_ref().map_or(at, |outputs| outputs.origin(at));
        return Err(PostError::Body(format!(
            "entity {origin}: expected a string `_id`, found {}",
            id_found(last.get(at))
        )));
    }
    Ok(outputs.map_or(batch, |outputs| outputs.batch))
}

/// An entity that the sink does not take is the poster's business.
fn unfit(failure: Failure) -> PostError {
    match failure.class {
        Class::Entity => PostError::Body(failure.message),
        _ => PostError::Failed(failure),
    }
}

struct Receiver<'a> {
    /// The completeness that the dataset gets, where this request is one whole step.
    leaving: Option<Leaving>,
    /// What readers know of it when the request is done.
    promised: Option<Promised>,
    /// The time of the request, microseconds since 1970 UTC.
    now: i64,
    terms: Terms,
    hub: &'a Hub,
    pipe: &'a Pipe,
    /// Zero where the answer waits for the disk.
    delay: Duration,
    dataset: &'a dyn Dataset,
    push: &'a Push,
}

impl Receiver<'_> {
    fn space(&self) -> String {
        format!("receiver:{}", self.pipe.id)
    }

    fn take(&mut self, rows: &Batch) -> Result<u64, PostError> {
        let snapshot = self.dataset.snapshot()?;
        let promise = self.promise(rows.len(), snapshot.as_ref())?;
        let known = self.sequence(snapshot.as_ref())?;
        // An incremental request leaves the active sequence alone, whatever its parameters say.
        if !self.push.is_full {
            let open = known.is_some_and(|known| known.open);
            return self.take_incremental(rows, &promise, open.then_some(snapshot.as_ref()));
        }
        let turn = Sequence::turn(known.as_ref(), self.push)?;
        let kept = Seen::load(self.space(), snapshot.as_ref())?;
        let (mut seen, mut state) = match turn {
            Turn::Repeated => return Ok(0),
            Turn::First => (Seen::nothing(self.space()), kept.forget()?),
            Turn::Next => (kept, Vec::new()),
        };
        let outcome = self.commit(rows, &[])?;
        seen.note(outcome.seqs.iter().flatten().copied());
        let mut changed = changes(&outcome);
        if self.push.is_last {
            changed += self.delete_unseen(&seen)?;
            state.extend(seen.forget()?);
        } else {
            state.extend(seen.save()?);
        }
        state.extend(promise);
        state.push(self.write(b"sequence", Some(Sequence::after(self.push).to_bytes())));
        self.commit(&Batch::new(), &state)?;
        Ok(changed)
    }

    /// What comes in the middle of somebody's full sequence (`open`) must not be deleted at its
    /// end.
    fn take_incremental(
        &self,
        rows: &Batch,
        promise: &[StateWrite],
        open: Option<&dyn Snapshot>,
    ) -> Result<u64, PostError> {
        let outcome = self.commit(rows, promise)?;
        if let Some(before) = open {
            let mut seen = Seen::load(self.space(), before)?;
            seen.note(outcome.seqs.iter().flatten().copied());
            let state = seen.save()?;
            if !state.is_empty() {
                self.commit(&Batch::new(), &state)?;
            }
        }
        Ok(changes(&outcome))
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
    fn latest(&self, rows: &Batch) -> Result<Batch, PostError> {
        let ids: Vec<&str> = rows.iter().filter_map(|record| record.id).collect();
        let mut latest = Batch::new();
        self.dataset.snapshot()?.latest(&ids, &mut latest)?;
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

    fn commit(&self, rows: &Batch, state: &[StateWrite]) -> Result<Outcome, PostError> {
        self.commit_as(rows, state, self.terms.rule())
    }

    fn commit_as(
        &self,
        rows: &Batch,
        state: &[StateWrite],
        rule: Rule<'_>,
    ) -> Result<Outcome, PostError> {
        let now = self.now;
        let mut state = Cow::Borrowed(state);
        if compaction::retracts(self.pipe.effective.get("compaction")) {
            let retracted = compaction::to_retract(&self.pipe.id, rows);
            state.to_mut().extend(retracted);
        }
        let state = state.as_ref();
        let commit = Commit {
            rows,
            rule,
            state,
            populated: false,
            now,
            show: Show::Now,
            note: None,
        };
        let (outcome, ticket) = match self.dataset.commit_within(commit, self.delay) {
            Err(error @ StoreError::Refused(_)) if self.terms.one_by_one() => {
                return Err(PostError::Outdated(refused(&self.terms, error).message));
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
        let snapshot = self.dataset.snapshot()?;
        let marks = self.pipe.effective["sink"]["mark_deletion_tracked"] == true;
        let mut deleted = 0;
        seen.each_unseen(snapshot.as_ref(), |gone| {
            let rule = self.terms.rule_of_deletions();
            let marked = marks.then(|| marked(gone)).transpose()?;
            let gone = marked.as_ref().unwrap_or(gone);
            deleted += self.commit_as(gone, &[], rule)?.deleted;
            Ok::<(), PostError>(())
        })?;
        Ok(deleted)
    }
}

fn changes(outcome: &Outcome) -> u64 {
    outcome.written + outcome.deleted
}
