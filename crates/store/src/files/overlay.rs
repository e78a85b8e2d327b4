//! What the index does not hold yet: changes of the latest commits, and undone state for readers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::changed::Changed;
use crate::rule::Prior;

/// Changes since the index was last written. Looked at before the index, written out with it.
#[derive(Default)]
pub(crate) struct Overlay {
    /// Index key of an id to its latest version; `None` means that the id was removed.
    pub latest: Changed,
    /// Whether ids were removed, also those that came again.
    pub removes: bool,
    /// Whole state key to its value; `None` means removed.
    pub state: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Bytes of state, which can be large.
    pub state_bytes: usize,
    /// What state keys held before a commit, oldest commit first, for snapshots older than it.
    undo: VecDeque<Undo>,
    share: Share,
}

/// How many keys wait for their index, in all datasets of a store together.
#[derive(Default)]
struct Share {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Share {
    fn set(&mut self, own: usize) {
        self.all.fetch_add(own, Ordering::Relaxed);
        self.all.fetch_sub(self.own, Ordering::Relaxed);
        self.own = own;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

struct Undo {
    commit: u64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Overlay {
    pub fn set_latest(&mut self, key: &[u8], version: Option<Prior>) {
        self.removes |= version.is_none();
        self.latest.set(key, version);
    }

    pub fn set_state(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.state_bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.state.insert(key, value);
    }

    pub fn remember(&mut self, commit: u64, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.undo.push_back(Undo { commit, key, value });
    }

    /// Forgets what no snapshot at or after `oldest` needs.
    pub fn forget(&mut self, oldest: u64) {
        while self.undo.front().is_some_and(|undo| undo.commit <= oldest) {
            self.undo.pop_front();
        }
    }

    /// Takes the place of `other`, with what that remembers of commits up to `commit`.
    pub fn keep(&mut self, other: &mut Overlay, commit: u64) {
        std::mem::swap(&mut self.share, &mut other.share);
        self.count();
        let undo = std::mem::take(&mut other.undo);
        self.undo = undo
            .into_iter()
            .filter(|undo| undo.commit <= commit)
            .collect();
    }

    /// Turns `rows`, the newest state under `prefix`, into what it was after `commit`.
    pub fn rewind(&self, commit: u64, prefix: &[u8], rows: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        let later = self
            .undo
            .iter()
            .rev()
            .take_while(|undo| undo.commit > commit);
        for undo in later.filter(|undo| undo.key.starts_with(prefix)) {
            match &undo.value {
                Some(value) => rows.insert(undo.key.clone(), value.clone()),
                None => rows.remove(&undo.key),
            };
        }
    }

    /// From now on what is here counts in `all`.
    pub fn join(&mut self, all: &Arc<AtomicUsize>) {
        self.share = Share {
            all: Arc::clone(all),
            own: 0,
        };
        self.count();
    }

    /// Tells the store how much there is now.
    pub fn count(&mut self) {
        self.share.set(self.len());
    }

    /// Whether the index has to take what is here before there may be more: it holds `most` keys,
    /// or a sixteenth of what `all` datasets together may hold and they hold that.
    pub fn is_full(&self, most: usize, all: usize) -> bool {
        let crowded = self.share.all.load(Ordering::Relaxed) >= all && self.len() >= all / 16;
        self.len() >= most || crowded
    }

    /// How much the index would have to take: changed ids and state keys.
    pub fn len(&self) -> usize {
        self.latest.len() + self.state.len()
    }

    /// The index holds everything now.
    pub fn written(&mut self) {
        self.latest = Changed::default();
        self.removes = false;
        self.state.clear();
        self.state_bytes = 0;
        self.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_hold_together_counts_until_it_is_written_or_gone() {
        let all = Arc::default();
        let of = |keys: u64| {
            let mut overlay = Overlay::default();
            for key in 0..keys {
                overlay.set_latest(&key.to_be_bytes(), None);
            }
            overlay.join(&all);
            overlay
        };
        let (mut one, small) = (of(90), of(5));
        assert!(!one.is_full(100, 160));
        assert!(one.is_full(90, 160), "it holds as many as it may");
        let other = of(65);
        assert!(one.is_full(100, 160), "all hold as many as they may");
        assert!(!small.is_full(100, 160), "one that holds little is spared");
        drop(other);
        assert!(!one.is_full(100, 160));
        let another = of(65);
        assert!(another.is_full(100, 160));
        one.written();
        assert!(!another.is_full(100, 160));
    }
}
