//! The `rest` sink: an operation for every entity.

use tahini_entity::Batch;
use tahini_hub::registry::SinkDef;
use tahini_hub::sink::{End, Progress, Run, Sink, Written};
use tahini_hub::{Class, Ctx, Failure};

use super::call::Caller;
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

    fn send(&self, batch: &Batch, at: usize) -> Result<(), Failure> {
        let entity = batch.get(at).to_entity().to_dict();
        let operation = self.caller.operation_of(&entity)?;
        let made = self.caller.made(&operation, Some(&entity));
        let rendered = self.caller.render(&operation, &made)?;
        let answer = self.caller.send(&operation, &made, &rendered, false)?;
        if operation.statuses.allows(answer.status) {
            return Ok(());
        }
        let mut failure = self.caller.refused(&operation, &answer);
        // A status may be one entity's fault: the pump finds out.
        failure.class = Class::Entity;
        Err(failure)
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
        for at in sent..batch.len() {
            if let Err(failure) = self.send(batch, at) {
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
