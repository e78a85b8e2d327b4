//! From what a source gave to what the sink is intake: through the transforms, under the policy.
//!
//! A failing transform is answered as a failing sink is: the batch again, then its entities one
//! by one, and what fails alone is set aside as the source gave it, so that a later run puts it
//! through the transforms again. Nobody knows what such an entity would have become; so a run
//! in which one failed is never complete, and nothing is deleted after it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tahini_entity::{Batch, Record};

use crate::entity_type::Watch;
use crate::execution_log::{RunLog, Summary};
use crate::intake::{self, Intake, id_found};
use crate::policy::{Doing, Standing, Verdict, verdict};
use crate::retry::At;
use crate::rounds::Given;
use crate::sink::Progress;
use crate::transform::apply_all;
use crate::writer::Writer;
use crate::{Class, Failure, Transform};

/// The transforms and the sink of a run.
pub(crate) struct Flow<'a> {
    pub(crate) pipe: &'a str,
    pub(crate) transforms: Vec<Box<dyn Transform>>,
    pub(crate) writer: Writer<'a>,
    /// What looks at the entities on their way, where types are inferred.
    pub(crate) watch: Option<Watch>,
    /// An entity of the source did not get through the transforms, in this run or in the part of
    /// it that an earlier one made.
    pub(crate) held: bool,
    /// What the pipe gave before, where it goes to a system and may come back.
    pub(crate) given: Option<&'a Mutex<Option<Given>>>,
}

