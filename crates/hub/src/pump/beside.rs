//! A rescan beside incremental runs, in its three steps (see `rescan`).

use tahini_entity::Offset;
use tahini_store::StateWrite;

use super::{HELD, OTHER, Opened, Work};
use crate::boundary::Boundary;
use crate::progress::{self, Place};
use crate::rescan::{self, Phase, Record, Wins};
use crate::retry::At;
use crate::sink::{End, Progress};
use crate::source::{Continuation, From};
use crate::{Failure, Source};

impl Work<'_, '_, '_> {
    /// Goes on with the rescan from the step that it has come to.
    pub(super) fn rescan(&mut self) -> Result<(), Failure> {
        let Some(record) = self.begun() else {
            return Ok(());
        };
        let catches_up = self.pipe.continuation == Continuation::Chronological;
        match record.phase {
            Phase::Reading => {
                let source = self.open_first()?;
                let record = self.begun().unwrap_or(record);
                let source = self.read_all(source)?;
                if self.is_empty() && !self.plan.resumed {
                    return Err(Self::empty());
                }
                match catches_up {
                    true => self.catch_up(record, Some(source)),
                    false => self.end_reading(record, source),
                }
            }
            Phase::CatchingUp => self.catch_up(record, None),
            // Whether the source is populated was told when it was read.
            Phase::Deleting => self.delete(true, false),
        }
    }

    /// The rescan as runs know it, and how this one goes on with it.
    fn begun(&mut self) -> Option<Record> {
        self.plan.rescan = self.plan.live.rescan().record();
        self.plan.rescan.clone()
    }

    /// Opens the source to read everything, from where an earlier rescan stopped if that place
    /// still means something.
    fn open_first(&mut self) -> Result<Opened, Failure> {
        let open = |work: &Self| {
            let from = work.plan.from.clone();
            work.pipe.open_source(work.world, work.cancel, from)
        };
        let mut source = open(self);
        if source.as_ref().is_ok_and(|source| !source.continues()) {
            self.plan.start_over();
            let started = self.run_log.started().as_microsecond();
            let run = self.plan.run(self.pipe, started);
            self.flow.writer.sink.begin(&run)?;
            source = open(self);
        }
        self.tracker = self.plan.tracker(self.pipe, Some(&source));
        Ok(source)
    }

    /// Reads, in the turn of a run, what came since: what runs did not come to, or, where the
    /// rescan has the last word, all that is behind its own place.
    fn catch_up(
        &mut self,
        mut record: Record,
        read: Option<Box<dyn Source>>,
    ) -> Result<(), Failure> {
        let id = self.pipe.id.clone();
        let turn = self.plan.live.take_turn(
            record.wins == Wins::Rescan,
            self.cancel,
            self.world.clock.as_ref(),
        )?;
        record.phase = Phase::CatchingUp;
        let mut state = vec![record.write(&id)];
        if let Some(mut source) = read {
            if let Some(offset) = source.offset().as_ref().or(self.tracker.end()) {
                state.push(rescan::save_offset(&id, Some(offset)));
            }
            state.extend(rescan::save_source(&id, source.state()));
        }
        self.flow.writer.checkpoint(Some(&Progress { state }))?;
        let home = self.plan.home.snapshot()?;
        let place = Place::load(home.as_ref(), &id)?;
        let kept = rescan::Kept::load(home.as_ref(), &id)?;
        let (since, state) = match record.wins {
            Wins::Run => (place.offset.clone(), place.source.clone()),
            Wins::Rescan => (kept.offset, kept.source),
        };
        self.plan.place = place;
        self.plan.from = From {
            since,
            full: true,
            state,
        };
        self.plan.rescan = Some(record.clone());
        let source = self
            .pipe
            .open_source(self.world, self.cancel, self.plan.from.clone());
        if source.as_ref().is_ok_and(|source| !source.continues()) {
            return Err(Failure::transient(OTHER));
        }
        self.tracker = self.plan.tracker(self.pipe, Some(&source));
        self.boundary = Boundary::new(self.plan.from.since.clone(), b"");
        let mut source = self.read_all(source)?;
        let offset = source.offset().or_else(|| self.tracker.end().cloned());
        let mut state = vec![];
        if let Some(offset) = offset {
            state.push(progress::save_offset(&id, Some(&offset)));
        }
        state.extend(self.source_state(source.as_mut()));
        self.read_to_end(record, source.as_ref(), state)?;
        drop(turn);
        self.delete(self.is_whole(), source.populated())
    }

    /// Without an order there is nothing to catch up with: runs came to everything that changed
    /// while the rescan read, and the offset is theirs.
    fn end_reading(&mut self, record: Record, source: Box<dyn Source>) -> Result<(), Failure> {
        self.read_to_end(record, source.as_ref(), Vec::new())?;
        self.delete(self.is_whole(), source.populated())
    }

    /// Saves that everything was read. What follows is deleting, unless the rescan is not whole.
    fn read_to_end(
        &mut self,
        mut record: Record,
        source: &dyn Source,
        mut state: Vec<StateWrite>,
    ) -> Result<(), Failure> {
        self.summary.held_back = source.held_back();
        // Nobody knows what would have come of those either that a run held back.
        let ledger = &self.flow.writer.ledger;
        self.flow.held |= !ledger.is_empty(At::Transforms);
        if self.flow.held {
            self.summary.warnings.push(HELD.to_owned());
        }
        let id = &self.pipe.id;
        if self.plan.place.unfinished.is_some() {
            state.push(progress::save_unfinished(id, None));
        }
        state.extend(self.counted_runs());
        state.push(self.sync.write(id, true));
        if self.is_whole() {
            record.wins = Wins::Run;
            record.phase = Phase::Deleting;
            state.push(record.write(id));
        }
        self.flow.writer.checkpoint(Some(&Progress { state }))?;
        self.plan.live.rescan().deletes();
        Ok(())
    }

    fn is_whole(&self) -> bool {
        !self.flow.held && self.summary.held_back.is_none()
    }

    /// Deletes what did not come, and ends the rescan.
    fn delete(&mut self, complete: bool, populated: bool) -> Result<(), Failure> {
        let end = End {
            complete,
            populated,
            progress: Progress::default(),
            along: Vec::new(),
        };
        self.flow.writer.finish(self.run_log, &end)?;
        self.plan.live.rescanned();
        Ok(())
    }

    /// Where reading leaves the rest to runs, which have come further: that is certain of a
    /// dataset only, whose versions are numbered. Of any other source everything is read, and
    /// what runs came to is passed over.
    pub(super) fn until(&self, source: &dyn Source) -> Option<Offset> {
        let record = self.plan.rescan.as_ref()?;
        let stops = record.phase == Phase::Reading && record.wins == Wins::Run;
        record.until.clone().filter(|_| stops && source.distinct())
    }

    /// What is saved in the middle of a rescan.
    pub(super) fn progress_beside(
        &self,
        record: Record,
        offset: &Offset,
        source: &mut dyn Source,
    ) -> Progress {
        let id = &self.pipe.id;
        let in_turn = record.phase == Phase::CatchingUp && record.wins == Wins::Run;
        if in_turn {
            let mut state = vec![progress::save_offset(id, Some(offset))];
            state.extend(self.source_state(source));
            return Progress { state };
        }
        let mut state = vec![rescan::save_offset(id, Some(offset))];
        state.extend(rescan::save_source(id, source.state()));
        Progress { state }
    }
}
