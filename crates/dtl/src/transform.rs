//! A batch in, a batch out.

use std::ops::Range;

use tahini_entity::{Batch, Record, Str, Value};

use crate::context::Context;
use crate::error::{EvalClass, EvalError};
use crate::eval::{Machine, Stop};
use crate::limits::{Limit, MAX_LOOKUP_ROUNDS};
use crate::plan::{Plan, Plans};
use crate::program::Program;
use crate::results::{Encoded, End, Results, Unwritten, Writer};
use crate::scope::{Frame, Row, Source, Target};

impl Program {
    /// Transforms the entities of `batch` in order and appends the results to `out`; `origins`
    /// gets, for each entity appended, its source's position in `batch`. Entities that `create`
    /// made come before the one they were made from. Filtered entities are emitted with
    /// `meta.filtered`; those that were filtered by a transform before are transformed and stay
    /// filtered, as is everything that is made from them.
    ///
    /// # Errors
    /// The first entity that cannot be transformed; the results of those before it are in `out`.
    pub fn transform(
        &self,
        batch: &Batch,
        context: &Context<'_>,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), EvalError> {
        let mut machine = Machine::new(self, context);
        let mut writer = Writer::default();
        let mut work = Work::default();
        if !self.facts.lookups {
            for at in 0..batch.len() {
                self.record(&mut machine, &mut writer, &mut work, batch.get(at), out, at)?;
                origins.resize(origins.len() + writer.take_written(), position(at));
            }
            return Ok(());
        }
        self.with_lookups(batch, &mut machine, out, origins)
    }

