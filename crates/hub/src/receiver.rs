//! Taking what is posted to a pipe (JSON push protocol, the receiving side).
//!
//! One request is answered when what it brought is durable. In a full sequence the request id and
//! the ids seen so far are saved after the rows: a crash in between makes the poster repeat the
//! request, which then changes nothing.

use std::io::Read;

use roaring::RoaringTreemap;
use tahini_entity::Batch;
use tahini_entity::json::{Elements, Layout, Numbers, Parser, ReadError};
use tahini_store::{Commit, Dataset, Limit, Outcome, Rule, Snapshot, StateWrite};

use crate::builtin::dataset_sink::{push_deleted, push_row};
use crate::hub::{Hub, LivePipe, Refusal};
use crate::pipe::Pipe;
use crate::sink::{End, Run, RunKind};
use crate::{Cancel, Failure};

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
    /// Transforms or sink failed.
    #[error("{0}")]
    Failed(#[from] Failure),
}

impl From<tahini_store::StoreError> for PostError {
    fn from(error: tahini_store::StoreError) -> PostError {
        PostError::Failed(error.into())
    }
}

/// What a post did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// Entities that came.
    pub read: u64,
    /// Entities that changed the sink.
    pub changed: u64,
}

const DELETE_ROWS: usize = 10_000;
const DELETE_BYTES: usize = 16 << 20;

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
    let _in_order = live
        .receiving
        .lock()
        .unwrap_or_else(|lock| lock.into_inner());
    let cancel = Cancel::new();
    let rows = transform(hub, pipe, &batch, &cancel)?;
    let read = batch.len() as u64;
    let changed = match pipe.sink_dataset() {
        Some(name) => {
            let dataset = hub.world.store.open(name, true)?;
            Receiver {
                hub,
                pipe,
                dataset: dataset.as_ref(),
                push,
            }
            .take(&rows)?
        }
        None => forward(hub, pipe, &rows, &cancel)?,
    };
    Ok(Posted { read, changed })
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

fn transform(hub: &Hub, pipe: &Pipe, batch: &Batch, cancel: &Cancel) -> Result<Batch, PostError> {
    let mut current = Batch::new();
    batch.iter().for_each(|record| current.push(record));
    for mut transform in pipe.open_transforms(&hub.world, cancel)? {
        let mut out = Batch::new();
        transform.apply(&current, &mut out, &mut Vec::new())?;
        current = out;
    }
    let mut rows = Batch::new();
    for (at, record) in current.iter().enumerate() {
        if record.id.is_none() {
            return Err(PostError::Body(format!(
                "entity {at}: expected a string `_id`, found none"
            )));
        }
        push_row(&mut rows, record)?;
    }
    Ok(rows)
}

/// A sink outside gets the entities as a run of its own.
fn forward(hub: &Hub, pipe: &Pipe, rows: &Batch, cancel: &Cancel) -> Result<u64, PostError> {
    let mut sink = pipe.open_sink(&hub.world, cancel)?;
    let run = Run {
        pipe: pipe.id.clone(),
        kind: RunKind::Incremental,
        resumed: false,
    };
    sink.begin(&run)?;
    let mut written = sink.write(rows, None)?;
    written += sink.finish(&End::default())?;
    Ok(written.changed)
}

struct Receiver<'a> {
    hub: &'a Hub,
    pipe: &'a Pipe,
    dataset: &'a dyn Dataset,
    push: &'a Push,
}

/// The active sequence, as it is saved.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sequence {
    id: String,
    request: String,
    open: bool,
}

