//! A pipe of the running configuration, and what is known of its runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use tahini_dtl::Index;

use crate::config::Component;
use crate::execution_log::Summary;
use crate::pipe::Pipe;
use crate::receiver::Receiving;
use crate::totals::Totals;
use crate::{Cancel, Failure};

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

/// A pipe with what is known of its runs.
pub struct LivePipe {
    /// The component as configured.
    pub component: Component,
    /// Its settings; why not, where they cannot be read.
    pub pipe: Result<Pipe, String>,
    /// The indexes that it wants.
    pub indexes: Vec<Arc<Index>>,
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
    pub(super) receiving: Arc<Mutex<Receiving>>,
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
    /// When old versions were removed last.
    pub(crate) compacted: crate::compaction::Last,
    /// Disabled by hand, with the comment.
    pub disabled: Option<String>,
}

impl LiveState {
    /// The schedule says when the next run is.
    pub(crate) fn due(&mut self, next: Option<Timestamp>) {
        if self.next != next {
            self.previous = self.next;
            self.next = next;
        }
    }
}

impl LivePipe {
    /// The pipe's id.
    pub fn id(&self) -> &str {
        &self.component.id
    }

    /// A copy of what is known of its runs.
    pub fn state(&self) -> LiveState {
        self.lock().clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LiveState> {
        lock(&self.shared.state)
    }

    /// Keeps runs from beginning, until the guard is dropped.
    pub(crate) fn hold_place(&self) -> MutexGuard<'_, ()> {
        lock(&self.shared.place)
    }

    /// Stops the run that is under way and lets no more begin.
    pub(super) fn retire(&self) {
        let state = self.lock();
        self.retired.store(true, Ordering::SeqCst);
        state.cancel.cancel();
    }

    /// Whether another configuration of the pipe took the place of this one.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Asks for one more run after the one that is under way; `false` when none is.
    pub(crate) fn ask_again(&self, rescan: bool) -> bool {
        let mut state = self.lock();
        if state.running {
            state.signalled = true;
            state.rescan_pending |= rescan;
        }
        state.running
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|lock| lock.into_inner())
}
