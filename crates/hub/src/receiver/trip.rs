//! Circuit breakers over what is posted.

use tahini_entity::Batch;
use tahini_store::{Commit, Dataset, Head, Rule, Show, StoreError};

use super::PostError;
use crate::breaker::{self, Breaker};
use crate::execution_log::{ExecutionLog, RunLog, Summary};
use crate::hub::{Hub, Refusal};
use crate::pipe::Pipe;
use crate::sink::RunKind;
use crate::{Class, Failure};

/// A breaker that may trip in this request.
pub(super) struct Guard {
    breaker: Option<Breaker>,
    /// How many entities may change; all, where nobody says.
    pub limit: u64,
    /// The dataset before.
    head: Head,
}

impl Guard {
    /// Nothing is taken while the breaker is tripped.
    pub(super) fn check(pipe: &Pipe, dataset: &dyn Dataset) -> Result<(), PostError> {
        match breaker::tripped(dataset)? {
            Some(tripped) => {
                let words = breaker::stands_still(dataset.name(), &tripped);
                Err(Refusal::Tripped(pipe.id.clone(), words).into())
            }
            None => Ok(()),
        }
    }

    /// The guard of what begins now, where nothing is held back. A dataset that is empty is being
    /// filled for the first time.
    pub(super) fn new(pipe: &Pipe, head: &Head) -> Option<Guard> {
        let breaker = Breaker::of_pipe(&pipe.effective);
        let armed = breaker.filter(|_| head.populated && head.next > 0);
        armed.map(|breaker| Guard::of(Some(breaker), head.clone()))
    }

    /// The guard of a sequence that goes on: one that is held back stays so to its end.
    pub(super) fn going_on(pipe: &Pipe, dataset: &dyn Dataset) -> Result<Option<Guard>, PostError> {
        let head = dataset.snapshot()?.head().clone();
        let holds = head.holds;
        Ok(holds.then(|| Guard::of(Breaker::of_pipe(&pipe.effective), head)))
    }

    fn of(breaker: Option<Breaker>, head: Head) -> Guard {
        let limit = breaker.as_ref().and_then(|breaker| breaker.limit(&head));
        Guard {
            breaker,
            limit: limit.unwrap_or(u64::MAX),
            head,
        }
    }

    /// How many versions are held back.
    pub(super) fn held(&self, dataset: &dyn Dataset) -> Result<u64, StoreError> {
        Ok(dataset.uncommitted()?.head().next - self.head.next)
    }

    /// Trips when more is held back than may change.
    pub(super) fn count(
        &self,
        hub: &Hub,
        pipe: &Pipe,
        dataset: &dyn Dataset,
    ) -> Result<(), PostError> {
        let held = self.held(dataset)?;
        match &self.breaker {
            Some(breaker) if held > self.limit => {
                let why = breaker.tripped(dataset.name(), &self.head, self.limit);
                Err(trip(hub, pipe, dataset, why, held).into())
            }
            _ => Ok(()),
        }
    }
}

/// Trips the breaker where the pipe's rules say so (`trip!`): nothing of the request was written.
pub(super) fn by_rules(hub: &Hub, pipe: &Pipe, error: PostError) -> Result<Batch, PostError> {
    let PostError::Failed(why) = error else {
        return Err(error);
    };
    let tripped = pipe.sink_dataset().filter(|_| why.class == Class::Tripped);
    let Some(name) = tripped else {
        return Err(why.into());
    };
    let dataset = hub.world.store.open(name, true)?;
    Guard::check(pipe, dataset.as_ref())?;
    Err(trip(hub, pipe, dataset.as_ref(), why, 0).into())
}

/// Leaves a record that says why, and tells the log.
fn trip(hub: &Hub, pipe: &Pipe, dataset: &dyn Dataset, why: Failure, held: u64) -> Failure {
    let clock = &hub.world.clock;
    let rows = Batch::new();
    let commit = Commit {
        rows: &rows,
        rule: Rule::IfChanged,
        state: &[breaker::record(&pipe.id, clock.as_ref(), &why)],
        populated: false,
        now: clock.micros(),
        show: Show::Later,
        note: None,
    };
    let kept = dataset.commit(commit).and_then(|(_, ticket)| ticket.wait());
    let told = kept.map_err(Failure::from).and_then(|()| {
        let log = ExecutionLog::open(hub.world.store.as_ref(), &pipe.id, clock.clone())?;
        let log = log.hiding(hub.world.secrets.clone());
        let mut run = RunLog::begin(&log, RunKind::Incremental, None);
        let summary = Summary {
            sync_type: RunKind::Incremental.sync_type().to_owned(),
            started: run.started(),
            ended: clock.now(),
            changed: held,
            failure: Some(why.clone()),
            ..Summary::default()
        };
        run.end(&summary, None)
    });
    // Without the record it is rolled back by the next request, which trips again.
    told.err().unwrap_or(why)
}
