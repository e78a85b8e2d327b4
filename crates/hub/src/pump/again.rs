//! Putting source entities through the pipe again because what they are joined with has changed
//! (see `dependency`).

use roaring::RoaringTreemap;
use tahini_dtl::Joined;
use tahini_store::{Seq, StateWrite};

use super::Work;
use crate::dependency::{Search, Tracking};
use crate::places::Places;
use crate::progress;
use crate::{Failure, Source, cardinality};

impl Work<'_, '_, '_> {
    /// Whether this run looks at what changed in joined datasets.
    pub(super) fn follows(&self) -> bool {
        let follows = |tracking: &Tracking<'_>| !tracking.is_idle();
        !self.plan.kind.reads_everything() && self.tracking.as_ref().is_some_and(follows)
    }

    /// Puts the entities through the pipe again that the source gave before this run, and that
    /// changes of joined datasets concern.
    ///
    /// # Errors
    /// When there are too many of them, and as every other run.
    pub(super) fn reprocess(&mut self, source: &mut dyn Source) -> Result<(), Failure> {
        if self.plan.kind.reads_everything() {
            return Ok(());
        }
        let Some(tracking) = &self.tracking else {
            return Ok(());
        };
        let since = self.plan.from.since.clone();
        let read_from = |dataset: &str| {
            let read = since
                .as_ref()
                .and_then(|since| Places::read(since, dataset));
            read.map_or(0, |seq| seq + 1)
        };
        let most = self.pipe.tracking.error;
        let search = Search::new(tracking, source, &read_from, self.cancel, most);
        let mut affected = search.run()?;
        self.summary.warnings.append(&mut affected.warnings);
        let (count, limits) = (affected.len(), self.pipe.tracking);
        if count > limits.error {
            let words = format!(
                "expected changes of joined datasets to concern at most {} entities \
                 (`dependency_tracking.dependency_error_threshold`), found more",
                limits.error
            );
            return Err(self.too_many(words));
        }
        if count > limits.warning {
            self.summary.warnings.push(format!(
                "changes of joined datasets concern {count} entities, more than {} \
                 (`dependency_tracking.dependency_warning_threshold`); from {} on the run fails",
                limits.warning, limits.error
            ));
        }
        let mut bytes = 0;
        for (because, versions) in affected.because {
            let read = self.summary.read;
            for (dataset, versions) in &versions {
                self.give_again(source, dataset, versions, &mut bytes)?;
            }
            let count = self.summary.read - read;
            if count > 0 {
                self.summary.reprocessed.push((because, count));
            }
        }
        Ok(())
    }

    fn give_again(
        &mut self,
        source: &mut dyn Source,
        dataset: &str,
        versions: &RoaringTreemap,
        bytes: &mut u64,
    ) -> Result<(), Failure> {
        let mut left = versions.iter();
        loop {
            let some: Vec<Seq> = left.by_ref().take(self.pipe.batch_size).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.cancel.check()?;
            self.intake.next_step();
            source.again(dataset, &some, &mut self.intake.batch)?;
            self.intake.filled();
            self.weigh(bytes)?;
            self.summary.read += self.intake.batch.len() as u64;
            let intake = &mut self.intake;
            self.flow.pass(self.run_log, self.summary, intake, None)?;
            self.note()?;
        }
    }

    /// Adds the bytes of what comes again to those before.
    fn weigh(&mut self, bytes: &mut u64) -> Result<(), Failure> {
        let (limits, before) = (self.pipe.tracking, *bytes);
        *bytes += self.intake.batch.bytes() as u64;
        if *bytes > limits.error_bytes {
            let words = format!(
                "expected changes of joined datasets to concern at most {} bytes of entities \
                 (`dependency_tracking.dependency_error_threshold_total_bytes`), found more",
                limits.error_bytes
            );
            return Err(self.too_many(words));
        }
        if before <= limits.warning_bytes && *bytes > limits.warning_bytes {
            self.summary.warnings.push(format!(
                "changes of joined datasets concern more than {} bytes of entities \
                 (`dependency_tracking.dependency_warning_threshold_total_bytes`)",
                limits.warning_bytes
            ));
        }
        Ok(())
    }

    /// The failure of a run that would process too much again. Where the pipe may begin anew by
    /// itself, the next run does.
    fn too_many(&mut self, words: String) -> Failure {
        self.begins_anew = self.sync.may_reset(self.pipe);
        let help = match self.begins_anew {
            true => "the pipe was reset, and its next run reads everything",
            false => {
                "a rescan puts everything through the pipe again; join by values that fewer \
                 entities share, or raise the limit"
            }
        };
        Failure::fatal(format!("{words}; {help}"))
    }

    /// Takes down what the rules joined.
    pub(super) fn tell_joined(&mut self) {
        let joined = self.flow.transforms.iter().filter_map(|one| one.joined());
        self.summary.joined = joined.reduce(Joined::with);
        for (name, most) in self
            .flow
            .transforms
            .iter()
            .flat_map(|one| one.traced_hops())
        {
            let told = self.summary.traced_hops.entry(name.to_owned()).or_default();
            *told = most.max(*told);
        }
        let limits = self.pipe.tracking;
        let Some(all) = self.summary.joined.filter(|_| limits.of_hops) else {
            return;
        };
        let warnings = &mut self.summary.warnings;
        if all.most > limits.warning {
            warnings.push(format!(
                "{} entities were joined with one, more than {} \
                 (`dependency_tracking.dependency_warning_threshold`)",
                all.most, limits.warning
            ));
        }
        if all.most_bytes > limits.warning_bytes {
            warnings.push(format!(
                "{} bytes of entities were joined with one, more than {} \
                 (`dependency_tracking.dependency_warning_threshold_total_bytes`)",
                all.most_bytes, limits.warning_bytes
            ));
        }
    }

    /// Warns of keys that so many entities share that a change would be too much, when a run read
    /// everything and succeeded.
    pub(super) fn tell_crowds(&mut self) {
        if self.tracking.is_some() && self.plan.kind.reads_everything() {
            let store = self.world.store.as_ref();
            let found = cardinality::warnings(store, self.pipe, self.plan.live);
            self.summary.warnings.extend(found);
        }
    }

    /// The writes that say how far joined datasets were followed, at the end of a run.
    pub(super) fn followed(&self) -> Vec<StateWrite> {
        let Some(tracking) = &self.tracking else {
            return Vec::new();
        };
        // What an earlier run read before this one went on with it was joined with what was there
        // then: the next run looks at everything since.
        let resumed = self.plan.kind.reads_everything() && self.plan.resumed;
        tracking.writes(&self.pipe.id, resumed)
    }

    /// The same for a checkpoint: what is read from now on until the end may be read by another
    /// run.
    pub(super) fn following(&self) -> Vec<StateWrite> {
        match self.plan.kind.reads_everything() {
            true => self.followed(),
            false => Vec::new(),
        }
    }

    /// Ends a run that failed, and has the pipe begin anew where it has to.
    pub(super) fn abort(&mut self, why: &Failure) -> Result<(), Failure> {
        self.flow.writer.sink.abort(why);
        if !self.begins_anew {
            return Ok(());
        }
        let home = self.plan.home.as_ref();
        let state = progress::reset(home.snapshot()?.as_ref(), &self.pipe.id)?;
        Ok(crate::hub::commit_state(
            home,
            &state,
            false,
            self.world.clock.as_ref(),
        )?)
    }
}
