//! A pipe of the running configuration, and what is known of its runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tahini_dtl::Index;
use tahini_store::StoreError;

use crate::config::{Component, Props};
use crate::dependency::Ways;
use crate::execution_log::Summary;
use crate::pipe::Pipe;
use crate::receiver::Receiving;
use crate::rescan;
use crate::rounds::{Given, Loop};
use crate::totals::Totals;
use crate::{Cancel, Clock, Failure};

/// Why something asked of a pipe was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such pipe.
    #[error("expected a pipe {0:?}, found none")]
    Missing(String),
    /// There is no such dataset.
    #[error("expected a dataset {0:?}, found none")]
    NoDataset(String),
    /// A run is under way.
    #[error("pipe {0:?} is running")]
    Running(String),
    /// A rescan is under way beside runs.
    #[error("pipe {0:?} is rescanning")]
    Rescanning(String),
    /// The pipe was disabled.
    #[error("pipe {0:?} is disabled{1}")]
    Disabled(String, String),
    /// Its pump is in mode `off`, or it has none.
    #[error("pipe {0:?} has no pump that can run: {1}")]
    NoPump(String, String),
    /// Its configuration has errors, or needs what is not built yet.
    #[error("pipe {0:?} cannot run: {1}")]
    Unusable(String, String),
    /// `disable_set_last_seen` is set.
    #[error("pipe {0:?} is protected by `disable_set_last_seen`")]
    Protected(String),
    /// The circuit breaker of its sink's dataset is tripped.
    #[error("pipe {0:?} stands still: {1}")]
    Tripped(String, String),
    /// The operation failed.
    #[error("{0}")]
    Failed(#[from] Failure),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal::Failed(error.into())
    }
}

/// A pipe with what is known of its runs.
pub struct LivePipe {
    /// The component as configured.
    pub component: Component,
    /// Its settings; why not, where they cannot be read.
    pub pipe: Result<Pipe, String>,
    /// The indexes that it wants.
    pub indexes: Vec<Arc<Index>>,
    /// How changes of what its rules join lead back to its source.
    pub ways: Ways,
    pub(super) shared: Arc<Shared>,
    /// Another configuration of this pipe holds now: no more runs of this one.
    pub(super) retired: AtomicBool,
    /// Posts to one pipe are taken in order.
    pub(crate) receiving: Arc<Mutex<Receiving>>,
}

/// What all configurations that one pipe has one after the other share, also when it is taken away
/// and comes back: a run that is under way then still counts, and two runs of it never meet.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) state: Mutex<LiveState>,
    /// Held while the pipe's place is set by hand, so that no run begins meanwhile.
    pub(super) place: Mutex<()>,
    /// A run or a rescan ended.
    pub(super) ended: Condvar,
    /// What runs and a rescan beside them know of each other.
    pub(super) rescan: Arc<rescan::Shared>,
    pub(super) receiving: Arc<Mutex<Receiving>>,
    /// What it gave to a system outside, where that may come back.
    pub(super) given: Mutex<Option<Given>>,
}

/// What is known of a pipe's runs since the node started.
#[derive(Clone, Default)]
pub struct LiveState {
    /// A run is under way.
    pub running: bool,
    /// The stop request of that run.
    pub cancel: Cancel,
    /// When it began.
    pub running_since: Option<Timestamp>,
    /// The last run's outcome; after a restart, what the execution log tells of it.
    pub last: Option<Summary>,
    /// How many runs were made since the node started.
    pub runs: u64,
    /// What they did, added up.
    pub totals: Totals,
    /// When the schedule says the next one is.
    pub next: Option<Timestamp>,
    /// When the one before that was due.
    pub previous: Option<Timestamp>,
    /// Something changed upstream during the run: one more run follows it.
    pub signalled: bool,
    /// That run is to be a rescan.
    pub rescan_pending: bool,
    /// What it writes comes back to it and makes it write again, without end.
    pub feeds_itself: Option<Loop>,
    /// When old versions were removed last.
    pub(crate) compacted: crate::compaction::Last,
    /// Disabled by hand, with the comment.
    pub disabled: Option<String>,
    /// A rescan goes on beside runs.
    pub rescanning: bool,
    /// The stop request of that rescan.
    pub rescan_cancel: Cancel,
    /// When it began, or went on.
    pub rescanning_since: Option<Timestamp>,
    /// The outcome of the last rescan beside runs, since the node started.
    pub last_rescan: Option<Summary>,
    /// How many rescans were finished beside runs since the node started.
    pub rescans: u64,
    /// Somebody stopped the rescan: only another request goes on with it.
    pub(crate) rescan_is_held: bool,
    /// A rescan waits for its turn: no other run begins.
    pub(crate) turn_is_wanted: bool,
    /// The run that is under way reads everything by itself: no rescan begins beside it.
    pub(crate) reads_everything: bool,
}

impl LiveState {
    /// The schedule says when the next run is.
    pub(crate) fn due(&mut self, next: Option<Timestamp>) {
        if self.next != next {
            self.previous = self.next;
            self.next = next;
        }
    }

    /// Whether a run or a rescan is under way.
    pub fn is_busy(&self) -> bool {
        self.running || self.rescanning
    }
}

/// The turn of a run, taken by a rescan; no run begins until it is dropped.
pub(crate) struct Turn<'a>(&'a LivePipe);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running = false;
        state.running_since = None;
        drop(state);
        self.0.shared.ended.notify_all();
    }
}

