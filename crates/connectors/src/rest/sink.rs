//! The `rest` sink: an operation for every entity.

use std::sync::Arc;

use tahini_entity::Batch;
use tahini_hub::registry::SinkDef;
use tahini_hub::sink::{End, Progress, Run, Sink, Written};
use tahini_hub::{Class, Ctx, Failure};

use super::call::Caller;
use super::operation::Operation;
use super::request::{Made, Rendered};
use super::rows;
use crate::json::fingerprint;

/// The row of the `rest` sink.
pub const SINK: SinkDef = SinkDef {
    name: "rest",
    summary: "Performs an operation of a rest system for every entity.",
    properties: &[
        rows::SYSTEM,
        rows::DEFAULT_OPERATION,
        rows::OPERATIONS,
        rows::PROPERTIES,
        rows::PAYLOAD,
        rows::RATE_LIMITING_RETRIES,
        rows::RATE_LIMITING_DELAY,
        rows::TRACE,
    ],
    open: |ctx| Ok(Box::new(RestSink::open(ctx)?)),
};

/// A request of an entity, ready to be sent.
type Prepared = (Arc<Operation>, Made, Rendered);

/// An open sink.
struct RestSink {
    pipe: String,
    caller: Caller,
    /// Of a write that failed half-way: what it was, and how many entities were accepted.
    half: Option<(u128, usize)>,
}

impl RestSink {
    fn open(ctx: &Ctx<'_>) -> Result<RestSink, Failure> {
        Ok(RestSink {
            pipe: ctx.owner.to_owned(),
            caller: Caller::of(ctx, false)?,
            half: None,
        })
    }

    /// The requests of the entities from `at` on that may be under way at once: as many as their
    /// operations allow, and never two of one entity.
    fn together(&self, batch: &Batch, at: usize) -> Result<Vec<Prepared>, Failure> {
        let mut prepared = vec![self.prepare(batch, at)?];
        let mut most = prepared[0].0.parallel;
        for next in at + 1..batch.len() {
            let id = batch.get(next).id;
            let is_known = (at..next).any(|known| batch.get(known).id == id);
            if prepared.len() >= most || is_known {
                break;
            }
            // What cannot be prepared is told when it is its turn.
            let Ok(one) = self.prepare(batch, next) else {
                break;
            };
            most = most.min(one.0.parallel);
            if prepared.len() >= most {
                break;
            }
            prepared.push(one);
        }
        Ok(prepared)
    }

    fn prepare(&self, batch: &Batch, at: usize) -> Result<Prepared, Failure> {
        let entity = batch.get(at).to_entity().to_dict();
        let operation = self.caller.operation_of(&entity)?;
        let made = self.caller.made(&operation, Some(&entity));
        let rendered = self.caller.render(&operation, &made)?;
        Ok((operation, made, rendered))
    }

    /// Sends what may go together, from `at` on; how many were accepted before the first failure,
    /// if there is one.
    fn send(&self, batch: &Batch, at: usize) -> (usize, Result<(), Failure>) {
        let prepared = match self.together(batch, at) {
            Ok(prepared) => prepared,
            Err(failure) => return (0, Err(failure)),
        };
        let answers = self.caller.send_all(&prepared);
        for (sent, (answer, (operation, ..))) in answers.into_iter().zip(&prepared).enumerate() {
            match answer {
                Ok(answer) if operation.statuses.allows(answer.status) => {}
                Ok(answer) => {
                    let mut failure = self.caller.refused(operation, &answer, false);
                    // A status may be one entity's fault: the pump finds out.
                    failure.class = Class::Entity;
                    return (sent, Err(failure));
                }
                Err(failure) => return (sent, Err(failure)),
            }
        }
        (prepared.len(), Ok(()))
    }
}

impl Sink for RestSink {
    fn begin(&mut self, _: &Run) -> Result<(), Failure> {
        self.half = None;
        Ok(())
    }

    fn write(&mut self, batch: &Batch, _: Option<&Progress>) -> Result<Written, Failure> {
        let content = fingerprint(batch);
        // Of a write that is repeated, what the server has already is not sent again.
        let sent = match self.half.take() {
            Some((same, sent)) if same == content => sent,
            _ => 0,
        };
        let mut at = sent;
        while at < batch.len() {
            let (accepted, outcome) = self.send(batch, at);
            at += accepted;
            if let Err(failure) = outcome {
                self.half = Some((content, at));
                let failure = match failure.class {
                    Class::Entity => failure.with_entity(batch.get(at).to_entity()),
                    _ => failure,
                };
                return Err(failure.context(format_args!("pipe {:?}", self.pipe)));
            }
        }
        let deleted = batch.iter().filter(|record| record.meta.deleted).count();
        Ok(Written {
            changed: batch.len() as u64,
            deleted: deleted as u64,
            unchanged: 0,
            ..Written::default()
        })
    }

    fn finish(&mut self, _: &End) -> Result<Written, Failure> {
        Ok(Written::default())
    }

    fn abort(&mut self, _: &Failure) {}
}
