//! Writing batches under a policy: again, split, set aside, or stop.

use std::time::Instant;

use tahini_entity::{Batch, Entity, Record};

use crate::execution_log::RunLog;
use crate::policy::{Doing, Policy, Standing, Verdict, verdict};
use crate::retry::{At, Ledger, Letters};
use crate::sink::{End, Progress, Written};
use crate::transform::without_filtered;
use crate::{Cancel, Class, Failure, Sink};

/// The writing half of a run.
pub struct Writer<'a> {
    /// The open sink.
    pub sink: Box<dyn Sink>,
    /// The pipe's policy.
    pub policy: &'a Policy,
    /// The failed entities of earlier runs, and of this one.
    pub ledger: Ledger,
    /// Where failed entities go.
    pub letters: Letters<'a>,
    /// The run's stop request.
    pub cancel: &'a Cancel,
    /// What was written so far.
    pub written: Written,
    /// Entities that could not be written.
    pub failed: u64,
    /// Write errors in a row.
    pub consecutive: u64,
    /// Seconds spent in the sink.
    pub seconds: f64,
    /// What got through in a run that nobody sees before its end: it is told then.
    pub resolved: Vec<(At, Entity)>,
}

/// Entities of which a run tells at its end which version got through. Of what is more it tells
/// that another version did; a retry that did waits on, and the next run makes it again, which
/// changes nothing.
const RESOLVED: usize = 10_000;