/// How long somebody who waits for the end of a run sleeps before looking for a stop request.
const GLANCE: Duration = Duration::from_millis(20);

impl LivePipe {
    /// The pipe's id.
    pub fn id(&self) -> &str {
        &self.component.id
    }

    /// Whether the sink's dataset counts as populated before anything came: a receiver's does, and
    /// one that wants it (`set_initial_offset`).
    pub(crate) fn is_populated_at_once(&self) -> bool {
        let (source, sink) = (self.component.source(), self.component.sink());
        let has = |part: Props<'_>, name: &str, value: &str| {
            part.map().get(name).is_some_and(|found| found == value)
        };
        let receives = has(source, "type", "http_endpoint")
            && source.bool("auto_populate_dataset", true).unwrap_or(true);
        receives || has(sink, "set_initial_offset", "onload")
    }

    /// A copy of what is known of its runs.
    pub fn state(&self) -> LiveState {
        self.lock().clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LiveState> {
        lock(&self.shared.state)
    }

    /// What it gave to a system outside, where that may come back.
    pub(crate) fn given(&self) -> &Mutex<Option<Given>> {
        &self.shared.given
    }

    /// Keeps runs from beginning, until the guard is dropped.
    pub(crate) fn hold_place(&self) -> MutexGuard<'_, ()> {
        lock(&self.shared.place)
    }

    /// What runs and a rescan beside them know of each other.
    pub(crate) fn rescan(&self) -> &Arc<rescan::Shared> {
        &self.shared.rescan
    }

    /// Takes the turn of a run for a rescan, when the one that is under way has ended; `stops` ends
    /// that one early.
    ///
    /// # Errors
    /// When the rescan is to stop.
    pub(crate) fn take_turn(
        &self,
        stops: bool,
        cancel: &Cancel,
        clock: &dyn Clock,
    ) -> Result<Turn<'_>, Failure> {
        let mut state = self.lock();
        state.turn_is_wanted = true;
        if stops && state.running {
            state.cancel.cancel();
        }
        let mut state = self.wait_while(state, cancel, |state| state.running);
        state.turn_is_wanted = false;
        cancel.check()?;
        state.running = true;
        state.running_since = Some(clock.now());
        state.cancel = cancel.clone();
        Ok(Turn(self))
    }

    /// A run that reads everything takes the place of a rescan beside it, and waits for its end.
    ///
    /// # Errors
    /// When the run is to stop.
    pub(crate) fn end_rescan(&self, cancel: &Cancel) -> Result<(), Failure> {
        let mut state = self.lock();
        state.reads_everything = true;
        state.rescan_cancel.cancel();
        drop(self.wait_while(state, cancel, |state| state.rescanning));
        cancel.check()
    }

    fn wait_while<'s>(
        &self,
        mut state: MutexGuard<'s, LiveState>,
        cancel: &Cancel,
        holds: impl Fn(&LiveState) -> bool,
    ) -> MutexGuard<'s, LiveState> {
        while holds(&state) && !cancel.is_cancelled() {
            let waited = self.shared.ended.wait_timeout(state, GLANCE);
            state = waited.map_or_else(|lock| lock.into_inner().0, |(lock, _)| lock);
        }
        state
    }

    /// A rescan beside runs is finished.
    pub(crate) fn rescanned(&self) {
        self.lock().rescans += 1;
    }

    /// Stops what is under way and lets no more begin.
    pub(super) fn retire(&self) {
        let state = self.lock();
        self.retired.store(true, Ordering::SeqCst);
        state.cancel.cancel();
        state.rescan_cancel.cancel();
    }

    /// Whether another configuration of the pipe took the place of this one.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Asks for one more run after the one that is under way; `false` when none is.
    pub(crate) fn ask_again(&self, rescan: bool) -> bool {
        let mut state = self.lock();
        // A rescan that is asked for follows the one that is under way beside runs.
        let busy = match rescan && state.rescanning {
            true => true,
            false => state.running || state.turn_is_wanted,
        };
        if busy {
            state.signalled = true;
            state.rescan_pending |= rescan;
        }
        busy
    }

    /// The settings, if the pipe can run at all.
    pub fn usable(&self) -> Result<&Pipe, Refusal> {
        let id = self.id().to_owned();
        if !self.component.is_valid() {
            let first = self
                .component
                .problems
                .iter()
                .find(|problem| problem.is_error());
            let words = first.map_or("its configuration has errors".into(), ToString::to_string);
            return Err(Refusal::Unusable(id, words));
        }
        if let Some(why) = &self.component.unsupported {
            return Err(Refusal::Unusable(id, why.clone()));
        }
        self.pipe
            .as_ref()
            .map_err(|why| Refusal::Unusable(id, why.clone()))
    }

    /// The settings, if the pipe has a pump that may run.
    pub fn runnable(&self) -> Result<&Pipe, Refusal> {
        let pipe = self.usable()?;
        if self.component.is_endpoint() {
            let why = "entities flow when they are posted or asked for".to_owned();
            return Err(Refusal::NoPump(pipe.id.clone(), why));
        }
        if self
            .component
            .pump()
            .map()
            .get("mode")
            .is_some_and(|mode| mode == "off")
        {
            return Err(Refusal::NoPump(
                pipe.id.clone(),
                "its mode is \"off\"".to_owned(),
            ));
        }
        Ok(pipe)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|lock| lock.into_inner())
}
