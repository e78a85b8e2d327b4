//! What readers may see: commits become visible when they are durable, several at a time.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::segment::Segment;
use super::superseded::Superseded;
use crate::{Head, Seq, StoreError};

/// A dataset after one commit.
pub(crate) struct View {
    pub commit: u64,
    pub head: Head,
    pub superseded: Superseded,
    /// The segment that the commit was written to, and where its frame ends.
    pub segment: Arc<Segment>,
    pub end: u64,
}

/// The newest durable view, and those that wait for the disk.
pub(crate) struct Durable {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    published: Arc<View>,
    pending: VecDeque<Arc<View>>,
    syncing: bool,
    failed: Option<Failed>,
    /// Commits at which snapshots stand, how many at each, and the next sequence there.
    readers: BTreeMap<u64, (usize, Seq)>,
}

#[derive(Clone)]
struct Failed {
    what: String,
    kind: io::ErrorKind,
    message: String,
}

impl Failed {
    fn error(&self) -> StoreError {
        StoreError::Io {
            what: format!(
                "{} (the dataset is closed until it is opened anew)",
                self.what
            ),
            source: io::Error::new(self.kind, self.message.clone()),
        }
    }
}

impl Durable {
    pub fn new(view: View) -> Durable {
        let state = State {
            published: Arc::new(view),
            pending: VecDeque::new(),
            syncing: false,
            failed: None,
            readers: BTreeMap::new(),
        };
        Durable {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a view that was written and waits for the disk.
    pub fn push(&self, view: View) {
        self.lock().pending.push_back(Arc::new(view));
    }

    /// Waits until `commit` is durable. Whoever comes first syncs for all that were written by
    /// then; the others wait for that one, and the next of them syncs for the rest.
    ///
    /// # Errors
    /// When a sync failed, now or before: it is never tried again, since the system may have
    /// dropped the pages that it could not write and would then report success.
    pub fn reach(&self, commit: u64) -> Result<(), StoreError> {
        let mut state = self.lock();
        while state.published.commit < commit {
            if let Some(failed) = &state.failed {
                return Err(failed.error());
            }
            if state.syncing {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let Some(target) = state.pending.back().cloned() else {
                return Ok(());
            };
            state.syncing = true;
            drop(state);
            let synced = target.segment.file.sync();
            state = self.lock();
            state.syncing = false;
            match synced {
                Ok(()) => state.publish(target),
                Err(error) => state.fail(&target.segment, &error),
            }
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Waits until everything that was written is durable.
    pub fn reach_all(&self) -> Result<(), StoreError> {
        let newest = self.lock().newest();
        self.reach(newest)
    }

    /// The newest durable view, counted as read until `leave`.
    pub fn enter(&self) -> Arc<View> {
        let mut state = self.lock();
        let view = Arc::clone(&state.published);
        let standing = state.readers.entry(view.commit).or_default();
        *standing = (standing.0 + 1, view.head.next);
        view
    }

    /// A snapshot at `commit` is gone.
    pub fn leave(&self, commit: u64) {
        let mut state = self.lock();
        if let Some((count, _)) = state.readers.get_mut(&commit) {
            *count -= 1;
            if *count == 0 {
                state.readers.remove(&commit);
            }
        }
    }

    /// The newest durable view, for a look.
    pub fn published(&self) -> Arc<View> {
        Arc::clone(&self.lock().published)
    }

    /// The oldest commit at which somebody reads or may begin to.
    pub fn oldest(&self) -> u64 {
        let state = self.lock();
        let published = state.published.commit;
        state
            .readers
            .keys()
            .next()
            .map_or(published, |oldest| published.min(*oldest))
    }

    /// The newest durable view, and the next sequence of the oldest view that somebody reads or
    /// may begin to read.
    pub fn standing(&self) -> (Arc<View>, Seq) {
        let state = self.lock();
        let next = state.published.head.next;
        let oldest = state.readers.values().next();
        let oldest = oldest.map_or(next, |(_, oldest)| next.min(*oldest));
        (Arc::clone(&state.published), oldest)
    }

    /// Replaces the newest view by one of the same commit, all of whose commits are durable.
    pub fn refresh(&self, view: View) {
        let mut state = self.lock();
        if state.pending.is_empty() && state.published.commit == view.commit {
            state.published = Arc::new(view);
        }
    }

    /// Stops all further commits.
    pub fn fail(&self, segment: &Segment, error: &io::Error) {
        self.lock().fail(segment, error);
        self.changed.notify_all();
    }

    /// The error that stopped commits, if there was one.
    pub fn check(&self) -> Result<(), StoreError> {
        self.lock()
            .failed
            .as_ref()
            .map_or(Ok(()), |failed| Err(failed.error()))
    }
}

impl State {
    fn newest(&self) -> u64 {
        self.pending
            .back()
            .map_or(self.published.commit, |view| view.commit)
    }

    fn publish(&mut self, view: Arc<View>) {
        while self
            .pending
            .front()
            .is_some_and(|waiting| waiting.commit <= view.commit)
        {
            self.pending.pop_front();
        }
        self.published = view;
    }

    fn fail(&mut self, segment: &Segment, error: &io::Error) {
        self.failed.get_or_insert_with(|| Failed {
            what: format!("writing {}", segment.path.display()),
            kind: error.kind(),
            message: error.to_string(),
        });
    }
}