impl Writer<'_> {
    /// Writes a batch; `progress` is there at a checkpoint.
    pub fn write(
        &mut self,
        log: &mut RunLog<'_>,
        batch: &Batch,
        progress: Option<&Progress>,
    ) -> Result<(), Failure> {
        self.ledger.flush_if_due(&self.letters)?;
        let (kept, wanted);
        let dropping = !self.sink.takes_filtered();
        let batch = match dropping.then(|| without_filtered(batch)).flatten() {
            Some(without) => {
                self.supersede(log, batch)?;
                wanted = without;
                &wanted
            }
            None => batch,
        };
        let batch = if self.ledger.is_empty(At::Sink) {
            batch
        } else {
            kept = self.without_the_hopeless(batch)?;
            &kept
        };
        if batch.is_empty() && progress.is_none() {
            return Ok(());
        }
        if batch.len() > 1 && !self.sink.takes_batches() {
            self.write_singly(log, batch)?;
            return self.checkpoint(progress);
        }
        let mut attempt = 0;
        loop {
            self.cancel.check()?;
            let failure = match self.send(batch, progress) {
                Ok(()) => {
                    self.consecutive = 0;
                    return self.resolve(log, At::Sink, batch);
                }
                Err(failure) => failure,
            };
            if batch.len() <= 1 && !batch.is_empty() {
                self.one_failed(log, batch.get(0), failure)?;
                return self.checkpoint(progress);
            }
            let standing = Standing {
                attempt,
                ..Standing::default()
            };
            match verdict(&failure, Doing::WriteBatch, standing, self.policy) {
                Verdict::Retry(pause) => self.cancel.sleep(pause)?,
                Verdict::Split => {
                    self.write_singly(log, batch)?;
                    return self.checkpoint(progress);
                }
                Verdict::SetAside(_) | Verdict::Stop => {
                    self.failed += batch.len() as u64;
                    return Err(failure);
                }
            }
            attempt += 1;
        }
    }

    /// Ends a run that was read to its end. What the sink sends last is sent again as a batch is.
    pub fn finish(&mut self, log: &mut RunLog<'_>, end: &End) -> Result<(), Failure> {
        self.flush()?;
        let mut attempt = 0;
        loop {
            self.cancel.check()?;
            let started = Instant::now();
            let outcome = self.sink.finish(end);
            self.seconds += started.elapsed().as_secs_f64();
            let failure = match outcome {
                Ok(written) => {
                    self.written += written;
                    return self.resolve_at_end(log);
                }
                Err(failure) => failure,
            };
            let standing = Standing {
                attempt,
                ..Standing::default()
            };
            match verdict(&failure, Doing::WriteBatch, standing, self.policy) {
                Verdict::Retry(pause) => self.cancel.sleep(pause)?,
                // There is nothing in it to split or to set aside.
                Verdict::Split | Verdict::SetAside(_) | Verdict::Stop => return Err(failure),
            }
            attempt += 1;
        }
    }

    /// Tells what got through and was not told yet.
    fn resolve_at_end(&mut self, log: &mut RunLog<'_>) -> Result<(), Failure> {
        for (at, entity) in std::mem::take(&mut self.resolved) {
            self.ledger.resolve(&self.letters, log, at, &entity)?;
        }
        self.ledger.resolve_overtaken(&self.letters, log)
    }

    /// Makes durable what happened to failed entities.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&self) -> Result<(), Failure> {
        self.ledger.flush(&self.letters, &[])
    }

    /// Retries the entities that earlier runs set aside as the sink was given them.
    pub fn retry_waiting(&mut self, log: &mut RunLog<'_>) -> Result<(), Failure> {
        if !self.policy.retries_are_on() {
            return Ok(());
        }
        let mut after = None;
        loop {
            let (ids, next) = self.ledger.waiting_behind(At::Sink, after.as_deref())?;
            for id in ids {
                if self.has_failed_enough() {
                    return Ok(());
                }
                self.retry_one(log, &id)?;
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn retry_one(&mut self, log: &mut RunLog<'_>, id: &str) -> Result<(), Failure> {
        let Some(one) = self.waiting(At::Sink, id)? else {
            return Ok(());
        };
        self.cancel.check()?;
        match self.send(&one, None) {
            Ok(()) => {
                self.consecutive = 0;
                self.resolve(log, At::Sink, &one)
            }
            // A refused sequence or a wrong configuration is no fault of this entity.
            Err(failure) if !matches!(failure.class, Class::Transient | Class::Entity) => {
                Err(failure)
            }
            Err(failure) => self.failed_again(log, At::Sink, one.get(0), &failure),
        }
    }

    /// The entity that waits under `id`, in a batch of its own.
    pub fn waiting(&self, at: At, id: &str) -> Result<Option<Batch>, Failure> {
        let Some(entity) = self.ledger.entity(at, id)? else {
            return Ok(None);
        };
        let mut one = Batch::new();
        one.push_entity(&entity)
            .map_err(|error| Failure::fatal(error.to_string()))?;
        Ok(Some(one))
    }

    /// Whether so much failed one after the other that what waits is left for the next run. What
    /// the source gives is tried all the same: it ends the run if it fails, too.
    pub fn has_failed_enough(&self) -> bool {
        self.consecutive >= self.policy.max_consecutive_write_errors
    }

    /// A retry in a later run failed as well.
    pub fn failed_again(
        &mut self,
        log: &mut RunLog<'_>,
        at: At,
        record: Record<'_>,
        failure: &Failure,
    ) -> Result<(), Failure> {
        self.failed += 1;
        self.set_aside(log, at, record, failure)?;
        // What is wrong with one entity is no sign that others fail; a target that is down is.
        if failure.class == Class::Transient {
            self.consecutive += 1;
        }
        self.cancel.sleep(self.policy.write_pause(failure))
    }

    fn write_singly(&mut self, log: &mut RunLog<'_>, batch: &Batch) -> Result<(), Failure> {
        let mut one = Batch::new();
        for record in batch.iter() {
            self.cancel.check()?;
            one.clear();
            one.push(record);
            match self.send(&one, None) {
                Ok(()) => {
                    self.consecutive = 0;
                    self.resolve(log, At::Sink, &one)?;
                }
                Err(failure) => self.one_failed(log, record, failure)?,
            }
        }
        Ok(())
    }

    /// Judges a single entity's failure, and tries it again for as long as the verdict says so.
    fn one_failed(
        &mut self,
        log: &mut RunLog<'_>,
        record: Record<'_>,
        mut failure: Failure,
    ) -> Result<(), Failure> {
        let mut one = Batch::new();
        one.push(record);
        while self.judge(log, At::Sink, record, failure)? {
            match self.send(&one, None) {
                Ok(()) => {
                    self.consecutive = 0;
                    return self.resolve(log, At::Sink, &one);
                }
                Err(again) => failure = again,
            }
        }
        Ok(())
    }

    /// Judges the failure of a single entity: whether it is to be tried again now; otherwise it
    /// was set aside.
    pub fn judge(
        &mut self,
        log: &mut RunLog<'_>,
        at: At,
        record: Record<'_>,
        failure: Failure,
    ) -> Result<bool, Failure> {
        self.consecutive += 1;
        let standing = Standing {
            attempt: 0,
            consecutive: self.consecutive,
            waiting: self.waiting_besides(at, record)?,
        };
        match verdict(&failure, Doing::WriteOne, standing, self.policy) {
            Verdict::Retry(pause) => {
                self.cancel.sleep(pause)?;
                Ok(true)
            }
            // Without an id it could neither be kept nor be told from others.
            Verdict::SetAside(pause) if record.id.is_some() => {
                self.failed += 1;
                self.set_aside(log, at, record, &failure)?;
                let policy = self.policy.under(&failure);
                if self.consecutive >= policy.max_consecutive_write_errors {
                    return Err(failure.with_entity(record.to_entity()));
                }
                self.cancel.sleep(pause)?;
                Ok(false)
            }
            Verdict::SetAside(_) | Verdict::Split | Verdict::Stop => {
                self.failed += 1;
                Err(failure.with_entity(record.to_entity()))
            }
        }
    }

    /// An entity that waits already takes no second place.
    fn waiting_besides(&self, at: At, record: Record<'_>) -> Result<u64, Failure> {
        let known = match record.id {
            Some(id) => self.ledger.get(at, id)?,
            None => None,
        };
        let waits = known.is_some_and(|entry| !entry.dead);
        Ok(self.ledger.waiting().saturating_sub(u64::from(waits)))
    }

    fn set_aside(
        &mut self,
        log: &mut RunLog<'_>,
        at: At,
        record: Record<'_>,
        failure: &Failure,
    ) -> Result<(), Failure> {
        self.ledger
            .set_aside(&self.letters, log, at, &record.to_entity(), failure)?;
        let Some(id) = record.id else {
            return Ok(());
        };
        self.resolved
            .retain(|(place, entity)| (*place, entity.id.as_deref()) != (at, Some(id)));
        self.sink.seen(&[id])
    }

    /// Notes that what had failed got through, in this version or in another one.
    pub fn resolve(&mut self, log: &mut RunLog<'_>, at: At, batch: &Batch) -> Result<(), Failure> {
        if self.ledger.is_empty(at) {
            return Ok(());
        }
        for record in batch.iter() {
            let Some(id) = record.id else { continue };
            if self.ledger.get(at, id)?.is_none() {
                continue;
            }
            let entity = record.to_entity();
            if !self.sink.shows_at_end() {
                self.ledger.resolve(&self.letters, log, at, &entity)?;
            } else if self.resolved.len() < RESOLVED {
                self.resolved.push((at, entity));
            }
        }
        Ok(())
    }

    /// A filtered version means nothing to this sink, but an older one is not to be retried.
    fn supersede(&mut self, log: &mut RunLog<'_>, batch: &Batch) -> Result<(), Failure> {
        let mut filtered = Batch::new();
        let wanted = batch.iter().filter(|record| record.meta.filtered);
        wanted.for_each(|record| filtered.push(record));
        self.resolve(log, At::Sink, &filtered)
    }

    /// Leaves out versions that were given up, or that wait and were tried in this run already;
    /// they count as seen.
    fn without_the_hopeless(&mut self, batch: &Batch) -> Result<Batch, Failure> {
        let hopeless = self.ledger.hopeless(&self.letters, At::Sink, batch)?;
        let mut kept = Batch::new();
        for (record, is_hopeless) in batch.iter().zip(hopeless) {
            match record.id.filter(|_| is_hopeless) {
                Some(id) => self.sink.seen(&[id])?,
                None => kept.push(record),
            }
        }
        Ok(kept)
    }

    /// Saves the place where the batch before it was written.
    pub fn checkpoint(&mut self, progress: Option<&Progress>) -> Result<(), Failure> {
        match progress {
            Some(progress) => self.send(&Batch::new(), Some(progress)),
            None => Ok(()),
        }
    }

    /// One call of the sink, and where the sink keeps no progress, the pump's own save after it.
    /// What failed before a place is durable before that place is.
    fn send(&mut self, batch: &Batch, progress: Option<&Progress>) -> Result<(), Failure> {
        let keeps_progress = self.sink.keeps_progress();
        if progress.is_some() && keeps_progress {
            self.flush()?;
        }
        let started = Instant::now();
        let outcome = if batch.is_empty() && !keeps_progress {
            Ok(Written::default())
        } else {
            self.sink.write(batch, progress)
        };
        self.seconds += started.elapsed().as_secs_f64();
        self.written += outcome?;
        match progress.filter(|_| !keeps_progress) {
            Some(progress) => self.ledger.flush(&self.letters, &progress.state),
            None => Ok(()),
        }
    }
}
