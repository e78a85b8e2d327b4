//! A thread that makes commits durable while their writers go on, and writes indexes when idle.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::dataset::OpenDataset;

/// How long a dataset must be quiet before its index is written.
const IDLE: Duration = Duration::from_secs(1);
/// How long one that is never quiet goes without: what the index lacks is read again after a crash,
/// and whoever commits waits while it is written.
const LONGEST: Duration = Duration::from_secs(10);

/// The thread's handle; dropping it ends the thread.
pub(crate) struct Committer {
    pub queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// Datasets that were written to, each at most once however often it was, with the moment at which
/// its newest commit has to be on its way to the disk.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    written: HashMap<usize, (Weak<OpenDataset>, Instant)>,
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
    /// Tells the thread that `dataset` was written to and has to be durable `delay` from now. Once
    /// the thread has ended, the tickets are left to sync, as they do whenever they are waited for
    /// before the thread gets there.
    pub fn push(&self, dataset: &Arc<OpenDataset>, delay: Duration) {
        let mut state = self.lock();
        if !state.ended {
            let due = Instant::now() + delay;
            let known = state.written.entry(Arc::as_ptr(dataset) as usize);
            let known = known.or_insert_with(|| (Arc::downgrade(dataset), due));
            known.1 = known.1.min(due);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for written datasets that are due, or until `wait` is over; `None` when the thread has
    /// to end.
    fn take(&self, wait: Option<Duration>) -> Option<Vec<(usize, Weak<OpenDataset>)>> {
        let until = wait.map(|wait| Instant::now() + wait);
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            let now = Instant::now();
            let due = state.written.extract_if(|_, (_, due)| *due <= now);
            let due: Vec<_> = due.map(|(key, (dataset, _))| (key, dataset)).collect();
            if !due.is_empty() || until.is_some_and(|until| until <= now) {
                return Some(due);
            }
            let next = state.written.values().map(|(_, due)| *due).chain(until);
            let next = next.min();
            state = match next {
                None => self.changed.wait(state),
                Some(next) => {
                    let waited = self.changed.wait_timeout(state, next - now);
                    waited
                        .map(|(state, _)| state)
                        .map_err(|lock| PoisonError::new(lock.into_inner().0))
                }
            }
            .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A dataset whose index may be behind.
struct Restless {
    dataset: Weak<OpenDataset>,
    /// The first and the last commit that its index may lack.
    since: Instant,
    last: Instant,
}

fn run(queue: &Queue) {
    let mut restless: HashMap<usize, Restless> = HashMap::new();
    while let Some(written) = queue.take((!restless.is_empty()).then_some(IDLE / 2)) {
        for (key, dataset) in written {
            if let Some(open) = dataset.upgrade() {
                open.sync();
                open.index_on(false);
                let now = Instant::now();
                let since = restless.get(&key).map_or(now, |known| known.since);
                let last = now;
                restless.insert(
                    key,
                    Restless {
                        dataset,
                        since,
                        last,
                    },
                );
            }
        }
        restless.retain(|_, known| {
            if known.last.elapsed() < IDLE && known.since.elapsed() < LONGEST {
                return true;
            }
            if let Some(open) = known.dataset.upgrade() {
                open.rest();
                open.index_on(true);
            }
            false
        });
    }
}
