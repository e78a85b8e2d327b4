//! How a run will go: its kind, where it begins, what it resumes.

use std::sync::Arc;

use jiff::Timestamp;
use tahini_entity::Offset;
use tahini_store::Dataset;

use crate::config::known::keeps_places;
use crate::entity_type::Watch;
use crate::execution_log::ExecutionLog;
use crate::hub::LivePipe;
use crate::pipe::{Pipe, World};
use crate::places::Places;
use crate::progress::{self, Place, Tracker};
use crate::pump::Request;
use crate::rescan::{self, Beside, Kept, Phase, Record};
use crate::retry::Ledger;
use crate::sink::{Run, RunKind};
use crate::source::{Continuation, From};
use crate::{Failure, Source, breaker, reprocessing};

/// How a run will go, decided before anything is opened.
pub(crate) struct Plan<'a> {
    pub(crate) live: &'a LivePipe,
    pub(crate) kind: RunKind,
    pub(crate) resumed: bool,
    pub(crate) from: From,
    pub(crate) place: Place,
    pub(crate) home: Arc<dyn Dataset>,
    /// What is kept of the rescan that goes on beside runs, where it is one.
    pub(crate) rescan: Option<Record>,
    /// How many rescans were finished beside runs of the pipe before.
    pub(crate) rescans: u64,
}

