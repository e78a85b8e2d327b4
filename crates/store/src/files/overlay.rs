//! What the index does not hold yet: changes of the latest commits, and undone state for readers.

use std::collections::{BTreeMap, VecDeque};

use crate::rule::Prior;

/// Changes since the index was last written. Looked at before the index, written out with it.
#[derive(Default)]
pub(crate) struct Overlay {
    /// Index key of an id to its latest version; `None` means that the id was removed.
    pub latest: BTreeMap<Box<[u8]>, Option<Prior>>,
    /// Whole state key to its value; `None` means removed.
    pub state: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Bytes of state, which can be large.
    pub state_bytes: usize,
    /// What state keys held before a commit, oldest commit first, for snapshots older than it.
    undo: VecDeque<Undo>,
}

struct Undo {
    commit: u64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Overlay {
    pub fn set_latest(&mut self, key: &[u8], version: Option<Prior>) {
        match self.latest.get_mut(key) {
            Some(known) => *known = version,
            None => {
                self.latest.insert(key.into(), version);
            }
        }
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

    /// Takes over what `other` remembers of commits up to `commit`.
    pub fn keep(&mut self, other: &mut Overlay, commit: u64) {
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

    /// How much the index would have to take: changed ids and state keys.
    pub fn len(&self) -> usize {
        self.latest.len() + self.state.len()
    }

    /// The index holds everything now.
    pub fn written(&mut self) {
        self.latest.clear();
        self.state.clear();
        self.state_bytes = 0;
    }
}