    /// Evaluates every entity, asks for what was missed, evaluates those again, and so on; then
    /// everything is put out in order.
    fn with_lookups<'m>(
        &'m self,
        batch: &Batch,
        machine: &mut Machine<'m>,
        out: &mut Batch,
        origins: &mut Vec<u32>,
    ) -> Result<(), EvalError> {
        let mut writer = Writer::default();
        let mut work = Work::default();
        // What was made of all of them, in the order in which they were through.
        let mut made = Batch::new();
        let mut results: Vec<Option<Result<Range<usize>, EvalError>>> = Vec::new();
        results.resize_with(batch.len(), || None);
        let mut pending: Vec<usize> = (0..batch.len()).collect();
        let mut first_failure = batch.len();
        for _ in 0..MAX_LOOKUP_ROUNDS {
            let mut missed = Vec::new();
            for &at in &pending {
                if at >= first_failure {
                    break;
                }
                let (record, start) = (batch.get(at), made.len());
                let result = self.record(machine, &mut writer, &mut work, record, &mut made, at);
                writer.take_written();
                if machine.memo.missed() {
                    missed.push(at);
                    continue;
                }
                machine.tell_joined();
                if result.is_err() {
                    first_failure = first_failure.min(at);
                }
                results[at] = Some(result.map(|()| start..made.len()));
            }
            pending = missed;
            if pending.is_empty() {
                break;
            }
            let fetched = machine.memo.fetch(self, machine.context.lookup);
            fetched.map_err(|error| {
                let at = pending[0];
                self.error(batch.get(at).id, at, None, EvalClass::Lookup, error.message)
            })?;
        }
        for (at, result) in results.into_iter().enumerate() {
            let own = result.unwrap_or_else(|| {
                let Limit(what, most) = Limit("rounds of lookups", MAX_LOOKUP_ROUNDS as u64);
                let words = format!("expected at most {most} {what}, found more");
                Err(self.error(batch.get(at).id, at, None, EvalClass::Limit, words))
            })?;
            for of in own {
                out.push(made.get(of));
                origins.push(position(at));
            }
        }
        Ok(())
    }

    /// Transforms one entity of a batch.
    fn record<'m>(
        &'m self,
        machine: &mut Machine<'m>,
        writer: &mut Writer,
        work: &mut Work<'m>,
        record: Record<'_>,
        out: &mut Batch,
        at: usize,
    ) -> Result<(), EvalError> {
        let row = Row::new(record, std::mem::take(&mut work.starts));
        let result = if self.takes(&row) {
            self.one(machine, work, &row, &mut Encoded { writer, out }, at)
        } else {
            writer.pass(record, out);
            Ok(())
        };
        work.starts = row.into_starts();
        result
    }

    /// Whether an entity is transformed; `trigger_on` passes the others on as they are.
    pub(crate) fn takes(&self, row: &Row<'_>) -> bool {
        let trigger = self.trigger.as_ref();
        trigger.is_none_or(|trigger| trigger.fires(Source::Row(row)))
    }

    /// Transforms one entity, the one at `at`.
    pub(crate) fn one<'m>(
        &'m self,
        machine: &mut Machine<'m>,
        work: &mut Work<'m>,
        row: &Row<'_>,
        results: &mut impl Results,
        at: usize,
    ) -> Result<(), EvalError> {
        machine.begin();
        // Otherwise a second transform would bring to life what the first one took out.
        let before = row.meta.filtered;
        let end = End {
            filtered: before,
            id_required: self.id_required,
        };
        let written = match work.plan(self, row) {
            Some(plan) => match machine.follow(&plan, row, &mut work.values) {
                // It is evaluated again, when what it looked for in vain is known.
                _ if machine.memo.missed() => return Ok(()),
                Ok((layout, filtered)) => {
                    self.created(machine, row, results, at)?;
                    let filtered = filtered || before;
                    results.layout(layout, row, &work.values, End { filtered, ..end })
                }
                Err(stop) => return self.stopped(stop, machine, row, results, at),
            },
            None => {
                let mut frame = Frame {
                    source: Source::Row(row),
                    target: Target::inherit(row),
                    parent: None,
                };
                let filtered = match machine.run(&self.rules[self.default], &mut frame) {
                    _ if machine.memo.missed() => return Ok(()),
                    Ok(()) => before,
                    Err(Stop::Filtered) => true,
                    Err(stop) => return self.stopped(stop, machine, row, results, at),
                };
                self.created(machine, row, results, at)?;
                results.target(&frame.target, row, End { filtered, ..end })
            }
        };
        written.map_err(|unwritten| match unwritten {
            Unwritten::Id(found) => {
                let words = format!(
                    "expected the rules to leave an _id that is a string, found {found}; add one, \
                     or set \"id_required\": false on the transform"
                );
                self.error(row.id, at, None, EvalClass::Id, words)
            }
            Unwritten::Limit(limit) => self.error(row.id, at, None, EvalClass::Limit, words(limit)),
        })
    }

    /// Hands over what `create` made.
    #[inline]
    fn created(
        &self,
        machine: &mut Machine<'_>,
        row: &Row<'_>,
        results: &mut impl Results,
        at: usize,
    ) -> Result<(), EvalError> {
        if machine.created.is_empty() {
            return Ok(());
        }
        for dict in std::mem::take(&mut machine.created) {
            results.created(&dict, row.meta.filtered).map_err(|limit| {
                let path = self.paths.get(machine.at as usize);
                self.error(row.id, at, path, EvalClass::Limit, words(limit))
            })?;
        }
        Ok(())
    }

    /// What becomes of an entity that was discarded or failed.
    fn stopped(
        &self,
        stop: Stop,
        machine: &mut Machine<'_>,
        row: &Row<'_>,
        results: &mut impl Results,
        at: usize,
    ) -> Result<(), EvalError> {
        match stop {
            Stop::Filtered | Stop::Discarded => self.created(machine, row, results, at),
            // Of an entity that fails nothing goes out, what it created least of all.
            Stop::Error(error) => {
                let (class, message) = *error;
                let path = self.paths.get(machine.at as usize);
                Err(self.error(row.id, at, path, class, message))
            }
        }
    }

    fn error(
        &self,
        id: Option<&str>,
        position: usize,
        path: Option<&crate::error::JsonPath>,
        class: EvalClass,
        message: String,
    ) -> EvalError {
        EvalError {
            position,
            id: id.map(Str::from),
            message,
            path: path.cloned(),
            class,
        }
    }
}

/// What an evaluation keeps from one entity to the next.
#[derive(Default)]
pub(crate) struct Work<'p> {
    starts: Vec<u32>,
    values: Vec<Value>,
    plans: Plans<'p>,
}

impl<'p> Work<'p> {
    fn plan(&mut self, program: &'p Program, row: &Row<'_>) -> Option<std::rc::Rc<Plan<'p>>> {
        if program.is_straight() {
            self.plans.of(program, row)
        } else {
            None
        }
    }
}

fn words(Limit(what, most): Limit) -> String {
    format!("expected at most {most} {what}, found more")
}

fn position(at: usize) -> u32 {
    u32::try_from(at).expect("a batch has fewer than 2^32 entities")
}