impl<'a> Flow<'a> {
    /// The flow of a run; `resumed` when an earlier run made a part of it.
    pub(crate) fn new(
        pipe: &'a str,
        transforms: Vec<Box<dyn Transform>>,
        writer: Writer<'a>,
        resumed: bool,
    ) -> Flow<'a> {
        Flow {
            pipe,
            transforms,
            held: resumed && !writer.ledger.is_empty(At::Transforms),
            writer,
            watch: None,
            given: None,
        }
    }

    /// Puts what a source gave through transforms and sink; `progress` is there at a checkpoint.
    pub(crate) fn pass(
        &mut self,
        log: &mut RunLog<'_>,
        summary: &mut Summary,
        intake: &mut Intake,
        progress: Option<&Progress>,
    ) -> Result<(), Failure> {
        self.leave_out_the_hopeless(intake)?;
        if let Some(watch) = &mut self.watch {
            watch.source(&intake.batch);
        }
        let mut attempt = 0;
        loop {
            self.writer.cancel.check()?;
            let failure = match self.transform(summary, &intake.batch, |at| intake.name(at)) {
                Ok(outputs) => return self.deliver(log, &intake.batch, outputs, progress),
                Err(failure) => failure,
            };
            if intake.batch.len() == 1 {
                self.pass_one(log, summary, intake, 0, Some(failure))?;
                return self.writer.checkpoint(progress);
            }
            let standing = Standing {
                attempt,
                ..Standing::default()
            };
            match verdict(&failure, Doing::Transform, standing, self.writer.policy) {
                Verdict::Retry(pause) => self.writer.cancel.sleep(pause)?,
                Verdict::Split => {
                    for at in 0..intake.batch.len() {
                        self.pass_one(log, summary, intake, at, None)?;
                    }
                    return self.writer.checkpoint(progress);
                }
                Verdict::SetAside(_) | Verdict::Stop => {
                    if is_judged(&failure) {
                        self.writer.failed += intake.batch.len() as u64;
                    }
                    return Err(failure);
                }
            }
            attempt += 1;
        }
    }

    /// One entity alone; it may have failed alone already.
    fn pass_one(
        &mut self,
        log: &mut RunLog<'_>,
        summary: &mut Summary,
        intake: &Intake,
        at: usize,
        mut failed: Option<Failure>,
    ) -> Result<(), Failure> {
        let mut one = Batch::new();
        one.push(intake.batch.get(at));
        loop {
            self.writer.cancel.check()?;
            let outcome = match failed.take() {
                Some(failure) => Err(failure),
                None => self.transform(summary, &one, |_| intake.name(at)),
            };
            let failure = match outcome {
                Ok(outputs) => return self.deliver(log, &one, outputs, None),
                Err(failure) if is_judged(&failure) => failure,
                Err(failure) => return Err(failure),
            };
            if !self
                .writer
                .judge(log, At::Transforms, one.get(0), failure)?
            {
                self.held = true;
                return Ok(());
            }
        }
    }

    /// Tells the transforms that everything has gone through.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        self.transforms.iter_mut().try_for_each(|one| one.end())
    }

    /// Writes what became of `input`, which thereby got through the transforms.
    fn deliver(
        &mut self,
        log: &mut RunLog<'_>,
        input: &Batch,
        outputs: Option<Batch>,
        progress: Option<&Progress>,
    ) -> Result<(), Failure> {
        let outputs = outputs.as_ref().unwrap_or(input);
        if let Some(watch) = &mut self.watch {
            watch.sink(outputs);
        }
        if outputs.is_empty() {
            self.writer.consecutive = 0;
        }
        self.writer.write(log, outputs, progress)?;
        self.writer.resolve(log, At::Transforms, input)
    }

    /// Retries what earlier runs set aside. What waits at the sink goes first: it is of an older
    /// version than what waits at the transforms under the same id.
    pub(crate) fn retry_waiting(
        &mut self,
        log: &mut RunLog<'_>,
        summary: &mut Summary,
    ) -> Result<(), Failure> {
        self.writer.retry_waiting(log)?;
        if !self.writer.policy.retries_are_on() {
            return Ok(());
        }
        let mut after = None;
        loop {
            let ledger = &self.writer.ledger;
            let (ids, next) = ledger.waiting_behind(At::Transforms, after.as_deref())?;
            for id in ids {
                if self.writer.has_failed_enough() {
                    return Ok(());
                }
                self.retry_one(log, summary, &id)?;
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn retry_one(
        &mut self,
        log: &mut RunLog<'_>,
        summary: &mut Summary,
        id: &str,
    ) -> Result<(), Failure> {
        let Some(one) = self.writer.waiting(At::Transforms, id)? else {
            return Ok(());
        };
        self.writer.cancel.check()?;
        let name = |_| format!("the entity with `_id` {id:?} that an earlier run set aside");
        match self.transform(summary, &one, name) {
            Ok(outputs) => self.deliver(log, &one, outputs, None),
            Err(failure) if is_judged(&failure) => {
                self.writer
                    .failed_again(log, At::Transforms, one.get(0), &failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Leaves out versions that were given up in the transforms, or that wait and were tried in
    /// this run already.
    fn leave_out_the_hopeless(&mut self, intake: &mut Intake) -> Result<(), Failure> {
        if self.writer.ledger.is_empty(At::Transforms) {
            return Ok(());
        }
        let Writer {
            ledger, letters, ..
        } = &mut self.writer;
        let hopeless = ledger.hopeless(letters, At::Transforms, &intake.batch)?;
        let left_out = intake.batch.iter().zip(&hopeless).filter(|(_, is)| **is);
        let ids: Vec<String> = left_out
            .filter_map(|(record, _)| record.id.map(str::to_owned))
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        intake.leave_out(&hopeless);
        self.held = true;
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.writer.sink.seen(&ids)
    }

    /// The batch after all transforms; `None` when there are none. `name` names an entity of the
    /// batch in messages.
    fn transform(
        &mut self,
        summary: &mut Summary,
        batch: &Batch,
        name: impl Fn(usize) -> String,
    ) -> Result<Option<Batch>, Failure> {
        let started = Instant::now();
        let outputs = self.apply(batch, name);
        let took = started.elapsed();
        summary.seconds[1] += took.as_secs_f64();
        let outputs = outputs?;
        self.check_pace(batch, took)?;
        let gives = outputs.as_ref().unwrap_or(batch);
        summary.name_first(gives);
        self.note_given(gives, summary);
        summary.weigh(batch, outputs.as_ref());
        Ok(outputs)
    }

    /// Takes note of what goes to a system that it may come back from.
    fn note_given(&self, batch: &Batch, summary: &mut Summary) {
        let Some(given) = self.given else { return };
        let mut given = given.lock().unwrap_or_else(|lock| lock.into_inner());
        if let Some(given) = given.as_mut() {
            given.take_in(batch, summary.news.get_or_insert_default());
        }
    }

    /// A pipe that is too slow fails, so that somebody looks at what it does.
    fn check_pace(&self, batch: &Batch, took: Duration) -> Result<(), Failure> {
        let Some(limit) = self.writer.policy.max_time_per_entity else {
            return Ok(());
        };
        let found = took.as_secs_f64() / batch.len().max(1) as f64;
        if batch.is_empty() || found <= limit.as_secs_f64() {
            return Ok(());
        }
        let words = format!(
            "expected the transforms to take at most {} s for an entity \
             (`max_seconds_per_entity`), found {found:.6} s on average in a batch of {}; with a \
             `batch_size` of 1 the run stops at the entity itself",
            limit.as_secs_f64(),
            batch.len()
        );
        Err(Failure::fatal(words).with_entity(batch.get(0).to_entity()))
    }

    fn apply(
        &mut self,
        batch: &Batch,
        name: impl Fn(usize) -> String,
    ) -> Result<Option<Batch>, Failure> {
        if batch.is_empty() {
            return Ok(None);
        }
        let outputs = apply_all(&mut self.transforms, batch).map_err(|failure| {
            // Of a whole batch nobody can tell which one it was.
            match batch.len() == 1 && is_judged(&failure) {
                true => failure.context(name(0)),
                false => failure,
            }
        })?;
        let last = outputs.as_ref().map_or(batch, |outputs| &outputs.batch);
        let takes_filtered = self.writer.sink.takes_filtered();
        let fails = |record: Record<'_>| {
            intake::lacks_id(record) && (takes_filtered || !record.meta.filtered)
        };
        let Some(at) = last.iter().position(fails) else {
            return Ok(outputs.map(|outputs| outputs.batch));
        };
        let origin = outputs.as_ref().map_or(at, |outputs| outputs.origin(at));
        Err(Failure::entity(format!(
            "pipe {:?}: expected every entity to have a string `_id` when it reaches the sink, \
             found {} in what became of {}; add one in a transform: [\"add\", \"_id\", …]",
            self.pipe,
            id_found(last.get(at)),
            name(origin),
        ))
        .with_entity(last.get(at).to_entity()))
    }
}

/// Whether the policy has a say: the entity or the moment is at fault, not the run.
fn is_judged(failure: &Failure) -> bool {
    matches!(failure.class, Class::Transient | Class::Entity)
}
