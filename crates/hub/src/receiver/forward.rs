//! Posts to a pipe whose sink is outside: a full sequence is one full run of the sink.
//!
//! The run of an open sequence is kept in memory. When the node ends, the pipe changes, the sink
//! fails or another sequence begins, it is aborted, and the next request of the sequence is told
//! to begin anew.

use serde_json::Value as Json;
use tahini_entity::Batch;

use super::look::Look;
use super::sequence::{Sequence, Turn};
use super::{PostError, Push};
use crate::hub::Hub;
use crate::pipe::Pipe;
use crate::sink::{End, Run, RunKind, Written};
use crate::transform::without_filtered;
use crate::{Cancel, Failure, Sink};

/// What is remembered between two posts to one pipe.
#[derive(Default)]
pub(crate) struct Receiving {
    forward: Option<Forward>,
    /// What looks at the posted entities, where types are inferred.
    pub(crate) look: Option<Look>,
}

/// A full sequence on its way to a sink outside.
struct Forward {
    sequence: Sequence,
    /// The configuration that the sink was opened with.
    effective: Json,
    /// The run of the sink, for as long as the sequence is open.
    sink: Option<Box<dyn Sink>>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Some(mut sink) = self.sink.take() {
            sink.abort(&Failure::cancelled());
        }
    }
}

impl Receiving {
    /// Hands a request's entities to the sink; returns how many changed it.
    pub(super) fn forward(
        &mut self,
        hub: &Hub,
        pipe: &Pipe,
        push: &Push,
        rows: &Batch,
    ) -> Result<u64, PostError> {
        let is_other = |known: &Forward| known.effective != pipe.effective;
        if self.forward.as_ref().is_some_and(is_other) {
            self.forward = None;
        }
        // An incremental request leaves the active sequence alone, whatever its parameters say.
        if !push.is_full {
            let mut sink = begin(hub, pipe, RunKind::Incremental)?;
            return Ok(run(&mut sink, rows, Some(&End::default()))?.changed);
        }
        let known = self.forward.as_ref().map(|known| &known.sequence);
        let mut sink = match Sequence::turn(known, push, "")? {
            Turn::Repeated => return Ok(0),
            Turn::First => {
                // The run of the sequence that this one replaces ends first.
                self.forward = None;
                Some(begin(hub, pipe, RunKind::Full)?)
            }
            Turn::Next | Turn::Ends => self.forward.as_mut().and_then(|known| known.sink.take()),
        };
        let open = sink.as_mut().ok_or_else(|| {
            PostError::Conflict(
                "expected a sequence whose run is under way, found that it ended".to_owned(),
            )
        })?;
        let end = End {
            complete: true,
            populated: true,
            ..End::default()
        };
        let written = match run(open, rows, push.is_last.then_some(&end)) {
            Ok(written) => written,
            Err(failure) => {
                self.forward = None;
                return Err(failure.into());
            }
        };
        self.forward = Some(Forward {
            sequence: Sequence::after(push, String::new()),
            effective: pipe.effective.clone(),
            sink: sink.filter(|_| !push.is_last),
        });
        Ok(written.changed)
    }
}

/// Each request is a step of its own; nothing stops it but its end.
fn begin(hub: &Hub, pipe: &Pipe, kind: RunKind) -> Result<Box<dyn Sink>, Failure> {
    let mut sink = pipe.open_sink(&hub.world, &Cancel::new())?;
    let run = Run {
        pipe: pipe.id.clone(),
        kind,
        resumed: false,
        beside: None,
    };
    match sink.begin(&run) {
        Ok(()) => Ok(sink),
        Err(failure) => {
            sink.abort(&failure);
            Err(failure)
        }
    }
}

/// Writes, and ends the run when it is to end; a failure aborts it.
fn run(sink: &mut Box<dyn Sink>, rows: &Batch, end: Option<&End>) -> Result<Written, Failure> {
    let dropping = !sink.takes_filtered();
    let wanted = dropping.then(|| without_filtered(rows)).flatten();
    let rows = wanted.as_ref().unwrap_or(rows);
    let outcome = (|| {
        let mut written = Written::default();
        if !rows.is_empty() {
            written += sink.write(rows, None)?;
        }
        if let Some(end) = end {
            written += sink.finish(end)?;
        }
        Ok(written)
    })();
    outcome.inspect_err(|failure| sink.abort(failure))
}
