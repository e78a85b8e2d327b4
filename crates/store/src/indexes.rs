//! Declared indexes: versions by keys that somebody else finds in them.
//!
//! The store knows neither why an index is wanted nor how its keys come about. It reads a dataset's
//! versions in order and keeps, under every key, which versions have it and which ones are the first
//! of their id that have it no more. A version's keys never change, so nothing of that is ever
//! rewritten; what was superseded is left out when somebody asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tahini_entity::Record;

use crate::Seq;

/// Finds the keys of a version and appends them, in any order. Equal versions have equal keys,
/// whenever they are asked for; two values that only share a key are told apart by the reader.
pub type Keys = dyn Fn(Record<'_>, &mut Vec<u128>) + Send + Sync;

/// The declared indexes of all datasets, by the datasets' names.
pub type Declared = BTreeMap<String, Vec<IndexDef>>;

/// An index that somebody wants.
#[derive(Clone)]
pub struct IndexDef {
    /// What it is known by: equal fingerprints mean equal keys, also after a restart.
    pub fingerprint: String,
    /// Finds the keys of a version.
    pub keys: Arc<Keys>,
}

impl fmt::Debug for IndexDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexDef({})", self.fingerprint)
    }
}

/// How far an index is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexState {
    /// Its number in the dataset; one that is built anew gets another.
    pub number: u32,
    /// What it was declared as.
    pub fingerprint: String,
    /// Whether it answers. One that does not is being built.
    pub ready: bool,
    /// The versions before this sequence are in it.
    pub next: Seq,
    /// How many keys of versions it holds, superseded ones included.
    pub entries: u64,
}

/// What a reader asks of an index.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Also versions that were superseded later.
    pub history: bool,
    /// Also versions that are the first of their id without the key, and those that may be.
    pub left: bool,
    /// Begins behind this sequence, in the direction of reading; `None`: at the end of the log
    /// where that begins.
    pub from: Option<Seq>,
    /// Newest first.
    pub reversed: bool,
    /// How many hits of each key at most; below 1 counts as 1.
    pub limit: usize,
}

impl Ask {
    /// The latest versions that have a key.
    pub const LATEST: Ask = Ask {
        history: false,
        left: false,
        from: None,
        reversed: false,
        limit: usize::MAX,
    };

    /// The first version that may be one that left a key, where those are asked for.
    pub(crate) fn leaves_from(&self) -> Option<Seq> {
        let behind = self.from.filter(|_| !self.reversed);
        self.left
            .then(|| behind.map_or(0, |from| from.saturating_add(1)))
    }

    /// Whether a version at `seq` comes behind `from`.
    pub(crate) fn reaches(&self, seq: Seq) -> bool {
        match self.from {
            None => true,
            Some(from) if self.reversed => seq < from,
            Some(from) => seq > from,
        }
    }
}

/// A version that an index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The place of the key among those that were asked for.
    pub of: usize,
    /// The version; it may be gone, where compaction took it.
    pub seq: Seq,
    /// It does not have the key, and the version of its id before it may have had it.
    pub left: bool,
    /// A newer version of its id is there.
    pub superseded: bool,
}

/// Stands for the keys of versions that nobody can read any more: whoever follows a key has to look
/// at what left this one.
pub(crate) const UNKNOWN: u128 = u128::MAX;

/// The keys of the version before, as far as there was one.
pub(crate) enum Before<'a> {
    Nothing,
    Keys(&'a [u128]),
    /// There was one, and compaction took it.
    Gone,
}

/// Calls `put` with each key of a version and `false`, and with each one that it has no more and
/// `true`.
pub(crate) fn marks(keys: &mut Vec<u128>, before: Before<'_>, mut put: impl FnMut(u128, bool)) {
    keys.sort_unstable();
    keys.dedup();
    keys.iter().for_each(|key| put(*key, false));
    match before {
        Before::Nothing => {}
        Before::Gone => put(UNKNOWN, true),
        Before::Keys(old) => {
            let lost = old.iter().filter(|key| keys.binary_search(key).is_err());
            lost.for_each(|key| put(*key, true));
        }
    }
}

/// Puts what was found under a key and under the unknown one together, as `ask` wants it.
pub(crate) fn merge(hits: &mut Vec<Hit>, ask: &Ask) {
    // A version that has the key comes before itself as one that may have lost it.
    hits.sort_by_key(|hit| (hit.seq, hit.left));
    hits.dedup_by_key(|hit| hit.seq);
    if ask.reversed {
        hits.reverse();
    }
    hits.truncate(ask.limit.max(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: &[u128], before: Before<'_>) -> Vec<(u128, bool)> {
        let mut all = Vec::new();
        marks(&mut keys.to_vec(), before, |key, left| {
            all.push((key, left))
        });
        all
    }

    #[test]
    fn what_is_lost_is_marked() {
        assert_eq!(of(&[2, 1, 2], Before::Nothing), [(1, false), (2, false)]);
        assert_eq!(of(&[2], Before::Keys(&[1, 2])), [(2, false), (1, true)]);
        assert_eq!(of(&[], Before::Gone), [(UNKNOWN, true)]);
    }
}
