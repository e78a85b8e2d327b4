//! Writing batches under a policy: again, split, set aside, or stop.

use std::collections::HashMap;
use std::time::Instant;

use tahini_entity::{Batch, Record, Str};

use crate::execution_log::RunLog;
use crate::policy::{Doing, Policy, Standing, Verdict, verdict};
use crate::retry::{Ledger, Letters};
use crate::sink::{Progress, Written};
use crate::{Cancel, Class, Failure, Sink};

/// The writing half of a run.
pub struct Writer<'a> {
    /// The open sink.
    pub sink: Box<dyn Sink>,
    /// The pipe's policy.
    pub policy: &'a Policy,
    /// The failed entities of earlier runs, and of this one.
    pub ledger: Ledger,
    /// The versions that this run set aside: each is tried once a run.
    pub tried: HashMap<Str, u128>,
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
}

impl Writer<'_> {
    /// Whether failed entities are kept for later runs.
    fn retries_are_on(&self) -> bool {
        self.policy.max_write_errors_in_retry_dataset > 0
    }

    /// Writes a batch; `progress` is there at a checkpoint.
    pub fn write(
        &mut self,
        log: &mut RunLog<'_>,
        batch: &Batch,
        progress: Option<&Progress>,
    ) -> Result<(), Failure> {
        let kept;
        let batch = if self.ledger.is_empty() {
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
                    return self.resolve(log, batch);
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
                Verdict::SetAside | Verdict::Stop => {
                    self.failed += batch.len() as u64;
                    return Err(failure);
                }
            }
            attempt += 1;
        }
    }

    /// Retries the entities that earlier runs set aside.
    pub fn retry_waiting(&mut self, log: &mut RunLog<'_>) -> Result<(), Failure> {
        if !self.retries_are_on() {
            return Ok(());
        }
        for id in self.ledger.ids() {
            let Some(entity) = self.ledger.entity(self.letters.log, &id)? else {
                continue;
            };
            let mut one = Batch::new();
            one.push_entity(&entity)
                .map_err(|error| Failure::fatal(error.to_string()))?;
            self.cancel.check()?;
            match self.send(&one, None) {
                Ok(()) => self.resolve(log, &one)?,
                // A refused sequence or a wrong configuration is no fault of this entity.
                Err(failure) if !matches!(failure.class, Class::Transient | Class::Entity) => {
                    return Err(failure);
                }
                Err(failure) => {
                    self.failed += 1;
                    self.set_aside(log, one.get(0), &failure)?;
                    self.cancel.sleep(self.policy.write_retry_delay)?;
                }
            }
        }
        Ok(())
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
                    self.resolve(log, &one)?;
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
        loop {
            self.consecutive += 1;
            let standing = Standing {
                attempt: 0,
                consecutive: self.consecutive,
                waiting: self.waiting_besides(record),
            };
            match verdict(&failure, Doing::WriteOne, standing, self.policy) {
                Verdict::Retry(pause) => {
                    self.cancel.sleep(pause)?;
                    match self.send(&one, None) {
                        Ok(()) => {
                            self.consecutive = 0;
                            return self.resolve(log, &one);
                        }
                        Err(again) => failure = again,
                    }
                }
                Verdict::SetAside => {
                    self.failed += 1;
                    self.set_aside(log, record, &failure)?;
                    if self.consecutive >= self.policy.max_consecutive_write_errors {
                        return Err(failure.with_entity(record.to_entity()));
                    }
                    return self.cancel.sleep(self.policy.write_retry_delay);
                }
                Verdict::Split | Verdict::Stop => {
                    self.failed += 1;
                    return Err(failure.with_entity(record.to_entity()));
                }
            }
        }
    }

    /// An entity that waits already takes no second place.
    fn waiting_besides(&self, record: Record<'_>) -> u64 {
        let known = record
            .id
            .and_then(|id| self.ledger.get(id))
            .is_some_and(|entry| !entry.dead);
        self.ledger.waiting() - u64::from(known)
    }

    fn set_aside(
        &mut self,
        log: &mut RunLog<'_>,
        record: Record<'_>,
        failure: &Failure,
    ) -> Result<(), Failure> {
        self.ledger
            .set_aside(&self.letters, log, &record.to_entity(), failure)?;
        let Some(id) = record.id else {
            return Ok(());
        };
        self.tried.insert(id.into(), record.meta.hash);
        self.sink.seen(&[id])
    }

    fn resolve(&mut self, log: &mut RunLog<'_>, batch: &Batch) -> Result<(), Failure> {
        if self.ledger.is_empty() {
            return Ok(());
        }
        for record in batch.iter() {
            if record.id.is_some_and(|id| self.ledger.get(id).is_some()) {
                self.ledger
                    .resolve(&self.letters, log, &record.to_entity())?;
            }
        }
        Ok(())
    }

    /// Leaves out versions that were given up, or that wait and were tried in this run already;
    /// they count as seen.
    fn without_the_hopeless(&mut self, batch: &Batch) -> Result<Batch, Failure> {
        let mut kept = Batch::new();
        for record in batch.iter() {
            match record.id.filter(|id| self.is_hopeless(id, record)) {
                Some(id) => self.sink.seen(&[id])?,
                None => kept.push(record),
            }
        }
        Ok(kept)
    }

    fn is_hopeless(&self, id: &str, record: Record<'_>) -> bool {
        let Some(entry) = self.ledger.get(id) else {
            return false;
        };
        let tried = self.tried.get(id) == Some(&record.meta.hash);
        entry.hash == record.meta.hash && (entry.dead || tried)
    }

    fn checkpoint(&mut self, progress: Option<&Progress>) -> Result<(), Failure> {
        match progress {
            Some(progress) => self.send(&Batch::new(), Some(progress)),
            None => Ok(()),
        }
    }

    /// One call of the sink, and where the sink keeps no progress, the pump's own save after it.
    fn send(&mut self, batch: &Batch, progress: Option<&Progress>) -> Result<(), Failure> {
        let started = Instant::now();
        let outcome = if batch.is_empty() && !self.sink.keeps_progress() {
            Ok(Written::default())
        } else {
            self.sink.write(batch, progress)
        };
        self.seconds += started.elapsed().as_secs_f64();
        self.written += outcome?;
        if let Some(progress) = progress.filter(|_| !self.sink.keeps_progress()) {
            self.letters.log.append(Vec::new(), &progress.state)?;
        }
        Ok(())
    }
}