impl Receiver<'_> {
    fn space(&self) -> String {
        format!("receiver:{}", self.pipe.id)
    }

    fn take(&self, rows: &Batch) -> Result<u64, PostError> {
        // An incremental request leaves the active sequence alone, whatever its parameters say.
        if !self.push.is_full {
            return self.take_incremental(rows);
        }
        if self
            .push
            .sequence_id
            .as_deref()
            .unwrap_or_default()
            .is_empty()
        {
            return Err(PostError::Body(
                "expected a `sequence_id` with `is_full=true`, found none".to_owned(),
            ));
        }
        let snapshot = self.dataset.snapshot()?;
        let known = self.sequence(snapshot.as_ref())?;
        if self.is_repeated(known.as_ref()) {
            return Ok(0);
        }
        self.check(known.as_ref())?;
        let same = known
            .as_ref()
            .is_some_and(|known| known.open && self.is_of(known));
        let mut state = Vec::new();
        let mut seen = RoaringTreemap::new();
        let mut chunks = 0;
        for (key, bits) in snapshot.state(&self.space(), b"seen/")? {
            if same {
                seen |= RoaringTreemap::deserialize_from(bits.as_slice())
                    .map_err(|error| Failure::fatal(format!("seen set: {error}")))?;
                chunks += 1;
            } else {
                state.push(self.write(&key, None));
            }
        }
        let outcome = self.commit(rows, &[])?;
        let fresh: RoaringTreemap = outcome.seqs.iter().flatten().copied().collect();
        let mut changed = changes(&outcome);
        if self.push.is_last {
            seen |= &fresh;
            changed += self.delete_unseen(&seen)?;
            let keys = snapshot.state(&self.space(), b"seen/")?;
            state = keys.iter().map(|(key, _)| self.write(key, None)).collect();
        } else {
            state.push(self.save_seen(chunks, &fresh)?);
        }
        state.push(self.save_sequence());
        self.commit(&Batch::new(), &state)?;
        Ok(changed)
    }

    /// What comes in the middle of somebody's full sequence must not be deleted at its end.
    fn take_incremental(&self, rows: &Batch) -> Result<u64, PostError> {
        let outcome = self.commit(rows, &[])?;
        let snapshot = self.dataset.snapshot()?;
        if self
            .sequence(snapshot.as_ref())?
            .is_some_and(|known| known.open)
        {
            let chunks = snapshot.state(&self.space(), b"seen/")?.len();
            let fresh: RoaringTreemap = outcome.seqs.iter().flatten().copied().collect();
            self.commit(&Batch::new(), &[self.save_seen(chunks, &fresh)?])?;
        }
        Ok(changes(&outcome))
    }

    fn save_seen(&self, chunk: usize, fresh: &RoaringTreemap) -> Result<StateWrite, Failure> {
        let mut bits = Vec::new();
        fresh
            .serialize_into(&mut bits)
            .map_err(|error| Failure::fatal(format!("seen set: {error}")))?;
        Ok(self.write(format!("seen/{chunk:08}").as_bytes(), Some(bits)))
    }

    fn is_of(&self, known: &Sequence) -> bool {
        self.push.sequence_id.as_deref() == Some(known.id.as_str())
    }

    /// The poster did not get our answer and repeats its last request.
    fn is_repeated(&self, known: Option<&Sequence>) -> bool {
        known.is_some_and(|known| {
            self.is_of(known) && self.push.request_id.as_deref() == Some(known.request.as_str())
        })
    }

    fn check(&self, known: Option<&Sequence>) -> Result<(), PostError> {
        let conflict = |words: String| Err(PostError::Conflict(words));
        let active = known.filter(|known| known.open && self.is_of(known));
        let previous = self.push.previous_request_id.as_deref();
        match active {
            Some(_) if self.push.is_first => conflict(format!(
                "expected `is_first` on the first request of sequence {:?} only, found it again",
                self.push.sequence_id.as_deref().unwrap_or_default()
            )),
            Some(active) if previous != Some(active.request.as_str()) => conflict(format!(
                "expected `previous_request_id` {:?}, found {:?}",
                active.request,
                previous.unwrap_or_default()
            )),
            Some(_) => Ok(()),
            None if previous.is_some() => conflict(format!(
                "expected the first request of a sequence, found one that follows request {:?} of \
                 a sequence that is not active",
                previous.unwrap_or_default()
            )),
            // A sequence of which the beginning is missing would delete what the beginning held.
            None if !self.push.is_first => conflict(
                "expected `is_first=true` on the first request of a full sequence, found none"
                    .to_owned(),
            ),
            None => Ok(()),
        }
    }

    fn sequence(&self, snapshot: &dyn Snapshot) -> Result<Option<Sequence>, PostError> {
        let rows = snapshot.state(&self.space(), b"sequence")?;
        Ok(rows.into_iter().next().and_then(|(_, value)| {
            let text = String::from_utf8(value).ok()?;
            let mut parts = text.splitn(3, '\u{0}');
            let open = parts.next()? == "open";
            Some(Sequence {
                open,
                id: parts.next()?.to_owned(),
                request: parts.next()?.to_owned(),
            })
        }))
    }

    fn save_sequence(&self) -> StateWrite {
        let state = if self.push.is_last { "done" } else { "open" };
        let id = self.push.sequence_id.as_deref().unwrap_or_default();
        let request = self.push.request_id.as_deref().unwrap_or_default();
        let text = format!("{state}\u{0}{}\u{0}{request}", id.replace('\u{0}', ""));
        self.write(b"sequence", Some(text.into_bytes()))
    }

    fn write(&self, key: &[u8], value: Option<Vec<u8>>) -> StateWrite {
        StateWrite {
            space: self.space(),
            key: key.to_vec(),
            value,
        }
    }

    fn commit(&self, rows: &Batch, state: &[StateWrite]) -> Result<Outcome, PostError> {
        let now = self.hub.world.clock.micros();
        let commit = Commit {
            rows,
            rule: Rule::IfChanged,
            state,
            populated: false,
            now,
        };
        let (outcome, ticket) = self.dataset.commit(commit)?;
        ticket.wait()?;
        Ok(outcome)
    }

    fn delete_unseen(&self, seen: &RoaringTreemap) -> Result<u64, PostError> {
        if self.pipe.effective["sink"]["deletion_tracking"] == false {
            return Ok(0);
        }
        let snapshot = self.dataset.snapshot()?;
        let limit = Limit {
            rows: DELETE_ROWS,
            bytes: DELETE_BYTES,
        };
        let (mut after, mut deleted) = (None, 0);
        loop {
            let (mut gone, mut rows) = (Batch::new(), Batch::new());
            let next = snapshot.unseen(seen, after.as_deref(), limit, &mut gone)?;
            gone.iter()
                .for_each(|record| push_deleted(&mut rows, record));
            if !rows.is_empty() {
                deleted += self.commit(&rows, &[])?.deleted;
            }
            match next {
                Some(id) => after = Some(id),
                None => return Ok(deleted),
            }
        }
    }
}

fn changes(outcome: &Outcome) -> u64 {
    outcome.written + outcome.deleted
}