impl<'a> Plan<'a> {
    pub(crate) fn make(
        live: &'a LivePipe,
        pipe: &Pipe,
        world: &World,
        request: &Request,
        log: &ExecutionLog,
    ) -> Result<Plan<'a>, Failure> {
        let rescans = live.state().rescans;
        let home = match pipe.sink_dataset() {
            Some(dataset) => world.store.open(dataset, true)?,
            None => log.dataset().clone(),
        };
        breaker::make_ready(home.as_ref())?;
        let snapshot = home.snapshot()?;
        let place = Place::load(snapshot.as_ref(), &pipe.id)?;
        if request.beside {
            let kept = Kept::load(snapshot.as_ref(), &pipe.id)?;
            return Plan::beside(live, pipe, world, (home, place, kept));
        }
        // Rescans in the background are begun elsewhere, and one that was left behind by another
        // configuration is made up for.
        let alone = pipe.background.is_err();
        let left = alone && rescan::is_unfinished(snapshot.as_ref(), &pipe.id)?;
        let due = left || (alone && pipe.rescan_is_due(&place));
        let asked = alone && request.rescan;
        let partial = pipe
            .partial_rescan
            .is_some_and(|(every, _)| place.partials + 1 >= every);
        let (kind, resumed) = match (&place.offset, place.unfinished) {
            _ if pipe.continuation == Continuation::None => (RunKind::Full, false),
            (Some(_), Some(RunKind::Rescan)) => (RunKind::Rescan, false),
            (Some(_), Some(_)) if !asked => (RunKind::Full, true),
            (Some(_), _) if asked || due => (RunKind::Rescan, false),
            (Some(_), _) if partial => (RunKind::Partial, false),
            (Some(_), _) => (RunKind::Incremental, false),
            // A first run that is told where to begin does not see everything.
            (None, _) if pipe.initial_since.is_some() => (RunKind::Incremental, false),
            (None, _) => (RunKind::Full, false),
        };
        let since = match kind {
            RunKind::Rescan => None,
            RunKind::Full if !resumed => None,
            RunKind::Partial => back(pipe, place.offset.as_ref())?,
            _ => place.offset.clone().or_else(|| pipe.initial_since.clone()),
        };
        let from = From {
            since,
            full: kind.reads_everything(),
            state: place.source.clone(),
        };
        Ok(Plan {
            live,
            kind,
            resumed,
            from,
            place,
            home,
            rescan: None,
            rescans,
        })
    }

    /// The plan of a rescan beside runs, which goes on where an earlier one stopped if it can.
    fn beside(
        live: &'a LivePipe,
        pipe: &Pipe,
        world: &World,
        (home, place, kept): (Arc<dyn Dataset>, Place, Kept),
    ) -> Result<Plan<'a>, Failure> {
        let basis = reprocessing::basis(pipe, world)?;
        let goes_on = |record: &Record| {
            let has_place = pipe.continuation == Continuation::Chronological;
            record.basis == basis && (has_place || record.phase == Phase::Deleting)
        };
        // A run that is under way may set aside what is newer than what this reads.
        let began = live.state().running_since;
        let now = world.clock.micros();
        let known = kept.record.filter(goes_on);
        let resumed = known.is_some();
        let record = known.unwrap_or_else(|| {
            let is_another = reprocessing::source_is_another(pipe, &place);
            Record {
                wins: rescan::wins(pipe.kind("source"), is_another),
                phase: Phase::Reading,
                // The sink looks again, when runs know of the rescan.
                until: place.offset.clone(),
                basis,
                newer_from: began.map_or(i64::MAX, Timestamp::as_microsecond).min(now),
            }
        });
        let from = From {
            since: kept.offset.filter(|_| resumed),
            full: true,
            state: if resumed { kept.source } else { Vec::new() },
        };
        Ok(Plan {
            live,
            kind: RunKind::Rescan,
            resumed,
            from,
            place,
            home,
            rescan: Some(record),
            rescans: live.state().rescans,
        })
    }

    /// What the sink is told of the run, which began at `started`, microseconds since 1970 UTC.
    pub(crate) fn run(&self, pipe: &Pipe, started: i64) -> Run {
        // What reads everything alone shares nothing.
        let shares =
            pipe.background.is_ok() && (self.rescan.is_some() || !self.kind.reads_everything());
        Run {
            pipe: pipe.id.clone(),
            kind: self.kind,
            resumed: self.resumed,
            beside: shares.then(|| Beside {
                shared: Arc::clone(self.live.rescan()),
                record: self.rescan.clone(),
                started,
            }),
        }
    }

    /// The failed entities as this run deals with them.
    pub(crate) fn ledger(
        &self,
        log: &ExecutionLog,
        pipe: &Pipe,
        started: i64,
    ) -> Result<Ledger, Failure> {
        let ledger = self.live.rescan().ledger(log, &pipe.id)?;
        if self.rescan.is_none() {
            return Ok(ledger.of_run(started));
        }
        // The sink knows which run it began beside.
        let record = self.live.rescan().record();
        let newer = record.map_or(started, |record| record.newer_from);
        Ok(ledger.of_rescan(started, newer))
    }

    /// Completed runs since the last rescan, and since the last partial one, before this run:
    /// a rescan beside it may have been finished meanwhile.
    pub(crate) fn runs_before(&self) -> (u64, u64) {
        match self.live.state().rescans == self.rescans {
            true => (self.place.runs, self.place.partials),
            false => (0, 0),
        }
    }

    /// Whether the run would leave out what an earlier one read.
    pub(crate) fn goes_on(&self) -> bool {
        !self.kind.reads_everything() || self.resumed
    }

    /// The offset means nothing any more: start over.
    pub(crate) fn start_over(&mut self) {
        self.resumed = false;
        self.from = From {
            since: None,
            full: true,
            state: Vec::new(),
        };
        if let Some(record) = &mut self.rescan {
            record.phase = Phase::Reading;
            return;
        }
        self.kind = RunKind::Full;
        self.place.offset = None;
    }

    /// Where the offset stands before the run: a max offset never goes down, in a rescan neither.
    pub(crate) fn known_offset(&self, pipe: &Pipe) -> Option<Offset> {
        if self.kind == RunKind::Partial {
            return self.place.offset.clone();
        }
        let from = self.from.since.clone();
        from.or_else(|| {
            let kept = pipe.continuation == Continuation::Max;
            self.place.offset.clone().filter(|_| kept)
        })
    }

    /// What looks at the entities on their way, where types are inferred. A rescan in the background
    /// and runs would renew them in turn, each without the other, so that only runs do.
    pub(crate) fn watch(&self, pipe: &Pipe, changed: bool) -> Option<Watch> {
        let watches = pipe.infers && self.rescan.is_none();
        watches.then(|| Watch::new(&pipe.id, self.home.clone(), changed))
    }

    /// What moves the offset over what `source` gives.
    pub(crate) fn tracker(
        &self,
        pipe: &Pipe,
        source: Option<&Result<Box<dyn Source>, Failure>>,
    ) -> Tracker {
        let source = source.and_then(|source| source.as_ref().ok());
        let distinct = source.is_some_and(|source| source.distinct());
        Tracker::new(pipe.continuation, self.known_offset(pipe), distinct)
    }

    pub(crate) fn current_offset(&self, pipe: &Pipe) -> Option<Offset> {
        let snapshot = self.home.snapshot().ok()?;
        Place::load(snapshot.as_ref(), &pipe.id).ok()?.offset
    }

    /// Marks a rescan as begun before the sink forgets the seen set of an earlier run: a rescan that
    /// breaks must be followed by another, never by an incremental run or the rest of a full one.
    pub(crate) fn mark_rescan(&self, pipe: &Pipe, world: &World) -> Result<(), Failure> {
        if self.rescan.is_some() {
            return Ok(());
        }
        if self.kind != RunKind::Rescan || self.place.unfinished == Some(RunKind::Rescan) {
            return Ok(());
        }
        let marker = [progress::save_unfinished(&pipe.id, Some(RunKind::Rescan))];
        Ok(crate::hub::commit_state(
            self.home.as_ref(),
            &marker,
            false,
            world.clock.as_ref(),
        )?)
    }
}

/// Where a partial rescan begins.
fn back(pipe: &Pipe, offset: Option<&Offset>) -> Result<Option<Offset>, Failure> {
    let (Some(offset), Some((_, delta))) = (offset, pipe.partial_rescan) else {
        return Ok(None);
    };
    // What a merge source gives follows from its place: it can begin anew, and nowhere else.
    if pipe.kind("source") == "merge" {
        return Ok(None);
    }
    if keeps_places(pipe.kind("source")) {
        return Ok(Places::moved_back(offset, delta));
    }
    let moved = progress::moved_back(offset, delta).map(Some);
    moved.ok_or_else(|| {
        Failure::config(format!(
            "expected the offset to be a number or a time, so that a partial rescan can begin \
             before it (`partial_rescan_delta`), found \"{offset}\""
        ))
    })
}
