//! How a run will go: its kind, where it begins, what it resumes.

use std::sync::Arc;

use tahini_entity::Offset;
use tahini_store::Dataset;

use crate::execution_log::ExecutionLog;
use crate::pipe::{Pipe, World};
use crate::progress::{self, Place};
use crate::pump::Request;
use crate::sink::RunKind;
use crate::source::{Continuation, From};
use crate::{Failure, breaker};

/// How a run will go, decided before anything is opened.
pub(crate) struct Plan {
    pub(crate) kind: RunKind,
    pub(crate) resumed: bool,
    pub(crate) from: From,
    pub(crate) place: Place,
    pub(crate) home: Arc<dyn Dataset>,
}

impl Plan {
    pub(crate) fn make(
        pipe: &Pipe,
        world: &World,
        request: &Request,
        log: &ExecutionLog,
    ) -> Result<Plan, Failure> {
        let home = match pipe.sink_dataset() {
            Some(dataset) => world.store.open(dataset, true)?,
            None => log.dataset().clone(),
        };
        breaker::make_ready(home.as_ref())?;
        let place = Place::load(home.snapshot()?.as_ref(), &pipe.id)?;
        let due = pipe
            .rescan_run_count
            .is_some_and(|every| place.runs + 1 >= every);
        let partial = pipe
            .partial_rescan
            .is_some_and(|(every, _)| place.partials + 1 >= every);
        let (kind, resumed) = match (&place.offset, place.unfinished) {
            _ if pipe.continuation == Continuation::None => (RunKind::Full, false),
            (Some(_), Some(RunKind::Rescan)) => (RunKind::Rescan, false),
            (Some(_), Some(_)) if !request.rescan => (RunKind::Full, true),
            (Some(_), _) if request.rescan || due => (RunKind::Rescan, false),
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
            kind,
            resumed,
            from,
            place,
            home,
        })
    }

    /// Whether the run would leave out what an earlier one read.
    pub(crate) fn goes_on(&self) -> bool {
        !self.kind.reads_everything() || self.resumed
    }

    /// The offset means nothing any more: start over.
    pub(crate) fn start_over(&mut self) {
        self.kind = RunKind::Full;
        self.resumed = false;
        self.from = From {
            since: None,
            full: true,
            state: Vec::new(),
        };
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

    pub(crate) fn current_offset(&self, pipe: &Pipe) -> Option<Offset> {
        let snapshot = self.home.snapshot().ok()?;
        Place::load(snapshot.as_ref(), &pipe.id).ok()?.offset
    }

    /// Marks a rescan as begun before the sink forgets the seen set of an earlier run: a rescan that
    /// breaks must be followed by another, never by an incremental run or the rest of a full one.
    pub(crate) fn mark_rescan(&self, pipe: &Pipe, world: &World) -> Result<(), Failure> {
        if self.kind != RunKind::Rescan || self.place.unfinished == Some(RunKind::Rescan) {
            return Ok(());
        }
        let marker = [progress::save_unfinished(&pipe.id, Some(RunKind::Rescan))];
        crate::hub::commit_state(self.home.as_ref(), &marker, false, world.clock.as_ref())
    }
}

/// Where a partial rescan begins.
fn back(pipe: &Pipe, offset: Option<&Offset>) -> Result<Option<Offset>, Failure> {
    let (Some(offset), Some((_, delta))) = (offset, pipe.partial_rescan) else {
        return Ok(None);
    };
    let moved = progress::moved_back(offset, delta).map(Some);
    moved.ok_or_else(|| {
        Failure::config(format!(
            "expected the offset to be a number or a time, so that a partial rescan can begin \
             before it (`partial_rescan_delta`), found \"{offset}\""
        ))
    })
}
