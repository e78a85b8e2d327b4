//! A thread that builds declared indexes and keeps them near their logs.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use super::dataset::OpenDataset;
use crate::StoreError;

/// The thread's handle; dropping it ends the thread.
pub(crate) struct Indexer {
    pub queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// Datasets whose indexes have something to do, each at most once.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: HashMap<usize, Waiting>,
    ended: bool,
}

/// A dataset, and whether it has gone quiet, so that what is in memory is to be written.
type Waiting = (Weak<OpenDataset>, bool);

impl Indexer {
    pub fn start() -> std::io::Result<Indexer> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("store-index".to_owned());
        let thread = thread.spawn({
            let queue = Arc::clone(&queue);
            move || run(&queue)
        })?;
        Ok(Indexer {
            queue,
            thread: Some(thread),
        })
    }

    /// Ends the thread, after the step that it is at.
    pub fn end(&mut self) {
        self.queue.lock().ended = true;
        self.queue.changed.notify_one();
        // What the thread left undone is done when the store is opened again.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Queue {
    /// Has the indexes of `dataset` brought up to its log; written, too, where it is `quiet` and
    /// that is worth it.
    pub fn push(&self, dataset: &Arc<OpenDataset>, quiet: bool) {
        let mut state = self.lock();
        if !state.ended {
            let key = Arc::as_ptr(dataset) as usize;
            let waiting = state.waiting.entry(key);
            let waiting = waiting.or_insert_with(|| (Arc::downgrade(dataset), false));
            waiting.1 |= quiet;
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> bool {
        self.lock().ended
    }

    /// Waits for datasets; `None` when the thread has to end.
    fn take(&self) -> Option<HashMap<usize, Waiting>> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.ended;
        let state = self.changed.wait_while(self.lock(), idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        (!state.ended).then(|| std::mem::take(&mut state.waiting))
    }
}

fn run(queue: &Queue) {
    while let Some(waiting) = queue.take() {
        // One step of each in turn, so that a large one keeps nobody waiting.
        let mut busy = waiting;
        while !busy.is_empty() && !queue.ended() {
            busy.retain(|_, (dataset, quiet)| {
                dataset.upgrade().is_some_and(|open| step(&open, *quiet))
            });
            let more = std::mem::take(&mut queue.lock().waiting);
            for (key, (dataset, quiet)) in more {
                busy.entry(key).or_insert((dataset, false)).1 |= quiet;
            }
        }
    }
}

/// Whether there is more to do. What fails is met again by whoever asks the index.
fn step(open: &Arc<OpenDataset>, quiet: bool) -> bool {
    let step = catch_unwind(AssertUnwindSafe(|| {
        let more = open.keyed.advance(open, quiet)?;
        if quiet && !more {
            open.condense(false)?;
        }
        Ok::<bool, StoreError>(more)
    }));
    matches!(step, Ok(Ok(true)))
}
