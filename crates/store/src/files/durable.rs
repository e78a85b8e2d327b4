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

impl View {
    /// The same, from where commits are held back.
    pub fn before_held(&self) -> View {
        View {
            commit: self.commit,
            head: Head {
                holds: true,
                ..self.head.clone()
            },
            superseded: self.superseded.clone(),
            segment: Arc::clone(&self.segment),
            end: self.end,
        }
    }
}

/// The newest durable view, and those that wait for the disk.
pub(crate) struct Durable {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The newest durable view.
    published: Arc<View>,
    /// The newest durable view that is not held back: what readers see.
    visible: Arc<View>,
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
    /// `visible` is what readers see where it is not `view`.
    pub fn new(view: View, visible: Option<View>) -> Durable {
        let published = Arc::new(view);
        let state = State {
            visible: visible.map_or_else(|| Arc::clone(&published), Arc::new),
            published,
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

    /// The newest durable view, counted as read until `leave`; with what is held back where
    /// `uncommitted` says so.
    pub fn enter(&self, uncommitted: bool) -> Arc<View> {
        let mut state = self.lock();
        let view = Arc::clone(if uncommitted {
            &state.published
        } else {
            &state.visible
        });
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

    /// The newest durable view that readers see.
    pub fn visible(&self) -> Arc<View> {
        Arc::clone(&self.lock().visible)
    }

    /// The newest view that readers see or will see when it is durable.
    pub fn shown(&self) -> Arc<View> {
        let state = self.lock();
        let shown = state.pending.iter().rev().find(|view| !view.head.holds);
        Arc::clone(shown.unwrap_or(&state.visible))
    }

    /// Begins anew at `view`, after what was held back is gone.
    pub fn restart(&self, view: View) {
        let mut state = self.lock();
        state.pending.clear();
        state.published = Arc::new(view);
        state.visible = Arc::clone(&state.published);
    }

    /// The oldest commit at which somebody reads or may begin to.
    pub fn oldest(&self) -> u64 {
        let state = self.lock();
        let visible = state.visible.commit;
        state
            .readers
            .keys()
            .next()
            .map_or(visible, |oldest| visible.min(*oldest))
    }

    /// The newest durable view, and the next sequence of the oldest view that somebody reads or
    /// may begin to read.
    pub fn standing(&self) -> (Arc<View>, Seq) {
        let state = self.lock();
        let next = state.visible.head.next;
        let oldest = state.readers.values().next();
        let oldest = oldest.map_or(next, |(_, oldest)| next.min(*oldest));
        (Arc::clone(&state.published), oldest)
    }

    /// Replaces the newest view by one of the same commit, all of whose commits are durable.
    pub fn refresh(&self, view: View) {
        let mut state = self.lock();
        if state.pending.is_empty() && state.published.commit == view.commit {
            state.publish(Arc::new(view));
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
            let passed = self.pending.pop_front();
            self.visible = passed
                .filter(|passed| !passed.head.holds)
                .unwrap_or_else(|| Arc::clone(&self.visible));
        }
        if !view.head.holds {
            self.visible = Arc::clone(&view);
        } else if !self.visible.head.holds {
            self.visible = Arc::new(self.visible.before_held());
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
