//! A thread that makes commits durable while their writers go on, and writes indexes when idle.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::dataset::OpenDataset;

/// How long a dataset must be quiet before its index is written.
const IDLE: Duration = Duration::from_secs(1);
/// A busy dataset's declared indexes are brought up to its log when they miss more versions.
const BEHIND: u64 = 16_384;

/// The thread's handle; dropping it ends the thread.
pub(crate) struct Committer {
    pub queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// Datasets that were written to, each at most once however often it was.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    written: HashMap<usize, Weak<OpenDataset>>,
    ended: bool,
}

impl Committer {
    pub fn start() -> std::io::Result<Committer> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("store-sync".to_owned());
        let thread = thread.spawn({
            let queue = Arc::clone(&queue);
            move || run(&queue)
        })?;
        Ok(Committer {
            queue,
            thread: Some(thread),
        })
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.changed.notify_one();
        // A panic in the thread was reported when it happened; tickets sync without it.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Queue {
    /// Tells the thread that `dataset` was written to. Once the thread has ended, the tickets
    /// are left to sync, as they do whenever they are waited for before the thread gets there.
    pub fn push(&self, dataset: &Arc<OpenDataset>) {
        let mut state = self.lock();
        if !state.ended {
            state
                .written
                .insert(Arc::as_ptr(dataset) as usize, Arc::downgrade(dataset));
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for written datasets, or until `wait` is over; `None` when the thread has to end.
    fn take(&self, wait: Option<Duration>) -> Option<HashMap<usize, Weak<OpenDataset>>> {
        let mut state = self.lock();
        let idle = |state: &mut State| state.written.is_empty() && !state.ended;
        match wait {
            None => {
                state = self
                    .changed
                    .wait_while(state, idle)
                    .unwrap_or_else(PoisonError::into_inner)
            }
            Some(wait) => {
                let waited = self.changed.wait_timeout_while(state, wait, idle);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        (!state.ended).then(|| std::mem::take(&mut state.written))
    }
}

fn run(queue: &Queue) {
    let mut restless: HashMap<usize, (Weak<OpenDataset>, Instant)> = HashMap::new();
    while let Some(written) = queue.take((!restless.is_empty()).then_some(IDLE / 2)) {
        for (key, dataset) in written {
            if let Some(open) = dataset.upgrade() {
                open.sync();
                open.index_on(BEHIND);
                restless.insert(key, (dataset, Instant::now()));
            }
        }
        restless.retain(|_, (dataset, since)| {
            if since.elapsed() < IDLE {
                return true;
            }
            if let Some(open) = dataset.upgrade() {
                open.rest();
                open.index_on(0);
            }
            false
        });
    }
}
