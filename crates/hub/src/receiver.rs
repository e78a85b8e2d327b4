//! Taking what is posted to a pipe (JSON push protocol, the receiving side).
//!
//! A request to a pipe with `metadata.durable` is answered when what it brought is durable; any
//! other is answered when that is written, and it is durable `receiver_sync_ms` later. Whoever
//! reads the dataset, the next request too, makes it durable first. In a full sequence the request id and
//! the ids seen so far are saved after the rows: a crash in between makes the poster repeat the
//! request, which then changes nothing.
//!
//! Under a circuit breaker an incremental request is a run of its own, and a full sequence is one:
//! readers see it whole, with its last request, or never.

mod forward;
mod look;
mod sequence;
mod stale;
mod taking;
mod told;
mod trip;

use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

use tahini_entity::Batch;
use tahini_entity::json::{Elements, Layout, Numbers, Parser, ReadError};
use tahini_store::StoreError;

use crate::children;
use crate::completeness;
use crate::hub::{Hub, LivePipe, Refusal};
use crate::intake::{id_found, lacks_id};
use crate::pipe::Pipe;
use crate::terms::Terms;
use crate::transform::apply_all;
use crate::{Cancel, Class, Failure};

pub(crate) use forward::Receiving;
pub use stale::Stale;
use taking::Receiver;
pub use told::Telling;

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
    Outdated(String, Option<Box<Stale>>),
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
    /// Versions that readers of the sink's dataset see since, those that were held back before
    /// among them.
    pub shown: u64,
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
    populate(hub, live, pipe)?;
    // What the inputs promise is read before what they hold.
    let leaving = match push.is_full && !push.is_last {
        true => None,
        false => completeness::leaving(pipe, &hub.world, push.completeness.unwrap_or(i64::MAX))?,
    };
    let mut look = look::begin(&mut receiving, hub, pipe, &batch)?;
    let entities = transform(hub, pipe, batch).or_else(|error| trip::by_rules(hub, pipe, error))?;
    let posted = match pipe.sink_dataset() {
        Some(name) => {
            let dataset = hub.world.store.open(name, true)?;
            let receiver = Receiver {
                leaving,
                promised: None,
                now: hub.world.clock.micros(),
                terms: Terms::of_pipe(pipe)?,
                hub,
                pipe,
                delay: delay(live)?,
                dataset: dataset.as_ref(),
                push,
                guard: None,
                shown: 0,
            };
            take(receiver, &entities)?
        }
        None => Posted {
            changed: receiving.forward(hub, pipe, push, &entities)?,
            ..Posted::default()
        },
    };
    if let Some(look) = &mut look {
        look.posted(hub, live, &entities);
    }
    receiving.look = look;
    Ok(Posted { read, ..posted })
}

/// Writes what a request came to into the sink's dataset.
fn take(mut receiver: Receiver<'_>, entities: &Batch) -> Result<Posted, PostError> {
    let terms = receiver.terms;
    let mut rows = terms.rows(entities).map_err(unfit)?;
    if receiver.pipe.effective["sink"]["track_children"] == true
        && let Some(tracked) = children::tracked(&rows, receiver.dataset.uncommitted()?.as_ref())?
    {
        rows = Cow::Owned(tracked);
    }
    let mut posted = Posted {
        changed: receiver.take(&rows)?,
        ..Posted::default()
    };
    posted.shown = receiver.shown;
    if let Some(promised) = receiver.promised.take() {
        promised.keep(&receiver.hub.world);
    }
    if terms.is_locked() {
        posted.written = Some(receiver.latest(&rows)?);
    }
    Ok(posted)
}

/// The dataset may have been deleted since the pipe came.
fn populate(hub: &Hub, live: &LivePipe, pipe: &Pipe) -> Result<(), StoreError> {
    match pipe.sink_dataset().filter(|_| live.is_populated_at_once()) {
        Some(name) if hub.world.store.find(name)?.is_none() => hub.make_populated(name),
        _ => Ok(()),
    }
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
    if let Some(at) = last.iter().position(lacks_id) {
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
